-- Which of these transfers have a reversal. Both accounts of an original are
-- locked by whoever reverses it, so the answer cannot change before COMMIT.
-- Parameters: $1 uuid[] originals. Rows: the reversed ones. Locks: none.
SELECT original_id
  FROM reversals
 WHERE original_id = ANY ($1)
