//! The metrics page.
//!
//! Owns: the recorder of counters and gauges, the histograms, the probes.
//! Never: is touched by the hot path, which only holds handles.
//! Bound: the page grows with the program, not with what happens.

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use metrics::Unit;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::histogram::HistogramFamily;
use super::metrics::Metrics;
use super::process;
use super::register::{Family, Registrar};

/// Asked at scrape time, on the admin thread. Must not wait for anything: use
/// atomics, or locks held for a moment.
pub type Probe = Box<dyn Fn(&Metrics) + Send>;

static GLOBAL: OnceLock<Exporter> = OnceLock::new();

/// The process's one exporter, made at the first call.
pub fn global() -> &'static Exporter {
    GLOBAL.get_or_init(Exporter::new)
}

/// A recorder with its metrics and probes.
pub struct Exporter {
    handle: PrometheusHandle,
    metrics: Metrics,
    families: Vec<Family>,
    histograms: Vec<HistogramFamily>,
    /// Written at start by `app`, read by the admin thread.
    probes: Mutex<Vec<Probe>>,
    started: Instant,
}

impl Exporter {
    /// An exporter of its own, for tests; the daemon uses [`global`].
    #[must_use]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let mut registrar = Registrar::new(&recorder);
        let metrics = Metrics::register(&mut registrar);
        registrar
            .gauge_with(
                "engine_build_info",
                Unit::Count,
                "Always 1; the labels say which build this is.",
                &[
                    ("version", env!("CARGO_PKG_VERSION")),
                    ("commit", COMMIT),
                    ("rustc", RUSTC),
                ],
            )
            .set(1.0);
        let Registrar {
            families,
            histograms,
            ..
        } = registrar;
        Self {
            handle: recorder.handle(),
            metrics,
            families,
            histograms,
            probes: Mutex::new(Vec::new()),
            started: Instant::now(),
        }
    }

    /// The handles.
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Every metric registered, process metrics excepted.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// Has `probe` asked at every scrape.
    pub fn add_probe(&self, probe: Probe) {
        self.probes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(probe);
    }

    /// The page in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        for probe in self
            .probes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            probe(&self.metrics);
        }
        self.metrics.engine.uptime.set(self.started.elapsed());
        let mut page = self.handle.render();
        for family in &self.histograms {
            family.write(&mut page);
        }
        process::write(&mut page);
        page
    }
}

impl Default for Exporter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Exporter")
            .field("families", &self.families.len())
            .finish_non_exhaustive()
    }
}

