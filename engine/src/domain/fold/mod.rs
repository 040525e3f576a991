//! The rule book: what a sequence of requests does to a set of locked accounts.
//!
//! Pure: the same input gives the same output, whatever the batch boundaries.
//! One fold serves one batch; it is made again from fresh rows on every attempt.

use hashbrown::HashMap;
use uuid::Uuid;

use super::account::{Account, AccountChange, AccountStatus};
use super::id::TransferIds;
use super::transfer::{
    IdempotencyKey, NewKey, NewRejection, NewTransfer, Outcome, Receipt, RejectReason, Rejection,
    TransferRequest,
};
use super::{AccountId, InvalidAmount, TransferId};

/// What storage already knows about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Of the request that used it.
    pub fingerprint: Uuid,
    /// Its answer, as a first answer (not marked replayed), or `KeyExpired`.
    pub outcome: Outcome,
}

/// What the database said under the locks.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The locked accounts; ids that do not exist are absent.
    pub accounts: HashMap<AccountId, Account>,
    /// Keys found, by hash.
    pub keys: HashMap<Uuid, KnownKey>,
    /// Originals that have a reversal.
    pub reversed: hashbrown::HashSet<TransferId>,
}

/// What an account change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// Written.
    Changed,
    /// No such account.
    AccountNotFound,
    /// Only an account with a balance of zero can be closed.
    AccountNotEmpty,
    /// The balance is below the limit asked for.
    BelowMinBalance,
    /// The limit does not fit the account's currency.
    InvalidAmount(InvalidAmount),
}

/// An account change to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTerms {
    /// Which account.
    pub account_id: AccountId,
    /// Status after it.
    pub status: AccountStatus,
    /// Limit after it.
    pub min_balance: Option<i64>,
    /// New name, if it changes.
    pub name: Option<Option<String>>,
}

/// Why an atomic call was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupFailure {
    /// Which transfer, from 0.
    pub index: usize,
    /// What became of it.
    pub outcome: Outcome,
}

/// Everything a batch writes, in order, with the state it leads to.
#[derive(Debug)]
pub struct Fold<'a> {
    known: Known,
    ids: &'a mut TransferIds,
    unix_ms: u64,
    keys_here: HashMap<Uuid, KnownKey>,
    reversed_here: HashMap<TransferId, ()>,
    /// Rows for `transfers`.
    pub transfers: Vec<NewTransfer>,
    /// Rows for `rejections`.
    pub rejections: Vec<NewRejection>,
    /// Rows for `idempotency_keys`.
    pub keys: Vec<NewKey>,
    /// Account changes.
    pub terms: Vec<NewTerms>,
}

/// How far a fold had come; [`Fold::roll_back`] returns to it.
#[derive(Debug)]
struct Savepoint {
    transfers: usize,
    rejections: usize,
    keys: usize,
}

impl<'a> Fold<'a> {
    /// A fold over what was read under the locks.
    pub fn new(known: Known, ids: &'a mut TransferIds, unix_ms: u64) -> Self {
        Self {
            known,
            ids,
            unix_ms,
            keys_here: HashMap::new(),
            reversed_here: HashMap::new(),
            transfers: Vec::new(),
            rejections: Vec::new(),
            keys: Vec::new(),
            terms: Vec::new(),
        }
    }

    /// Applies one transfer. `index` names the request in the rows to write.
    pub fn transfer(&mut self, request: &TransferRequest, index: usize) -> Outcome {
        self.apply(request, index, None)
    }

