//! One batch, one PostgreSQL transaction, two round trips.
//!
//! Owns: the statements of the commit path and what their answers mean.
//! Never: decides about money (that is `domain::fold`) or retries (`batch`).
//! Bound: the number of statements does not depend on the batch's size.
//! Invariant: `write` says `Ok` only after the command tag COMMIT without a warning.
//!
//! First round trip ([`CommitSession::lock`]), each a statement of its own because
//! READ COMMITTED gives each a new snapshot:
//! 1. BEGIN
//! 2. `commit_lock_accounts`: FOR UPDATE in ascending order; may wait;
//! 3. `commit_find_keys`: after the wait, so it sees what was committed meanwhile;
//! 4. `commit_find_reversals`, if the batch holds reversals.
//!
//! If keys were found, one more ([`CommitSession::find`]) reads the rows they led to.
//! Second ([`CommitSession::write`]): COPY transfers, one UPDATE of the accounts (with their terms,
//! if any change), COPY keys, the `commits` row (all four in one statement if the batch is small),
//! reversals and rejections if any, COMMIT. An error in any of them skips the rest, COMMIT included.

mod write;

use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;
use uuid::Uuid;

pub use self::write::Write;

use super::periods::{Period, Periods, PeriodsMoved};
use super::route::{Lifeline, Route, Target};
use super::wire::encode::oid;
use super::wire::{
    Answer, Connection, Row, ServerError, SessionSettings, TransactionState, WireError,
};
use crate::domain::currency::Currencies;
use crate::domain::transfer::{Outcome, Receipt, RejectReason, Rejection};
use crate::domain::{
    Account, AccountId, AccountStatus, CommitId, Currency, CurrencyCode, CurrencyId,
    DatabaseIdentity, TransferId,
};
use crate::plant::{Plant, planted};

/// Name, text and parameter types of every prepared statement.
const STATEMENTS: &[(&str, &str, &[u32])] = &[
    ("begin", "BEGIN", &[]),
    ("commit", "COMMIT", &[]),
    (
        "lock",
        include_str!("../../../sql/queries/commit_lock_accounts.sql"),
        &[oid::INT8_ARRAY],
    ),
    (
        "reversed",
        include_str!("../../../sql/queries/commit_find_reversals.sql"),
        &[oid::UUID_ARRAY],
    ),
    (
        "find_transfers",
        include_str!("../../../sql/queries/commit_find_transfers.sql"),
        &[oid::UUID_ARRAY],
    ),
    (
        "find_rejections",
        include_str!("../../../sql/queries/commit_find_rejections.sql"),
        &[oid::UUID_ARRAY],
    ),
    (
        "small",
        include_str!("../../../sql/queries/commit_write_small.sql"),
        &[
            oid::INT8,
            oid::UUID,
            oid::INT4,
            oid::INT4,
            oid::UUID_ARRAY,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::INT2_ARRAY,
            oid::UUID_ARRAY,
            oid::UUID_ARRAY,
            oid::UUID_ARRAY,
            oid::UUID_ARRAY,
            oid::TEXT_ARRAY,
            oid::TEXT_ARRAY,
            oid::TEXT_ARRAY,
            oid::INT4,
            oid::UUID_ARRAY,
            oid::UUID_ARRAY,
            oid::UUID_ARRAY,
            oid::INT4_ARRAY,
            oid::INT4,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::UUID_ARRAY,
        ],
    ),
    (
        "copy_transfers",
        include_str!("../../../sql/queries/commit_copy_transfers.sql"),
        &[],
    ),
    (
        "copy_keys",
        include_str!("../../../sql/queries/commit_copy_keys.sql"),
        &[],
    ),
    (
        "rejections",
        include_str!("../../../sql/queries/commit_insert_rejections.sql"),
        &[
            oid::INT8,
            oid::UUID_ARRAY,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::TEXT_ARRAY,
            oid::INT2_ARRAY,
            oid::UUID_ARRAY,
            oid::TEXT_ARRAY,
            oid::TEXT_ARRAY,
            oid::TEXT_ARRAY,
        ],
    ),
    (
        "reversals",
        include_str!("../../../sql/queries/commit_insert_reversals.sql"),
        &[oid::UUID_ARRAY, oid::UUID_ARRAY],
    ),
    (
        "accounts",
        include_str!("../../../sql/queries/commit_update_accounts.sql"),
        &[
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::UUID_ARRAY,
            oid::INT4,
        ],
    ),
    (
        "accounts_with_terms",
        include_str!("../../../sql/queries/commit_update_accounts_with_terms.sql"),
        &[
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::INT8_ARRAY,
            oid::UUID_ARRAY,
            oid::INT4,
            oid::INT2_ARRAY,
            oid::INT8_ARRAY,
            oid::TEXT_ARRAY,
            oid::INT2_ARRAY,
        ],
    ),
    (
        "number_row",
        include_str!("../../../sql/queries/commit_insert_commit.sql"),
        &[oid::INT8, oid::UUID, oid::INT4, oid::INT4],
    ),
];

