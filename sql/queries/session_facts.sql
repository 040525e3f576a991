-- Whether this session can take commits that last. Rows, as text: "t" in
-- recovery, "on" read-only, backend pid, database time in
-- ms, system identifier, timeline (of the WAL being written). Locks: none.
SELECT pg_is_in_recovery(),
       current_setting('transaction_read_only'),
       pg_backend_pid(),
       (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
       (SELECT system_identifier FROM pg_control_system()),
       CASE WHEN pg_is_in_recovery() THEN NULL
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint
       END
