//! The engine's log, on standard error.
//!
//! Owns: level filter, format, and the thread that writes.
//! Never: makes a task wait for whoever reads standard error.
//! Bound: `queue_lines_max` lines; past it a line is dropped and counted, and
//! a line in the log says how many are missing.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::util::TryInitError;

use super::access_log::LogFormat;
use super::background::{Background, Counters, Format, Stopped, Wake};
use super::{panic_message, timestamp};
use crate::clock::Clock;

/// How the log behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// In which form.
    pub format: LogFormat,
    /// Which events, e.g. `info` or `info,engine::store=debug`.
    pub filter: String,
    /// Lines waiting at most.
    pub queue_lines_max: usize,
}

impl Default for Settings {
    /// Nothing is logged per transfer, so 4,096 lines are minutes of trouble.
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            filter: "info".to_owned(),
            queue_lines_max: 4096,
        }
    }
}

/// Why the log could not start.
#[derive(Debug)]
pub enum LogError {
    /// The filter does not read.
    Filter(ParseError),
    /// The operating system refused a thread.
    Thread(io::Error),
    /// A log is there already.
    Installed(TryInitError),
}

impl fmt::Display for LogError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(source) => write!(formatter, "read log filter: {source}"),
            Self::Thread(source) => write!(formatter, "start log writer: {source}"),
            Self::Installed(source) => write!(formatter, "install log: {source}"),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Filter(source) => Some(source),
            Self::Thread(source) => Some(source),
            Self::Installed(source) => Some(source),
        }
    }
}

/// Writes what is queued when dropped: keep it until the process ends.
#[derive(Debug)]
pub struct LogGuard {
    lines: Arc<Background<Vec<u8>>>,
}

impl LogGuard {
    const FLUSH_MAX: Duration = Duration::from_secs(1);

    /// Writes what is queued, waiting at most a second; later events are lost.
    pub fn stop(&self) -> Stopped {
        self.lines.stop(Self::FLUSH_MAX)
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Installs the process's log on standard error, panics included: their usual
/// several lines would break a log of one JSON object per line.
///
/// # Errors
/// [`LogError`]; nothing is installed then.
pub fn init(settings: &Settings, clock: Clock, dropped: Counter) -> Result<LogGuard, LogError> {
    let (subscriber, guard) = build(settings, clock, Box::new(io::stderr()), dropped)?;
    tracing_subscriber::util::SubscriberInitExt::try_init(subscriber)
        .map_err(LogError::Installed)?;
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let payload = panic_message(panic.payload());
        tracing::error!(location, payload, "panicked");
    }));
    Ok(guard)
}

type Subscriber = Box<dyn tracing::Subscriber + Send + Sync>;

fn build(
    settings: &Settings,
    clock: Clock,
    out: Box<dyn Write + Send>,
    dropped: Counter,
) -> Result<(Subscriber, LogGuard), LogError> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(LogError::Filter)?;
    let background = Background::start(
        "log",
        settings.queue_lines_max,
        Wake::AtOnce,
        Lines {
            format: settings.format,
            clock: clock.clone(),
        },
        out,
        Counters {
            written: None,
            dropped,
        },
    )
    .map_err(LogError::Thread)?;
    let lines = Arc::new(background);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Timer(clock))
        .with_ansi(false)
        .with_writer(LineWriter(Arc::clone(&lines)));
    let subscriber: Subscriber = match settings.format {
        LogFormat::Text => Box::new(subscriber.finish()),
        LogFormat::Json => Box::new(
            subscriber
                .json()
                .flatten_event(true)
                .with_span_list(false)
                .finish(),
        ),
    };
    Ok((subscriber, LogGuard { lines }))
}

struct Timer(Clock);

impl FormatTime for Timer {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", timestamp(self.0.unix_ms()))
    }
}

struct Lines {
    format: LogFormat,
    clock: Clock,
}

impl Format<Vec<u8>> for Lines {
    fn line(&mut self, item: &Vec<u8>, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(item);
    }

