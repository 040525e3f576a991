//! A private PostgreSQL and Redis, for trying the engine and for its tests.
//!
//! Owns: the servers' data directory, their processes from start to end, and the
//! demo accounts.
//! Never: touches a server it did not start, listens beyond loopback, or weakens
//! durability.
//! Bound: every start, wait and stop has a limit named where it happens.
//! Invariant: one live set of servers per data directory. A killed run is cleaned
//! up by the next, and its data is used again.

pub mod demo;
mod directory;
mod error;
mod postgres;
mod process;
mod programs;
mod redis;
mod user;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use error::DevError;

use directory::Directory;
use postgres::Postgres;
use redis::Redis;

/// Which servers to start, and where.
#[derive(Clone, Debug)]
pub struct DevSettings {
    /// Holds all they write; made if missing, kept afterwards.
    pub data_dir: PathBuf,
    /// Throw away what an earlier run stored.
    pub fresh: bool,
    /// Start Redis if it is installed.
    pub redis: bool,
    /// Whether local users need a password.
    pub login: Login,
    /// PostgreSQL's programs; `None` searches for the newest.
    pub postgres_bin_dir: Option<PathBuf>,
    /// Where programs are searched, as in `PATH`.
    pub search_path: OsString,
    /// PostgreSQL settings, name and value; they win over ours.
    pub postgres_settings: Vec<(String, String)>,
    /// Redis settings, name and value; they win over ours.
    pub redis_settings: Vec<(String, String)>,
}

/// Who may log in to the servers through loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Whoever knows the random password.
    Password,
    /// Every user of this machine, as any role: for tests, which log in as roles
    /// they have just made, on data nobody minds losing.
    Anyone,
}

/// Running servers. [`Servers::stop`] ends them; dropping only asks them to end.
#[derive(Debug)]
pub struct Servers {
    /// PostgreSQL's superuser on the database `postgres`, TCP with a password.
    pub database_url: String,
    /// The same through the Unix socket, without a password.
    pub unix_socket_database_url: String,
    /// Redis with its password; `None` if it is not installed or not wanted.
    pub redis_url: Option<String>,
    /// Whether an earlier run's servers had to be stopped first.
    pub cleaned_up: bool,
    postgres: Postgres,
    redis: Option<Redis>,
    settings: DevSettings,
    // Last: the lock is given back after the servers are told to stop.
    directory: Directory,
}

impl Servers {
    /// Starts both and waits until they answer.
    ///
    /// # Errors
    /// [`DevError`] says what is missing or in the way, and what to do about it.
    pub async fn start(settings: &DevSettings) -> Result<Self, DevError> {
        let directory = Directory::open(&settings.data_dir).await?;
        let cleaned_up = stop_leftovers_in(&directory).await?;
        if settings.fresh || directory.runtime_is_stale {
            directory.clear()?;
        }
        let postgres = postgres::start(&directory, settings).await?;
        let redis = match programs::find_redis(&settings.search_path) {
            Some(program) if settings.redis => {
                Some(redis::start(&directory, &program, settings).await?)
            }
            Some(_) | None => None,
        };
        Ok(Self {
            database_url: postgres.url("postgres"),
            unix_socket_database_url: postgres.socket_url("postgres", "postgres"),
            redis_url: redis.as_ref().map(Redis::url),
            cleaned_up,
            postgres,
            redis,
            settings: settings.clone(),
            directory,
        })
    }

    /// Kills PostgreSQL as a crash would (SIGKILL, all its processes).
    ///
    /// # Errors
    /// [`DevError::StillRunning`].
    pub async fn kill_postgres(&mut self) -> Result<(), DevError> {
        self.postgres.server.kill().await
    }

    /// Starts PostgreSQL again where it was: same data, port and password.
    ///
    /// # Errors
    /// As [`Servers::start`].
    pub async fn restart_postgres(&mut self) -> Result<(), DevError> {
        self.kill_postgres().await?;
        postgres::stop_leftover(&self.directory).await?;
        self.postgres = postgres::launch(
            &self.directory,
            &self.settings,
            &self.postgres.program.clone(),
            self.postgres.port,
        )
        .await?;
        Ok(())
    }

