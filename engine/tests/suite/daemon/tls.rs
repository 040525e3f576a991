//! TLS to PostgreSQL and Redis: every session is encrypted, the wrong server is
//! refused, and an engine outlives a certificate that turns bad.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use engine::store::link::Link;
use redis::AsyncConnectionConfig;
use serde_json::Value;
use tokio_postgres::Config;

use super::servers::{Private, passable_dir, verify_at};
use super::standby::{ask, tell};
use super::start::{UNAVAILABLE, check, start};
use crate::support::certificates::Authority;
use crate::support::daemon::{Daemon, engine_command, eventually, run_to_end};

/// What the certificates are for; nobody resolves it.
const NAME: &str = "db.example";
/// Its sessions, and whether each is encrypted.
const ENGINES: &str = "SELECT (count(*) > 0 AND bool_and(s.ssl))::text
      FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE a.application_name = ";

/// A private PostgreSQL that speaks TLS.
struct Encrypted {
    private: Private,
    authority: Authority,
    /// The superuser's, through TCP, as the server gave it.
    url: String,
    folder: PathBuf,
}

impl Encrypted {
    async fn start() -> Self {
        let private = Private::start(false, &[]).await;
        let url = private.ledger().await;
        let authority = Authority::new();
        let folder = ask(&url, "SHOW data_directory").await.unwrap().into();
        let encrypted = Self {
            private,
            authority,
            url,
            folder,
        };
        encrypted.certify(&encrypted.authority).await;
        encrypted
    }

    /// From the next connection on the server shows a certificate of that authority.
    async fn certify(&self, authority: &Authority) {
        authority.issue(NAME, &self.folder);
        let on = ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"];
        tell(&self.url, &on).await;
        let file = authority.file();
        eventually("encrypted", async || {
            let link = Link::open(&self.by(NAME, "verify-full", Some(&file))).await;
            link.is_ok()
        })
        .await;
    }

    /// The server under that name.
    fn by(&self, name: &str, mode: &str, roots: Option<&Path>) -> String {
        let config: Config = self.url.parse().unwrap();
        let (port, password) = (config.get_ports()[0], config.get_password().unwrap());
        let mut url = format!(
            "host={name} hostaddr=127.0.0.1 port={port} user=postgres dbname=ledger \
             password={} sslmode={mode}",
            std::str::from_utf8(password).unwrap()
        );
        if let Some(roots) = roots {
            write!(url, " sslrootcert='{}'", roots.display()).unwrap();
        }
        url
    }

    /// Each of these sessions, as the server sees them.
    async fn check_encrypted(&self, sessions: &[&str]) {
        for session in sessions {
            let query = format!("{ENGINES} '{session}'");
            let encrypted = ask(&self.url, &query).await;
            assert_eq!(encrypted.as_deref(), Some("true"), "{session}");
        }
    }

    fn checked(&self) -> String {
        self.by(NAME, "verify-full", Some(&self.authority.file()))
    }
}

