//! Metadata: a JSON object of the client's own, kept as canonical text.
//!
//! Owns: its bounds, and the one text that stands for all equal objects: keys
//! sorted, no spaces, the least escapes, numbers as sent. What is stored is
//! `jsonb`, which keeps neither order nor spaces, so nothing is lost by it.
//! Bound: 4 KiB as sent and again with its numbers written out, 32 levels.
//! Invariant: equal objects give equal text, different ones different text, and
//! PostgreSQL's `jsonb` takes every text made here.

use std::borrow::Cow;

use super::json::{self, NotText};

/// As sent, and as stored.
pub(super) const METADATA_BYTES_MAX: usize = 4096;
/// Levels of objects and lists, the outermost included.
pub(super) const METADATA_DEPTH_MAX: usize = 32;

/// Why an object cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadMetadata {
    NotAnObject,
    TooLong,
    TooDeep,
    DuplicateKey(String),
    Text(NotText),
}

impl BadMetadata {
    pub(super) fn advice(&self) -> Cow<'static, str> {
        match self {
            Self::NotAnObject => "it must be an object".into(),
            Self::TooLong => {
                "it is longer than 4096 bytes, as sent or with its numbers written out".into()
            }
            Self::TooDeep => "it is nested deeper than 32 levels".into(),
            Self::DuplicateKey(key) => {
                format!("one of its objects has the key {key:?} twice").into()
            }
            Self::Text(fault) => format!("in one of its strings, {}", fault.advice()).into(),
        }
    }
}

/// Canonical text of the object that `raw` is; `raw` is valid JSON.
pub(super) fn canonical(raw: &str) -> Result<String, BadMetadata> {
    if !raw.starts_with('{') {
        return Err(BadMetadata::NotAnObject);
    }
    if METADATA_BYTES_MAX < raw.len() {
        return Err(BadMetadata::TooLong);
    }
    let mut writer = Writer {
        out: String::with_capacity(raw.len()),
        expansion_bytes: 0,
    };
    writer.value(raw, 1)?;
    if METADATA_BYTES_MAX < writer.out.len().saturating_add(writer.expansion_bytes) {
        return Err(BadMetadata::TooLong);
    }
    Ok(writer.out)
}

/// The text is known to be JSON: only a name with half a surrogate pair fails.
const BAD_NAME: BadMetadata = BadMetadata::Text(NotText::LoneSurrogate);

struct Writer {
    out: String,
    /// How much longer the numbers are when written out: `1e400` is five bytes
    /// on the wire and 401 in every answer that shows what `jsonb` kept.
    expansion_bytes: usize,
}

impl Writer {
    /// Each level reads its text again; the bounds make that 128 KiB at most.
    fn value(&mut self, raw: &str, depth: usize) -> Result<(), BadMetadata> {
        match raw.as_bytes().first() {
            Some(b'{') => self.object(raw, depth),
            Some(b'[') => self.list(raw, depth),
            Some(b'"') => {
                let text = json::text(raw).map_err(BadMetadata::Text)?;
                self.string(&text);
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number(raw),
            // true, false, null.
            Some(_) | None => {
                self.out.push_str(raw);
                Ok(())
            }
        }
    }

    fn object(&mut self, raw: &str, depth: usize) -> Result<(), BadMetadata> {
        if METADATA_DEPTH_MAX < depth {
            return Err(BadMetadata::TooDeep);
        }
        let mut fields = json::object_of(raw, METADATA_BYTES_MAX).or(Err(BAD_NAME))?;
        fields.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        let duplicate = fields.windows(2).find(|pair| pair[0].name == pair[1].name);
        if let Some(pair) = duplicate {
            return Err(BadMetadata::DuplicateKey(pair[0].name.to_string()));
        }
        self.out.push('{');
        for (index, field) in fields.iter().enumerate() {
            if index != 0 {
                self.out.push(',');
            }
            if let Some(fault) = name_fault(&field.name) {
                return Err(BadMetadata::Text(fault));
            }
            self.string(&field.name);
            self.out.push(':');
            self.value(field.value, depth + 1)?;
        }
        self.out.push('}');
        Ok(())
    }

    fn list(&mut self, raw: &str, depth: usize) -> Result<(), BadMetadata> {
        if METADATA_DEPTH_MAX < depth {
            return Err(BadMetadata::TooDeep);
        }
        let items = json::list(raw, METADATA_BYTES_MAX)
            .or(Err(BadMetadata::NotAnObject))?
            .ok_or(BadMetadata::TooLong)?;
        self.out.push('[');
        for (index, item) in items.into_iter().enumerate() {
            if index != 0 {
                self.out.push(',');
            }
            self.value(item, depth + 1)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                control if control < ' ' => {
                    let code = u32::from(control);
                    self.out.push_str("\\u00");
                    self.out.push(if code < 0x10 { '0' } else { '1' });
                    self.out.extend(char::from_digit(code & 0xF, 16));
                }
                plain => self.out.push(plain),
            }
        }
        self.out.push('"');
    }

