//! The command line.
//!
//! Owns: every flag, its default and its limits.
//! Never: starts anything, or lets a run leave this machine by accident.
//! Invariant: a `Config` can be run as it is.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::compare::CompareArgs;
use crate::fleet::{self, FleetArgs, ServePlan, ServeWorkerArgs};
use crate::headers::{HeaderArgs, Headers};
use crate::journal::JournalPlan;
use crate::merge::MergeArgs;
use crate::report::Output;
use crate::request::Target;
use crate::scenario::{InitArgs, LoadArgs, RUN_TIME_MAX, Scenario, ScenarioArgs, parse_run_time};
use crate::schedule::Share;
use crate::threshold;
use crate::tls::{self, TlsArgs, TlsClient, Trust};
use crate::verify::{self, args::VerifyArgs};
use crate::web::WebArgs;

pub(crate) const THREADS_MAX: u32 = 256;

#[derive(Debug, Parser)]
#[command(
    name = "loadtest",
    about = "A load generator for the transaction engine",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load an engine and report rates and latencies.
    Run(Box<RunArgs>),
    /// Write a scenario file that explains each of its fields.
    Init(InitArgs),
    /// Join the JSON reports of several generators into one, exactly.
    Merge(MergeArgs),
    /// Lend this machine to a run that another one conducts with --workers.
    ServeWorker(ServeWorkerArgs),
    /// Compare the JSON reports of two runs: better, worse, or only noise.
    Compare(CompareArgs),
    /// Check what a run was promised against the ledger: nothing lost, doubled or
    /// altered. Exit code 1 if a promise was broken.
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The engine: http://HOST:PORT or https://HOST:PORT (whose certificate is checked
    /// against this machine's authorities, or --cacert).
    #[arg(long, default_value = "http://127.0.0.1:5000")]
    host: String,
    /// How often a transfer with a key is sent again, with the same key and bytes,
    /// after a broken connection, a timeout, 503 or 504. Waits 50 ms, then twice as
    /// long each time (up to 5 s, half of it random), or what Retry-After asks for;
    /// never beyond the end of the run. With 0, one request is one answer.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    retries: u32,
    /// Client threads. Default: half of the cores, at least 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(THREADS_MAX)))]
    threads: Option<u32>,
    /// How long an answer may take before it counts as a timeout.
    #[arg(long, default_value = "30s", value_parser = parse_run_time)]
    timeout: Duration,
    /// Do not print progress.
    #[arg(long)]
    quiet: bool,
    /// Allow a target that is not this machine.
    #[arg(long)]
    allow_remote: bool,
    // Last: their help headings hold for every flag after them.
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    scenario: ScenarioArgs,
    #[command(flatten)]
    headers: HeaderArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    output: Output,
    /// Write every transfer and its answer to this new file, for `loadtest verify`.
    /// A generator that is killed loses less than a second of it. If the disk is
    /// behind, the load waits for it, and the run says so.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    #[command(flatten)]
    web: WebArgs,
    #[command(flatten)]
    fleet: FleetArgs,
}

/// What a run was asked for, so that the next one can be asked for a little else.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) scenario: ScenarioArgs,
    pub(crate) load: LoadArgs,
}

/// A checked run.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) host: String,
    pub(crate) address: SocketAddr,
    /// None for http.
    pub(crate) tls: Option<TlsClient>,
    pub(crate) target: Target,
    pub(crate) scenario: Scenario,
    pub(crate) given: Given,
    pub(crate) threads: u32,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) output: Output,
    pub(crate) journal: Option<JournalPlan>,
    pub(crate) progress: Progress,
    pub(crate) web: WebArgs,
    pub(crate) fleet: FleetArgs,
    /// Which part of the run this machine takes; none is all of it.
    pub(crate) place: Option<Place>,
}

/// The threads of one machine among those of all: `first` and the next ones of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Place {
    pub(crate) first: u32,
    pub(crate) of: NonZeroU32,
}

impl Config {
    pub(crate) fn place(&self) -> Place {
        self.place.unwrap_or(Place {
            first: 0,
            // `check` gives at least one thread.
            of: NonZeroU32::new(self.threads).unwrap_or(NonZeroU32::MIN),
        })
    }

    /// How many of so many users, over all machines, are this machine's.
    pub(crate) fn users_of(&self, all: u64) -> u64 {
        let place = self.place();
        let threads = place.first..place.first.saturating_add(self.threads);
        let share = |index| Share {
            index: u64::from(index),
            count: place.of.into(),
        };
        threads.map(|index| share(index).of(all)).sum()
    }

    /// The highest rate in requests per second; none is the closed model.
    pub(crate) fn rate(&self) -> Option<NonZeroU64> {
        let arrivals = self.scenario.load.arrivals.as_ref();
        arrivals.and_then(|arrivals| NonZeroU64::new(arrivals.peak()))
    }
}

