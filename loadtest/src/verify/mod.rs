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
use crate::journal::{Closing, ReadError, Reader};
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
    let mut readers = open(plan)?;
    let Some(first) = readers.first() else {
        return Err(VerifyError::Ask(AskError::Usage(
            "no journal to verify".to_owned(),
        )));
    };
    let mut header = first.reader.header().clone();
    // Workers begin together, by clocks that differ.
    let began = readers
        .iter()
        .map(|opened| opened.reader.header().started_unix_ms);
    header.started_unix_ms = began.min().unwrap_or(header.started_unix_ms);
    let mut ledger: Box<dyn Ledger> = match &plan.database {
        Some(database) => Box::new(sql::Database::connect(database)?),
        None => {
            let host = plan.host.as_deref().unwrap_or(&header.host);
            Box::new(http::Engine::new(host, &plan.access, plan.connections)?)
        }
    };
    let bytes = readers.iter().map(|opened| opened.reader.length()).sum();
    let bar = bar(plan, bytes);
    let mut judge = Judge::new(&header);
    for opened in &mut readers {
        read_all(opened, &mut judge, ledger.as_mut(), &bar)?;
    }
    if !judge.rechecks.is_empty() {
        bar.set_message("looking at refusals again");
        let mut others = HashSet::new();
        for opened in &mut readers {
            let found = other_requests(&mut opened.reader, &judge.rechecks);
            others.extend(found.map_err(|error| opened.unreadable(error))?);
        }
        judge.recheck(&others);
    }
    bar.set_message("sums");
    judge.findings.books = ledger.books(&judge.window())?;
    bar.finish_and_clear();
    let findings: Findings = judge.findings;
    report::write(plan, &header, &findings).map_err(VerifyError::Report)?;
    Ok(findings.verdict(plan.sharing))
}

/// A journal and what it is called.
#[derive(Debug)]
struct Opened {
    name: String,
    reader: Reader,
}

impl Opened {
    fn unreadable(&self, error: ReadError) -> VerifyError {
        VerifyError::Journal(self.name.clone(), error)
    }
}

/// Opens the journals: of one run, each once. Its workers number their users
/// apart, so no key is in two of them.
fn open(plan: &Plan) -> Result<Vec<Opened>, VerifyError> {
    let mut all: Vec<Opened> = Vec::new();
    for path in &plan.journals {
        let name = path.display().to_string();
        let reader =
            Reader::open(path).map_err(|error| VerifyError::Journal(name.clone(), error))?;
        let opened = Opened { name, reader };
        let header = opened.reader.header();
        for other in &all {
            let before = other.reader.header();
            let problem = if before.run_id == header.run_id {
                "is in it twice: name each journal once".to_owned()
            } else if before.seed != header.seed
                || (before.accounts_first, before.accounts_last)
                    != (header.accounts_first, header.accounts_last)
            {
                format!(
                    "is not of the same run as {}: verify runs one by one",
                    other.name
                )
            } else {
                continue;
            };
            return Err(opened.unreadable(ReadError::Header(problem)));
        }
        all.push(opened);
    }
    Ok(all)
}

/// Judges every transfer of a journal.
fn read_all(
    opened: &mut Opened,
    judge: &mut Judge<'_>,
    ledger: &mut dyn Ledger,
    bar: &ProgressBar,
) -> Result<(), VerifyError> {
    let (mut joiner, mut ready) = (Joiner::default(), Vec::new());
    let before = bar.position();
    loop {
        let block = read_block(&mut opened.reader, &mut joiner, &mut ready);
        if !block.map_err(|error| opened.unreadable(error))? {
            break;
        }
        while ready.len() >= CHUNK {
            let rest = ready.split_off(CHUNK);
            judge.chunk(ledger, &ready)?;
            ready = rest;
        }
        bar.set_position(before + opened.reader.position());
    }
    judge.findings.cut_bytes += opened.reader.cut_bytes();
    if opened.reader.closing() == Closing::CutShort {
        judge.findings.closing = Closing::CutShort;
    }
    ready.extend(joiner.rest());
    for chunk in ready.chunks(CHUNK) {
        judge.chunk(ledger, chunk)?;
    }
    Ok(())
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
