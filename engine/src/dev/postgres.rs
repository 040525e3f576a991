//! A private PostgreSQL: made once, started, awaited.
//!
//! Owns: its settings, its superuser's password, its address.
//! Never: gives up durability for speed; what is measured and tried here commits
//! as it would in production (`fsync` and `synchronous_commit` on).
//! Bound: [`READY_WAIT`] for crash recovery after a kill.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

use super::directory::{Directory, remove_dir};
use super::process::{Identity, Server, StopPlan, stop_orphans};
use super::{DevError, DevSettings, Login, programs, random_hex};

/// Replaying 4 GB of WAL (`max_wal_size`) takes a minute or two on a slow disk.
const READY_WAIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(30);
const PASSWORD_FILE: &str = "postgres-password";
/// Another process may take the free port before the server does.
const START_ATTEMPTS: u32 = 5;
/// Fast: sessions are ended, a checkpoint is written. Immediate: recover at the
/// next start instead.
const STOP: StopPlan = StopPlan {
    nice: Signal::INT,
    nice_wait: Duration::from_secs(30),
    firm: Signal::QUIT,
    firm_wait: Duration::from_secs(10),
};

/// A running PostgreSQL.
#[derive(Debug)]
pub(super) struct Postgres {
    pub(super) server: Server,
    pub(super) program: PathBuf,
    pub(super) port: u16,
    password: String,
    pub(super) socket_dir: PathBuf,
}

impl Postgres {
    /// Address over TCP with a password, as production has it.
    pub(super) fn url(&self, database: &str) -> String {
        format!(
            "postgres://postgres:{}@127.0.0.1:{}/{database}",
            self.password, self.port
        )
    }

    /// Address through the Unix socket, which only the servers' user and root
    /// can reach; cheaper than TCP.
    pub(super) fn socket_url(&self, role: &str, database: &str) -> String {
        format!(
            "postgres://{role}@{}:{}/{database}",
            percent_encode(self.socket_dir.as_os_str()),
            self.port
        )
    }
}

pub(super) fn identity(directory: &Directory) -> Identity {
    Identity {
        server: "PostgreSQL",
        programs: &["postgres"],
        home: directory.runtime.join("postgres"),
        stop: STOP,
    }
}

/// Ends a server that a killed run left behind, and its claim on the data.
pub(super) async fn stop_leftover(directory: &Directory) -> Result<bool, DevError> {
    let identity = identity(directory);
    let found = stop_orphans(&identity).await?;
    // No living process has the data as its home, but the file's process id may
    // belong to a zombie or to a stranger by now, which PostgreSQL would respect.
    // Without /proc that cannot be known, and PostgreSQL is left to judge.
    if Path::new("/proc/self/cwd").exists() {
        let claim = identity.home.join("postmaster.pid");
        match fs::remove_file(&claim) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(DevError::io("remove", &claim)(error)),
        }
    }
    Ok(found)
}

