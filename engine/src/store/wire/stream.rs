//! A TCP or Unix socket.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::Host;

use super::super::route::Target;

/// Either kind of socket.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(feature = "simulation")]
    Simulated(crate::simulation::ClientEnd),
}

impl Stream {
    /// Opens a socket to one address. A peer that acknowledges nothing for
    /// `silence_max` is gone, not slow.
    pub(super) async fn open(target: &Target, silence_max: Duration) -> io::Result<Self> {
        #[cfg(feature = "simulation")]
        if let Some(dialed) = crate::simulation::dial(&target.host, target.port).await {
            return dialed.map(Self::Simulated);
        }
        match (&target.host, target.ip) {
            (Host::Unix(folder), _) => {
                let path = folder.join(format!(".s.PGSQL.{}", target.port));
                Ok(Self::Unix(UnixStream::connect(path).await?))
            }
            (Host::Tcp(_), Some(ip)) => {
                Self::tcp(TcpStream::connect((ip, target.port)).await?, silence_max)
            }
            (Host::Tcp(name), None) => {
                let stream = TcpStream::connect((name.as_str(), target.port)).await?;
                Self::tcp(stream, silence_max)
            }
        }
    }

    fn tcp(stream: TcpStream, silence_max: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let limit = u32::try_from(silence_max.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(&stream, limit)?;
        // Three probes within the limit, in the whole seconds that TCP counts.
        let part = Duration::from_secs((silence_max.as_secs() / 4).max(1));
        rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
        rustix::net::sockopt::set_tcp_keepidle(&stream, part)?;
        rustix::net::sockopt::set_tcp_keepintvl(&stream, part)?;
        rustix::net::sockopt::set_tcp_keepcnt(&stream, 3)?;
        Ok(Self::Tcp(stream))
    }

    /// Waits until bytes can be read or written.
    pub(super) async fn ready(&self) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => stream.ready(interest).await.map(drop),
            Self::Unix(stream) => stream.ready(interest).await.map(drop),
            // It takes whatever is written.
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => Ok(()),
        }
    }

    /// Writes what the socket takes at once.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => stream.try_write(bytes),
        }
    }

    /// Reads what the socket has; 0 at its end.
    pub(super) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read_buf(buffer),
            Self::Unix(stream) => stream.try_read_buf(buffer),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => stream.try_read_buf(buffer),
        }
    }

    /// Waits for bytes and reads them; 0 at the socket's end.
    pub(super) async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_buf(buffer).await,
            Self::Unix(stream) => stream.read_buf(buffer).await,
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => stream.read_buf(buffer).await,
        }
    }
}