    /// Applies all or none; nothing of a failed group remains, no key is kept.
    ///
    /// # Errors
    /// [`GroupFailure`] names the first transfer that failed.
    pub fn group<'r>(
        &mut self,
        requests: impl ExactSizeIterator<Item = &'r TransferRequest>,
        first_index: usize,
    ) -> Result<Vec<Outcome>, GroupFailure> {
        let savepoint = Savepoint {
            transfers: self.transfers.len(),
            rejections: self.rejections.len(),
            keys: self.keys.len(),
        };
        let group_id = self.ids.next(self.unix_ms, None).uuid();
        let mut outcomes = Vec::with_capacity(requests.len());
        for (index, request) in requests.enumerate() {
            let outcome = self.apply(request, first_index.saturating_add(index), Some(group_id));
            if !outcome.is_completed() {
                self.roll_back(&savepoint);
                return Err(GroupFailure { index, outcome });
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// Applies a change of an account's terms.
    pub fn change(&mut self, change: &AccountChange) -> ChangeOutcome {
        let Some(account) = self.known.accounts.get_mut(&change.account_id) else {
            return ChangeOutcome::AccountNotFound;
        };
        let min_balance = match change.min_balance {
            None => account.min_balance,
            Some(limit) => match limit.to_minor(account.currency) {
                Ok(minor) => minor,
                Err(invalid) => return ChangeOutcome::InvalidAmount(invalid),
            },
        };
        let status = change.status.unwrap_or(account.status);
        if status == AccountStatus::Closed && account.balance != 0 {
            return ChangeOutcome::AccountNotEmpty;
        }
        let available =
            i128::from(account.balance).saturating_sub(i128::from(account.debits_pending));
        if min_balance.is_some_and(|limit| available < i128::from(limit)) {
            return ChangeOutcome::BelowMinBalance;
        }
        account.status = status;
        account.min_balance = min_balance;
        self.terms.push(NewTerms {
            account_id: change.account_id,
            status,
            min_balance,
            name: change.name.clone(),
        });
        ChangeOutcome::Changed
    }

    /// The accounts as they stand after everything applied so far.
    #[must_use]
    pub fn accounts(&self) -> &HashMap<AccountId, Account> {
        &self.known.accounts
    }

    fn apply(
        &mut self,
        request: &TransferRequest,
        index: usize,
        group_id: Option<Uuid>,
    ) -> Outcome {
        if let Some(key) = request.key
            && let Some(outcome) = self.replay(key)
        {
            return outcome;
        }
        let (debit, credit, amount_minor) = match self.decide(request) {
            Ok(decided) => decided,
            Err(Refusal::Form(outcome)) => return outcome,
            Err(Refusal::Business(reason, account_id)) => {
                return self.reject(request, index, reason, account_id);
            }
        };
        let floor = debit.head.max(credit.head);
        let id = self.ids.next(self.unix_ms, floor);
        let new = NewTransfer {
            id,
            debit_account_id: debit.id,
            credit_account_id: credit.id,
            amount_minor,
            currency: debit.currency,
            debit_balance: debit.balance,
            credit_balance: credit.balance,
            debit_version: debit.version,
            credit_version: credit.version,
            debit_previous: debit.head,
            credit_previous: credit.head,
            group_id,
            reverses: request.reverses,
            request_index: index,
        };
        self.known.accounts.insert(
            debit.id,
            Account {
                head: Some(id),
                ..debit
            },
        );
        self.known.accounts.insert(
            credit.id,
            Account {
                head: Some(id),
                ..credit
            },
        );
        if let Some(original) = request.reverses {
            self.reversed_here.insert(original, ());
        }
        let receipt = Receipt {
            id,
            debit_account_id: new.debit_account_id,
            credit_account_id: new.credit_account_id,
            amount_minor,
            digits: new.currency.digits,
        };
        self.transfers.push(new);
        let outcome = Outcome::Completed {
            receipt,
            replayed: false,
        };
        self.keep_key(request.key, id, outcome);
        outcome
    }

    /// The answer the key already has, if it has one.
    fn replay(&self, key: IdempotencyKey) -> Option<Outcome> {
        let known = self
            .keys_here
            .get(&key.hash)
            .or_else(|| self.known.keys.get(&key.hash))?;
        if known.fingerprint != key.fingerprint {
            return Some(Outcome::KeyReused);
        }
        Some(match known.outcome {
            Outcome::Completed { receipt, .. } => Outcome::Completed {
                receipt,
                replayed: true,
            },
            Outcome::Rejected { rejection, .. } => Outcome::Rejected {
                rejection,
                replayed: true,
            },
            Outcome::KeyReused
            | Outcome::AccountNotFound(_)
            | Outcome::InvalidAmount(_)
            | Outcome::KeyExpired => known.outcome,
        })
    }

    /// Both accounts as they would be after it (heads excepted), and the amount.
    fn decide(&self, request: &TransferRequest) -> Result<(Account, Account, i64), Refusal> {
        let find = |id: AccountId| {
            self.known
                .accounts
                .get(&id)
                .copied()
                .ok_or(Refusal::Form(Outcome::AccountNotFound(id)))
        };
        let mut debit = find(request.debit_account_id)?;
        let mut credit = find(request.credit_account_id)?;
        let amount_minor = match request.amount.to_minor(debit.currency) {
            Ok(amount) => amount.get(),
            Err(invalid) => return Err(Refusal::Form(Outcome::InvalidAmount(invalid))),
        };
        let refuse = |reason, account: &Account| Err(Refusal::Business(reason, account.id));
        if debit.currency.id != credit.currency.id {
            return refuse(RejectReason::CurrencyMismatch, &credit);
        }
        if request
            .currency
            .is_some_and(|code| code != debit.currency.code)
        {
            return refuse(RejectReason::CurrencyMismatch, &debit);
        }
        for (status, reason) in [
            (AccountStatus::Closed, RejectReason::AccountClosed),
            (AccountStatus::Frozen, RejectReason::AccountFrozen),
        ] {
            for account in [&debit, &credit] {
                if account.status == status {
                    return refuse(reason, account);
                }
            }
        }
        if request.reverses.is_some_and(|original| {
            self.known.reversed.contains(&original) || self.reversed_here.contains_key(&original)
        }) {
            return refuse(RejectReason::AlreadyReversed, &debit);
        }
        let Some(debit_balance) = debit.balance.checked_sub(amount_minor) else {
            return refuse(RejectReason::BalanceOverflow, &debit);
        };
        let Some(credit_balance) = credit.balance.checked_add(amount_minor) else {
            return refuse(RejectReason::BalanceOverflow, &credit);
        };
        let available = i128::from(debit_balance).saturating_sub(i128::from(debit.debits_pending));
        if debit
            .min_balance
            .is_some_and(|limit| available < i128::from(limit))
        {
            return refuse(RejectReason::InsufficientFunds, &debit);
        }
        debit.balance = debit_balance;
        credit.balance = credit_balance;
        // At a million postings a second a version lasts 292,000 years.
        debit.version = debit.version.saturating_add(1);
        credit.version = credit.version.saturating_add(1);
        Ok((debit, credit, amount_minor))
    }

    fn reject(
        &mut self,
        request: &TransferRequest,
        index: usize,
        reason: RejectReason,
        account_id: AccountId,
    ) -> Outcome {
        let id = request.key.map(|_| self.ids.next(self.unix_ms, None));
        let outcome = Outcome::Rejected {
            rejection: Rejection {
                id,
                reason,
                account_id,
            },
            replayed: false,
        };
        if let Some(id) = id {
            self.rejections.push(NewRejection {
                id,
                reason,
                account_id,
                amount: request.amount.decimal(),
                request_index: index,
            });
            self.keep_key(request.key, id, outcome);
        }
        outcome
    }

    fn keep_key(&mut self, key: Option<IdempotencyKey>, txn_id: TransferId, outcome: Outcome) {
        if let Some(key) = key {
            self.keys.push(NewKey { key, txn_id });
            let known = KnownKey {
                fingerprint: key.fingerprint,
                outcome,
            };
            self.keys_here.insert(key.hash, known);
        }
    }

    /// Takes back what a failed group did, newest first.
    fn roll_back(&mut self, savepoint: &Savepoint) {
        for undone in self.transfers.drain(savepoint.transfers..).rev() {
            // Balance + amount was a balance before, so neither side overflows.
            if let Some(debit) = self.known.accounts.get_mut(&undone.debit_account_id) {
                debit.balance = debit.balance.saturating_add(undone.amount_minor);
                debit.version = debit.version.saturating_sub(1);
                debit.head = undone.debit_previous;
            }
            if let Some(credit) = self.known.accounts.get_mut(&undone.credit_account_id) {
                credit.balance = credit.balance.saturating_sub(undone.amount_minor);
                credit.version = credit.version.saturating_sub(1);
                credit.head = undone.credit_previous;
            }
            if let Some(original) = undone.reverses {
                self.reversed_here.remove(&original);
            }
        }
        self.rejections.truncate(savepoint.rejections);
        for undone in self.keys.drain(savepoint.keys..) {
            self.keys_here.remove(&undone.key.hash);
        }
    }
}

enum Refusal {
    Form(Outcome),
    Business(RejectReason, AccountId),
}

#[cfg(test)]
mod tests;
