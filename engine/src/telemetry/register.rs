//! Makes metrics known to a recorder: name, unit, help, and every series.
//!
//! Owns: the list of families, so that a test can ask for each on the page.
//! Never: is used after start; handles are registered once.

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label as Pair, Level, Metadata, Recorder, Unit,
};

use super::histogram::HistogramFamily;
use super::label::{By, Label};

static METADATA: Metadata<'static> = Metadata::new("engine", Level::INFO, None);

/// What kind of metric a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations by size.
    Histogram,
}

/// A metric as documented.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// With its base unit at the end.
    pub name: &'static str,
    /// One sentence for the reader of a dashboard.
    pub help: &'static str,
    /// Which of the three.
    pub kind: Kind,
}

/// The pairs of label name and value of one series.
type Pairs = &'static [(&'static str, &'static str)];

/// Registers families with one recorder.
pub(super) struct Registrar<'a> {
    recorder: &'a dyn Recorder,
    pub(super) families: Vec<Family>,
    pub(super) histograms: Vec<HistogramFamily>,
}

impl<'a> Registrar<'a> {
    pub(super) fn new(recorder: &'a dyn Recorder) -> Self {
        Self {
            recorder,
            families: Vec::new(),
            histograms: Vec::new(),
        }
    }

    fn note(&mut self, name: &'static str, help: &'static str, kind: Kind) {
        let family = Family { name, help, kind };
        assert!(
            !self.families.iter().any(|known| known.name == name),
            "{name} is registered twice: its series would be shared by accident"
        );
        self.families.push(family);
    }

    fn key(name: &'static str, pairs: &[(&'static str, &'static str)]) -> Key {
        let labels: Vec<Pair> = pairs
            .iter()
            .map(|(label, word)| Pair::from_static_parts(label, word))
            .collect();
        Key::from_parts(name, labels)
    }

    pub(super) fn counter_family(
        &mut self,
        name: &'static str,
        help: &'static str,
    ) -> impl Fn(&[(&'static str, &'static str)]) -> Counter + use<'a> {
        self.note(name, help, Kind::Counter);
        self.recorder.describe_counter(
            KeyName::from_const_str(name),
            Some(Unit::Count),
            help.into(),
        );
        let recorder = self.recorder;
        move |pairs| recorder.register_counter(&Self::key(name, pairs), &METADATA)
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        self.counter_family(name, help)(&[])
    }

    pub(super) fn counter_by<L: Label>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
    ) -> By<L, Counter> {
        let make = self.counter_family(name, help);
        By::new(|value: L| make(&[(label, value.as_str())]))
    }

    pub(super) fn gauge_with(
        &mut self,
        name: &'static str,
        unit: Unit,
        help: &'static str,
        pairs: Pairs,
    ) -> Gauge {
        self.note(name, help, Kind::Gauge);
        self.recorder
            .describe_gauge(KeyName::from_const_str(name), Some(unit), help.into());
        self.recorder
            .register_gauge(&Self::key(name, pairs), &METADATA)
    }

    pub(super) fn gauge(&mut self, name: &'static str, unit: Unit, help: &'static str) -> Gauge {
        self.gauge_with(name, unit, help, &[])
    }

    pub(super) fn gauge_by<L: Label>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
    ) -> By<L, Gauge> {
        self.note(name, help, Kind::Gauge);
        self.recorder.describe_gauge(
            KeyName::from_const_str(name),
            Some(Unit::Count),
            help.into(),
        );
        By::new(|value: L| {
            self.recorder
                .register_gauge(&Self::key(name, &[(label, value.as_str())]), &METADATA)
        })
    }

    /// Its series are added by the caller.
    pub(super) fn histogram_family(
        &mut self,
        name: &'static str,
        bounds: &'static [f64],
        help: &'static str,
    ) -> &mut HistogramFamily {
        self.note(name, help, Kind::Histogram);
        let slot = self.histograms.len();
        self.histograms
            .push(HistogramFamily::new(name, help, bounds));
        &mut self.histograms[slot]
    }

    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        bounds: &'static [f64],
        help: &'static str,
    ) -> Histogram {
        self.histogram_family(name, bounds, help).series(&[])
    }
}
