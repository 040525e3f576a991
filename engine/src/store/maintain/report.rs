//! What `engine maintain` did, for people and programs.

use std::fmt;

use super::PARTITIONS_AHEAD_MIN;

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MaintainReport {
    /// Partitions made.
    pub created: Vec<String>,
    /// Partitions dropped.
    pub dropped: Vec<String>,
    /// Expired partitions that others were still reading; the next run has them.
    pub postponed: Vec<String>,
    /// Indexes by account built on months that are over: table and columns.
    pub indexed: Vec<String>,
    /// Indexes dropped because an earlier build of them had been cut off.
    pub unfinished: Vec<String>,
    /// Indexes that are still missing; the next run tries again.
    pub unindexed: Vec<Unindexed>,
    /// Partitioned tables that got new statistics.
    pub analysed: Vec<String>,
    /// Whether another run is busy with indexes and statistics, which were left
    /// to it.
    pub busy_elsewhere: bool,
    /// How far ahead the tables are prepared now.
    pub ahead: PartitionsAhead,
}

/// An index that could not be built.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Unindexed {
    /// Table and columns.
    pub index: String,
    /// What kept it, in the database's words.
    pub reason: String,
}

impl fmt::Display for MaintainReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (did, names) in [
            ("created", &self.created),
            ("dropped", &self.dropped),
            ("postponed dropping (in use)", &self.postponed),
            ("dropped the unfinished index", &self.unfinished),
            ("indexed", &self.indexed),
            ("analysed", &self.analysed),
        ] {
            for name in names {
                writeln!(formatter, "{did} {name}")?;
            }
        }
        for Unindexed { index, reason } in &self.unindexed {
            writeln!(formatter, "did not index {index}: {reason}")?;
        }
        if self.busy_elsewhere {
            writeln!(
                formatter,
                "left indexes and statistics to another run, which is busy with them"
            )?;
        }
        write!(
            formatter,
            "partitions ahead: transfers {}, rejections {}, idempotency_keys {}",
            self.ahead.transfers, self.ahead.rejections, self.ahead.keys
        )
    }
}

/// Partitions that follow the current one without a gap; 0 also when there is
/// no current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PartitionsAhead {
    /// Months of transfers.
    pub transfers: usize,
    /// Months of rejections.
    pub rejections: usize,
    /// Periods of idempotency keys.
    pub keys: usize,
}

impl PartitionsAhead {
    /// The table that runs out first.
    #[must_use]
    pub fn least(&self) -> usize {
        self.transfers.min(self.rejections).min(self.keys)
    }

    /// Whether someone should run `engine maintain`.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.least() < PARTITIONS_AHEAD_MIN
    }
}
