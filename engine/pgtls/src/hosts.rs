//! One host of a database URL at a time.
//!
//! Owns: which host, address and port belong together, and the configuration for
//! one of them.
//! Never: resolves a name.
//! Invariant: a host's name comes with it even where only an address was given:
//! tokio-postgres connects by TLS to none without.

use std::net::IpAddr;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::{Database, Session};

/// Where PostgreSQL listens if a URL names no port.
const PORT: u16 = 5432;

/// One host, as a URL names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name; its address in letters, if it was given none.
    pub host: Host,
    /// Given beside the name, so that no name service is asked.
    pub ip: Option<IpAddr>,
    /// Its port.
    pub port: u16,
}

impl Named {
    /// The hosts of a URL, in its order.
    #[must_use]
    pub fn all(config: &Config) -> Vec<Self> {
        let (hosts, ips, ports) = (
            config.get_hosts(),
            config.get_hostaddrs(),
            config.get_ports(),
        );
        (0..hosts.len().max(ips.len()))
            .filter_map(|index| {
                let ip = ips.get(index).copied();
                let named = hosts.get(index).cloned();
                let host = named.or_else(|| ip.map(|ip| Host::Tcp(ip.to_string())))?;
                let port = ports.get(index).or_else(|| ports.first()).copied();
                let port = port.unwrap_or(PORT);
                Some(Self { host, ip, port })
            })
            .collect()
    }
}

impl Database {
    /// The database at one host alone: who signs in, and how it is protected.
    #[must_use]
    pub fn at(&self, named: &Named) -> Config {
        let config = &self.config;
        let mut only = Config::new();
        if let Some(user) = config.get_user() {
            only.user(user);
        }
        if let Some(password) = config.get_password() {
            only.password(password);
        }
        if let Some(name) = config.get_dbname() {
            only.dbname(name);
        }
        if let Some(options) = config.get_options() {
            only.options(options);
        }
        if let Some(name) = config.get_application_name() {
            only.application_name(name);
        }
        self.tls.prepare(&named.host, &mut only);
        only.channel_binding(config.get_channel_binding())
            .target_session_attrs(config.get_target_session_attrs())
            .port(named.port);
        match &named.host {
            Host::Tcp(name) => only.host(name),
            Host::Unix(folder) => only.host_path(folder),
        };
        if let Some(ip) = named.ip {
            only.hostaddr(ip);
        }
        only
    }

    /// Connects to the first host that can be used.
    ///
    /// # Errors
    /// Of the last one.
    pub async fn connect(&self) -> Result<Session, tokio_postgres::Error> {
        let mut last = None;
        for named in Named::all(&self.config) {
            let mut only = self.at(&named);
            if let Some(limit) = self.config.get_connect_timeout() {
                only.connect_timeout(*limit);
            }
            match self.tls.connect(&only).await {
                Ok(session) => return Ok(session),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error),
            // It names none, and that is said there.
            None => self.tls.connect(&self.config).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::SSL_REQUEST;

    /// `AuthenticationOk` and `ReadyForQuery`.
    const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    /// "I speak TLS", and then the alert `protocol_version`.
    const TOO_OLD: &[u8] = b"S\x15\x03\x03\0\x02\x02\x46";

    /// Signs in whoever comes in plaintext, after that answer to the question for
    /// TLS; its port.
    async fn serve(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 8];
                stream.read_exact(&mut head).await.unwrap();
                if head == SSL_REQUEST {
                    stream.write_all(answer).await.unwrap();
                    if answer != b"N" {
                        open.push(stream);
                        continue;
                    }
                    stream.read_exact(&mut head).await.unwrap();
                }
                let rest = usize::from(head[3]) - head.len();
                stream.read_exact(&mut vec![0; rest]).await.unwrap();
                stream.write_all(WELCOME).await.unwrap();
                open.push(stream);
            }
        });
        port
    }

    async fn connect(url: &str, port: u16) -> Result<Session, tokio_postgres::Error> {
        let url = format!("user=u dbname=d {url} port={port}");
        url.parse::<Database>().unwrap().connect().await
    }

    #[tokio::test]
    async fn prefer_goes_on_without_tls_where_none_can_be_agreed_on() {
        let port = serve(TOO_OLD).await;
        for mode in ["", "sslmode=prefer"] {
            let met = connect(&format!("host=127.0.0.1 {mode}"), port).await;
            assert!(met.is_ok(), "{mode}: {:?}", met.err());
        }
        let met = connect("host=127.0.0.1 sslmode=require", port).await;
        let error = met.err().expect("require is no wish");
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains("TLS 1.2 or 1.3"), "{why}");
    }

    #[tokio::test]
    async fn each_host_is_prepared_for_what_it_is() {
        let port = serve(b"N").await;
        for url in [
            "hostaddr=127.0.0.1",
            "host=/nowhere,127.0.0.1",
            "host=db.example hostaddr=127.0.0.1",
        ] {
            let met = connect(url, port).await;
            assert!(met.is_ok(), "{url}: {:?}", met.err());
        }
        assert!(connect("", port).await.is_err(), "no host at all");
    }
}
