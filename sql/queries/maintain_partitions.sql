-- Every partition of the three partitioned tables, and what an interrupted run
-- of `engine maintain` left behind (detached, marked by its comment, not dropped).
-- Parameters: $1 text, the mark.
-- Rows: parent text, parent_name text, name text (both quoted and qualified),
--   state smallint (0 attached, 1 detach begun, 2 detached), lower_ms and
--   upper_ms bigint (Unix epoch; null on the open end or when detached), now_ms
--   bigint. Oldest first.
-- Locks: ACCESS SHARE on key_periods and the catalogs.
WITH parents AS (
    SELECT p.oid, p.relname, p.relnamespace, n.nspname
      FROM pg_class p
      JOIN pg_namespace n ON n.oid = p.relnamespace
     WHERE p.oid IN (to_regclass('transfers'), to_regclass('rejections'), to_regclass('idempotency_keys'))
), children AS (
    SELECT p.relname AS parent, p.nspname, c.relname,
           CASE WHEN i.inhrelid IS NULL THEN 2 WHEN i.inhdetachpending THEN 1 ELSE 0 END AS state,
           pg_get_expr(c.relpartbound, c.oid) AS bound
      FROM parents p
      JOIN pg_class c ON c.relnamespace = p.relnamespace AND c.relkind = 'r'
      LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = p.oid
     WHERE i.inhrelid IS NOT NULL
        OR (NOT c.relispartition
            AND left(c.relname, length(p.relname)) = p.relname
            AND obj_description(c.oid, 'pg_class') = $1)
), bounds AS (
    SELECT c.*,
           -- The first 48 bits of a bound are its time in milliseconds.
           ('x' || translate(left(substring(bound FROM 'FROM \(''([0-9a-f-]{36})''\)'), 13), '-', ''))::bit(48)::bigint AS lower_ms,
           ('x' || translate(left(substring(bound FROM 'TO \(''([0-9a-f-]{36})''\)'), 13), '-', ''))::bit(48)::bigint AS upper_ms,
           substring(bound FROM 'IN \((\d+)\)')::integer AS period
      FROM children c
)
SELECT b.parent::text AS parent,
       format('%I.%I', b.nspname, b.parent) AS parent_name,
       format('%I.%I', b.nspname, b.relname) AS name,
       b.state::smallint AS state,
       coalesce(b.lower_ms, floor(extract(epoch FROM k.starts_at) * 1000)::bigint) AS lower_ms,
       coalesce(b.upper_ms, floor(extract(epoch FROM k.ends_at) * 1000)::bigint) AS upper_ms,
       floor(extract(epoch FROM now()) * 1000)::bigint AS now_ms
  FROM bounds b
  LEFT JOIN key_periods k ON k.period = b.period
 ORDER BY parent, lower_ms NULLS FIRST, name
