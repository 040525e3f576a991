-- What was looked at.
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all.
-- Rows: one: accounts, transfers and commits bigint. Accounts and commits are
--   counted whole.
-- Locks: ACCESS SHARE. Cost: one (index-only) scan of each.
SELECT (SELECT count(*) FROM accounts),
       (SELECT count(*) FROM transfers
         WHERE id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')),
       (SELECT count(*) FROM commits)
