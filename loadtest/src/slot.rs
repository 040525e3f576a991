//! One connection and the request in flight on it.
//!
//! Owns: the socket, the request bytes not yet written, the response parser.
//! Never: blocks, decides when to send, or counts.
//! Bound: one request in flight.
//! Invariant: `state` is `Busy` exactly while an answer is owed.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::request::Requests;
use crate::response::{KeepBody, Parser};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No connection; may be opened again at `retry_at`.
    Down {
        retry_at: Duration,
    },
    /// Connecting since then.
    Connecting {
        since: Duration,
    },
    Idle,
    /// Waiting for an answer to a request meant for `intended`, sent at `sent`.
    Busy {
        intended: Duration,
        sent: Duration,
    },
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
    out: Vec<u8>,
    /// Its task's index.
    pub(crate) task: usize,
    /// New transfers in it.
    pub(crate) transfers: usize,
    written: usize,
    stream: Option<TcpStream>,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Down {
                retry_at: Duration::ZERO,
            },
            parser: Parser::new(KeepBody::Problems),
            out: Vec::new(),
            task: 0,
            transfers: 0,
            written: 0,
            stream: None,
        }
    }

    /// Starts to connect; writability tells when that has ended.
    pub(crate) fn connect(&mut self, to: SocketAddr, now: Duration) -> std::io::Result<()> {
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
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        self.stream = Some(stream);
        self.parser.reset();
        self.state = State::Connecting { since: now };
        Ok(())
    }

    /// How connecting ended.
    pub(crate) fn connected(&mut self) -> std::io::Result<()> {
        let stream = self.stream()?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        stream.peer_addr()?;
        self.state = State::Idle;
        Ok(())
    }

    /// Drops the connection; closing it also takes it out of the epoll set.
    pub(crate) fn disconnect(&mut self, retry_at: Duration) {
        self.stream = None;
        self.state = State::Down { retry_at };
    }

    /// Makes the next request of this slot's user, to be sent.
    pub(crate) fn next(&mut self, requests: &mut Requests, user: usize) {
        let next = requests.next(user, &mut self.out);
        self.task = next.task;
        self.transfers = next.transfers;
        self.parser.keep = next.keep;
    }

    /// Starts to send the request that was made.
    pub(crate) fn send(&mut self, intended: Duration, now: Duration) -> std::io::Result<Written> {
        self.written = 0;
        self.state = State::Busy {
            intended,
            sent: now,
        };
        self.write_rest()
    }

    pub(crate) fn write_rest(&mut self) -> std::io::Result<Written> {
        while self.written < self.out.len() {
            let mut stream = self.stream()?;
            match stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Written::Part),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Written::All)
    }

    /// Bytes read, 0 at the end; `None` if there is nothing to read.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
        let mut stream = self.stream()?;
        match stream.read(buffer) {
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
        Ok(self.stream()?.as_fd())
    }

    fn stream(&self) -> std::io::Result<&TcpStream> {
        self.stream
            .as_ref()
            .ok_or_else(|| ErrorKind::NotConnected.into())
    }
}