/// Starts it; nothing of an earlier run may be left.
pub(super) async fn start(
    directory: &Directory,
    settings: &DevSettings,
) -> Result<Postgres, DevError> {
    let data = directory.runtime.join("postgres");
    let programs = programs::find_postgres(
        settings.postgres_bin_dir.as_deref(),
        &settings.search_path,
        data_major(&data),
        &data,
    )
    .await?;
    let password_path = directory.runtime.join(PASSWORD_FILE);
    if !data.join("PG_VERSION").exists() {
        init(directory, settings, &programs, &data, &password_path).await?;
    }
    let mut attempt = 1;
    loop {
        let port = free_port()?;
        match launch(directory, settings, &programs.postgres, port).await {
            Err(DevError::EndedEarly { .. }) if attempt < START_ATTEMPTS && is_taken(port) => {
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

/// Starts it on a port and waits until it answers.
pub(super) async fn launch(
    directory: &Directory,
    settings: &DevSettings,
    program: &Path,
    port: u16,
) -> Result<Postgres, DevError> {
    let data = directory.runtime.join("postgres");
    let password_path = directory.runtime.join(PASSWORD_FILE);
    let password = fs::read_to_string(&password_path)
        .map_err(DevError::io("read the password in", &password_path))?;
    let socket_dir = directory.socket_dir()?;
    let login_rules = directory.runtime.join("pg_hba.conf");
    directory.write_secret(&login_rules, rules(settings.login))?;

    let mut command = directory
        .user
        .command(program, &data, &settings.search_path);
    command.arg("-D").arg(&data);
    let extra = &settings.postgres_settings;
    for (name, value) in all_settings(port, &socket_dir, &login_rules, extra) {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    let server = Server::spawn(command, identity(directory), directory, "postgres.log")?;
    let mut postgres = Postgres {
        server,
        program: program.to_owned(),
        port,
        password: password.trim().to_owned(),
        socket_dir,
    };
    ready(&mut postgres).await?;
    Ok(postgres)
}

/// Makes the data directory under another name and renames it when complete, so
/// that a run killed here leaves nothing that looks like a database.
async fn init(
    directory: &Directory,
    settings: &DevSettings,
    programs: &programs::Postgres,
    data: &Path,
    password_path: &Path,
) -> Result<(), DevError> {
    remove_dir(&directory.runtime.join("postgres.new"))?;
    let new = directory.server_dir("postgres.new")?;
    directory.write_secret(password_path, &random_hex()?)?;
    let output = directory
        .user
        .command(&programs.initdb, &new, &settings.search_path)
        .arg("--pgdata")
        .arg(&new)
        .arg("--pwfile")
        .arg(password_path)
        .args(["--username=postgres", "--encoding=UTF8", "--locale=C"])
        .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
        .arg("--no-instructions")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(DevError::io("run", &programs.initdb))?;
    if !output.status.success() {
        return Err(DevError::InitFailed {
            status: output.status,
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    // What an interrupted removal left is not a database.
    remove_dir(data)?;
    fs::rename(&new, data).map_err(DevError::io("rename", &new))
}

/// The socket's directory is closed to others, so whoever reaches it may be any role.
const fn rules(login: Login) -> &'static str {
    match login {
        Login::Password => {
            "local all,replication all trust\n\
             host all,replication all 127.0.0.1/32 scram-sha-256\n"
        }
        Login::Anyone => {
            "local all,replication all trust\n\
             host all,replication all 127.0.0.1/32 trust\n"
        }
    }
}

fn data_major(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("PG_VERSION")).ok()?;
    text.trim().parse().ok()
}

/// Later ones win, so the caller's come last.
fn all_settings(
    port: u16,
    socket_dir: &Path,
    login_rules: &Path,
    extra: &[(String, String)],
) -> Vec<(String, String)> {
    let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    // A list of directories: quoted, because a path may hold a comma.
    let socket_dir = socket_dir.display().to_string().replace('"', "\"\"");
    let mut all = vec![
        owned("listen_addresses", "127.0.0.1"),
        owned("port", &port.to_string()),
        owned("unix_socket_directories", &format!("\"{socket_dir}\"")),
        owned("unix_socket_permissions", "0700"),
        owned("hba_file", &login_rules.display().to_string()),
        // A test run has many engines, each with its committers and readers.
        owned("max_connections", "300"),
        owned("shared_buffers", &format!("{}MB", shared_buffers_mb())),
        // Said although they are the defaults: figures taken here rest on them.
        owned("fsync", "on"),
        owned("synchronous_commit", "on"),
        owned("full_page_writes", "on"),
        // Checkpoints far apart, so that full-page images stay a small part of
        // the WAL, and compressed.
        owned("max_wal_size", "4GB"),
        owned("checkpoint_timeout", "15min"),
        owned("wal_compression", "on"),
        // Compiling a query takes longer than any of ours runs.
        owned("jit", "off"),
        owned("log_line_prefix", "%m [%p] %q%u@%d "),
        owned("log_lock_waits", "on"),
        owned("log_timezone", "UTC"),
        owned("timezone", "UTC"),
    ];
    all.extend_from_slice(extra);
    all
}

/// A quarter of the memory, as PostgreSQL's manual advises, but no more than
/// 1 GiB: this is a machine with other work.
fn shared_buffers_mb() -> u64 {
    let total_kib = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| mem_total_kib(&text));
    // A container's own limit, where there is one ("max" is not a number).
    let container_kib = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .map(|bytes| bytes / 1024);
    buffers_mb([total_kib, container_kib].into_iter().flatten().min())
}

fn buffers_mb(memory_kib: Option<u64>) -> u64 {
    memory_kib.map_or(128, |kib| (kib / 1024 / 4).clamp(128, 1024))
}

fn mem_total_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

async fn ready(postgres: &mut Postgres) -> Result<(), DevError> {
    let url = postgres.url("postgres");
    let begun = Instant::now();
    while begun.elapsed() < READY_WAIT {
        postgres.server.check_running()?;
        if let Ok(true) = timeout(Duration::from_secs(5), answers(&url)).await {
            return Ok(());
        }
        sleep(POLL).await;
    }
    Err(postgres.server.not_ready(READY_WAIT))
}

/// Logs in and asks something: a listening server may still be recovering.
async fn answers(url: &str) -> bool {
    let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await else {
        return false;
    };
    let asked = async move { client.batch_execute("SELECT 1").await.is_ok() };
    let (answered, _closed) = tokio::join!(asked, connection);
    answered
}

/// Makes a database if it is not there yet.
pub(super) async fn ensure_database(url: &str, database: &str) -> Result<(), DevError> {
    as_superuser(url, async |client| {
        let found = client
            .query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&database])
            .await?;
        match found {
            Some(_) => Ok(()),
            // Not a parameter: names cannot be. Ours are constants.
            None => {
                let statement = format!("CREATE DATABASE \"{database}\"");
                client.batch_execute(&statement).await
            }
        }
    })
    .await
}

/// Runs statements that return nothing of interest.
pub(super) async fn run_sql(url: &str, statements: &str) -> Result<(), DevError> {
    as_superuser(url, async |client| client.batch_execute(statements).await).await
}

async fn as_superuser(
    url: &str,
    work: impl AsyncFnOnce(&tokio_postgres::Client) -> Result<(), tokio_postgres::Error>,
) -> Result<(), DevError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .map_err(DevError::Database)?;
    let work = async move {
        let worked = work(&client).await;
        // Closes the connection, which ends the other side of the join.
        drop(client);
        worked
    };
    let (worked, _closed) = tokio::join!(work, connection);
    worked.map_err(DevError::Database)
}

/// A port that is free now.
pub(super) fn free_port() -> Result<u16, DevError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    TcpListener::bind(any)
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(DevError::io("find a free port on", "127.0.0.1"))
}

pub(super) fn is_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err()
}

