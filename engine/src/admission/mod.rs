//! Who may enter, and for how long they may wait.

/// Why a request got no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No room; certainly not applied.
    QueueFull,
    /// PostgreSQL cannot be reached or written; certainly not applied.
    DatabaseUnavailable,
    /// Out of time before its batch closed; certainly not applied.
    DeadlineExceeded,
    /// Out of time, or the link broke, while its batch was being written: it may
    /// or may not have been applied, and a retry with the same key will tell.
    OutcomeUnknown,
    /// The engine is stopping; certainly not applied.
    Draining,
}
