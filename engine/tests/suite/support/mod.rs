//! What every test stands on: a database of its own and the servers' addresses.

#![allow(dead_code, reason = "each topic uses its part")]

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod core;
pub(crate) mod daemon;
pub(crate) mod proxy;

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use engine::store::link::Link;
use engine::store::{maintain, migrate};
use tokio::sync::OnceCell;
use tokio_postgres::Client;

/// Names start so; the process id follows, so that a later run can tell which
/// were left behind by a process that was killed.
const PREFIX: &str = "engine_test_";

/// The template all databases of this process are copied from: migrating once
/// and copying is several times faster than migrating each.
static TEMPLATE: OnceCell<String> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A database of its own, migrated, with partitions; dropped with this value.
#[derive(Debug)]
pub(crate) struct TestDatabase {
    /// Superuser's URL of this database.
    pub(crate) url: String,
    /// Its name.
    pub(crate) name: String,
}

impl TestDatabase {
    /// A connection to it.
    pub(crate) async fn connect(&self) -> Link {
        Link::open(&self.url).await.unwrap()
    }

    /// The URL as another role (the test server trusts all of them).
    #[must_use]
    pub(crate) fn url_as(&self, role: &str) -> String {
        url_with(&admin_url(), &self.name, Some(role))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let name = self.name.clone();
        // A thread with a runtime of its own: this may run inside one that is
        // ending, and a drop cannot wait there. A failure here must not hide
        // the test's own, so it is only told.
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(admin(&format!(
                    "DROP DATABASE IF EXISTS {name} WITH (FORCE)"
                )));
        });
        if dropped.join().is_err() {
            eprintln!("{} was not dropped", self.name);
        }
    }
}

/// A migrated, maintained database of its own.
pub(crate) async fn database() -> TestDatabase {
    let template = TEMPLATE.get_or_init(make_template).await;
    let name = new_name("");
    admin(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    TestDatabase {
        url: url_with(&admin_url(), &name, None),
        name,
    }
}

/// A database of its own with nothing in it.
pub(crate) async fn empty_database() -> TestDatabase {
    let name = new_name("");
    admin(&format!("CREATE DATABASE {name}")).await;
    TestDatabase {
        url: url_with(&admin_url(), &name, None),
        name,
    }
}

/// The Redis for tests. It is shared: use keys of your own.
#[must_use]
pub(crate) fn redis_url() -> String {
    setting("ENGINE_TEST_REDIS_URL")
}

/// Superuser's URL of the `postgres` database.
#[must_use]
pub(crate) fn admin_url() -> String {
    setting("ENGINE_TEST_DATABASE_URL")
}

/// A partition for ids made that many days ago.
pub(crate) async fn add_partition(client: &Client, parent: &str, name: &str, days: Range<i32>) {
    let bounds = client
        .query_one(
            "SELECT (lpad(to_hex((extract(epoch FROM now() - make_interval(days => $1)) * 1000)::bigint), 12, '0')
                     || repeat('0', 20))::uuid::text,
                    (lpad(to_hex((extract(epoch FROM now() - make_interval(days => $2)) * 1000)::bigint), 12, '0')
                     || repeat('0', 20))::uuid::text",
            &[&days.end, &days.start],
        )
        .await
        .unwrap();
    let (from, to): (String, String) = (bounds.get(0), bounds.get(1));
    client
        .batch_execute(&format!(
            "CREATE TABLE {name} PARTITION OF {parent} FOR VALUES FROM ('{from}') TO ('{to}')"
        ))
        .await
        .unwrap();
}

async fn make_template() -> String {
    drop_leftovers().await;
    let name = new_name("template_");
    admin(&format!("CREATE DATABASE {name}")).await;
    let url = url_with(&admin_url(), &name, None);
    migrate::run(&url, &migrate::Settings::default())
        .await
        .unwrap();
    maintain::run(&url, &maintain::Settings::default())
        .await
        .unwrap();
    name
}

/// Drops what processes that have ended left: their template, and the databases
/// of tests that were killed.
async fn drop_leftovers() {
    let link = Link::open(&admin_url()).await.unwrap();
    let rows = link
        .client
        .query(
            "SELECT datname::text FROM pg_database WHERE starts_with(datname::text, $1)",
            &[&PREFIX],
        )
        .await
        .unwrap();
    for row in rows {
        let name: &str = row.get(0);
        let process = name
            .trim_start_matches(PREFIX)
            .trim_start_matches("template_")
            .split('_')
            .next()
            .unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            let dropped = link
                .client
                .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                .await;
            // Another run may be dropping it as well; whichever comes first.
            if let Err(error) = dropped {
                eprintln!("{name} was not dropped: {error}");
            }
        }
    }
    link.close().await;
}

fn new_name(kind: &str) -> String {
    format!(
        "{PREFIX}{kind}{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

async fn admin(statement: &str) {
    let link = Link::open(&admin_url()).await.unwrap();
    link.client.batch_execute(statement).await.unwrap();
    link.close().await;
}

/// Host, port and user of a `postgres://` URL, with another database and,
/// perhaps, another user.
fn url_with(url: &str, database: &str, role: Option<&str>) -> String {
    let (scheme, rest) = url.split_once("://").expect("a postgres:// URL");
    let (authority, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let parameters = rest.split_once('?').map(|(_, parameters)| parameters);
    let (user, host) = authority
        .rsplit_once('@')
        .unwrap_or(("postgres", authority));
    let user = role.unwrap_or(user);
    let mut url = format!("{scheme}://{user}@{host}/{database}");
    if let Some(parameters) = parameters {
        write!(url, "?{parameters}").unwrap();
    }
    url
}

#[expect(
    clippy::disallowed_methods,
    reason = "where the test servers are is not a setting of the engine"
)]
fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run through ops/test"))
}

/// Every check of the ledger; fails naming the first broken row.
pub(crate) async fn verify(database: &TestDatabase) {
    let settings = engine::store::verify::Settings::default();
    let report = engine::store::verify::run(
        &database.url,
        &settings,
        &engine::clock::Clock::System,
        |_| {},
    )
    .await
    .unwrap();
    assert!(
        report.first_broken().is_none(),
        "{:?}",
        report.first_broken()
    );
}
