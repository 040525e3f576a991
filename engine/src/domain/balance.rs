//! Balances as read and answered.

use super::{AccountId, Currency};

/// What an account held after its posting number `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Whose.
    pub account_id: AccountId,
    /// Minor units, of either sign.
    pub balance: i64,
    /// Postings so far: of two balances of one account, the newer has more.
    pub version: i64,
    /// Of the account; never changes.
    pub currency: Currency,
}

/// Which history of which database a row was read from.
///
/// A restore makes a new system identifier or a new timeline, a promotion makes
/// a new timeline. Versions compare only within one history: the shorter history
/// of a promoted standby counts again what the lost one had counted already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatabaseIdentity {
    /// Made by `initdb`; copied by every backup and standby.
    pub system_identifier: u64,
    /// Grows by at least one at every promotion and point-in-time recovery.
    pub timeline: u32,
}
