//! The private servers of `engine dev`, and the command line as a user meets it.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use engine::dev::{DevError, DevSettings, Login, Servers, stop_leftovers};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls};

const ENGINE: &str = env!("CARGO_BIN_EXE_engine");
/// Far above what any step takes; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory the servers' user can pass through.
fn data_dir() -> TempDir {
    dir_with_mode(0o711)
}

fn dir_with_mode(mode: u32) -> TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempdir()
        .unwrap()
}

#[expect(clippy::disallowed_methods, reason = "tests inherit the caller's PATH")]
fn settings(data_dir: &Path) -> DevSettings {
    DevSettings {
        data_dir: data_dir.to_owned(),
        fresh: false,
        redis: true,
        login: Login::Password,
        postgres_bin_dir: None,
        search_path: OsString::from(std::env::var("PATH").unwrap()),
        // Small: these servers run beside the suite's own.
        postgres_settings: vec![("shared_buffers".to_owned(), "16MB".to_owned())],
        redis_settings: Vec::new(),
    }
}

/// `engine dev --servers-only` in `data_dir`, with more arguments.
fn dev_command(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(ENGINE);
    command
        .args(["dev", "--servers-only", "-c", "shared_buffers=16MB"])
        .arg("--data-dir")
        .arg(data_dir)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn ask(url: &str, query: &str) -> String {
    let client = connect(url).await.unwrap();
    client.query_one(query, &[]).await.unwrap().get(0)
}

async fn run(url: &str, statements: &str) {
    let client = connect(url).await.unwrap();
    client.batch_execute(statements).await.unwrap();
}

fn signal(id: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Starts `engine dev` without a command and reads the addresses it prints once
/// its servers answer.
async fn start_dev(data_dir: &Path) -> (Child, Vec<(String, String)>) {
    let mut child = dev_command(data_dir, &[])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut variables = Vec::new();
    let read = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let (name, value) = line
                .strip_prefix("export ")
                .and_then(|line| line.split_once('='))
                .unwrap();
            variables.push((name.to_owned(), value.trim_matches('\'').to_owned()));
            if name == "REDIS_URL" {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap();
    (child, variables)
}

#[track_caller]
fn variable<'a>(variables: &'a [(String, String)], name: &str) -> &'a str {
    let found = variables.iter().find(|(each, _)| each == name);
    found.map(|(_, value)| value.as_str()).unwrap()
}

async fn redis_answers(url: &str) -> bool {
    let client = redis::Client::open(url).unwrap();
    let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
        return false;
    };
    redis::cmd("PING")
        .query_async::<String>(&mut connection)
        .await
        .is_ok()
}

#[tokio::test]
async fn servers_keep_their_promises_from_start_to_stop() {
    let dir = data_dir();
    let mut servers = Servers::start(&settings(dir.path())).await.unwrap();
    assert!(!servers.cleaned_up);
    let url = servers.database_url.clone();
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(ask(&url, &format!("SHOW {name}")).await, "on", "{name}");
    }
    // What is passed in wins.
    assert_eq!(ask(&url, "SHOW shared_buffers").await, "16MB");
    let socket = servers.unix_socket_database_url.clone();
    assert_eq!(ask(&socket, "SELECT current_user::text").await, "postgres");
    let redis = servers.redis_url.clone().unwrap();
    assert!(redis_answers(&redis).await);

    // Loopback needs the password.
    let user = url.split_once("//postgres:").unwrap().1;
    let (password, rest) = user.split_once('@').unwrap();
    assert!(
        connect(&format!("postgres://postgres:wrong@{rest}"))
            .await
            .is_err()
    );
    assert!(!redis_answers(&redis.replace("default:", "default:0")).await);
    let stored = dir.path().join("postgres-password");
    assert_eq!(std::fs::read_to_string(&stored).unwrap(), password);
    let mode = std::fs::metadata(&stored).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // A second run must not disturb the first.
    let second = Servers::start(&settings(dir.path())).await;
    assert!(matches!(second, Err(DevError::Locked(_))), "{second:?}");
    let stopped = stop_leftovers(dir.path()).await;
    assert!(matches!(stopped, Err(DevError::Locked(_))), "{stopped:?}");

    // A crash loses nothing that was committed, and the address stays.
    run(
        &url,
        "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)",
    )
    .await;
    servers.kill_postgres().await.unwrap();
    assert!(connect(&url).await.is_err());
    servers.restart_postgres().await.unwrap();
    assert_eq!(ask(&url, "SELECT n::text FROM kept").await, "7");
    servers.kill_redis().await.unwrap();
    assert!(!redis_answers(&redis).await);
    servers.restart_redis().await.unwrap();
    assert!(redis_answers(&redis).await);

    servers.stop().await.unwrap();
    assert!(connect(&url).await.is_err());
    assert!(connect(&socket).await.is_err());
    assert!(!redis_answers(&redis).await);
    assert!(!dir.path().join("postgres/postmaster.pid").exists());
}

