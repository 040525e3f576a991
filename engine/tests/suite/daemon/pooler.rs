//! PgBouncer between engine and PostgreSQL: refused, whatever its mode.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use engine::store::commit::session_parameters;
use engine::store::link::Link;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_postgres::config::Host;

use super::ledger;
use super::start::{UNAVAILABLE, check, start};
use crate::support::TestDatabase;
use crate::support::daemon::{Daemon, eventually};

/// The role of production, which the pooler lets in as well.
const ROLE: &str = "engine_app";
/// Only names its socket: it listens in a directory of its own.
const PORT: u16 = 6432;

/// A running PgBouncer in front of one database; killed when dropped.
struct Pooler {
    child: Child,
    dir: TempDir,
}

impl Pooler {
    /// Answers when this returns. `ignored` are the start-up parameters that it
    /// takes and throws away; it refuses others that it does not know.
    async fn start(database: &TestDatabase, mode: &str, ignored: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // It makes its socket here, as another user if we are root.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let (settings, users) = (dir.path().join("pgbouncer.ini"), dir.path().join("users"));
        std::fs::write(&users, format!("\"{ROLE}\" \"\"\n")).unwrap();
        std::fs::write(
            &settings,
            format!(
                "[databases]\n{}\n[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\n\
                 unix_socket_dir = {}\nauth_type = trust\nauth_file = {}\npool_mode = {mode}\n\
                 ignore_startup_parameters = {ignored}\n",
                behind(database),
                dir.path().display(),
                users.display(),
            ),
        )
        .unwrap();
        for file in [&settings, &users] {
            std::fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        }
        let mut command = Command::new(program());
        if rustix::process::geteuid().is_root() {
            // It refuses to run as root.
            command.args(["-u", "nobody"]);
        }
        let child = command
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .expect("the pooler to test with is in the Debian package `pgbouncer`");
        let mut pooler = Self { child, dir };
        let url = pooler.url(database);
        eventually("PgBouncer answers", async || {
            let ended = pooler.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?} {}", pooler.log());
            match Link::open(&url).await {
                Ok(link) => {
                    link.close().await;
                    true
                }
                Err(_not_yet) => false,
            }
        })
        .await;
        pooler
    }

    /// The database through it.
    fn url(&self, database: &TestDatabase) -> String {
        let dir = self.dir.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://{ROLE}@{dir}:{PORT}/{}", database.name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Killed, and gone.
    async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Debian's place is on the search path of root alone.
fn program() -> &'static Path {
    let debian = Path::new("/usr/sbin/pgbouncer");
    if debian.exists() {
        debian
    } else {
        Path::new("pgbouncer")
    }
}

/// The database and its server, as the pooler's settings name them.
fn behind(database: &TestDatabase) -> String {
    let config: tokio_postgres::Config = database.url.parse().unwrap();
    let Some(Host::Tcp(host)) = config.get_hosts().first() else {
        panic!("a server on TCP: {}", database.url);
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    format!("{} = host={host} port={port}", database.name)
}

/// Everything that the engine sets at a start-up, for the committers and reads.
fn start_up_parameters() -> String {
    let any = Duration::from_secs(1);
    let mut names = vec!["options".to_owned()];
    names.extend(
        session_parameters(any, any, any)
            .into_iter()
            .map(|(name, _)| name),
    );
    names.join(",")
}

/// Which server process answers. In one exchange: a statement prepared before
/// may be unknown to the session that serves next.
async fn server_process(link: &Link) -> i32 {
    let rows = link.client.query_typed("SELECT pg_backend_pid()", &[]);
    rows.await.unwrap()[0].get(0)
}

/// Whether two clients, both connected, are given one session in turn.
async fn shares_sessions(url: &str) -> bool {
    let (one, other) = tokio::join!(Link::open(url), Link::open(url));
    let (one, other) = (one.unwrap(), other.unwrap());
    let shared = server_process(&one).await == server_process(&other).await;
    one.close().await;
    other.close().await;
    shared
}

/// An engine does not start through the pooler, and says why and what to do.
async fn check_refused(mode: &str, shares: bool) {
    let database = ledger().await;
    let remedy = ["--database-url", "pooler", "name the PostgreSQL server"];

    // As installed it knows none of the engine's start-up parameters, and says so.
    let pooler = Pooler::start(&database, mode, "").await;
    let ended = start(&pooler.url(&database), &[]).await;
    check(&ended, UNAVAILABLE, &remedy);
    check(&ended, UNAVAILABLE, &["unsupported startup parameter"]);
    pooler.stop().await;

    // Told to ignore them, it lets everyone in: only the engine's own check is left.
    let pooler = Pooler::start(&database, mode, &start_up_parameters()).await;
    let url = pooler.url(&database);
    assert_eq!(shares_sessions(&url).await, shares, "{}", pooler.log());
    check(&start(&url, &[]).await, UNAVAILABLE, &remedy);
    pooler.stop().await;

    // The remedy.
    let daemon = Daemon::start(&database, &[]).await;
    daemon.open(2, 100).await;
    let paid = daemon
        .post("/transaction", r#"{"from":1,"to":2,"amount":1}"#)
        .await;
    assert_eq!(paid.status, 200, "{paid:?}");
    assert_eq!(daemon.stop().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_transaction_mode_is_refused_with_its_remedy() {
    check_refused("transaction", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_is_refused_with_its_remedy() {
    check_refused("session", false).await;
}
