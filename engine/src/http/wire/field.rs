//! One field of a request: its text into a checked type, or a problem naming it.

use std::borrow::Cow;

use rust_decimal::Decimal;

use super::super::code::ErrorCode;
use super::super::json::{self, Field, Fields, NotJson};
use super::super::problem::{Fallible, Problem};
use crate::domain::account::MinBalance;
use crate::domain::{AccountId, CurrencyCode, DecimalAmount, InvalidAmount};

/// In an idempotency key.
pub(in crate::http) const KEY_BYTES_MAX: usize = 255;
/// In a reference, an account's name and owner; `sql/` checks the latter two.
pub(in crate::http) const TEXT_CHARS_MAX: usize = 255;
/// In a category.
pub(in crate::http) const CATEGORY_CHARS_MAX: usize = 64;

/// The fields of a body.
pub(in crate::http) fn object(text: &str) -> Fallible<Fields<'_>> {
    json::object(text).map_err(not_json)
}

pub(in crate::http) fn not_json(fault: NotJson) -> Box<Problem> {
    let detail: Cow<'static, str> = match fault {
        NotJson::Syntax { line, column } => format!(
            "The body is not valid JSON at line {line}, column {column}. Nothing was done. \
             Correct the body and send it again."
        )
        .into(),
        NotJson::NotAnObject => "A JSON object was expected. Nothing was done.".into(),
        NotJson::NotAList => "A JSON list was expected. Nothing was done.".into(),
    };
    Problem::new(ErrorCode::InvalidJson, detail)
}

/// Puts a field's text in its place, which must be empty still.
pub(in crate::http) fn take<'a>(place: &mut Option<&'a str>, field: &Field<'a>) -> Fallible<()> {
    match place.replace(field.value) {
        None => Ok(()),
        Some(_) => Err(Problem::field(
            ErrorCode::InvalidJson,
            shown_name(&field.name),
            "The field is there twice, so it is unclear which one is meant. Nothing was done.",
        )),
    }
}

pub(in crate::http) fn unknown(field: &Field<'_>) -> Box<Problem> {
    Problem::field(
        ErrorCode::UnknownField,
        shown_name(&field.name),
        "The field is not known here, and ignoring it might do something else than was meant. \
         Nothing was done. Remove or correct it.",
    )
}

/// A stranger's name is shown, but not at any length.
fn shown_name(name: &str) -> String {
    name.chars().take(64).collect()
}

/// An account id: digits only.
pub(in crate::http) fn account_id(name: &'static str, raw: Option<&str>) -> Fallible<AccountId> {
    let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
    raw.filter(digits)
        .and_then(|text| text.parse().ok())
        .and_then(|id| AccountId::new(id).ok())
        .ok_or_else(|| {
            Problem::field(
                ErrorCode::InvalidAccount,
                name,
                "An account id is a whole number from 0 to 9007199254740991. Nothing was done.",
            )
        })
}

/// An amount: a number, or a string holding one.
pub(in crate::http) fn amount(raw: Option<&str>) -> Fallible<DecimalAmount> {
    raw.ok_or(InvalidAmount::NotANumber)
        .and_then(|raw| DecimalAmount::parse(&number_text(raw)?))
        .map_err(|invalid| {
            let advice = invalid.advice();
            Problem::field(
                ErrorCode::InvalidAmount,
                "amount",
                format!("The amount cannot be moved: {advice}. Nothing was done."),
            )
        })
}

/// A limit: null, or a decimal of either sign, zero included.
pub(in crate::http) fn min_balance(raw: &str) -> Fallible<MinBalance> {
    if raw == "null" {
        return Ok(MinBalance::Unlimited);
    }
    signed_decimal(raw)
        .map(MinBalance::AtLeast)
        .map_err(|invalid| {
            let advice = match invalid {
                InvalidAmount::TooManyDigits => invalid.advice(),
                InvalidAmount::NotANumber
                | InvalidAmount::Zero
                | InvalidAmount::Negative
                | InvalidAmount::TooPrecise
                | InvalidAmount::TooLarge => {
                    "send a JSON number, a string of decimal digits, or null for no limit"
                }
            };
            Problem::field(
                ErrorCode::InvalidAmount,
                "min_balance",
                format!("The limit cannot be used: {advice}. Nothing was done."),
            )
        })
}

fn signed_decimal(raw: &str) -> Result<Decimal, InvalidAmount> {
    let text = number_text(raw)?;
    let (magnitude, negative) = match text.strip_prefix('-') {
        Some(magnitude) => (magnitude, true),
        None => (&*text, false),
    };
    match DecimalAmount::parse(magnitude) {
        Ok(amount) if negative => Ok(-amount.decimal()),
        Ok(amount) => Ok(amount.decimal()),
        Err(InvalidAmount::Zero) => Ok(Decimal::ZERO),
        // A second sign.
        Err(InvalidAmount::Negative) => Err(InvalidAmount::NotANumber),
        Err(
            invalid @ (InvalidAmount::NotANumber
            | InvalidAmount::TooManyDigits
            | InvalidAmount::TooPrecise
            | InvalidAmount::TooLarge),
        ) => Err(invalid),
    }
}

fn number_text(raw: &str) -> Result<Cow<'_, str>, InvalidAmount> {
    match raw.as_bytes().first() {
        Some(b'"') => json::text(raw).or(Err(InvalidAmount::NotANumber)),
        Some(b'-' | b'0'..=b'9') => Ok(Cow::Borrowed(raw)),
        Some(_) | None => Err(InvalidAmount::NotANumber),
    }
}

