-- Proves that no account is below its limit, what is reserved counted as gone.
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all. With it: only
--   accounts whose newest transfer is since.
-- Rows: none unless broken: the account.
-- Locks: ACCESS SHARE. Cost: one scan of accounts.
SELECT id AS account_id, balance, debits_pending, min_balance
  FROM accounts
 WHERE balance::numeric - debits_pending < min_balance
   AND ($1::uuid IS NULL OR head_id >= $1::uuid)
