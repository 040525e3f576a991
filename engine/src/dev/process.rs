//! Server processes: started in the foreground, found again, and always ended.
//!
//! Owns: child processes, and the search for those a killed run left behind.
//! Never: signals a process that is not the named program at home in our
//! directory, so a shell that happens to stand there is left alone.
//! Bound: every stop ends within the sum of [`StopPlan`]'s waits.
//!
//! Foreground children rather than daemons: a daemonized server whose parent
//! reaps nobody (process 1 of many containers) stays a zombie, and its process
//! id keeps PostgreSQL's lock file looking alive.

use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::DevError;
use super::directory::Directory;

const POLL: Duration = Duration::from_millis(20);
/// After SIGKILL only the kernel's bookkeeping is left.
const KILLED_WAIT: Duration = Duration::from_secs(5);

/// How a server is asked to stop: nicely, then firmly, then by SIGKILL.
#[derive(Clone, Copy, Debug)]
pub(super) struct StopPlan {
    pub(super) nice: Signal,
    pub(super) nice_wait: Duration,
    pub(super) firm: Signal,
    pub(super) firm_wait: Duration,
}

/// What identifies a server's processes: program and working directory.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// For messages.
    pub(super) server: &'static str,
    /// As the kernel may name it in `/proc/PID/comm`, 15 bytes at most.
    pub(super) programs: &'static [&'static str],
    /// Absolute, without links.
    pub(super) home: PathBuf,
    pub(super) stop: StopPlan,
}

/// A running server. Dropping it asks it to stop without waiting.
#[derive(Debug)]
pub(super) struct Server {
    identity: Identity,
    child: Child,
    log: PathBuf,
    /// How long the log was before: an earlier run's words explain nothing.
    log_start: u64,
}

impl Server {
    pub(super) fn spawn(
        mut command: Command,
        identity: Identity,
        directory: &Directory,
        log_name: &str,
    ) -> Result<Self, DevError> {
        let (log, file) = directory.log(log_name)?;
        let copy = file
            .try_clone()
            .map_err(DevError::io("open once more", &log))?;
        let log_start = file
            .metadata()
            .map_err(DevError::io("look at", &log))?
            .len();
        let program = PathBuf::from(command.as_std().get_program());
        let child = command
            .stdout(Stdio::from(file))
            .stderr(Stdio::from(copy))
            .spawn()
            .map_err(DevError::io("start", program))?;
        Ok(Self {
            identity,
            child,
            log,
            log_start,
        })
    }

    /// The process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// An error if it ended.
    pub(super) fn check_running(&mut self) -> Result<(), DevError> {
        let waited = self.child.try_wait();
        match waited.map_err(DevError::io("wait for", &self.identity.home))? {
            None => Ok(()),
            Some(status) => Err(DevError::EndedEarly {
                server: self.identity.server,
                status,
                log: self.log.clone(),
                tail: super::directory::tail(&self.log, self.log_start),
            }),
        }
    }

    pub(super) fn not_ready(&self, waited: Duration) -> DevError {
        DevError::NotReady {
            server: self.identity.server,
            waited,
            log: self.log.clone(),
        }
    }

    /// Stops it and everything it started.
    pub(super) async fn stop(mut self) -> Result<(), DevError> {
        let plan = self.identity.stop;
        for (signal, wait) in [(plan.nice, plan.nice_wait), (plan.firm, plan.firm_wait)] {
            if self.ended_within(signal, wait).await?.is_some() {
                break;
            }
        }
        // Ends children that outlived it, and itself if it ignored both signals.
        let identity = self.identity.clone();
        stop_leftovers(&identity, &[]).await?;
        self.child
            .wait()
            .await
            .map(drop)
            .map_err(DevError::io("wait for", &identity.home))
    }

    /// Ends it and everything it started at once, as a crash would.
    pub(super) async fn kill(&mut self) -> Result<(), DevError> {
        self.ended_within(Signal::KILL, KILLED_WAIT).await?;
        stop_leftovers(&self.identity, &[]).await.map(drop)
    }

