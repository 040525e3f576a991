//! One user: its connection and the request it is at.
//!
//! Owns: the socket, the request bytes, the response parser, when the user wants
//! to send next.
//! Never: blocks, decides when to send, or counts.
//! Bound: one request in flight; see the test for the bytes of an idle user.
//! Invariant: `state` is `Busy` exactly while an answer is owed.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::journal::Earlier;
use crate::request::{Next, Requests};
use crate::response::{KeepBody, Parser};
use crate::stats::{Class, Times};
use crate::stream::{Handshake, Stream};
use crate::tls::TlsClient;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No connection; may be opened again at `retry_at`.
    Down { retry_at: Duration },
    /// Connecting since then, the TLS handshake included.
    Connecting { since: Duration },
    /// Nothing in flight since then.
    Idle { since: Duration },
    /// Waiting for an answer to what was sent then.
    Busy { sent: Duration },
}

/// The request that `out` holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    /// When it should have been sent for the first time.
    pub(crate) intended: Duration,
    /// How often it was sent before.
    pub(crate) attempt: u32,
    /// Whose request it is, which in the open model need not be the slot's.
    pub(crate) user: usize,
    pub(crate) next: Next,
}

impl Flight {
    pub(crate) const fn times(&self, sent: Duration, answered: Duration) -> Times {
        Times {
            intended: self.intended,
            sent,
            answered,
        }
    }

    /// What is known of the attempts before this one: only those in doubt are
    /// tried again.
    pub(crate) const fn earlier(&self) -> Earlier {
        match self.attempt {
            0 => Earlier::None,
            _ => Earlier::InDoubt,
        }
    }
}

/// How an attempt ended that did not succeed; if it stays the last one, this is
/// how the request ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Setback {
    NoAnswer,
    Answer {
        status: u16,
        class: Class,
        times: Times,
    },
}

impl Setback {
    /// Whether the request may still be executed, or may have been.
    pub(crate) const fn is_in_doubt(&self) -> bool {
        match self {
            Self::NoAnswer => true,
            Self::Answer { status, .. } => matches!(status, 503 | 504),
        }
    }
}

/// What is left to do after writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    All,
    /// The socket is full: wait until it can be written again.
    Part,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) state: State,
    pub(crate) parser: Parser,
    /// The request in flight, or the last one.
    pub(crate) out: Vec<u8>,
    pub(crate) flight: Option<Flight>,
    /// Why `out` is to be sent again, while it is.
    pub(crate) setback: Option<Setback>,
    /// When the user wants to send (closed model).
    pub(crate) due: Duration,
    /// The `due` that the agenda will wake it for.
    pub(crate) asleep_until: Option<Duration>,
    pub(crate) used: Used,
    written: usize,
    stream: Option<Stream>,
}

/// Whether there was a connection before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Used {
    Never,
    Before,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Down {
                retry_at: Duration::ZERO,
            },
            parser: Parser::new(KeepBody::Problems),
            out: Vec::new(),
            flight: None,
            setback: None,
            due: Duration::ZERO,
            asleep_until: None,
            used: Used::Never,
            written: 0,
            stream: None,
        }
    }

    /// Starts to connect; writability tells when that has ended.
    pub(crate) fn connect(
        &mut self,
        to: SocketAddr,
        tls: Option<&TlsClient>,
        now: Duration,
    ) -> std::io::Result<()> {
        let family = match to {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        self.stream = Some(Stream::new(socket, tls)?);
        self.parser.reset();
        self.used = Used::Before;
        self.state = State::Connecting { since: now };
        Ok(())
    }

    /// How connecting ended, or what the TLS handshake waits for.
    pub(crate) fn connected(&mut self, now: Duration) -> std::io::Result<Handshake> {
        let stream = self.stream()?;
        if let Some(error) = stream.socket().take_error()? {
            return Err(error);
        }
        stream.socket().peer_addr()?;
        let handshake = stream.handshake()?;
        if handshake == Handshake::Done {
            self.state = State::Idle { since: now };
        }
        Ok(handshake)
    }

    /// Connecting takes too long: what was waited for.
    pub(crate) fn overdue(&self) -> std::io::Error {
        let timed_out = || ErrorKind::TimedOut.into();
        self.stream.as_ref().map_or_else(timed_out, Stream::overdue)
    }

    /// Whether the server said that it will close.
    pub(crate) fn has_ended(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::has_ended)
    }

    /// Drops the connection; closing it also takes it out of the epoll set.
    pub(crate) fn disconnect(&mut self, retry_at: Duration) {
        self.stream = None;
        self.state = State::Down { retry_at };
    }

    /// Takes the next request of a user, intended for that moment.
    pub(crate) fn load(&mut self, requests: &mut Requests, user: usize, intended: Duration) {
        let next = requests.next(user, &mut self.out);
        self.parser.keep = next.keep;
        self.flight = Some(Flight {
            intended,
            attempt: 0,
            user,
            next,
        });
    }

    /// Starts to send `out`.
    pub(crate) fn send(&mut self, now: Duration) -> std::io::Result<Written> {
        self.written = 0;
        self.state = State::Busy { sent: now };
        self.write_rest()
    }

    pub(crate) fn write_rest(&mut self) -> std::io::Result<Written> {
        let Some(stream) = &mut self.stream else {
            return Err(ErrorKind::NotConnected.into());
        };
        loop {
            let rest = &self.out[self.written..];
            let result = match rest {
                [] => stream.flush().map(|()| 0),
                rest => stream.write(rest),
            };
            match result {
                Ok(0) if rest.is_empty() => return Ok(Written::All),
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Written::Part),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes read, `UnexpectedEof` at the end; `None` if there is nothing to read.
    /// If it is less than the buffer holds, an event tells of more.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
        match self.stream()?.read(buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(Some(count)),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn fd(&self) -> std::io::Result<BorrowedFd<'_>> {
        let stream = self.stream.as_ref().ok_or(ErrorKind::NotConnected)?;
        Ok(stream.socket().as_fd())
    }

    fn stream(&mut self) -> std::io::Result<&mut Stream> {
        self.stream
            .as_mut()
            .ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_users_take_a_few_megabytes() {
        // The request, the partial head and the body have buffers of their own:
        // a transfer is 250 bytes, the other two stay empty for whole 2xx answers.
        let user = size_of::<Slot>() + 512;
        assert!(
            10_000 * user < 16 * 1024 * 1024,
            "{} bytes",
            size_of::<Slot>()
        );
    }
}
