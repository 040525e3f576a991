-- Transfers of all accounts, newest first.
-- Parameters: $1 uuid, above every row; $2 uuid, at or below every row;
--   $3 bigint rows. Rows: at most $3. Locks: none.
-- Plan: the partitions between the bounds in order (an ordered Append, no
--   sort), each by primary key backwards, no further than $3 rows.
SELECT t.id, t.debit_account_id, t.credit_account_id, t.amount, t.currency_id,
       t.debit_balance, t.credit_balance, t.debit_version, t.credit_version,
       t.commit_id, t.position,
       floor(extract(epoch FROM t.effective_at) * 1000)::bigint AS effective_at_ms,
       t.group_id, t.reverses, t.reference, t.category, t.metadata::text AS metadata
  FROM transfers t
 WHERE t.id < $1
   AND t.id >= $2
 ORDER BY t.id DESC
 LIMIT $3
