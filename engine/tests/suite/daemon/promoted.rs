//! A standby promoted before it had everything: the cache and the sessions of an
//! engine are warm with a history that never was.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use engine::store::link::Link;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::servers::{Private, passable_dir, verify_at};
use crate::support::daemon::{Daemon, eventually};
use crate::support::redis_url;

/// Acknowledged by the primary, never heard of by the standby.
const LOST: &str = r#"{"from":0,"to":1,"amount":777}"#;

/// A physical standby; killed when dropped.
struct Standby {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Standby {
    /// Copies the primary and follows it, as the user the primary runs as.
    async fn start(primary: &Private) -> Self {
        let home = primary.servers.runtime_dir().join("postgres");
        let owner = home.metadata().unwrap();
        let dir = passable_dir();
        let data = dir.path().join("standby");
        std::fs::create_dir(&data).unwrap();
        chown(&data, Some(owner.uid()), Some(owner.gid())).unwrap();
        let (copy, serve) = programs(primary);
        let command = |program: &Path| {
            let mut command = Command::new(program);
            command
                .env_clear()
                .env("LC_ALL", "C")
                .current_dir(&data)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true);
            if rustix::process::geteuid().as_raw() != owner.uid() {
                command.uid(owner.uid()).gid(owner.gid());
            }
            command
        };
        let copied = command(&copy)
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
        std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = command(&serve)
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
            _dir: dir,
        }
    }

    /// The primary's URL with the standby's port.
    fn url(&self, primary: &str) -> String {
        let (before, after) = primary.rsplit_once(':').unwrap();
        let (_, path) = after.split_once('/').unwrap();
        format!("{before}:{}/{path}", self.port)
    }
}

/// Beside the server that runs: the same version.
fn programs(primary: &Private) -> (PathBuf, PathBuf) {
    let pid = primary.servers.postgres_pid().unwrap();
    let postgres = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    (postgres.with_file_name("pg_basebackup"), postgres)
}

async fn ask(url: &str, query: &str) -> Option<String> {
    let link = Link::open(url).await.ok()?;
    let row = link.client.query_one(query, &[]).await.ok()?;
    let answer = row.try_get(0).ok()?;
    link.close().await;
    answer
}

async fn tell(url: &str, statements: &[&str]) {
    let link = Link::open(url).await.unwrap();
    for statement in statements {
        link.client.batch_execute(statement).await.unwrap();
    }
    link.close().await;
}

async fn until(url: &str, what: &str, query: &str) {
    eventually(what, async || {
        ask(url, query).await.as_deref() == Some("true")
    })
    .await;
}

/// The cache answers for an account.
async fn warm(daemon: &Daemon, account: u32) {
    eventually("served by the cache", async || {
        daemon.get(&format!("/balance/{account}")).await.json()["cached"] == true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_history_is_believed_and_the_lost_one_forgotten() {
    let mut primary = Private::start(false, &[]).await;
    let url = primary.ledger().await;
    let mut standby = Standby::start(&primary).await;
    let second = standby.url(&url);
    until(&second, "a standby", "SELECT pg_is_in_recovery()::text").await;

    // Both hosts in one URL: the engine finds the one that takes writes.
    let (before, after) = url.rsplit_once('/').unwrap();
    let hosts = format!("{before},127.0.0.1:{}/{after}", standby.port);
    let cache = redis_url();
    let daemon = Daemon::start_on(&hosts, &["--redis-url", &cache, "--cache-ttl", "5s"]).await;
    daemon.open(2, 100).await;
    warm(&daemon, 1).await;
    let written = ask(&url, "SELECT pg_current_wal_lsn()::text")
        .await
        .unwrap();
    let replayed = format!("SELECT ('{written}' <= pg_last_wal_replay_lsn())::text");
    until(&second, "up to date", &replayed).await;

    // The standby hears no more; the primary goes on, and the cache with it.
    tell(
        &second,
        &[
            "ALTER SYSTEM SET primary_conninfo = ''",
            "SELECT pg_reload_conf()",
        ],
    )
    .await;
    until(
        &second,
        "on its own",
        "SELECT (count(*) = 0)::text FROM pg_stat_wal_receiver",
    )
    .await;
    assert_eq!(
        daemon.post_keyed("/transaction", "lost", LOST).await.status,
        200
    );
    warm(&daemon, 1).await;
    let seen = daemon.get("/balance/1").await.json();
    assert_eq!(
        (&seen["balance_minor"], &seen["version"]),
        (&"87700".into(), &2.into())
    );

    primary.servers.kill_postgres().await.unwrap();
    eventually("unhealthy", async || {
        daemon.get("/health").await.status == 503
    })
    .await;
    tell(&second, &["SELECT pg_promote()"]).await;
    daemon.until_ready().await;
    eventually("told of the new history", async || {
        let log = daemon.log.all();
        log.iter().any(|line| line.contains("another history"))
    })
    .await;
    check_forgotten(&daemon).await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&second).await;
    standby.child.kill().await.unwrap();
    primary.stop().await;
}

async fn check_forgotten(daemon: &Daemon) {
    // Never the lost value again: not from sessions, not from the cache, not
    // within the TTL that its entry still lives.
    let told = std::time::Instant::now();
    while told.elapsed() < std::time::Duration::from_secs(6) {
        for target in ["/balance/1", "/balance/1?consistent=true"] {
            let read = daemon.get(target).await;
            assert_eq!(read.status, 200, "{read:?}");
            let read = read.json();
            assert_eq!(
                (&read["balance_minor"], &read["version"]),
                (&"10000".into(), &1.into())
            );
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let fate = daemon.get("/transactions?idempotency_key=lost").await;
    fate.expect(200, "[]");
    // The same version with another balance is the new history's.
    let other = r#"{"from":0,"to":1,"amount":5}"#;
    assert_eq!(daemon.post("/transaction", other).await.status, 200);
    for _ in 0..2 {
        let read = daemon.get("/balance/1").await.json();
        assert_eq!(
            (&read["balance_minor"], &read["version"]),
            (&"10500".into(), &2.into())
        );
    }
    warm(daemon, 1).await;
    assert_eq!(
        daemon.get("/balance/1").await.json()["balance_minor"],
        "10500"
    );
    // What was lost can be done again under its key, once.
    let again = daemon.post_keyed("/transaction", "lost", LOST).await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (200, None)
    );
}
