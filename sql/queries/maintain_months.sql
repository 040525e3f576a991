-- The months that need a partition, by the database's clock, in UTC.
-- Parameters: $1 integer, months ahead of the current one.
-- Rows: suffix text ('2026_11'), starts_ms bigint, ends_ms bigint (Unix epoch),
--   oldest first. The first is the month of yesterday: on the first of a month an
--   engine whose clock is behind still makes ids of the month before.
-- Locks: none.
SELECT to_char(month, 'YYYY_MM'),
       extract(epoch FROM month)::bigint * 1000,
       extract(epoch FROM month + interval '1 month')::bigint * 1000
  FROM generate_series(
           date_trunc('month', (now() AT TIME ZONE 'UTC') - interval '1 day'),
           date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => $1),
           interval '1 month') AS month
 ORDER BY month
