//! RFC 3339 timestamps, written and read without a calendar library.
//!
//! Invariant: [`write`] and [`parse`] agree for every millisecond of the years
//! 1970 to 9999; the days of the proleptic Gregorian calendar are counted from
//! 1970-01-01.

use bytes::{BufMut, BytesMut};

const MS_PER_DAY: u64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z: the last moment with a year of four digits.
const UNIX_MS_MAX: u64 = 253_402_300_799_999;
/// A year of 400 (146,097 days) ends on February 29th when it starts in March.
const DAYS_PER_ERA: u64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: u64 = 719_468;

/// Writes `2026-11-21T13:30:31.123Z`, without quotes.
pub(super) fn write(out: &mut BytesMut, unix_ms: u64) {
    // No id or row is later; a broken one shows the last moment, not nonsense.
    let unix_ms = unix_ms.min(UNIX_MS_MAX);
    let (year, month, day) = date_of(unix_ms / MS_PER_DAY);
    let ms = unix_ms % MS_PER_DAY;
    digits(out, year, 4);
    out.put_u8(b'-');
    digits(out, month, 2);
    out.put_u8(b'-');
    digits(out, day, 2);
    out.put_u8(b'T');
    digits(out, ms / 3_600_000, 2);
    out.put_u8(b':');
    digits(out, ms / 60_000 % 60, 2);
    out.put_u8(b':');
    digits(out, ms / 1_000 % 60, 2);
    out.put_u8(b'.');
    digits(out, ms % 1_000, 3);
    out.put_u8(b'Z');
}

/// Milliseconds since 1970 of an RFC 3339 timestamp; a finer fraction is cut.
pub(super) fn parse(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let at = |index: usize, choices: &[u8]| bytes.get(index).is_some_and(|b| choices.contains(b));
    if !(at(4, b"-") && at(7, b"-") && at(10, b"Tt ") && at(13, b":") && at(16, b":")) {
        return None;
    }
    let (year, month) = (number(text.get(0..4)?)?, number(text.get(5..7)?)?);
    let (day, hour) = (number(text.get(8..10)?)?, number(text.get(11..13)?)?);
    let (minute, second) = (number(text.get(14..16)?)?, number(text.get(17..19)?)?);
    let days = days_of(year, month, day)?;
    // 60 is a leap second; it is the first of the next minute here.
    if 23 < hour || 59 < minute || 60 < second {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut ms = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let (fraction, after) = fraction.split_at_checked(length)?;
        let shown = fraction.get(..fraction.len().min(3))?;
        let missing = 3_u32.checked_sub(u32::try_from(shown.len()).ok()?)?;
        ms = number(shown)? * 10_u64.pow(missing);
        rest = after;
    }
    let local = days * MS_PER_DAY + hour * 3_600_000 + minute * 60_000 + second * 1_000 + ms;
    let unix_ms = match rest {
        "Z" | "z" => local,
        offset => {
            let hours = number(offset.get(1..3)?)?;
            let minutes = number(offset.get(4..)?.get(..2)?)?;
            if offset.len() != 6 || offset.get(3..4)? != ":" || 23 < hours || 59 < minutes {
                return None;
            }
            let shift = hours * 3_600_000 + minutes * 60_000;
            match offset.get(..1)? {
                "+" => local.checked_sub(shift)?,
                "-" => local + shift,
                _ => return None,
            }
        }
    };
    (unix_ms <= UNIX_MS_MAX).then_some(unix_ms)
}

fn number(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

fn digits(out: &mut BytesMut, value: u64, width: u32) {
    for place in (0..width).rev() {
        let digit = value / 10_u64.pow(place) % 10;
        out.put_u8(b'0' + u8::try_from(digit).unwrap_or(0));
    }
}

/// Year, month, day. Years are counted from March, so that a leap day comes last.
fn date_of(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    // Take out the leap days before dividing: one in 4 years, none in 100, one in 400.
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - days_before_year(year_of_era);
    // March to January have 153 days in each five months.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next_year) = if month_from_march < 10 {
        (month_from_march + 3, 0)
    } else {
        (month_from_march - 9, 1)
    };
    (era * 400 + year_of_era + next_year, month, day)
}

fn days_before_year(year_of_era: u64) -> u64 {
    365 * year_of_era + year_of_era / 4 - year_of_era / 100
}

/// Days since 1970; `None` before that, or for a day the calendar does not have.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let (year_from_march, month_from_march) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let era_days = year_from_march / 400 * DAYS_PER_ERA;
    let year_days = days_before_year(year_from_march % 400);
    let days = era_days + year_days + (153 * month_from_march + 2) / 5 + day - 1;
    let days_since_1970 = days.checked_sub(DAYS_BEFORE_1970)?;
    (date_of(days_since_1970) == (year, month, day)).then_some(days_since_1970)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(unix_ms: u64) -> String {
        let mut out = BytesMut::new();
        write(&mut out, unix_ms);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn known_moments_are_written_and_read() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59.000Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (UNIX_MS_MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(written(unix_ms), text);
            assert_eq!(parse(text), Some(unix_ms), "{text}");
        }
    }

    #[test]
    fn every_day_to_the_year_2400_is_read_back() {
        let mut last = String::new();
        for day in 0..157_054_u64 {
            let unix_ms = day * MS_PER_DAY + day % MS_PER_DAY;
            let text = written(unix_ms);
            assert_eq!(parse(&text), Some(unix_ms), "{text}");
            assert!(last < text);
            last = text;
        }
        assert!(last.starts_with("2399-12-31"), "{last}");
    }

    #[test]
    fn offsets_and_fractions_are_understood() {
        for (text, unix_ms) in [
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1969-12-31T23:00:00-01:00", None),
            ("1970-01-01T00:00:00-00:30", Some(1_800_000)),
            ("1970-01-01T00:00:00+00:30", None),
            ("1970-01-01t00:00:01z", Some(1_000)),
            ("1970-01-01 00:00:00.5Z", Some(500)),
            ("1970-01-01T00:00:00.0019Z", Some(1)),
            ("1970-01-01T00:00:60Z", Some(60_000)),
        ] {
            assert_eq!(parse(text), unix_ms, "{text}");
        }
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-13-01T00:00:00Z",
            "1970-00-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "1970-01-32T00:00:00Z",
            "1970-01-00T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:60:00Z",
            "1970-01-01T00:00:61Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+0100",
            "1970-01-01T00:00:00+01:0",
            "1970-01-01T00:00:00+24:00",
            "+970-01-01T00:00:00Z",
            "1970-01-01T00:00:00ZZ",
            "1970-01-01T00:00:00é",
            "9999-12-31T23:59:59-00:01",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
