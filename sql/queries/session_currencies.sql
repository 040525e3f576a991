-- Every currency. Rows, as text: numeric code, letters, fraction digits. Locks: none.
SELECT id, code, digits
  FROM currencies
