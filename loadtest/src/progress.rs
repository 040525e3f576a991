//! Progress while a run goes on: a bar on a terminal, plain lines elsewhere.
//!
//! Owns: standard error during a run.
//! Never: slows the client threads; it reads relaxed counters once a second.

use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::{Config, Progress};
use crate::worker::Live;

const POLL_EVERY: Duration = Duration::from_millis(20);
const PRINT_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    responses: u64,
    successes: u64,
    errors: u64,
}

fn counts(lives: &[Live]) -> Counts {
    let mut sum = Counts::default();
    for live in lives {
        sum.responses += live.responses.load(Ordering::Relaxed);
        sum.successes += live.successes.load(Ordering::Relaxed);
        sum.errors += live.errors.load(Ordering::Relaxed);
    }
    sum
}

/// Shows progress until `finished`.
pub(crate) fn watch(config: &Config, lives: &[Live], finished: impl Fn() -> bool) {
    let on_terminal = std::io::stderr().is_terminal();
    let bar = match (config.progress, on_terminal) {
        (Progress::Shown, true) => bar(config.run_time),
        (Progress::Shown, false) | (Progress::Hidden, _) => None,
    };
    let start = Instant::now();
    let mut printed_at = Duration::ZERO;
    let mut before = Counts::default();
    while !finished() {
        std::thread::sleep(POLL_EVERY);
        let elapsed = start.elapsed();
        let since = elapsed.saturating_sub(printed_at);
        if since < PRINT_EVERY || config.progress == Progress::Hidden {
            continue;
        }
        printed_at = elapsed;
        let now = counts(lives);
        let line = line(elapsed, since, before, now);
        before = now;
        match &bar {
            Some(bar) => {
                bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
                bar.set_message(line);
            }
            None => eprintln!("{line}"),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn bar(run_time: Duration) -> Option<ProgressBar> {
    let style = ProgressStyle::with_template("[{bar:30}] {msg}").ok()?;
    let length = u64::try_from(run_time.as_millis()).ok()?;
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    bar.set_style(style);
    Some(bar)
}

fn line(elapsed: Duration, since: Duration, before: Counts, now: Counts) -> String {
    let fresh = u128::from(now.responses.saturating_sub(before.responses));
    let rate = fresh * 1_000_000 / since.as_micros().max(1);
    format!(
        "{:>4}s {rate:>8}/s  {} answered, {} of them 2xx, {} errors",
        elapsed.as_secs(),
        now.responses,
        now.successes,
        now.errors
    )
}
