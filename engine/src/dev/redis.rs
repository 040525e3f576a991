//! A private Redis: a bounded, unsaved cache with a password.
//!
//! Owns: its configuration file, its password, its address.
//! Bound: 256 MiB, oldest out; nothing is saved, because losing it costs only
//! latency and a test must not find the balances of another run.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::directory::Directory;
use super::postgres::{free_port, is_taken};
use super::process::{Identity, Server, StopPlan, stop_orphans};
use super::{DevError, DevSettings, Login, random_hex};

const READY_WAIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const START_ATTEMPTS: u32 = 5;
const STOP: StopPlan = StopPlan {
    nice: Signal::TERM,
    nice_wait: Duration::from_secs(5),
    firm: Signal::TERM,
    firm_wait: Duration::from_secs(1),
};

/// Where a Redis is to be found.
#[derive(Clone, Debug)]
pub(super) struct Place {
    program: PathBuf,
    port: u16,
    /// `None`: it asks for none.
    password: Option<String>,
}

/// A running Redis.
#[derive(Debug)]
pub(super) struct Redis {
    pub(super) server: Server,
    pub(super) place: Place,
}

impl Redis {
    pub(super) fn url(&self) -> String {
        match &self.place.password {
            // The user named: redis-cli takes an empty name for one.
            Some(password) => format!("redis://default:{password}@127.0.0.1:{}/0", self.place.port),
            None => format!("redis://127.0.0.1:{}/0", self.place.port),
        }
    }
}

fn identity(directory: &Directory) -> Identity {
    Identity {
        server: "Redis",
        programs: &["redis-server", "valkey-server"],
        home: directory.runtime.join("redis"),
        stop: STOP,
    }
}

/// Ends a server that a killed run left behind.
pub(super) async fn stop_leftover(directory: &Directory) -> Result<bool, DevError> {
    stop_orphans(&identity(directory)).await
}

/// Starts it; nothing of an earlier run may be left.
pub(super) async fn start(
    directory: &Directory,
    program: &Path,
    settings: &DevSettings,
) -> Result<Redis, DevError> {
    let password = match settings.login {
        Login::Password => Some(random_hex()?),
        Login::Anyone => None,
    };
    let mut attempt = 1;
    loop {
        let place = Place {
            program: program.to_owned(),
            port: free_port()?,
            password: password.clone(),
        };
        let port = place.port;
        match launch(directory, place, settings).await {
            Err(DevError::EndedEarly { .. }) if attempt < START_ATTEMPTS && is_taken(port) => {
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

/// Starts it at a place and waits until it answers.
pub(super) async fn launch(
    directory: &Directory,
    place: Place,
    settings: &DevSettings,
) -> Result<Redis, DevError> {
    let home = directory.server_dir("redis")?;
    // A file, not arguments: other users can read command lines.
    let text = configuration(&place, &settings.redis_settings);
    directory.write_secret(&home.join("redis.conf"), &text)?;
    let mut command = directory
        .user
        .command(&place.program, &home, &settings.search_path);
    command.arg("redis.conf");
    let server = Server::spawn(command, identity(directory), directory, "redis.log")?;
    let mut redis = Redis { server, place };
    ready(&mut redis).await?;
    Ok(redis)
}

fn configuration(place: &Place, extra: &[(String, String)]) -> String {
    let port = place.port;
    let password = match &place.password {
        Some(password) => format!("requirepass {password}\n"),
        None => String::new(),
    };
    let mut text = format!(
        "bind 127.0.0.1\nport {port}\n{password}daemonize no\nsave \"\"\n\
         appendonly no\nmaxmemory 256mb\nmaxmemory-policy allkeys-lru\nmaxclients 1000\n"
    );
    for (name, value) in extra {
        text.push_str(&format!("{name} {value}\n"));
    }
    text
}

async fn ready(redis: &mut Redis) -> Result<(), DevError> {
    let begun = Instant::now();
    while begun.elapsed() < READY_WAIT {
        redis.server.check_running()?;
        let asked = answers(&redis.place);
        if let Ok(Ok(true)) = timeout(Duration::from_secs(1), asked).await {
            return Ok(());
        }
        sleep(POLL).await;
    }
    Err(redis.server.not_ready(READY_WAIT))
}

/// Asks in Redis's inline form; a whole client for two words is not worth it.
async fn answers(place: &Place) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, place.port)).await?;
    let login = match &place.password {
        Some(password) => format!("AUTH {password}\r\n"),
        None => String::new(),
    };
    stream
        .write_all(format!("{login}PING\r\nQUIT\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.take(1024).read_to_end(&mut answer).await?;
    Ok(answer
        .split(|byte| *byte == b'\n')
        .any(|line| line == b"+PONG\r"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_setting_comes_after_our_own() {
        let mut place = Place {
            program: PathBuf::new(),
            port: 1,
            password: Some("secret".to_owned()),
        };
        let extra = [("maxmemory".to_owned(), "1mb".to_owned())];
        let text = configuration(&place, &extra);
        assert!(text.contains("requirepass secret\n"), "{text}");
        assert!(text.ends_with("maxmemory 1mb\n"), "{text}");
        place.password = None;
        assert!(!configuration(&place, &[]).contains("requirepass"));
    }
}
