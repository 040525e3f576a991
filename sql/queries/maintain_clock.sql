-- The database's clock and the newest key period, from which the next follow.
-- Parameters: none.
-- Rows: one: now_ms bigint, day_ms bigint (UTC midnight before it), period
--   integer and ends_ms bigint of the newest period (null: there is none).
-- Locks: ACCESS SHARE on key_periods.
SELECT floor(extract(epoch FROM now()) * 1000)::bigint,
       extract(epoch FROM date_trunc('day', now() AT TIME ZONE 'UTC'))::bigint * 1000,
       k.period,
       floor(extract(epoch FROM k.ends_at) * 1000)::bigint
  FROM (SELECT) AS one
  LEFT JOIN (SELECT period, ends_at FROM key_periods ORDER BY ends_at DESC LIMIT 1) AS k ON true