fn percent_encode(text: &OsStr) -> String {
    text.as_bytes()
        .iter()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                char::from(*byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_directory_survives_the_url() {
        assert_eq!(percent_encode(OsStr::new("/tmp/a b")), "%2Ftmp%2Fa%20b");
        let url = format!("postgres://u@{}:1/d", percent_encode(OsStr::new("/t/é,%@")));
        let config: tokio_postgres::Config = url.parse().unwrap();
        let expected = tokio_postgres::config::Host::Unix("/t/é,%@".into());
        assert_eq!(config.get_hosts(), [expected]);
    }

    #[test]
    fn buffers_follow_the_memory_within_bounds() {
        let meminfo = "MemTotal:        2048000 kB\nMemFree: 1 kB\n";
        assert_eq!(mem_total_kib(meminfo), Some(2_048_000));
        assert_eq!(mem_total_kib(""), None);
        assert_eq!(buffers_mb(Some(2_048_000)), 500);
        assert_eq!(buffers_mb(Some(1)), 128);
        assert_eq!(buffers_mb(Some(u64::MAX)), 1024);
        assert_eq!(buffers_mb(None), 128);
    }

    #[test]
    fn a_given_setting_comes_after_our_own() {
        let extra = [("max_connections".to_owned(), "7".to_owned())];
        let all = all_settings(1, Path::new("/s"), Path::new("/r"), &extra);
        assert_eq!(all.last(), Some(&extra[0]));
    }
}
