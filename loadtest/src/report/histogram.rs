//! Histograms as text: base64 of the library's compressed V2 form.
//!
//! Owns: the spelling of a histogram in a document.
//! Never: loses a count; what was written is read back equal.
//! Bound: `TEXT_BYTES_MAX` of text per histogram.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use hdrhistogram::{Counter, Histogram};

/// A three-digit histogram with a distinct count in every place takes a
/// quarter of this.
const TEXT_BYTES_MAX: usize = 1 << 20;

pub(super) fn encode<T: Counter>(histogram: &Histogram<T>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .expect("counts are below 2^63 and memory takes every write");
    STANDARD.encode(bytes)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// What is wrong with the text, in words.
pub(super) fn decode<T: Counter>(text: &str, digits: u8) -> Result<Histogram<T>, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("longer than {TEXT_BYTES_MAX} bytes"));
    }
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| format!("not base64: {error}"))?;
    let mut histogram: Histogram<T> = Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| format!("not a V2 histogram: {error}"))?;
    if histogram.sigfig() != digits || histogram.low() != 1 {
        return Err(format!(
            "holds {} digits from {}, expected {digits} from 1",
            histogram.sigfig(),
            histogram.low()
        ));
    }
    // The form does not say that the range may grow, and adding needs it.
    histogram.auto(true);
    Ok(histogram)
}

/// For serde: writes what [`read`] reads.
pub(crate) fn write<T: Counter, S: serde::Serializer>(
    histogram: &Histogram<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&encode(histogram))
}

/// For serde: a histogram of that many digits.
pub(crate) fn read<'de, T: Counter, D: serde::Deserializer<'de>, const DIGITS: u8>(
    deserializer: D,
) -> Result<Histogram<T>, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    decode(&text, DIGITS).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap();
        histogram.auto(true);
        values
            .into_iter()
            .for_each(|value| histogram.record(value).unwrap());
        histogram
    }

    #[test]
    fn every_count_comes_back_and_can_still_grow() {
        for values in [vec![], vec![1], vec![7, 7, 900], vec![400_000_000, 3]] {
            let written = histogram(values);
            let mut read: Histogram<u64> = decode(&encode(&written), 3).unwrap();
            assert_eq!(read, written);
            read.record(4_000_000_000).unwrap();
        }
        let full = histogram(1..2_000_000);
        assert_eq!(decode::<u64>(&encode(&full), 3).unwrap(), full);
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        let good = encode(&histogram([1, 2, 3]));
        let cut = &good[..good.len() / 2 / 4 * 4];
        let long = "A".repeat(TEXT_BYTES_MAX + 1);
        for bad in ["", "%", "AAAA", cut, &long] {
            assert!(decode::<u64>(bad, 3).is_err(), "{bad:.40}");
        }
        assert!(decode::<u64>(&good, 2).unwrap_err().contains("3 digits"));
    }
}
