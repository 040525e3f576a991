-- Writes the balances a batch leads to, and the terms it changes, of which the
-- checks see only the outcome.
-- Parameters, paired: $1 bigint[] ids, $2 bigint[] balances, $3 bigint[] versions,
-- $4 uuid[] heads, $6 smallint[] status, $7 bigint[] limits (null: none), $8 text[]
-- names, $9 smallint[] 1 where the name changes; $5 how many.
-- Rows: one. A count other than $5 divides by zero, so that the COMMIT which
-- follows in the same round trip rolls back instead.
-- Locks: the rows are locked already. No index covers a changed column.
WITH changed AS (
    UPDATE accounts AS a
       SET balance = n.balance, version = n.version, head_id = n.head_id, status = n.status,
           min_balance = n.min_balance, updated_at = now(),
           name = CASE n.renamed WHEN 1 THEN n.name ELSE a.name END
      FROM unnest(
               $1::bigint[], $2::bigint[], $3::bigint[], $4::uuid[], $6::smallint[], $7::bigint[], $8::text[],
               $9::smallint[]
           ) AS n (id, balance, version, head_id, status, min_balance, name, renamed)
     WHERE a.id = n.id
    RETURNING 1
)
SELECT 1 / (CASE count(*) WHEN $5::integer THEN 1 ELSE 0 END)
  FROM changed
