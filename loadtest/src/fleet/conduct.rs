//! A run over several machines, from the first greeting to the last report.
//!
//! Owns: the order of events on all workers.
//! Never: lets one begin before all are ready, or lets one go on that others
//! have lost.
//! Bound: each wait has a limit; a worker that says nothing for
//! [`LOST_AFTER`] is lost.
//! Invariant: every worker that took the job is released, or its lease ends.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::link::{Fault, Link};
use super::outcome::Ending;
use super::part::WorkerPart;
use super::plan;
use super::shared::Shared;
use super::wire::{Begin, Hello, Job, Ordered, Phase, State, Taken};
use crate::args::Config;
use crate::report;
use crate::run::RunError;

/// For an answer that needs no work.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// To check a job and make its journal.
const JOB_TIME: Duration = Duration::from_secs(10);
/// To make or send a report.
const REPORT_TIME: Duration = Duration::from_secs(30);
/// To open 20,000 connections to a slow target.
const READY_TIME: Duration = Duration::from_secs(120);
const READY_POLL_EVERY: Duration = Duration::from_millis(25);
const POLL_EVERY: Duration = Duration::from_millis(250);
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// As long as the lease on the other side.
pub(super) const LOST_AFTER: Duration = super::shift::LEASE;
/// Round trips; the shortest tells most.
const CLOCK_READINGS: usize = 9;
/// From telling the workers to the moment they begin. A worker that did not
/// answer by [`BEGIN_TIME`] leaves time to call the others back.
const BEGIN_AFTER: Duration = Duration::from_millis(600);
const BEGIN_TIME: Duration = Duration::from_millis(400);

/// One that took its job.
#[derive(Debug)]
struct Hired {
    index: usize,
    link: Link,
    path: String,
    part: WorkerPart,
}

/// Conducts the run; gives how each worker ended, in their order.
///
/// # Errors
/// [`RunError::Fleet`] names the worker because of which nothing was started.
pub(super) async fn conduct(
    config: &Config,
    shared: &Arc<Shared>,
) -> Result<Vec<Ending>, RunError> {
    let epoch = shared.epoch;
    let links = config.fleet.workers.iter().map(|name| {
        let token = config.fleet.token().cloned();
        Link::new(name.clone(), token, epoch)
    });
    let (links, hellos) = greet(links.collect(), config.fleet.workers_wait, shared).await?;
    let wanted: Vec<u32> = hellos
        .iter()
        .map(|hello| config.fleet.threads.unwrap_or(hello.threads))
        .collect();
    let jobs = plan::jobs(config, &wanted).map_err(RunError::Fleet)?;
    let mut hired = hire(links, jobs).await?;
    let begun = match get_ready(&mut hired, shared).await {
        Ok(()) => begin(&mut hired, shared).await,
        Err(error) => Err(error),
    };
    if let Err(error) = begun {
        release(hired).await;
        return Err(error);
    }
    let mut watched = JoinSet::new();
    for worker in hired {
        watched.spawn(watch(worker, Arc::clone(shared)));
    }
    let mut endings = BTreeMap::new();
    while let Some(result) = watched.join_next().await {
        let (index, ending) = result.map_err(|_panic| RunError::Panicked)?;
        if let Some(lost) = &ending.part.lost {
            eprintln!("loadtest: worker {}: {lost}", ending.part.name);
            shared.stop();
        }
        endings.insert(index, ending);
    }
    Ok(line_up(endings.into_values().collect()))
}

/// Says hello to all until they answer or the wait is over.
async fn greet(
    links: Vec<Link>,
    wait: Duration,
    shared: &Arc<Shared>,
) -> Result<(Vec<Link>, Vec<Hello>), RunError> {
    let begun = Instant::now();
    let hello = |mut link: Link| {
        let shared = Arc::clone(shared);
        async move {
            let mut told = false;
            loop {
                let result = link.get::<Hello>("/v1/hello", ANSWER_TIME).await;
                let waits = begun.elapsed() < wait && !shared.is_stopped();
                let problem = match result {
                    Err(Fault::Silent(problem)) if waits => problem,
                    result => return (link, result),
                };
                if !std::mem::replace(&mut told, true) {
                    let name = &link.name;
                    eprintln!("loadtest: waiting for worker {name}: {problem}");
                }
                shared.pause(RETRY_EVERY).await;
            }
        }
    };
    let results = each(links, hello).await?;
    if shared.is_stopped() {
        return Err(RunError::NotBegun);
    }
    let (mut links, mut hellos) = (Vec::new(), Vec::new());
    for (link, result) in results {
        let hello = result.map_err(|fault| failed(&link.name, &fault))?;
        hello
            .versions
            .check()
            .map_err(|problem| failed(&link.name, &Fault::Said(problem)))?;
        links.push(link);
        hellos.push(hello);
    }
    Ok((links, hellos))
}

fn failed(name: &str, fault: &Fault) -> RunError {
    RunError::Fleet(match fault {
        Fault::Silent(problem) => format!(
            "worker {name} cannot be reached: {problem}; is `loadtest serve-worker` running \
             there? Nothing was started"
        ),
        Fault::Said(problem) => format!("worker {name}: {problem}. Nothing was started"),
    })
}