/// Whether progress is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Shown,
    Hidden,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Parsed {
    Run(Box<Config>),
    Init(InitArgs),
    Merge(MergeArgs),
    Compare(CompareArgs),
    ServeWorker(ServePlan),
    Verify(Box<verify::args::Plan>),
    /// Help or version, for standard output.
    Help(String),
    /// What is wrong, for standard error.
    Usage(String),
}

pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Parsed {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return Parsed::Usage(error.render().to_string()),
        Err(error) => return Parsed::Help(error.render().to_string()),
    };
    let parsed = match cli.command {
        Command::Run(args) => check(*args).map(|config| Parsed::Run(Box::new(config))),
        Command::Init(args) => Ok(Parsed::Init(args)),
        Command::Merge(args) => Ok(Parsed::Merge(args)),
        Command::Compare(args) => Ok(Parsed::Compare(args)),
        Command::ServeWorker(args) => args.check().map(Parsed::ServeWorker),
        Command::Verify(args) => {
            verify::args::check(args).map(|plan| Parsed::Verify(Box::new(plan)))
        }
    };
    parsed.unwrap_or_else(|message| Parsed::Usage(format!("loadtest: {message}")))
}

fn check(mut args: RunArgs) -> Result<Config, String> {
    let address = resolve(&args.host)?;
    if !args.allow_remote && !address.ip().is_loopback() {
        return Err(format!(
            "--host {} is not this machine: add --allow-remote if you own it",
            args.host
        ));
    }
    args.web.check()?;
    args.fleet.check()?;
    args.fleet.threads = args.threads;
    if let (Some(journal), false) = (&args.journal, args.fleet.workers.is_empty()) {
        fleet::check_journal(journal)?;
    }
    if args.web.web.is_some() {
        args.load.run_time_unsaid = Some(RUN_TIME_MAX);
    }
    let scenario = Scenario::new(&args.scenario, &args.load)?;
    threshold::check_tasks(&args.output.require, &scenario.task_names())?;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
    // The page may add users to a run: more threads than it begins with then help.
    let threads_max = match args.web.web {
        Some(_) => THREADS_MAX,
        None => scenario.load.users.min(THREADS_MAX),
    };
    let threads = args
        .threads
        .unwrap_or_else(|| u32::try_from(cores.max(1)).unwrap_or(1))
        .min(threads_max);
    let progress = if args.quiet {
        Progress::Hidden
    } else {
        Progress::Shown
    };
    let journal = args.journal.map(|path| JournalPlan {
        path,
        host: args.host.clone(),
        seed: scenario.seed,
        accounts: scenario.accounts(),
    });
    Ok(Config {
        address,
        tls: Trust::new(&args.tls)?.client(&args.host)?,
        target: Target {
            authority: authority(&args.host)?.to_owned(),
            headers: Headers::new(&args.headers)?,
        },
        host: args.host,
        scenario,
        given: Given {
            scenario: args.scenario,
            load: args.load,
        },
        threads,
        timeout: args.timeout,
        retries: args.retries,
        output: args.output,
        journal,
        progress,
        web: args.web,
        fleet: args.fleet,
        place: None,
    })
}

/// `host:port` of `http://host:port` and `https://host:port`.
pub(crate) fn authority(host: &str) -> Result<&str, String> {
    let expected = || format!("--host {host}: expected http://HOST:PORT or https://HOST:PORT");
    let rest = host
        .strip_prefix("http://")
        .or_else(|| host.strip_prefix(tls::SCHEME))
        .ok_or_else(expected)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let clean = rest
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte));
    if rest.is_empty() || !clean {
        return Err(expected());
    }
    Ok(rest)
}

