-- An account's newest transfer below an id within one partition that has the
-- indexes on (debit_account_id, id) and (credit_account_id, id).
-- {partition} stands for the partition's quoted name, as the catalog gave it:
--   asked of transfers as a whole, the planner weighs in the partitions without
--   those indexes and walks the primary key through all accounts' rows.
-- Parameters: $1 bigint account; $2 uuid. Rows: 0 or 1. Locks: none.
-- Plan: each index backwards, one row. The comparison by pairs and their order
--   leave no use for the primary key.
SELECT found.id
  FROM (
        (SELECT t.id
           FROM {partition} t
          WHERE (t.debit_account_id, t.id) < ($1, $2)
            AND (t.debit_account_id, t.id) >= ($1, '00000000-0000-0000-0000-000000000000')
          ORDER BY t.debit_account_id DESC, t.id DESC
          LIMIT 1)
        UNION ALL
        (SELECT t.id
           FROM {partition} t
          WHERE (t.credit_account_id, t.id) < ($1, $2)
            AND (t.credit_account_id, t.id) >= ($1, '00000000-0000-0000-0000-000000000000')
          ORDER BY t.credit_account_id DESC, t.id DESC
          LIMIT 1)
       ) found
 ORDER BY found.id DESC
 LIMIT 1
