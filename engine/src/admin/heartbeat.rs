//! A sign of life from the main runtime.
//!
//! Owns: the time of the last beat.
//! Never: waits; the admin thread reads it while the main runtime may be stuck.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Beaten by a task of the main runtime, read by the admin thread.
#[derive(Debug)]
pub struct Heartbeat {
    origin: Instant,
    /// Milliseconds from `origin` to the last beat, plus one; 0 before the first.
    last: AtomicU64,
}

impl Heartbeat {
    /// How often [`Heartbeat::run`] beats.
    pub const INTERVAL: Duration = Duration::from_secs(1);

    /// Before its first beat: the engine is starting, which may take long.
    #[must_use]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    /// Beats once.
    pub fn beat(&self) {
        let since = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since.saturating_add(1), Ordering::Release);
    }

    /// Beats for ever; the supervisor ends it.
    pub async fn run(&self) {
        loop {
            self.beat();
            tokio::time::sleep(Self::INTERVAL).await;
        }
    }

    /// Whether the last beat is less than `limit` old, or none came yet.
    #[must_use]
    pub fn beats_within(&self, limit: Duration) -> bool {
        let Some(last) = self.last.load(Ordering::Acquire).checked_sub(1) else {
            return true;
        };
        let silence = self
            .origin
            .elapsed()
            .saturating_sub(Duration::from_millis(last));
        silence < limit
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_first_beat_it_is_alive_and_after_it_the_limit_counts() {
        let heartbeat = Heartbeat::new();
        assert!(heartbeat.beats_within(Duration::ZERO));
        heartbeat.beat();
        assert!(!heartbeat.beats_within(Duration::ZERO));
        assert!(heartbeat.beats_within(Duration::MAX));
    }
}
