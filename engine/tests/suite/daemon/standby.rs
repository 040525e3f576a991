//! A physical standby of a test's own primary, and what is done to servers.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use engine::store::link::Link;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::servers::{Private, passable_dir};
use crate::support::daemon::eventually;

/// A physical standby; killed when dropped.
#[derive(Debug)]
pub(super) struct Standby {
    child: Child,
    port: u16,
    data: PathBuf,
    programs: PathBuf,
    /// Whom the primary runs as.
    owner: (u32, u32),
    _dir: TempDir,
}

impl Standby {
    /// Copies the primary and follows it, as the user the primary runs as.
    pub(super) async fn start(primary: &Private) -> Self {
        let home = primary.servers.runtime_dir().join("postgres");
        let owner = home.metadata().unwrap();
        let owner = (owner.uid(), owner.gid());
        let dir = passable_dir();
        let data = dir.path().join("standby");
        std::fs::create_dir(&data).unwrap();
        chown(&data, Some(owner.0), Some(owner.1)).unwrap();
        // Beside the server that runs: the same version.
        let pid = primary.servers.postgres_pid().unwrap();
        let postgres = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        let programs = postgres.parent().unwrap().to_owned();
        let copied = command(&programs.join("pg_basebackup"), &data, owner)
            .args([
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--no-sync",
                "--pgdata",
            ])
            .arg(&data)
            .arg("--dbname")
            .arg(&primary.servers.database_url)
            .status()
            .await
            .unwrap();
        assert!(copied.success(), "{copied}");
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = command(&postgres, &data, owner)
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-k", ""])
            .args(["-c", "listen_addresses=127.0.0.1"])
            // No less than the primary's, or it refuses to follow.
            .args(["-c", "max_connections=300", "-c", "shared_buffers=16MB"])
            .spawn()
            .unwrap();
        Self {
            child,
            port,
            data,
            programs,
            owner,
            _dir: dir,
        }
    }

    /// The primary's URL with the standby's port.
    pub(super) fn url(&self, primary: &str) -> String {
        let (before, after) = primary.rsplit_once(':').unwrap();
        let (_, path) = after.split_once('/').unwrap();
        format!("{before}:{}/{path}", self.port)
    }

    /// Both in one URL, the primary first.
    pub(super) fn both(&self, primary: &str) -> String {
        let (before, after) = primary.rsplit_once('/').unwrap();
        format!("{before},127.0.0.1:{}/{after}", self.port)
    }

    /// As an operator's script does it.
    pub(super) async fn promote(&self) {
        let promoted = command(&self.programs.join("pg_ctl"), &self.data, self.owner)
            .args(["promote", "--no-wait", "-D"])
            .arg(&self.data)
            .status()
            .await
            .unwrap();
        assert!(promoted.success(), "{promoted}");
    }

    pub(super) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

fn command(program: &Path, data: &Path, owner: (u32, u32)) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir(data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if rustix::process::geteuid().as_raw() != owner.0 {
        command.uid(owner.0).gid(owner.1);
    }
    command
}

/// Sends a signal to a server and each of its processes.
pub(super) fn signal_server(postmaster: u32, signal: Signal) {
    // The postmaster first: it makes no more of them.
    let mut all = vec![postmaster];
    for entry in std::fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if all.len() == 1 {
            signal_one(postmaster, signal);
        }
        // Field 4 is the parent; the name before it, in brackets, may hold anything.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').map(|(_, rest)| rest);
        let parent = parent.and_then(|rest| rest.split_whitespace().nth(1));
        if parent.and_then(|parent| parent.parse().ok()) == Some(postmaster) {
            all.push(pid);
        }
    }
    for pid in &all[1..] {
        signal_one(*pid, signal);
    }
}

fn signal_one(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // One that has ended meanwhile needs no signal.
    kill_process(pid, signal).ok();
}

pub(super) async fn ask(url: &str, query: &str) -> Option<String> {
    let link = Link::open(url).await.ok()?;
    let row = link.client.query_one(query, &[]).await.ok()?;
    let answer = row.try_get(0).ok()?;
    link.close().await;
    answer
}

pub(super) async fn tell(url: &str, statements: &[&str]) {
    let link = Link::open(url).await.unwrap();
    for statement in statements {
        link.client.batch_execute(statement).await.unwrap();
    }
    link.close().await;
}

pub(super) async fn until(url: &str, what: &str, query: &str) {
    eventually(what, async || {
        ask(url, query).await.as_deref() == Some("true")
    })
    .await;
}
