//! What one machine did of a run, as the report tells it.
//!
//! Owns: the names of these fields in the document.
//! Invariant: what a lost worker sent is not in the report's counts, and said.

use serde::{Deserialize, Serialize};

use crate::generator::Generator;

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct WorkerPart {
    /// As `--workers` names it.
    pub(crate) name: String,
    pub(crate) threads: u32,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// After the first of them began, its clock read over the network.
    pub(crate) started_after_us: Option<u64>,
    /// That reading may be wrong by so much: half of the shortest round trip.
    pub(crate) clock_error_us: Option<u64>,
    pub(crate) generator: Option<Generator>,
    /// On that machine.
    pub(crate) journal: Option<String>,
    /// Why it did not go on to the end.
    pub(crate) lost: Option<String>,
}

impl WorkerPart {
    /// How far apart the first and the last of them began, and how well that is
    /// known, in microseconds.
    pub(crate) fn apart(parts: &[Self]) -> Option<(u64, u64)> {
        let apart = parts
            .iter()
            .filter_map(|part| part.started_after_us)
            .max()?;
        let errors = parts.iter().filter_map(|part| part.clock_error_us);
        Some((apart, errors.max().unwrap_or(0)))
    }

    /// Those that could not keep up with what they were asked to send.
    pub(crate) fn bottlenecks(parts: &[Self]) -> Vec<&str> {
        let busy = |part: &&Self| part.generator.is_some_and(Generator::was_the_bottleneck);
        parts
            .iter()
            .filter(busy)
            .map(|part| part.name.as_str())
            .collect()
    }
}
