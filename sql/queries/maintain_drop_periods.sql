-- Forgets the periods whose partition is gone.
-- Parameters: $1 bigint, now_ms minus the retention (Unix epoch): a second guard,
--   so that no live period can be forgotten.
-- Rows: none.
-- Locks: ROW EXCLUSIVE on key_periods.
DELETE FROM key_periods AS k
 WHERE k.ends_at < 'epoch'::timestamptz + $1::bigint * interval '1 millisecond'
   AND NOT EXISTS (
       SELECT
         FROM pg_inherits i
         JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'idempotency_keys'::regclass
          AND pg_get_expr(c.relpartbound, c.oid) = format('FOR VALUES IN (%s)', k.period))
