-- Proves that every commit has the rows it says: transfers as many as counted, at
-- positions 0, 1, 2 ... without a gap, refusals as many as counted, and no row
-- without a commit.
-- Parameters: $1 uuid, lower bound on transfer ids, or null for all. With it: only
--   commits made at least an hour after its time: then all rows of a commit, whose
--   ids are made shortly before it, are since.
-- Refusals are counted for the last 31 days: older ones may have been dropped.
-- Rows: none unless broken: the commit, its counts and its rows.
-- Locks: ACCESS SHARE. Cost: one scan of transfers, rejections and commits, and a
--   sort of (commit_id, position).
WITH since AS (
    SELECT coalesce(
               to_timestamp(('x' || translate(left($1::uuid::text, 13), '-', ''))::bit(48)::bigint / 1000.0)
               + interval '1 hour',
               '-infinity') AS at
), counted AS (
    SELECT commit_id, count(*) AS transfers, min(position) AS first_position,
           max(position) AS last_position, count(DISTINCT position) AS positions
      FROM transfers
     WHERE id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
     GROUP BY commit_id
), refused AS (
    SELECT commit_id, count(*) AS rejections
      FROM rejections
     WHERE id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
     GROUP BY commit_id
)
SELECT coalesce(c.id, t.commit_id, r.commit_id) AS commit_id,
       c.transfer_count, coalesce(t.transfers, 0) AS transfers,
       t.first_position, t.last_position, t.positions,
       c.rejection_count, coalesce(r.rejections, 0) AS rejections
  FROM commits c
  FULL JOIN counted t ON t.commit_id = c.id
  FULL JOIN refused r ON r.commit_id = coalesce(c.id, t.commit_id)
 WHERE c.id IS NULL
    OR (c.created_at >= (SELECT at FROM since)
        AND (c.transfer_count <> coalesce(t.transfers, 0)
             OR coalesce(t.first_position, 0) <> 0
             OR coalesce(t.last_position + 1, 0) <> coalesce(t.transfers, 0)
             OR coalesce(t.positions, 0) <> coalesce(t.transfers, 0)
             OR c.rejection_count < coalesce(r.rejections, 0)
             OR (c.rejection_count <> coalesce(r.rejections, 0)
                 AND c.created_at > now() - interval '31 days')))
