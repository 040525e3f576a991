//! Transfers as sent: one, a batch, a reversal.

use std::borrow::Cow;

use super::super::code::ErrorCode;
use super::super::json;
use super::super::metadata;
use super::super::problem::{Fallible, Problem};
use super::field;
use crate::domain::fingerprint;
use crate::domain::{AccountId, CurrencyCode, DecimalAmount, Details, TransferId, TransferRequest};

/// In one batch call.
pub(in crate::http) const BATCH_TRANSFERS_MAX: usize = 8192;

/// Whether the transfers of a call stand or fall together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Mode {
    Separate,
    Atomic,
}

/// Who sends, and with which key, if one came in a header.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Sender<'a> {
    pub(in crate::http) principal: &'a str,
    pub(in crate::http) key: Option<&'a str>,
}

impl Sender<'_> {
    fn seal(self, mut request: TransferRequest) -> TransferRequest {
        if let Some(key) = self.key {
            request.key = Some(fingerprint::idempotency_key(self.principal, key, &request));
        }
        request
    }
}

/// The texts of a transfer's fields.
#[derive(Default)]
struct Raw<'a> {
    from: Option<&'a str>,
    to: Option<&'a str>,
    amount: Option<&'a str>,
    currency: Option<&'a str>,
    reference: Option<&'a str>,
    category: Option<&'a str>,
    metadata: Option<&'a str>,
    key: Option<&'a str>,
}

/// What may come in a transfer, besides its details.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Single,
    Item,
    Reversal,
}

/// The body of one transfer.
pub(in crate::http) fn single(text: &str, sender: Sender<'_>) -> Fallible<TransferRequest> {
    let raw = fields(text, Shape::Single)?;
    raw.request().map(|request| sender.seal(request))
}

/// How many transfers a batch call's body seems to hold, without parsing it: each
/// is an object, as is the whole. `None` if their details may hold others. Too
/// many by as many braces as there are in texts.
pub(in crate::http) fn batch_size(text: &str) -> Option<usize> {
    if text.contains("metadata") {
        return None;
    }
    // A byte counts a chunk of 255, which the compiler turns into vectors.
    let braces = |chunk: &[u8]| -> u8 { chunk.iter().map(|byte| u8::from(*byte == b'{')).sum() };
    let chunks = text.as_bytes().chunks(usize::from(u8::MAX));
    let objects: usize = chunks.map(|chunk| usize::from(braces(chunk))).sum();
    Some(objects.saturating_sub(1).min(BATCH_TRANSFERS_MAX))
}

/// The body of a batch call; a problem names the item's index.
pub(in crate::http) fn batch(
    text: &str,
    principal: &str,
) -> Fallible<(Vec<TransferRequest>, Mode)> {
    let (mut transfers, mut atomic) = (None, None);
    for part in &field::object(text)? {
        match &*part.name {
            "transfers" => field::take(&mut transfers, part)?,
            "atomic" => field::take(&mut atomic, part)?,
            _ => return Err(field::unknown(part)),
        }
    }
    let mode = match atomic
        .map(|raw| field::boolean("atomic", raw))
        .transpose()?
    {
        Some(true) => Mode::Atomic,
        Some(false) | None => Mode::Separate,
    };
    let transfers = transfers.ok_or_else(|| field::missing("transfers"))?;
    let count = || field::bad_field("transfers", "it must be a list of 1 to 8192 transfers");
    let items = json::list(transfers, BATCH_TRANSFERS_MAX)
        .map_err(|_fault| count())?
        .filter(|items| !items.is_empty())
        .ok_or_else(count)?;
    let item = |(index, text)| item(text, principal).map_err(|problem| problem.at(index));
    let requests: Fallible<Vec<_>> = items.into_iter().enumerate().map(item).collect();
    Ok((requests?, mode))
}

fn item(text: &str, principal: &str) -> Fallible<TransferRequest> {
    let raw = fields(text, Shape::Item)?;
    let key = raw.key.map(item_key).transpose()?;
    let sender = Sender {
        principal,
        key: key.as_deref(),
    };
    raw.request().map(|request| sender.seal(request))
}

fn item_key(raw: &str) -> Fallible<Cow<'_, str>> {
    // What is no string is no key either; the empty text stands for it.
    let key = json::text(raw).unwrap_or_default();
    match field::check_key(&key) {
        Ok(()) => Ok(key),
        Err(mut problem) => {
            problem.field = Some("idempotency_key".into());
            Err(problem)
        }
    }
}