pub(crate) fn resolve(host: &str) -> Result<SocketAddr, String> {
    let authority = authority(host)?;
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok());
    let full = if has_port {
        authority.to_owned()
    } else {
        let port = if host.starts_with(tls::SCHEME) {
            443
        } else {
            80
        };
        format!("{authority}:{port}")
    };
    full.to_socket_addrs()
        .map_err(|error| format!("--host {host}: {error}"))?
        .next()
        .ok_or_else(|| format!("--host {host}: no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(flags: &str) -> Result<Config, String> {
        let all = ["loadtest", "run"]
            .into_iter()
            .chain(flags.split_whitespace());
        match parse(all.map(OsString::from)) {
            Parsed::Run(config) => Ok(*config),
            Parsed::Verify(plan) => Err(format!("{plan:?}")),
            Parsed::Help(text) | Parsed::Usage(text) => Err(text),
            Parsed::Init(_) | Parsed::Merge(_) | Parsed::Compare(_) | Parsed::ServeWorker(_) => {
                Err("not a run".to_owned())
            }
        }
    }

    #[track_caller]
    fn check_refused(flags: &str, part: &str) {
        let message = run(flags).expect_err(flags);
        assert!(message.contains(part), "{flags}: {message}");
    }

    #[test]
    fn defaults_are_a_closed_run_on_this_machine() {
        let config = run("").unwrap();
        assert_eq!(config.address, "127.0.0.1:5000".parse().unwrap());
        assert_eq!((config.scenario.load.users, config.rate()), (64, None));
        assert_eq!(config.scenario.task_names(), ["transfer"]);
        assert_ne!(
            run("").unwrap().scenario.seed,
            config.scenario.seed,
            "each run has new keys"
        );
        assert_eq!(run("--seed 7").unwrap().scenario.seed, 7);
        assert_eq!(run("--users 1 --threads 4").unwrap().threads, 1);
    }

    #[test]
    fn both_sides_of_every_bound() {
        for good in [
            "--users 1",
            "--users 20000",
            "--rate 1",
            "--rate 10000000",
            "--task batch:1",
            "--task batch:8192",
            "--hot 0",
            "--hot 0.5",
            "--hot 1.0",
            "--accounts 0..=1",
            "--accounts 1..=9007199254740991",
            "--amount 0.01",
            "--run-time 24h",
            "--task balance --accounts 5..=5",
            "--host http://[::1]:80/",
            "--stage duration=1s,rate=0..10000000",
            "--stage duration=1s,users=20000 --stage duration=1s,users=0",
            "--think 1s..=2s --spawn-rate 1 --retries 1000",
        ] {
            assert!(run(good).is_ok(), "{good}: {:?}", run(good));
        }
        for (bad, part) in [
            ("--users 0", "--users"),
            ("--users 20001", "--users"),
            ("--rate 0", "--rate"),
            ("--rate 10000001", "--rate"),
            ("--task batch:0", "batch:"),
            ("--task batch:8193", "batch:"),
            ("--task other", "expected transfer"),
            ("--hot 1.000001", "share"),
            ("--hot=-1", "share"),
            ("--hot 0.1234567", "share"),
            ("--accounts 2..=1", "FIRST"),
            ("--accounts 1..=9007199254740992", "FIRST"),
            ("--accounts 5..=5", "two accounts"),
            ("--amount 0.00", "positive"),
            ("--amount 01", "positive"),
            ("--amount 1e2", "positive"),
            ("--run-time 0s", "more than zero"),
            ("--run-time 25h", "24h"),
            ("--stage duration=1s,rate=10000001", "above"),
            ("--stage duration=1s,users=20001", "above"),
            ("--stage duration=1s", "--stage"),
            (
                "--stage duration=1s,rate=1 --stage duration=1s,users=1",
                "all of them",
            ),
            ("--stage duration=1s,rate=1 --rate 5", "--rate"),
            ("--stage duration=1s,rate=1 --run-time 5s", "--run-time"),
            ("--stage duration=1s,users=1 --users 5", "--users"),
            ("--rate 5 --think 1s", "--think"),
            ("--think 2s..=1s", "1s..=3s"),
            ("--spawn-rate 0", "--spawn-rate"),
            ("--retries 1001", "--retries"),
            ("--host ftp://127.0.0.1", "https://HOST:PORT"),
            ("--host https://127.0.0.1 --cacert /nonexistent", "--cacert"),
            ("--host http://127.0.0.1:1/x", "HOST:PORT"),
        ] {
            check_refused(bad, part);
        }
    }

    #[test]
    fn stages_are_the_run_time_and_the_most_users() {
        let closed = run("--stage duration=2s,users=0..90 --stage duration=1s,users=5").unwrap();
        assert_eq!((closed.scenario.load.users, closed.rate()), (90, None));
        assert_eq!(closed.scenario.load.run_time, Duration::from_secs(3));
        let open = run("--users 7 --stage duration=2s,rate=100..900").unwrap();
        assert_eq!(open.scenario.load.users, 7);
        assert_eq!(open.rate().unwrap().get(), 900);
        assert_eq!(open.scenario.load.run_time, Duration::from_secs(2));
        let spawned = run("--users 10 --spawn-rate 5").unwrap();
        assert_eq!(
            spawned.scenario.load.staff.level_at(Duration::from_secs(1)),
            5
        );
        assert_eq!(
            spawned.scenario.load.staff.level_at(Duration::from_secs(9)),
            10
        );
    }

    #[test]
    fn a_remote_target_must_be_allowed() {
        check_refused("--host http://192.0.2.1:5000", "--allow-remote");
        assert!(run("--host http://192.0.2.1:5000 --allow-remote").is_ok());
    }
}
