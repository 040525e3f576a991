//! The command line.
//!
//! Owns: every flag, its default and its limits.
//! Never: starts anything, or lets a run leave this machine by accident.
//! Invariant: a `Config` can be run as it is.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::journal::JournalPlan;
use crate::request::Plan;
use crate::verify::{self, args::VerifyArgs};

/// One address pair has about 28,000 client ports on a default Linux.
const USERS_MAX: u32 = 20_000;
const THREADS_MAX: u32 = 256;
const RATE_MAX: u64 = 10_000_000;
/// The engine's limit of transfers in one call.
const BATCH_MAX: u32 = 8_192;
/// The engine's largest account id: 2^53 - 1.
const ACCOUNT_MAX: u64 = 9_007_199_254_740_991;
const RUN_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

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
    Run(RunArgs),
    /// Check what a run was promised against the ledger: nothing lost, doubled or
    /// altered. Exit code 1 if a promise was broken.
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The engine: http://HOST:PORT.
    #[arg(long, default_value = "http://127.0.0.1:5000")]
    host: String,
    /// Keep-alive connections, each with at most one request in flight.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(USERS_MAX)))]
    users: u32,
    /// How long requests are sent, for example 10s or 2m.
    #[arg(long, default_value = "10s", value_parser = parse_run_time)]
    run_time: Duration,
    /// Requests per second, sent at constant intervals whatever the answers take
    /// (open model). Without it each user sends as soon as it was answered.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: Option<u64>,
    /// Account ids, both ends included.
    #[arg(long, default_value = "1..=1000")]
    accounts: Accounts,
    /// Amount of each transfer, as decimal text.
    #[arg(long, default_value = "1", value_parser = parse_amount)]
    amount: String,
    /// Whether each transfer carries an Idempotency-Key of its own.
    #[arg(long, value_enum, default_value_t = Keys::On)]
    keys: Keys,
    /// transfer, balance, health or batch:N (N transfers per call, 1 to 8192).
    #[arg(long, default_value = "transfer")]
    task: Task,
    /// Share of transfers that credit the first account, 0 to 1.
    #[arg(long, default_value = "0", value_parser = parse_share_ppm)]
    hot: u32,
    /// Makes the same requests again, keys included: on the same engine that is
    /// a replay. Without it every run has a seed of its own.
    #[arg(long)]
    seed: Option<u64>,
    /// Client threads. Default: half of the cores, at least 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(THREADS_MAX)))]
    threads: Option<u32>,
    /// How long an answer may take before it counts as a timeout.
    #[arg(long, default_value = "30s", value_parser = parse_run_time)]
    timeout: Duration,
    /// Also write the report to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write every transfer and its answer to this new file, for `loadtest verify`.
    /// A generator that is killed loses less than a second of it. If the disk is
    /// behind, the load waits for it, and the run says so.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Do not print progress.
    #[arg(long)]
    quiet: bool,
    /// Allow a target that is not this machine.
    #[arg(long)]
    allow_remote: bool,
}

/// Whether transfers carry an Idempotency-Key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keys {
    On,
    Off,
}

impl Keys {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// What each request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Transfer,
    Balance,
    Health,
    /// That many transfers per call.
    Batch(u32),
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "transfer" => Ok(Self::Transfer),
            "balance" => Ok(Self::Balance),
            "health" => Ok(Self::Health),
            _ => text
                .strip_prefix("batch:")
                .and_then(|count| count.parse().ok())
                .filter(|count| (1..=BATCH_MAX).contains(count))
                .map(Self::Batch)
                .ok_or_else(|| {
                    format!("expected transfer, balance, health or batch:1 to batch:{BATCH_MAX}")
                }),
        }
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Transfer => f.write_str("transfer"),
            Self::Balance => f.write_str("balance"),
            Self::Health => f.write_str("health"),
            Self::Batch(count) => write!(f, "batch:{count}"),
        }
    }
}

/// A range of account ids, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Accounts {
    pub(crate) const fn count(self) -> u64 {
        self.last - self.first + 1
    }
}

impl FromStr for Accounts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text
            .split_once("..=")
            .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        let (first, last) = ends.ok_or("expected FIRST..=LAST, for example 1..=1000")?;
        if last < first || ACCOUNT_MAX < last {
            return Err(format!("expected FIRST <= LAST <= {ACCOUNT_MAX}"));
        }
        Ok(Self { first, last })
    }
}

impl std::fmt::Display for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..={}", self.first, self.last)
    }
}

