//! What an answer says of each transfer that was asked for.
//!
//! Owns: which answers are a promise, which a refusal, and which neither.
//! Never: guesses: an answer that cannot be read is an unknown outcome unless
//! its status alone is a promise.
//! Invariant: as many outcomes as transfers were asked for.

use serde::Deserialize;
use uuid::Uuid;

use super::{Outcome, Replay};
use crate::response::Response;

/// Refusals that the engine keeps with the key, and answers again.
const KEPT_CODES: [&str; 6] = [
    "account_closed",
    "account_frozen",
    "already_reversed",
    "balance_overflow",
    "currency_mismatch",
    "insufficient_funds",
];

/// A 503 with one of these comes from the engine, before anything was written.
/// One without may come from a proxy that had passed the request on.
const UNAVAILABLE_CODES: [&str; 3] = ["database_unavailable", "deadline_exceeded", "queue_full"];

/// An answer to one transfer, or a problem.
#[derive(Debug, Default, Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    txn_id: Option<&'a str>,
    #[serde(borrow)]
    code: Option<&'a str>,
}

/// One transfer's part of a batch answer.
#[derive(Debug, Deserialize)]
struct Tagged<'a> {
    status: &'a str,
    #[serde(borrow)]
    txn_id: Option<&'a str>,
    #[serde(borrow)]
    code: Option<&'a str>,
    #[serde(default)]
    replayed: bool,
}

#[derive(Debug, Deserialize)]
struct Results<'a> {
    #[serde(borrow)]
    results: Vec<Tagged<'a>>,
}

/// How earlier attempts of the same request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Earlier {
    /// There was none.
    None,
    /// Without an answer, or with one that leaves open what happened.
    InDoubt,
}

/// Calls `tell` once for each of `count` transfers, in order.
pub(super) fn outcomes(
    response: &Response<'_>,
    (count, earlier): (usize, Earlier),
    mut tell: impl FnMut(Outcome, Replay),
) {
    let mut tell = |outcome, replay| tell(after(earlier, outcome), replay);
    if (200..300).contains(&response.status)
        && let Ok(Results { results }) = serde_json::from_slice(response.body)
        && results.len() == count
    {
        for tagged in results {
            let replay = replay(tagged.replayed || response.replayed);
            tell(of_item(&tagged), replay);
        }
        return;
    }
    let item: Item<'_> = serde_json::from_slice(response.body).unwrap_or_default();
    let outcome = match response.status {
        // One call answered as a whole.
        200..=299 if count == 1 => Outcome::Completed(id(&item)),
        // A batch answer that does not name each of its transfers.
        200..=299 => unknown(response.status, &item),
        400..=499 if is_kept(&item) => Outcome::Rejected {
            id: id(&item),
            code: code(&item),
        },
        503 if !item
            .code
            .is_some_and(|code| UNAVAILABLE_CODES.contains(&code)) =>
        {
            unknown(response.status, &item)
        }
        // 408: a proxy gave up waiting.
        408 | 500..=502 | 504.. => unknown(response.status, &item),
        _ => refused(response.status, &item),
    };
    for _ in 0..count {
        tell(outcome.clone(), replay(response.replayed));
    }
}

/// That this attempt was refused says nothing of one before it.
fn after(earlier: Earlier, outcome: Outcome) -> Outcome {
    match (earlier, outcome) {
        (Earlier::InDoubt, Outcome::Refused { status, code }) => Outcome::Unknown { status, code },
        (Earlier::InDoubt | Earlier::None, outcome) => outcome,
    }
}

fn of_item(tagged: &Tagged<'_>) -> Outcome {
    let item = &Item {
        txn_id: tagged.txn_id,
        code: tagged.code,
    };
    match tagged.status {
        "completed" => Outcome::Completed(id(item)),
        "rejected" if is_kept(item) => Outcome::Rejected {
            id: id(item),
            code: code(item),
        },
        "rejected" => refused(200, item),
        _ if item
            .code
            .is_some_and(|code| UNAVAILABLE_CODES.contains(&code)) =>
        {
            refused(503, item)
        }
        _ => unknown(200, item),
    }
}

fn is_kept(item: &Item<'_>) -> bool {
    item.code.is_some_and(|code| KEPT_CODES.contains(&code))
}

fn refused(status: u16, item: &Item<'_>) -> Outcome {
    let code = code(item);
    Outcome::Refused { status, code }
}

fn unknown(status: u16, item: &Item<'_>) -> Outcome {
    let code = code(item);
    Outcome::Unknown { status, code }
}

