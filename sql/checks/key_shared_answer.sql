-- Proves that no two keys lead to one transfer or refusal: else two requests were
-- answered and only one was done.
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all. With it: only
--   keys of answers since.
-- Rows: none unless broken: the answer and how many keys share it.
-- Locks: ACCESS SHARE. Cost: one scan of keys, hashed or sorted by answer.
SELECT k.txn_id, count(*) AS keys
  FROM (SELECT DISTINCT txn_id, key
          FROM idempotency_keys
         WHERE txn_id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')) AS k
 GROUP BY k.txn_id
HAVING count(*) > 1
