-- One account.
-- Parameters: $1 bigint account. Rows: 0 or 1. Locks: none.
-- Plan: primary key.
SELECT id, currency_id, balance, min_balance, debits_pending, version, head_id, status,
       name, owner,
       floor(extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       floor(extract(epoch FROM updated_at) * 1000)::bigint AS updated_at_ms
  FROM accounts
 WHERE id = $1
