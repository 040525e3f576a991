-- Proves that every account's balance is the sum of its postings, and its version
-- their number.
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all. With it: only
--   accounts that were posted to since, from the balance before their first such
--   posting.
-- Rows: none unless broken: the account, what it says and what its postings say.
-- Locks: ACCESS SHARE. Cost: one scan of transfers (two with $1), hashed by account.
WITH postings AS NOT MATERIALIZED (
    SELECT p.account_id, p.amount, p.balance, p.version
      FROM transfers t
     CROSS JOIN LATERAL (VALUES
           (t.debit_account_id, -t.amount, t.debit_balance, t.debit_version),
           (t.credit_account_id, t.amount, t.credit_balance, t.credit_version))
        AS p (account_id, amount, balance, version)
     WHERE t.id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
), sums AS MATERIALIZED (
    SELECT account_id, sum(amount) AS amount, count(*) AS postings, min(version) AS first_version
      FROM postings
     GROUP BY account_id
), openings AS (
    -- Everything before $1, as one number per account.
    SELECT s.account_id, p.balance::numeric - p.amount AS balance, s.first_version - 1 AS version
      FROM sums s
      JOIN postings p ON p.account_id = s.account_id AND p.version = s.first_version
     WHERE $1::uuid IS NOT NULL
)
SELECT a.id AS account_id, a.balance, a.version,
       coalesce(o.balance, 0) + coalesce(s.amount, 0) AS balance_by_postings,
       coalesce(o.version, 0) + coalesce(s.postings, 0) AS version_by_postings
  FROM accounts a
  LEFT JOIN sums s ON s.account_id = a.id
  LEFT JOIN openings o ON o.account_id = a.id
 WHERE ($1::uuid IS NULL OR s.account_id IS NOT NULL)
   AND (a.balance <> coalesce(o.balance, 0) + coalesce(s.amount, 0)
        OR a.version <> coalesce(o.version, 0) + coalesce(s.postings, 0))
