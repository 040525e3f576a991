-- Whether this is Amazon Aurora, whose catalog differs.
-- Rows, as text: one truth value. Locks: none.
SELECT to_regprocedure('aurora_global_db_status()') IS NOT NULL