    async fn ended_within(
        &mut self,
        signal: Signal,
        wait: Duration,
    ) -> Result<Option<ExitStatus>, DevError> {
        if let Some(pid) = self.child.id().and_then(to_pid) {
            send(pid, signal);
        }
        match timeout(wait, self.child.wait()).await {
            Ok(ended) => ended
                .map(Some)
                .map_err(DevError::io("wait for", &self.identity.home)),
            Err(_elapsed) => Ok(None),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = self.child.id().and_then(to_pid) {
            send(pid, self.identity.stop.nice);
        }
    }
}

/// Ends every process of `identity`, by `steps` first and SIGKILL at last.
/// True if there was any.
async fn stop_leftovers(
    identity: &Identity,
    steps: &[(Signal, Duration)],
) -> Result<bool, DevError> {
    if running(identity).is_empty() {
        return Ok(false);
    }
    let last = [(Signal::KILL, KILLED_WAIT)];
    for (signal, wait) in steps.iter().chain(&last) {
        for process in leaders(&running(identity), *signal) {
            send(process, *signal);
        }
        let gone = async {
            while !running(identity).is_empty() {
                sleep(POLL).await;
            }
        };
        if timeout(*wait, gone).await.is_ok() {
            return Ok(true);
        }
    }
    Err(DevError::StillRunning {
        server: identity.server,
        pids: running(identity)
            .iter()
            .map(|process| process.pid.as_raw_nonzero().get())
            .collect(),
    })
}

/// Ends what a killed run left behind. True if there was any.
pub(super) async fn stop_orphans(identity: &Identity) -> Result<bool, DevError> {
    let plan = identity.stop;
    let steps = [(plan.nice, plan.nice_wait), (plan.firm, plan.firm_wait)];
    stop_leftovers(identity, &steps).await
}

#[derive(Clone, Copy, Debug)]
struct Process {
    pid: Pid,
    parent: Option<Pid>,
}

/// PostgreSQL's parent process passes a stop on to its children in the right
/// order, so only it is asked; SIGKILL, which it cannot pass on, goes to all.
fn leaders(processes: &[Process], signal: Signal) -> Vec<Pid> {
    let among = |pid: Pid| processes.iter().any(|other| other.pid == pid);
    processes
        .iter()
        .filter(|process| signal == Signal::KILL || !process.parent.is_some_and(among))
        .map(|process| process.pid)
        .collect()
}

/// The living processes of `identity`. A zombie has no working directory any
/// more and is not among them. Empty where there is no `/proc`.
fn running(identity: &Identity) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path();
            let program = fs::read(path.join("comm")).ok()?;
            let ours = |name: &&str| name.as_bytes() == program.trim_ascii_end();
            if !identity.programs.iter().any(ours) {
                return None;
            }
            let home = fs::read_link(path.join("cwd")).ok()?;
            if !is_home(&home, &identity.home) {
                return None;
            }
            let pid = Pid::from_raw(pid)?;
            let parent = parent(&fs::read_to_string(path.join("stat")).ok()?);
            Some(Process { pid, parent })
        })
        .collect()
}

/// The kernel marks a directory that was removed under a running server.
fn is_home(link: &Path, home: &Path) -> bool {
    let mut removed = home.as_os_str().to_owned().into_vec();
    removed.extend_from_slice(b" (deleted)");
    link == home || link.as_os_str().as_bytes() == removed
}

/// Reads proc_pid_stat(5): `pid (name) state parent ...`; a name may hold
/// blanks and brackets.
fn parent(stat: &str) -> Option<Pid> {
    let (_, rest) = stat.rsplit_once(") ")?;
    Pid::from_raw(rest.split(' ').nth(1)?.parse().ok()?)
}

fn to_pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// A process that ended meanwhile is what the signal was for.
fn send(pid: Pid, signal: Signal) {
    kill_process(pid, signal).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_behind_any_process_name() {
        let raw = |stat| parent(stat).map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(raw("12 (postgres) S 7 12 12 0"), Some(7));
        assert_eq!(raw("12 (a) b ) S 7 12"), Some(7));
        assert_eq!(raw("1 (init) S 0 1"), None);
        assert_eq!(raw("nonsense"), None);
    }

    #[test]
    fn only_the_top_process_is_asked_but_all_are_killed() {
        let pid = |raw| Pid::from_raw(raw).unwrap();
        let processes = [
            Process {
                pid: pid(10),
                parent: Some(pid(1)),
            },
            Process {
                pid: pid(11),
                parent: Some(pid(10)),
            },
        ];
        assert_eq!(leaders(&processes, Signal::INT), [pid(10)]);
        assert_eq!(leaders(&processes, Signal::KILL), [pid(10), pid(11)]);
    }

    #[test]
    fn a_removed_home_is_still_home() {
        let home = Path::new("/data/postgres");
        assert!(is_home(Path::new("/data/postgres"), home));
        assert!(is_home(Path::new("/data/postgres (deleted)"), home));
        assert!(!is_home(Path::new("/data/postgres2"), home));
        assert!(!is_home(Path::new("/data"), home));
    }
}
