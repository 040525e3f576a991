//! What the ledger says against what was answered.
//!
//! Owns: the comparison of one transfer with its rows.
//! Never: asks about a transfer twice, or reads the journal.
//! Bound: `RECHECKS_MAX` refusals to look at again.
//! Invariant: a transfer without a key is asked about by its id only; what
//! nobody can ask is counted as unknowable, never as kept.

use std::collections::HashSet;

use uuid::Uuid;

use super::findings::{Example, Findings};
use super::join::{Ending, Transfer};
use super::ledger::{AskError, FoundBy, Ledger, Question, Row, RowKind, Window};
use crate::journal::{Header, Lost, Outcome, Replay};
use crate::request::key::Key;

/// A million are some 50 MB. More refusals that were applied are all counted as
/// bad, which they very likely are.
const RECHECKS_MAX: usize = 1_000_000;

/// Another request's key: says nothing about this request's own row.
const KEY_REUSED: &str = "idempotency_key_reused";

#[derive(Debug)]
pub(crate) struct Judge<'a> {
    header: &'a Header,
    pub(crate) findings: Findings,
    /// Refused, but applied: maybe by another request with that key.
    pub(crate) rechecks: HashSet<Key>,
    ids: Option<(Uuid, Uuid)>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(header: &'a Header) -> Self {
        Self {
            header,
            findings: Findings::default(),
            rechecks: HashSet::new(),
            ids: None,
        }
    }

    pub(crate) fn window(&self) -> Window {
        Window {
            ids: self.ids,
            accounts_first: self.header.accounts_first,
            accounts_last: self.header.accounts_last,
        }
    }

    /// Asks about these transfers, and judges.
    pub(crate) fn chunk(
        &mut self,
        ledger: &mut dyn Ledger,
        transfers: &[Transfer],
    ) -> Result<(), AskError> {
        let questions: Vec<_> = transfers.iter().map(|t| self.question(t)).collect();
        let rows = ledger.look_up(&questions)?;
        for (transfer, rows) in transfers.iter().zip(&rows) {
            self.judge(transfer, rows);
        }
        Ok(())
    }

    /// Counts the rechecks that no other request explains.
    pub(crate) fn recheck(&mut self, others: &HashSet<Key>) {
        for key in std::mem::take(&mut self.rechecks) {
            if !others.contains(&key) {
                self.findings.rejected_applied += 1;
                let key = key.text(self.header.seed);
                self.findings.example(|| Example {
                    problem: "refused, but applied",
                    key: Some(key),
                    txn_id: None,
                    asked: String::new(),
                    found: Vec::new(),
                });
            }
        }
    }

    fn key(&self, transfer: &Transfer) -> Option<String> {
        let key = || transfer.key.text(self.header.seed);
        transfer.is_keyed().then(key)
    }

    fn question(&self, transfer: &Transfer) -> Question {
        Question {
            key: self.key(transfer),
            id: named_id(transfer),
        }
    }

    fn judge(&mut self, transfer: &Transfer, rows: &[Row]) {
        self.findings.transfers += 1;
        self.findings.transfers_keyless += u64::from(!transfer.is_keyed());
        let can_ask = transfer.is_keyed() || named_id(transfer).is_some();
        match &transfer.ending {
            Ending::Answered(Outcome::Completed(id), replay) => {
                self.findings.acknowledged += 1;
                self.findings.acknowledged_replayed += u64::from(*replay == Replay::Replayed);
                if let Some(id) = *id
                    && (*replay == Replay::First || !self.is_earlier(id))
                {
                    self.widen(id);
                }
                if can_ask {
                    self.judge_acknowledged(transfer, *id, rows);
                } else {
                    self.findings.acknowledged_unknowable += 1;
                }
            }
            Ending::Answered(Outcome::Rejected { .. }, _) => {
                self.findings.rejected += 1;
                if rows.iter().any(|row| row.kind == RowKind::Transfer) {
                    self.findings.rejected_applied += 1;
                    self.example("rejected, but applied", transfer, rows);
                } else if transfer.is_keyed() && !is_kept(transfer, rows) {
                    self.findings.rejections_missing += 1;
                    self.example("rejection not kept", transfer, rows);
                }
            }
            Ending::Answered(Outcome::Refused { code, .. }, _) => {
                self.findings.refused += 1;
                if code != KEY_REUSED {
                    self.judge_refused(transfer, rows);
                }
            }
            Ending::Answered(Outcome::Unknown { .. }, _) => {
                self.findings.unanswered.unknown += 1;
                self.judge_unanswered(transfer, rows);
            }
            Ending::Unanswered(lost) => {
                match lost {
                    Lost::Io => self.findings.unanswered.io += 1,
                    Lost::Timeout => self.findings.unanswered.timeout += 1,
                    Lost::Protocol => self.findings.unanswered.protocol += 1,
                    Lost::GivenUp => self.findings.unanswered.given_up += 1,
                }
                self.judge_unanswered(transfer, rows);
            }
            Ending::InFlight => {
                self.findings.unanswered.in_flight += 1;
                self.judge_unanswered(transfer, rows);
            }
        }
    }

    /// Takes the id of a transfer of this run.
    fn widen(&mut self, id: Uuid) {
        let (low, high) = self.ids.unwrap_or((id, id));
        self.ids = Some((low.min(id), high.max(id)));
    }

    /// Whether an earlier run with this seed made it.
    fn is_earlier(&self, id: Uuid) -> bool {
        unix_ms(id).is_some_and(|ms| ms < self.header.started_unix_ms)
    }

    fn judge_acknowledged(&mut self, transfer: &Transfer, id: Option<Uuid>, rows: &[Row]) {
        let moved = || rows.iter().filter(|row| row.kind == RowKind::Transfer);
        // The id that was promised must be there, whatever else the key leads to.
        if moved().next().is_none() || id.is_some_and(|id| moved().all(|row| row.id != id)) {
            self.findings.missing += 1;
            self.example("missing", transfer, rows);
            return;
        }
        if transfer.is_keyed() && !is_kept(transfer, rows) {
            self.findings.keys_lost += 1;
            self.example("its key does not lead to it", transfer, rows);
        }
        if self.judge_moved(transfer, rows) {
            self.findings.found_once += 1;
            self.findings.acknowledged_keyless_found += u64::from(!transfer.is_keyed());
        }
    }

    /// Whether the transfer is there once, as it was asked for.
    fn judge_moved(&mut self, transfer: &Transfer, rows: &[Row]) -> bool {
        let mut moved = rows.iter().filter(|row| row.kind == RowKind::Transfer);
        let first = moved.next();
        if moved.next().is_some() {
            self.findings.doubled += 1;
            self.example("doubled", transfer, rows);
            return false;
        }
        let as_asked = first.is_some_and(|row| is_as_asked(transfer, row));
        if !as_asked {
            self.findings.wrong += 1;
            self.example("wrong amount or accounts", transfer, rows);
        }
        as_asked
    }

    fn judge_refused(&mut self, transfer: &Transfer, rows: &[Row]) {
        let Some(row) = rows.iter().find(|row| row.kind == RowKind::Transfer) else {
            return;
        };
        if self.is_earlier(row.id) {
            self.findings.refused_applied_before += 1;
        } else if self.rechecks.len() < RECHECKS_MAX {
            self.rechecks.insert(transfer.key);
        } else {
            self.findings.rejected_applied += 1;
        }
    }

    fn judge_unanswered(&mut self, transfer: &Transfer, rows: &[Row]) {
        self.findings.unanswered.total += 1;
        if !transfer.is_keyed() {
            self.findings.unanswered.unknowable += 1;
        } else if let Some(row) = rows.iter().find(|row| row.kind == RowKind::Transfer) {
            if self.is_earlier(row.id) {
                // Another request had the key before, and has it if it differs.
                if !is_as_asked(transfer, row) {
                    self.findings.unanswered.never_arrived += 1;
                    return;
                }
            } else {
                self.widen(row.id);
            }
            self.findings.unanswered.applied += 1;
            // Nobody was told, but it must be right and once all the same.
            self.judge_moved(transfer, rows);
        } else if rows.is_empty() {
            self.findings.unanswered.never_arrived += 1;
        } else {
            self.findings.unanswered.rejected += 1;
        }
    }

    fn example(&mut self, problem: &'static str, transfer: &Transfer, rows: &[Row]) {
        let key = self.key(transfer);
        let planned = &transfer.planned;
        let told = |from: u64, to: u64, amount| format!("{amount} from {from} to {to}");
        self.findings.example(|| Example {
            problem,
            key,
            txn_id: named_id(transfer).map(|id| id.to_string()),
            asked: told(planned.from, planned.to, planned.amount),
            found: rows
                .iter()
                .map(|row| {
                    let what = match row.kind {
                        RowKind::Transfer => "transfer",
                        RowKind::Rejection => "rejection",
                    };
                    format!("{what} {}: {}", row.id, told(row.from, row.to, row.amount))
                })
                .collect(),
        });
    }
}

