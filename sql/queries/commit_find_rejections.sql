-- Kept rejections, for replays and for finding out what became of a batch.
-- Parameters: $1 uuid[] ids. Rows: those that exist. Locks: none.
SELECT r.id, r.reason, r.account_id
  FROM unnest($1::uuid[]) AS asked (id)
  JOIN rejections AS r ON r.id = asked.id
