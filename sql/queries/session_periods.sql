-- The spans of time that keys are kept in. Rows, as text: number, start and end
-- in milliseconds since the Unix epoch, ascending. Locks: none.
SELECT period, (extract(epoch FROM starts_at) * 1000)::bigint, (extract(epoch FROM ends_at) * 1000)::bigint
  FROM key_periods
 ORDER BY starts_at
