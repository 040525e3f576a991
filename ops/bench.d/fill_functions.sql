-- The full side's history in closed form.
--
-- The accounts stand in a ring. Transfer i moves 1.00 from the account at place
-- i mod n to the next one, so in each round of n transfers every account is
-- credited once and debited once. Everything a row must say about balances,
-- versions and previous transfers follows from i alone, and `engine verify`
-- finds the result as true as what the engine wrote itself.
CREATE SCHEMA IF NOT EXISTS bench;

-- The id of transfer i: 2,000 in each millisecond, in order.
CREATE OR REPLACE FUNCTION bench.id_of(i bigint, first_ms bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(int8send(((first_ms + i / 2000) << 16) | 28672 | (i % 2000))
                  || int8send((hashint8extended(i, 0) & 4611686018427387903) + (-9223372036854775807 - 1)), 'hex')::uuid
$$;

-- One row: where the history begins, and the commit number of its first batch.
CREATE TABLE bench.fill AS
SELECT max(('x' || translate(left(head_id::text, 13), '-', ''))::bit(48)::bigint) + 1 AS first_ms,
       0::bigint AS first_commit,
       (SELECT period FROM key_periods WHERE now() >= starts_at AND now() < ends_at) AS period
  FROM accounts;

-- The newest transfer of each account before the fill: its funding.
CREATE TABLE bench.fill_heads AS
SELECT id, balance, version, head_id FROM accounts WHERE id > 0;
CREATE UNIQUE INDEX ON bench.fill_heads (id);
