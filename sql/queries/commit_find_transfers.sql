-- Stored transfers, for replays and for finding out what became of a batch.
-- Parameters: $1 uuid[] ids. Rows: those that exist. Locks: none.
SELECT id, debit_account_id, credit_account_id, amount, currency_id
  FROM transfers
 WHERE id = ANY ($1)
