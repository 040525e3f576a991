//! What an answer's body says about transfers, without building a JSON tree.
//!
//! Owns: finding `"status":"..."` and `"code":"..."` in a body.
//! Never: reads a number or a balance.
//! Invariant: text inside a JSON string is never taken for a member, because a
//! quote inside a string is escaped and so cannot match the patterns.

use crate::response::find;

/// How one transfer of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemStatus {
    Completed,
    Rejected,
    Failed,
}

/// The status of every transfer in a batch answer, in order.
pub(crate) fn item_statuses(body: &[u8]) -> impl Iterator<Item = ItemStatus> {
    Members::new(body, b"\"status\"").filter_map(|value| match value {
        b"completed" => Some(ItemStatus::Completed),
        b"rejected" => Some(ItemStatus::Rejected),
        b"failed" => Some(ItemStatus::Failed),
        _ => None,
    })
}

/// Every problem code in an answer.
pub(crate) fn codes(body: &[u8]) -> impl Iterator<Item = &str> {
    Members::new(body, b"\"code\"").filter_map(|value| std::str::from_utf8(value).ok())
}

/// Every transaction id in an answer.
pub(crate) fn txn_ids(body: &[u8]) -> impl Iterator<Item = &str> {
    Members::new(body, b"\"txn_id\"").filter_map(|value| std::str::from_utf8(value).ok())
}

/// The string values of one member name (given with its quotes).
struct Members<'a> {
    rest: &'a [u8],
    name: &'static [u8],
}

impl<'a> Members<'a> {
    fn new(rest: &'a [u8], name: &'static [u8]) -> Self {
        Self { rest, name }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let at = find(self.rest, self.name)?;
            self.rest = &self.rest[at + self.name.len()..];
            let after = self.rest.trim_ascii_start();
            let Some(after) = after.strip_prefix(b":") else {
                continue;
            };
            let Some(value) = after.trim_ascii_start().strip_prefix(b"\"") else {
                continue;
            };
            let end = find(value, b"\"")?;
            self.rest = &value[end + 1..];
            return Some(&value[..end]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_answer_gives_each_status_and_code() {
        let body = br#"{"results":[{"txn_id":"1","status":"completed"},
            {"status" : "rejected","code": "insufficient_funds"},
            {"status":"failed","code":"queue_full"},{"txn_id":"2","status":"completed","replayed":true}]}"#;
        let statuses: Vec<_> = item_statuses(body).collect();
        assert_eq!(
            statuses,
            [
                ItemStatus::Completed,
                ItemStatus::Rejected,
                ItemStatus::Failed,
                ItemStatus::Completed
            ]
        );
        assert_eq!(
            codes(body).collect::<Vec<_>>(),
            ["insufficient_funds", "queue_full"]
        );
    }

    #[test]
    fn a_problem_has_a_code_and_no_item() {
        let body = br#"{"type":"about:blank","status":503,"detail":"say \"code\":\"x\"","code":"queue_full"}"#;
        assert_eq!(codes(body).collect::<Vec<_>>(), ["queue_full"]);
        assert_eq!(item_statuses(body).count(), 0);
    }

    #[test]
    fn a_body_that_is_no_json_gives_nothing() {
        for body in [&b""[..], b"\"code\"", b"\"code\":\"open", b"\"code\" \"x\""] {
            assert_eq!(codes(body).count(), 0, "{body:?}");
        }
    }
}
