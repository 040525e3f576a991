-- Whether this server may answer: a standby may not, its rows are old.
-- Parameters: none. Rows: 1. Locks: none. Plan: a function call.
SELECT pg_is_in_recovery() AS in_recovery
