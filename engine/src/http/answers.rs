//! Answers that clients have not read yet.
//!
//! Owns: the count of bytes that large answers hold until they are written, over
//! all connections and of each one.
//! Never: counts small answers; a connection of HTTP/1.1 holds one of those at a
//! time, of HTTP/2 one for each of its streams.
//! Bound: `answers_bytes_max` in all and [`SHARE`] of it for one connection. It is
//! asked for *before* a request is worked on, for what has moved money must be
//! answered: past the bound goes only what is being worked on at that moment.
//! Invariant: what an answer holds is given back when its last byte was written,
//! or its connection is gone.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::activity::Activity;
use super::problem::{Fallible, Problem};
use crate::admission::Refused;

/// Of the whole for one connection: whoever opens streams by the hundred and reads
/// none of them fills its own share, not everybody's.
const SHARE: usize = 8;
/// Of a large answer over HTTP/2: a client that reads so much within the write
/// timeout is reading.
const SLICE_BYTES: usize = 4096;

/// A number of bytes held. Nothing else hangs on it, so its order alone matters.
#[derive(Debug, Default)]
pub(super) struct Held(AtomicUsize);

impl Held {
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Whether there is room for another large answer.
pub(super) fn check_room(all: &Held, own: &Held, bytes_max: usize) -> Fallible<()> {
    if bytes_max <= all.bytes() || bytes_max / SHARE <= own.bytes() {
        return Err(Problem::refused(Refused::QueueFull));
    }
    Ok(())
}

/// The body, counted until it is dropped.
pub(super) fn hold(body: Bytes, all: &Arc<Held>, own: &Arc<Activity>) -> Bytes {
    let bytes = body.len();
    all.add(bytes);
    own.unread.add(bytes);
    Bytes::from_owner(Waiting {
        body,
        bytes,
        all: Arc::clone(all),
        own: Arc::clone(own),
    })
}

/// Owned by every slice that hyper makes of it.
struct Waiting {
    body: Bytes,
    bytes: usize,
    all: Arc<Held>,
    own: Arc<Activity>,
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.remove(self.bytes);
        self.own.unread.remove(self.bytes);
    }
}

/// A body on its way to the client. A stream of HTTP/2 is handed the next slice
/// when its window is open, and lets go of one that is written: by this the
/// watcher knows a slow reader from one that does not read.
#[derive(Debug)]
pub(super) struct Outgoing {
    rest: Bytes,
    /// Who is told of each slice; without, all goes at once.
    told: Option<Arc<Activity>>,
}

impl Outgoing {
    pub(super) const fn new(rest: Bytes, told: Option<Arc<Activity>>) -> Self {
        Self { rest, told }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let next = match self.told.clone() {
            None => std::mem::take(&mut self.rest),
            Some(told) => {
                let bytes = self.rest.len().min(SLICE_BYTES);
                let body = self.rest.split_to(bytes);
                Bytes::from_owner(Slice { body, told })
            }
        };
        Poll::Ready(Some(Ok(Frame::data(next))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.rest.len()).unwrap_or(u64::MAX))
    }
}

struct Slice {
    body: Bytes,
    told: Arc<Activity>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        self.told.moved();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ErrorCode;

    const MAX: usize = 800;

    fn refused(all: &Held, own: &Activity) -> bool {
        match check_room(all, &own.unread, MAX) {
            Ok(()) => false,
            Err(problem) => {
                assert_eq!(problem.code, ErrorCode::QueueFull);
                true
            }
        }
    }

    #[test]
    fn an_answer_counts_until_its_last_slice_is_dropped() {
        let (all, own) = <(Arc<Held>, Arc<Activity>)>::default();
        let mut body = hold(Bytes::from_static(b"0123456789"), &all, &own);
        let first = body.split_to(4);
        assert_eq!((&*first, &*body), (&b"0123"[..], &b"456789"[..]));
        drop(body);
        assert_eq!((all.bytes(), own.unread.bytes()), (10, 10));
        drop(first);
        assert_eq!((all.bytes(), own.unread.bytes()), (0, 0));
    }

    #[test]
    fn a_connection_has_its_share_and_all_have_the_whole() {
        let (all, own, other) = <(Arc<Held>, Arc<Activity>, Arc<Activity>)>::default();
        let almost = hold(Bytes::from(vec![0; MAX / SHARE - 1]), &all, &own);
        assert!(!refused(&all, &own));
        let last = hold(Bytes::from_static(b"0"), &all, &own);
        assert!(refused(&all, &own) && !refused(&all, &other));
        drop(last);
        assert!(!refused(&all, &own));
        drop(almost);
        let most = hold(Bytes::from(vec![0; MAX - 1]), &all, &other);
        assert!(!refused(&all, &own));
        drop(most);
        let whole = hold(Bytes::from(vec![0; MAX]), &all, &other);
        assert!(refused(&all, &own));
        drop(whole);
        assert!(!refused(&all, &other));
    }
}
