//! `ops/simulate`: runs seeds of the deterministic simulation.
//!
//! Exit code 0 when every promise held in every run, 1 when one was broken (one
//! line says how to see it again), 2 for a wrong call.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    reason = "a command-line tool whose output is its answer"
)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use engine::simulation::{self, Plant, Report};
use indicatif::{ProgressBar, ProgressStyle};

/// Runs the engine in a simulated world, seed by seed, and checks its promises.
///
/// A seed decides everything: who runs next, what breaks, what clients want. A run
/// that breaks a promise prints one line that shows it again.
#[derive(Debug, Parser)]
#[command(name = "ops/simulate", after_help = EXAMPLES)]
struct Args {
    /// How many seeds to run
    #[arg(long, env = "ENGINE_SIMULATE_SEEDS", default_value_t = 1_000)]
    seeds: u64,
    /// Run until a promise is broken or it is interrupted
    #[arg(long, env = "ENGINE_SIMULATE_FOREVER", conflicts_with = "seeds")]
    forever: bool,
    /// Run this seed alone, and say what was seen in it
    #[arg(long, env = "ENGINE_SIMULATE_SEED", conflicts_with_all = ["seeds", "forever"])]
    seed: Option<u64>,
    /// The first seed of many
    #[arg(long, env = "ENGINE_SIMULATE_FIRST", default_value_t = 1)]
    first: u64,
    /// Seeds at once; as many as processors if not given
    #[arg(long, env = "ENGINE_SIMULATE_JOBS")]
    jobs: Option<usize>,
    /// Plant this bug, to see whether it is found
    #[arg(long, env = "ENGINE_SIMULATE_PLANT", value_parser = plant_by_name)]
    plant: Option<Plant>,
    /// Say at the end what was seen in all runs together
    #[arg(long)]
    seen: bool,
    /// Plant every bug in turn, and say after how many seeds each is found
    #[arg(long, conflicts_with_all = ["plant", "seed", "forever"])]
    plants: bool,
}

const EXAMPLES: &str = "Examples:
  ops/simulate --seeds 10000
  ops/simulate --forever --first 1000000
  ops/simulate --seed 42
  ops/simulate --seed 42 --plant unknown-is-nothing
  ops/simulate --plants --seeds 500";

fn plant_by_name(name: &str) -> Result<Plant, String> {
    let found = Plant::ALL.into_iter().find(|plant| plant.name() == name);
    found.ok_or_else(|| {
        let names: Vec<String> = Plant::ALL.into_iter().map(Plant::name).collect();
        format!("no such bug; there are {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A panic in a run is a finding; it is told in that run's line.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = args.seed {
        return one(seed, args.plant);
    }
    if args.plants {
        return every_plant(&args);
    }
    let seeds = if args.forever { u64::MAX } else { args.seeds };
    match many(&args, args.plant, seeds) {
        None => ExitCode::SUCCESS,
        Some(report) => {
            println!("{}", finding(&report, args.plant));
            ExitCode::FAILURE
        }
    }
}

/// The one line.
fn finding(report: &Report, plant: Option<Plant>) -> String {
    let plant = plant.map_or(String::new(), |plant| format!(" --plant {}", plant.name()));
    let failure = report.failure.as_deref().unwrap_or("nothing");
    format!(
        "BROKEN {failure}; again: ops/simulate --seed {}{plant}",
        report.seed
    )
}

fn one(seed: u64, plant: Option<Plant>) -> ExitCode {
    let started = Instant::now();
    let report = simulation::run(seed, plant);
    for (what, count) in &report.seen {
        println!("{count:>8} {what}");
    }
    println!(
        "seed {seed}: {} steps, {:.1} simulated seconds in {:.2} s, trace {:016x}",
        report.steps,
        report.simulated.as_secs_f64(),
        started.elapsed().as_secs_f64(),
        report.trace
    );
    if report.failure.is_some() {
        println!("{}", finding(&report, plant));
        return ExitCode::FAILURE;
    }
    println!("every promise held");
    ExitCode::SUCCESS
}

fn every_plant(args: &Args) -> ExitCode {
    let mut missed = Vec::new();
    for plant in Plant::ALL {
        match many(args, Some(plant), args.seeds) {
            Some(report) => {
                let after = report.seed.saturating_sub(args.first).saturating_add(1);
                let failure = report.failure.unwrap_or_default();
                println!("{:<24} after {after:>4} seeds: {failure}", plant.name());
            }
            None => missed.push(plant.name()),
        }
    }
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("NOT FOUND in {} seeds: {}", args.seeds, missed.join(", "));
    ExitCode::FAILURE
}

/// Runs seeds until one fails; the lowest that did, so that the answer does not
/// depend on which thread was faster.
fn many(args: &Args, plant: Option<Plant>, seeds: u64) -> Option<Report> {
    let jobs = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let started = Instant::now();
    let bar = progress(seeds, plant);
    let (next, steps) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let found: Mutex<BTreeMap<u64, Report>> = Mutex::default();
    let simulated_ms = AtomicU64::new(0);
    let seen: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if seeds <= number {
                        return;
                    }
                    let report = simulation::run(args.first.wrapping_add(number), plant);
                    steps.fetch_add(report.steps, Ordering::Relaxed);
                    let ms = u64::try_from(report.simulated.as_millis()).unwrap_or(0);
                    simulated_ms.fetch_add(ms, Ordering::Relaxed);
                    bar.inc(1);
                    let mut seen = seen.lock().unwrap_or_else(|held| held.into_inner());
                    for (what, count) in &report.seen {
                        *seen.entry(what).or_default() += count;
                    }
                    drop(seen);
                    if report.failure.is_some() {
                        stop.store(true, Ordering::Relaxed);
                        let mut found = found.lock().unwrap_or_else(|held| held.into_inner());
                        found.insert(report.seed, report);
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let found = found.into_inner().unwrap_or_else(|held| held.into_inner());
    if args.seen {
        for (what, count) in seen.into_inner().unwrap_or_else(|held| held.into_inner()) {
            println!("{count:>8} {what}");
        }
    }
    if plant.is_none() {
        let ran = next.into_inner().min(seeds);
        let steps = steps.into_inner();
        let took = started.elapsed();
        let simulated = Duration::from_millis(simulated_ms.into_inner());
        println!(
            "{ran} seeds, {steps} steps ({} a minute), {} simulated, in {:.1} s",
            a_minute(steps, took),
            humantime::format_duration(Duration::from_secs(simulated.as_secs())),
            took.as_secs_f64()
        );
    }
    found.into_values().next()
}

fn a_minute(steps: u64, took: Duration) -> u64 {
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    steps.saturating_mul(60_000) / ms
}

fn progress(seeds: u64, plant: Option<Plant>) -> ProgressBar {
    let (bar, template) = if seeds == u64::MAX {
        (
            ProgressBar::new_spinner(),
            "{spinner} {pos} seeds in {elapsed}, {per_sec} {msg}",
        )
    } else {
        let template = "{wide_bar} {pos}/{len} seeds, {per_sec}, {eta} left {msg}";
        (ProgressBar::new(seeds), template)
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    if let Some(plant) = plant {
        bar.set_message(plant.name());
    }
    bar
}
