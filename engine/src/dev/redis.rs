//! A private Redis: a bounded, unsaved cache with a password.
//!
//! Owns: its configuration file, its password, its address.
//! Bound: 256 MiB, oldest out; nothing is saved, because losing it costs only
//! latency and a test must not find the balances of another run.

use std::net::Ipv4Addr;
use std::path::Path;
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

/// A running Redis.
#[derive(Debug)]
pub(super) struct Redis {
    pub(super) server: Server,
    port: u16,
    /// `None`: it asks for none.
    password: Option<String>,
}

impl Redis {
    pub(super) fn url(&self) -> String {
        match &self.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{}/0", self.port),
            None => format!("redis://127.0.0.1:{}/0", self.port),
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
    let home = directory.server_dir("redis")?;
    let password = match settings.login {
        Login::Password => Some(random_hex()?),
        Login::Anyone => None,
    };
    let mut attempt = 1;
    loop {
        let port = free_port()?;
        // A file, not arguments: other users can read command lines.
        let file = home.join("redis.conf");
        directory.write_secret(
            &file,
            &configuration(port, password.as_deref(), &settings.redis_settings),
        )?;
        let mut command = directory
            .user
            .command(program, &home, &settings.search_path);
        command.arg("redis.conf");
        let server = Server::spawn(command, identity(directory), directory, "redis.log")?;
        let mut redis = Redis {
            server,
            port,
            password: password.clone(),
        };
        match ready(&mut redis).await {
            Ok(()) => return Ok(redis),
            Err(DevError::EndedEarly { .. }) if attempt < START_ATTEMPTS && is_taken(port) => {
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn configuration(port: u16, password: Option<&str>, extra: &[(String, String)]) -> String {
    let password = password.map_or(String::new(), |text| format!("requirepass {text}\n"));
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
        let asked = answers(redis.port, redis.password.as_deref());
        if let Ok(Ok(true)) = timeout(Duration::from_secs(1), asked).await {
            return Ok(());
        }
        sleep(POLL).await;
    }
    Err(redis.server.not_ready(READY_WAIT))
}

/// Asks in Redis's inline form; a whole client for two words is not worth it.
async fn answers(port: u16, password: Option<&str>) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let login = password.map_or(String::new(), |text| format!("AUTH {text}\r\n"));
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
        let extra = [("maxmemory".to_owned(), "1mb".to_owned())];
        let text = configuration(1, Some("secret"), &extra);
        assert!(text.contains("requirepass secret\n"), "{text}");
        assert!(text.ends_with("maxmemory 1mb\n"), "{text}");
        assert!(!configuration(1, None, &[]).contains("requirepass"));
    }
}
