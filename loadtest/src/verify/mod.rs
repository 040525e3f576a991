//! Whether the engine kept what it promised to a run.
//!
//! Owns: the order of a verification and its verdict.
//! Never: writes to the engine, its ledger or the journal.
//! Bound: `CHUNK` transfers at a time, the transfers in flight when the run
//! ended, `RECHECKS_MAX` refusals to look at again; not the journal's length.
//! Invariant: every transfer in the journal is counted in exactly one row of
//! what was promised: acknowledged, rejected, refused or unanswered.
//!
//! A transfer is asked about by its key (the ledger keeps a hash of it, with the
//! id of what it led to) and, where that is not enough, by its id. A refused
//! request whose key was applied may have been applied by another request with
//! that key: the journal is then read once more to find out.

pub(crate) mod args;
mod findings;
mod http;
mod join;
mod judge;
mod ledger;
mod report;
mod sql;

use std::collections::HashSet;
use std::fmt;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::args::Plan;
use self::findings::Findings;
use self::join::{Joiner, Transfer};
use self::judge::Judge;
use self::ledger::{AskError, Ledger};
use crate::args::Progress;
use crate::journal::{ReadError, Reader};
use crate::request::key::Key;

/// Transfers asked about at a time: enough that a round trip does not matter.
const CHUNK: usize = 4096;

/// Why nothing can be said.
#[derive(Debug)]
pub(crate) enum VerifyError {
    Journal(String, ReadError),
    Ask(AskError),
    Report(std::io::Error),
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal(path, error) => write!(f, "{path}: {error}"),
            Self::Ask(error) => write!(f, "{error}"),
            Self::Report(error) => write!(f, "write the report: {error}"),
        }
    }
}

impl std::error::Error for VerifyError {}

impl From<AskError> for VerifyError {
    fn from(error: AskError) -> Self {
        Self::Ask(error)
    }
}

/// Whether every promise was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    Broken,
}

/// Verifies and prints.
///
/// # Errors
/// [`VerifyError`] if there is no verdict.
pub(crate) fn verify(plan: &Plan) -> Result<Verdict, VerifyError> {
    let unreadable = |error| VerifyError::Journal(plan.journal.display().to_string(), error);
    let mut reader = Reader::open(&plan.journal).map_err(unreadable)?;
    let header = reader.header().clone();
    let mut ledger: Box<dyn Ledger> = match &plan.database {
        Some(database) => Box::new(sql::Database::connect(database)?),
        None => {
            let host = plan.host.as_deref().unwrap_or(&header.host);
            Box::new(http::Engine::new(host, &plan.access, plan.connections)?)
        }
    };
    let bar = bar(plan, reader.length());
    let mut judge = Judge::new(&header);
    let mut joiner = Joiner::default();
    let mut ready = Vec::new();
    while read_block(&mut reader, &mut joiner, &mut ready).map_err(unreadable)? {
        while ready.len() >= CHUNK {
            let rest = ready.split_off(CHUNK);
            judge.chunk(ledger.as_mut(), &ready)?;
            ready = rest;
        }
        bar.set_position(reader.position());
    }
    judge.findings.cut_bytes = reader.cut_bytes();
    judge.findings.closing = reader.closing();
    ready.extend(joiner.rest());
    for chunk in ready.chunks(CHUNK) {
        judge.chunk(ledger.as_mut(), chunk)?;
    }
    if !judge.rechecks.is_empty() {
        bar.set_message("looking at refusals again");
        let others = other_requests(&mut reader, &judge.rechecks).map_err(unreadable)?;
        judge.recheck(&others);
    }
    bar.set_message("sums");
    judge.findings.books = ledger.books(&judge.window())?;
    bar.finish_and_clear();
    let findings: Findings = judge.findings;
    report::write(plan, &header, &findings).map_err(VerifyError::Report)?;
    Ok(findings.verdict(plan.sharing))
}

/// Reads a block; false at the end.
fn read_block(
    reader: &mut Reader,
    joiner: &mut Joiner,
    ready: &mut Vec<Transfer>,
) -> Result<bool, ReadError> {
    let block = reader.next_block(|record| joiner.take(record, ready))?;
    Ok(block.is_some())
}

/// Which of `wanted` another request may have applied.
fn other_requests(reader: &mut Reader, wanted: &HashSet<Key>) -> Result<HashSet<Key>, ReadError> {
    reader.rewind()?;
    let (mut joiner, mut ready) = (Joiner::default(), Vec::new());
    let mut found = HashSet::new();
    let mut keep = |transfer: &Transfer| {
        if wanted.contains(&transfer.key) && transfer.may_be_applied() {
            found.insert(transfer.key);
        }
    };
    while read_block(reader, &mut joiner, &mut ready)? {
        ready.drain(..).for_each(|transfer| keep(&transfer));
    }
    joiner.rest().for_each(|transfer| keep(&transfer));
    Ok(found)
}

fn bar(plan: &Plan, bytes: u64) -> ProgressBar {
    let target = match plan.progress {
        Progress::Shown if std::io::stderr().is_terminal() => ProgressDrawTarget::stderr(),
        Progress::Shown | Progress::Hidden => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let template = "[{bar:30}] {percent}% {bytes}/{total_bytes} {eta} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
