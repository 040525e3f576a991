//! JSON values, written by hand into one buffer: no formatter, no allocation.

use bytes::{BufMut, BytesMut};
use uuid::Uuid;

use super::super::time;

/// A number.
pub(in crate::http) fn integer(out: &mut BytesMut, value: i64) {
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A UUID, in quotes.
pub(in crate::http) fn id(out: &mut BytesMut, id: Uuid) {
    let mut text = Uuid::encode_buffer();
    out.put_u8(b'"');
    out.put_slice(id.hyphenated().encode_lower(&mut text).as_bytes());
    out.put_u8(b'"');
}

/// A timestamp, in quotes.
pub(in crate::http) fn timestamp(out: &mut BytesMut, unix_ms: u64) {
    out.put_u8(b'"');
    time::write(out, unix_ms);
    out.put_u8(b'"');
}

/// Minor units as a number with exactly the currency's digits: 50000 with 2 is
/// `500.00`.
pub(in crate::http) fn decimal(out: &mut BytesMut, minor: i64, digits: u8) {
    if minor < 0 {
        out.put_u8(b'-');
    }
    // 10^19 fits u64; currencies have 4 digits at most.
    let factor = 10_u64.checked_pow(u32::from(digits)).unwrap_or(1);
    let minor = minor.unsigned_abs();
    out.put_slice(itoa::Buffer::new().format(minor / factor).as_bytes());
    if 0 < digits {
        out.put_u8(b'.');
        let mut place = factor / 10;
        while 0 < place {
            let digit = minor / place % 10;
            out.put_u8(b'0' + u8::try_from(digit).unwrap_or(0));
            place /= 10;
        }
    }
}

/// A string.
pub(in crate::http) fn text(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    let mut plain_from = 0;
    for (index, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => b"",
            _ => continue,
        };
        // Every escaped byte is ASCII, so both cuts are between characters.
        out.put_slice(text.as_bytes().get(plain_from..index).unwrap_or_default());
        plain_from = index + 1;
        if escape.is_empty() {
            out.put_slice(b"\\u00");
            out.put_slice(&hex(byte));
        } else {
            out.put_slice(escape);
        }
    }
    out.put_slice(text.as_bytes().get(plain_from..).unwrap_or_default());
    out.put_u8(b'"');
}

/// A string or null.
pub(in crate::http) fn optional_text(out: &mut BytesMut, value: Option<&str>) {
    match value {
        Some(value) => text(out, value),
        None => out.put_slice(b"null"),
    }
}

/// Two digits of a byte.
pub(in crate::http) fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
    [digit(byte >> 4), digit(byte & 0xF)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::amount::MinorDisplay;

    #[track_caller]
    fn check(write: impl FnOnce(&mut BytesMut), expected: &str) {
        let mut out = BytesMut::new();
        write(&mut out);
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
    }

    #[test]
    fn decimals_have_exactly_the_digits_of_their_currency() {
        for minor in [
            0,
            1,
            -1,
            5,
            -5,
            99,
            100,
            50_000,
            -123_456,
            i64::MAX,
            i64::MIN,
        ] {
            for digits in 0..=4 {
                let expected = MinorDisplay { minor, digits }.to_string();
                check(|out| decimal(out, minor, digits), &expected);
            }
        }
        check(|out| decimal(out, 50_000, 2), "500.00");
        check(|out| decimal(out, -5, 2), "-0.05");
        check(|out| decimal(out, 7, 0), "7");
    }

    #[test]
    fn every_string_is_read_back_by_a_json_reader() {
        let every_low: String = (0..0x80_u8).map(char::from).collect();
        for value in ["", "plain", "ü\"\\\n\u{1}😀", &every_low] {
            let mut out = BytesMut::new();
            text(&mut out, value);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), value);
        }
        check(|out| text(out, "a\"\u{1f}b"), "\"a\\\"\\u001fb\"");
        check(|out| optional_text(out, None), "null");
    }
}
