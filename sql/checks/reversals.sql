-- Proves that every reversal takes back one transfer that exists, with the sides
-- swapped and the same amount and currency, later than it, and that `reversals`
-- (whose primary key allows one per transfer) has exactly these.
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all. With it: only
--   reversals made since, whenever their originals were.
-- Rows: none unless broken: the pair; `listed` is false where its row is missing.
-- Locks: ACCESS SHARE. Cost: one scan of transfers, joined to itself by id for the
--   few that reverse.
SELECT r.id AS reversal_id, r.reverses AS original_id, l.original_id IS NOT NULL AS listed,
       r.amount, o.amount AS original_amount
  FROM transfers r
  LEFT JOIN reversals l ON l.original_id = r.reverses AND l.reversal_id = r.id
  LEFT JOIN transfers o ON o.id = r.reverses
 WHERE r.reverses IS NOT NULL
   AND r.id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
   AND (l.original_id IS NULL
        OR (o.credit_account_id, o.debit_account_id, o.amount, o.currency_id)
           IS DISTINCT FROM (r.debit_account_id, r.credit_account_id, r.amount, r.currency_id)
        OR r.id <= o.id)
UNION ALL
SELECT l.reversal_id, l.original_id, true, r.amount, NULL
  FROM reversals l
  LEFT JOIN transfers r ON r.id = l.reversal_id AND r.reverses = l.original_id
 WHERE l.reversal_id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
   AND r.id IS NULL
