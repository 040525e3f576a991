-- Proves that every account's history is one chain: versions count from 1 without
-- a gap or a double, each balance is the one before plus the posting, ids grow, and
-- each transfer names the account's previous transfer.
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all. With it: the
--   postings since, the first of each account against the transfer it names.
-- Rows: none unless broken: the posting and what stands before it.
-- Locks: ACCESS SHARE. Cost: one scan of transfers and a sort of its postings by
--   account and version, on disk where work_mem ends.
WITH postings AS (
    SELECT p.account_id, p.version, p.balance, p.amount, t.id, p.previous_id,
           lag(p.version) OVER history AS before_version,
           lag(p.balance) OVER history AS before_balance,
           lag(t.id) OVER history AS before_id
      FROM transfers t
     CROSS JOIN LATERAL (VALUES
           (t.debit_account_id, -t.amount, t.debit_balance, t.debit_version, t.debit_previous_id),
           (t.credit_account_id, t.amount, t.credit_balance, t.credit_version, t.credit_previous_id))
        AS p (account_id, amount, balance, version, previous_id)
     WHERE t.id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
    WINDOW history AS (PARTITION BY p.account_id ORDER BY p.version)
), linked AS (
    SELECT p.account_id, p.id AS transfer_id, p.version, p.balance, p.amount, p.previous_id,
           coalesce(p.before_id, e.id) AS before_id,
           coalesce(p.before_version,
                    CASE p.account_id WHEN e.debit_account_id THEN e.debit_version
                                      WHEN e.credit_account_id THEN e.credit_version END,
                    0) AS before_version,
           coalesce(p.before_balance,
                    CASE p.account_id WHEN e.debit_account_id THEN e.debit_balance
                                      WHEN e.credit_account_id THEN e.credit_balance END,
                    0) AS before_balance
      FROM postings p
      -- Only at the edge of the window, so never without $1.
      LEFT JOIN transfers e ON $1::uuid IS NOT NULL
                           AND p.before_id IS NULL
                           AND e.id = p.previous_id
)
SELECT account_id, transfer_id, version, balance, amount, previous_id,
       before_id, before_version, before_balance
  FROM linked
 WHERE version <> before_version + 1
    OR balance <> before_balance::numeric + amount
    OR previous_id IS DISTINCT FROM before_id
    OR transfer_id <= before_id
