-- Kept rejections, for replays and for finding out what became of a batch.
-- Parameters: $1 uuid[] ids. Rows: those that exist. Locks: none.
SELECT id, reason, account_id
  FROM rejections
 WHERE id = ANY ($1)
