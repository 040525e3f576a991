//! JSON text into fields, without losing what a usual reader hides.
//!
//! Owns: the walk over an object's fields, and what a string or number may be.
//! Never: keeps the last of two equal keys, rounds a number, or recognises an
//! error by a library's words.
//! Bound: [`FIELDS_MAX`] fields of one object are kept; text beyond them is only
//! checked for syntax, since no object of the contract has as many.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

/// More than any object of the contract has: past it, one field at least is
/// unknown or a duplicate, and it is found among those kept.
pub(super) const FIELDS_MAX: usize = 32;

/// One field: its name, unescaped, and the text of its value.
#[derive(Debug)]
pub(super) struct Field<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) value: &'a str,
}

/// The fields of one object, in the order sent, duplicates included.
pub(super) type Fields<'a> = SmallVec<[Field<'a>; 8]>;

/// Why a text is not the JSON asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotJson {
    /// Not JSON at all.
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// JSON, but no object.
    NotAnObject,
    /// JSON, but no list.
    NotAList,
}

/// Why a text is not a string that can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotText {
    /// Another JSON type.
    NotAString,
    /// PostgreSQL's text cannot hold U+0000.
    Nul,
    /// Half of a surrogate pair is no character.
    LoneSurrogate,
}

impl NotText {
    pub(super) const fn advice(self) -> &'static str {
        match self {
            Self::NotAString => "it must be a string",
            Self::Nul => "it contains the character U+0000, which cannot be stored",
            Self::LoneSurrogate => "it contains half of a surrogate pair, which is no character",
        }
    }
}

/// The fields of the object that `text` is, to one past [`FIELDS_MAX`].
pub(super) fn object(text: &str) -> Result<Fields<'_>, NotJson> {
    object_of(text, FIELDS_MAX + 1)
}

/// The first `fields_max` fields of the object that `text` is.
pub(super) fn object_of(text: &str, fields_max: usize) -> Result<Fields<'_>, NotJson> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let fields = reader
        .deserialize_map(FieldsVisitor { fields_max })
        .map_err(|error| not_json(&error, NotJson::NotAnObject))?;
    reader
        .end()
        .map_err(|error| not_json(&error, NotJson::NotAnObject))?;
    Ok(fields)
}

/// The texts of the items of the list that `text` is; `None` past `items_max`.
pub(super) fn list(text: &str, items_max: usize) -> Result<Option<Vec<&str>>, NotJson> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let items = reader
        .deserialize_seq(ItemsVisitor { items_max })
        .map_err(|error| not_json(&error, NotJson::NotAList))?;
    reader
        .end()
        .map_err(|error| not_json(&error, NotJson::NotAList))?;
    Ok(items)
}

fn not_json(error: &serde_json::Error, otherwise: NotJson) -> NotJson {
    match error.classify() {
        serde_json::error::Category::Data => otherwise,
        serde_json::error::Category::Io
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof => NotJson::Syntax {
            line: error.line(),
            column: error.column(),
        },
    }
}

/// The content of a string, borrowed unless it has escapes. `raw` is the text of
/// one JSON value, its syntax checked.
pub(super) fn text(raw: &str) -> Result<Cow<'_, str>, NotText> {
    let content = raw
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .ok_or(NotText::NotAString)?;
    if content.as_bytes().contains(&b'\\') {
        unescape(content).map(Cow::Owned)
    } else {
        Ok(Cow::Borrowed(content))
    }
}

fn unescape(content: &str) -> Result<String, NotText> {
    let mut out = String::with_capacity(content.len());
    let mut rest = content;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.push_str(plain);
        let (kind, after) = escaped.split_at_checked(1).ok_or(NotText::NotAString)?;
        rest = after;
        match kind {
            "b" => out.push('\u{8}'),
            "f" => out.push('\u{c}'),
            "n" => out.push('\n'),
            "r" => out.push('\r'),
            "t" => out.push('\t'),
            "u" => {
                let (character, after) = code_point(rest)?;
                out.push(character);
                rest = after;
            }
            // `"`, `\` and `/` stand for themselves; nothing else is JSON.
            itself => out.push_str(itself),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The character of the four hex digits that `text` starts with, and of the
/// second escape if the first is a high surrogate; and the text after it.
fn code_point(text: &str) -> Result<(char, &str), NotText> {
    let (unit, rest) = hex4(text)?;
    if unit == 0 {
        return Err(NotText::Nul);
    }
    if !(0xD800..0xDC00).contains(&unit) {
        // A low surrogate alone is no char either.
        let character = char::from_u32(unit).ok_or(NotText::LoneSurrogate)?;
        return Ok((character, rest));
    }
    let low = rest.strip_prefix("\\u").ok_or(NotText::LoneSurrogate)?;
    let (low, rest) = hex4(low)?;
    if !(0xDC00..0xE000).contains(&low) {
        return Err(NotText::LoneSurrogate);
    }
    let scalar = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
    let character = char::from_u32(scalar).ok_or(NotText::LoneSurrogate)?;
    Ok((character, rest))
}

fn hex4(text: &str) -> Result<(u32, &str), NotText> {
    let (digits, rest) = text.split_at_checked(4).ok_or(NotText::NotAString)?;
    let unit = u32::from_str_radix(digits, 16).or(Err(NotText::NotAString))?;
    Ok((unit, rest))
}

struct FieldsVisitor {
    fields_max: usize,
}

impl<'a> Visitor<'a> for FieldsVisitor {
    type Value = Fields<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut fields = Fields::new();
        while let Some(name) = map.next_key_seed(NameSeed)? {
            let value: &'a RawValue = map.next_value()?;
            if fields.len() < self.fields_max {
                let value = value.get();
                fields.push(Field { name, value });
            }
        }
        Ok(fields)
    }
}

struct ItemsVisitor {
    items_max: usize,
}

impl<'a> Visitor<'a> for ItemsVisitor {
    type Value = Option<Vec<&'a str>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut list: S) -> Result<Self::Value, S::Error> {
        let mut items = Vec::new();
        let mut within = true;
        while let Some(item) = list.next_element::<&'a RawValue>()? {
            within = items.len() < self.items_max;
            if within {
                items.push(item.get());
            }
        }
        Ok(within.then_some(items))
    }
}