    /// Kills Redis as a crash would.
    ///
    /// # Errors
    /// [`DevError::StillRunning`].
    pub async fn kill_redis(&mut self) -> Result<(), DevError> {
        match &mut self.redis {
            Some(redis) => redis.server.kill().await,
            None => Ok(()),
        }
    }

    /// Starts Redis again where it was, empty: same port and password.
    ///
    /// # Errors
    /// As [`Servers::start`].
    pub async fn restart_redis(&mut self) -> Result<(), DevError> {
        self.kill_redis().await?;
        if let Some(redis) = &self.redis {
            let place = redis.place.clone();
            self.redis = Some(redis::launch(&self.directory, place, &self.settings).await?);
        }
        Ok(())
    }

    /// Makes a database if it is missing.
    ///
    /// # Errors
    /// [`DevError::Database`] if PostgreSQL refuses.
    pub async fn ensure_database(&self, name: &str) -> Result<(), DevError> {
        postgres::ensure_database(&self.database_url, name).await
    }

    /// Runs statements as the superuser in one of its databases.
    ///
    /// # Errors
    /// [`DevError::Database`] if PostgreSQL refuses.
    pub async fn run_sql(&self, database: &str, statements: &str) -> Result<(), DevError> {
        postgres::run_sql(&self.postgres.url(database), statements).await
    }

    /// Address of one of its databases over TCP, as the superuser.
    #[must_use]
    pub fn database_url_of(&self, name: &str) -> String {
        self.postgres.url(name)
    }

    /// Address of one of its databases through the Unix socket, as any role.
    #[must_use]
    pub fn unix_socket_database_url_of(&self, role: &str, name: &str) -> String {
        self.postgres.socket_url(role, name)
    }

    /// PostgreSQL's first process, for tests that stop it.
    #[must_use]
    pub fn postgres_pid(&self) -> Option<u32> {
        self.postgres.server.pid()
    }

    /// Redis's process, for tests that stop it.
    #[must_use]
    pub fn redis_pid(&self) -> Option<u32> {
        self.redis.as_ref().and_then(|redis| redis.server.pid())
    }

    /// The data directory, absolute.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.directory.data
    }

    /// Where the servers' files are: elsewhere if the user they run as cannot
    /// enter the data directory.
    #[must_use]
    pub fn runtime_dir(&self) -> &Path {
        &self.directory.runtime
    }

    /// Writes a file into the data directory that only we can read.
    ///
    /// # Errors
    /// [`DevError::Io`].
    pub fn write_private(&self, name: &str, text: &str) -> Result<(), DevError> {
        directory::write_private(&self.directory.data.join(name), text)
    }

    /// Stops both and waits for their end, using force if it must.
    ///
    /// # Errors
    /// [`DevError::StillRunning`] if even SIGKILL did not help.
    pub async fn stop(self) -> Result<(), DevError> {
        let redis = async {
            match self.redis {
                Some(redis) => redis.server.stop().await,
                None => Ok(()),
            }
        };
        let socket_dir = self.postgres.socket_dir;
        let (postgres, redis) = tokio::join!(self.postgres.server.stop(), redis);
        postgres.and(redis)?;
        if socket_dir.starts_with(&self.directory.runtime) {
            return Ok(());
        }
        // In a shared place because of its short name: nothing of it is needed again.
        directory::remove_dir(&socket_dir)
    }
}

/// Stops servers that a killed run left behind. True if there were any.
///
/// # Errors
/// [`DevError::Locked`] if the run is alive; [`DevError::StillRunning`].
pub async fn stop_leftovers(data_dir: &Path) -> Result<bool, DevError> {
    if !data_dir.exists() {
        return Ok(false);
    }
    let directory = Directory::open(data_dir).await?;
    stop_leftovers_in(&directory).await
}

async fn stop_leftovers_in(directory: &Directory) -> Result<bool, DevError> {
    let postgres = postgres::stop_leftover(directory).await?;
    let redis = redis::stop_leftover(directory).await?;
    Ok(postgres || redis)
}

/// A password: 128 random bits that need no quoting anywhere.
fn random_hex() -> Result<String, DevError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        DevError::io("read random bytes from", "the system")(std::io::Error::other(error))
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
