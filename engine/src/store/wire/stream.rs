//! A TCP or Unix socket, with or without TLS.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::Host;

use pgtls::{MaybeEncrypted, Tls};
use rustls::ClientConnection;

use super::super::route::Target;
use super::WireError;
use super::tls::TlsSocket;

/// Any kind of socket. Which one is known from the start, so that a plain socket
/// pays one comparison for the others.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsSocket>),
    #[cfg(feature = "simulation")]
    Simulated(crate::simulation::ClientEnd),
}

impl Stream {
    /// Opens a socket to one address, and TLS on it as asked for. A peer that
    /// acknowledges nothing for `silence_max` is gone, not slow.
    pub(super) async fn open(
        target: &Target,
        tls: &Tls,
        silence_max: Duration,
    ) -> Result<Self, WireError> {
        #[cfg(feature = "simulation")]
        if let Some(dialed) = crate::simulation::dial(&target.host, target.port).await {
            return Ok(dialed.map(Self::Simulated)?);
        }
        let name = match &target.host {
            // It never leaves the machine: no TLS.
            Host::Unix(folder) => {
                let path = folder.join(format!(".s.PGSQL.{}", target.port));
                return Ok(Self::Unix(UnixStream::connect(path).await?));
            }
            Host::Tcp(name) => name,
        };
        let dial = async || {
            let socket = match target.ip {
                Some(ip) => TcpStream::connect((ip, target.port)).await?,
                None => TcpStream::connect((name.as_str(), target.port)).await?,
            };
            // Before the handshake: a server may fall silent in it as well.
            set_options(&socket, silence_max)?;
            Ok::<_, WireError>(socket)
        };
        Ok(match tls.secure(dial().await?, name).await {
            Ok(MaybeEncrypted::Plain(socket)) => Self::Tcp(socket),
            Ok(MaybeEncrypted::Encrypted(stream)) => Self::Tls(Box::new(TlsSocket::new(*stream))),
            Err(error) if tls.may_go_without(&error) => Self::Tcp(dial().await?),
            Err(error) => return Err(error.into()),
        })
    }

    /// The TLS session, if there is one.
    pub(super) const fn session(&self) -> Option<&ClientConnection> {
        match self {
            Self::Tls(stream) => Some(stream.session()),
            Self::Tcp(_) | Self::Unix(_) => None,
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => None,
        }
    }

    /// Whether bytes were taken that are not sent yet.
    pub(super) fn is_behind(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.is_behind(),
            Self::Tcp(_) | Self::Unix(_) => false,
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => false,
        }
    }

    /// Waits until bytes can be read or written.
    pub(super) async fn ready(&self) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => stream.ready(interest).await.map(drop),
            Self::Unix(stream) => stream.ready(interest).await.map(drop),
            Self::Tls(stream) => stream.socket().ready(interest).await.map(drop),
            // It takes whatever is written.
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => Ok(()),
        }
    }

    /// Writes what the socket takes at once.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tls(stream) => stream.try_write(bytes),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => stream.try_write(bytes),
        }
    }

    /// Reads what the socket has; 0 at its end.
    pub(super) fn try_read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read_buf(buffer),
            Self::Unix(stream) => stream.try_read_buf(buffer),
            Self::Tls(stream) => stream.try_read_buf(buffer),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => stream.try_read_buf(buffer),
        }
    }

    /// Waits for bytes and reads them; 0 at the socket's end.
    pub(super) async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_buf(buffer).await,
            Self::Unix(stream) => stream.read_buf(buffer).await,
            Self::Tls(stream) => stream.read_buf(buffer).await,
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => stream.read_buf(buffer).await,
        }
    }
}

fn set_options(socket: &TcpStream, silence_max: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let limit = u32::try_from(silence_max.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(socket, limit)?;
    // Three probes within the limit, in the whole seconds that TCP counts.
    let part = Duration::from_secs((silence_max.as_secs() / 4).max(1));
    rustix::net::sockopt::set_socket_keepalive(socket, true)?;
    rustix::net::sockopt::set_tcp_keepidle(socket, part)?;
    rustix::net::sockopt::set_tcp_keepintvl(socket, part)?;
    rustix::net::sockopt::set_tcp_keepcnt(socket, 3)?;
    Ok(())
}
