//! What is stored of an idempotency key: two fixed-size hashes.
//!
//! Owns: the byte layouts under the hashes. They are stored for as long as keys
//! are kept, by engines of every version: a layout is never changed, a new one
//! gets a new version byte (and a retry across the change then counts as new).
//! Invariant: every part has a fixed length or is preceded by its length, so two
//! different requests never have the same layout.

use smallvec::SmallVec;
use uuid::Uuid;

use super::{Details, IdempotencyKey, TransferRequest};

const KEY_VERSION: u8 = 1;
const FINGERPRINT_VERSION: u8 = 1;
const ABSENT: u8 = 0;
const PRESENT: u8 = 1;

/// Longest common layouts stay on the stack; a longer one is made on the heap.
type Layout = SmallVec<[u8; 192]>;

/// Hash of a key text within its scope: the principal that sent it, never its
/// credential, so that a rotated credential keeps its keys.
#[must_use]
pub fn key_hash(principal: &str, key: &str) -> Uuid {
    let mut layout = Layout::new();
    layout.push(KEY_VERSION);
    push_bytes(&mut layout, principal.as_bytes());
    push_bytes(&mut layout, key.as_bytes());
    first_half(&layout)
}

/// Hash of a request as parsed: tells a retry from a reuse of its key.
///
/// The amount counts by value, and metadata must already be canonical text
/// (sorted keys, no spaces, numbers as sent). The key itself is no part of it.
#[must_use]
pub fn fingerprint(request: &TransferRequest) -> Uuid {
    let mut layout = Layout::new();
    layout.push(FINGERPRINT_VERSION);
    layout.extend_from_slice(&request.debit_account_id.get().to_le_bytes());
    layout.extend_from_slice(&request.credit_account_id.get().to_le_bytes());
    // Normalised: one pair of mantissa and scale for each value.
    let amount = request.amount.decimal().normalize();
    layout.extend_from_slice(&amount.mantissa().to_le_bytes());
    layout.extend_from_slice(&amount.scale().to_le_bytes());
    let currency = request.currency.as_ref();
    push_optional(&mut layout, currency.map(|code| code.as_str().as_bytes()));
    let reverses = request.reverses.map(|original| original.uuid());
    push_optional(&mut layout, reverses.as_ref().map(|id| &id.as_bytes()[..]));
    let part = |pick: fn(&Details) -> Option<&String>| {
        let details = request.details.as_deref();
        details.and_then(pick).map(String::as_bytes)
    };
    push_optional(&mut layout, part(|details| details.reference.as_ref()));
    push_optional(&mut layout, part(|details| details.category.as_ref()));
    push_optional(&mut layout, part(|details| details.metadata.as_ref()));
    first_half(&layout)
}

/// Both hashes.
#[must_use]
pub fn idempotency_key(principal: &str, key: &str, request: &TransferRequest) -> IdempotencyKey {
    IdempotencyKey {
        hash: key_hash(principal, key),
        fingerprint: fingerprint(request),
    }
}

fn push_optional(layout: &mut Layout, part: Option<&[u8]>) {
    match part {
        None => layout.push(ABSENT),
        Some(bytes) => {
            layout.push(PRESENT);
            push_bytes(layout, bytes);
        }
    }
}

fn push_bytes(layout: &mut Layout, bytes: &[u8]) {
    // A slice is never longer than u64 can say.
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    layout.extend_from_slice(&length.to_le_bytes());
    layout.extend_from_slice(bytes);
}

