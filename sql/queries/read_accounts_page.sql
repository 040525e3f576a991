-- Accounts by id, from one on.
-- Parameters: $1 bigint, the id before the first (-1: from the start);
--   $2 bigint rows. Rows: at most $2. Locks: none.
-- Plan: primary key range, in order.
SELECT id, currency_id, balance, min_balance, debits_pending, version, head_id, status,
       name, owner,
       floor(extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       floor(extract(epoch FROM updated_at) * 1000)::bigint AS updated_at_ms
  FROM accounts
 WHERE id > $1
 ORDER BY id
 LIMIT $2
