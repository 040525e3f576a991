//! What the cache did, counted.
//!
//! Owns: counters and the breaker's state as others see it.
//! Never: decides anything, except that the state is what readers check first.
//! Bound: one atomic per counter.
//! Invariant: counters only grow.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::breaker::BreakerState;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug)]
        pub(super) struct Stats {
            /// What readers look at first; a channel so that others can wait.
            breaker: watch::Sender<BreakerState>,
            $(pub(super) $name: Counter,)*
        }

        impl Stats {
            pub(super) fn new() -> Self {
                Self {
                    breaker: watch::Sender::new(BreakerState::Open),
                    $($name: Counter::default(),)*
                }
            }

            pub(super) fn snapshot(&self) -> CacheStats {
                CacheStats {
                    breaker: *self.breaker.borrow(),
                    $($name: self.$name.0.load(Ordering::Relaxed),)*
                }
            }
        }

        /// The counters since the start, and the breaker's state, at one moment.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct CacheStats {
            /// Whether Redis is asked; `Open` as well where none is configured.
            pub breaker: BreakerState,
            $($(#[$doc])* pub $name: u64,)*
        }
    };
}

counters! {
    /// Reads answered from Redis.
    hits,
    /// Reads for which Redis had no entry.
    misses,
    /// Reads whose entry was older than a version this engine committed.
    floor_misses,
    /// Reads whose entry was too old, or from the future, by its own time.
    expired_misses,
    /// Reads whose entry came from before this engine lost its floor.
    untrusted_misses,
    /// Reads whose entry was not one of ours.
    unreadable_misses,
    /// Reads that did not ask Redis: breaker not closed, too many waiting.
    bypasses,
    /// Entries stored.
    puts,
    /// Entries refused because Redis had the same or newer.
    stale_puts_refused,
    /// Operations that Redis or the connection failed, timeouts not included.
    errors,
    /// Operations without a reply in time.
    timeouts,
    /// Balances of recently read accounts not put after a commit: queue full or
    /// Redis away.
    write_behind_dropped,
    /// Balances read from the database and not put, for the same reasons.
    fills_dropped,
    /// Times versions were forgotten early because the floor's bound was reached.
    floor_losses,
}

impl Stats {
    pub(super) fn state(&self) -> BreakerState {
        *self.breaker.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<BreakerState> {
        self.breaker.subscribe()
    }

    /// Returns the state before.
    pub(super) fn show(&self, state: BreakerState) -> BreakerState {
        self.breaker.send_replace(state)
    }
}

/// Grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn one(&self) {
        self.add(1);
    }
}
