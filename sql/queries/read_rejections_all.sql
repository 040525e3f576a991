-- Kept rejections of all accounts, newest first.
-- Parameters: $1 uuid, above every row; $2 uuid, at or below every row;
--   $3 bigint rows. Rows: at most $3. Locks: none.
-- Plan: the partitions between the bounds in order (an ordered Append, no
--   sort), each by primary key backwards, no further than $3 rows.
SELECT r.id, r.debit_account_id, r.credit_account_id, r.account_id, r.amount::text AS amount,
       r.reason, r.commit_id, r.reverses, r.reference, r.category, r.metadata::text AS metadata
  FROM rejections r
 WHERE r.id < $1
   AND r.id >= $2
 ORDER BY r.id DESC
 LIMIT $3
