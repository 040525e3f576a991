//! What timing a request costs the generator itself, as one line of JSON.
//!
//! Owns: two figures in nanoseconds: `clock_ns`, one read of the clock, and
//! `recording_ns`, the three histograms an answer goes into (latency and service of its
//! task with three digits, its second with two; the bounds of `stats.rs` and `series.rs`).
//! Never: measures sockets; the CPU time per request of a whole run holds those.
//! Bound: `TIMES` of each, in `ROUNDS` rounds of which the median counts.
//!
//! `ops/bench loadtest` runs it. By hand: `cargo run --release -p loadtest --example overhead`.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use hdrhistogram::{Counter, Histogram};

const TIMES: u32 = 1_000_000;
const ROUNDS: usize = 9;
const LATENCY_US_MAX: u64 = 60_000_000;

fn main() -> std::io::Result<()> {
    let clock_ns = median(clock);
    let recording_ns = median(recording);
    writeln!(
        std::io::stdout(),
        "{{\"clock_ns\":{clock_ns:.1},\"recording_ns\":{recording_ns:.1}}}"
    )
}

fn median(measure: fn()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            measure();
            begin.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// As a worker reads it: the time since the start of the run.
fn clock() {
    let start = Instant::now();
    for _ in 0..TIMES {
        black_box(start.elapsed());
    }
}

fn recording() {
    let mut latency = histogram::<u64>(3);
    let mut service = histogram::<u64>(3);
    let mut second = histogram::<u32>(2);
    let mut micros = 1_u64;
    for _ in 0..TIMES {
        // 200 us to 4.2 ms in no order, so that no place of the histogram stays warm.
        micros = micros
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let value = 200 + (micros >> 52);
        latency.saturating_record(black_box(value));
        service.saturating_record(black_box(value));
        second.saturating_record(black_box(value));
    }
    black_box((&latency, &service, &second));
}

fn histogram<C: Counter>(digits: u8) -> Histogram<C> {
    let mut histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, digits)
        .expect("1, 60,000,000 and 2 or 3 digits are valid bounds");
    histogram.auto(true);
    histogram
}