/// A field's name, borrowed unless it has escapes.
struct NameSeed;

impl<'a> DeserializeSeed<'a> for NameSeed {
    type Value = Cow<'a, str>;

    fn deserialize<D: serde::Deserializer<'a>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for NameSeed {
    type Value = Cow<'a, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a field name")
    }

    fn visit_borrowed_str<E>(self, name: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_object(text: &str, expected: Result<&[(&str, &str)], NotJson>) {
        let found = object(text);
        let found = found.map(|fields| {
            let pair = |field: &Field<'_>| (field.name.to_string(), field.value.to_owned());
            fields.iter().map(pair).collect::<Vec<_>>()
        });
        let expected = expected.map(|fields| {
            let pair = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
            fields.iter().map(pair).collect::<Vec<_>>()
        });
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn fields_keep_their_order_their_text_and_their_duplicates() {
        check_object("{}", Ok(&[]));
        check_object(
            r#" { "a" : 1.50 , "b":[1, 2],"a":null } "#,
            Ok(&[("a", "1.50"), ("b", "[1, 2]"), ("a", "null")]),
        );
        check_object(r#"{"\u0061":"\u0061"}"#, Ok(&[("a", r#""\u0061""#)]));
    }

    #[test]
    fn what_is_not_an_object_is_told_apart_from_what_is_not_json() {
        for text in ["[]", "1", "null", "\"{}\"", "true"] {
            check_object(text, Err(NotJson::NotAnObject));
        }
        for text in [
            "",
            "{",
            "{\"a\":1",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{\"a\":NaN}",
            "{\"a\":1}x",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\":.5}",
            "{\"a\":\"\n\"}",
        ] {
            assert!(
                matches!(object(text), Err(NotJson::Syntax { .. })),
                "{text}: {:?}",
                object(text)
            );
        }
    }

    #[test]
    fn a_flood_of_fields_is_cut_but_its_syntax_is_still_checked() {
        let flood = (0..10_000)
            .map(|n| format!("\"f{n}\":0"))
            .collect::<Vec<_>>();
        let flood = flood.join(",");
        let text = format!("{{{flood}}}");
        assert_eq!(object(&text).unwrap().len(), FIELDS_MAX + 1);
        assert!(object(&format!("{{{flood},}}")).is_err());
    }

    #[test]
    fn deep_nesting_takes_no_stack() {
        let deep = format!(
            "{{\"a\":{}{}}}",
            "[".repeat(1_000_000),
            "]".repeat(1_000_000)
        );
        assert_eq!(object(&deep).unwrap().len(), 1);
    }

    #[test]
    fn a_list_is_cut_at_its_limit() {
        assert_eq!(list("[1, {} ]", 2), Ok(Some(vec!["1", "{}"])));
        assert_eq!(list("[1,2,3]", 2), Ok(None));
        assert_eq!(list("[]", 0), Ok(Some(vec![])));
        assert_eq!(list("{}", 2), Err(NotJson::NotAList));
        assert!(matches!(list("[1,", 2), Err(NotJson::Syntax { .. })));
    }

    #[track_caller]
    fn check_text(raw: &str, expected: Result<&str, NotText>) {
        assert_eq!(
            text(raw).as_deref(),
            expected.as_ref().map(|text| *text),
            "{raw}"
        );
    }

    #[test]
    fn strings_are_unescaped_exactly_or_refused() {
        check_text(r#""plain ü""#, Ok("plain ü"));
        check_text(r#""\"\\\/\b\f\n\r\t""#, Ok("\"\\/\u{8}\u{c}\n\r\t"));
        check_text(r#""\u00e9\u20AC""#, Ok("é€"));
        check_text(r#""\ud83d\ude00!""#, Ok("😀!"));
        check_text(r#""\u0001""#, Ok("\u{1}"));
        check_text(r#""a\u0000b""#, Err(NotText::Nul));
        check_text(r#""\ud83d""#, Err(NotText::LoneSurrogate));
        check_text(r#""\ud83dx""#, Err(NotText::LoneSurrogate));
        check_text(r#""\ud83d\u0041""#, Err(NotText::LoneSurrogate));
        check_text(r#""\ude00""#, Err(NotText::LoneSurrogate));
        check_text("1", Err(NotText::NotAString));
        check_text("null", Err(NotText::NotAString));
    }
}