/// The server-side settings of a commit session.
///
/// The time limits end a transaction whose engine was stopped, so that its
/// accounts are not held for long. The planner is told what statistics of an
/// empty table would not: every access of the commit path is by primary key,
/// and a plan prepared when the tables were empty must still be so later.
#[must_use]
pub fn session_parameters(
    lock_timeout: Duration,
    statement_timeout: Duration,
    idle_in_transaction_timeout: Duration,
) -> Vec<(String, String)> {
    let ms = |limit: Duration| limit.as_millis().max(1).to_string();
    [
        // A fixed name of their own: `commit_evict_stalled` knows them by it.
        ("application_name", "engine-commit".into()),
        ("lock_timeout", ms(lock_timeout)),
        ("statement_timeout", ms(statement_timeout)),
        (
            "idle_in_transaction_session_timeout",
            ms(idle_in_transaction_timeout),
        ),
        ("plan_cache_mode", "force_generic_plan".into()),
        ("enable_seqscan", "off".into()),
        ("enable_bitmapscan", "off".into()),
        ("enable_hashjoin", "off".into()),
        ("enable_mergejoin", "off".into()),
        ("enable_material", "off".into()),
        ("jit", "off".into()),
        ("default_transaction_isolation", "read committed".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// The parameter that makes each commit check for itself, at the last moment, that
/// it waits for a synchronous standby: the lookout may hear of a change too late.
#[must_use]
pub fn demand_sync_standby() -> (String, String) {
    ("engine.durability".to_owned(), "sync-standby".to_owned())
}

/// Why a session could not be opened. Nothing was written.
#[derive(Debug)]
pub enum OpenError {
    /// No host took the connection; the last one's reason.
    Unreachable(WireError),
    /// That host answers and takes no writes.
    NoWritableHost,
    /// The lookout knows of no host that takes writes; why, in words.
    NoPrimary(String),
    /// A commit would be less durable than `--durability` demands; what is missing.
    NotDurable(String),
    /// Something between engine and server hands out its own sessions, and what
    /// it said if it would not even give one.
    Pooler(Option<Box<ServerError>>),
    /// The schema is not the one this engine was built for.
    Schema(WireError),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(error) => write!(formatter, "connect to --database-url: {error}"),
            Self::NoWritableHost => formatter.write_str(
                "connect to --database-url: every host that answers is a standby or read-only",
            ),
            Self::NoPrimary(trouble) => write!(
                formatter,
                "connect to --database-url: no host takes writes: {trouble}"
            ),
            Self::NotDurable(shortfall) => write!(
                formatter,
                "--durability is not met, nothing is committed: {shortfall}"
            ),
            Self::Pooler(said) => {
                formatter.write_str("connect to --database-url: a pooler answers there")?;
                if let Some(said) = said {
                    write!(formatter, " ({said})")?;
                }
                formatter.write_str(
                    "; the engine needs sessions of its own, whatever the pool mode: name the PostgreSQL server itself",
                )
            }
            Self::Schema(error) => {
                write!(
                    formatter,
                    "prepare statements: {error}; run `engine migrate`"
                )
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// Why a step of the commit did not succeed.
#[derive(Debug)]
pub enum StepError {
    /// The server refused a statement; the transaction is rolled back.
    RolledBack(Box<ServerError>),
    /// The connection is unusable before anything could be committed.
    Lost(WireError),
    /// The connection died, or a warning came, after COMMIT was sent: the batch
    /// may or may not be durable.
    Unknown(UnknownCause),
    /// The key periods this session knows do not cover the database's time.
    Periods(PeriodsMoved),
}

/// What left a commit's outcome open.
#[derive(Debug)]
pub enum UnknownCause {
    /// No (complete) answer.
    Wire(WireError),
    /// COMMIT came with a warning: a wait for a standby was cancelled.
    Warning(Box<ServerError>),
    /// The server was told to end while committing.
    Ended(Box<ServerError>),
}

/// What the fold needs to know.
#[derive(Debug)]
pub struct Locked {
    /// This batch.
    pub commit_id: CommitId,
    /// The database's time at BEGIN, milliseconds since the Unix epoch.
    pub database_ms: i64,
    /// Those of the accounts asked for that exist.
    pub accounts: HashMap<AccountId, Account>,
    /// Those of the keys asked for that are taken.
    pub keys: Vec<FoundKey>,
    /// Those of the originals asked for that are reversed.
    pub reversed: hashbrown::HashSet<TransferId>,
}

/// A key that is taken.
#[derive(Clone, Copy, Debug)]
pub struct FoundKey {
    /// Its hash.
    pub key: Uuid,
    /// Of the request that used it.
    pub fingerprint: Uuid,
    /// Where its answer is.
    pub txn_id: TransferId,
}

/// What a batch asks about.
#[derive(Debug, Default)]
pub struct Ask {
    /// Distinct, ascending.
    pub accounts: Vec<i64>,
    /// Distinct, ascending.
    pub keys: Vec<Uuid>,
    /// Originals of reversals.
    pub originals: Vec<Uuid>,
}

/// How a session is opened.
#[derive(Clone, Debug)]
pub struct CommitSettings {
    /// Where and how.
    pub session: SessionSettings,
    /// How long keys hold; decides which periods are looked through.
    pub idempotency_retention: Duration,
    /// Which engine writes.
    pub engine_id: Uuid,
}

/// The database's time, from the last time it told. The engine's own wall clock
/// has no say in which keys are known.
#[derive(Clone, Copy, Debug)]
struct DatabaseClock {
    unix_ms: i64,
    told_at: Instant,
}

impl DatabaseClock {
    fn at(unix_ms: i64) -> Self {
        Self {
            unix_ms,
            told_at: Instant::now(),
        }
    }

    fn about_ms(&self) -> i64 {
        let since = i64::try_from(self.told_at.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.unix_ms.saturating_add(since)
    }
}

/// A session that commits batches.
#[derive(Debug)]
pub struct CommitSession {
    connection: Connection,
    route: Route,
    periods: Periods,
    currencies: Currencies,
    engine_id: Uuid,
    identity: DatabaseIdentity,
    database_clock: DatabaseClock,
    round_trips: u32,
    /// The periods that the prepared statement `keys` looks through.
    searched: Vec<i32>,
    /// Numbers for the next batches, the next one last.
    commit_ids: Vec<i64>,
}

impl CommitSettings {
    /// Whether a server is known that may be committed to.
    #[must_use]
    pub fn takes_commits(&self) -> bool {
        self.session.route.takes_commits()
    }

    /// Waits that long, or less if another server takes writes meanwhile.
    pub async fn pause(&self, limit: Duration) {
        self.session.route.pause(limit).await;
    }
}

impl CommitSession {
    /// Finds the writable host and prepares every statement.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was written.
    pub async fn open(settings: &CommitSettings) -> Result<Self, OpenError> {
        let route = &settings.session.route;
        let limit = settings.session.connect_timeout;
        let (targets, lifeline) = route.targets().await;
        let mut worst = None;
        for target in targets {
            // One limit for all of it: a host that half works must not keep the
            // engine from the one that does.
            let opened = Self::open_at(settings, &target, lifeline.clone());
            let opened = tokio::time::timeout(limit, opened).await;
            match opened.unwrap_or(Err(OpenError::Unreachable(WireError::Timeout(limit)))) {
                Ok(session) => return Ok(session),
                // What answers tells more than what does not.
                Err(OpenError::Unreachable(_)) if worst.is_some() => {}
                Err(error) => worst = Some(error),
            }
        }
        Err(worst.unwrap_or_else(|| OpenError::NoPrimary(route.trouble())))
    }

    async fn open_at(
        settings: &CommitSettings,
        target: &Target,
        lifeline: Lifeline,
    ) -> Result<Self, OpenError> {
        if let Some(shortfall) = settings.session.route.shortfall() {
            return Err(OpenError::NotDurable(shortfall));
        }
        let mut connection = Connection::connect(&settings.session, target, lifeline)
            .await
            .map_err(not_connected)?;
        let facts = prove_writable(&mut connection).await?;
        Self::prepare(settings, connection, facts).await
    }

    async fn prepare(
        settings: &CommitSettings,
        mut connection: Connection,
        (identity, database_clock): (DatabaseIdentity, DatabaseClock),
    ) -> Result<Self, OpenError> {
        for (name, sql, types) in STATEMENTS {
            connection
                .parse(name, sql, types)
                .map_err(OpenError::Schema)?;
        }
        connection.sync();
        connection.send().await.map_err(OpenError::Unreachable)?;
        let (_, failed) = connection.drain().await.map_err(OpenError::Unreachable)?;
        if let Some(error) = failed {
            return Err(OpenError::Schema(WireError::Server(error)));
        }
        let currencies = load_currencies(&mut connection)
            .await
            .map_err(OpenError::Schema)?;
        let mut session = Self {
            connection,
            route: settings.session.route.clone(),
            periods: Periods::new(settings.idempotency_retention),
            currencies,
            engine_id: settings.engine_id,
            identity,
            database_clock,
            round_trips: 0,
            searched: Vec::new(),
            commit_ids: Vec::new(),
        };
        session.load_periods().await.map_err(OpenError::Schema)?;
        Ok(session)
    }

    /// Whether its server was left: it commits nothing more.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.connection.is_left()
    }

    /// Which history this session writes to.
    #[must_use]
    pub const fn identity(&self) -> DatabaseIdentity {
        self.identity
    }

    /// Which engine this session writes as.
    #[must_use]
    pub const fn engine_id(&self) -> Uuid {
        self.engine_id
    }

    /// Round trips since the last call.
    pub fn take_round_trips(&mut self) -> u32 {
        std::mem::take(&mut self.round_trips)
    }

    /// Reads the key periods again.
    ///
    /// # Errors
    /// [`WireError`]; the session should be dropped.
    pub async fn load_periods(&mut self) -> Result<(), WireError> {
        let rows = self
            .connection
            .simple(include_str!("../../../sql/queries/session_periods.sql"))
            .await?;
        let mut periods = Vec::with_capacity(rows.len());
        for row in &rows {
            let number = |index: usize| -> Result<i64, WireError> {
                row.text(index)?
                    .and_then(|text| text.parse().ok())
                    .ok_or(WireError::Protocol("a key period that is no number"))
            };
            periods.push(Period {
                number: i32::try_from(number(0)?)
                    .map_err(|_range| WireError::Protocol("a key period beyond INTEGER"))?,
                starts_ms: number(1)?,
                ends_ms: number(2)?,
            });
        }
        self.periods.set(periods);
        Ok(())
    }

    /// First round trip: locks, then looks up. On `Ok` a transaction is open.
    ///
    /// # Errors
    /// [`StepError`], never `Unknown`: nothing can have been committed.
    pub async fn lock(&mut self, ask: &Ask) -> Result<Locked, StepError> {
        if let Some(shortfall) = self.route.shortfall() {
            return Err(StepError::Lost(WireError::Refused(shortfall)));
        }
        let live = self.periods.live(self.database_clock.about_ms());
        let commit_id = self.next_commit_id().await.map_err(StepError::Lost)?;
        let steps = self.ask_lock(ask, &live).map_err(StepError::Lost)?;
        self.send().await.map_err(StepError::Lost)?;
        let locked = self.read_lock(ask, steps, commit_id).await?;
        // Without an account there is no row, hence no key to write and no time.
        if locked.accounts.is_empty() {
            return Ok(locked);
        }
        self.database_clock = DatabaseClock::at(locked.database_ms);
        if let Err(moved) = self.periods.check(locked.database_ms, &live) {
            self.roll_back().await.map_err(StepError::Lost)?;
            self.load_periods().await.map_err(StepError::Lost)?;
            return Err(StepError::Periods(moved));
        }
        Ok(locked)
    }

    async fn next_commit_id(&mut self) -> Result<CommitId, WireError> {
        if self.commit_ids.is_empty() {
            let sql = include_str!("../../../sql/queries/session_commit_ids.sql");
            for row in self.connection.simple(sql).await? {
                let id = row.text(0)?.and_then(|text| text.parse().ok());
                let id = id.ok_or(WireError::Protocol("a commit id that is no number"))?;
                self.commit_ids.push(id);
            }
            self.commit_ids.reverse();
        }
        self.commit_ids
            .pop()
            .map(CommitId)
            .ok_or(WireError::Protocol("no commit ids"))
    }

    /// Prepares the look-up anew when the live periods have changed, which is
    /// every few days.
    fn prepare_keys(&mut self, live: &[i32]) -> Result<(), WireError> {
        if self.searched == live {
            return Ok(());
        }
        let one = include_str!("../../../sql/queries/commit_find_keys.sql");
        let all: Vec<String> = live
            .iter()
            .map(|period| one.replace("{period}", &period.to_string()))
            .collect();
        // Closing what is not there is no error.
        self.connection.close("keys")?;
        self.connection
            .parse("keys", &all.join("\nUNION ALL\n"), &[oid::UUID_ARRAY])?;
        self.searched = live.to_vec();
        Ok(())
    }

    /// Queues the round trip; what its answers will be, in order.
    fn ask_lock(&mut self, ask: &Ask, live: &[i32]) -> Result<Vec<LockStep>, WireError> {
        let mut steps = vec![LockStep::Begin, LockStep::Accounts];
        // Without a live period nothing can be looked up; `check` will say so.
        let look_up = !ask.keys.is_empty() && !live.is_empty();
        if look_up {
            self.prepare_keys(live)?;
        }
        let connection = &mut self.connection;
        connection.execute("begin", &[])?;
        connection.execute("lock", &[&ask.accounts])?;
        if look_up {
            connection.execute("keys", &[&ask.keys])?;
            steps.push(LockStep::Keys);
        }
        if !ask.originals.is_empty() {
            connection.execute("reversed", &[&ask.originals])?;
            steps.push(LockStep::Reversed);
        }
        connection.sync();
        Ok(steps)
    }

    async fn read_lock(
        &mut self,
        ask: &Ask,
        steps: Vec<LockStep>,
        commit_id: CommitId,
    ) -> Result<Locked, StepError> {
        let mut steps = steps.into_iter();
        let mut step = steps.next();
        let mut locked = Locked {
            commit_id,
            database_ms: 0,
            accounts: HashMap::with_capacity(ask.accounts.len()),
            keys: Vec::new(),
            reversed: hashbrown::HashSet::new(),
        };
        let mut failed = None;
        loop {
            match self.connection.next().await.map_err(StepError::Lost)? {
                Answer::Row(row) => {
                    self.take_lock_row(step, &row, &mut locked)
                        .map_err(StepError::Lost)?;
                }
                Answer::Done(_) => step = steps.next(),
                Answer::Failed(error) => failed = Some(error),
                Answer::Ready(_) => break,
            }
        }
        if let Some(error) = failed {
            // The look-up may be what failed to be prepared.
            self.searched.clear();
            self.roll_back().await.map_err(StepError::Lost)?;
            return Err(StepError::RolledBack(error));
        }
        if step.is_some() {
            return Err(StepError::Lost(WireError::Protocol(
                "fewer answers than statements",
            )));
        }
        Ok(locked)
    }

    fn take_lock_row(
        &self,
        step: Option<LockStep>,
        row: &Row,
        locked: &mut Locked,
    ) -> Result<(), WireError> {
        match step {
            Some(LockStep::Accounts) => {
                locked.database_ms = row.unix_ms_or_missing(8)?;
                let account = self.account(row)?;
                locked.accounts.insert(account.id, account);
            }
            Some(LockStep::Keys) => locked.keys.push(FoundKey {
                key: row.uuid_or_missing(0)?,
                fingerprint: row.uuid_or_missing(1)?,
                txn_id: TransferId::from_uuid(row.uuid_or_missing(2)?),
            }),
            Some(LockStep::Reversed) => {
                locked
                    .reversed
                    .insert(TransferId::from_uuid(row.uuid_or_missing(0)?));
            }
            Some(LockStep::Begin) | None => {
                return Err(WireError::Protocol("a row where none belongs"));
            }
        }
        Ok(())
    }

    fn account(&self, row: &Row) -> Result<Account, WireError> {
        let id = AccountId::new(row.i64_or_missing(0)?)
            .map_err(|_range| WireError::Protocol("an account id out of range"))?;
        let currency_id = CurrencyId(row.i16_or_missing(5)?);
        let currency = self
            .currencies
            .by_id(currency_id)
            .ok_or(WireError::Protocol(
                "an account in a currency added since this session began",
            ))?;
        let status = AccountStatus::from_code(row.i16_or_missing(6)?)
            .ok_or(WireError::Protocol("an account status of a newer schema"))?;
        Ok(Account {
            id,
            currency,
            balance: row.i64_or_missing(1)?,
            min_balance: row.i64(2)?,
            debits_pending: row.i64_or_missing(3)?,
            version: row.i64_or_missing(4)?,
            head: row.uuid(7)?.map(TransferId::from_uuid),
            status,
        })
    }

    /// Between the two: the stored answers behind these ids, as first answers.
    ///
    /// # Errors
    /// [`StepError`], never `Unknown`: nothing can have been committed.
    pub async fn find(
        &mut self,
        ids: &Vec<Uuid>,
    ) -> Result<HashMap<TransferId, Outcome>, StepError> {
        let mut found = HashMap::with_capacity(ids.len());
        let connection = &mut self.connection;
        connection
            .execute("find_transfers", &[ids])
            .map_err(StepError::Lost)?;
        connection
            .execute("find_rejections", &[ids])
            .map_err(StepError::Lost)?;
        connection.sync();
        self.send().await.map_err(StepError::Lost)?;
        let mut in_transfers = true;
        let mut failed = None;
        loop {
            match self.connection.next().await.map_err(StepError::Lost)? {
                Answer::Row(row) if in_transfers => {
                    let (id, outcome) = self.stored_transfer(&row).map_err(StepError::Lost)?;
                    found.insert(id, outcome);
                }
                Answer::Row(row) => {
                    let (id, outcome) = stored_rejection(&row).map_err(StepError::Lost)?;
                    found.insert(id, outcome);
                }
                Answer::Done(_) => in_transfers = false,
                Answer::Failed(error) => failed = Some(error),
                Answer::Ready(_) => break,
            }
        }
        if let Some(error) = failed {
            self.roll_back().await.map_err(StepError::Lost)?;
            return Err(StepError::RolledBack(error));
        }
        Ok(found)
    }

    fn stored_transfer(&self, row: &Row) -> Result<(TransferId, Outcome), WireError> {
        let id = TransferId::from_uuid(row.uuid_or_missing(0)?);
        let account = |index: usize| -> Result<AccountId, WireError> {
            AccountId::new(row.i64_or_missing(index)?)
                .map_err(|_range| WireError::Protocol("an account id out of range"))
        };
        let currency = self
            .currencies
            .by_id(CurrencyId(row.i16_or_missing(4)?))
            .ok_or(WireError::Protocol(
                "a transfer in a currency added since start",
            ))?;
        let receipt = Receipt {
            id,
            debit_account_id: account(1)?,
            credit_account_id: account(2)?,
            amount_minor: row.i64_or_missing(3)?,
            digits: currency.digits,
        };
        Ok((
            id,
            Outcome::Completed {
                receipt,
                replayed: false,
            },
        ))
    }

    /// Second round trip: writes everything and commits.
    ///
    /// # Errors
    /// [`StepError::RolledBack`]: certainly nothing is written. `Unknown`: it may
    /// be; the caller must find out before it answers anyone.
    pub async fn write(&mut self, write: &Write<'_>) -> Result<(), StepError> {
        if let Err(error) = self.ask_write(write) {
            // Nothing was sent; what was encoded must not be sent later.
            self.connection.outgoing.clear();
            return Err(StepError::Lost(error));
        }
        let unknown = |error| StepError::Unknown(UnknownCause::Wire(error));
        self.connection.take_warnings();
        self.send().await.map_err(unknown)?;
        let mut last_tag = String::new();
        let mut failed = None;
        let state = loop {
            match self.connection.next().await {
                Ok(Answer::Row(_)) => {}
                Ok(Answer::Done(tag)) => last_tag = tag,
                Ok(Answer::Failed(error)) => failed = Some(error),
                Ok(Answer::Ready(state)) => break state,
                // An error that ended the session tells more than the broken link.
                Err(error) => match failed {
                    Some(error) if !ends_session(&error.sqlstate) => {
                        return Err(StepError::RolledBack(error));
                    }
                    Some(error) => return Err(StepError::Unknown(UnknownCause::Ended(error))),
                    None => return Err(unknown(error)),
                },
            }
        };
        self.verdict(&last_tag, failed, state).await
    }

    async fn verdict(
        &mut self,
        last_tag: &str,
        failed: Option<Box<ServerError>>,
        state: TransactionState,
    ) -> Result<(), StepError> {
        if let Some(warning) = self.connection.take_warnings().pop()
            && !planted(Plant::CommitWarningIgnored)
        {
            return Err(StepError::Unknown(UnknownCause::Warning(Box::new(warning))));
        }
        match failed {
            Some(error) if ends_session(&error.sqlstate) => {
                Err(StepError::Unknown(UnknownCause::Ended(error)))
            }
            Some(error) => {
                self.roll_back().await.map_err(StepError::Lost)?;
                Err(StepError::RolledBack(error))
            }
            None if last_tag == "COMMIT" && state == TransactionState::Idle => Ok(()),
            None if planted(Plant::CommitTagIgnored) => Ok(()),
            // A COMMIT in a failed transaction answers ROLLBACK, without an error.
            None if last_tag == "ROLLBACK" => Err(StepError::RolledBack(Box::new(ServerError {
                sqlstate: "25P02".into(),
                message: "COMMIT answered ROLLBACK".into(),
                ..ServerError::default()
            }))),
            None => Err(StepError::Unknown(UnknownCause::Wire(WireError::Protocol(
                "COMMIT answered neither COMMIT nor ROLLBACK",
            )))),
        }
    }

    async fn send(&mut self) -> Result<(), WireError> {
        self.round_trips = self.round_trips.saturating_add(1);
        self.connection.send().await
    }

    /// Ends sessions that hold accounts and wait for an engine that is stopped.
    /// How many there were.
    ///
    /// # Errors
    /// [`WireError`]; the session should be dropped.
    pub async fn evict_stalled(&mut self) -> Result<usize, WireError> {
        let sql = include_str!("../../../sql/queries/commit_evict_stalled.sql");
        self.connection.simple(sql).await.map(|ended| ended.len())
    }

    /// Ends the open transaction without effect.
    ///
    /// # Errors
    /// [`WireError`]: drop the session, which rolls back as well.
    pub async fn roll_back(&mut self) -> Result<(), WireError> {
        self.round_trips = self.round_trips.saturating_add(1);
        self.connection.simple("ROLLBACK").await.map(drop)
    }
}

#[derive(Clone, Copy, Debug)]
enum LockStep {
    Begin,
    Accounts,
    Keys,
    Reversed,
}

/// Whether this SQLSTATE means that the server ended the session (57P01 to 03,
/// class 08): it may have done so while a commit waited for a standby.
fn ends_session(sqlstate: &str) -> bool {
    sqlstate.starts_with("57P") || sqlstate.starts_with("08")
}

/// Why the start-up message led to no session.
///
/// 08P01 is `protocol_violation`. PostgreSQL says so there to a message that is
/// malformed, which ours is not; PgBouncer to a setting that it does not know.
fn not_connected(error: WireError) -> OpenError {
    match error {
        WireError::Server(said) if said.sqlstate == "08P01" => OpenError::Pooler(Some(said)),
        WireError::Io(_)
        | WireError::Timeout(_)
        | WireError::Left
        | WireError::Protocol(_)
        | WireError::Refused(_)
        | WireError::Tls(_)
        | WireError::Server(_) => OpenError::Unreachable(error),
    }
}

/// Which history it writes, and its time.
///
/// A pooler is known by the process id that it made up for the session. In
/// session mode too: what the engine asked for at the start-up is lost there,
/// its time limits among it.
async fn prove_writable(
    connection: &mut Connection,
) -> Result<(DatabaseIdentity, DatabaseClock), OpenError> {
    let rows = connection
        .simple(include_str!("../../../sql/queries/session_facts.sql"))
        .await
        .map_err(OpenError::Unreachable)?;
    let text = |index: usize| {
        rows.first()
            .and_then(|row| row.text(index).ok().flatten())
            .unwrap_or_default()
    };
    if text(0) != "f" || text(1) != "off" {
        return Err(OpenError::NoWritableHost);
    }
    if text(2) != connection.process_id.to_string() {
        return Err(OpenError::Pooler(None));
    }
    connection
        .simple(include_str!("../../../sql/queries/session_durable.sql"))
        .await
        .map_err(OpenError::Unreachable)?;
    let unclear = |_| OpenError::Schema(WireError::Protocol("session facts that are no numbers"));
    let identity = DatabaseIdentity {
        system_identifier: text(4).parse().map_err(unclear)?,
        timeline: text(5).parse().map_err(unclear)?,
    };
    let database_ms = text(3).parse().map_err(unclear)?;
    Ok((identity, DatabaseClock::at(database_ms)))
}

/// Read for each session: an account may be opened in a currency that a later
/// migration added.
async fn load_currencies(connection: &mut Connection) -> Result<Currencies, WireError> {
    let rows = connection
        .simple(include_str!("../../../sql/queries/session_currencies.sql"))
        .await?;
    let mut currencies = Vec::with_capacity(rows.len());
    for row in &rows {
        let unclear = WireError::Protocol("a currency that makes no sense");
        let (Some(id), Some(code), Some(digits)) = (row.text(0)?, row.text(1)?, row.text(2)?)
        else {
            return Err(unclear);
        };
        let (Ok(id), Some(code), Ok(digits)) =
            (id.parse(), CurrencyCode::parse(code), digits.parse())
        else {
            return Err(unclear);
        };
        currencies.push(Currency {
            id: CurrencyId(id),
            code,
            digits,
        });
    }
    Ok(Currencies::new(currencies))
}

fn stored_rejection(row: &Row) -> Result<(TransferId, Outcome), WireError> {
    let id = TransferId::from_uuid(row.uuid_or_missing(0)?);
    let reason = RejectReason::from_code(row.i16_or_missing(1)?)
        .ok_or(WireError::Protocol("a reject reason of a newer schema"))?;
    let account_id = AccountId::new(row.i64_or_missing(2)?)
        .map_err(|_range| WireError::Protocol("an account id out of range"))?;
    let rejection = Rejection {
        id: Some(id),
        reason,
        account_id,
    };
    Ok((
        id,
        Outcome::Rejected {
            rejection,
            replayed: false,
        },
    ))
}
