//! A ledger kept twice: in memory as a model, and in the database by plain SQL.

use std::collections::BTreeMap;

use engine::domain::currency::{Currency, CurrencyCode, CurrencyId};
use engine::domain::id::TransferIds;
use engine::domain::{
    AccountId, AmountMinor, CommitId, DecimalAmount, Details, RejectReason, TransferId,
};
use engine::store::read::{Direction, RejectionRow, Side, TransferRow};
use tokio_postgres::Client;
use uuid::Uuid;

/// xorshift64*: a failure prints its seed, and the seed repeats it.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// `0..bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    pub(super) fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(u64::try_from(choices.len()).unwrap())).unwrap()].clone()
    }
}

#[derive(Clone, Copy, Default)]
struct State {
    balance: i64,
    version: i64,
    head: Option<TransferId>,
}

struct Links {
    debit_previous: Option<TransferId>,
    credit_previous: Option<TransferId>,
}

/// Everything written so far, oldest first.
pub(super) struct Ledger {
    ids: TransferIds,
    accounts: BTreeMap<i64, State>,
    pub(super) transfers: Vec<TransferRow>,
    links: Vec<Links>,
    pub(super) rejections: Vec<RejectionRow>,
    written: usize,
}

pub(super) fn usd() -> Currency {
    Currency {
        id: CurrencyId(840),
        code: CurrencyCode::parse("USD").unwrap(),
        digits: 2,
    }
}

pub(super) fn account(id: i64) -> AccountId {
    AccountId::new(id).unwrap()
}

impl Ledger {
    /// Opens the accounts in the database, without a limit.
    pub(super) async fn new(client: &Client, accounts: i64) -> Self {
        client
            .execute(
                "INSERT INTO accounts (id, currency_id) SELECT n, 840 FROM generate_series(0, $1::bigint - 1) n",
                &[&accounts],
            )
            .await
            .unwrap();
        Self {
            ids: TransferIds::new(11),
            accounts: (0..accounts).map(|id| (id, State::default())).collect(),
            transfers: Vec::new(),
            links: Vec::new(),
            rejections: Vec::new(),
            written: 0,
        }
    }

    pub(super) fn version(&self, id: i64) -> i64 {
        self.accounts[&id].version
    }

    fn touch(&mut self, id: i64, delta: i64, transfer: TransferId) -> (Side, Option<TransferId>) {
        let state = self.accounts.get_mut(&id).unwrap();
        state.balance += delta;
        state.version += 1;
        let previous = state.head.replace(transfer);
        let side = Side {
            direction: if delta < 0 {
                Direction::Debit
            } else {
                Direction::Credit
            },
            account_id: account(id),
            balance: state.balance,
            version: state.version,
        };
        (side, previous)
    }

    pub(super) fn transfer(&mut self, unix_ms: u64, debit: i64, credit: i64, details: Details) {
        let amount = i64::try_from(unix_ms % 97).unwrap() + 1;
        let id = self.ids.next(unix_ms, None);
        let (debit, debit_previous) = self.touch(debit, -amount, id);
        let (credit, credit_previous) = self.touch(credit, amount, id);
        self.links.push(Links {
            debit_previous,
            credit_previous,
        });
        let position = i32::try_from(self.transfers.len()).unwrap();
        self.transfers.push(TransferRow {
            id,
            debit,
            credit,
            amount: AmountMinor::new(amount).unwrap(),
            currency: usd(),
            commit_id: CommitId(1),
            position,
            effective_at_ms: (position % 5 == 0).then_some(1_700_000_000_123),
            group_id: (position % 7 == 0).then(|| Uuid::from_u128(7)),
            reverses: (position % 11 == 0).then_some(id),
            details,
        });
    }

