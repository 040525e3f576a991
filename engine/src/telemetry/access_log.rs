//! The access log: one line per request, and one per transfer of a batch call.
//!
//! Owns: the form of a line, and the thread that writes it.
//! Never: holds a body, a key or a credential; makes a request wait.
//! Bound: `queue_lines_max` lines; past it a line is dropped and counted, and
//! a line in the log says how many are missing.
//! Invariant: a record is of fixed size, so that queueing one allocates nothing.
//!
//! A request for one transfer is one line, which carries the transfer's id and
//! code; a batch call is one line for the request and one per transfer.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use metrics::Counter;

use super::background::{Background, Counters, Format, Stopped, Wake};
use super::label::{Label, Method, Route};
use super::timestamp;
use crate::clock::Clock;
use crate::domain::TransferId;

/// Which lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogMode {
    /// None.
    #[default]
    Off,
    /// Requests answered 400 and above, transfers that did not complete.
    Errors,
    /// All.
    All,
}

/// Text for people or JSON for machines; logs and access log alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value`.
    #[default]
    Text,
    /// One object per line.
    Json,
}

/// How the access log behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which lines.
    pub mode: AccessLogMode,
    /// In which form.
    pub format: LogFormat,
    /// Lines waiting at most.
    pub queue_lines_max: usize,
}

impl Default for Settings {
    /// 16,384 lines of 176 bytes are 3 MB, and the transfers of two of the
    /// largest batch calls.
    fn default() -> Self {
        Self {
            mode: AccessLogMode::default(),
            format: LogFormat::default(),
            queue_lines_max: 16_384,
        }
    }
}

/// The `X-Request-Id` of a request, kept inline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    bytes: [u8; Self::LENGTH_MAX],
    length: u8,
}

impl RequestId {
    /// Longer ids are cut in the log.
    pub const LENGTH_MAX: usize = 64;

    /// The first 64 bytes of `id`, anything but visible ASCII replaced by `?`.
    #[must_use]
    pub fn new(id: &str) -> Self {
        let mut bytes = [0; Self::LENGTH_MAX];
        let mut length = 0;
        for (to, from) in bytes.iter_mut().zip(id.bytes()) {
            *to = if from.is_ascii_graphic() { from } else { b'?' };
            length += 1;
        }
        Self { bytes, length }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length));
        std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(formatter)
    }
}

/// One line to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) unix_ms: u64,
    pub(super) request_id: RequestId,
    pub(super) txn_id: Option<TransferId>,
    pub(super) code: Option<&'static str>,
    pub(super) replayed: bool,
    pub(super) subject: Subject,
}

/// What a line is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject {
    Request {
        client: SocketAddr,
        method: Method,
        route: Route,
        status: u16,
        duration: Duration,
    },
    /// One transfer of a batch call.
    Transfer { index: u32, result: &'static str },
}

/// The access log while it is on.
#[derive(Debug)]
pub struct AccessLog {
    background: Background<Record>,
    mode: AccessLogMode,
}

impl AccessLog {
    /// Starts the writer; `None` when the log is off. Lines reach `out` (the
    /// daemon's is standard output) in pieces of up to 64 KiB, whole lines each.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(
        settings: Settings,
        clock: Clock,
        out: Box<dyn Write + Send>,
        lines: Counter,
        dropped: Counter,
    ) -> io::Result<Option<Self>> {
        if settings.mode == AccessLogMode::Off {
            return Ok(None);
        }
        let background = Background::start(
            "access-log",
            settings.queue_lines_max,
            Wake::Later,
            Lines {
                format: settings.format,
                clock,
            },
            out,
            Counters {
                written: Some(lines),
                dropped,
            },
        )?;
        Ok(Some(Self {
            background,
            mode: settings.mode,
        }))
    }

    /// Whether a line of that success is wanted.
    pub(super) fn wants(&self, success: bool) -> bool {
        match self.mode {
            AccessLogMode::Off => false,
            AccessLogMode::Errors => !success,
            AccessLogMode::All => true,
        }
    }

    pub(super) fn offer(&self, record: Record) {
        self.background.offer(record);
    }

    /// Writes what is queued, waiting at most `limit`.
    pub fn stop(&self, limit: Duration) -> Stopped {
        self.background.stop(limit)
    }
}

struct Lines {
    format: LogFormat,
    clock: Clock,
}

impl Format<Record> for Lines {
    fn line(&mut self, record: &Record, buffer: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _infallible = match self.format {
            LogFormat::Text => text(record, buffer),
            LogFormat::Json => json(record, buffer),
        };
    }

    fn dropped(&mut self, count: u64, buffer: &mut Vec<u8>) {
        let time = timestamp(self.clock.unix_ms());
        let _infallible = match self.format {
            LogFormat::Text => writeln!(buffer, "{time} dropped lines={count}"),
            LogFormat::Json => writeln!(
                buffer,
                r#"{{"timestamp":"{time}","kind":"dropped","lines":{count}}}"#
            ),
        };
    }
}

fn text(record: &Record, buffer: &mut Vec<u8>) -> io::Result<()> {
    let time = timestamp(record.unix_ms);
    let id = record.request_id.as_str();
    match record.subject {
        Subject::Request {
            client,
            method,
            route,
            status,
            duration,
        } => write!(
            buffer,
            "{time} request request_id={id} client={client} method={} route={} status={status} duration_us={}",
            method.as_str(),
            route.as_str(),
            duration.as_micros(),
        )?,
        Subject::Transfer { index, result } => write!(
            buffer,
            "{time} transfer request_id={id} index={index} status={result}"
        )?,
    }
    if let Some(txn_id) = record.txn_id {
        write!(buffer, " txn_id={txn_id}")?;
    }
    if let Some(code) = record.code {
        write!(buffer, " code={code}")?;
    }
    if record.replayed {
        write!(buffer, " replayed=true")?;
    }
    writeln!(buffer)
}

fn json(record: &Record, buffer: &mut Vec<u8>) -> io::Result<()> {
    let time = timestamp(record.unix_ms);
    write!(buffer, r#"{{"timestamp":"{time}","kind":"#)?;
    match record.subject {
        Subject::Request {
            client,
            method,
            route,
            status,
            duration,
        } => write!(
            buffer,
            r#""request","client":"{client}","method":"{}","route":"{}","status":{status},"duration_us":{},"#,
            method.as_str(),
            route.as_str(),
            duration.as_micros(),
        )?,
        Subject::Transfer { index, result } => {
            write!(buffer, r#""transfer","index":{index},"status":"{result}","#)?
        }
    }
    // The only text a client chooses; serde_json escapes quotes and backslashes.
    write!(buffer, r#""request_id":"#)?;
    serde_json::to_writer(&mut *buffer, record.request_id.as_str())?;
    if let Some(txn_id) = record.txn_id {
        write!(buffer, r#","txn_id":"{txn_id}""#)?;
    }
    if let Some(code) = record.code {
        write!(buffer, r#","code":"{code}""#)?;
    }
    if record.replayed {
        write!(buffer, r#","replayed":true"#)?;
    }
    writeln!(buffer, "}}")
}
