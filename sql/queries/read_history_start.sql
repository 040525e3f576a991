-- Where a walk along an account's chain can start: the account's newest
-- transfer, or what precedes the row that the cursor names.
-- Parameters: $1 bigint[] accounts; $2 uuid cursor or null.
-- Rows: one per account that exists. Locks: none.
-- Plan: primary key of accounts per element; primary key of transfers.
SELECT a.id, a.version, a.head_id, c.id AS cursor_id,
       c.debit_account_id, c.credit_account_id, c.debit_previous_id, c.credit_previous_id
  FROM accounts a
  LEFT JOIN transfers c ON c.id = $2
 WHERE a.id = ANY ($1)
 ORDER BY a.version, a.id