async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = engine_command();
    command.args(arguments);
    let ended = run_to_end(command).await;
    (ended.code, [ended.out, ended.log].concat().join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_session_of_an_engine_is_encrypted_and_checked() {
    let server = Encrypted::start().await;
    // The password is tied to the session as well, by both of the clients.
    let url = format!("{} channel_binding=require", server.checked());
    let replica = ["--database-read-url", &url];
    let daemon = Daemon::start_on(&url, &replica).await;
    daemon.open(999, 100).await;
    // Larger than what waits encrypted at a time, and answered by as much.
    let pay: Vec<_> = (1..=8_192)
        .map(|id| format!(r#"{{"from":{},"to":0,"amount":1}}"#, id % 999 + 1))
        .collect();
    let body = format!(r#"{{"transfers":[{}]}}"#, pay.join(","));
    for _ in 0..3 {
        let paid = daemon.post("/transactions", &body).await;
        assert_eq!(paid.status, 200, "{}", paid.body);
    }
    let pay = r#"{"from":1,"to":2,"amount":3}"#;
    assert_eq!(daemon.post("/transaction", pay).await.status, 200);
    let listed = daemon.get("/transactions?limit=1000").await;
    assert_eq!(listed.json().as_array().map(Vec::len), Some(1_000));
    server
        .check_encrypted(&["engine", "engine-read", "engine-watch"])
        .await;
    let file = server.authority.file();
    let url = server.by(NAME, "verify-full", None);
    let file = ["--database-ca-file", file.to_str().unwrap()];
    for command in ["migrate", "maintain", "verify"] {
        let arguments = [&[command, "--database-url", &url], &file[..]].concat();
        let (code, told) = run(&arguments).await;
        assert_eq!(code, Some(0), "{command}: {told}");
    }
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&server.checked()).await;
    server.private.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_the_one_meant_is_refused_by_its_certificate() {
    let plain = Private::start(false, &[]).await;
    let url = plain.ledger().await;
    let refused = format!("{url}?sslmode=require");
    let words = [
        "--database-url",
        "server does not speak TLS",
        "sslmode=prefer",
    ];
    check(&start(&refused, &[]).await, UNAVAILABLE, &words);
    let tied = start(&format!("{url}?channel_binding=require"), &[]).await;
    check(&tied, UNAVAILABLE, &["channel binding"]);
    let daemon = Daemon::start_on(&format!("{url}?sslmode=prefer"), &[]).await;
    daemon.open(1, 1).await;
    assert_eq!(daemon.stop().await.code, Some(0));
    plain.stop().await;

    let server = Encrypted::start().await;
    let (file, strange) = (server.authority.file(), Authority::new());
    for (url, words) in [
        (
            server.by("127.0.0.1", "verify-full", Some(&file)),
            &["not for 127.0.0.1 but for db.example"][..],
        ),
        (
            server.by(NAME, "verify-ca", Some(&strange.file())),
            &["ca.pem", "sslrootcert"],
        ),
        (
            server.by(NAME, "require", Some(&strange.file())),
            &["ca.pem", "sslrootcert"],
        ),
        (
            server.by(NAME, "verify-full", Some(Path::new("/nowhere.pem"))),
            &["/nowhere.pem"],
        ),
    ] {
        let ended = start(&url, &[]).await;
        assert!(ended.code.is_some_and(|code| 64 <= code), "{ended:?}");
        check(&ended, ended.code.unwrap(), words);
        let password = server.by("", "", None);
        let password = password.split_once("password=").unwrap().1.trim();
        let password = password.split(' ').next().unwrap();
        assert!(!format!("{ended:?}").contains(password), "{ended:?}");
    }
    for (name, mode, roots) in [
        (NAME, "prefer", None),
        ("127.0.0.1", "require", None),
        ("127.0.0.1", "verify-ca", Some(&*file)),
    ] {
        let encrypted = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let encrypted = ask(&server.by(name, mode, roots), encrypted).await;
        assert_eq!(encrypted.as_deref(), Some("true"), "{name} {mode}");
    }
    server.private.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_turns_bad_takes_the_server_away_until_it_is_good_again() {
    let server = Encrypted::start().await;
    let daemon = Daemon::start_on(&server.checked(), &[]).await;
    daemon.open(1, 10).await;
    server.check_encrypted(&["engine", "engine-watch"]).await;
    let strange = Authority::new();
    server.certify(&strange).await;
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name LIKE 'engine%' AND pid <> pg_backend_pid()";
    tell(&server.url, &[others]).await;
    eventually("said", async || {
        let (status, checks) = daemon.readyz().await;
        status == 503
            && checks["replication"]["detail"]
                .to_string()
                .contains("ca.pem")
    })
    .await;
    let pay = r#"{"from":0,"to":1,"amount":3}"#;
    let refused = daemon.post("/transaction", pay).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    server.certify(&server.authority).await;
    daemon.until_ready().await;
    assert_eq!(daemon.post("/transaction", pay).await.status, 200);
    assert_eq!(daemon.stop().await.code, Some(0));
    // Of two hosts the one with the wrong name is passed over.
    let both = server.checked();
    let both = both
        .replace("host=db.example", "host=other.example,db.example")
        .replace("hostaddr=127.0.0.1", "hostaddr=127.0.0.1,127.0.0.1");
    let daemon = Daemon::start_on(&both, &[]).await;
    assert_eq!(daemon.post("/transaction", pay).await.status, 200);
    assert_eq!(daemon.stop().await.code, Some(0));
    server.private.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prefer_goes_on_without_tls_if_the_server_knows_no_version_in_use() {
    let server = Encrypted::start().await;
    let old = [
        "ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1'",
        "ALTER SYSTEM SET ssl_max_protocol_version = 'TLSv1.1'",
        "SELECT pg_reload_conf()",
    ];
    tell(&server.url, &old).await;
    let required = server.by(NAME, "require", None);
    eventually("too old", async || Link::open(&required).await.is_err()).await;
    let daemon = Daemon::start_on(&server.by(NAME, "prefer", None), &[]).await;
    daemon.open(1, 10).await;
    let pay = r#"{"from":0,"to":1,"amount":3}"#;
    assert_eq!(daemon.post("/transaction", pay).await.status, 200);
    for session in ["engine", "engine-watch"] {
        let encrypted = ask(&server.url, &format!("{ENGINES} '{session}'")).await;
        assert_eq!(encrypted.as_deref(), Some("false"), "{session}");
    }
    let ended = daemon.stop().await;
    assert_eq!(ended.code, Some(0));
    let told = |line: &&String| line.contains("sslmode=prefer");
    assert!(ended.log.iter().any(|line| told(&line)), "{:?}", ended.log);
    server.private.stop().await;
}

/// Lets a running Redis speak TLS; its URL, or none if it was built without.
async fn encrypt_redis(url: &str, folder: &Path) -> Option<String> {
    let client = redis::Client::open(url).unwrap();
    let config = AsyncConnectionConfig::new();
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = connection.await.unwrap();
    // Free a moment ago; somebody may take it first, so again.
    for _ in 0..20 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let set = redis::cmd("CONFIG")
            .arg("SET")
            .arg("tls-cert-file")
            .arg(folder.join("server.crt").to_str().unwrap())
            .arg("tls-key-file")
            .arg(folder.join("server.key").to_str().unwrap())
            .arg("tls-auth-clients")
            .arg("no")
            .arg("tls-port")
            .arg(port)
            .exec_async(&mut connection)
            .await;
        match set {
            Ok(()) => {
                let (scheme, rest) = url.split_once("://").unwrap();
                let (user, place) = rest.split_once('@').unwrap();
                let database = place.split_once('/').unwrap().1;
                return Some(format!("{scheme}s://{user}@127.0.0.1:{port}/{database}"));
            }
            Err(error) if error.to_string().contains("Unknown") => return None,
            Err(error) => eprintln!("not on {port}: {error}"),
        }
    }
    panic!("Redis takes no port for TLS");
}

async fn until_redis(daemon: &Daemon, status: &str) -> Value {
    eventually("noticed", async || {
        daemon.readyz().await.1["redis"]["status"] == status
    })
    .await;
    daemon.readyz().await.1["redis"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_spoken_to_by_tls_and_a_wrong_one_only_costs_time() {
    let private = Private::start(true, &[]).await;
    let url = private.ledger().await;
    let plain = private.servers.redis_url.clone().unwrap();
    let (authority, strange, folder) = (Authority::new(), Authority::new(), passable_dir());
    let owner = ask(&url, "SHOW data_directory").await.unwrap();
    authority.issue_as("127.0.0.1", folder.path(), Path::new(&owner));
    let Some(encrypted) = encrypt_redis(&plain, folder.path()).await else {
        eprintln!("not tested: this Redis was built without TLS");
        return;
    };
    let (good, bad) = (authority.file(), strange.file());
    let with = |file: &Path| {
        let file = file.to_str().unwrap().to_owned();
        [
            "--redis-url".to_owned(),
            encrypted.clone(),
            "--redis-ca-file".to_owned(),
            file,
        ]
    };
    let arguments = with(&good);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let arguments = [&arguments[..], &["--cache-ttl", "1s"]].concat();
    // With a file of its own, what the machine trusts is not even looked at.
    let unread = ("SSL_CERT_FILE", Path::new("/nowhere.pem"));
    let daemon = Daemon::start_with_variable(&url, unread, &arguments).await;
    daemon.open(3, 10).await;
    until_redis(&daemon, "ok").await;
    eventually("served by the cache", async || {
        daemon.get("/balance/3").await.json()["cached"] == true
    })
    .await;
    assert_eq!(daemon.stop().await.code, Some(0));

    // Without one, a certificate that nobody can read does not spoil the others.
    let machine = folder.path().join("machine.pem");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let text = broken.to_owned() + &std::fs::read_to_string(&good).unwrap();
    std::fs::write(&machine, text).unwrap();
    let daemon = Daemon::start_with_variable(
        &url,
        ("SSL_CERT_FILE", &machine),
        &["--redis-url", &encrypted],
    )
    .await;
    until_redis(&daemon, "ok").await;
    assert_eq!(daemon.stop().await.code, Some(0));

    let arguments = with(&bad);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let daemon = Daemon::start_on(&url, &arguments).await;
    until_redis(&daemon, "warning").await;
    let read = daemon.get("/balance/3").await;
    assert_eq!((read.status, &read.json()["cached"]), (200, &false.into()));
    assert_eq!(daemon.readyz().await.0, 200);
    let ended = daemon.stop().await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    let told = ended.log.join("\n");
    assert!(told.contains("certificate"), "{told}");
    let password = plain.split_once(':').unwrap().1;
    let password = password
        .split_once(':')
        .unwrap()
        .1
        .split_once('@')
        .unwrap()
        .0;
    assert!(!told.contains(password), "{told}");
    private.stop().await;
}
