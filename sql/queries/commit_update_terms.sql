-- Changes an account's terms.
-- Parameters: $1 bigint[] id, $2 smallint[] status, $3 bigint[] limit (null: none),
-- $4 text[] name, $5 smallint[] 1 where the name changes; arrays of one.
-- Rows: one; dividing by zero when the account is not there.
-- Locks: the row is locked already.
WITH changed AS (
    UPDATE accounts AS a
       SET status = n.status, min_balance = n.min_balance, updated_at = now(),
           name = CASE n.rename WHEN 1 THEN n.name ELSE a.name END
      FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::text[], $5::smallint[]) AS n (id, status, min_balance, name, rename)
     WHERE a.id = n.id
    RETURNING 1
)
SELECT 1 / (CASE count(*) WHEN 1 THEN 1 ELSE 0 END)
  FROM changed
