-- Which migrations were applied.
-- Parameters: none.
-- Rows: version integer, name text, checksum text; one per migration, oldest first.
-- Locks: ACCESS SHARE on refinery_schema_history.
SELECT version, name::text, checksum::text
  FROM refinery_schema_history
 ORDER BY version
