-- Proves that every idempotency key leads to the transfer or the refusal that
-- answered it.
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all. With it: only
--   keys of answers since.
-- Rows: none unless broken: the key and the id that leads nowhere.
-- Locks: ACCESS SHARE. Cost: one scan of keys, transfers and rejections, hashed by id.
SELECT k.key, k.period, k.txn_id
  FROM idempotency_keys k
 WHERE k.txn_id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
   AND NOT EXISTS (SELECT FROM transfers t
                    WHERE t.id = k.txn_id
                      AND t.id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000'))
   AND NOT EXISTS (SELECT FROM rejections r
                    WHERE r.id = k.txn_id
                      AND r.id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000'))
