//! Request headers that the contract speaks of.

use std::borrow::Cow;

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;

use super::code::ErrorCode;
use super::problem::{Fallible, Problem};
use super::wire::field;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Refuses a head of more than `bytes_max` bytes. Counted as in HTTP/1.1, line
/// ends and separators included, whatever the version.
pub(super) fn check_size(parts: &Parts, bytes_max: usize) -> Fallible<()> {
    let uri = &parts.uri;
    let query_bytes = uri.query().map_or(0, str::len);
    let mut bytes = uri.path().len().saturating_add(query_bytes);
    for (name, value) in &parts.headers {
        bytes = bytes.saturating_add(name.as_str().len() + value.len() + 4);
    }
    if bytes_max < bytes {
        return Err(too_large(bytes_max));
    }
    Ok(())
}

pub(super) fn too_large(bytes_max: usize) -> Box<Problem> {
    Problem::new(
        ErrorCode::HeaderTooLarge,
        format!(
            "The request line and header have more than {bytes_max} bytes or 100 fields. \
             Nothing was done. Send fewer or shorter ones."
        ),
    )
    .closing()
}

/// A body must say that it is JSON. Said nothing, a page of another site could
/// send it from a browser without being asked.
pub(super) fn check_json(parts: &Parts) -> Fallible<()> {
    let fault = if parts.headers.contains_key(CONTENT_ENCODING) {
        Some("the body must not be encoded")
    } else if parts.headers.get(CONTENT_TYPE).is_some_and(is_json) {
        None
    } else {
        Some("the body must have Content-Type: application/json")
    };
    match fault {
        None => Ok(()),
        Some(fault) => Err(Problem::new(
            ErrorCode::UnsupportedMediaType,
            format!("The request was not read: {fault}. Nothing was done."),
        )),
    }
}

fn is_json(value: &HeaderValue) -> bool {
    if value == "application/json" {
        return true;
    }
    let Ok(text) = value.to_str() else {
        return false;
    };
    let mut parts = text.split(';').map(str::trim);
    let json = |kind: &str| kind.eq_ignore_ascii_case("application/json");
    parts.next().is_some_and(json) && parts.all(is_utf8_or_other)
}

/// A parameter other than `charset` changes nothing.
fn is_utf8_or_other(parameter: &str) -> bool {
    match parameter.split_once('=') {
        Some((name, charset)) if name.trim().eq_ignore_ascii_case("charset") => {
            let charset = charset.trim().trim_matches('"');
            charset.eq_ignore_ascii_case("utf-8")
        }
        Some(_) | None => true,
    }
}

/// The `Idempotency-Key`, unquoted if it was quoted.
pub(super) fn idempotency_key(parts: &Parts) -> Fallible<Option<Cow<'_, str>>> {
    let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::new(
            ErrorCode::InvalidIdempotencyKey,
            "The header Idempotency-Key is there twice. Nothing was done. Send it once.",
        ));
    }
    // What is no ASCII text fails the check as the empty key does.
    let text = value.to_str().unwrap_or_default();
    let key = match text.strip_prefix('"') {
        None => Cow::Borrowed(text),
        Some(quoted) => unquoted(quoted).unwrap_or_default(),
    };
    field::check_key(&key)?;
    Ok(Some(key))
}

/// The key must come in the items of a batch call, not for the call as a whole.
pub(super) fn no_idempotency_key(parts: &Parts) -> Fallible<()> {
    if parts.headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(Problem::new(
            ErrorCode::InvalidIdempotencyKey,
            "A batch call takes no Idempotency-Key header. Nothing was done. Give each transfer \
             its own idempotency_key.",
        ));
    }
    Ok(())
}

/// The rest of a quoted string (RFC 8941): `\"` and `\\` are its only escapes.
fn unquoted(quoted: &str) -> Option<Cow<'_, str>> {
    let content = quoted.strip_suffix('"')?;
    if !content.contains(['"', '\\']) {
        return Some(Cow::Borrowed(content));
    }
    let mut text = String::with_capacity(content.len());
    let mut characters = content.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return None,
            '\\' => text.push(
                characters
                    .next()
                    .filter(|next| ['"', '\\'].contains(next))?,
            ),
            plain => text.push(plain),
        }
    }
    Some(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&str, &[u8])]) -> Parts {
        let mut request = hyper::Request::new(());
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            let value = HeaderValue::from_bytes(value).unwrap();
            request.headers_mut().append(name, value);
        }
        request.into_parts().0
    }

    #[track_caller]
    fn check_key(value: &[u8], expected: Option<&str>) {
        let parts = parts(&[("idempotency-key", value)]);
        let found = idempotency_key(&parts);
        let key = found.as_ref().ok().map(|key| key.as_deref().unwrap());
        assert_eq!(key, expected, "{value:?}");
    }

    #[test]
    fn a_key_is_bare_or_quoted() {
        assert!(idempotency_key(&parts(&[])).unwrap().is_none());
        check_key(b"k", Some("k"));
        check_key(b"\"k\"", Some("k"));
        check_key(br#""a\"\\b""#, Some(r#"a"\b"#));
        check_key(br#"a"b"#, Some(r#"a"b"#));
        check_key(&[b'k'; 255], Some(&"k".repeat(255)));
        for value in [
            &b""[..],
            b" ",
            b"\"\"",
            b"\"",
            b"\"k",
            br#""a"b""#,
            br#""a\b""#,
            br#""a\""#,
            b"a b",
            b"\"a b\"",
            b"\xc3\xbc",
            &[b'k'; 256],
        ] {
            check_key(value, None);
        }
        let twice = parts(&[("idempotency-key", b"k"), ("idempotency-key", b"k")]);
        assert!(idempotency_key(&twice).is_err());
        assert!(no_idempotency_key(&twice).is_err());
        assert!(no_idempotency_key(&parts(&[])).is_ok());
    }

    #[track_caller]
    fn check_type(headers: &[(&str, &[u8])], expected: bool) {
        assert_eq!(check_json(&parts(headers)).is_ok(), expected, "{headers:?}");
    }

    #[test]
    fn only_plain_utf8_json_is_taken() {
        for value in [
            &b"application/json"[..],
            b"Application/JSON",
            b"application/json; charset=UTF-8",
            b"application/json;charset=\"utf-8\";x=y",
        ] {
            check_type(&[("content-type", value)], true);
        }
        for value in [
            &b""[..],
            b"text/plain",
            b"application/x-www-form-urlencoded",
            b"application/jsonx",
            b"application/json; charset=latin1",
            b"\xff",
        ] {
            check_type(&[("content-type", value)], false);
        }
        check_type(&[], false);
        let gzip: &[(&str, &[u8])] = &[
            ("content-type", b"application/json"),
            ("content-encoding", b"gzip"),
        ];
        check_type(gzip, false);
    }

    #[test]
    fn a_head_is_bounded() {
        // "/", and one field of 1 + 5 + 4 bytes.
        let parts = parts(&[("a", b"12345")]);
        assert!(check_size(&parts, 11).is_ok());
        assert!(check_size(&parts, 10).is_err());
    }
}
