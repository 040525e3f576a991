//! Connections between the engines and the simulated database.
//!
//! Owns: the bytes on their way, and how a connection breaks: it is cut, reset,
//! or swallows everything (a black hole).
//! Never: delays; the server's side takes its time instead.
//! Invariant: bytes arrive in their order or not at all, as with TCP.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

/// How the client learns that the connection is over, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// The end of the stream.
    End,
    /// A reset.
    Reset,
    /// Nothing comes and nothing goes any more.
    BlackHole,
}

/// After so long of silence the engine's TCP keepalive finds a peer gone: probes
/// begin after 5 s and three go unanswered, 2 s apart.
const KEEPALIVE: Duration = Duration::from_secs(11);

#[derive(Debug, Default)]
struct Pipe {
    to_server: BytesMut,
    to_client: BytesMut,
    broken: Option<Break>,
    broken_at: Option<Instant>,
    client_gone: bool,
    server_gone: bool,
    client_waker: Option<Waker>,
    server_waker: Option<Waker>,
}

impl Pipe {
    fn cut(&mut self, how: Break) {
        if self.broken.is_none() {
            self.broken = Some(how);
            self.broken_at = Some(Instant::now());
            self.wake();
        }
    }

    fn is_found_dead(&self) -> bool {
        self.broken_at.is_some_and(|at| KEEPALIVE < at.elapsed())
    }

    fn wake(&mut self) {
        let wakers = [self.client_waker.take(), self.server_waker.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The engine's end: what `store::wire` sees as its socket.
pub(crate) struct ClientEnd(Arc<Mutex<Pipe>>);

impl fmt::Debug for ClientEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientEnd")
    }
}

impl ClientEnd {
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = lock(&self.0);
        match pipe.broken {
            Some(Break::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Break::End) => return Err(io::ErrorKind::BrokenPipe.into()),
            Some(Break::BlackHole) if pipe.is_found_dead() => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Some(Break::BlackHole) => return Ok(bytes.len()),
            None => {}
        }
        if pipe.server_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        super::executor::trace_bytes(bytes);
        pipe.to_server.extend_from_slice(bytes);
        pipe.wake();
        Ok(bytes.len())
    }

    pub(crate) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match read(&mut lock(&self.0), buffer) {
            Some(read) => read,
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    pub(crate) async fn read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        std::future::poll_fn(|context| {
            let mut pipe = lock(&self.0);
            match read(&mut pipe, buffer) {
                Some(read) => Poll::Ready(read),
                None => {
                    pipe.client_waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

fn read(pipe: &mut Pipe, buffer: &mut BytesMut) -> Option<io::Result<usize>> {
    if pipe.broken == Some(Break::Reset) {
        return Some(Err(io::ErrorKind::ConnectionReset.into()));
    }
    if !pipe.to_client.is_empty() {
        let count = pipe.to_client.len();
        buffer.extend_from_slice(&pipe.to_client);
        pipe.to_client.clear();
        return Some(Ok(count));
    }
    match pipe.broken {
        Some(Break::BlackHole) => None,
        Some(Break::End | Break::Reset) => Some(Ok(0)),
        None if pipe.server_gone => Some(Ok(0)),
        None => None,
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        let mut pipe = lock(&self.0);
        pipe.client_gone = true;
        pipe.wake();
    }
}

/// The database's end.
pub(super) struct ServerEnd {
    pipe: Arc<Mutex<Pipe>>,
    unread: BytesMut,
}

impl ServerEnd {
    /// One message of the client, its type and body; `None` at the end of the
    /// stream. A start-up message has the type 0.
    pub(super) async fn message(&mut self, started: bool) -> Option<(u8, BytesMut)> {
        let header = if started { 5 } else { 4 };
        loop {
            if self.unread.len() >= header {
                let length = &self.unread[header - 4..header];
                let length = length.try_into().map_or(0, i32::from_be_bytes);
                let whole = usize::try_from(length).unwrap_or(4) + header - 4;
                if self.unread.len() >= whole {
                    let mut message = self.unread.split_to(whole);
                    let kind = if started { message[0] } else { 0 };
                    message.advance(header);
                    return Some((kind, message));
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn more(&mut self) -> bool {
        std::future::poll_fn(|context| {
            let mut pipe = lock(&self.pipe);
            if !pipe.to_server.is_empty() {
                self.unread.extend_from_slice(&pipe.to_server);
                pipe.to_server.clear();
                return Poll::Ready(true);
            }
            let over = pipe.client_gone && pipe.broken != Some(Break::BlackHole)
                || matches!(pipe.broken, Some(Break::End | Break::Reset));
            if over {
                return Poll::Ready(false);
            }
            pipe.server_waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Whether another message has arrived already.
    pub(super) fn has_more(&self) -> bool {
        !self.unread.is_empty() || !lock(&self.pipe).to_server.is_empty()
    }

    pub(super) fn write(&self, bytes: &[u8]) {
        let mut pipe = lock(&self.pipe);
        if pipe.broken.is_none() && !pipe.client_gone {
            super::executor::trace_bytes(bytes);
            pipe.to_client.extend_from_slice(bytes);
            pipe.wake();
        }
    }

    /// Breaks the connection; what the server wrote before still arrives, except
    /// after a reset. What it already received it goes on with.
    pub(super) fn cut(&self, how: Break) {
        lock(&self.pipe).cut(how);
    }

    /// Forgets what was received and not looked at: it never arrived.
    pub(super) fn lose_unread(&mut self) {
        self.unread.clear();
        lock(&self.pipe).to_server.clear();
    }

    /// Whether the client has closed its end, or cannot hear.
    pub(super) fn client_gone(&self) -> bool {
        let pipe = lock(&self.pipe);
        pipe.client_gone || pipe.broken.is_some()
    }

    /// For whoever breaks connections from outside.
    pub(super) fn cutter(&self) -> Cutter {
        Cutter(Arc::clone(&self.pipe))
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        let mut pipe = lock(&self.pipe);
        pipe.server_gone = true;
        pipe.wake();
    }
}

/// Breaks a connection from outside.
#[derive(Clone)]
pub(super) struct Cutter(Arc<Mutex<Pipe>>);

impl Cutter {
    pub(super) fn cut(&self, how: Break) {
        lock(&self.0).cut(how);
    }

    pub(super) fn is_over(&self) -> bool {
        let pipe = lock(&self.0);
        pipe.broken.is_some() || pipe.client_gone || pipe.server_gone
    }
}

/// A new connection.
pub(super) fn pair() -> (ClientEnd, ServerEnd) {
    let pipe = Arc::new(Mutex::new(Pipe::default()));
    let server = ServerEnd {
        pipe: Arc::clone(&pipe),
        unread: BytesMut::new(),
    };
    (ClientEnd(pipe), server)
}
