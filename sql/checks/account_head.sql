-- Proves that every account's head is its newest transfer: that transfer exists, is
-- the account's, and left it with the version and balance the account has.
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all. With it: only
--   accounts whose head is since.
-- Rows: none unless broken: the account and what its head says.
-- Locks: ACCESS SHARE. Cost: one scan of accounts, joined to transfers by id.
SELECT a.id AS account_id, a.version, a.balance, a.head_id, t.id AS transfer_id,
       CASE a.id WHEN t.debit_account_id THEN t.debit_version
                 WHEN t.credit_account_id THEN t.credit_version END AS head_version,
       CASE a.id WHEN t.debit_account_id THEN t.debit_balance
                 WHEN t.credit_account_id THEN t.credit_balance END AS head_balance
  FROM accounts a
  LEFT JOIN transfers t ON t.id = a.head_id
 WHERE (($1::uuid IS NULL AND a.version > 0) OR a.head_id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000'))
   AND (CASE a.id WHEN t.debit_account_id THEN t.debit_version
                  WHEN t.credit_account_id THEN t.credit_version END IS DISTINCT FROM a.version
        OR CASE a.id WHEN t.debit_account_id THEN t.debit_balance
                     WHEN t.credit_account_id THEN t.credit_balance END IS DISTINCT FROM a.balance)
