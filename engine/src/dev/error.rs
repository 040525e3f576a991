//! What can keep the private servers from running, with the next step to take.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Why the servers are not running, or not stopped.
#[derive(Debug)]
pub enum DevError {
    /// Another `engine dev` that still runs owns the data directory.
    Locked(PathBuf),
    /// The operating system refused.
    Io {
        /// What was being done, as a verb and its object.
        action: &'static str,
        /// With which file or program.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// A program is not installed.
    ProgramMissing {
        /// Its name.
        program: &'static str,
        /// How to get it.
        advice: &'static str,
    },
    /// The PostgreSQL found is older than version 15.
    PostgresTooOld {
        /// Where it was found.
        program: PathBuf,
        /// Its major version.
        major: u32,
    },
    /// No installed PostgreSQL has the version the data was made with.
    PostgresVersionChanged {
        /// The version of the data.
        data_major: u32,
        /// Where the data is.
        data: PathBuf,
    },
    /// Root, but no user to run PostgreSQL as.
    NoServerUser,
    /// A directory that must be ours belongs to somebody else.
    ForeignDirectory(PathBuf),
    /// `initdb` failed.
    InitFailed {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        output: String,
    },
    /// A server ended before it answered.
    EndedEarly {
        /// Which.
        server: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The end of its log.
        tail: String,
    },
    /// A server runs but did not answer in time.
    NotReady {
        /// Which.
        server: &'static str,
        /// The limit.
        waited: Duration,
        /// Its log.
        log: PathBuf,
    },
    /// A server outlived every signal.
    StillRunning {
        /// Which.
        server: &'static str,
        /// Its processes.
        pids: Vec<i32>,
    },
    /// PostgreSQL answers, but preparing it for the engine failed.
    Database(tokio_postgres::Error),
}

impl DevError {
    pub(super) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

impl fmt::Display for DevError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(path) => write!(
                f,
                "another engine dev uses {}; stop it, or give --data-dir another directory",
                path.display()
            ),
            Self::Io {
                action,
                path,
                source,
            } => write!(f, "{action} {}: {source}", path.display()),
            Self::ProgramMissing { program, advice } => {
                write!(f, "{program} is not installed: {advice}")
            }
            Self::PostgresTooOld { program, major } => write!(
                f,
                "{} is PostgreSQL {major}; 15 or later is needed (--postgres-bin-dir)",
                program.display()
            ),
            Self::PostgresVersionChanged { data_major, data } => write!(
                f,
                "{} was made by PostgreSQL {data_major}, which is not installed; install it, \
                 name it with --postgres-bin-dir, or start over with --fresh",
                data.display()
            ),
            Self::NoServerUser => f.write_str(
                "PostgreSQL refuses to run as root and there is no user postgres or nobody to \
                 run it as; create one: useradd --system postgres",
            ),
            Self::ForeignDirectory(path) => write!(
                f,
                "{} is not a directory of the user that needs it; remove it or give --data-dir \
                 another directory",
                path.display()
            ),
            Self::InitFailed { status, output } => write!(f, "initdb failed ({status}):\n{output}"),
            Self::EndedEarly {
                server,
                status,
                log,
                tail,
            } => write!(
                f,
                "{server} ended at once ({status}); its log {} ends with:\n{tail}",
                log.display()
            ),
            Self::NotReady {
                server,
                waited,
                log,
            } => write!(
                f,
                "{server} did not answer within {}; see {}",
                humantime::format_duration(*waited),
                log.display()
            ),
            Self::StillRunning { server, pids } => {
                write!(f, "{server} cannot be stopped, processes {pids:?}")
            }
            Self::Database(source) => write!(f, "prepare the database: {source}"),
        }
    }
}

impl std::error::Error for DevError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Database(source) => Some(source),
            Self::Locked(_)
            | Self::ProgramMissing { .. }
            | Self::PostgresTooOld { .. }
            | Self::PostgresVersionChanged { .. }
            | Self::NoServerUser
            | Self::ForeignDirectory(_)
            | Self::InitFailed { .. }
            | Self::EndedEarly { .. }
            | Self::NotReady { .. }
            | Self::StillRunning { .. } => None,
        }
    }
}
