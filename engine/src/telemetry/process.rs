//! What the operating system says about this process.
//!
//! Owns: the `process_*` metrics, under the names Prometheus' own client
//! libraries use, so that ready-made dashboards and alerts find them.
//! Never: fails; what `/proc` does not tell is left off the page.
//!
//! Written by hand and not through the recorder, whose counters are whole
//! numbers: CPU seconds are not.

use std::fmt::Write as _;
use std::fs;

use rustix::process::{Resource, getrlimit};

/// Appends the metrics to a page.
pub(super) fn write(page: &mut String) {
    let readings = Readings::take();
    for (name, kind, help, value) in readings.rows() {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _infallible = write!(
                page,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n"
            );
        }
    }
}

#[derive(Debug, Default)]
struct Readings {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<f64>,
    virtual_bytes: Option<f64>,
    threads: Option<f64>,
    start_time_seconds: Option<f64>,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
}

type Row = (&'static str, &'static str, &'static str, Option<f64>);

impl Readings {
    fn take() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let stat = Stat::parse(&text("/proc/self/stat"));
        let status = text("/proc/self/status");
        // Linux fixes the ticks that /proc is written in (USER_HZ) at 100 on
        // every architecture Rust's std supports but Alpha.
        let seconds = |ticks: f64| ticks / 100.0;
        Self {
            cpu_seconds: stat.as_ref().map(|stat| seconds(stat.cpu_ticks)),
            resident_bytes: kibibytes(&status, "VmRSS:"),
            virtual_bytes: kibibytes(&status, "VmSize:"),
            threads: field(&status, "Threads:"),
            start_time_seconds: stat.as_ref().and_then(|stat| {
                Some(field(&text("/proc/stat"), "btime")? + seconds(stat.start_ticks))
            }),
            // The listing itself holds one descriptor while it is read.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|entries| super::metrics::number(entries.count().saturating_sub(1))),
            max_fds: getrlimit(Resource::Nofile)
                .current
                .and_then(|limit| usize::try_from(limit).ok())
                .map(super::metrics::number),
        }
    }

    fn rows(&self) -> [Row; 7] {
        [
            (
                "process_cpu_seconds_total",
                "counter",
                "User and system CPU time spent.",
                self.cpu_seconds,
            ),
            (
                "process_resident_memory_bytes",
                "gauge",
                "Resident memory size.",
                self.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "gauge",
                "Virtual memory size.",
                self.virtual_bytes,
            ),
            (
                "process_threads",
                "gauge",
                "Operating system threads.",
                self.threads,
            ),
            (
                "process_start_time_seconds",
                "gauge",
                "Start time since the Unix epoch.",
                self.start_time_seconds,
            ),
            (
                "process_open_fds",
                "gauge",
                "Open file descriptors.",
                self.open_fds,
            ),
            (
                "process_max_fds",
                "gauge",
                "File descriptors allowed.",
                self.max_fds,
            ),
        ]
    }
}

/// The fields of `/proc/self/stat` used here (proc(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // Field 2, the name, is in parentheses and may hold spaces and more
        // parentheses: fields are counted from the last one. The first after
        // it is field 3.
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field.checked_sub(3)?)?.parse::<f64>().ok();
        Some(Self {
            cpu_ticks: number(14)? + number(15)?,
            start_ticks: number(22)?,
        })
    }
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let mut words = text
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_ascii_whitespace();
    words.next()?.parse().ok()
}

fn kibibytes(text: &str, name: &str) -> Option<f64> {
    field(text, name).map(|kibibytes| kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_spaces_and_parentheses_moves_no_field() {
        let tail = "R 1 1 1 0 -1 4194304 1 0 0 0 150 50 7 8 20 0 4 0 123456 1 1";
        for name in ["(engine)", "(a b)", "(x) 9 (y)", "())"] {
            assert_eq!(
                Stat::parse(&format!("42 {name} {tail}")),
                Some(Stat {
                    cpu_ticks: 200.0,
                    start_ticks: 123_456.0
                }),
                "{name}"
            );
        }
        for cut in ["", "42 engine", "42 (engine) R 1 1"] {
            assert_eq!(Stat::parse(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "VmSize:\t  20 kB\nVmRSS:\t  10 kB\nThreads:\t3\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(10_240.0));
        assert_eq!(field(status, "Threads:"), Some(3.0));
        assert_eq!(field(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_has_every_reading() {
        let readings = Readings::take();
        for (name, _, _, value) in readings.rows() {
            assert!(value.is_some_and(f64::is_finite), "{name}: {value:?}");
        }
        assert!(readings.resident_bytes <= readings.virtual_bytes);
        assert!(readings.open_fds <= readings.max_fds);
        assert!(readings.threads >= Some(1.0));
    }

    #[test]
    fn what_proc_does_not_tell_is_left_off_the_page() {
        let rows = Readings::default().rows();
        assert!(rows.iter().all(|(_, _, _, value)| value.is_none()));
    }
}
