-- The accounts just asked for, whoever opened them. A statement after the
-- insert, so that its snapshot shows what the insert waited for.
-- Parameters: $1 bigint[] accounts. Rows: at most one each. Locks: none; a row
--   lock would wait behind the commits of a busy account, and the message
--   that read_durable.sql writes makes the answer as durable.
-- Plan: primary key, once per element.
SELECT id, currency_id, balance, min_balance, debits_pending, version, head_id, status,
       name, owner,
       floor(extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       floor(extract(epoch FROM updated_at) * 1000)::bigint AS updated_at_ms
  FROM accounts
 WHERE id = ANY ($1)
 ORDER BY id
