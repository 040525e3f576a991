-- What a key led to.
-- Parameters: $1 uuid, the key's hash. Rows: 0 or 1. Locks: none.
-- Plan: the primary key of every period, a handful of look-ups. A key written
--   near a boundary stands in two, saying the same.
SELECT fingerprint, txn_id
  FROM idempotency_keys
 WHERE key = $1
 ORDER BY period DESC
 LIMIT 1
