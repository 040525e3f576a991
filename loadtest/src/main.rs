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
mod slot;
mod stages;
mod stats;
mod stream;
mod threshold;
mod tls;
mod verify;
mod worker;

use std::process::ExitCode;

use crate::args::{Parsed, parse};
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
        Parsed::Init(init) => return say(scenario::write_example(&init.file)),
        Parsed::Help(text) => return say(Ok(text)),
        Parsed::Usage(message) => {
            eprintln!("{}", message.trim_end());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let outcome = match run::run(&config) {
        Ok(outcome) => outcome,
        Err(error) => return finish(Err(error.to_string())),
    };
    let (ended, sending) = (outcome.ended, outcome.sending);
    if ended == Ended::Interrupted {
        eprintln!("loadtest: interrupted after {sending:?}; the report is of what was done");
    }
    let delivered = Report::new(&config, outcome).deliver(&config.output);
    if delivered.is_ok() && ended == Ended::Interrupted {
        return ExitCode::from(EXIT_INTERRUPTED);
    }
    finish(delivered.map_err(|error| error.to_string()))
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
