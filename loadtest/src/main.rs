//! `loadtest`: a load generator for the transaction engine.
//!
//! Owns: the process, its exit code and the order of a run.
//! Never: talks to anything but loopback unless told `--allow-remote`.
//! Bound: `--users` connections, one request in flight on each.
//! Invariant: every request that was due is counted once: answered, failed or unsent.
#![forbid(unsafe_code)]

mod args;
mod body;
mod journal;
mod progress;
mod report;
mod request;
mod response;
mod rng;
mod run;
mod schedule;
mod series;
mod slot;
mod stats;
mod verify;
mod worker;

use std::process::ExitCode;

use crate::args::{Parsed, parse};

/// Bad arguments (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let config = match parse(std::env::args_os()) {
        Parsed::Run(config) => config,
        Parsed::Verify(plan) => {
            return match verify::verify(&plan) {
                Ok(verify::Verdict::Kept) => ExitCode::SUCCESS,
                Ok(verify::Verdict::Broken) => ExitCode::FAILURE,
                Err(error) => {
                    eprintln!("loadtest: {error}");
                    ExitCode::FAILURE
                }
            };
        }
        Parsed::Help(text) => {
            return if report::print(&text).is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
        Parsed::Usage(message) => {
            eprintln!("{}", message.trim_end());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let outcome = match run::run(&config) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("loadtest: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = report::write(&config, &outcome) {
        eprintln!("loadtest: write the report: {error}");
        return ExitCode::FAILURE;
    }
    if outcome.tally.succeeded() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
