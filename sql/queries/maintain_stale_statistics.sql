-- The partitioned tables whose statistics as a whole are missing, or are of a
-- table that was a tenth smaller or larger.
-- Parameters: none.
-- Rows: table_name text, quoted and qualified; at most three.
-- Locks: none. Row counts are PostgreSQL's estimates: a partition's is kept by
--   autovacuum, the whole's only by ANALYZE.
SELECT format('%I.%I', n.nspname, p.relname) AS table_name
  FROM pg_class p
  JOIN pg_namespace n ON n.oid = p.relnamespace
 CROSS JOIN LATERAL (
       SELECT sum(greatest(c.reltuples, 0)) AS tuples
         FROM pg_inherits i
         JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = p.oid) AS leaves
 WHERE p.oid IN ('transfers'::regclass, 'rejections'::regclass, 'idempotency_keys'::regclass)
   AND abs(leaves.tuples - greatest(p.reltuples, 0)) > 0.1 * leaves.tuples
 ORDER BY table_name
