//! `loadtest`: a load generator for the transaction engine.
//!
//! Owns: the process, its exit code and the order of a run.
//! Never: talks to anything but loopback unless told `--allow-remote`.
//! Bound: `--users` connections, one request in flight on each.
//! Invariant: every request that was due is counted once: answered, failed or unsent.
#![forbid(unsafe_code)]

mod args;
mod body;
mod compare;
mod fleet;
mod generator;
mod headers;
mod journal;
mod live;
mod merge;
mod report;
mod request;
mod response;
mod rng;
mod run;
mod scenario;
mod schedule;
mod series;
mod session;
mod slot;
mod small_server;
mod stages;
mod stats;
mod stream;
mod threshold;
mod tls;
mod verify;
mod web;
mod worker;

use std::process::ExitCode;

use crate::args::{Config, Parsed, parse};
use crate::fleet::Running;
use crate::live::Interrupt;
use crate::report::{Report, Verdict};
use crate::run::Ended;

/// Bad arguments (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;
/// Stopped by Ctrl-C, as a shell says it (128 + SIGINT); the report is printed.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let config = match parse(std::env::args_os()) {
        Parsed::Run(config) => config,
        Parsed::Merge(args) => return finish(merge::run(&args)),
        Parsed::Compare(args) => return finish(compare::run(&args)),
        Parsed::Verify(plan) => {
            let verdict = verify::verify(&plan).map_err(|error| error.to_string());
            return finish(verdict.map(|verdict| match verdict {
                verify::Verdict::Kept => Verdict::Passed,
                verify::Verdict::Broken => Verdict::Failed,
            }));
        }
        Parsed::ServeWorker(plan) => {
            return finish(fleet::serve(plan).map(|()| Verdict::Passed));
        }
        Parsed::Init(init) => return say(scenario::write_example(&init.file)),
        Parsed::Help(text) => return say(Ok(text)),
        Parsed::Usage(message) => {
            eprintln!("{}", message.trim_end());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match run(*config) {
        Ok(Quit::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
        Ok(Quit::Done(verdict)) => finish(Ok(verdict)),
        Err(error) => finish(Err(error)),
    }
}

/// How the process ends if nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quit {
    Done(Verdict),
    /// A run was stopped by Ctrl-C, and reported.
    Interrupted,
}

/// One run, watched from the terminal, or as many as the page starts.
fn run(config: Config) -> Result<Quit, String> {
    let interrupt = Interrupt::listen().map_err(|error| format!("listen for Ctrl-C: {error}"))?;
    if let Some(address) = config.web.web {
        return web::run(config, address, &interrupt);
    }
    let mut session = Running::start(config.clone()).map_err(|error| error.to_string())?;
    live::watch(&mut session, config.progress, &interrupt);
    let outcome = session.join().map_err(|error| error.to_string())?;
    let (ended, sending) = (outcome.ended, outcome.sending);
    if ended == Ended::Stopped {
        eprintln!("loadtest: interrupted after {sending:?}; the report is of what was done");
    }
    let delivered = Report::new(&config, outcome).deliver(&config.output);
    let verdict = delivered.map_err(|error| error.to_string())?;
    Ok(match ended {
        Ended::Stopped => Quit::Interrupted,
        Ended::InTime | Ended::Deserted | Ended::NotYet => Quit::Done(verdict),
    })
}

fn finish(result: Result<Verdict, String>) -> ExitCode {
    match result {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what a command has to say.
fn say(result: Result<String, String>) -> ExitCode {
    let said = |text: String| report::print(&text).map_err(|error| error.to_string());
    finish(result.and_then(said).map(|()| Verdict::Passed))
}