/// The facts of a transfer that a reversal takes back.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Original {
    pub(in crate::http) id: TransferId,
    pub(in crate::http) debit_account_id: AccountId,
    pub(in crate::http) credit_account_id: AccountId,
    pub(in crate::http) amount: DecimalAmount,
    pub(in crate::http) currency: CurrencyCode,
}

/// The optional body of a reversal; checked before the original is looked up.
pub(in crate::http) fn reversal_details(text: &str) -> Fallible<Option<Box<Details>>> {
    fields(text, Shape::Reversal)?.details()
}

/// A reversal: the original with its sides swapped.
pub(in crate::http) fn reversal(
    original: &Original,
    details: Option<Box<Details>>,
    sender: Sender<'_>,
) -> TransferRequest {
    sender.seal(TransferRequest {
        debit_account_id: original.credit_account_id,
        credit_account_id: original.debit_account_id,
        amount: original.amount,
        currency: Some(original.currency),
        reverses: Some(original.id),
        key: None,
        details,
    })
}

fn fields(text: &str, shape: Shape) -> Fallible<Raw<'_>> {
    let mut raw = Raw::default();
    for part in &field::object(text)? {
        let place = match (&*part.name, shape) {
            ("from", Shape::Single | Shape::Item) => &mut raw.from,
            ("to", Shape::Single | Shape::Item) => &mut raw.to,
            ("amount", Shape::Single | Shape::Item) => &mut raw.amount,
            ("currency", Shape::Single | Shape::Item) => &mut raw.currency,
            ("idempotency_key", Shape::Item) => &mut raw.key,
            ("reference", _) => &mut raw.reference,
            ("category", _) => &mut raw.category,
            ("metadata", _) => &mut raw.metadata,
            _ => return Err(field::unknown(part)),
        };
        field::take(place, part)?;
    }
    Ok(raw)
}

