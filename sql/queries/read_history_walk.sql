-- Walks one account's chain from a transfer back, newest first, and returns the
-- rows that pass the filters, and the last row stepped on whether it does or not.
--
-- Parameters:
--   $1 bigint  account whose chain it is
--   $2 uuid    first transfer of the walk
--   $3 integer steps at most
--   $4 integer hits at most
--   $5 uuid    the walk ends before a lower id (since)
--   $6 uuid    rows at or above it are no hits (until)
--   $7 bigint  debit account of a hit, or null
--   $8 bigint  credit account of a hit, or null
--   $9 bigint  account on either side of a hit, or null
--   $10 text   category of a hit, or null
--   $11 text   reference of a hit, or null
-- Rows: at most $4 + 1, in the order of the chain. Locks: none.
-- Plan: one primary key look-up per step, in the one partition that the id
--   falls in (pruned for each step), and a second one per hit, so that the
--   work table holds a few bytes a row and not the metadata. OFFSET 0 keeps
--   the planner from turning the look-up into a join over all of transfers.
WITH RECURSIVE walk (id, previous_id, step, hits, hit) AS (
    SELECT NULL::uuid, $2::uuid, 0, 0, false
    UNION ALL
    SELECT t.id, t.previous_id, w.step + 1, w.hits + t.hit::integer, t.hit
      FROM walk w
     CROSS JOIN LATERAL (
            SELECT s.id,
                   CASE s.debit_account_id WHEN $1::bigint THEN s.debit_previous_id
                                           ELSE s.credit_previous_id END AS previous_id,
                   coalesce(s.id < $6::uuid
                            AND ($7::bigint IS NULL OR s.debit_account_id = $7)
                            AND ($8::bigint IS NULL OR s.credit_account_id = $8)
                            AND ($9::bigint IS NULL OR $9 IN (s.debit_account_id, s.credit_account_id))
                            AND ($10::text IS NULL OR s.category = $10)
                            AND ($11::text IS NULL OR s.reference = $11), false) AS hit
              FROM transfers s
             WHERE s.id = w.previous_id
               -- A link to a stranger's transfer ends the walk, and is told.
               AND $1 IN (s.debit_account_id, s.credit_account_id)
            OFFSET 0) t
     WHERE w.step < $3::integer
       AND w.hits < $4::integer
       AND w.previous_id >= $5::uuid
)
SELECT w.id AS walked_id, w.previous_id, w.step, w.hits, w.hit,
       t.id, t.debit_account_id, t.credit_account_id, t.amount, t.currency_id,
       t.debit_balance, t.credit_balance, t.debit_version, t.credit_version,
       t.commit_id, t.position,
       floor(extract(epoch FROM t.effective_at) * 1000)::bigint AS effective_at_ms,
       t.group_id, t.reverses, t.reference, t.category, t.metadata::text AS metadata
  FROM walk w
  LEFT JOIN LATERAL (
        SELECT *
          FROM transfers s
         WHERE w.hit AND s.id = w.id
        OFFSET 0) t ON true
 WHERE w.step > 0
   AND (w.hit OR w.step = (SELECT max(step) FROM walk))
 ORDER BY w.step
