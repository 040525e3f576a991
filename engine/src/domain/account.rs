//! Accounts as the fold sees them.

use super::{AccountId, Currency, TransferId};

/// Whether an account takes part in transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountStatus {
    /// Moves money.
    Open,
    /// Keeps its balance; neither pays nor receives.
    Frozen,
    /// As frozen, and empty.
    Closed,
}

impl AccountStatus {
    /// The stored code.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::Open => 0,
            Self::Frozen => 1,
            Self::Closed => 2,
        }
    }

    /// From the stored code.
    #[must_use]
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            0 => Some(Self::Open),
            1 => Some(Self::Frozen),
            2 => Some(Self::Closed),
            _ => None,
        }
    }

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Frozen => "frozen",
            Self::Closed => "closed",
        }
    }

    /// From the word on the wire.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "open" => Some(Self::Open),
            "frozen" => Some(Self::Frozen),
            "closed" => Some(Self::Closed),
            _ => None,
        }
    }
}

/// What a transfer decision needs of an account, read under its row lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Which one.
    pub id: AccountId,
    /// Fixed when the account is opened.
    pub currency: Currency,
    /// Minor units; negative only as far as `min_balance` allows.
    pub balance: i64,
    /// Minor units; `None` is no limit (a funding account).
    pub min_balance: Option<i64>,
    /// Minor units reserved by pending transfers.
    pub debits_pending: i64,
    /// Postings so far.
    pub version: i64,
    /// Its newest transfer.
    pub head: Option<TransferId>,
    /// Whether it takes part.
    pub status: AccountStatus,
}

/// A change to an account's terms; `None` leaves a field as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountChange {
    /// Which account.
    pub account_id: AccountId,
    /// New status.
    pub status: Option<AccountStatus>,
    /// New limit: decimal text's exact value, or no limit at all.
    pub min_balance: Option<MinBalance>,
    /// New name; `Some(None)` clears it.
    pub name: Option<Option<String>>,
}

/// A limit as sent: its minor units depend on the account's currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinBalance {
    /// No limit (JSON null).
    Unlimited,
    /// The least balance, in decimals, of either sign.
    AtLeast(rust_decimal::Decimal),
}

impl MinBalance {
    /// Exact minor units in that currency; `None` inside is no limit.
    ///
    /// # Errors
    /// [`super::InvalidAmount`] when it is too precise or too large.
    pub fn to_minor(self, currency: Currency) -> Result<Option<i64>, super::InvalidAmount> {
        let Self::AtLeast(decimal) = self else {
            return Ok(None);
        };
        let decimal = decimal.normalize();
        let Some(missing) = u32::from(currency.digits).checked_sub(decimal.scale()) else {
            return Err(super::InvalidAmount::TooPrecise);
        };
        10_i128
            .checked_pow(missing)
            .and_then(|factor| decimal.mantissa().checked_mul(factor))
            .and_then(|minor| i64::try_from(minor).ok())
            .map(Some)
            .ok_or(super::InvalidAmount::TooLarge)
    }
}
