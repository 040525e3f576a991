-- The ledger: currencies, accounts, transfers, and the keys that make a retry safe.
--
-- Money is BIGINT minor units (cents for USD); *_decimal views show it to people.
-- Partitions are not made here but by `engine maintain` (which `engine migrate`
-- runs): their bounds depend on the day, and a migration must not.

SET LOCAL lock_timeout = '10s';

CREATE TABLE currencies (
    -- ISO 4217 numeric code: 840 is USD. Two bytes in every row that names it.
    id     smallint PRIMARY KEY CHECK (id > 0),
    code   text     NOT NULL UNIQUE CHECK (code ~ '^[A-Z]{3}$'),
    -- Never changed once stored: every stored amount would change its meaning.
    digits smallint NOT NULL CHECK (digits BETWEEN 0 AND 4)
);

CREATE TABLE accounts (
    id              bigint      PRIMARY KEY CHECK (id BETWEEN 0 AND 9007199254740991),
    balance         bigint      NOT NULL DEFAULT 0,
    -- Null: no limit (a funding account).
    min_balance     bigint,
    -- Reserved by pending (two-phase) transfers; zero until those exist.
    debits_pending  bigint      NOT NULL DEFAULT 0 CHECK (debits_pending >= 0),
    credits_pending bigint      NOT NULL DEFAULT 0 CHECK (credits_pending >= 0),
    -- Counts this account's postings without a gap.
    version         bigint      NOT NULL DEFAULT 0 CHECK (version >= 0),
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    currency_id     smallint    NOT NULL REFERENCES currencies (id),
    -- 0 open, 1 frozen, 2 closed.
    status          smallint    NOT NULL DEFAULT 0 CHECK (status IN (0, 1, 2)),
    -- The newest transfer of this account: the head of its history chain.
    head_id         uuid,
    name            text        CHECK (length(name) <= 255),
    owner           text        CHECK (length(owner) <= 255),
    -- Stands behind the engine's own check, which is made under the row lock.
    CONSTRAINT accounts_min_balance CHECK (min_balance IS NULL OR balance - debits_pending >= min_balance),
    CONSTRAINT accounts_closed_empty CHECK (status <> 2 OR balance = 0),
    CONSTRAINT accounts_head CHECK ((version = 0) = (head_id IS NULL))
)
-- Room on each page for the new versions of its rows: updates stay heap-only,
-- so no index entry is written when a balance moves.
WITH (
    fillfactor = 40,
    -- Dead versions are pruned page by page on access; vacuum keeps the
    -- visibility map and must never be far behind nor ever pause.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.1
);

-- One row per batch. Written by every commit of the engine, a batch of nothing
-- but replays included, so that each commit writes WAL and waits for it.
CREATE TABLE commits (
    id              bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    engine_id       uuid        NOT NULL,
    transfer_count  integer     NOT NULL CHECK (transfer_count >= 0),
    rejection_count integer     NOT NULL CHECK (rejection_count >= 0),
    created_at      timestamptz NOT NULL DEFAULT now()
);

-- Append-only. No foreign keys: each would fire a trigger per row; the engine
-- holds both account rows locked when it writes, and `engine verify` checks.
CREATE TABLE transfers (
    debit_account_id   bigint      NOT NULL,
    credit_account_id  bigint      NOT NULL,
    amount             bigint      NOT NULL,
    -- Both accounts after this transfer: statements and balances at a point in
    -- time need no second table.
    debit_balance      bigint      NOT NULL,
    credit_balance     bigint      NOT NULL,
    debit_version      bigint      NOT NULL,
    credit_version     bigint      NOT NULL,
    commit_id          bigint      NOT NULL,
    effective_at       timestamptz,
    -- Order within the commit, from 0.
    position           integer     NOT NULL,
    currency_id        smallint    NOT NULL,
    -- UUID v7 made by the engine: its first 48 bits are created_at in ms.
    -- Greater than the id of every earlier transfer of either account.
    id                 uuid        NOT NULL,
    -- The previous transfer of each account (null: its first). An account's
    -- history is walked along these, by primary key, newest first, which spares
    -- two random-order indexes on the write path.
    debit_previous_id  uuid,
    credit_previous_id uuid,
    group_id           uuid,
    reverses           uuid,
    reference          text,
    category           text,
    metadata           jsonb,
    PRIMARY KEY (id),
    CONSTRAINT transfers_amount CHECK (amount > 0),
    CONSTRAINT transfers_sides CHECK (debit_account_id <> credit_account_id)
) PARTITION BY RANGE (id);

