-- Writes the balances a batch leads to.
-- Parameters: $1 bigint[] ids, $2 bigint[] balances, $3 bigint[] versions,
-- $4 uuid[] heads, paired; $5 how many.
-- Rows: one. A count other than $5 divides by zero, so that the COMMIT which
-- follows in the same round trip rolls back instead.
-- Locks: the rows are locked already. No index covers a changed column.
WITH changed AS (
    UPDATE accounts AS a
       SET balance = ($2::bigint[])[n], version = ($3::bigint[])[n], head_id = ($4::uuid[])[n], updated_at = now()
      FROM generate_series(1, $5::integer) AS n
     WHERE a.id = ($1::bigint[])[n]
    RETURNING 1
)
SELECT 1 / (CASE count(*) WHEN $5::integer THEN 1 ELSE 0 END)
  FROM changed
