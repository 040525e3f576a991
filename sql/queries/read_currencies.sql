-- Every currency.
-- Parameters: none. Rows: all, about 150. Locks: none.
-- Plan: primary key index scan.
SELECT id, code, digits
  FROM currencies
 ORDER BY id
