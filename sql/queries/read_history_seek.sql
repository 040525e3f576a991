-- An account's newest transfer between two ids that lie in one partition, which
-- has the indexes on (debit_account_id, id) and (credit_account_id, id).
-- {low} and {high} stand for the ids, written into the text: the planner then
--   looks at that one partition alone. As parameters they would have it weigh in
--   the partitions without those indexes and walk the primary key through all
--   accounts' rows; by its own name the role may not read a partition.
-- Parameters: $1 bigint account. Rows: 0 or 1, below {high}, not below {low}.
-- Locks: none.
-- Plan: each index backwards, one row. The comparison by pairs and their order
--   leave little use for the primary key; the plain bounds choose the partition.
SELECT found.id
  FROM (
        (SELECT t.id
           FROM transfers t
          WHERE (t.debit_account_id, t.id) < ($1, '{high}')
            AND (t.debit_account_id, t.id) >= ($1, '{low}')
            AND t.id < '{high}'
            AND t.id >= '{low}'
          ORDER BY t.debit_account_id DESC, t.id DESC
          LIMIT 1)
        UNION ALL
        (SELECT t.id
           FROM transfers t
          WHERE (t.credit_account_id, t.id) < ($1, '{high}')
            AND (t.credit_account_id, t.id) >= ($1, '{low}')
            AND t.id < '{high}'
            AND t.id >= '{low}'
          ORDER BY t.credit_account_id DESC, t.id DESC
          LIMIT 1)
       ) found
 ORDER BY found.id DESC
 LIMIT 1