-- At most one reversal per transfer: the primary key decides. In a table of its
-- own because a unique index on a partitioned table must contain the partition key.
CREATE TABLE reversals (
    original_id uuid PRIMARY KEY,
    reversal_id uuid NOT NULL
);

-- Business refusals of requests that carried a key, kept so that a repeat gets
-- the same answer. Never in `transfers`.
CREATE TABLE rejections (
    debit_account_id  bigint   NOT NULL,
    credit_account_id bigint   NOT NULL,
    commit_id         bigint   NOT NULL,
    -- The account the reason speaks of.
    account_id        bigint   NOT NULL,
    -- As asked for, in decimals: a currency mismatch has no one minor unit.
    amount            numeric  NOT NULL CHECK (amount > 0),
    -- 1 currency_mismatch, 2 account_closed, 3 account_frozen,
    -- 4 already_reversed, 5 balance_overflow, 6 insufficient_funds.
    reason            smallint NOT NULL CHECK (reason BETWEEN 1 AND 6),
    id                uuid     NOT NULL,
    reverses          uuid,
    reference         text,
    category          text,
    metadata          jsonb,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);

CREATE INDEX rejections_debit ON rejections (debit_account_id, id);
CREATE INDEX rejections_credit ON rejections (credit_account_id, id);

-- The spans of time that `idempotency_keys` is divided into.
CREATE TABLE key_periods (
    period    integer     PRIMARY KEY,
    starts_at timestamptz NOT NULL UNIQUE,
    ends_at   timestamptz NOT NULL UNIQUE,
    CHECK (starts_at < ends_at)
);

CREATE TABLE idempotency_keys (
    -- BLAKE3 of (version, principal, key), first 16 bytes. uuid is PostgreSQL's
    -- fixed-size 16-byte type: no length word, compared as memory.
    key         uuid    NOT NULL,
    -- BLAKE3 of the parsed request, first 16 bytes.
    fingerprint uuid    NOT NULL,
    -- The row in transfers or rejections that answered it.
    txn_id      uuid    NOT NULL,
    period      integer NOT NULL,
    PRIMARY KEY (key, period)
) PARTITION BY LIST (period);

-- A transfer as the two postings that accountants expect.
CREATE VIEW postings AS
SELECT id AS transfer_id, debit_account_id AS account_id, -amount AS amount,
       debit_balance AS balance, debit_version AS version, currency_id, commit_id, position, 'debit'::text AS direction
  FROM transfers
UNION ALL
SELECT id, credit_account_id, amount,
       credit_balance, credit_version, currency_id, commit_id, position, 'credit'::text
  FROM transfers;

-- Decimals for people; the engine never reads these.
CREATE VIEW accounts_decimal AS
SELECT a.id, a.name, a.owner, c.code AS currency,
       round(a.balance::numeric / 10::numeric ^ c.digits, c.digits) AS balance,
       round(a.min_balance::numeric / 10::numeric ^ c.digits, c.digits) AS min_balance,
       a.version, CASE a.status WHEN 0 THEN 'open' WHEN 1 THEN 'frozen' ELSE 'closed' END AS status,
       a.created_at, a.updated_at
  FROM accounts a
  JOIN currencies c ON c.id = a.currency_id;

CREATE VIEW transfers_decimal AS
SELECT t.id, to_timestamp(('x' || translate(left(t.id::text, 13), '-', ''))::bit(48)::bigint / 1000.0) AS created_at,
       t.debit_account_id, t.credit_account_id, c.code AS currency,
       round(t.amount::numeric / 10::numeric ^ c.digits, c.digits) AS amount,
       round(t.debit_balance::numeric / 10::numeric ^ c.digits, c.digits) AS debit_balance,
       round(t.credit_balance::numeric / 10::numeric ^ c.digits, c.digits) AS credit_balance,
       t.reference, t.category, t.reverses, t.commit_id, t.position
  FROM transfers t
  JOIN currencies c ON c.id = t.currency_id;