#[tokio::test]
async fn a_killed_run_is_cleaned_up_and_its_data_is_used_again() {
    let dir = data_dir();
    let (mut first, variables) = start_dev(dir.path()).await;
    let old_url = variable(&variables, "DATABASE_URL").to_owned();
    let old_redis = variable(&variables, "REDIS_URL").to_owned();
    run(&old_url, "CREATE TABLE kept AS SELECT 'here' AS word").await;
    first.kill().await.unwrap();
    // The servers outlive the engine, in a process group of their own.
    assert_eq!(ask(&old_url, "SELECT word FROM kept").await, "here");
    assert!(redis_answers(&old_redis).await);

    let servers = Servers::start(&settings(dir.path())).await.unwrap();
    assert!(servers.cleaned_up);
    assert!(connect(&old_url).await.is_err() || old_url == servers.database_url);
    assert!(!redis_answers(&old_redis).await);
    let url = servers.database_url.clone();
    assert_eq!(ask(&url, "SELECT word FROM kept").await, "here");
    servers.stop().await.unwrap();

    // And again, by hand.
    let (mut second, variables) = start_dev(dir.path()).await;
    second.kill().await.unwrap();
    assert!(stop_leftovers(dir.path()).await.unwrap());
    assert!(!stop_leftovers(dir.path()).await.unwrap());
    assert!(connect(variable(&variables, "DATABASE_URL")).await.is_err());
}

#[tokio::test]
async fn a_stale_claim_naming_a_stranger_neither_blocks_nor_hurts_it() {
    let (dir, strangers_dir) = (data_dir(), data_dir());
    let mut without_redis = settings(strangers_dir.path());
    without_redis.redis = false;
    let stranger = Servers::start(&without_redis).await.unwrap();
    assert!(stranger.redis_url.is_none());
    without_redis.data_dir = dir.path().to_owned();
    let servers = Servers::start(&without_redis).await.unwrap();
    servers.stop().await.unwrap();

    // Of the same user, so that PostgreSQL itself would respect the claim.
    let claim = format!("{}\n{}\n", stranger.postgres_pid().unwrap(), "/elsewhere");
    std::fs::write(dir.path().join("postgres/postmaster.pid"), claim).unwrap();
    let servers = Servers::start(&without_redis).await.unwrap();
    assert!(!servers.cleaned_up);
    assert_eq!(ask(&stranger.database_url, "SELECT 'alive'").await, "alive");
    servers.stop().await.unwrap();
    stranger.stop().await.unwrap();
}

