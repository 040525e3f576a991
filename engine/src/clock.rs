//! Time, as an argument: rooms are given a [`Clock`], tests own theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where time comes from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The operating system.
    System,
    /// A test's: wall time in milliseconds since the Unix epoch.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// Wall time, milliseconds since the Unix epoch.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        match self {
            #[expect(
                clippy::disallowed_methods,
                reason = "the one place that reads the wall clock"
            )]
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                }),
            Self::Manual(unix_ms) => unix_ms.load(Ordering::Acquire),
        }
    }

    /// Monotonic time, for durations and deadlines.
    #[must_use]
    pub fn now(&self) -> Instant {
        // tokio's clock is the system's, unless a simulation has paused it.
        tokio::time::Instant::now().into_std()
    }
}
