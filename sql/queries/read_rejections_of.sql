-- Kept rejections of an account, newest first, those that pass the filters, and
-- the last row looked at whether it does or not.
--
-- Parameters:
--   $1 bigint  debit account looked up, or null
--   $2 bigint  credit account looked up, or null; a row is found by either
--   $3 uuid    above every row
--   $4 uuid    at or below every row
--   $5 bigint  rows looked at, at most
--   $6 bigint  hits at most
--   $7 bigint  debit account of a hit, or null
--   $8 bigint  credit account of a hit, or null
--   $9 bigint  account on either side of a hit, or null
--   $10 text   category of a hit, or null
--   $11 text   reference of a hit, or null
-- Rows: at most $6 + 1, newest first. Locks: none.
-- Plan: rejections_debit and rejections_credit backwards per partition, each
--   no further than $5 rows; merged; the hits again by primary key.
WITH looked_at AS MATERIALIZED (
    SELECT found.id, found.hit,
           row_number() OVER newest_first AS step,
           count(*) FILTER (WHERE found.hit) OVER newest_first AS hits
      FROM (
            (SELECT s.id,
                    coalesce(($7::bigint IS NULL OR s.debit_account_id = $7)
                             AND ($8::bigint IS NULL OR s.credit_account_id = $8)
                             AND ($9::bigint IS NULL OR $9 IN (s.debit_account_id, s.credit_account_id))
                             AND ($10::text IS NULL OR s.category = $10)
                             AND ($11::text IS NULL OR s.reference = $11), false) AS hit
               FROM rejections s
              WHERE s.debit_account_id = $1::bigint
                AND s.id < $3::uuid
                AND s.id >= $4::uuid
              ORDER BY s.id DESC
              LIMIT $5::bigint)
            UNION ALL
            (SELECT s.id,
                    coalesce(($7 IS NULL OR s.debit_account_id = $7)
                             AND ($8 IS NULL OR s.credit_account_id = $8)
                             AND ($9 IS NULL OR $9 IN (s.debit_account_id, s.credit_account_id))
                             AND ($10 IS NULL OR s.category = $10)
                             AND ($11 IS NULL OR s.reference = $11), false)
               FROM rejections s
              WHERE s.credit_account_id = $2::bigint
                -- Found by its other side already.
                AND s.debit_account_id IS DISTINCT FROM $1
                AND s.id < $3
                AND s.id >= $4
              ORDER BY s.id DESC
              LIMIT $5)
           ) found
    WINDOW newest_first AS (ORDER BY found.id DESC)
     ORDER BY found.id DESC
     LIMIT $5
), page AS (
    SELECT l.id, l.hit, l.step, l.hits,
           l.step = max(l.step) OVER () AS is_last
      FROM looked_at l
     -- Up to and including the last hit asked for.
     WHERE l.hits - l.hit::integer < $6::bigint
)
SELECT p.id AS walked_id, p.step, p.hits, p.hit,
       r.id, r.debit_account_id, r.credit_account_id, r.account_id, r.amount::text AS amount,
       r.reason, r.commit_id, r.reverses, r.reference, r.category, r.metadata::text AS metadata
  FROM page p
  LEFT JOIN LATERAL (
        SELECT *
          FROM rejections s
         WHERE p.hit AND s.id = p.id
        OFFSET 0) r ON true
 WHERE p.hit OR p.is_last
 ORDER BY p.step
