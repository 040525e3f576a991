-- What a key led to.
-- Parameters: $1 uuid, the key's hash. Rows: 0 or 1. Locks: none.
-- Plan: the primary key of every period (some 30 small look-ups); a key is in
--   one of them, and the newest would win.
SELECT fingerprint, txn_id
  FROM idempotency_keys
 WHERE key = $1
 ORDER BY period DESC
 LIMIT 1