/// The first 16 of BLAKE3's 32 bytes: a collision takes 2^64 requests of one
/// who searches for it, and then only hurts keys of that searcher's own scope.
fn first_half(layout: &[u8]) -> Uuid {
    let hash = blake3::hash(layout);
    let (half, _) = hash.as_bytes().split_at(16);
    Uuid::from_slice(half).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AccountId, CurrencyCode, DecimalAmount, TransferId};

    fn plain(amount: &str) -> TransferRequest {
        TransferRequest {
            debit_account_id: AccountId::new(1).unwrap(),
            credit_account_id: AccountId::new(2).unwrap(),
            amount: DecimalAmount::parse(amount).unwrap(),
            currency: None,
            reverses: None,
            key: None,
            details: None,
        }
    }

    fn full() -> TransferRequest {
        TransferRequest {
            currency: CurrencyCode::parse("USD"),
            reverses: Some(TransferId::from_uuid(Uuid::from_u128(7))),
            details: Some(Box::new(Details {
                reference: Some("invoice 7".to_owned()),
                category: Some(String::new()),
                metadata: Some(r#"{"a":1}"#.to_owned()),
            })),
            ..plain("12.34")
        }
    }

    /// Golden values: a failure here means that keys already stored would no
    /// longer be recognised. Mend the code, not the values.
    #[test]
    fn stored_hashes_never_change() {
        for (principal, key, hash) in [
            ("anonymous", "k", GOLDEN_KEYS[0]),
            ("anonymous", "order-1", GOLDEN_KEYS[1]),
            ("team-a", "order-1", GOLDEN_KEYS[2]),
        ] {
            assert_eq!(
                key_hash(principal, key).to_string(),
                hash,
                "{principal} {key}"
            );
        }
        assert_eq!(fingerprint(&plain("5")).to_string(), GOLDEN_PLAIN);
        assert_eq!(fingerprint(&full()).to_string(), GOLDEN_FULL);
    }

    // Made by another implementation of BLAKE3 from the layouts described above.
    const GOLDEN_KEYS: [&str; 3] = [
        "91e28f82-8558-5f5e-0152-fb6a1d726a7e",
        "93c681d9-5cb6-9308-fdbd-cfef3d220998",
        "ebdeea08-6625-d5c7-2855-80d758af07de",
    ];
    const GOLDEN_PLAIN: &str = "0321a228-d14b-5cd6-c7a0-b9c2b9eb2eea";
    const GOLDEN_FULL: &str = "74af66e6-66ba-6139-dca3-589ad8f7268c";

    #[test]
    fn a_key_belongs_to_its_scope_and_lengths_keep_parts_apart() {
        assert_ne!(key_hash("ab", "c"), key_hash("a", "bc"));
        assert_ne!(key_hash("a", "k"), key_hash("b", "k"));
        assert_ne!(key_hash("a", "k"), key_hash("a", "K"));
    }

    #[test]
    fn amounts_count_by_value() {
        assert_eq!(fingerprint(&plain("5")), fingerprint(&plain("5.00")));
        assert_eq!(fingerprint(&plain("100")), fingerprint(&plain("1e2")));
        assert_ne!(fingerprint(&plain("5")), fingerprint(&plain("0.5")));
        assert_ne!(fingerprint(&plain("5")), fingerprint(&plain("50")));
    }

    #[test]
    fn every_field_counts_and_absent_differs_from_present() {
        let with = |edit: fn(&mut TransferRequest)| {
            let mut request = full();
            edit(&mut request);
            fingerprint(&request)
        };
        let details = |edit: fn(&mut Details)| {
            let mut request = full();
            edit(request.details.as_mut().unwrap());
            fingerprint(&request)
        };
        let mut seen = vec![
            with(|_| ()),
            with(|request| request.debit_account_id = AccountId::MAX),
            with(|request| request.credit_account_id = AccountId::MAX),
            with(|request| {
                (request.debit_account_id, request.credit_account_id) =
                    (request.credit_account_id, request.debit_account_id);
            }),
            with(|request| request.currency = None),
            with(|request| request.currency = CurrencyCode::parse("EUR")),
            with(|request| request.reverses = None),
            with(|request| request.details = None),
            details(|details| details.reference = None),
            details(|details| details.reference = Some(String::new())),
            details(|details| details.category = None),
            details(|details| details.category = Some("x".to_owned())),
            details(|details| details.metadata = None),
            details(|details| details.metadata = Some("{}".to_owned())),
        ];
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 14);
    }

    #[test]
    fn the_key_is_no_part_of_the_request() {
        let mut keyed = plain("5");
        keyed.key = Some(idempotency_key("anonymous", "k", &plain("5")));
        assert_eq!(fingerprint(&keyed), fingerprint(&plain("5")));
    }
}
