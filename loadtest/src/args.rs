//! The command line.
//!
//! Owns: every flag, its default and its limits.
//! Never: starts anything, or lets a run leave this machine by accident.
//! Invariant: a `Config` can be run as it is.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::headers::{HeaderArgs, Headers};
use crate::request::Target;
use crate::scenario::{
    InitArgs, LoadFlags, RATE_MAX, Scenario, ScenarioArgs, USERS_MAX, parse_run_time,
};

const THREADS_MAX: u32 = 256;

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
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The engine: http://HOST:PORT.
    #[arg(long, default_value = "http://127.0.0.1:5000")]
    host: String,
    /// Keep-alive connections, each with at most one request in flight
    /// [default: 64].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(USERS_MAX)))]
    users: Option<u32>,
    /// How long requests are sent, for example 10s or 2m [default: 10s].
    #[arg(long, value_parser = parse_run_time)]
    run_time: Option<Duration>,
    /// Requests per second, sent at constant intervals whatever the answers take
    /// (open model). Without it each user sends as soon as it was answered.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: Option<u64>,
    /// Client threads. Default: half of the cores, at least 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(THREADS_MAX)))]
    threads: Option<u32>,
    /// How long an answer may take before it counts as a timeout.
    #[arg(long, default_value = "30s", value_parser = parse_run_time)]
    timeout: Duration,
    /// Also write the report to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Do not print progress.
    #[arg(long)]
    quiet: bool,
    /// Allow a target that is not this machine.
    #[arg(long)]
    allow_remote: bool,
    // Last: their help headings hold for every flag after them.
    #[command(flatten)]
    scenario: ScenarioArgs,
    #[command(flatten)]
    headers: HeaderArgs,
}

/// A checked run.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) host: String,
    pub(crate) address: SocketAddr,
    pub(crate) target: Target,
    pub(crate) scenario: Scenario,
    pub(crate) users: u32,
    pub(crate) threads: u32,
    pub(crate) run_time: Duration,
    pub(crate) timeout: Duration,
    /// Requests per second; none is the closed model.
    pub(crate) rate: Option<NonZeroU64>,
    pub(crate) json: Option<PathBuf>,
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
    Init(InitArgs),
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
    let args = match cli.command {
        Command::Run(args) => args,
        Command::Init(init) => return Parsed::Init(init),
    };
    match check(*args) {
        Ok(config) => Parsed::Run(Box::new(config)),
        Err(message) => Parsed::Usage(format!("loadtest: {message}")),
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
    let flags = LoadFlags {
        users: args.users,
        rate: args.rate,
        run_time: args.run_time,
    };
    let scenario = Scenario::new(&args.scenario, flags)?;
    scenario.check_runs()?;
    let users = scenario.load.users;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
    let threads = args
        .threads
        .unwrap_or_else(|| u32::try_from(cores.max(1)).unwrap_or(1))
        .min(users)
        .min(THREADS_MAX);
    let progress = if args.quiet {
        Progress::Hidden
    } else {
        Progress::Shown
    };
    Ok(Config {
        address,
        target: Target {
            authority: authority(&args.host)?.to_owned(),
            headers: Headers::new(&args.headers)?,
        },
        host: args.host,
        users,
        threads,
        run_time: scenario.load.run_time,
        timeout: args.timeout,
        rate: scenario.load.rate,
        scenario,
        json: args.json,
        progress,
    })
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
            Parsed::Init(init) => Err(format!("{init:?}")),
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
