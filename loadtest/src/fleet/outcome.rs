//! What the workers counted, as one run.
//!
//! Owns: how their reports become one.
//! Never: averages a quantile, or counts what a lost worker did as measured.
//! Invariant: the same as `loadtest merge` of the workers' reports, lined up by
//! the moments at which they began instead of the clocks on their walls.

use std::time::Duration;

use super::part::WorkerPart;
use crate::generator::Generator;
use crate::merge;
use crate::report::Report;
use crate::run::{Ended, Outcome};
use crate::session::Wanted;

/// One worker and how it ended.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) part: WorkerPart,
    /// None if it was lost.
    pub(super) report: Option<Report>,
}

/// All of them; none if there is no report at all.
pub(super) fn outcome(endings: Vec<Ending>, ended: Ended, most: Wanted) -> Option<Outcome> {
    let mut parts = Vec::new();
    let mut reports = Vec::new();
    for Ending { mut part, report } in endings {
        if let Some(report) = report {
            part.sent = report.tally.sent;
            part.answered = report.tally.responses;
            part.generator = report.generator;
            let late = part.started_after_us.unwrap_or(0);
            reports.push((report, Duration::from_micros(late)));
        }
        parts.push(part);
    }
    let seconds = reports.iter().map(|(report, _)| report.settings.run_time());
    let sending = seconds.max()?;
    let (first, _) = reports.first()?;
    let began = first.started_at;
    let mut whole: Option<Report> = None;
    for (mut report, late) in reports {
        // They were told to send equally long; one that was stopped a few
        // milliseconds earlier is no other run.
        report.settings.run_time_seconds = sending.as_secs_f64();
        report.started_at = began + late;
        whole = Some(match whole {
            None => report,
            // Each is a run of its own of the same job.
            Some(before) => merge::join(&before, &report).ok()?,
        });
    }
    let whole = whole?;
    Some(Outcome {
        elapsed: whole.elapsed,
        sending,
        ended,
        most,
        generator: whole.generator.unwrap_or(Generator {
            cpu_share: 0.0,
            lag_p99_us: 0,
        }),
        tally: whole.tally,
        workers: parts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn ending(name: &str, seed: u64, late_us: u64, reported: bool) -> Ending {
        let report = sample::report(seed, 900);
        Ending {
            part: WorkerPart {
                name: name.to_owned(),
                threads: 2,
                sent: 0,
                answered: 0,
                started_after_us: Some(late_us),
                clock_error_us: Some(50),
                generator: None,
                journal: None,
                lost: (!reported).then(|| "gone".to_owned()),
            },
            report: reported.then_some(report),
        }
    }

    #[test]
    fn counts_add_up_and_each_part_is_said() {
        let mut other = ending("b", 2, 700, true);
        // A clock on the wall that is an hour off does not matter.
        if let Some(report) = &mut other.report {
            report.started_at += Duration::from_secs(3_600);
            report.settings.run_time_seconds = 9.999;
        }
        let endings = vec![ending("a", 1, 0, true), other];
        let whole = outcome(endings, Ended::InTime, Wanted::default()).unwrap();
        assert_eq!(whole.tally.sent, 1_800);
        let sent: Vec<_> = whole.workers.iter().map(|part| part.sent).collect();
        assert_eq!(sent, [900, 900]);
        assert_eq!(whole.sending, Duration::from_secs(10));
        assert_eq!(WorkerPart::apart(&whole.workers), Some((700, 50)));
    }

    #[test]
    fn a_lost_worker_leaves_what_the_others_measured() {
        let endings = vec![ending("a", 1, 0, false), ending("b", 2, 0, true)];
        let rest = outcome(endings, Ended::Deserted, Wanted::default()).unwrap();
        assert_eq!((rest.tally.sent, rest.workers[0].sent), (900, 0));
        let none = vec![ending("a", 1, 0, false)];
        assert!(outcome(none, Ended::Deserted, Wanted::default()).is_none());
    }
}
