//! Request bodies: read whole, within limits, without copying the usual one.
//!
//! Bound: the route's own limit, one budget in bytes for all bodies in flight,
//! and the request's deadline. A body past its limit is not read on.
//! Bytes count as they arrive: one that announces much and sends nothing keeps
//! nobody out.
//! Invariant: what a body holds of the budget is given back when it is dropped,
//! however its request ends.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use super::code::ErrorCode;
use super::problem::{Fallible, Problem};
use crate::admission::Refused;

/// For one transfer and every other single thing.
pub(super) const SINGLE_BYTES_MAX: usize = 16 * 1024;
/// For a list of transfers or accounts.
pub(super) const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The bytes that all bodies in flight may hold together.
#[derive(Debug)]
pub(super) struct Budget {
    /// Taken by [`Room::take`], given back by its drop.
    free_bytes: AtomicUsize,
}

impl Budget {
    pub(super) const fn new(bytes: usize) -> Self {
        Self {
            free_bytes: AtomicUsize::new(bytes),
        }
    }

    pub(super) fn free_bytes(&self) -> usize {
        self.free_bytes.load(Ordering::Relaxed)
    }
}

/// A part of the budget.
#[derive(Debug)]
struct Room {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Room {
    /// Whether so much is free at this moment.
    fn check(&self, bytes: usize) -> Fallible<()> {
        if self.budget.free_bytes() < bytes {
            return Err(no_room());
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Fallible<()> {
        // No other memory hangs on this number, so its order alone matters.
        self.budget
            .free_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
                free.checked_sub(bytes)
            })
            .map_err(|_free_bytes| no_room())?;
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget
            .free_bytes
            .fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// A body, read whole; valid UTF-8.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Bytes,
    _room: Room,
}

impl Body {
    /// Its text. [`read`] has checked that it is UTF-8.
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Whether the body announces more than `bytes_max`: it need not be read then.
pub(super) fn check_announced(incoming: &Incoming, bytes_max: usize) -> Fallible<()> {
    let announced = usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX);
    if bytes_max < announced {
        return Err(too_large(bytes_max));
    }
    Ok(())
}

/// Reads a body to its end.
pub(super) async fn read(
    incoming: Incoming,
    bytes_max: usize,
    budget: &Arc<Budget>,
    deadline: Instant,
) -> Fallible<Body> {
    check_announced(&incoming, bytes_max)?;
    let mut room = Room {
        budget: Arc::clone(budget),
        bytes: 0,
    };
    let bytes = {
        let mut reading = pin!(read_all(incoming, bytes_max, &mut room));
        // A small body arrives with its header: no timer is set up for it.
        match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
            Poll::Ready(read) => read?,
            Poll::Pending => tokio::time::timeout_at(deadline.into(), reading)
                .await
                .map_err(|_elapsed| too_slow())??,
        }
    };
    if std::str::from_utf8(&bytes).is_err() {
        return Err(Problem::new(
            ErrorCode::InvalidJson,
            "The body is not UTF-8. Nothing was done. Encode it as UTF-8 and send it again.",
        ));
    }
    Ok(Body { bytes, _room: room })
}

async fn read_all(mut incoming: Incoming, bytes_max: usize, room: &mut Room) -> Fallible<Bytes> {
    let announced = incoming.size_hint().exact();
    let announced = announced.and_then(|bytes| usize::try_from(bytes).ok());
    // Only looked at: what has no room now need not be sent. Nothing ever waits
    // for room, so that two half-read bodies cannot wait for each other.
    room.check(announced.unwrap_or(0))?;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|_source| broken_off())?;
        // Trailers say nothing that is asked for here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let so_far = first.len().saturating_add(rest.len());
        let length = so_far.saturating_add(data.len());
        if bytes_max < length {
            return Err(too_large(bytes_max));
        }
        room.take(data.len())?;
        if so_far == 0 {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        if Some(length) == announced {
            break;
        }
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

fn no_room() -> Box<Problem> {
    Problem::refused(Refused::QueueFull).closing()
}

fn too_large(bytes_max: usize) -> Box<Problem> {
    Problem::new(
        ErrorCode::BodyTooLarge,
        format!(
            "The body is larger than the {bytes_max} bytes that this route takes; the rest was \
             not read. Nothing was done. Send less, or several calls."
        ),
    )
    .closing()
}

fn too_slow() -> Box<Problem> {
    Problem::new(
        ErrorCode::DeadlineExceeded,
        "The body did not arrive before the deadline. Nothing was done. Send it again.",
    )
    .closing()
}

fn broken_off() -> Box<Problem> {
    Problem::new(
        ErrorCode::InvalidJson,
        "The body broke off or its framing is wrong. Nothing was done. Send it again.",
    )
    .closing()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_to_the_last_byte_and_given_back() {
        let budget = Arc::new(Budget::new(10));
        let room = || Room {
            budget: Arc::clone(&budget),
            bytes: 0,
        };
        let (mut one, mut other) = (room(), room());
        one.check(10).unwrap();
        assert_eq!(one.check(11).unwrap_err().code, ErrorCode::QueueFull);
        one.take(4).unwrap();
        one.take(6).unwrap();
        assert_eq!(other.take(1).unwrap_err().code, ErrorCode::QueueFull);
        drop(one);
        other.take(10).unwrap();
        drop(other);
        assert_eq!(budget.free_bytes.load(Ordering::Relaxed), 10);
    }
}
