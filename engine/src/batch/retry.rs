//! What to do after a failure: the one table, exhaustive.

use crate::store::commit::{StepError, UnknownCause};

/// Why an attempt did not commit, as counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// 40001.
    SerializationFailure,
    /// 40P01.
    Deadlock,
    /// 55P03.
    LockTimeout,
    /// 23505: another engine had a key first.
    KeyConflict,
    /// 57014, 25P03.
    Timeout,
    /// 57P01 to 57P03.
    Shutdown,
    /// 25006.
    ReadOnly,
    /// Class 53: disk full, memory, connections.
    Resources,
    /// Class 08 or a broken link.
    ConnectionLost,
    /// The key periods moved on.
    PeriodsMoved,
    /// COMMIT answered ROLLBACK.
    CommitRolledBack,
    /// COMMIT came with a warning.
    CommitWarning,
    /// Class 22, 23 (keys excepted) and 54: a row the database refuses.
    DataError,
    /// Anything else: a defect or a missing grant; a person must look.
    Other,
}

impl Cause {
    /// Every cause, for metrics.
    pub const ALL: [Self; 14] = [
        Self::SerializationFailure,
        Self::Deadlock,
        Self::LockTimeout,
        Self::KeyConflict,
        Self::Timeout,
        Self::Shutdown,
        Self::ReadOnly,
        Self::Resources,
        Self::ConnectionLost,
        Self::PeriodsMoved,
        Self::CommitRolledBack,
        Self::CommitWarning,
        Self::DataError,
        Self::Other,
    ];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SerializationFailure => "serialization_failure",
            Self::Deadlock => "deadlock",
            Self::LockTimeout => "lock_timeout",
            Self::KeyConflict => "key_conflict",
            Self::Timeout => "timeout",
            Self::Shutdown => "shutdown",
            Self::ReadOnly => "read_only",
            Self::Resources => "resources",
            Self::ConnectionLost => "connection_lost",
            Self::PeriodsMoved => "periods_moved",
            Self::CommitRolledBack => "commit_rolled_back",
            Self::CommitWarning => "commit_warning",
            Self::DataError => "data_error",
            Self::Other => "other",
        }
    }
}

/// What is known about the rows of the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Certainly nothing.
    Nothing,
    /// Perhaps everything: look up before anything else.
    Unknown,
}

/// What to do with the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Again, on this session.
    Retry,
    /// Again, on a new session to whichever host is writable.
    Reconnect,
    /// In halves: the row that the database refuses must not fail strangers.
    Bisect,
    /// Refuse the batch: trying again would not help.
    Fail,
}

/// The table.
#[must_use]
pub fn judge(error: &StepError) -> (Cause, Written, NextStep) {
    match error {
        StepError::RolledBack(error) => {
            let cause = cause_of(&error.sqlstate, error.constraint.as_deref());
            (cause, Written::Nothing, step_after(cause))
        }
        StepError::Lost(_) => (Cause::ConnectionLost, Written::Nothing, NextStep::Reconnect),
        StepError::Periods(_) => (Cause::PeriodsMoved, Written::Nothing, NextStep::Retry),
        StepError::Unknown(cause) => {
            let cause = match cause {
                UnknownCause::Wire(_) => Cause::ConnectionLost,
                UnknownCause::Warning(_) => Cause::CommitWarning,
                UnknownCause::Ended(_) => Cause::Shutdown,
            };
            (cause, Written::Unknown, NextStep::Reconnect)
        }
    }
}

/// SQLSTATE to cause (PostgreSQL documentation, appendix A).
#[must_use]
pub fn cause_of(sqlstate: &str, constraint: Option<&str>) -> Cause {
    match sqlstate {
        "40001" => Cause::SerializationFailure,
        "40P01" => Cause::Deadlock,
        "55P03" => Cause::LockTimeout,
        // The sequence is behind its table, after a restore that left it out: no
        // fault of the rows.
        "23505" if constraint == Some("commits_pkey") => Cause::Other,
        "23505" => Cause::KeyConflict,
        "57014" | "25P03" => Cause::Timeout,
        "57P01" | "57P02" | "57P03" => Cause::Shutdown,
        "25006" => Cause::ReadOnly,
        "25P02" => Cause::CommitRolledBack,
        // A row that no partition takes is a check violation without a name:
        // no fault of the row, `engine maintain` is due.
        "23514" if constraint.is_none() => Cause::Other,
        // Raised by our own row-count check, never by data.
        "22012" => Cause::Other,
        _ => match sqlstate.get(..2) {
            Some("22" | "23" | "54") => Cause::DataError,
            Some("53") => Cause::Resources,
            Some("08") => Cause::ConnectionLost,
            _ => Cause::Other,
        },
    }
}

