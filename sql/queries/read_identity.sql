-- Which history this database has: two databases (or one before and after a
-- promotion or a restore) that answer alike share every version ever counted.
-- Parameters: none. Rows: 1. Locks: none. Plan: function calls.
-- The timeline is that of the next WAL record, the first eight hex digits of a
-- WAL file's name: pg_control_checkpoint() would show the old one for a while
-- after a promotion. A standby writes no WAL and has none to tell.
SELECT system_identifier,
       CASE WHEN pg_is_in_recovery() THEN NULL
            ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8)
       END AS timeline_hex
  FROM pg_control_system()
