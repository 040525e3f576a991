//! `--web`: a page that shows runs and steers them.
//!
//! Owns: the order of runs and when the process ends.
//! Never: runs two at a time, or loads anything before it is told to.
//! Bound: one thread for the page beside those of the run.
//! Invariant: each run is reported as without the page: summary, files, verdict.

mod desk;
mod flags;
mod form;
mod guard;
mod history;
mod problem;
mod server;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::desk::{Desk, Over};
pub(crate) use self::flags::WebArgs;
use self::form::Start;
pub(crate) use self::guard::Guard;
use crate::Quit;
use crate::args::Config;
use crate::live::Interrupt;
use crate::report::{Report, Verdict};

/// Threads publish their counts about as often.
const TICK_EVERY: Duration = Duration::from_millis(200);

/// Serves the page until Ctrl-C, or until `--autoquit` ends it.
///
/// # Errors
/// Why the page cannot be served, or what was wrong with the last run.
pub(crate) fn run(
    config: Config,
    address: SocketAddr,
    interrupt: &Interrupt,
) -> Result<Quit, String> {
    let listener = TcpListener::bind(address)
        .map_err(|error| format!("--web {address}: {error}; is another one running there?"))?;
    let bound = listener.local_addr().map_err(|error| error.to_string())?;
    let web = config.web.clone();
    let desk = Arc::new(Desk::new(config));
    let guard = Guard::new(&web.web_host);
    let (stop, stopped) = oneshot::channel();
    let shared = Arc::clone(&desk);
    let server = std::thread::spawn(move || server::serve(listener, &shared, guard, stopped));
    eprintln!("loadtest: the page is at http://{bound}/ (Ctrl-C ends it)");
    let result = conduct(&desk, &web, interrupt);
    // The server may have ended by itself; then nobody listens.
    stop.send(()).ok();
    match server.join() {
        Ok(Ok(())) => result,
        Ok(Err(error)) => Err(format!("serve the page: {error}")),
        Err(_panic) => Err("serve the page: its thread panicked".to_owned()),
    }
}

fn conduct(desk: &Desk, web: &WebArgs, interrupt: &Interrupt) -> Result<Quit, String> {
    let mut last = Ok(Verdict::Passed);
    let mut ended_at = None;
    let mut stopped = false;
    if web.autostart
        && let Err(problem) = desk.start(&Start::default())
    {
        desk.finish(None, Some(problem.detail().to_owned()));
        last = Err(problem.detail().to_owned());
        ended_at = Some(Instant::now());
    }
    loop {
        if interrupt.came() && !stopped && desk.stop().is_ok() {
            stopped = true;
        }
        if let Some(over) = desk.tick() {
            last = deliver(desk, over);
            ended_at = Some(Instant::now());
        }
        if !desk.is_busy() {
            let quit_at = ended_at.zip(web.autoquit).map(|(at, after)| at + after);
            let quits = quit_at.is_some_and(|at| at <= Instant::now());
            if quits || interrupt.came() {
                break;
            }
        }
        std::thread::sleep(TICK_EVERY);
    }
    match last {
        Ok(_) if stopped => Ok(Quit::Interrupted),
        other => other.map(Quit::Done),
    }
}

/// Prints the summary and writes the files of a run that has ended.
fn deliver(desk: &Desk, over: Over) -> Result<Verdict, String> {
    let Over { config, outcome } = over;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("loadtest: {error}");
            desk.finish(None, Some(error.to_string()));
            return Err(error.to_string());
        }
    };
    let ended = outcome.ended;
    let report = Report::new(&config, outcome);
    let delivered = report.deliver(&config.output).map_err(|error| {
        eprintln!("loadtest: {error}");
        error.to_string()
    });
    desk.finish(Some((report, ended)), delivered.clone().err());
    delivered
}