const fn step_after(cause: Cause) -> NextStep {
    match cause {
        Cause::SerializationFailure
        | Cause::Deadlock
        | Cause::LockTimeout
        | Cause::KeyConflict
        | Cause::PeriodsMoved
        | Cause::CommitRolledBack => NextStep::Retry,
        Cause::Timeout
        | Cause::Shutdown
        | Cause::ReadOnly
        | Cause::Resources
        | Cause::ConnectionLost
        | Cause::CommitWarning => NextStep::Reconnect,
        Cause::DataError => NextStep::Bisect,
        Cause::Other => NextStep::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::periods::PeriodsMoved;
    use crate::store::wire::{ServerError, WireError};

    #[track_caller]
    fn check(sqlstate: &str, constraint: Option<&str>, expected: (Cause, NextStep)) {
        let error = StepError::RolledBack(Box::new(ServerError {
            sqlstate: sqlstate.into(),
            constraint: constraint.map(str::to_owned),
            ..ServerError::default()
        }));
        let (cause, written, step) = judge(&error);
        assert_eq!((cause, step), expected, "{sqlstate}");
        assert_eq!(written, Written::Nothing, "the server rolled it back");
    }

    #[test]
    fn conflicts_are_tried_again_on_the_same_session() {
        check(
            "40001",
            None,
            (Cause::SerializationFailure, NextStep::Retry),
        );
        check("40P01", None, (Cause::Deadlock, NextStep::Retry));
        check("55P03", None, (Cause::LockTimeout, NextStep::Retry));
        check(
            "23505",
            Some("idempotency_keys_1_pkey"),
            (Cause::KeyConflict, NextStep::Retry),
        );
        check(
            "23505",
            Some("commits_pkey"),
            (Cause::Other, NextStep::Fail),
        );
        check("25P02", None, (Cause::CommitRolledBack, NextStep::Retry));
    }

    #[test]
    fn a_session_or_host_that_cannot_go_on_is_left() {
        for sqlstate in [
            "57014", "25P03", "57P01", "57P02", "57P03", "25006", "53100", "53300", "08006",
        ] {
            let (_, _, step) = judge(&StepError::RolledBack(Box::new(ServerError {
                sqlstate: sqlstate.into(),
                ..ServerError::default()
            })));
            assert_eq!(step, NextStep::Reconnect, "{sqlstate}");
        }
        let (_, written, step) = judge(&StepError::Lost(WireError::Protocol("test")));
        assert_eq!((written, step), (Written::Nothing, NextStep::Reconnect));
    }

    #[test]
    fn a_refused_row_is_searched_for() {
        check("22P02", None, (Cause::DataError, NextStep::Bisect));
        check(
            "23514",
            Some("transfers_amount"),
            (Cause::DataError, NextStep::Bisect),
        );
        check("54000", None, (Cause::DataError, NextStep::Bisect));
    }

    #[test]
    fn what_no_repetition_mends_fails() {
        check("23514", None, (Cause::Other, NextStep::Fail));
        check("42501", None, (Cause::Other, NextStep::Fail));
        check("22012", None, (Cause::Other, NextStep::Fail));
    }

    #[test]
    fn after_commit_was_sent_a_lost_answer_is_unknown() {
        for cause in [
            UnknownCause::Wire(WireError::Protocol("test")),
            UnknownCause::Warning(Box::default()),
            UnknownCause::Ended(Box::default()),
        ] {
            let (_, written, step) = judge(&StepError::Unknown(cause));
            assert_eq!((written, step), (Written::Unknown, NextStep::Reconnect));
        }
        let (_, written, _) = judge(&StepError::Periods(PeriodsMoved { database_ms: 0 }));
        assert_eq!(written, Written::Nothing);
    }
}
