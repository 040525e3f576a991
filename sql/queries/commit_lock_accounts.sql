-- Locks the accounts of a batch and reads what its fold decides by.
-- Parameters: $1 bigint[], distinct, ascending.
-- Rows: one per account that exists, ascending by id; the last column is the
-- database's time at BEGIN, which decides the period of the batch's keys.
-- Locks: FOR UPDATE on each row, taken in ascending order (after the sort), the
-- one order every engine uses, so that two engines cannot deadlock.
SELECT id, balance, min_balance, debits_pending, version, currency_id, status, head_id, now()
  FROM accounts
 WHERE id = ANY ($1)
 ORDER BY id
   FOR UPDATE
