//! How many connections the operating system lets this process have.
//!
//! Owns: the process's limit of open files (`RLIMIT_NOFILE`), which is raised as
//! far as connections need it and the hard limit allows.
//! Invariant: with as many connections as [`Room::connections_max`] there is a file
//! left for everything that `reserved` counts, so that clients cannot take the
//! last one from a committer, a scrape or a health check.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Connections: as wanted, or fewer.
    pub connections_max: usize,
    /// Open files allowed now; none if there is no limit.
    pub files_max: Option<u64>,
}

/// Raises the limit for `wanted` connections beside `reserved` other files, and
/// tells how many fit.
#[must_use]
pub fn make_room(wanted: usize, reserved: usize) -> Room {
    let needed = u64::try_from(wanted.saturating_add(reserved)).unwrap_or(u64::MAX);
    let limit = getrlimit(Resource::Nofile);
    if let Some(current) = limit.current
        && current < needed
    {
        let raised = Rlimit {
            current: Some(limit.maximum.map_or(needed, |most| most.min(needed))),
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        }
    }
    fit(wanted, reserved, getrlimit(Resource::Nofile).current)
}

fn fit(wanted: usize, reserved: usize, files_max: Option<u64>) -> Room {
    let files = files_max.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    });
    Room {
        // One at least: an engine that serves nobody is no use.
        connections_max: wanted.min(files.saturating_sub(reserved)).max(1),
        files_max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files_max: Option<u64>, connections_max: usize) {
        let room = Room {
            connections_max,
            files_max,
        };
        assert_eq!(fit(1_000, 64, files_max), room, "files_max={files_max:?}");
    }

    #[test]
    fn connections_leave_the_reserved_files_alone() {
        check(None, 1_000);
        check(Some(1_064), 1_000);
        check(Some(1_063), 999);
        check(Some(65), 1);
        check(Some(64), 1);
        check(Some(0), 1);
    }

    #[test]
    fn what_fits_already_changes_nothing() {
        let before = getrlimit(Resource::Nofile);
        assert_eq!(make_room(1, 1).connections_max, 1);
        assert_eq!(getrlimit(Resource::Nofile), before);
    }
}
