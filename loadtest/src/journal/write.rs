//! Writing a journal while a run goes on.
//!
//! Owns: the file, the thread that writes it, each client thread's block.
//! Never: makes a client thread write to the disk, or loses a record silently.
//! Bound: `BLOCK_BYTES` and one request's records for each client thread, and
//! `QUEUE_BLOCKS` blocks for each between them and the writer.
//! Invariant: a record is handed to the kernel (`write`, not `fsync`) within
//! `FLUSH_EVERY` and one scan of the worker, unless the disk is behind.
//!
//! When the disk is behind, client threads wait for it (back pressure): the run
//! gets slower, the journal stays whole, and [`Written::waited`] tells how long.
//! When the disk fails, the run ends with the error.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::answer::{self, Earlier};
use super::record::Encoder;
use super::{Header, JournalPlan, Lost, Planned, frame};
use crate::request::Span;
use crate::response::Response;

/// Some 2,000 transfers with their answers.
const BLOCK_BYTES: usize = 64 * 1024;
/// Half of a second that may be lost, so that a slow moment does not matter.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
const QUEUE_BLOCKS: usize = 4;

#[derive(Debug)]
struct Block {
    thread: u32,
    records: Vec<u8>,
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    sender: SyncSender<Block>,
    writer: JoinHandle<std::io::Result<()>>,
    waited_us: Arc<AtomicU64>,
}

impl Journal {
    /// Makes the file, which must not exist: a journal is evidence.
    pub(crate) fn create(plan: &JournalPlan, threads: u32) -> std::io::Result<Self> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&plan.path)?;
        let started_unix_ms = unix_ms();
        file.write_all(&frame::write_header(&Header {
            seed: plan.seed,
            run_id: crate::scenario::fresh_seed(),
            host: plan.host.clone(),
            started_unix_ms,
            accounts_first: plan.accounts.first(),
            accounts_last: plan.accounts.last(),
            amounts: "decimal".to_owned(),
        })?)?;
        let blocks = usize::try_from(threads).unwrap_or(1) * QUEUE_BLOCKS;
        let (sender, receiver) = sync_channel(blocks);
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write_blocks(file, &receiver))?;
        Ok(Self {
            sender,
            writer,
            waited_us: Arc::default(),
        })
    }

    /// The recorder of one client thread.
    pub(crate) fn recorder(&self, thread: u32) -> Recorder {
        Recorder(Some(Open {
            thread,
            encoder: Encoder::default(),
            since: Duration::ZERO,
            sender: self.sender.clone(),
            waited_us: Arc::clone(&self.waited_us),
        }))
    }

    /// Waits until everything is on the disk. Every recorder must be gone.
    pub(crate) fn close(self) -> std::io::Result<Written> {
        drop(self.sender);
        let result = self.writer.join();
        result.unwrap_or_else(|_panic| Err(std::io::Error::other("its writer panicked")))?;
        let waited = Duration::from_micros(self.waited_us.load(Ordering::Relaxed));
        Ok(Written { waited })
    }
}

/// How writing went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// Summed over the client threads; what they measured is slower by as much.
    pub(crate) waited: Duration,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the journal's header says when the run was; nothing is measured with it"
)]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// Until every sender is gone.
fn write_blocks(mut file: File, receiver: &Receiver<Block>) -> std::io::Result<()> {
    let mut number = 0_u32;
    for Block {
        thread,
        mut records,
    } in receiver
    {
        let prefix = frame::write_prefix(thread, number, &records);
        // One call for each block, so that a kill leaves whole blocks behind.
        records.splice(..0, prefix);
        file.write_all(&records)?;
        number = number.wrapping_add(1);
    }
    file.write_all(&frame::write_prefix(frame::END_THREAD, number, &[]))?;
    file.sync_data()
}

/// Records what one client thread does; without a journal, nothing.
#[derive(Debug)]
pub(crate) struct Recorder(Option<Open>);

#[derive(Debug)]
struct Open {
    thread: u32,
    encoder: Encoder,
    /// When the block's first record was made.
    since: Duration,
    sender: SyncSender<Block>,
    waited_us: Arc<AtomicU64>,
}

impl Recorder {
    pub(crate) const fn off() -> Self {
        Self(None)
    }

    /// The transfers of a request, before it is sent for the first time.
    pub(crate) fn sent(&mut self, at: Duration, span: Span, planned: &[Planned]) {
        if let Some(open) = &mut self.0 {
            let at_us = open.begin(at);
            for (key, planned) in span.keys().zip(planned) {
                open.encoder.sent(key, at_us, planned);
            }
        }
    }

    /// The answer that ends a request, which may have been sent before.
    pub(crate) fn answered(
        &mut self,
        at: Duration,
        (span, earlier): (Span, Earlier),
        response: &Response<'_>,
    ) {
        if let Some(open) = &mut self.0
            && span.count > 0
        {
            let at_us = open.begin(at);
            let mut keys = span.keys();
            answer::outcomes(response, (span.count, earlier), |outcome, replay| {
                if let Some(key) = keys.next() {
                    open.encoder.answered(key, at_us, &outcome, replay);
                }
            });
        }
    }

    /// A request that was given up without an answer.
    pub(crate) fn unanswered(&mut self, at: Duration, span: Span, lost: Lost) {
        if let Some(open) = &mut self.0 {
            let at_us = open.begin(at);
            for key in span.keys() {
                open.encoder.unanswered(key, at_us, lost);
            }
        }
    }

    /// Hands over a block that is old enough; to be called several times a second.
    ///
    /// # Errors
    /// The journal cannot be written; [`Journal::close`] tells why.
    pub(crate) fn flush(&mut self, now: Duration) -> std::io::Result<()> {
        match &mut self.0 {
            Some(open) if now.saturating_sub(open.since) >= FLUSH_EVERY => open.hand_over(),
            Some(_) | None => Ok(()),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(open) = &mut self.0 {
            // `Journal::close` reports the writer's error.
            drop(open.hand_over());
        }
    }
}

impl Open {
    /// Makes room for the next records, made at `at`.
    fn begin(&mut self, at: Duration) -> u64 {
        if self.encoder.len() >= BLOCK_BYTES {
            // A failure is met again by the next flush, which reports it.
            drop(self.hand_over());
        }
        if self.encoder.len() == 0 {
            self.since = at;
        }
        u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
    }

    fn hand_over(&mut self) -> std::io::Result<()> {
        let gone = || std::io::Error::other("the journal cannot be written");
        if self.encoder.len() == 0 {
            return Ok(());
        }
        let block = Block {
            thread: self.thread,
            records: self.encoder.take(),
        };
        match self.sender.try_send(block) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(gone()),
            Err(TrySendError::Full(block)) => {
                let before = Instant::now();
                let sent = self.sender.send(block);
                let waited = u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.waited_us.fetch_add(waited, Ordering::Relaxed);
                sent.map_err(|_block| gone())
            }
        }
    }
}

/// Says why a journal could not be made, and what to do.
pub(crate) fn explain(path: &Path, error: &std::io::Error) -> String {
    let path = path.display();
    if error.kind() == std::io::ErrorKind::AlreadyExists {
        return format!("--journal {path}: it exists; name another file, or remove this one");
    }
    format!("--journal {path}: {error}")
}
