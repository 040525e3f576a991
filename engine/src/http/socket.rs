//! A connection's bytes, with what hyper leaves out.
//!
//! Owns: the words for requests that hyper refuses by itself, and a close that
//! lets the client read its answer.
//! Never: looks into what our own handlers answer.
//! Bound: after the last answer, [`LINGER_BYTES_MAX`] bytes are read and thrown
//! away within the linger time, then the connection is reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::rt::ReadBufCursor;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::activity::Activity;
use super::code::ErrorCode;
use super::headers;
use super::problem::Problem;
use super::request_id::RequestIds;
use super::version::FirstBytes;

/// The size of an honest mistake, such as a file sent to the wrong address:
/// whoever sends it sees 413 rather than a reset.
const LINGER_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Longer than any head that hyper makes by itself.
const BARE_BYTES_MAX: usize = 256;

/// What the answers made here need.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    pub(super) ids: Arc<RequestIds>,
    pub(super) header_bytes_max: usize,
    pub(super) linger: Duration,
}

/// A stream that speaks for hyper.
#[derive(Debug)]
pub(super) struct Socket<S> {
    stream: TokioIo<S>,
    /// Read already, to be read again by whoever they are for.
    first: Option<FirstBytes>,
    manners: Manners,
    activity: Arc<Activity>,
    /// An answer on its way out in the place of one of hyper's.
    answer: Option<Bytes>,
    linger: Option<Linger>,
}

#[derive(Debug)]
struct Linger {
    until: Pin<Box<Sleep>>,
    left_bytes: usize,
}

/// Notes whether the client lets bytes go.
fn note(activity: &Activity, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    match &written {
        Poll::Ready(_) => activity.written(),
        Poll::Pending => activity.cannot_write(),
    }
    written
}

impl<S> Socket<S> {
    pub(super) fn new(
        stream: S,
        first: FirstBytes,
        manners: Manners,
        activity: Arc<Activity>,
    ) -> Self {
        Self {
            stream: TokioIo::new(stream),
            first: Some(first),
            manners,
            activity,
            answer: None,
            linger: None,
        }
    }

    /// Whether these bytes are a head that hyper made by itself: such a head has
    /// no body, and no answer of ours is without one.
    fn replace(&mut self, written: &[u8]) {
        if BARE_BYTES_MAX < written.len() || !written.starts_with(b"HTTP/1.") {
            return;
        }
        let Some(head) = std::str::from_utf8(written).ok() else {
            return;
        };
        let Some(status) = head
            .get(8..13)
            .filter(|_| head.contains("\r\ncontent-length: 0\r\n"))
        else {
            return;
        };
        let problem = match status {
            " 400 " => Problem::new(
                ErrorCode::InvalidParameter,
                "The request line or a header is not valid HTTP. Nothing was done. Correct it and \
                 send it on a new connection.",
            ),
            " 414 " | " 431 " => headers::too_large(self.manners.header_bytes_max),
            _ => return,
        };
        self.answer = Some(whole_answer(&problem, &self.manners.ids));
        self.activity.must_linger();
    }
}

fn whole_answer(problem: &Problem, ids: &RequestIds) -> Bytes {
    let body = problem.body();
    let mut out = BytesMut::with_capacity(256 + body.len());
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(problem.status.as_str().as_bytes());
    out.put_u8(b' ');
    let reason = problem.status.canonical_reason().unwrap_or("Error");
    out.put_slice(reason.as_bytes());
    out.put_slice(
        b"\r\ncontent-type: application/problem+json\r\nconnection: close\r\nx-request-id: ",
    );
    out.put_slice(ids.make().as_bytes());
    if problem.status.is_server_error() {
        out.put_slice(b"\r\nretry-after: 1");
    }
    out.put_slice(b"\r\ncontent-length: ");
    out.put_slice(itoa::Buffer::new().format(body.len()).as_bytes());
    out.put_slice(b"\r\n\r\n");
    out.put_slice(&body);
    out.freeze()
}

/// The answer to a connection beyond the limit, as bytes for its socket.
pub(super) fn no_room(ids: &RequestIds) -> Bytes {
    whole_answer(&Problem::refused(crate::admission::Refused::QueueFull), ids)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = &mut self.answer {
            let stream = Pin::new(self.stream.inner_mut());
            let written = ready!(note(&self.activity, stream.poll_write(context, rest)))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            // `written` is at most the length: the writer's own contract.
            drop(rest.split_to(written.min(rest.len())));
            if rest.is_empty() {
                self.answer = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads until the client closes, so that the kernel has nothing unread to
    /// answer with a reset, which would take our last answer from the client.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Linger {
            until: Box::pin(tokio::time::sleep(self.manners.linger)),
            left_bytes: LINGER_BYTES_MAX,
        });
        let mut space = [0; 16 * 1024];
        loop {
            if linger.until.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut space);
            let stream = Pin::new(self.stream.inner_mut());
            if ready!(stream.poll_read(context, &mut buffer)).is_err() {
                return Poll::Ready(());
            }
            let read = buffer.filled().len();
            if read == 0 || linger.left_bytes < read {
                return Poll::Ready(());
            }
            linger.left_bytes -= read;
        }
    }
}

impl<S: AsyncRead + Unpin> hyper::rt::Read for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let left = buffer.remaining();
        if let Some(first) = &mut self.first {
            let given = first.take(left);
            buffer.put_slice(given);
            let (given, done) = (given.len(), first.is_empty());
            if done {
                self.first = None;
            }
            if 0 < given {
                self.activity.heard();
                // Together with what follows: one read for hyper. Whatever is wrong
                // with the stream comes up at the next.
                if done && given < left {
                    drop(Pin::new(&mut self.stream).poll_read(context, buffer));
                }
                return Poll::Ready(Ok(()));
            }
        }
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if 0 < left {
            self.activity.heard();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Write for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.answer.is_none() {
            self.replace(bytes);
        }
        if self.answer.is_some() {
            ready!(self.poll_answer(context))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        note(&self.activity, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // hyper's own heads come alone.
        if let [alone] = slices {
            return self.poll_write(context, alone);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        note(&self.activity, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        }
        if self.activity.lingers() {
            ready!(self.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }
}
