-- The indexes by account on partitions of transfers, finished or not.
-- Parameters: none.
-- Rows: one per index: table_name text and index_name text (both quoted and
--   qualified), account_column text, is_valid boolean (false: its build was cut
--   off, or goes on).
-- Locks: none. What counts as such an index: as in read_history_partitions.sql.
SELECT format('%I.%I', n.nspname, p.relname) AS table_name,
       format('%I.%I', n.nspname, c.relname) AS index_name,
       a.attname::text AS account_column,
       x.indisvalid AS is_valid
  FROM pg_inherits i
  JOIN pg_class p ON p.oid = i.inhrelid
  JOIN pg_namespace n ON n.oid = p.relnamespace
  JOIN pg_index x ON x.indrelid = p.oid
  JOIN pg_class c ON c.oid = x.indexrelid
  JOIN pg_am m ON m.oid = c.relam
  JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
  JOIN pg_attribute b ON b.attrelid = x.indrelid AND b.attnum = x.indkey[1]
 WHERE i.inhparent = 'transfers'::regclass
   AND x.indpred IS NULL
   AND x.indnkeyatts >= 2
   AND m.amname = 'btree'
   AND a.attname IN ('debit_account_id', 'credit_account_id')
   AND b.attname = 'id'
 ORDER BY table_name, index_name
