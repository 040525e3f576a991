//! TLS to PostgreSQL, asked for in libpq's words: `sslmode`, `sslrootcert`.
//!
//! Owns: what a database URL says about TLS, whom a session trusts, the question
//! whether a server speaks TLS, the handshake, and errors in words that help.
//! Never: shows a URL (it may hold a password), or tries again but where libpq
//! does: in plaintext, with `prefer`, after a handshake that failed.
//! Bound: authority files are read once, when the URL is; nothing grows after.
//! Invariant: with `require` and above no byte of a session, not even the user's
//! name, is sent unencrypted; with `verify-full` none to another server either.
#![forbid(unsafe_code)]

mod binding;
mod connect;
mod explain;
mod hosts;
mod roots;
#[cfg(test)]
mod tests;
mod url;
mod verify;

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use binding::server_end_point;
pub use connect::{Connector, MaybeEncrypted};
pub use hosts::Named;
pub use roots::{RootsError, system_pem};
pub use url::{UrlError, with_root_file};

/// How much TLS is asked for: `sslmode`, as libpq defines it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// None.
    Disable,
    /// If the server speaks it, without checking who it is. libpq's default.
    #[default]
    Prefer,
    /// Always; who it is is checked only against a file of authorities, if given.
    Require,
    /// Always, and an authority must vouch for the server, whatever its name.
    VerifyCa,
    /// Always, and the certificate must be for the host's name.
    VerifyFull,
}

/// Who may vouch for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// Nobody was named.
    #[default]
    Unset,
    /// The authorities of this machine (`sslrootcert=system`).
    System,
    /// Those in this PEM file.
    File(PathBuf),
}

/// A database URL, read. No file has been.
#[derive(Clone)]
pub struct Address {
    /// Who signs in, and where. Of no use without [`Database::tls`].
    pub config: Config,
    /// How much TLS is asked for.
    pub mode: Mode,
    /// Who may vouch for the server.
    pub roots: Roots,
}

impl FromStr for Address {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        url::read(url)
    }
}

impl Address {
    /// With the files that it names.
    ///
    /// # Errors
    /// [`RootsError`] names the file.
    pub fn load(self) -> Result<Database, RootsError> {
        Ok(Database {
            tls: Tls::new(self.mode, self.roots)?,
            config: self.config,
        })
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration holds a password.
        formatter
            .debug_struct("Address")
            .field("mode", &self.mode)
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}

/// Where a database is, and how to get there.
#[derive(Clone)]
pub struct Database {
    /// Who signs in, and where.
    pub config: Config,
    /// How the way there is protected.
    pub tls: Tls,
}

/// A connection for statements, and what drives it.
pub type Session = (Client, Connection<Socket, MaybeEncrypted<Socket>>);

impl FromStr for Database {
    type Err = UrlError;

    /// Reads the file of authorities as well, if the URL names one.
    fn from_str(url: &str) -> Result<Self, UrlError> {
        url.parse::<Address>()?.load().map_err(UrlError::Roots)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Database")
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Makes sessions. Cheap to clone; also the connector for tokio-postgres.
#[derive(Clone)]
pub struct Tls {
    mode: Mode,
    roots: Roots,
    /// None: TLS is never wanted.
    client: Option<Arc<ClientConfig>>,
    /// Whether it was said that sessions go on without it.
    was_said: Arc<AtomicBool>,
}

impl Tls {
    fn new(mode: Mode, roots: Roots) -> Result<Self, RootsError> {
        let client = match mode {
            Mode::Disable => None,
            Mode::Prefer | Mode::Require | Mode::VerifyCa | Mode::VerifyFull => {
                Some(Arc::new(verify::client(mode, &roots)?))
            }
        };
        Ok(Self {
            mode,
            roots,
            client,
            was_said: Arc::default(),
        })
    }

    /// How much TLS is asked for.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Tells tokio-postgres to leave everything about TLS to this connector, for
    /// that host: a Unix socket never leaves the machine, so it has none.
    pub fn prepare(&self, host: &Host, config: &mut Config) {
        prepare(self.mode, matches!(host, Host::Unix(_)), config);
    }

    /// Asks the server whether it speaks TLS and goes over to it. `host` is what
    /// its certificate must be for; `None` if it does not and need not.
    ///
    /// # Errors
    /// [`TlsError`]; the stream is of no use then.
    pub async fn secure<S>(&self, mut stream: S, host: &str) -> Result<MaybeEncrypted<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(client) = &self.client else {
            return Ok(MaybeEncrypted::Plain(stream));
        };
        if is_offered(&mut stream).await? {
            let stream = self.handshake(client, stream, host).await?;
            return Ok(MaybeEncrypted::Encrypted(Box::new(stream)));
        }
        if self.mode == Mode::Prefer {
            return Ok(MaybeEncrypted::Plain(stream));
        }
        Err(TlsError::NotOffered)
    }

    /// Whether that error is no obstacle: with `prefer` who cannot agree on TLS is
    /// spoken to without, over a new socket. Said once, in the log.
    #[must_use]
    pub fn may_go_without(&self, error: &TlsError) -> bool {
        let may = self.mode == Mode::Prefer && matches!(error, TlsError::Handshake(_));
        if may && !self.was_said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                reason = %error,
                "no TLS with PostgreSQL: going on without, as sslmode=prefer (the default) has \
                 it; mend the server's certificate or TLS version, or say sslmode=disable"
            );
        }
        may
    }