/// Gives each its job; all or none keep it.
async fn hire(links: Vec<Link>, jobs: Vec<Job>) -> Result<Vec<Hired>, RunError> {
    let numbered = links.into_iter().zip(jobs).enumerate().collect();
    let give = |(index, (mut link, job)): (usize, (Link, Job))| async move {
        let result = link.post::<Taken>("/v1/run", &job, JOB_TIME).await;
        (index, link, job.threads, result)
    };
    let (mut hired, mut problem) = (Vec::new(), None);
    for (index, link, threads, result) in each(numbered, give).await? {
        match result {
            Ok(taken) => hired.push(Hired {
                index,
                path: format!("/v1/run/{}", taken.run),
                part: WorkerPart {
                    name: link.name.clone(),
                    threads,
                    sent: 0,
                    answered: 0,
                    started_after_us: None,
                    clock_error_us: None,
                    generator: None,
                    journal: taken.journal,
                    lost: None,
                },
                link,
            }),
            Err(fault) => problem = problem.or(Some(failed(&link.name, &fault))),
        }
    }
    match problem {
        None => Ok(hired),
        Some(problem) => {
            release(hired).await;
            Err(problem)
        }
    }
}

async fn release(hired: Vec<Hired>) {
    let free = |mut worker: Hired| async move {
        worker.link.delete(&worker.path, ANSWER_TIME).await;
    };
    // Those that do not hear of it end with their lease.
    each(hired, free).await.ok();
}

