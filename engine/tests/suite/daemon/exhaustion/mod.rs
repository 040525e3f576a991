//! Whatever there is only so much of is used up, and comes back.
//!
//! Each test exhausts one thing, and shows what its clients are told, that everybody
//! else is served, that nothing is lost, and that it passes by itself. A full disk is
//! in [`super::disk`], silent connections are in [`super::connections`].

mod files;
mod pool;
mod queue;
mod slow;
mod unread;

use crate::support::daemon::Reply;

/// Refused at once and for now: the client is told when to come back.
#[track_caller]
fn full(reply: &Reply) {
    reply.expect_problem(503, "queue_full", &[]);
    let after = reply.header("retry-after").map(str::parse::<u32>);
    assert!(matches!(after, Some(Ok(1..))), "{reply:?}");
}