#[tokio::test]
async fn anyone_may_log_in_only_where_that_was_asked_for() {
    let dir = data_dir();
    let mut settings = settings(dir.path());
    settings.login = Login::Anyone;
    let servers = Servers::start(&settings).await.unwrap();
    run(&servers.database_url, "CREATE ROLE app LOGIN").await;
    let address = servers.database_url.split_once('@').unwrap().1.to_owned();
    let app = format!("postgres://app@{address}");
    assert_eq!(ask(&app, "SELECT current_user::text").await, "app");
    assert!(redis_answers(&servers.redis_url.clone().unwrap()).await);
    servers.stop().await.unwrap();

    // The same data again, now with passwords; then without the data.
    settings.login = Login::Password;
    let servers = Servers::start(&settings).await.unwrap();
    let address = servers.database_url.split_once('@').unwrap().1.to_owned();
    assert!(connect(&format!("postgres://app@{address}")).await.is_err());
    let roles = "SELECT count(*)::text FROM pg_roles WHERE rolname = 'app'";
    assert_eq!(ask(&servers.database_url, roles).await, "1");
    servers.stop().await.unwrap();

    settings.fresh = true;
    let servers = Servers::start(&settings).await.unwrap();
    assert_eq!(ask(&servers.database_url, roles).await, "0");
    servers.stop().await.unwrap();
}

#[tokio::test]
async fn a_long_path_moves_only_the_socket_elsewhere_and_back() {
    let dir = data_dir();
    let mut settings = settings(&dir.path().join("long, \"odd\" ".repeat(9)));
    settings.redis = false;
    let servers = Servers::start(&settings).await.unwrap();
    let url = servers.unix_socket_database_url.clone();
    assert_eq!(ask(&url, "SELECT current_user::text").await, "postgres");
    let socket_dir = ask(&url, "SELECT current_setting('unix_socket_directories')").await;
    let socket_dir = Path::new(socket_dir.trim_matches('"')).to_owned();
    assert!(socket_dir.is_dir());
    assert!(!socket_dir.starts_with(servers.data_dir()));
    servers.stop().await.unwrap();
    assert!(!socket_dir.exists());
}

/// Only root needs another user, and only then can a directory be out of reach.
#[tokio::test]
async fn a_data_directory_out_of_reach_moves_the_servers_files_elsewhere() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let closed = dir_with_mode(0o700);
    let data = closed.path().join("data");
    let mut settings = settings(&data);
    settings.redis = false;
    let servers = Servers::start(&settings).await.unwrap();
    let runtime = servers.runtime_dir().to_owned();
    assert_ne!(runtime, servers.data_dir());
    run(&servers.database_url, "CREATE TABLE kept ()").await;
    servers.stop().await.unwrap();

    let tables = "SELECT count(*)::text FROM pg_tables WHERE tablename = 'kept'";
    let servers = Servers::start(&settings).await.unwrap();
    assert_eq!(servers.runtime_dir(), runtime);
    assert_eq!(ask(&servers.database_url, tables).await, "1");
    servers.stop().await.unwrap();

    // Removing the data directory removes the data, wherever it is.
    std::fs::remove_dir_all(&data).unwrap();
    let servers = Servers::start(&settings).await.unwrap();
    assert_eq!(ask(&servers.database_url, tables).await, "0");
    servers.stop().await.unwrap();
    std::fs::remove_dir_all(&runtime).unwrap();
}

async fn output(mut command: Command) -> Output {
    tokio::time::timeout(PATIENCE, command.output())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_commands_exit_code_is_engine_devs() {
    let dir = data_dir();
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$", 137),
        // It sees the servers by name.
        (
            r#"test -n "$ENGINE_TEST_DATABASE_URL" && test -n "$DATABASE_SOCKET_URL""#,
            0,
        ),
        (
            r#"test "$ENGINE_TEST_REDIS_URL" = "$REDIS_URL" && test -n "$REDIS_URL""#,
            0,
        ),
        (r#"test -z "$ENGINE_URL""#, 0),
    ] {
        let done = output(dev_command(dir.path(), &["--", "sh", "-c", script])).await;
        assert_eq!(done.status.code(), Some(expected), "{script}: {done:?}");
    }
    let done = output(dev_command(dir.path(), &["--", "/nonexistent"])).await;
    assert_eq!(done.status.code(), Some(127), "{done:?}");
    let done = output(dev_command(dir.path(), &["-c", "no_such_setting=1"])).await;
    assert_eq!(done.status.code(), Some(69), "{done:?}");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("no_such_setting"), "{said}");
}