fn id(item: &Item<'_>) -> Option<Uuid> {
    item.txn_id.and_then(|text| Uuid::try_parse(text).ok())
}

fn code(item: &Item<'_>) -> String {
    item.code.unwrap_or_default().to_owned()
}

const fn replay(replayed: bool) -> Replay {
    if replayed {
        Replay::Replayed
    } else {
        Replay::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0198c0de-0000-7000-8000-000000000001";

    fn told(status: u16, body: &str, count: usize) -> Vec<(Outcome, Replay)> {
        told_after(Earlier::None, status, body, count)
    }

    fn told_after(
        earlier: Earlier,
        status: u16,
        body: &str,
        count: usize,
    ) -> Vec<(Outcome, Replay)> {
        let response = Response {
            status,
            close: false,
            replayed: false,
            retry_after: None,
            body: body.as_bytes(),
        };
        let mut told = Vec::new();
        outcomes(&response, (count, earlier), |outcome, replay| {
            told.push((outcome, replay));
        });
        told
    }

    #[track_caller]
    fn check(status: u16, body: &str, expected: Outcome) {
        assert_eq!(told(status, body, 1), [(expected, Replay::First)], "{body}");
    }

    fn code(status: u16, code: &str) -> (u16, String) {
        (status, code.to_owned())
    }

    #[test]
    fn only_a_2xx_is_a_promise() {
        let id = Uuid::try_parse(ID).ok();
        let body =
            format!(r#"{{"txn_id":"{ID}","status":"completed","from":1,"to":2,"amount":1.50}}"#);
        check(200, &body, Outcome::Completed(id));
        check(200, "", Outcome::Completed(None));
    }

    #[test]
    fn a_refusal_is_told_from_an_unknown_outcome() {
        let problem =
            |code: &str| format!(r#"{{"type":"about:blank","status":422,"code":"{code}"}}"#);
        for (status, name) in [
            (503, "queue_full"),
            (404, "account_not_found"),
            (429, "rate_limited"),
            (422, "idempotency_key_reused"),
        ] {
            let (status, code) = code(status, name);
            check(status, &problem(name), Outcome::Refused { status, code });
        }
        for (status, name) in [
            (504, "outcome_unknown"),
            (500, "x"),
            (503, "from_a_proxy"),
            (502, ""),
        ] {
            let (status, code) = code(status, name);
            check(status, &problem(name), Outcome::Unknown { status, code });
        }
        let code = "insufficient_funds".to_owned();
        check(422, &problem(&code), Outcome::Rejected { id: None, code });
    }

    #[test]
    fn a_refusal_says_nothing_of_an_attempt_before_it() {
        let refusal = r#"{"code":"queue_full"}"#;
        let (status, code) = code(503, "queue_full");
        let told = told_after(Earlier::InDoubt, status, refusal, 1);
        assert_eq!(told, [(Outcome::Unknown { status, code }, Replay::First)]);
        let rejection = r#"{"code":"insufficient_funds"}"#;
        let told = told_after(Earlier::InDoubt, 422, rejection, 1);
        assert!(matches!(told[0].0, Outcome::Rejected { .. }));
    }

    #[test]
    fn a_batch_tells_each_of_its_transfers() {
        let body = format!(
            r#"{{"results":[{{"txn_id":"{ID}","status":"completed","replayed":true}},
            {{"txn_id":"{ID}","status":"rejected","code":"insufficient_funds"}},
            {{"status":"rejected","code":"account_not_found"}},
            {{"status":"failed","code":"queue_full"}},{{"status":"failed","code":"outcome_unknown"}}]}}"#
        );
        let id = Uuid::try_parse(ID).ok();
        let all = told(200, &body, 5);
        assert_eq!(all[0], (Outcome::Completed(id), Replay::Replayed));
        let code = "insufficient_funds".to_owned();
        assert_eq!(all[1].0, Outcome::Rejected { id, code });
        assert!(matches!(all[2].0, Outcome::Refused { status: 200, .. }));
        assert!(matches!(all[3].0, Outcome::Refused { status: 503, .. }));
        assert!(matches!(all[4].0, Outcome::Unknown { .. }));
        // Too few results promise nothing about any of them.
        assert!(
            told(200, &body, 6)
                .iter()
                .all(|(o, _)| matches!(o, Outcome::Unknown { .. }))
        );
        assert_eq!(told(503, r#"{"code":"queue_full"}"#, 3).len(), 3);
    }
}
