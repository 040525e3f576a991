-- One kept rejection.
-- Parameters: $1 uuid. Rows: 0 or 1. Locks: none.
-- Plan: one partition, pruned when executed; its primary key.
SELECT r.id, r.debit_account_id, r.credit_account_id, r.account_id, r.amount::text AS amount,
       r.reason, r.commit_id, r.reverses, r.reference, r.category, r.metadata::text AS metadata
  FROM rejections r
 WHERE r.id = $1