    pub(super) fn reject(&mut self, unix_ms: u64, debit: i64, credit: i64, details: Details) {
        self.rejections.push(RejectionRow {
            id: self.ids.next(unix_ms, None),
            debit_account_id: account(debit),
            credit_account_id: account(credit),
            amount: DecimalAmount::parse("12.5").unwrap(),
            reason: RejectReason::ALL[self.rejections.len() % 6],
            account_id: account(debit),
            commit_id: CommitId(1),
            reverses: None,
            details,
        });
    }

    /// Writes what the database does not have yet.
    pub(super) async fn write(&mut self, client: &Client) {
        let insert = client
            .prepare(
                "INSERT INTO transfers (debit_account_id, credit_account_id, amount, debit_balance,
                     credit_balance, debit_version, credit_version, commit_id, effective_at, position,
                     currency_id, id, debit_previous_id, credit_previous_id, group_id, reverses,
                     reference, category, metadata)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8,
                     to_timestamp($9::bigint::numeric / 1000), $10, 840, $11, $12, $13, $14, $15,
                     $16, $17, $18::text::jsonb)",
            )
            .await
            .unwrap();
        client.batch_execute("BEGIN").await.unwrap();
        let rows = self.transfers.iter().zip(&self.links).skip(self.written);
        let inserts = rows.map(|(row, links)| {
            let insert = &insert;
            async move {
                let uuid = |id: Option<TransferId>| id.map(TransferId::uuid);
                client
                    .execute(
                        insert,
                        &[
                            &row.debit.account_id.get(),
                            &row.credit.account_id.get(),
                            &row.amount.get(),
                            &row.debit.balance,
                            &row.credit.balance,
                            &row.debit.version,
                            &row.credit.version,
                            &row.commit_id.0,
                            &row.effective_at_ms,
                            &row.position,
                            &row.id.uuid(),
                            &uuid(links.debit_previous),
                            &uuid(links.credit_previous),
                            &row.group_id,
                            &uuid(row.reverses),
                            &row.details.reference,
                            &row.details.category,
                            &row.details.metadata,
                        ],
                    )
                    .await
                    .unwrap();
            }
        });
        // Pipelined: polled together, answered in order.
        futures_util::future::join_all(inserts).await;
        self.written = self.transfers.len();
        for (id, state) in &self.accounts {
            let head = state.head.map(TransferId::uuid);
            client
                .execute(
                    "UPDATE accounts SET balance = $2, version = $3, head_id = $4 WHERE id = $1",
                    &[id, &state.balance, &state.version, &head],
                )
                .await
                .unwrap();
        }
        self.write_rejections(client).await;
        client.batch_execute("COMMIT").await.unwrap();
    }

    async fn write_rejections(&self, client: &Client) {
        for row in &self.rejections {
            client
                .execute(
                    "INSERT INTO rejections (debit_account_id, credit_account_id, commit_id, account_id,
                         amount, reason, id, reference, category, metadata)
                     VALUES ($1, $2, $3, $4, $5::text::numeric, $6, $7, $8, $9, $10::text::jsonb)
                     ON CONFLICT DO NOTHING",
                    &[
                        &row.debit_account_id.get(),
                        &row.credit_account_id.get(),
                        &row.commit_id.0,
                        &row.account_id.get(),
                        &row.amount.decimal().to_string(),
                        &row.reason.code(),
                        &row.id.uuid(),
                        &row.details.reference,
                        &row.details.category,
                        &row.details.metadata,
                    ],
                )
                .await
                .unwrap();
        }
    }
}

/// The database's time, where partitions exist from on.
pub(super) async fn now_ms(client: &Client) -> u64 {
    let row = client
        .query_one(
            "SELECT floor(extract(epoch FROM now()) * 1000)::bigint",
            &[],
        )
        .await
        .unwrap();
    u64::try_from(row.get::<_, i64>(0)).unwrap()
}

pub(super) fn details(reference: Option<&str>, category: Option<&str>) -> Details {
    Details {
        reference: reference.map(str::to_owned),
        category: category.map(str::to_owned),
        metadata: reference.map(|text| format!("{{\"n\": \"{text}\"}}")),
    }
}
