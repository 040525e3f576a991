//! Many clients, few accounts, two engines: nobody is told of a deadlock.

use std::sync::Arc;
use std::time::Duration;

use super::ledger;
use super::load::{Load, Plan};
use crate::support::daemon::{Daemon, Request, call};
use crate::support::verify;

/// Money goes round `accounts` in both directions, from two engines.
async fn check(accounts: usize) {
    let database = ledger().await;
    let engines = [
        Daemon::start(&database, &["--io-threads", "1"]).await,
        // Commits in tasks of several threads, not in the one thread's own future.
        Daemon::start(&database, &["--io-threads", "3"]).await,
    ];
    engines[0]
        .open(u32::try_from(accounts).unwrap(), 1_000)
        .await;
    let addresses: Vec<_> = engines.iter().map(|engine| engine.api).collect();
    let load = Load::start(Arc::new(Plan::new(addresses.clone(), accounts, 32)));
    // Batch calls that name the same accounts in opposite orders, beside it.
    for round in 0..10 {
        let mut items: Vec<_> = (0..=accounts)
            .map(|from| {
                let to = (from + 1) % (accounts + 1);
                format!(r#"{{"from":{from},"to":{to},"amount":0.02}}"#)
            })
            .collect();
        if round % 2 == 1 {
            items.reverse();
        }
        let body = format!(r#"{{"transfers":[{}],"atomic":true}}"#, items.join(","));
        let request = Request::new("POST", "/transactions").json(&body);
        let reply = call(addresses[round % 2], &request).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    load.until_acknowledged(500).await;
    let report = load.stop().await;
    assert_eq!((report.refused, report.torn, report.closed), (0, 0, 0));
    report.check_waits(Duration::from_secs(11));
    let done = report
        .records
        .values()
        .filter_map(|record| record.reply.as_ref());
    assert!(done.clone().all(|reply| reply.status == 200));
    assert!(500 <= done.count());
    let [first, second] = &engines;
    report.check_stored(&database.url, &[first, second]).await;
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hot_account() {
    check(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_accounts_in_both_directions() {
    check(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_accounts_in_both_directions() {
    check(16).await;
}
