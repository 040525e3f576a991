//! The command line.
//!
//! Owns: every flag, its default and its limits.
//! Never: starts anything, or lets a run leave this machine by accident.
//! Invariant: a `Config` can be run as it is.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compare::CompareArgs;
use crate::merge::MergeArgs;
use crate::report::Output;
use crate::request::Plan;
use crate::stages::{Kind, Stage, Stages, parse_stage};
use crate::think::Think;
use crate::threshold;

/// One address pair has about 28,000 client ports on a default Linux.
const USERS_MAX: u32 = 20_000;
const USERS_DEFAULT: u32 = 64;
const RUN_TIME_DEFAULT: Duration = Duration::from_secs(10);
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
    Run(Box<RunArgs>),
    /// Join the JSON reports of several generators into one, exactly.
    Merge(MergeArgs),
    /// Compare the JSON reports of two runs: better, worse, or only noise.
    Compare(CompareArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The engine: http://HOST:PORT.
    #[arg(long, default_value = "http://127.0.0.1:5000")]
    host: String,
    /// Keep-alive connections, each with at most one request in flight [default: 64,
    /// or what the stages need].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(USERS_MAX)))]
    users: Option<u32>,
    /// Users (connections) started per second, evenly; without it all start at once.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    spawn_rate: Option<u64>,
    /// How long a user pauses after an answer: 100ms, or 100ms..300ms for a new
    /// pause each time. Closed model only.
    #[arg(long, default_value = "0s")]
    think: Think,
    /// How long requests are sent, for example 10s or 2m [default: 10s, or as long
    /// as the stages].
    #[arg(long, value_parser = parse_run_time)]
    run_time: Option<Duration>,
    /// A part of the run, one after another: duration=30s,rate=5000 holds a rate,
    /// duration=10s,rate=0..5000 is a ramp; users= instead of rate= changes the users
    /// of the closed model. Repeat it for steps, spikes and soaks.
    #[arg(long = "stage", value_name = "STAGE", value_parser = parse_stage)]
    stages: Vec<(Kind, Stage)>,
    /// How often a transfer with a key is sent again, with the same key and bytes,
    /// after a broken connection, a timeout, 503 or 504. Waits 50 ms, then twice as
    /// long each time (up to 5 s, half of it random), or what Retry-After asks for;
    /// never beyond the end of the run. With 0, one request is one answer.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    retries: u32,
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
    #[command(flatten)]
    output: Output,
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
    /// The most users or connections at a time.
    pub(crate) users: u32,
    /// How many there are over time.
    pub(crate) staff: Stages,
    pub(crate) threads: u32,
    pub(crate) run_time: Duration,
    pub(crate) timeout: Duration,
    /// The highest rate in requests per second; none is the closed model.
    pub(crate) rate: Option<NonZeroU64>,
    /// The rate over time.
    pub(crate) arrivals: Option<Stages>,
    pub(crate) retries: u32,
    pub(crate) output: Output,
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
    Merge(MergeArgs),
    Compare(CompareArgs),
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
    match cli.command {
        Command::Run(args) => match check(*args) {
            Ok(config) => Parsed::Run(Box::new(config)),
            Err(message) => Parsed::Usage(format!("loadtest: {message}")),
        },
        Command::Merge(args) => Parsed::Merge(args),
        Command::Compare(args) => Parsed::Compare(args),
    }
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
    threshold::check_tasks(&args.output.require, &[&args.task.to_string()])?;
    let load = load(&args)?;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
    let threads = args
        .threads
        .unwrap_or_else(|| u32::try_from(cores.max(1)).unwrap_or(1))
        .min(load.users)
        .min(THREADS_MAX);
    let progress = if args.quiet {
        Progress::Hidden
    } else {
        Progress::Shown
    };
    Ok(Config {
        address,
        plan: Plan {
            task: args.task,
            keys: args.keys,
            authority: authority(&args.host)?.to_owned(),
            accounts: args.accounts,
            amount: args.amount,
            hot_ppm: args.hot,
            seed: args.seed.unwrap_or_else(fresh_seed),
            think: args.think,
        },
        host: args.host,
        users: load.users,
        staff: load.staff,
        threads,
        run_time: load.run_time,
        timeout: args.timeout,
        rate: load
            .arrivals
            .as_ref()
            .and_then(|arrivals| NonZeroU64::new(arrivals.peak())),
        arrivals: load.arrivals,
        retries: args.retries,
        output: args.output,
        progress,
    })
}