fn is_as_asked(transfer: &Transfer, row: &Row) -> bool {
    let planned = &transfer.planned;
    (row.from, row.to, row.amount) == (planned.from, planned.to, planned.amount)
}

/// Whether the key leads to the id that was answered, if one was.
fn is_kept(transfer: &Transfer, rows: &[Row]) -> bool {
    let id = named_id(transfer);
    let mut by_key = rows.iter().filter(|row| row.found_by == FoundBy::Key);
    by_key.any(|row| id.is_none_or(|id| id == row.id))
}

const fn named_id(transfer: &Transfer) -> Option<Uuid> {
    match transfer.ending {
        Ending::Answered(Outcome::Completed(id) | Outcome::Rejected { id, .. }, _) => id,
        Ending::Answered(Outcome::Refused { .. } | Outcome::Unknown { .. }, _)
        | Ending::Unanswered(_)
        | Ending::InFlight => None,
    }
}

/// When a version 7 id was made, by its maker's clock.
fn unix_ms(id: Uuid) -> Option<u64> {
    (id.get_version_num() == 7).then(|| u64::try_from(id.as_u128() >> 80).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Books;
    use super::*;
    use crate::journal::{Amount, Planned};
    use crate::scenario::Keys;

    const STARTED_UNIX_MS: u64 = 1_790_000_000_000;

    /// Answers every question with the same rows.
    struct Told(Vec<Row>);

    impl Ledger for Told {
        fn look_up(&mut self, questions: &[Question]) -> Result<Vec<Vec<Row>>, AskError> {
            Ok(questions.iter().map(|_| self.0.clone()).collect())
        }

        fn books(&mut self, _window: &Window) -> Result<Books, AskError> {
            Ok(Books::default())
        }
    }

    /// Made so long after the start of the run.
    fn id(after_ms: i64) -> Uuid {
        let ms = STARTED_UNIX_MS.strict_add_signed(after_ms);
        Uuid::from_u128((u128::from(ms) << 80) | (7 << 76) | (2 << 62))
    }

    fn row(id: Uuid, kind: RowKind, amount: &str) -> Row {
        Row {
            id,
            kind,
            found_by: FoundBy::Key,
            from: 1,
            to: 2,
            amount: Amount::parse(amount).unwrap(),
        }
    }

    fn transfer(id: Uuid, amount: &str) -> Row {
        row(id, RowKind::Transfer, amount)
    }

    /// What is found, and the window, if one transfer of 5 ended like that.
    fn judged(ending: Ending, rows: &[Row]) -> (Findings, Option<(Uuid, Uuid)>) {
        let header = Header {
            seed: 7,
            run_id: 1,
            host: String::new(),
            started_unix_ms: STARTED_UNIX_MS,
            accounts_first: 1,
            accounts_last: 9,
            amounts: "decimal".to_owned(),
        };
        let planned = Planned {
            from: 1,
            to: 2,
            amount: Amount::parse("5").unwrap(),
            keys: Keys::On,
        };
        let transfer = Transfer {
            key: Key::first(1, 1),
            planned,
            ending,
        };
        let mut judge = Judge::new(&header);
        judge.chunk(&mut Told(rows.to_vec()), &[transfer]).unwrap();
        let ids = judge.window().ids;
        (judge.findings, ids)
    }

    #[test]
    fn what_an_earlier_run_did_with_this_seed_is_not_held_against_this_one() {
        let (now, before) = (id(500), id(-500));
        let lost = || Ending::Unanswered(Lost::Io);
        // The same request, which this run only repeats.
        let (findings, ids) = judged(lost(), &[transfer(before, "5")]);
        assert_eq!((findings.unanswered.applied, findings.wrong), (1, 0));
        assert_eq!(ids, None);
        // Another one, to which the key belongs since.
        let (findings, _) = judged(lost(), &[transfer(before, "6")]);
        assert_eq!((findings.unanswered.never_arrived, findings.wrong), (1, 0));
        // In this run nobody else has the key.
        let (findings, ids) = judged(lost(), &[transfer(now, "6")]);
        assert_eq!((findings.unanswered.applied, findings.wrong), (1, 1));
        assert_eq!(ids, Some((now, now)));
    }

    #[test]
    fn a_key_that_does_not_lead_to_its_answer_is_a_broken_promise() {
        let now = id(500);
        let completed = || Ending::Answered(Outcome::Completed(Some(now)), Replay::First);
        let lost = |row| Row {
            found_by: FoundBy::Id,
            ..row
        };
        let (findings, _) = judged(completed(), &[transfer(now, "5")]);
        assert_eq!((findings.found_once, findings.keys_lost), (1, 0));
        let (findings, _) = judged(completed(), &[lost(transfer(now, "5"))]);
        assert_eq!((findings.found_once, findings.keys_lost), (1, 1));

        let rejected = || {
            let code = "insufficient_funds".to_owned();
            Ending::Answered(
                Outcome::Rejected {
                    id: Some(now),
                    code,
                },
                Replay::First,
            )
        };
        let kept = row(now, RowKind::Rejection, "5");
        let other = row(id(600), RowKind::Rejection, "5");
        for (rows, missing) in [
            (vec![kept], 0),
            (vec![lost(kept)], 1),
            (vec![other], 1),
            (vec![], 1),
        ] {
            let (findings, _) = judged(rejected(), &rows);
            assert_eq!(findings.rejections_missing, missing, "{rows:?}");
        }
    }

    #[test]
    fn the_window_is_of_what_this_run_did() {
        for (made, replay, within) in [
            (id(500), Replay::First, true),
            (id(500), Replay::Replayed, true),
            (id(-500), Replay::Replayed, false),
            // The engine's clock is behind.
            (id(-500), Replay::First, true),
        ] {
            let ending = Ending::Answered(Outcome::Completed(Some(made)), replay);
            let (findings, ids) = judged(ending, &[transfer(made, "5")]);
            assert_eq!(findings.found_once, 1);
            assert_eq!(ids.is_some(), within, "{made} {replay:?}");
        }
    }
}
