-- Opens the accounts that do not exist yet. The balance is the column's
-- default, zero: money enters by transfers only.
-- Parameters, arrays of one length: $1 bigint[] id, ascending and distinct;
--   $2 smallint[] currency; $3 bigint[] least balance or null; $4 text[] name
--   or null; $5 text[] owner or null.
-- Rows: the id of each account opened now. Locks: an insert waits for another
--   session that is opening the same id; both go in ascending order, so two
--   lists cannot wait for each other.
-- Plan: function scan of the arrays, sorted by id; the primary key decides.
INSERT INTO accounts (id, currency_id, min_balance, name, owner)
SELECT asked.id, asked.currency_id, asked.min_balance, asked.name, asked.owner
  FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::text[], $5::text[])
       AS asked (id, currency_id, min_balance, name, owner)
 ORDER BY asked.id
    ON CONFLICT (id) DO NOTHING
RETURNING id