/// Text to a number of characters.
pub(in crate::http) fn text(name: &'static str, raw: &str, chars_max: usize) -> Fallible<String> {
    let text = json::text(raw).map_err(|fault| bad_field(name, fault.advice()))?;
    check_text(name, text, chars_max)
}

/// The same for text that was not JSON.
pub(in crate::http) fn check_text(
    name: &'static str,
    text: Cow<'_, str>,
    chars_max: usize,
) -> Fallible<String> {
    // A character has a byte at least, so most texts are not counted.
    if chars_max < text.len() && chars_max < text.chars().count() {
        return Err(bad_field(
            name,
            &format!("it is longer than {chars_max} characters"),
        ));
    }
    if text.contains('\0') {
        return Err(bad_field(name, json::NotText::Nul.advice()));
    }
    Ok(text.into_owned())
}

/// Text, or null for none.
pub(in crate::http) fn nullable_text(name: &'static str, raw: &str) -> Fallible<Option<String>> {
    if raw == "null" {
        return Ok(None);
    }
    text(name, raw, TEXT_CHARS_MAX).map(Some)
}

/// Three capital letters.
pub(in crate::http) fn currency(raw: &str) -> Fallible<CurrencyCode> {
    let letters = json::text(raw).ok();
    letters
        .and_then(|letters| CurrencyCode::parse(&letters))
        .ok_or_else(|| {
            bad_field(
                "currency",
                "it must be three capital letters, such as \"USD\"",
            )
        })
}

pub(in crate::http) fn boolean(name: &'static str, raw: &str) -> Fallible<bool> {
    match raw {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(bad_field(name, "it must be true or false")),
    }
}

/// The text of an idempotency key: 1 to 255 visible ASCII characters.
pub(in crate::http) fn check_key(text: &str) -> Fallible<()> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if visible && (1..=KEY_BYTES_MAX).contains(&text.len()) {
        Ok(())
    } else {
        Err(Problem::new(
            ErrorCode::InvalidIdempotencyKey,
            "An idempotency key has 1 to 255 visible ASCII characters, without spaces. \
             Nothing was done.",
        ))
    }
}

pub(in crate::http) fn bad_field(name: &'static str, advice: &str) -> Box<Problem> {
    Problem::field(
        ErrorCode::InvalidParameter,
        name,
        format!("{name} cannot be used: {advice}. Nothing was done."),
    )
}

pub(in crate::http) fn missing(name: &'static str) -> Box<Problem> {
    bad_field(name, "it is missing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_account(raw: Option<&str>, expected: Option<i64>) {
        let found = account_id("from", raw);
        assert_eq!(found.as_ref().ok().map(|id| id.get()), expected, "{raw:?}");
        if let Err(problem) = found {
            assert_eq!(problem.code, ErrorCode::InvalidAccount);
        }
    }

    #[test]
    fn account_ids_are_plain_whole_numbers() {
        check_account(Some("0"), Some(0));
        check_account(Some("9007199254740991"), Some(9_007_199_254_740_991));
        for raw in [
            "9007199254740992",
            "-1",
            "-0",
            "1.0",
            "1e0",
            "\"1\"",
            "null",
            "true",
            "[]",
            "",
            "99999999999999999999",
        ] {
            check_account(Some(raw), None);
        }
        check_account(None, None);
    }

    #[track_caller]
    fn check_limit(raw: &str, expected: Option<MinBalance>) {
        assert_eq!(min_balance(raw).ok(), expected, "{raw}");
    }

    #[test]
    fn a_limit_is_any_exact_decimal_or_null() {
        let at_least = |text: &str| Some(MinBalance::AtLeast(text.parse().unwrap()));
        check_limit("null", Some(MinBalance::Unlimited));
        check_limit("0", at_least("0"));
        check_limit("-0", at_least("0"));
        check_limit("-100.5", at_least("-100.5"));
        check_limit("\"-1\"", at_least("-1"));
        check_limit("1e2", at_least("100"));
        for raw in [
            "\"--1\"",
            "\"\"",
            "\"x\"",
            "1e40",
            "-1e-40",
            "92233720368547758.069999999999999999999e0",
            "-1234567890.0000000000000000000001e0",
            "true",
            "{}",
            "\"1\\u0000\"",
        ] {
            check_limit(raw, None);
        }
    }

    #[test]
    fn texts_are_bounded_in_characters_not_bytes() {
        let quoted = |count: usize| format!("\"{}\"", "ü".repeat(count));
        assert!(text("reference", &quoted(TEXT_CHARS_MAX), TEXT_CHARS_MAX).is_ok());
        let longer = text("reference", &quoted(TEXT_CHARS_MAX + 1), TEXT_CHARS_MAX);
        assert_eq!(longer.unwrap_err().code, ErrorCode::InvalidParameter);
        assert!(text("reference", "\"a\\u0000\"", TEXT_CHARS_MAX).is_err());
        assert_eq!(nullable_text("name", "null").unwrap(), None);
        assert!(nullable_text("name", "1").is_err());
    }

    #[test]
    fn keys_are_1_to_255_visible_characters() {
        assert!(check_key("k").is_ok());
        assert!(check_key(&"k".repeat(KEY_BYTES_MAX)).is_ok());
        for key in [
            "",
            " ",
            "a b",
            "a\tb",
            "é",
            "a\u{7f}",
            &"k".repeat(KEY_BYTES_MAX + 1),
        ] {
            let code = check_key(key).unwrap_err().code;
            assert_eq!(code, ErrorCode::InvalidIdempotencyKey, "{key}");
        }
    }
}
