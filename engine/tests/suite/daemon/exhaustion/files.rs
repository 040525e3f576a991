//! No file descriptor is left, or there are few from the start.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use super::super::ledger;
use super::super::load::{Load, Plan};
use super::full;
use crate::support::daemon::{Daemon, Request, Wire, eventually};
use crate::support::verify;

const FILES: u32 = 300;
/// What the engine waits before it accepts again.
const PAUSE: Duration = Duration::from_millis(50);

fn health() -> Request {
    Request::new("GET", "/health")
}

fn lines_with(daemon: &Daemon, text: &str) -> usize {
    let lines = daemon.log.all();
    lines.iter().filter(|line| line.contains(text)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_few_files_there_are_fewer_connections_and_always_one_for_a_scrape() {
    let database = ledger().await;
    let url = database.url_as("engine_app");
    let daemon = Daemon::spawn_with_files(&url, FILES, &["--idle-timeout", "30s"]).await;
    daemon.until_ready().await;
    daemon.open(4, 100).await;
    let page = daemon.metrics().await;
    let most = page.sum("engine_connections_max", "");
    assert!((1.0..f64::from(FILES)).contains(&most), "{most}");
    assert_eq!(lines_with(&daemon, "--connections-max"), 1);

    let load = Load::start(std::sync::Arc::new(Plan::new(vec![daemon.api], 4, 4)));
    load.until_acknowledged(1).await;
    let mut held = Vec::new();
    let (mut served, mut refused) = (0_u32, 0_u32);
    for _ in 0..2 * FILES {
        let mut wire = Wire::connect(daemon.api).await.unwrap();
        match wire.call(&health()).await {
            Ok(reply) if reply.status == 200 => {
                served += 1;
                held.push(wire);
            }
            Ok(reply) => {
                full(&reply);
                refused += 1;
            }
            // More than are told at a time are closed unheard.
            Err(_) => refused += 1,
        }
    }
    assert!(0 < served && 0 < refused, "{served} served, {refused} not");
    // Those that are open are served on, and there is always room for a scrape.
    for wire in &mut held {
        assert_eq!(wire.call(&health()).await.unwrap().status, 200);
    }
    let known = load.acknowledged();
    load.until_acknowledged(known + 20).await;
    let page = daemon.metrics().await;
    let (open, most) = (
        page.sum("process_open_fds", ""),
        page.sum("process_max_fds", ""),
    );
    assert!(open < most, "{open} of {most}");
    assert!(page.sum("engine_accept_failures_total", "") < 1.0);
    let counted = page.sum("engine_connections_refused_total", "");
    assert!(f64::from(refused) <= counted + 0.5, "{counted}");
    drop(held);
    eventually("served again", async || {
        let Ok(mut wire) = Wire::connect(daemon.api).await else {
            return false;
        };
        matches!(wire.call(&health()).await, Ok(reply) if reply.status == 200)
    })
    .await;
    let report = load.stop().await;
    report.check_stored(&database.url, &[&daemon]).await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify(&database).await;
}

/// Allows the engine so many files from now on; what it could have before.
fn allow(daemon: &Daemon, files: u64) -> u64 {
    let limit = Rlimit {
        current: Some(files),
        // A child has its parent's; below it the limit can be raised again.
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let before = prlimit(Some(daemon.pid()), Resource::Nofile, limit).unwrap();
    before.current.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_connections_wait_and_the_open_ones_are_served() {
    let database = ledger().await;
    let daemon = Daemon::start(&database, &[]).await;
    daemon.open(4, 100).await;
    let mut open = Wire::connect(daemon.api).await.unwrap();
    assert_eq!(open.call(&health()).await.unwrap().status, 200);
    let begun = Instant::now();
    // Less than it has open: nothing that needs another file works.
    let before = allow(&daemon, 8);
    let mut waiting = Vec::new();
    for _ in 0..8 {
        // The kernel takes them; the engine cannot.
        let mut wire = Wire::connect(daemon.api).await.unwrap();
        wire.send(&health().bytes()).await.unwrap();
        waiting.push(wire);
    }
    eventually("said", async || {
        lines_with(&daemon, "no connection can be accepted") == 1
    })
    .await;
    let pay = r#"{"from":1,"to":2,"amount":1}"#;
    for number in 0..10 {
        let request = Request::new("POST", "/transaction").json(pay);
        let reply = open.call(&request.key(&format!("open-{number}"))).await;
        assert_eq!(reply.unwrap().status, 200);
    }
    allow(&daemon, before);
    for wire in &mut waiting {
        assert_eq!(wire.reply().await.unwrap().status, 200);
    }
    eventually("said to be over", async || {
        lines_with(&daemon, "connections are accepted again") == 1
    })
    .await;
    // Said once, tried again at leisure.
    assert_eq!(lines_with(&daemon, "no connection can be accepted"), 1);
    let page = daemon.metrics().await;
    let failures = page.sum("engine_accept_failures_total", "");
    let most = begun.elapsed().as_secs_f64() / PAUSE.as_secs_f64() + 1.0;
    assert!((1.0..=most).contains(&failures), "{failures} of {most}");
    assert_eq!(daemon.stop().await.code, Some(0));
    verify(&database).await;
}
