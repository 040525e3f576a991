//! From a closed batch to answers: claim, fold, commit, resolve, reply.
//!
//! Owns: the committers, the policy of how many commits are worth having in
//! flight, and the one table that says what to do after a failure ([`retry`]).
//! Never: speaks SQL (`store`) or HTTP, or decides about money (`domain::fold`).
//! Bound: `committers` batches in flight; attempts per batch are limited.
//! Invariant: an answer is given only after COMMIT returned, or after it is
//! certain that nothing was written.

mod attempt;
mod committer;
mod policy;
pub mod retry;
pub mod ticket;

pub use committer::{BatchObserver, BatchSettings, Committers};
pub use policy::Policy;
pub use ticket::{Answer, Failure, Submission, Ticket, Work};
