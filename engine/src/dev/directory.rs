//! The data directory: who owns it, and where the servers' files are.
//!
//! Owns: the lock that keeps two runs from sharing servers, and the layout.
//! Never: trusts a directory in a shared place that another user could have made.
//! Invariant: one live `engine dev` per data directory; the lock ends with the
//! process however it dies.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::DevError;
use super::user::ServerUser;

/// A Unix socket's address holds 107 bytes and a zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
const SOCKET_NAME: &str = "/.s.PGSQL.65535";
/// Past it a log is set aside at the next start, so that two exist at most.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// How long a lock is waited for: a run that is alive keeps it far longer.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// A locked data directory.
#[derive(Debug)]
pub(super) struct Directory {
    /// What the user named, absolute: the lock and the environment file.
    pub(super) data: PathBuf,
    /// Where the servers' files are: `data`, unless their user cannot enter it.
    pub(super) runtime: PathBuf,
    /// Who the servers run as.
    pub(super) user: ServerUser,
    /// The runtime directory outlived a data directory that was removed.
    pub(super) runtime_is_stale: bool,
    _lock: File,
}

impl Directory {
    pub(super) async fn open(data_dir: &Path) -> Result<Self, DevError> {
        let user = ServerUser::choose()?;
        let data = make_data_dir(data_dir)?;
        let lock = lock(&data).await?;
        let mut directory = Self {
            runtime: data.clone(),
            data,
            user,
            runtime_is_stale: false,
            _lock: lock,
        };
        if !user.can_enter(&directory.data).await {
            directory.move_runtime()?;
        }
        Ok(directory)
    }

    /// A place the servers' user can enter, keyed by the data directory.
    fn move_runtime(&mut self) -> Result<(), DevError> {
        let base = if Path::new("/var/tmp").is_dir() {
            "/var/tmp"
        } else {
            "/tmp"
        };
        self.runtime = Path::new(base).join(format!("engine-dev-{}", self.key()));
        make_own_dir(&self.runtime, ServerUser::Ourselves, 0o711)?;
        // Without its marker the data directory is new: what an earlier one of
        // the same name left here was meant to be gone.
        let marker = self.data.join("runtime-dir");
        self.runtime_is_stale = !marker.exists();
        fs::write(&marker, self.runtime.as_os_str().as_bytes())
            .map_err(DevError::io("write", &marker))
    }

    /// Short, and the same for the same directory.
    fn key(&self) -> String {
        let hash = blake3::hash(self.data.as_os_str().as_bytes());
        hash.to_hex().chars().take(16).collect()
    }

    /// A directory of the servers' user under the runtime directory.
    pub(super) fn server_dir(&self, name: &str) -> Result<PathBuf, DevError> {
        let path = self.runtime.join(name);
        make_own_dir(&path, self.user, 0o700)?;
        Ok(path)
    }

    /// Where PostgreSQL's socket is: here if its address stays short enough.
    pub(super) fn socket_dir(&self) -> Result<PathBuf, DevError> {
        if self.runtime.as_os_str().len() + "/socket".len() + SOCKET_NAME.len()
            <= SOCKET_PATH_BYTES_MAX
        {
            return self.server_dir("socket");
        }
        let path = Path::new("/tmp").join(format!("engine-dev-{}", self.key()));
        make_own_dir(&path, self.user, 0o700)?;
        Ok(path)
    }

    /// Removes what the servers stored. They must not be running.
    pub(super) fn clear(&self) -> Result<(), DevError> {
        for name in ["postgres", "postgres.new", "redis"] {
            remove_dir(&self.runtime.join(name))?;
        }
        Ok(())
    }

    /// A server's log, appended to, not readable by others.
    pub(super) fn log(&self, name: &str) -> Result<(PathBuf, File), DevError> {
        let path = self.data.join(name);
        if fs::metadata(&path).is_ok_and(|meta| LOG_BYTES_MAX < meta.len()) {
            fs::rename(&path, path.with_extension("old.log"))
                .map_err(DevError::io("set aside", &path))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(DevError::io("open", &path))?;
        Ok((path, file))
    }

    /// Writes a file only the servers' user (and root) can read.
    pub(super) fn write_secret(&self, path: &Path, text: &str) -> Result<(), DevError> {
        write_private(path, text)?;
        self.user.own(path)
    }
}

/// Writes a file only we can read, whatever was there before.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), DevError> {
    let fail = || DevError::io("write", path);
    // Remove first: an older file would keep its mode and owner.
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail()(error)),
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(fail())?;
    file.write_all(text.as_bytes()).map_err(fail())
}

/// The end of what a log got since it had `from` bytes, for an error message.
pub(super) fn tail(path: &Path, from: u64) -> String {
    const LINES: usize = 8;
    let text = fs::read(path).unwrap_or_default();
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(text.len());
    let text = String::from_utf8_lossy(&text[from..]);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

pub(super) fn remove_dir(path: &Path) -> Result<(), DevError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(DevError::io("remove", path)(error)),
    }
}

fn make_data_dir(path: &Path) -> Result<PathBuf, DevError> {
    let fail = || DevError::io("make the data directory", path);
    if !path.exists() {
        fs::create_dir_all(path).map_err(fail())?;
        // Another user may have to pass through it, whatever our umask is.
        fs::set_permissions(path, Permissions::from_mode(0o711)).map_err(fail())?;
    }
    fs::canonicalize(path).map_err(fail())
}

async fn lock(data: &Path) -> Result<File, DevError> {
    let path = data.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(DevError::io("open", &path))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // The last run may just be ending, or a process that it forked may not have
            // closed its copy yet.
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                tokio::time::sleep(LOCK_POLL).await;
            }
            Err(TryLockError::WouldBlock) => return Err(DevError::Locked(data.to_owned())),
            Err(TryLockError::Error(error)) => return Err(DevError::io("lock", &path)(error)),
        }
    }
}

/// Makes a directory of `owner`, or finds that it is one already.
fn make_own_dir(path: &Path, owner: ServerUser, mode: u32) -> Result<(), DevError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            owner.own(path)?;
            // The umask may have taken bits that are needed.
            fs::set_permissions(path, Permissions::from_mode(mode))
                .map_err(DevError::io("set the mode of", path))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            // Not following links: in a shared place anyone can plant one.
            let found = fs::symlink_metadata(path).map_err(DevError::io("look at", path))?;
            if found.is_dir() && found.uid() == owner.uid() {
                Ok(())
            } else {
                Err(DevError::ForeignDirectory(path.to_owned()))
            }
        }
        Err(error) => Err(DevError::io("make", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_ours_or_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("own");
        make_own_dir(&path, ServerUser::Ourselves, 0o700).unwrap();
        make_own_dir(&path, ServerUser::Ourselves, 0o700).unwrap();
        let link = base.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(
            make_own_dir(&link, ServerUser::Ourselves, 0o700),
            Err(DevError::ForeignDirectory(_))
        ));
        let foreign = ServerUser::Other {
            uid: u32::MAX - 7,
            gid: 0,
        };
        assert!(matches!(
            make_own_dir(&path, foreign, 0o700),
            Err(DevError::ForeignDirectory(_))
        ));
    }

    #[test]
    fn a_secret_replaces_what_was_there_and_is_private() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("secret");
        fs::write(&path, "old and longer").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write_private(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("log");
        assert_eq!(tail(&path, 0), "");
        let lines: Vec<String> = (1..=20).map(|line| line.to_string()).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        assert_eq!(tail(&path, 0), lines[12..].join("\n"));
        assert_eq!(tail(&path, 48), "20");
        assert_eq!(tail(&path, 5000), "");
    }
}
