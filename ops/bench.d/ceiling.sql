-- The rows of the ceiling side, made before the clock starts.
-- Variables: accounts, batches, rows (per batch), first_ms.
-- Each row is as wide as the engine's: both previous ids are there.
CREATE SCHEMA IF NOT EXISTS bench;

CREATE UNLOGGED TABLE bench.picked AS
SELECT n / :rows AS batch, (n % :rows)::integer AS position,
       encode(int8send(((:first_ms + n / 1000) << 16) | 28672 | (n % 1000))
              || int8send((hashint8extended(n, 0) & 4611686018427387903) + (-9223372036854775807 - 1)), 'hex')::uuid AS id,
       1 + floor(random() * :accounts)::bigint AS debit,
       floor(random() * (:accounts - 1))::bigint AS step
  FROM generate_series(0, :batches::bigint * :rows - 1) AS n;

CREATE UNLOGGED TABLE bench.ceiling_rows AS
SELECT batch, position, id, debit, 1 + (debit + step) % :accounts AS credit
  FROM bench.picked;
CREATE INDEX ON bench.ceiling_rows (batch, position);

-- What each batch changes, per account: the sums a writer would have in memory.
CREATE UNLOGGED TABLE bench.ceiling_accounts AS
SELECT batch, account_id, sum(delta)::bigint AS delta, count(*) AS postings, max(id::text)::uuid AS head_id
  FROM (SELECT batch, debit AS account_id, -100 AS delta, id FROM bench.ceiling_rows
        UNION ALL
        SELECT batch, credit, 100, id FROM bench.ceiling_rows) AS p
 GROUP BY batch, account_id;
CREATE INDEX ON bench.ceiling_accounts (batch, account_id);
VACUUM (ANALYZE) bench.ceiling_rows, bench.ceiling_accounts;