    /// Connects to the one host of `config`, made by [`Self::prepare`].
    ///
    /// # Errors
    /// Those of tokio-postgres; [`TlsError`] is their source if it was TLS.
    pub async fn connect(&self, config: &Config) -> Result<Session, tokio_postgres::Error> {
        let connected = config.connect(self.clone()).await;
        let Err(error) = &connected else {
            return connected;
        };
        let failed = error.source().and_then(|source| source.downcast_ref());
        if failed.is_some_and(|error| self.may_go_without(error)) {
            return config.connect(self.without()).await;
        }
        connected
    }

    /// The same for who has decided to go on without.
    fn without(&self) -> Self {
        Self {
            client: None,
            ..self.clone()
        }
    }

    async fn handshake<S>(
        &self,
        client: &Arc<ClientConfig>,
        stream: S,
        host: &str,
    ) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host)
            .map_err(|_invalid| TlsError::Name(host.to_owned()))?
            .to_owned();
        TlsConnector::from(Arc::clone(client))
            .connect(name, stream)
            .await
            .map_err(|error| explain::handshake(error, host, &self.roots))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("mode", &self.mode)
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}

/// "Direct" makes tokio-postgres hand the socket over untouched: it would ask the
/// server itself otherwise, and tell a refusal only by its text.
fn prepare(mode: Mode, is_local: bool, config: &mut Config) {
    if is_local || mode == Mode::Disable {
        config
            .ssl_mode(SslMode::Disable)
            .ssl_negotiation(SslNegotiation::Postgres);
    } else {
        config
            .ssl_mode(SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct);
    }
}

/// PostgreSQL manual, 55.7, "SSLRequest": its length, and 1234 5679 as 16 bits each.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

/// Asks. Reads one byte and no more: what came with it unencrypted must not be
/// taken for part of the session (CVE-2021-23222).
async fn is_offered<S>(stream: &mut S) -> Result<bool, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&SSL_REQUEST).await.map_err(TlsError::Io)?;
    stream.flush().await.map_err(TlsError::Io)?;
    match stream.read_u8().await.map_err(TlsError::Io)? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // Its text is not shown: nobody knows yet who sent it (CVE-2024-10977).
        b'E' => Err(TlsError::Refused),
        _ => Err(TlsError::NoPostgres),
    }
}

/// Why there is no session. Nothing was sent that is worth protecting.
#[derive(Debug)]
pub enum TlsError {
    /// The server does not speak it.
    NotOffered,
    /// The server answered the question with an error.
    Refused,
    /// Whoever answers there is no PostgreSQL.
    NoPostgres,
    /// No certificate can be for such a name.
    Name(String),
    /// The certificate is not accepted, or nothing could be agreed on.
    Handshake(String),
    /// The connection failed.
    Io(std::io::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered => formatter.write_str(
                "server does not speak TLS; set ssl = on there, or use sslmode=prefer over a \
                 private network",
            ),
            Self::Refused => formatter.write_str(
                "the server answered the question for TLS with an error; its log may say why",
            ),
            Self::NoPostgres => formatter.write_str(
                "the answer to the question for TLS is not PostgreSQL's; check host and port",
            ),
            Self::Name(host) => write!(
                formatter,
                "no certificate can be for `{host}`: use the server's DNS name"
            ),
            Self::Handshake(why) => formatter.write_str(why),
            Self::Io(error) => write!(formatter, "connection lost while agreeing on TLS: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}
