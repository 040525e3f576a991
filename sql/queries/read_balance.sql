-- One account's balance.
-- Parameters: $1 bigint account. Rows: 0 or 1. Locks: none.
-- Plan: primary key.
SELECT balance, version, currency_id
  FROM accounts
 WHERE id = $1