    /// `jsonb` keeps a number as `numeric`, which holds far more digits than fit
    /// the bound used here but refuses an exponent beyond its own.
    fn number(&mut self, raw: &str) -> Result<(), BadMetadata> {
        let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let exponent = exponent.parse::<i32>().or(Err(BadMetadata::TooLong))?;
        let shift = usize::try_from(exponent.unsigned_abs()).or(Err(BadMetadata::TooLong))?;
        let (whole, fraction) = if exponent < 0 {
            (whole.len(), fraction.len().saturating_add(shift))
        } else {
            (whole.len().saturating_add(shift), fraction.len())
        };
        let written_out = whole.saturating_add(fraction).saturating_add(1);
        let expansion = written_out.saturating_sub(raw.len());
        self.expansion_bytes = self.expansion_bytes.saturating_add(expansion);
        if METADATA_BYTES_MAX < self.expansion_bytes {
            return Err(BadMetadata::TooLong);
        }
        self.out.push_str(raw);
        Ok(())
    }
}

/// Names are unescaped by the JSON reader, which itself refuses lone surrogates.
fn name_fault(name: &str) -> Option<NotText> {
    name.contains('\0').then_some(NotText::Nul)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, expected: Result<&str, BadMetadata>) {
        let found = canonical(raw);
        assert_eq!(
            found.as_deref(),
            expected.as_ref().map(|text| *text),
            "{raw}"
        );
    }

    #[test]
    fn equal_objects_have_one_text() {
        check("{}", Ok("{}"));
        check(
            r#"{ "b" : [ 1, 2.50 , 1E2 ], "a" : { "d":null , "c":true } }"#,
            Ok(r#"{"a":{"c":true,"d":null},"b":[1,2.50,1E2]}"#),
        );
        check(
            r#"{"\u0061":"\u0041\/\u000a\u001f"}"#,
            Ok(r#"{"a":"A/\n\u001f"}"#),
        );
        check(r#"{"q":"\"\\\b\f\r\t"}"#, Ok(r#"{"q":"\"\\\b\f\r\t"}"#));
    }

    #[test]
    fn what_cannot_be_stored_or_told_apart_is_refused() {
        check("[]", Err(BadMetadata::NotAnObject));
        check("null", Err(BadMetadata::NotAnObject));
        check(
            r#"{"a":1,"a":1}"#,
            Err(BadMetadata::DuplicateKey("a".into())),
        );
        check(
            r#"{"x":[{"a":1,"\u0061":2}]}"#,
            Err(BadMetadata::DuplicateKey("a".into())),
        );
        check(r#"{"a":"\u0000"}"#, Err(BadMetadata::Text(NotText::Nul)));
        check(r#"{"\u0000":1}"#, Err(BadMetadata::Text(NotText::Nul)));
        check(
            r#"{"a":["\ud800"]}"#,
            Err(BadMetadata::Text(NotText::LoneSurrogate)),
        );
    }

    #[test]
    fn length_is_bounded_as_sent_and_as_stored() {
        let sent = |length: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(length - 8));
        assert!(canonical(&sent(METADATA_BYTES_MAX)).is_ok());
        assert_eq!(
            canonical(&sent(METADATA_BYTES_MAX + 1)),
            Err(BadMetadata::TooLong)
        );
        check(r#"{"a":1e308}"#, Ok(r#"{"a":1e308}"#));
        check(r#"{"a":5e-324}"#, Ok(r#"{"a":5e-324}"#));
        check(r#"{"a":1e4000}"#, Ok(r#"{"a":1e4000}"#));
        check(r#"{"a":1e5000}"#, Err(BadMetadata::TooLong));
        check(r#"{"a":1e-5000}"#, Err(BadMetadata::TooLong));
        check(r#"{"a":[1e3000,1e3000]}"#, Err(BadMetadata::TooLong));
        check(r#"{"a":0e99999999999}"#, Err(BadMetadata::TooLong));
    }

    #[test]
    fn depth_is_bounded() {
        let nested =
            |lists: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(lists), "]".repeat(lists));
        assert!(canonical(&nested(METADATA_DEPTH_MAX - 1)).is_ok());
        assert_eq!(
            canonical(&nested(METADATA_DEPTH_MAX)),
            Err(BadMetadata::TooDeep)
        );
        assert_eq!(canonical(&nested(2000)), Err(BadMetadata::TooDeep));
    }
}
