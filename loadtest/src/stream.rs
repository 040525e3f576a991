//! The bytes to and from the target, encrypted or not.
//!
//! Owns: the socket and, for https, the TLS session on it.
//! Never: decides when to read or write, or waits if the socket does not.
//! Bound: what rustls buffers: one record to read, 64 KiB to write.
//! Invariant: a read that fills less than its buffer leaves nothing behind that
//! no event of the socket would tell of.

use std::fmt;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;

use rustls::ClientConnection;

use crate::tls::TlsClient;

/// What a connection waits for until it can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    Done,
    ToRead,
    ToWrite,
}

#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

impl Stream {
    pub(crate) fn new(socket: TcpStream, tls: Option<&TlsClient>) -> Result<Self> {
        let Some(client) = tls else {
            return Ok(Self::Plain(socket));
        };
        Ok(Self::Tls(Box::new(Tls {
            socket,
            session: client.session()?,
            client: client.clone(),
            peer: Peer::Open,
        })))
    }

    pub(crate) const fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }

    /// Goes on with the handshake of a connected socket.
    pub(crate) fn handshake(&mut self) -> Result<Handshake> {
        match self {
            Self::Plain(_) => Ok(Handshake::Done),
            Self::Tls(tls) => tls.handshake(),
        }
    }

    /// Whether the peer said that nothing more will come; the socket may stay silent.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.peer == Peer::Closed,
        }
    }

    /// Nothing came in time, before the connection could be used.
    pub(crate) fn overdue(&self) -> Error {
        match self {
            Self::Tls(tls) if tls.socket.peer_addr().is_ok() => Error::new(
                ErrorKind::TimedOut,
                "connected, but the TLS handshake took too long: does the target speak https?",
            ),
            Self::Plain(_) | Self::Tls(_) => ErrorKind::TimedOut.into(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

/// What was written to a TLS stream leaves with the next flush.
impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => {
                tls.send()?;
                tls.session.writer().write(bytes)
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.send(),
        }
    }
}

/// Whether the peer's close_notify came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Open,
    Closed,
}

pub(crate) struct Tls {
    socket: TcpStream,
    session: ClientConnection,
    client: TlsClient,
    peer: Peer,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("socket", &self.socket)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Tls {
    fn handshake(&mut self) -> Result<Handshake> {
        loop {
            match self.send() {
                Ok(()) if !self.session.is_handshaking() => break,
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Handshake::ToWrite);
                }
                Err(error) => return Err(cut_short(error)),
            }
            match self.receive() {
                Ok(0) => return Err(cut_short(ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Handshake::ToRead);
                }
                Err(error) => return Err(cut_short(error)),
            }
        }
        match self.peer {
            Peer::Open => Ok(Handshake::Done),
            Peer::Closed => Err(cut_short(ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Goes on until there is something to return: tickets and the like are not.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            // At its end the next round says which end it was.
            self.receive()?;
        }
    }

    /// Takes what is there; 0 at the end.
    fn receive(&mut self) -> Result<usize> {
        let count = loop {
            match self.session.read_tls(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        match self.session.process_new_packets() {
            Ok(state) if state.peer_has_closed() => self.peer = Peer::Closed,
            Ok(_) => {}
            Err(error) => {
                // The alert that tells the peer why; it does not matter if it is lost.
                drop(self.send());
                return Err(self.client.error(&error));
            }
        }
        // An answer to what came (a new key, say): if it does not fit now, it leaves
        // before the next request.
        match self.send() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            Ok(()) | Err(_) => Ok(count),
        }
    }

    /// Sends what is encrypted; fails with `WouldBlock` if the socket is full.
    fn send(&mut self) -> Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Says goodbye, or the server would log every user as cut off.
impl Drop for Tls {
    fn drop(&mut self) {
        self.session.send_close_notify();
        drop(self.send());
    }
}

/// A handshake that ended without a TLS error of its own.
fn cut_short(error: Error) -> Error {
    let kind = error.kind();
    let closed = matches!(
        kind,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    );
    if closed {
        let text = "the target closed the connection during the TLS handshake: \
                    does it speak https?";
        return Error::new(kind, text);
    }
    error
}
