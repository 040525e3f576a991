//! Answers that clients have not read yet.
//!
//! Owns: the count of bytes that large answers hold until they are written, over
//! all connections and of each one.
//! Never: counts small answers; a connection of HTTP/1.1 holds one of those at a
//! time, of HTTP/2 one for each of its streams.
//! Bound: `answers_bytes_max` in all and [`SHARE`] of it for one connection, each
//! exceeded by the last answer that found room at most. What has moved money must
//! be answered, so it takes its room *before* it is worked on, by an estimate; a
//! list takes it once its length is known, and is refused then.
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

    fn take(&self, bytes: usize, below: usize) -> bool {
        let room = |held: usize| (held < below).then(|| held.saturating_add(bytes));
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_ok()
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Whether there is room for another large answer: asked before a request is read,
/// and told for certain by [`Room::take`].
pub(super) fn check_room(all: &Held, own: &Held, bytes_max: usize) -> Fallible<()> {
    if bytes_max <= all.bytes() || bytes_max / SHARE <= own.bytes() {
        return Err(Problem::refused(Refused::QueueFull));
    }
    Ok(())
}

/// Room for a large answer, until it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    all: Arc<Held>,
    own: Arc<Activity>,
}

impl Room {
    pub(super) fn take(
        bytes: usize,
        all: &Arc<Held>,
        own: &Arc<Activity>,
        bytes_max: usize,
    ) -> Fallible<Self> {
        let refused = || Problem::refused(Refused::QueueFull);
        if !all.take(bytes, bytes_max) {
            return Err(refused());
        }
        if !own.unread.take(bytes, bytes_max / SHARE) {
            all.remove(bytes);
            return Err(refused());
        }
        Ok(Self {
            bytes,
            all: Arc::clone(all),
            own: Arc::clone(own),
        })
    }

    /// The body that it was taken for, counted by its true length until its last
    /// slice is dropped.
    pub(super) fn hold(mut self, body: Bytes) -> Bytes {
        let more = body.len().saturating_sub(self.bytes);
        let less = self.bytes.saturating_sub(body.len());
        for held in [&*self.all, &self.own.unread] {
            held.add(more);
            held.remove(less);
        }
        self.bytes = body.len();
        self.own.answer_waits();
        Bytes::from_owner(Waiting { body, room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.all.remove(self.bytes);
        self.own.unread.remove(self.bytes);
    }
}

/// Owned by every slice that hyper makes of it.
struct Waiting {
    body: Bytes,
    room: Room,
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.room.own.answer_is_gone();
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

    fn refused(all: &Arc<Held>, own: &Arc<Activity>) -> bool {
        let before = (all.bytes(), own.unread.bytes());
        let taken = Room::take(1, all, own, MAX).map(drop);
        assert_eq!((all.bytes(), own.unread.bytes()), before);
        let codes = [taken, check_room(all, &own.unread, MAX)]
            .map(|result| result.err().map(|problem| problem.code));
        assert_eq!(codes[0], codes[1]);
        codes[0].is_some_and(|code| code == ErrorCode::QueueFull)
    }

    fn hold(body: Bytes, all: &Arc<Held>, own: &Arc<Activity>) -> Bytes {
        let room = Room::take(0, all, own, usize::MAX).unwrap();
        room.hold(body)
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

    #[test]
    fn an_estimate_counts_until_the_true_length_is_known() {
        let (all, own) = <(Arc<Held>, Arc<Activity>)>::default();
        for (estimate, length) in [(50, 30), (30, 50), (40, 40)] {
            let room = Room::take(estimate, &all, &own, MAX).unwrap();
            assert_eq!((all.bytes(), own.unread.bytes()), (estimate, estimate));
            let body = room.hold(Bytes::from(vec![0; length]));
            assert_eq!((all.bytes(), own.unread.bytes()), (length, length));
            drop(body);
            assert_eq!((all.bytes(), own.unread.bytes()), (0, 0));
        }
    }
}
