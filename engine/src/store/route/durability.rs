//! How durable a commit is, and how durable it must be.
//!
//! Owns: what replication a server has in force, and what is missing.
//! Never: asks a server; pure.

use std::fmt;
use std::time::Duration;

/// What an acknowledgement must rest on (`--durability`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Whatever the server gives; it is shown, never refused.
    #[default]
    Auto,
    /// COMMIT waits for a synchronous standby, and enough of them follow.
    SyncStandby,
    /// The storage below the server replicates, unseen by it.
    Storage,
    /// This server's own disk.
    Async,
}

/// What a server's commits rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// COMMIT waits for standbys.
    Synchronous,
    /// The storage below the server replicates (Aurora).
    Storage,
    /// Standbys or other regions follow behind; a failover can lose the newest.
    Asynchronous,
    /// Nobody follows that the server knows of.
    Alone,
    /// Not even this server's disk is waited for: `fsync` is off.
    Unsafe,
}

/// Replication as a primary sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    /// Whether the server waits for its own disk.
    pub fsync: bool,
    /// Whether the storage below replicates and the server knows it.
    pub storage: bool,
    /// Standbys that each COMMIT waits for; 0 without synchronous replication.
    pub sync_required: u32,
    /// Of the standbys that count for it, those that follow now; none if the role
    /// may not see them.
    pub sync_following: Option<u32>,
    /// All that follow, other regions of a global database included.
    pub following: u32,
    /// How far the last of them is behind.
    pub lag: Option<Duration>,
}

impl Replication {
    /// The word for it.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        if !self.fsync {
            Mode::Unsafe
        } else if self.storage {
            Mode::Storage
        } else if 0 < self.sync_required {
            Mode::Synchronous
        } else if 0 < self.following {
            Mode::Asynchronous
        } else {
            Mode::Alone
        }
    }

    /// What is missing for that demand, in words; nothing may be committed then.
    pub(super) fn shortfall(&self, demand: Durability) -> Option<String> {
        match demand {
            Durability::Auto => None,
            Durability::SyncStandby | Durability::Storage | Durability::Async if !self.fsync => {
                Some("fsync is off: a commit may not survive a crash of the server".to_owned())
            }
            Durability::Storage | Durability::Async => None,
            Durability::SyncStandby if self.sync_required == 0 => {
                Some("synchronous_standby_names is empty: COMMIT waits for no standby".to_owned())
            }
            Durability::SyncStandby => match self.sync_following {
                Some(following) if following < self.sync_required => Some(format!(
                    "{following} of {} synchronous standbys follow: COMMIT would wait",
                    self.sync_required
                )),
                // Unseen, COMMIT waits for them all the same.
                Some(_) | None => None,
            },
        }
    }
}

/// How many standbys a value of `synchronous_standby_names` makes COMMIT wait for
/// (PostgreSQL manual, 20.6.2): `FIRST 2 (a, b)`, `ANY 1 (*)`, `2 (a, b)`, `a, b`.
pub(super) fn sync_required(names: &str) -> u32 {
    let names = names.trim();
    if names.is_empty() {
        return 0;
    }
    let Some((head, _)) = names.split_once('(') else {
        return 1;
    };
    head.split_whitespace()
        .last()
        .and_then(|count| count.parse().ok())
        .unwrap_or(1)
}

impl Mode {
    /// The word on `/readyz`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Synchronous => "synchronous",
            Self::Storage => "storage",
            Self::Asynchronous => "asynchronous",
            Self::Alone => "none",
            Self::Unsafe => "fsync_off",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Auto => "auto",
            Self::SyncStandby => "sync-standby",
            Self::Storage => "storage",
            Self::Async => "async",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_synchronous_standbys_is_read_from_their_names() {
        for (names, expected) in [
            ("", 0),
            ("  ", 0),
            ("standby", 1),
            ("*", 1),
            ("a, b, c", 1),
            ("2 (a, b, c)", 2),
            ("FIRST 2 (a, b, c)", 2),
            ("first 3(a,b,c)", 3),
            ("ANY 1 (*)", 1),
            ("\"odd (name)\"", 1),
        ] {
            assert_eq!(sync_required(names), expected, "{names}");
        }
    }

    #[track_caller]
    fn check(replication: Replication, demand: Durability, is_enough: bool) {
        let shortfall = replication.shortfall(demand);
        assert_eq!(
            shortfall.is_none(),
            is_enough,
            "{replication:?} {demand} {shortfall:?}"
        );
    }

    #[test]
    fn less_than_demanded_is_a_shortfall_and_auto_demands_nothing() {
        let alone = Replication {
            fsync: true,
            ..Replication::default()
        };
        let sync = |following| Replication {
            sync_required: 2,
            sync_following: following,
            following: following.unwrap_or(0),
            ..alone
        };
        for (replication, enough) in [
            (alone, false),
            (sync(Some(1)), false),
            (sync(Some(2)), true),
            (sync(Some(3)), true),
            // The role may not look: the setting alone makes COMMIT wait.
            (sync(None), true),
        ] {
            check(replication, Durability::SyncStandby, enough);
            for demand in [Durability::Auto, Durability::Storage, Durability::Async] {
                check(replication, demand, true);
            }
        }
        let unsafe_one = Replication {
            fsync: false,
            ..sync(Some(2))
        };
        check(unsafe_one, Durability::Auto, true);
        for demand in [
            Durability::SyncStandby,
            Durability::Storage,
            Durability::Async,
        ] {
            check(unsafe_one, demand, false);
        }
    }
}
