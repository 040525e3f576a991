//! Thousands of clients that send a byte now and then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::super::connections::{MANY, allowed, idle};
use super::super::ledger;
use super::super::load::{Load, Plan};
use crate::support::daemon::{Daemon, Request, eventually};
use crate::support::verify;

/// What `--help` says of a connection that has been used, and a margin for the
/// allocator and for a program that is not optimised.
const CONNECTION_BYTES: f64 = 25.0 * 1024.0 * 1.5;
/// `--body-bytes-in-flight-max` and `--answer-bytes-in-flight-max` below.
const BUDGET_BYTES: f64 = (8.0 + 16.0) * 1024.0 * 1024.0;

/// More bytes than anybody sends here.
const NEVER_ALL: usize = 4_000;
/// Between two bytes of a client: some within the header's time, and a time in
/// which the machine belongs to the other tests.
const DRIBBLE_EVERY: Duration = Duration::from_secs(2);
/// Between two looks at the engine.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The first part of a request, whose rest comes byte by byte: of a header, or
/// of a body.
fn beginning(number: u64) -> (Vec<u8>, Vec<u8>) {
    let rest = vec![b'x'; NEVER_ALL];
    let request = Request::new("POST", "/transaction");
    let mut first = if in_header(number) {
        request.header("x-filler", "").bytes()
    } else {
        let first = request.header("content-type", "application/json");
        first.header("content-length", "4000").bytes()
    };
    if in_header(number) {
        // Without the two line ends behind it.
        first.truncate(first.len() - 4);
    }
    (first, rest)
}

fn in_header(number: u64) -> bool {
    number.is_multiple_of(2)
}

struct Slow {
    stream: TcpStream,
    rest: Vec<u8>,
    sent: usize,
    heard: Vec<u8>,
    closed: bool,
}

impl Slow {
    /// Sends one byte more and listens.
    fn dribble(&mut self) {
        if self.closed {
            return;
        }
        let byte = &self.rest[self.sent..=self.sent];
        self.sent += self.stream.try_write(byte).unwrap_or(0);
        let mut space = [0; 2048];
        while !self.closed {
            match self.stream.try_read(&mut space) {
                Ok(0) => self.closed = true,
                Ok(read) => self.heard.extend_from_slice(&space[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => self.closed = true,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_slow_clients_are_in_nobodys_way() {
    let _alone = MANY.lock().await;
    let count = allowed();
    let database = ledger().await;
    let settings = [
        ("--header-timeout", "8s"),
        ("--request-deadline", "8s"),
        ("--body-bytes-in-flight-max", "8MiB"),
        ("--answer-bytes-in-flight-max", "16MiB"),
    ];
    let settings: Vec<_> = settings.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let daemon = Daemon::start(&database, &settings).await;
    daemon.open(8, 100).await;
    let before = daemon.metrics().await;
    let before = before.sum("process_resident_memory_bytes", "");
    let load = Load::start(Arc::new(Plan::new(vec![daemon.api], 8, 2)));
    let mut clients = Vec::new();
    for number in 0..count {
        let stream = idle(&daemon, number).await;
        let (first, rest) = beginning(number);
        // A fresh socket has room for it.
        assert_eq!(stream.try_write(&first).unwrap(), first.len());
        clients.push(Slow {
            stream,
            rest,
            sent: 0,
            heard: Vec::new(),
            closed: false,
        });
    }
    let known = load.acknowledged();
    let (mut open_max, mut memory_max) = (0.0_f64, before);
    let mut dribbled: Option<Instant> = None;
    eventually("all are closed", async || {
        if dribbled.is_none_or(|last| DRIBBLE_EVERY <= last.elapsed()) {
            clients.iter_mut().for_each(Slow::dribble);
            dribbled = Some(Instant::now());
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let page = daemon.metrics().await;
        open_max = open_max.max(page.sum("engine_connections", ""));
        memory_max = memory_max.max(page.sum("process_resident_memory_bytes", ""));
        clients.iter().all(|client| client.closed)
    })
    .await;
    let count = f64::from(u32::try_from(count).unwrap());
    assert!(count / 2.0 < open_max, "only {open_max} at once");
    let more = memory_max - before;
    let most = open_max * CONNECTION_BYTES + BUDGET_BYTES;
    assert!(
        more < most,
        "{more} bytes for {open_max} clients, {most} allowed"
    );
    // Half a header says nothing that could be answered; half a body was told.
    for (number, client) in (0..).zip(&clients) {
        let told = String::from_utf8_lossy(&client.heard);
        if in_header(number) {
            assert_eq!(told, "");
        } else {
            assert!(told.contains("deadline_exceeded"), "{told:?}");
        }
    }
    // Meanwhile, and after it.
    load.until_acknowledged(known + 500).await;
    let report = load.stop().await;
    assert_eq!((report.torn, report.closed), (0, 0));
    report.check_stored(&database.url, &[&daemon]).await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify(&database).await;
}
