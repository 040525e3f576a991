-- Writes the balances a batch leads to.
-- Parameters: $1 bigint[] ids, $2 bigint[] balances, $3 bigint[] versions,
-- $4 uuid[] heads, paired; $5 how many.
-- Rows: one. A count other than $5 divides by zero, so that the COMMIT which
-- follows in the same round trip rolls back instead.
-- Locks: the rows are locked already. No index covers a changed column.
WITH changed AS (
    UPDATE accounts AS a
       SET balance = n.balance, version = n.version, head_id = n.head_id, updated_at = now()
      FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::uuid[]) AS n (id, balance, version, head_id)
     WHERE a.id = n.id
    RETURNING 1
)
SELECT 1 / (CASE count(*) WHEN $5::bigint THEN 1 ELSE 0 END)
  FROM changed
