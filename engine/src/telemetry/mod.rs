//! What the engine tells about itself: metrics, logs, access log.
//!
//! Owns: every metric and label, the metrics page, the log format, the access
//! log and its writer.
//! Never: makes the hot path wait, hash or allocate; never writes a body, a
//! key or a secret.
//! Bound: series are fixed at compile time; log lines wait in bounded queues,
//! and what does not fit is dropped and counted.
//! Invariant: telemetry that fails costs telemetry, never a transfer.

pub mod access_log;
mod background;
pub mod exporter;
mod histogram;
pub mod label;
pub mod logs;
pub mod metrics;
mod observer;
mod process;
mod register;

pub use background::Stopped;
pub use observer::{Observer, RequestFacts, TransferFacts, TransferStatus};
pub use register::{Family, Kind};

use std::any::Any;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

/// RFC 3339 in UTC with milliseconds; the last moment it can write for later ones.
fn timestamp(unix_ms: u64) -> impl fmt::Display {
    // 9999-12-31T23:59:59.999Z, past which the four-digit year ends.
    const LAST_MS: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms.min(LAST_MS)))
}

/// What a panic said, if it said it in words.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
