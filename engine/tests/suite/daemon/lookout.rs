//! Which server the engine takes for the primary when more than one would take its
//! writes, and when a name leads elsewhere than before.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::store::route::{Durability, Lookout, LookoutSettings, Outlook, Resolver};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Config;

use super::failover::Pair;
use super::servers::verify_at;
use super::standby::{ask, tell, until};
use crate::support::daemon::{Daemon, PATIENCE, eventually};

const PAY: &str = r#"{"from":1,"to":2,"amount":1}"#;

/// Passes connections on to a server, each after a delay. Ended when dropped, with
/// all it passed on.
#[derive(Debug)]
struct Relay {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    async fn start(listen: &str, to: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut links = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                links.spawn(async move {
                    tokio::time::sleep(delay).await;
                    if let Ok(mut server) = TcpStream::connect(to).await {
                        tokio::io::copy_bidirectional(&mut client, &mut server)
                            .await
                            .ok();
                    }
                });
            }
        });
        Self { address, task }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn address_of(url: &str) -> SocketAddr {
    let config: Config = url.parse().unwrap();
    SocketAddr::from(([127, 0, 0, 1], config.get_ports()[0]))
}

async fn transfers(url: &str) -> Option<String> {
    ask(url, "SELECT count(*)::text FROM transfers").await
}

/// A pair of which both take writes now: the standby was promoted while the old
/// primary went on.
async fn split() -> (Pair, Daemon) {
    let pair = Pair::start().await;
    let arguments = [
        "--request-deadline",
        "50s",
        "--lock-timeout",
        "40s",
        "--statement-timeout",
        "45s",
    ];
    let daemon = Daemon::start_on(&pair.hosts(), &arguments).await;
    daemon.open(2, 100).await;
    let written = ask(&pair.first, "SELECT pg_current_wal_lsn()::text").await;
    let replayed = format!(
        "SELECT ('{}' <= pg_last_wal_replay_lsn())::text",
        written.unwrap()
    );
    until(&pair.second, "up to date", &replayed).await;
    (pair, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_answers_first_is_not_written_to() {
    let (pair, before) = split().await;
    assert_eq!(before.stop().await.code, Some(0));
    pair.standby.promote().await;
    until(
        &pair.second,
        "promoted",
        "SELECT (NOT pg_is_in_recovery())::text",
    )
    .await;
    let stored = transfers(&pair.first).await;
    // The old one is first in the URL, and the new one takes its time.
    let delay = Duration::from_millis(600);
    let slow = Relay::start("127.0.0.1:0", address_of(&pair.second), delay).await;
    let new = format!(":{}/", slow.address.port());
    let old = format!(":{}/", address_of(&pair.second).port());
    let hosts = pair.hosts().replace(&old, &new);
    let daemon = Daemon::spawn(&hosts, &["--database-failover-detect", "10s"]).await;
    // At once, ready or not: it must not be the old one that says yes.
    eventually("paid", async || {
        daemon.post_keyed("/transaction", "k", PAY).await.status == 200
    })
    .await;
    assert_eq!(transfers(&pair.first).await, stored);
    assert_ne!(transfers(&pair.second).await, stored);
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&pair.second).await;
}

/// It still answers, and would for as long as the lock's timeout: only the cut of
/// its sessions ends the wait before the test's patience.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_an_old_primary_is_cut_and_done_at_the_new_one() {
    let (pair, daemon) = split().await;
    let stored = transfers(&pair.first).await;
    let holder = engine::store::link::Link::open(&pair.first).await.unwrap();
    let hold = "BEGIN; SELECT * FROM accounts WHERE id = 1 FOR UPDATE";
    holder.client.batch_execute(hold).await.unwrap();
    let begun = std::time::Instant::now();
    let (paid, ()) = tokio::join!(daemon.post_keyed("/transaction", "k", PAY), async {
        let waits = "SELECT (count(*) > 0)::text FROM pg_locks WHERE NOT granted";
        until(&pair.first, "waits", waits).await;
        pair.standby.promote().await;
    });
    assert_eq!(paid.status, 200, "{paid:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    holder.client.batch_execute("ROLLBACK").await.unwrap();
    holder.close().await;
    assert_eq!(transfers(&pair.first).await, stored);
    assert_eq!(transfers(&pair.second).await.as_deref(), Some("3"));
    // It stands by its choice although the old one is first and takes writes.
    tell(&pair.first, &["SELECT pg_switch_wal()"]).await;
    for _ in 0..20 {
        let paid = daemon.post("/transaction", PAY).await;
        assert_eq!(paid.status, 200, "{paid:?}");
    }
    assert_eq!(transfers(&pair.first).await, stored);
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&pair.second).await;
}

async fn until_primary(outlook: &mut watch::Receiver<Outlook>, ip: IpAddr) {
    let found = outlook.wait_for(|seen| {
        let primary = seen.primary.as_ref();
        primary.is_some_and(|(target, _)| target.ip == Some(ip))
    });
    tokio::time::timeout(PATIENCE, found)
        .await
        .expect("it finds the server that the name leads to")
        .unwrap();
}

/// As a managed database fails over: one name, another address. The old address
/// goes on answering, which must not keep the engine there.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_resolved_again_and_its_new_address_followed() {
    let database = super::ledger().await;
    let server = address_of(&database.url);
    let first = Relay::start("127.0.0.1:0", server, Duration::ZERO).await;
    let port = first.address.port();
    let second = Relay::start(&format!("127.0.0.2:{port}"), server, Duration::ZERO).await;
    let (a, b) = (first.address.ip(), second.address.ip());
    // What the name service says, and how often it was asked.
    let names = Arc::new(Mutex::new((Some(vec![a]), 0_u32)));
    let asked = Arc::clone(&names);
    let resolver = Resolver::Given(Arc::new(move |name| {
        assert_eq!(name, "ledger.example");
        let mut names = asked.lock().unwrap();
        names.1 += 1;
        names.0.clone()
    }));
    let url = database
        .url
        .replace(&server.to_string(), &format!("ledger.example:{port}"));
    let (lookout, route, _) = Lookout::new(LookoutSettings {
        database: url.parse().unwrap(),
        replicas: None,
        failover_detect: Duration::from_millis(400),
        connect_timeout: Duration::from_secs(2),
        replica_lag_max: Duration::from_secs(1),
        durability: Durability::Auto,
        resolver,
    });
    let mut outlook = lookout.outlook();
    let watching = tokio::spawn(lookout.run());
    until_primary(&mut outlook, a).await;
    let (targets, lifeline) = route.targets().await;
    assert_eq!(targets[0].ip, Some(a));
    // While the name says nothing, nothing changes.
    names.lock().unwrap().0 = None;
    let so_far = names.lock().unwrap().1;
    eventually("asked again", async || so_far + 3 < names.lock().unwrap().1).await;
    assert!(!lifeline.is_cut());
    names.lock().unwrap().0 = Some(vec![b]);
    until_primary(&mut outlook, b).await;
    assert!(lifeline.is_cut(), "sessions at the old address are cut");
    assert_eq!(route.targets().await.0[0].ip, Some(b));
    // And back, with the new address dead: as after a failed failover.
    drop(second);
    names.lock().unwrap().0 = Some(vec![a]);
    until_primary(&mut outlook, a).await;
    watching.abort();
}
