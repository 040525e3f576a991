//! A PostgreSQL that runs by the seed: protocol, transactions, logs, failures.

mod cluster;
mod session;
mod statements;
mod tables;
mod wire;

pub(super) use cluster::{Cluster, Role};
pub(super) use session::serve;
pub(super) use statements::POISON;
pub(super) use tables::AccountRow;
