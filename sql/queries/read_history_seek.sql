-- An account's newest transfer between two ids, where every partition between
-- them has the indexes on (debit_account_id, id) and (credit_account_id, id).
-- Parameters: $1 bigint account; $2 uuid above; $3 uuid at or below.
-- Rows: 0 or 1. Locks: none.
-- Plan: per side, a merge of those indexes backwards, one row each; other
--   partitions are pruned when executed by the plain bounds on id. The order
--   and the comparison by pairs leave the planner no use for the primary key,
--   which it might else walk through all accounts' rows.
SELECT found.id
  FROM (
        (SELECT t.id
           FROM transfers t
          WHERE (t.debit_account_id, t.id) < ($1::bigint, $2::uuid)
            AND (t.debit_account_id, t.id) >= ($1, $3::uuid)
            AND t.id < $2
            AND t.id >= $3
          ORDER BY t.debit_account_id DESC, t.id DESC
          LIMIT 1)
        UNION ALL
        (SELECT t.id
           FROM transfers t
          WHERE (t.credit_account_id, t.id) < ($1, $2)
            AND (t.credit_account_id, t.id) >= ($1, $3)
            AND t.id < $2
            AND t.id >= $3
          ORDER BY t.credit_account_id DESC, t.id DESC
          LIMIT 1)
       ) found
 ORDER BY found.id DESC
 LIMIT 1
