-- One transfer.
-- Parameters: $1 uuid. Rows: 0 or 1. Locks: none.
-- Plan: one partition, pruned when executed; its primary key.
SELECT t.id, t.debit_account_id, t.credit_account_id, t.amount, t.currency_id,
       t.debit_balance, t.credit_balance, t.debit_version, t.credit_version,
       t.commit_id, t.position,
       floor(extract(epoch FROM t.effective_at) * 1000)::bigint AS effective_at_ms,
       t.group_id, t.reverses, t.reference, t.category, t.metadata::text AS metadata
  FROM transfers t
 WHERE t.id = $1
