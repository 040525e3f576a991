//! Many clients that hold a connection and say nothing.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;

use super::ledger;
use super::load::{Load, Plan};
use crate::support::daemon::{Daemon, eventually};
use crate::support::verify;

/// For tests that hold as many files as a process may: one after the other.
pub(super) static MANY: Mutex<()> = Mutex::const_new(());
const WANTED: u64 = 10_000;
/// Files of the test and of everything else in its process.
const OTHERS: u64 = 500;

/// As many as both processes may hold: 10,000 unless the machine forbids.
pub(super) fn allowed() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let allowed = limit.maximum.unwrap_or(u64::MAX).saturating_sub(OTHERS);
    if allowed < WANTED {
        eprintln!("the hard limit of open files allows only {allowed} idle connections");
    }
    allowed.min(WANTED)
}

pub(super) async fn idle(daemon: &Daemon, number: u64) -> TcpStream {
    // One loopback address has 28,000 ports to connect from, which other tests
    // use too: take another.
    let socket = TcpSocket::new_v4().unwrap();
    let last = 2 + u8::try_from(number % 8).unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(daemon.api).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_are_in_nobodys_way() {
    let _alone = MANY.lock().await;
    let count = allowed();
    let database = ledger().await;
    let daemon = Daemon::start(&database, &[]).await;
    daemon.open(8, 100).await;
    let before = daemon
        .metrics()
        .await
        .sum("process_resident_memory_bytes", "");
    let load = Load::start(Arc::new(Plan::new(vec![daemon.api], 8, 8)));
    let mut held = Vec::new();
    for number in 0..count {
        held.push(idle(&daemon, number).await);
    }
    let expected = f64::from(u32::try_from(count).unwrap());
    eventually("all open", async || {
        expected <= daemon.metrics().await.sum("engine_connections", "")
    })
    .await;
    let known = load.acknowledged();
    load.until_acknowledged(known + 500).await;
    assert_eq!(daemon.get("/health").await.status, 200);
    let after = daemon
        .metrics()
        .await
        .sum("process_resident_memory_bytes", "");
    let each = (after - before) / expected;
    assert!(each < 16_384.0, "{each} bytes for an idle connection");
    drop(held);
    eventually("all closed", async || {
        daemon.metrics().await.sum("engine_connections", "") <= 16.0
    })
    .await;
    let report = load.stop().await;
    assert_eq!((report.torn, report.closed), (0, 0));
    report.check_waits(Duration::from_secs(11));
    report.check_stored(&database.url, &[&daemon]).await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify(&database).await;
}
