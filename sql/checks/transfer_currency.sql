-- Proves that every transfer is between two accounts that exist, in the one currency
-- of both (what foreign keys would prove, and more).
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all. With it: only
--   transfers since.
-- Rows: none unless broken: the transfer and the currencies; null: no such account.
-- Locks: ACCESS SHARE. Cost: one scan of transfers, accounts hashed twice.
SELECT t.id AS transfer_id, t.currency_id,
       t.debit_account_id, d.currency_id AS debit_currency_id,
       t.credit_account_id, c.currency_id AS credit_currency_id
  FROM transfers t
  LEFT JOIN accounts d ON d.id = t.debit_account_id
  LEFT JOIN accounts c ON c.id = t.credit_account_id
 WHERE t.id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
   AND (d.currency_id IS DISTINCT FROM t.currency_id OR c.currency_id IS DISTINCT FROM t.currency_id)
