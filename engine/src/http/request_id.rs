//! `X-Request-Id`: the client's own word if it is fit to be logged, or one made
//! here.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::wire::put::hex;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids are replaced: every log line and answer would carry them.
const BYTES_MAX: usize = 128;

/// Makes ids that do not repeat within 2^64 requests of one process.
#[derive(Debug)]
pub(super) struct RequestIds {
    next: AtomicU64,
}

impl RequestIds {
    /// `seed` keeps two engines' ids apart.
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            next: AtomicU64::new(seed),
        }
    }

    /// The request's own id, or a new one.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(X_REQUEST_ID) {
            // A copy: a clone would keep all that was read with it.
            Some(sent) if is_fit(sent.as_bytes()) => {
                HeaderValue::from_bytes(sent.as_bytes()).unwrap_or_else(|_| self.make())
            }
            Some(_) | None => self.make(),
        }
    }

    /// A new id: 16 hex digits.
    pub(super) fn make(&self) -> HeaderValue {
        let mut id = self.next.fetch_add(1, Ordering::Relaxed);
        // Multiplying by an odd number and folding the high half in can both be
        // undone, so distinct counts stay distinct while looking unrelated.
        id = (id ^ (id >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        id ^= id >> 29;
        let mut text = [0; 16];
        for (place, byte) in text.chunks_exact_mut(2).zip(id.to_be_bytes()) {
            place.copy_from_slice(&hex(byte));
        }
        HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text))
            .unwrap_or_else(|_| HeaderValue::from_static("none"))
    }
}

fn is_fit(id: &[u8]) -> bool {
    (1..=BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sent: &[u8], echoed: bool) {
        let ids = RequestIds::new(7);
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(sent).unwrap());
        assert_eq!(ids.of(&headers).as_bytes() == sent, echoed, "{sent:?}");
    }

    #[test]
    fn a_fit_id_is_echoed_and_another_replaced() {
        check(b"a", true);
        check(&[b'x'; BYTES_MAX], true);
        check(&[b'x'; BYTES_MAX + 1], false);
        check(b"", false);
        check(b"a b", false);
        check(b"\xff", false);
    }

    #[test]
    fn made_ids_are_distinct_and_fit() {
        let ids = RequestIds::new(u64::MAX - 500);
        let made: hashbrown::HashSet<_> = (0..1000).map(|_| ids.make()).collect();
        assert_eq!(made.len(), 1000);
        assert!(
            made.iter()
                .all(|id| id.len() == 16 && is_fit(id.as_bytes()))
        );
    }
}
