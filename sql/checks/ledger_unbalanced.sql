-- Proves conservation: in every ledger (currency) all balances add up to zero.
-- Parameters: $1 uuid, ignored: a sum over all accounts has no since.
-- Rows: none unless broken: the currency and what is too much or missing.
-- Locks: ACCESS SHARE. Cost: one scan of accounts.
SELECT c.code AS currency, a.currency_id, sum(a.balance) AS sum_of_balances
  FROM accounts a
  LEFT JOIN currencies c ON c.id = a.currency_id
 WHERE $1::uuid IS NULL OR true
 GROUP BY c.code, a.currency_id
HAVING sum(a.balance) <> 0