/// Waits until all have their connections, and reads their clocks.
async fn get_ready(hired: &mut Vec<Hired>, shared: &Arc<Shared>) -> Result<(), RunError> {
    let begun = Instant::now();
    let missing = Arc::new(AtomicUsize::new(hired.len()));
    let over = Arc::new(AtomicBool::new(false));
    let ready = |mut worker: Hired| {
        let (missing, over) = (Arc::clone(&missing), Arc::clone(&over));
        let shared = Arc::clone(shared);
        async move {
            let mut told = false;
            // Who is ready asks on until the last one is, so that no lease ends.
            let result = loop {
                let asked = worker.link.get::<State>(&worker.path, ANSWER_TIME).await;
                match asked.and_then(|state| is_ready(state, begun)) {
                    Ok(true) if !told => {
                        told = true;
                        missing.fetch_sub(1, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(fault) => {
                        over.store(true, Ordering::Relaxed);
                        break Err(fault);
                    }
                }
                let all = missing.load(Ordering::Relaxed) == 0;
                if all || over.load(Ordering::Relaxed) || shared.is_stopped() {
                    break Ok(());
                }
                tokio::time::sleep(READY_POLL_EVERY).await;
            };
            (worker, result)
        }
    };
    let results = each(std::mem::take(hired), ready).await?;
    collect(hired, results)?;
    if shared.is_stopped() {
        return Err(RunError::NotBegun);
    }
    Ok(())
}

fn is_ready(state: State, begun: Instant) -> Result<bool, Fault> {
    match state.phase {
        Phase::Ready => Ok(true),
        Phase::Connecting if begun.elapsed() < READY_TIME => Ok(false),
        Phase::Connecting => Err(Fault::Said(format!("not ready after {READY_TIME:?}"))),
        Phase::Running | Phase::Finished | Phase::Failed => {
            let problem = state.problem.unwrap_or_else(|| "it gave up".to_owned());
            Err(Fault::Said(problem))
        }
    }
}

/// Reads the clocks and tells all to begin at one moment.
async fn begin(hired: &mut Vec<Hired>, shared: &Shared) -> Result<(), RunError> {
    let read = |mut worker: Hired| async move {
        let mut result = Ok(());
        for _ in 0..CLOCK_READINGS {
            if let Err(fault) = worker.link.read_clock(ANSWER_TIME).await {
                result = Err(fault);
                break;
            }
        }
        (worker, result)
    };
    let results = each(std::mem::take(hired), read).await?;
    collect(hired, results)?;
    let moment = Instant::now() + BEGIN_AFTER;
    let ours = moment.saturating_duration_since(shared.epoch);
    let tell = |mut worker: Hired| async move {
        let at = worker
            .link
            .offset
            .map_or(ours, |offset| offset.theirs(ours));
        let path = format!("{}/begin", worker.path);
        let begin = Begin { at };
        let told = worker.link.post::<()>(&path, &begin, BEGIN_TIME);
        let result = told.await;
        (worker, result)
    };
    let results = each(std::mem::take(hired), tell).await?;
    collect(hired, results)?;
    shared.begin(moment, hired.iter().map(|worker| worker.part.threads).sum());
    Ok(())
}

/// Puts the workers back; gives the first problem there was.
fn collect(
    hired: &mut Vec<Hired>,
    results: Vec<(Hired, Result<(), Fault>)>,
) -> Result<(), RunError> {
    let mut problem = None;
    for (worker, result) in results {
        if let Err(fault) = result {
            problem = problem.or(Some(failed(&worker.link.name, &fault)));
        }
        hired.push(worker);
    }
    problem.map_or(Ok(()), Err)
}

/// What a worker was told until now.
#[derive(Debug, Default)]
struct Told {
    orders: usize,
    stopped: bool,
    copied: u64,
    started: Option<Duration>,
    sent: u64,
}

/// Looks after one worker until it has ended.
async fn watch(mut worker: Hired, shared: Arc<Shared>) -> (usize, Ending) {
    let mut told = Told::default();
    let mut heard = Instant::now();
    let report = loop {
        match tend(&mut worker, &mut told, &shared).await {
            Ok(None) => heard = Instant::now(),
            Ok(Some(report)) => break Ok(report),
            Err(Fault::Said(problem)) => break Err(problem),
            Err(Fault::Silent(problem)) if LOST_AFTER < heard.elapsed() => {
                break Err(format!("not heard of for {LOST_AFTER:?}: {problem}"));
            }
            Err(Fault::Silent(_)) => {}
        }
        shared.pause(POLL_EVERY).await;
    };
    if let Some(offset) = worker.link.offset {
        let ours = told.started.map(|started| offset.ours(started));
        // Told from the conductor's epoch; `line_up` counts from the first.
        worker.part.started_after_us = ours.map(crate::stats::micros);
        worker.part.clock_error_us = Some(crate::stats::micros(offset.error));
    }
    let report = match report {
        Ok(report) => {
            worker.link.delete(&worker.path, ANSWER_TIME).await;
            Some(report)
        }
        Err(problem) => {
            worker.part.lost = Some(format!(
                "lost: {problem}. It had sent {} requests when it was last heard of, which are \
                 not in this report",
                told.sent
            ));
            None
        }
    };
    let ending = Ending {
        part: worker.part,
        report,
    };
    (worker.index, ending)
}

/// Once round: orders to it, its counts from it; its report when it has ended.
async fn tend(
    worker: &mut Hired,
    told: &mut Told,
    shared: &Shared,
) -> Result<Option<report::Report>, Fault> {
    let (link, path) = (&mut worker.link, &worker.path);
    for (number, order) in shared.orders_after(told.orders) {
        let ordered = Ordered { number, order };
        let path = format!("{path}/order");
        let result = link.post::<()>(&path, &ordered, ANSWER_TIME);
        match result.await {
            Err(Fault::Said(problem)) => eprintln!(
                "loadtest: worker {} did not change its load: {problem}",
                link.name
            ),
            Err(silent) => return Err(silent),
            Ok(()) => {}
        }
        told.orders = number + 1;
    }
    if shared.is_stopped() && !told.stopped {
        let path = format!("{path}/stop");
        link.post::<()>(&path, &(), ANSWER_TIME).await?;
        told.stopped = true;
    }
    link.read_clock(ANSWER_TIME).await?;
    let state: State = link.get(path, ANSWER_TIME).await?;
    told.started = state.started.or(told.started);
    if let Some(sheet) = state.sheet {
        told.sent = sheet.sent;
        shared.put_sheet(worker.index, sheet);
    }
    match state.phase {
        Phase::Connecting | Phase::Ready | Phase::Running => {}
        Phase::Failed => {
            let problem = state.problem.unwrap_or_else(|| "its run failed".to_owned());
            return Err(Fault::Said(problem));
        }
        Phase::Finished => {
            let text = link.text(&format!("{path}/report"), REPORT_TIME).await?;
            worker.part.lost = state.problem;
            return report::parse(&text).map(Some).map_err(Fault::Said);
        }
    }
    if let Some(request) = shared.copy_wanted(told.copied) {
        let text = link.text(&format!("{path}/so-far"), ANSWER_TIME).await?;
        let ending = Ending {
            part: worker.part.clone(),
            report: Some(report::parse(&text).map_err(Fault::Said)?),
        };
        shared.put_copy(worker.index, request, ending);
        told.copied = request;
    }
    Ok(None)
}

/// Starts count from the first of them.
fn line_up(mut endings: Vec<Ending>) -> Vec<Ending> {
    let starts = endings.iter().filter_map(|one| one.part.started_after_us);
    let first = starts.min().unwrap_or(0);
    for ending in &mut endings {
        let start = &mut ending.part.started_after_us;
        *start = start.map(|at| at - first);
    }
    endings
}

/// Does the same for each at once; gives the results in their order.
async fn each<A, T, F, Fut>(all: Vec<A>, act: F) -> Result<Vec<T>, RunError>
where
    F: Fn(A) -> Fut,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let mut tasks = JoinSet::new();
    for (index, one) in all.into_iter().enumerate() {
        let act = act(one);
        tasks.spawn(async move { (index, act.await) });
    }
    let mut results = BTreeMap::new();
    while let Some(result) = tasks.join_next().await {
        let (index, result) = result.map_err(|_panic| RunError::Panicked)?;
        results.insert(index, result);
    }
    Ok(results.into_values().collect())
}
