//! The flags of a run over several machines.
//!
//! Owns: `serve-worker`, `--workers` and what goes with it.
//! Never: lets strangers use this machine to send load.
//! Bound: `WORKERS_MAX` workers.
//! Invariant: a worker that others can reach has a token.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::token::Token;

pub(super) const WORKERS_MAX: usize = 100;

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Several machines")]
pub(crate) struct FleetArgs {
    /// Share the run over these machines, on each of which `loadtest serve-worker`
    /// waits: HOST:PORT, several separated by commas. They start together and are
    /// shown and reported as one run. The target's headers, secrets included, are
    /// sent to them unencrypted: use a private network. With --threads each worker
    /// has that many; without, half of its cores.
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', value_parser = parse_worker)]
    pub(crate) workers: Vec<String>,
    /// File with the token of the workers' own --token-file.
    #[arg(long, value_name = "FILE", requires = "workers")]
    pub(crate) workers_token_file: Option<PathBuf>,
    /// How long to wait for workers that cannot be reached yet, for example while
    /// their containers start.
    #[arg(long, value_name = "DURATION", default_value = "0s", requires = "workers",
        value_parser = humantime::parse_duration)]
    pub(crate) workers_wait: Duration,
    #[arg(skip)]
    token: Option<Token>,
    /// What `--threads` says, of each worker.
    #[arg(skip)]
    pub(crate) threads: Option<u32>,
}

impl FleetArgs {
    pub(super) fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// # Errors
    /// What is wrong with the list or the token.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        if WORKERS_MAX < self.workers.len() {
            return Err(format!("--workers: expected at most {WORKERS_MAX}"));
        }
        for (index, name) in self.workers.iter().enumerate() {
            if self.workers[..index].contains(name) {
                return Err(format!("--workers: {name} is in it twice"));
            }
        }
        let file = self.workers_token_file.as_deref();
        self.token = file
            .map(|path| Token::read("--workers-token-file", path))
            .transpose()?;
        Ok(())
    }
}

fn parse_worker(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let clean = host
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte));
    if host.is_empty() || !clean || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err("expected HOST:PORT, for example 10.0.0.7:7070".to_owned());
    }
    Ok(text.to_owned())
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServeWorkerArgs {
    /// Where `loadtest run --workers` reaches this machine; port 0 takes any free
    /// one. The address is printed. Other than on loopback a token is needed.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070", value_parser = parse_address)]
    listen: SocketAddr,
    /// File with a token of at least 16 characters that whoever conducts a run has
    /// to know: without it an open worker would be a weapon.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Allow targets that are not this machine: whoever conducts a run chooses them.
    #[arg(long)]
    allow_remote: bool,
    /// Where journals go: `loadtest run --workers ... --journal NAME` writes NAME.1
    /// here on the first worker, NAME.2 on the second. Without it such runs are
    /// refused.
    #[arg(long, value_name = "DIRECTORY")]
    journal_dir: Option<PathBuf>,
    /// End after one run.
    #[arg(long)]
    once: bool,
}

/// Which targets a worker sends load to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    Loopback,
    Any,
}

/// How long a worker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serves {
    OneRun,
    UntilStopped,
}

/// A checked worker.
#[derive(Clone, Debug)]
pub(crate) struct ServePlan {
    pub(super) listen: SocketAddr,
    pub(super) token: Option<Token>,
    pub(super) targets: Targets,
    pub(super) journal_dir: Option<PathBuf>,
    pub(super) serves: Serves,
}

impl ServeWorkerArgs {
    /// # Errors
    /// What is missing.
    pub(crate) fn check(self) -> Result<ServePlan, String> {
        let file = self.token_file.as_deref();
        let token = file
            .map(|path| Token::read("--token-file", path))
            .transpose()?;
        if token.is_none() && !self.listen.ip().is_loopback() {
            return Err(format!(
                "--listen {} can be reached from other machines, and whoever reaches it can \
                 make this one send load: add --token-file with a secret (for example from: \
                 openssl rand -hex 32), or listen on 127.0.0.1",
                self.listen
            ));
        }
        if let Some(directory) = &self.journal_dir
            && !directory.is_dir()
        {
            let name = directory.display();
            return Err(format!("--journal-dir {name}: not a directory; create it"));
        }
        Ok(ServePlan {
            listen: self.listen,
            token,
            targets: if self.allow_remote {
                Targets::Any
            } else {
                Targets::Loopback
            },
            journal_dir: self.journal_dir,
            serves: if self.once {
                Serves::OneRun
            } else {
                Serves::UntilStopped
            },
        })
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text
        .to_socket_addrs()
        .map_err(|error| format!("{error}; expected an address such as 127.0.0.1:7070"))?;
    addresses.next().ok_or_else(|| "no address".to_owned())
}