/// A checked run.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) host: String,
    pub(crate) address: SocketAddr,
    pub(crate) plan: Plan,
    pub(crate) users: u32,
    pub(crate) threads: u32,
    pub(crate) run_time: Duration,
    pub(crate) timeout: Duration,
    /// Requests per second; none is the closed model.
    pub(crate) rate: Option<NonZeroU64>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) journal: Option<JournalPlan>,
    pub(crate) progress: Progress,
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
        Command::Run(args) => check(args).map(|config| Parsed::Run(Box::new(config))),
        Command::Verify(args) => {
            verify::args::check(args).map(|plan| Parsed::Verify(Box::new(plan)))
        }
    };
    parsed.unwrap_or_else(|message| Parsed::Usage(format!("loadtest: {message}")))
}

fn check(args: RunArgs) -> Result<Config, String> {
    let address = resolve(&args.host)?;
    if !args.allow_remote && !address.ip().is_loopback() {
        return Err(format!(
            "--host {} is not this machine: add --allow-remote if you own it",
            args.host
        ));
    }
    let transfers = match args.task {
        Task::Transfer | Task::Batch(_) => true,
        Task::Balance | Task::Health => false,
    };
    if transfers && args.accounts.count() < 2 {
        return Err(format!(
            "--accounts {}: a transfer needs two accounts",
            args.accounts
        ));
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
    let threads = args
        .threads
        .unwrap_or_else(|| u32::try_from(cores.max(1)).unwrap_or(1))
        .min(args.users)
        .min(THREADS_MAX);
    let progress = if args.quiet {
        Progress::Hidden
    } else {
        Progress::Shown
    };
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let journal = args.journal.map(|path| JournalPlan {
        path,
        host: args.host.clone(),
        seed,
        accounts: args.accounts,
    });
    Ok(Config {
        address,
        journal,
        plan: Plan {
            task: args.task,
            keys: args.keys,
            authority: authority(&args.host)?.to_owned(),
            accounts: args.accounts,
            amount: args.amount,
            hot_ppm: args.hot,
            seed,
        },
        host: args.host,
        users: args.users,
        threads,
        run_time: args.run_time,
        timeout: args.timeout,
        rate: args.rate.and_then(NonZeroU64::new),
        json: args.json,
        progress,
    })
}

/// A seed nobody used: the standard library keys its hash maps from the system.
pub(crate) fn fresh_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// `host:port` of `http://host:port`.
pub(crate) fn authority(host: &str) -> Result<&str, String> {
    let rest = host.strip_prefix("http://").ok_or_else(|| {
        format!("--host {host}: expected http://HOST:PORT (TLS is not spoken here)")
    })?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let clean = rest
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte));
    if rest.is_empty() || !clean {
        return Err(format!("--host {host}: expected http://HOST:PORT"));
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
        format!("{authority}:80")
    };
    full.to_socket_addrs()
        .map_err(|error| format!("--host {host}: {error}"))?
        .next()
        .ok_or_else(|| format!("--host {host}: no address"))
}

fn parse_run_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() || RUN_TIME_MAX < time {
        return Err("expected more than zero and at most 24h".to_owned());
    }
    Ok(time)
}

/// Decimal text that is a valid amount and a valid JSON number.
fn parse_amount(text: &str) -> Result<String, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    let zero = text.bytes().all(|byte| byte == b'0' || byte == b'.');
    if !digits(whole) || !digits(fraction) || leading_zero || zero || text.len() > 24 {
        return Err("expected a positive decimal such as 1 or 0.05".to_owned());
    }
    Ok(text.to_owned())
}

/// `0` to `1` with up to six decimals, as parts per million.
fn parse_share_ppm(text: &str) -> Result<u32, String> {
    let problem = || "expected a share from 0 to 1 with at most six decimals".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() > 1 || fraction.len() > 6 {
        return Err(problem());
    }
    let ppm = format!("{whole}{fraction:0<6}")
        .parse::<u32>()
        .map_err(|_invalid| problem())?;
    if ppm > 1_000_000 {
        return Err(problem());
    }
    Ok(ppm)
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
        assert_eq!((config.users, config.rate), (64, None));
        assert_eq!(config.plan.task, Task::Transfer);
        assert_ne!(
            run("").unwrap().plan.seed,
            config.plan.seed,
            "each run has new keys"
        );
        assert_eq!(run("--seed 7").unwrap().plan.seed, 7);
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
            ("--host https://127.0.0.1", "TLS"),
            ("--host http://127.0.0.1:1/x", "HOST:PORT"),
        ] {
            check_refused(bad, part);
        }
    }

    #[test]
    fn a_remote_target_must_be_allowed() {
        check_refused("--host http://192.0.2.1:5000", "--allow-remote");
        assert!(run("--host http://192.0.2.1:5000 --allow-remote").is_ok());
    }
}
