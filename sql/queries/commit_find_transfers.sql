-- Stored transfers, for replays and for finding out what became of a batch.
-- Joined rather than `= ANY`: each id is then looked for in its partition alone.
-- Parameters: $1 uuid[] ids. Rows: those that exist. Locks: none.
SELECT t.id, t.debit_account_id, t.credit_account_id, t.amount, t.currency_id
  FROM unnest($1::uuid[]) AS asked (id)
  JOIN transfers AS t ON t.id = asked.id
