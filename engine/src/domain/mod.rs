//! What money is here, and the pure fold of transfers over balances.
//!
//! Owns: ids, amounts, currencies, accounts, transfers, refusals, and the one
//! rule book ([`fold`]) that decides what a transfer does.
//! Never: awaits, does I/O, reads a clock, or imports another room.
//! Invariant: every accepted transfer moves one amount from one account to
//! another, so the sum of all balances of a currency never changes.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::float_arithmetic)
)]

pub mod account;
pub mod amount;
pub mod balance;
pub mod currency;
pub mod fingerprint;
pub mod fold;
pub mod id;
pub mod transfer;

pub use account::{Account, AccountChange, AccountStatus};
pub use amount::{AmountMinor, DecimalAmount, InvalidAmount};
pub use balance::{Balance, DatabaseIdentity};
pub use currency::{Currency, CurrencyCode, CurrencyId};
pub use id::{AccountId, CommitId, TransferId};
pub use transfer::{
    Details, IdempotencyKey, Outcome, Receipt, RejectReason, Rejection, TransferRequest,
};
