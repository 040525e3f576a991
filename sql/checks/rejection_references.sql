-- Proves that every refusal speaks of accounts and of an original that exist.
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all. With it: only
--   refusals since.
-- Rows: none unless broken: the refusal; false: no such row.
-- Locks: ACCESS SHARE. Cost: one scan of rejections, accounts hashed thrice.
SELECT r.id AS rejection_id,
       r.debit_account_id, d.id IS NOT NULL AS debit_account_exists,
       r.credit_account_id, c.id IS NOT NULL AS credit_account_exists,
       r.account_id, a.id IS NOT NULL AS account_exists,
       r.reverses, o.id IS NOT NULL AS original_exists
  FROM rejections r
  LEFT JOIN accounts d ON d.id = r.debit_account_id
  LEFT JOIN accounts c ON c.id = r.credit_account_id
  LEFT JOIN accounts a ON a.id = r.account_id
  LEFT JOIN transfers o ON o.id = r.reverses
 WHERE r.id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
   AND (d.id IS NULL OR c.id IS NULL OR a.id IS NULL OR (r.reverses IS NOT NULL AND o.id IS NULL))
