-- Proves that no two keys lead to one transfer or refusal: else two requests were
-- answered and only one was done.
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all. With it: only
--   keys of answers since.
-- Rows: none unless broken: the answer and how many keys share it.
-- Locks: ACCESS SHARE. Cost: two scans of keys, hashed by answer.
WITH repeated AS (
    -- Few: the copies of keys used near a boundary of periods.
    SELECT txn_id
      FROM idempotency_keys
     WHERE txn_id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
     GROUP BY txn_id
    HAVING count(*) > 1
)
SELECT k.txn_id, count(DISTINCT k.key) AS keys
  FROM idempotency_keys k
  JOIN repeated USING (txn_id)
 GROUP BY k.txn_id
HAVING count(DISTINCT k.key) > 1
