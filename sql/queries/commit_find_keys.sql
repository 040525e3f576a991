-- Which of a batch's keys are taken, in one period. A statement of its own, after
-- the account locks are held: it needs a snapshot that sees what was committed
-- while the locks were waited for.
-- Parameters: $1 uuid[] keys. {period} is put in by the engine, and the text
-- repeated for every live period: a period known only at run time would not keep
-- the planner from searching all partitions.
-- Rows: one per key found (two when it was kept in two periods at a boundary).
-- Locks: none.
SELECT key, fingerprint, txn_id
  FROM idempotency_keys
 WHERE key = ANY ($1)
   AND period = {period}
