//! What was sent and what was answered, in a file that outlives the generator.
//!
//! Owns: the file format, its writer and its reader.
//! Never: decides whether a promise was kept; `verify` does.
//! Bound: see `write` (memory of a run) and `read` (memory of a reader).
//! Invariant: a transfer's `Sent` stands before its answer, because one thread
//! writes both and blocks of one thread keep their order.
//!
//! The file is a header (`frame`) and then blocks, each of one client thread and
//! with a check sum, so that a torn tail is recognised, and an end. A generator
//! killed by `kill -9` loses what its threads had not handed over, less than a
//! second of it, and the end, so that `verify` knows that something is missing. A
//! machine that loses its power can lose more: nothing is synced before the end.

mod amount;
mod answer;
mod frame;
mod read;
mod record;
mod write;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use amount::Amount;
pub(crate) use answer::Earlier;
pub(crate) use read::{Closing, ReadError, Reader};
pub(crate) use write::{Journal, Recorder, explain};

use crate::request::key::Key;
use crate::scenario::{Accounts, Keys};

/// What a run was, for whoever reads its journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Keys are made of the seed, the user and a counter (`request::key`).
    pub(crate) seed: u64,
    /// Tells two runs with one seed apart.
    pub(crate) run_id: u64,
    pub(crate) host: String,
    /// By the generator's clock. Times in records count from here, in µs.
    pub(crate) started_unix_ms: u64,
    pub(crate) accounts_first: u64,
    pub(crate) accounts_last: u64,
    /// How amounts are written down: `decimal` is a whole number and a scale.
    pub(crate) amounts: String,
}

/// One transfer as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) amount: Amount,
    pub(crate) keys: Keys,
}

/// What an answer said of one transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged: it must be in the ledger. No id if the answer had none.
    Completed(Option<Uuid>),
    /// Refused for a business reason that is kept if the transfer has a key.
    Rejected { id: Option<Uuid>, code: String },
    /// Certainly not applied, and nothing kept.
    Refused { status: u16, code: String },
    /// An answer that does not say whether it was applied (504 and its kin).
    Unknown { status: u16, code: String },
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Io,
    Timeout,
    /// Something came that is not HTTP as this client reads it.
    Protocol,
    /// The run ended before it was sent again.
    GivenUp,
}

/// Whether the engine said that it answers from an earlier request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    First,
    Replayed,
}

/// One line of the journal, of the transfer that `key` numbers, with or without
/// an Idempotency-Key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Key,
    pub(crate) at_us: u64,
    pub(crate) event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Sent(Planned),
    Answered(Outcome, Replay),
    Unanswered(Lost),
}

/// Where a run's journal goes and what stands at its head.
#[derive(Clone, Debug)]
pub(crate) struct JournalPlan {
    pub(crate) path: PathBuf,
    pub(crate) host: String,
    pub(crate) seed: u64,
    pub(crate) accounts: Accounts,
}
