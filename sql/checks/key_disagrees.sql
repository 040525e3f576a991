-- Proves that a key that stands in two periods (it was used near their boundary)
-- says the same in both: one request, one answer.
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all. With it: only
--   keys of which an answer is since.
-- Rows: none unless broken: the key and both answers.
-- Locks: ACCESS SHARE. Cost: two scans of keys, merged or hashed by key.
SELECT a.key, a.period, a.txn_id, b.period AS other_period, b.txn_id AS other_txn_id,
       a.fingerprint = b.fingerprint AS same_request
  FROM idempotency_keys a
  JOIN idempotency_keys b ON b.key = a.key AND b.period > a.period
 WHERE (a.txn_id, a.fingerprint) IS DISTINCT FROM (b.txn_id, b.fingerprint)
   AND ($1::uuid IS NULL OR a.txn_id >= $1::uuid OR b.txn_id >= $1::uuid)
