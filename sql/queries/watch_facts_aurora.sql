-- As watch_facts.sql, on Amazon Aurora: pg_stat_replication shows nothing, for the
-- storage replicates; other regions of a global database are in
-- aurora_global_db_status(), where -1 marks the primary's own.
-- Rows, as text: one, the columns of watch_facts.sql. Locks: none.
SELECT pg_is_in_recovery(),
       current_setting('transaction_read_only'),
       (SELECT system_identifier FROM pg_control_system()),
       CASE WHEN NOT pg_is_in_recovery()
            THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint
       END,
       false,
       NULL,
       NULL,
       'on',
       '',
       NULL,
       regions.following,
       regions.lag_ms,
       true
  FROM (SELECT count(*) AS following, max(rpo_lag_in_msec)::bigint AS lag_ms
          FROM aurora_global_db_status()
         WHERE rpo_lag_in_msec >= 0) AS regions