#[tokio::test]
async fn both_signals_stop_the_servers_and_the_command() {
    let dir = data_dir();
    for stop in [Signal::INT, Signal::TERM] {
        let (mut child, variables) = start_dev(dir.path()).await;
        signal(child.id().unwrap(), stop);
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap();
        assert_eq!(ended.unwrap().code(), Some(0), "{stop:?}");
        assert!(connect(variable(&variables, "DATABASE_URL")).await.is_err());
    }
    // A command and what it started; both hold the pipe open.
    let mut child = dev_command(
        dir.path(),
        &["--", "sh", "-c", "sleep 1000 & echo up; wait"],
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    assert_eq!(line.unwrap().unwrap().as_deref(), Some("up"));
    signal(child.id().unwrap(), Signal::TERM);
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap();
    assert_eq!(ended.unwrap().code(), Some(143));
    let end = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    assert_eq!(end.unwrap().unwrap(), None);
    assert!(!stop_leftovers(dir.path()).await.unwrap());
}

/// Environment, arguments, and the setting that must be named.
type Refused = (
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
    &'static str,
);

#[tokio::test]
async fn a_bad_configuration_exits_with_64_and_names_the_setting() {
    const UNREACHABLE: &str = "postgres://app:hunter2@127.0.0.1:1/ledger";
    let refused: [Refused; 6] = [
        (&[], &["serve"], "--database-url"),
        (
            &[("ENGINE_DATABASE_URL", "hunter2")],
            &["serve"],
            "--database-url",
        ),
        (
            &[
                ("ENGINE_DATABASE_URL", UNREACHABLE),
                ("ENGINE_BATCH_TRANSFERS_MAX", "8191"),
            ],
            &["serve"],
            "--batch-transfers-max",
        ),
        (
            &[
                ("ENGINE_DATABASE_URL", UNREACHABLE),
                ("ENGINE_IDEMPOTENCY_RETENTION", "1h"),
            ],
            &["serve"],
            "--idempotency-retention",
        ),
        (
            &[
                ("ENGINE_DATABASE_URL", UNREACHABLE),
                ("ENGINE_LISTEN", "here"),
            ],
            &["serve"],
            "--listen",
        ),
        // Empty is not set.
        (
            &[("ENGINE_DATABASE_URL", "")],
            &["verify"],
            "--database-url",
        ),
    ];
    for (environment, arguments, setting) in refused {
        let mut command = Command::new(ENGINE);
        command.args(arguments).envs(environment.iter().copied());
        let done = output(command).await;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.contains(setting), "{arguments:?}: {said}");
        assert!(!said.contains("hunter2"), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn help_shows_no_password_and_an_unreachable_database_is_69() {
    let database = "postgres://app:hunter2@127.0.0.1:1/ledger";
    let mut command = Command::new(ENGINE);
    command
        .args(["serve", "--help"])
        .env("ENGINE_DATABASE_URL", database)
        .env("ENGINE_REDIS_URL", "redis://:hunter2@cache");
    let done = output(command).await;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(0));
    assert!(said.contains("ENGINE_DATABASE_URL"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");

    for subcommand in ["verify", "migrate", "maintain"] {
        let mut command = Command::new(ENGINE);
        command.arg(subcommand).env("ENGINE_DATABASE_URL", database);
        let done = output(command).await;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(69), "{subcommand}: {said}");
        assert!(!said.contains("hunter2"), "{subcommand}: {said}");
    }
    // Port 1 of this machine has no engine.
    let mut command = Command::new(ENGINE);
    command.args(["health", "--listen", "127.0.0.1:1"]);
    assert_eq!(output(command).await.status.code(), Some(1));
}