/// How much load when.
#[derive(Debug)]
struct Load {
    users: u32,
    staff: Stages,
    arrivals: Option<Stages>,
    run_time: Duration,
}

fn load(args: &RunArgs) -> Result<Load, String> {
    let users_or_default = args.users.unwrap_or(USERS_DEFAULT);
    let kind = args.stages.first().map(|(kind, _)| *kind);
    if args.stages.iter().any(|(other, _)| Some(*other) != kind) {
        return Err("--stage: give rate= in all of them, or users= in all of them".to_owned());
    }
    if kind.is_some() && (args.run_time.is_some() || args.rate.is_some()) {
        return Err(
            "--stage: the stages are the run time and the rate; drop --run-time and --rate"
                .to_owned(),
        );
    }
    let stages = |level_max| {
        let stages = args.stages.iter().map(|(_, stage)| *stage).collect();
        Stages::new(stages, level_max).map_err(|error| format!("--stage: {error}"))
    };
    let load = match kind {
        Some(Kind::Users) => {
            if args.users.is_some() || args.spawn_rate.is_some() {
                return Err("--stage users=: drop --users and --spawn-rate".to_owned());
            }
            let staff = stages(u64::from(USERS_MAX))?;
            return Ok(Load {
                users: u32::try_from(staff.peak()).unwrap_or(USERS_MAX),
                run_time: staff.total(),
                staff,
                arrivals: None,
            });
        }
        Some(Kind::Rate) => Some(stages(RATE_MAX)?),
        None => None,
    };
    let run_time = args.run_time.unwrap_or(RUN_TIME_DEFAULT);
    let arrivals = load.or_else(|| Some(Stages::constant(args.rate?, run_time)));
    if arrivals.is_some() && !args.think.is_zero() {
        return Err("--think: with a rate nobody thinks; the rate says when to send".to_owned());
    }
    let run_time = arrivals.as_ref().map_or(run_time, Stages::total);
    let users = u64::from(users_or_default);
    let staff = match args.spawn_rate {
        Some(per_second) => Stages::grow(users, per_second),
        None => Stages::constant(users, run_time),
    };
    Ok(Load {
        users: users_or_default,
        staff,
        arrivals,
        run_time,
    })
}

/// A seed nobody used: the standard library keys its hash maps from the system.
fn fresh_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// `host:port` of `http://host:port`.
fn authority(host: &str) -> Result<&str, String> {
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

fn resolve(host: &str) -> Result<SocketAddr, String> {
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
            Parsed::Help(text) | Parsed::Usage(text) => Err(text),
            Parsed::Merge(_) | Parsed::Compare(_) => Err("not a run".to_owned()),
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
            "--stage duration=1s,rate=0..10000000",
            "--stage duration=1s,users=20000 --stage duration=1s,users=0",
            "--think 1s..2s --spawn-rate 1 --retries 1000",
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
            ("--think 2s..1s", "100ms..300ms"),
            ("--spawn-rate 0", "--spawn-rate"),
            ("--retries 1001", "--retries"),
            ("--host https://127.0.0.1", "TLS"),
            ("--host http://127.0.0.1:1/x", "HOST:PORT"),
        ] {
            check_refused(bad, part);
        }
    }

    #[test]
    fn stages_are_the_run_time_and_the_most_users() {
        let closed = run("--stage duration=2s,users=0..90 --stage duration=1s,users=5").unwrap();
        assert_eq!((closed.users, closed.rate), (90, None));
        assert_eq!(closed.run_time, Duration::from_secs(3));
        let open = run("--users 7 --stage duration=2s,rate=100..900").unwrap();
        assert_eq!((open.users, open.rate.unwrap().get()), (7, 900));
        assert_eq!(open.run_time, Duration::from_secs(2));
        let spawned = run("--users 10 --spawn-rate 5").unwrap();
        assert_eq!(spawned.staff.level_at(Duration::from_secs(1)), 5);
        assert_eq!(spawned.staff.level_at(Duration::from_secs(9)), 10);
    }

    #[test]
    fn a_remote_target_must_be_allowed() {
        check_refused("--host http://192.0.2.1:5000", "--allow-remote");
        assert!(run("--host http://192.0.2.1:5000 --allow-remote").is_ok());
    }
}
