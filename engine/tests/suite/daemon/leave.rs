//! SIGTERM under load: whoever follows the rules of HTTP loses no answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::daemon::{Broken, Daemon, Reply, Request, Wire, eventually};

const HAMMERS: usize = 8;
const IDLE: usize = 8;
/// A request sent later after the one before it, or after SIGTERM, was not on its
/// way when the connection closed: the client slept. Well under the 300 ms that an
/// idle connection is given.
const PROMPT: Duration = Duration::from_millis(150);

#[derive(Debug, Default)]
struct Told {
    answered: AtomicUsize,
    /// Answers that asked to leave.
    asked_to_leave: AtomicUsize,
    /// Prompt requests without an answer.
    lost: AtomicUsize,
    /// Clients that met a refusal and went on at the second engine.
    moved: AtomicUsize,
}

impl Told {
    fn add(counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn read(counter: &AtomicUsize) -> usize {
        counter.load(Ordering::Relaxed)
    }

    fn note(&self, replied: &Result<Reply, Broken>, prompt: bool) {
        match replied {
            Ok(reply) => {
                assert_eq!(reply.status, 200, "{reply:?}");
                Self::add(&self.answered);
                if reply.header("connection") == Some("close") {
                    Self::add(&self.asked_to_leave);
                }
            }
            Err(Broken::Closed | Broken::Torn(_)) if prompt => Self::add(&self.lost),
            Err(Broken::Closed | Broken::Torn(_)) => {}
        }
    }
}

fn pay(name: &str, number: usize) -> Request {
    Request::new("POST", "/transaction")
        .json(r#"{"from":0,"to":1,"amount":1}"#)
        .key(&format!("{name}-{number}"))
}

/// Asks as fast as it is answered, leaves when it is asked to, and comes back to
/// the same engine until that refuses.
async fn hammer(name: String, engines: [SocketAddr; 2], told: Arc<Told>, done: Arc<AtomicBool>) {
    let mut engine = engines[0];
    let mut wire: Option<Wire> = None;
    let mut number = 0;
    let mut begun = Instant::now();
    while !done.load(Ordering::Relaxed) {
        let Some(open) = &mut wire else {
            begun = Instant::now();
            match Wire::connect(engine).await {
                Ok(open) => wire = Some(open),
                Err(_) => {
                    assert_ne!(engine, engines[1], "the second engine must not refuse");
                    engine = engines[1];
                    Told::add(&told.moved);
                }
            }
            continue;
        };
        let prompt = begun.elapsed() < PROMPT;
        begun = Instant::now();
        let replied = open.call(&pay(&name, number)).await;
        number += 1;
        told.note(&replied, prompt);
        if !replied.is_ok_and(|reply| reply.header("connection").is_none()) {
            wire = None;
        }
    }
}

/// Stops an engine under load; the number of answers that asked to leave.
async fn check(arguments: &[&str], second_signal: bool) -> usize {
    let database = super::ledger().await;
    let leaving = Daemon::start(&database, arguments).await;
    let staying = Daemon::start(&database, &[]).await;
    leaving.open(1, 0).await;
    let (told, done) = (Arc::new(Told::default()), Arc::new(AtomicBool::new(false)));
    let engines = [leaving.api, staying.api];
    let hammers: Vec<_> = (0..HAMMERS)
        .map(|index| {
            let (told, done) = (Arc::clone(&told), Arc::clone(&done));
            tokio::spawn(hammer(format!("hammer-{index}"), engines, told, done))
        })
        .collect();
    let mut idle = Vec::new();
    for index in 0..IDLE {
        let mut wire = Wire::connect(leaving.api).await.unwrap();
        let replied = wire.call(&pay("idle", index)).await;
        assert_eq!(replied.unwrap().status, 200);
        idle.push(wire);
    }
    eventually("under load", async || 50 < Told::read(&told.answered)).await;

    let stopped = Instant::now();
    leaving.signal(Signal::TERM);
    eventually("unready", async || !is_ready(&leaving).await).await;
    // What the idle ones send now is under way while the engine stops.
    for (index, wire) in idle.iter_mut().enumerate() {
        let prompt = stopped.elapsed() < PROMPT || second_signal;
        let replied = wire.call(&pay("late", index)).await;
        told.note(&replied, prompt);
    }
    if second_signal {
        // Asked to leave, all come back, for the listener is open.
        eventually("asked", async || {
            HAMMERS * 4 < Told::read(&told.asked_to_leave)
        })
        .await;
        assert_eq!(Told::read(&told.moved), 0);
        leaving.signal(Signal::TERM);
    }
    eventually("moved", async || Told::read(&told.moved) == HAMMERS).await;
    let ended = leaving.ended().await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    done.store(true, Ordering::Relaxed);
    for hammer in hammers {
        hammer.await.unwrap();
    }
    assert_eq!(Told::read(&told.lost), 0, "{told:?}");
    Told::read(&told.asked_to_leave)
}

async fn is_ready(daemon: &Daemon) -> bool {
    daemon.readyz().await.0 == 200
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_answers_what_is_on_its_way_and_loses_nothing() {
    check(&[], false).await;
}

/// The delay would outlast the test, were it not for the second signal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_shutdown_delay_all_is_served_and_a_second_signal_ends_it() {
    let arguments = ["--shutdown-delay", "10m", "--shutdown-grace", "20m"];
    check(&arguments, true).await;
}
