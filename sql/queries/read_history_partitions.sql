-- The partitions of transfers, oldest first, and which can be searched by
-- account: those with a B-tree on (debit_account_id, id) and one on
-- (credit_account_id, id), which `engine maintain` builds when a month is over.
-- Parameters: none. Rows: one per partition; a null bound is an open one.
-- Locks: none. Plan: catalog look-ups, a handful per partition.
SELECT bounds.text = 'DEFAULT' AS is_default,
       substring(bounds.text FROM 'FROM \(''([0-9a-f-]{36})''\)')::uuid AS low,
       substring(bounds.text FROM 'TO \(''([0-9a-f-]{36})''\)')::uuid AS high,
       (SELECT count(DISTINCT a.attname) = 2
          FROM pg_index x
          JOIN pg_class c ON c.oid = x.indexrelid
          JOIN pg_am m ON m.oid = c.relam
          JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
          JOIN pg_attribute b ON b.attrelid = x.indrelid AND b.attnum = x.indkey[1]
         WHERE x.indrelid = p.oid
           AND x.indisvalid
           AND x.indpred IS NULL
           AND x.indnkeyatts >= 2
           AND m.amname = 'btree'
           AND a.attname IN ('debit_account_id', 'credit_account_id')
           AND b.attname = 'id') AS indexed
  FROM pg_inherits i
  JOIN pg_class p ON p.oid = i.inhrelid
 CROSS JOIN LATERAL pg_get_expr(p.relpartbound, p.oid) AS bounds (text)
 WHERE i.inhparent = 'transfers'::regclass
 ORDER BY low NULLS FIRST