/// Set by whoever builds a release; a source archive has no commit to ask.
const COMMIT: &str = match option_env!("ENGINE_BUILD_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Set by `build.rs`.
const RUSTC: &str = match option_env!("ENGINE_BUILD_RUSTC") {
    Some(rustc) => rustc,
    None => "unknown",
};

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::super::label::{BreakerState, Label as _, Refusal, Route};
    use super::super::metrics::{flag, number};
    use super::super::register::Kind;
    use super::*;
    use crate::domain::{
        AccountId, InvalidAmount, Outcome, Receipt, RejectReason, Rejection, TransferId,
    };

    /// The samples whose name and labels begin with `start`.
    fn samples(page: &str, start: &str) -> Vec<String> {
        let mut lines: Vec<String> = page
            .lines()
            .filter(|line| line.starts_with(start))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn every_metric_is_on_the_page_with_help_before_anything_happened() {
        let exporter = Exporter::new();
        let page = exporter.render();
        assert!(!exporter.families().is_empty());
        for family in exporter.families() {
            let name = family.name;
            let (kind, sample) = match family.kind {
                Kind::Counter => ("counter", name.to_owned()),
                Kind::Gauge => ("gauge", name.to_owned()),
                Kind::Histogram => ("histogram", format!("{name}_count")),
            };
            assert!(name.starts_with("engine_"), "{name}");
            assert!(
                page.contains(&format!("# HELP {name} {}\n", family.help)),
                "{name}"
            );
            assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name}");
            assert!(
                [" ", "{"]
                    .iter()
                    .any(|end| page.contains(&format!("\n{sample}{end}"))),
                "{name} has no sample"
            );
        }
        for line in page.lines().filter(|line| line.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap();
            let known = exporter.families().iter().any(|family| family.name == name);
            assert!(known || name.starts_with("process_"), "{name}");
        }
    }

    #[test]
    fn promtool_finds_nothing_to_say() {
        let exporter = Exporter::new();
        exporter
            .metrics()
            .requests
            .finished(Route::Balance, 200, Duration::from_millis(1));
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool checks this page; it is in the Debian package `prometheus`");
        child
            .stdin
            .take()
            .unwrap()
            .write_all(exporter.render().as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.is_empty(), "{said}");
    }

    #[test]
    fn each_outcome_is_counted_once_under_its_reason() {
        let account_id = AccountId::new(1).unwrap();
        let receipt = Receipt {
            id: TransferId::first_of_ms(1),
            debit_account_id: account_id,
            credit_account_id: account_id,
            amount_minor: 1,
            digits: 2,
        };
        let rejection = Rejection {
            id: None,
            reason: RejectReason::InsufficientFunds,
            account_id,
        };
        let completed = |replayed| Outcome::Completed { receipt, replayed };
        let rejected = |replayed| Outcome::Rejected {
            rejection,
            replayed,
        };
        let transfers = |outcome: &str, reason: &str| {
            format!("engine_transfers_total{{outcome=\"{outcome}\",reason=\"{reason}\"}} 1")
        };
        let replays =
            |result: &str| format!("engine_idempotent_replays_total{{result=\"{result}\"}} 1");
        for (outcome, expected) in [
            (completed(false), vec![transfers("completed", "none")]),
            (completed(true), vec![replays("completed")]),
            (
                rejected(false),
                vec![transfers("rejected", "insufficient_funds")],
            ),
            (rejected(true), vec![replays("rejected")]),
            (
                Outcome::KeyReused,
                vec![
                    "engine_idempotency_conflicts_total 1".to_owned(),
                    transfers("refused", "idempotency_key_reused"),
                ],
            ),
            (
                Outcome::AccountNotFound(account_id),
                vec![transfers("refused", "account_not_found")],
            ),
            (
                Outcome::InvalidAmount(InvalidAmount::TooPrecise),
                vec![transfers("refused", "invalid_amount")],
            ),
            (
                Outcome::KeyExpired,
                vec![transfers("refused", "idempotency_key_expired")],
            ),
        ] {
            let exporter = Exporter::new();
            exporter.metrics().transfers.decided(&outcome);
            let page = exporter.render();
            let mut counted = samples(&page, "engine_idempot");
            counted.extend(samples(&page, "engine_transfers_total"));
            counted.retain(|line| !line.ends_with(" 0"));
            assert_eq!(counted, expected, "{outcome:?}");
        }
    }

    #[test]
    fn a_probe_is_asked_at_every_scrape() {
        let exporter = Exporter::new();
        let depth = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(7));
        let shared = std::sync::Arc::clone(&depth);
        exporter.add_probe(Box::new(move |metrics| {
            let depth = shared.load(std::sync::atomic::Ordering::Relaxed);
            metrics.admission.queue_depth.set(number(depth));
            metrics.cache.breaker_is(BreakerState::Open);
        }));
        assert!(exporter.render().contains("engine_queue_depth 7\n"));
        depth.store(8, std::sync::atomic::Ordering::Relaxed);
        let page = exporter.render();
        assert!(page.contains("engine_queue_depth 8\n"));
        assert_eq!(
            samples(&page, "engine_cache_breaker_state"),
            [
                "engine_cache_breaker_state{state=\"closed\"} 0",
                "engine_cache_breaker_state{state=\"half_open\"} 0",
                "engine_cache_breaker_state{state=\"open\"} 1",
            ]
        );
    }

    #[test]
    fn durations_have_buckets_from_50_microseconds_to_10_seconds() {
        let exporter = Exporter::new();
        let waits = &exporter.metrics().admission.queue_wait;
        waits.record(Duration::from_micros(50));
        waits.record(Duration::from_secs(11));
        let page = exporter.render();
        for line in [
            "engine_queue_wait_seconds_bucket{le=\"0.00005\"} 1\n",
            "engine_queue_wait_seconds_bucket{le=\"10\"} 1\n",
            "engine_queue_wait_seconds_bucket{le=\"+Inf\"} 2\n",
            "engine_queue_wait_seconds_count 2\n",
        ] {
            assert!(page.contains(line), "{line}");
        }
    }

    #[test]
    fn batch_sizes_reach_the_largest_batch_call() {
        let exporter = Exporter::new();
        let batch = &exporter.metrics().batch;
        batch.transfers.record(8192.0);
        batch.accounts.record(16384.0);
        exporter.metrics().commit.round_trips.record(2.0);
        let page = exporter.render();
        for line in [
            "engine_batch_transfers_bucket{le=\"4096\"} 0\n",
            "engine_batch_transfers_bucket{le=\"8192\"} 1\n",
            "engine_batch_accounts_bucket{le=\"16384\"} 1\n",
            "engine_commit_round_trips_bucket{le=\"1\"} 0\n",
            "engine_commit_round_trips_bucket{le=\"2\"} 1\n",
        ] {
            assert!(page.contains(line), "{line}");
        }
    }

    #[test]
    fn a_count_becomes_the_same_number() {
        for (count, expected) in [
            (0, 0.0),
            (1, 1.0),
            (4_294_967_295, 4_294_967_295.0),
            (4_294_967_296, 4_294_967_296.0),
            (9_007_199_254_740_991, 9_007_199_254_740_991.0),
        ] {
            assert_eq!(number(count), expected);
        }
        assert_eq!((flag(false), flag(true)), (0.0, 1.0));
    }

    #[test]
    fn the_page_is_the_same_whatever_clients_send() {
        let exporter = Exporter::new();
        let series = |page: &str| page.lines().filter(|line| !line.is_empty()).count();
        let before = series(&exporter.render());
        for status in 0..1000 {
            exporter
                .metrics()
                .requests
                .finished(Route::NotFound, status, Duration::ZERO);
        }
        for refusal in Refusal::ALL {
            exporter.metrics().transfers.refused(*refusal);
        }
        assert_eq!(series(&exporter.render()), before);
    }

    #[test]
    fn the_build_is_named() {
        let page = Exporter::new().render();
        let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
        let info = samples(&page, "engine_build_info{");
        assert_eq!(info.len(), 1, "{info:?}");
        assert!(
            info[0].contains(version) && info[0].ends_with(" 1"),
            "{info:?}"
        );
        assert!(!info[0].contains("rustc=\"unknown\""), "{info:?}");
    }
}
