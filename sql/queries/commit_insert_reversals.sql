-- Marks originals as reversed; a second reversal breaks the primary key.
-- Parameters: $1 uuid[] originals, $2 uuid[] reversals, paired. Rows: none. Locks: none.
INSERT INTO reversals (original_id, reversal_id)
SELECT * FROM unnest($1::uuid[], $2::uuid[])
