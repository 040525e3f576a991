-- The server's clock, milliseconds since the Unix epoch.
-- Parameters: none. Rows: 1. Locks: none. Plan: a function call.
SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS unix_ms