impl Raw<'_> {
    fn request(&self) -> Fallible<TransferRequest> {
        let debit_account_id = field::account_id("from", self.from)?;
        let credit_account_id = field::account_id("to", self.to)?;
        if debit_account_id == credit_account_id {
            return Err(Problem::field(
                ErrorCode::SameAccount,
                "to",
                "A transfer needs two different accounts. Nothing was done.",
            ));
        }
        Ok(TransferRequest {
            debit_account_id,
            credit_account_id,
            amount: field::amount(self.amount)?,
            currency: self.currency.map(field::currency).transpose()?,
            reverses: None,
            key: None,
            details: self.details()?,
        })
    }

    fn details(&self) -> Fallible<Option<Box<Details>>> {
        if self.reference.is_none() && self.category.is_none() && self.metadata.is_none() {
            return Ok(None);
        }
        let text = |name, raw: Option<&str>, chars_max| {
            raw.map(|raw| field::text(name, raw, chars_max)).transpose()
        };
        let metadata = self.metadata.map(metadata::canonical).transpose();
        Ok(Some(Box::new(Details {
            reference: text("reference", self.reference, field::TEXT_CHARS_MAX)?,
            category: text("category", self.category, field::CATEGORY_CHARS_MAX)?,
            metadata: metadata.map_err(|fault| field::bad_field("metadata", &fault.advice()))?,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Sender<'_> = Sender {
        principal: "anonymous",
        key: None,
    };

    #[track_caller]
    fn check(body: &str, expected: Result<(i64, i64, &str), (ErrorCode, Option<&str>)>) {
        let found = single(body, NOBODY);
        let found = found.as_ref().map_err(|problem| {
            assert!(problem.detail.contains("Nothing was done"), "{problem:?}");
            (problem.code, problem.field.as_deref())
        });
        let shown = found.map(|request| {
            (
                request.debit_account_id.get(),
                request.credit_account_id.get(),
                request.amount.decimal().to_string(),
            )
        });
        assert_eq!(
            shown,
            expected.map(|(from, to, amount)| (from, to, amount.to_owned())),
            "{body}"
        );
    }

    #[track_caller]
    fn check_refused(body: &str, code: ErrorCode, field: Option<&str>) {
        check(body, Err((code, field)));
    }

    #[test]
    fn a_transfer_is_read_whatever_the_order_of_its_fields() {
        check(r#"{"from":1,"to":2,"amount":100}"#, Ok((1, 2, "100")));
        check(r#"{"amount":"5.00","to":0,"from":9}"#, Ok((9, 0, "5")));
        check(r#"{"from":1,"to":2,"amount":1e2}"#, Ok((1, 2, "100")));
        check(r#"{"\u0066rom":1,"to":2,"amount":1}"#, Ok((1, 2, "1")));
    }

    #[test]
    fn an_amount_is_a_positive_number_or_a_string_of_one() {
        let amount = |text: &str| format!(r#"{{"from":1,"to":2,"amount":{text}}}"#);
        let texts = "0 -1 -0 1E400 null [1] true \"+1\" \"01\" \"\" \"1_0\" \"NaN\" \"1\\u0000\"";
        for text in texts.split(' ') {
            check_refused(&amount(text), ErrorCode::InvalidAmount, Some("amount"));
        }
        check_refused(&amount("\" 1\""), ErrorCode::InvalidAmount, Some("amount"));
        for text in ["00", "+1", "NaN", "Infinity", "1.", ".5", "0x1"] {
            check_refused(&amount(text), ErrorCode::InvalidJson, None);
        }
    }

    #[test]
    fn the_form_of_a_transfer_is_checked_field_by_field() {
        use ErrorCode::{InvalidAccount, InvalidAmount, InvalidJson, SameAccount, UnknownField};
        let (from, to) = (Some("from"), Some("to"));
        check_refused(r#"{"to":2,"amount":1}"#, InvalidAccount, from);
        check_refused(r#"{"from":1,"amount":1}"#, InvalidAccount, to);
        check_refused(r#"{"from":"1","to":2,"amount":1}"#, InvalidAccount, from);
        check_refused(r#"{"from":1,"to":2}"#, InvalidAmount, Some("amount"));
        check_refused(r#"{"from":1,"to":1,"amount":1}"#, SameAccount, to);
        let with = |more: &str| format!(r#"{{"from":1,"to":2,"amount":1,{more}}}"#);
        check_refused(&with(r#""x":1"#), UnknownField, Some("x"));
        let key = with(r#""idempotency_key":"k""#);
        check_refused(&key, UnknownField, Some("idempotency_key"));
        check_refused(&with(r#""from":1"#), InvalidJson, from);
        check_refused(&with(r#""\u0066rom":1"#), InvalidJson, from);
        check_refused("[]", InvalidJson, None);
        check_refused("", InvalidJson, None);
    }

    #[test]
    fn the_optional_fields_are_checked_too() {
        let with = |more: &str| format!(r#"{{"from":1,"to":2,"amount":1,{more}}}"#);
        let good =
            with(r#""currency":"USD","reference":"r","category":"","metadata":{"b":1,"a":[]}"#);
        let request = single(&good, NOBODY).unwrap();
        assert_eq!(request.currency, CurrencyCode::parse("USD"));
        let details = request.details.unwrap();
        assert_eq!(details.reference.as_deref(), Some("r"));
        assert_eq!(details.category.as_deref(), Some(""));
        assert_eq!(details.metadata.as_deref(), Some(r#"{"a":[],"b":1}"#));
        for (more, field) in [
            (r#""currency":"usd""#, "currency"),
            (r#""currency":null"#, "currency"),
            (r#""reference":1"#, "reference"),
            (r#""reference":"\u0000""#, "reference"),
            (r#""reference":"\ud800""#, "reference"),
            (r#""category":null"#, "category"),
            (r#""metadata":"x""#, "metadata"),
            (r#""metadata":{"a":1,"a":1}"#, "metadata"),
        ] {
            let expected = (ErrorCode::InvalidParameter, Some(field));
            check(&with(more), Err(expected));
        }
        let long = with(&format!(r#""category":"{}""#, "x".repeat(65)));
        check(&long, Err((ErrorCode::InvalidParameter, Some("category"))));
    }

    #[test]
    fn equal_requests_share_a_fingerprint_and_a_key_makes_one() {
        let sender = Sender {
            principal: "anonymous",
            key: Some("k"),
        };
        let key = |body: &str| single(body, sender).unwrap().key.unwrap();
        let first = key(r#"{"from":1,"to":2,"amount":5,"metadata":{"a":1,"b":2}}"#);
        assert_eq!(
            first,
            key(r#"{ "metadata":{"b":2, "a":1}, "amount":"5.00","to":2,"from":1}"#)
        );
        let other = key(r#"{"from":1,"to":2,"amount":5,"metadata":{"a":1.0,"b":2}}"#);
        assert_eq!(first.hash, other.hash);
        assert_ne!(first.fingerprint, other.fingerprint);
        assert_eq!(
            single(r#"{"from":1,"to":2,"amount":5}"#, NOBODY)
                .unwrap()
                .key,
            None
        );
    }

    #[track_caller]
    fn check_batch(body: &str, code: ErrorCode, field: Option<&str>, index: Option<usize>) {
        let problem = batch(body, "anonymous").unwrap_err();
        assert_eq!(
            (problem.code, problem.field.as_deref(), problem.index),
            (code, field, index),
            "{body}"
        );
    }

    #[test]
    fn a_batch_names_the_item_that_is_wrong() {
        let good = r#"{"from":1,"to":2,"amount":1,"idempotency_key":"k"}"#;
        let body = format!(r#"{{"transfers":[{good},{good}],"atomic":true}}"#);
        let (requests, mode) = batch(&body, "anonymous").unwrap();
        assert_eq!((requests.len(), mode), (2, Mode::Atomic));
        assert!(requests.iter().all(|request| request.key.is_some()));
        let item = |item: &str| format!(r#"{{"transfers":[{good},{item}]}}"#);
        check_batch(
            &item("{}"),
            ErrorCode::InvalidAccount,
            Some("from"),
            Some(1),
        );
        check_batch(&item("7"), ErrorCode::InvalidJson, None, Some(1));
        for key in ["\"\"", "7", "null", "\"a b\""] {
            let keyed = item(&format!(
                r#"{{"from":1,"to":2,"amount":1,"idempotency_key":{key}}}"#
            ));
            let code = ErrorCode::InvalidIdempotencyKey;
            check_batch(&keyed, code, Some("idempotency_key"), Some(1));
        }
        for body in [
            "{}",
            r#"{"transfers":[]}"#,
            r#"{"transfers":{}}"#,
            r#"{"transfers":null}"#,
        ] {
            check_batch(body, ErrorCode::InvalidParameter, Some("transfers"), None);
        }
        let atomic = format!(r#"{{"transfers":[{good}],"atomic":1}}"#);
        check_batch(&atomic, ErrorCode::InvalidParameter, Some("atomic"), None);
        let twice = format!(r#"{{"transfers":[{good}],"transfers":[{good}]}}"#);
        check_batch(&twice, ErrorCode::InvalidJson, Some("transfers"), None);
        check_batch(r#"{"x":1}"#, ErrorCode::UnknownField, Some("x"), None);
    }

    #[test]
    fn a_batch_is_never_thought_smaller_than_it_is() {
        let plain = r#"{"from":1,"to":2,"amount":1}"#;
        let odd = r#"{"from":1,"to":2,"amount":1,"reference":"{}"}"#;
        let detailed = r#"{"from":1,"to":2,"amount":1,"metadata":{"a":{}}}"#;
        let size =
            |items: &[&str]| batch_size(&format!(r#"{{"transfers":[{}]}}"#, items.join(",")));
        assert_eq!(size(&[]), Some(0));
        assert_eq!(size(&[plain; 3]), Some(3));
        assert_eq!(size(&[plain; 700]), Some(700));
        assert_eq!(size(&[odd; 2]), Some(4));
        assert_eq!(size(&[plain, detailed]), None);
        assert_eq!(batch_size(&"{".repeat(10_000)), Some(BATCH_TRANSFERS_MAX));
        assert_eq!(batch_size(""), Some(0));
    }

    #[test]
    fn a_batch_holds_1_to_8192_transfers() {
        let good = r#"{"from":1,"to":2,"amount":1}"#;
        let body = |count: usize| format!(r#"{{"transfers":[{}]}}"#, vec![good; count].join(","));
        assert!(batch(&body(1), "anonymous").is_ok());
        assert!(batch(&body(BATCH_TRANSFERS_MAX), "anonymous").is_ok());
        let past = body(BATCH_TRANSFERS_MAX + 1);
        check_batch(&past, ErrorCode::InvalidParameter, Some("transfers"), None);
    }

    #[test]
    fn a_reversal_swaps_the_sides_and_takes_only_details() {
        let original = Original {
            id: TransferId::from_uuid(uuid::Uuid::from_u128(5)),
            debit_account_id: AccountId::new(1).unwrap(),
            credit_account_id: AccountId::new(2).unwrap(),
            amount: DecimalAmount::parse("7").unwrap(),
            currency: CurrencyCode::parse("USD").unwrap(),
        };
        let details = reversal_details(r#"{"reference":"oops"}"#).unwrap();
        let request = reversal(&original, details, NOBODY);
        assert_eq!(request.debit_account_id.get(), 2);
        assert_eq!(request.credit_account_id.get(), 1);
        assert_eq!(request.reverses, Some(original.id));
        assert_eq!(reversal_details("{}").unwrap(), None);
        let code = reversal_details(r#"{"amount":1}"#).unwrap_err().code;
        assert_eq!(code, ErrorCode::UnknownField);
    }
}