    fn dropped(&mut self, count: u64, buffer: &mut Vec<u8>) {
        let time = timestamp(self.clock.unix_ms());
        // Writing to a Vec cannot fail.
        let _infallible = match self.format {
            LogFormat::Text => {
                writeln!(
                    buffer,
                    "{time}  WARN engine: log lines dropped lines={count}"
                )
            }
            LogFormat::Json => writeln!(
                buffer,
                r#"{{"timestamp":"{time}","level":"WARN","message":"log lines dropped","lines":{count},"target":"engine"}}"#
            ),
        };
    }
}

struct LineWriter(Arc<Background<Vec<u8>>>);

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// tracing-subscriber formats an event first and then writes it once.
struct Line<'a>(&'a Background<Vec<u8>>);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.offer(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU64;

    use crossbeam::channel::bounded;

    use super::super::background::tests::{Gated, counters};
    use super::*;

    fn logged(settings: &Settings, act: impl FnOnce()) -> Vec<String> {
        let text = Arc::new(Mutex::new(Vec::new()));
        let (_, gate) = bounded(0);
        let out = Gated {
            entered: None,
            gate,
            written: Arc::clone(&text),
        };
        let clock = Clock::Manual(Arc::new(AtomicU64::new(1_795_262_400_007)));
        let (counts, _, dropped) = counters();
        let (subscriber, guard) = build(settings, clock, Box::new(out), counts.dropped).unwrap();
        tracing::subscriber::with_default(subscriber, act);
        drop(guard);
        assert_eq!(dropped.get(), 0);
        let text = String::from_utf8(text.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn act() {
        let _in_span = tracing::info_span!("commit", batch_id = 42).entered();
        tracing::info!(request_id = "r\"1\n", "hello\nthere");
        tracing::debug!("quiet");
    }

    #[test]
    fn json_is_one_object_per_line_with_fields_at_the_top() {
        let settings = Settings {
            format: LogFormat::Json,
            ..Settings::default()
        };
        let lines = logged(&settings, act);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let object: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(object["timestamp"], "2026-11-21T12:00:00.007Z");
        assert_eq!(object["level"], "INFO");
        assert_eq!(object["message"], "hello\nthere");
        assert_eq!(object["request_id"], "r\"1\n");
        assert_eq!(object["target"], "engine::telemetry::logs::tests");
        assert_eq!(object["span"]["batch_id"], 42);
    }

    #[test]
    fn text_has_no_colour_codes_and_the_filter_decides() {
        let lines = logged(&Settings::default(), || tracing::info!("hello"));
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].starts_with("2026-11-21T12:00:00.007Z  INFO"),
            "{lines:?}"
        );
        assert!(lines[0].ends_with("hello"));
        let quiet = Settings {
            filter: "warn".to_owned(),
            ..Settings::default()
        };
        assert_eq!(logged(&quiet, act), [""; 0]);
        let loud = Settings {
            filter: "info,engine=debug".to_owned(),
            ..Settings::default()
        };
        assert!(logged(&loud, act).iter().any(|line| line.contains("quiet")));
    }

    #[test]
    fn a_filter_that_does_not_read_is_named() {
        let settings = Settings {
            filter: "engine=loud".to_owned(),
            ..Settings::default()
        };
        let (counts, _, _) = counters();
        let refused = build(
            &settings,
            Clock::System,
            Box::new(io::sink()),
            counts.dropped,
        );
        assert!(matches!(refused, Err(LogError::Filter(_))));
    }

    #[test]
    fn logging_goes_on_while_standard_error_is_stuck() {
        let (entered_tx, entered) = bounded(1);
        let (open, gate) = bounded(0);
        let text = Arc::new(Mutex::new(Vec::new()));
        let out = Gated {
            entered: Some(entered_tx),
            gate,
            written: Arc::clone(&text),
        };
        let settings = Settings {
            queue_lines_max: 2,
            format: LogFormat::Json,
            ..Settings::default()
        };
        let (counts, _, dropped) = counters();
        let (subscriber, guard) =
            build(&settings, Clock::System, Box::new(out), counts.dropped).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("first");
            entered.recv().unwrap();
            for _ in 0..7 {
                tracing::info!("more");
            }
        });
        drop(open);
        drop(guard);
        assert_eq!(dropped.get(), 5);
        let text = String::from_utf8(text.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(
            text.lines()
                .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
        );
        assert!(text.contains("\"lines\":5"));
    }
}
