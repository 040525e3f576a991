-- What a server is, asked several times a second by every engine.
-- Rows, as text: one: in recovery; read-only; system identifier; timeline of the
-- WAL it writes (null on a standby); whether a WAL receiver runs, and its timeline;
-- bytes of WAL flushed (primary) or replayed (standby); fsync;
-- synchronous_standby_names; synchronous standbys that follow (null if the role may
-- not see them: grant pg_read_all_stats), all that follow, and the longest delay in
-- ms until one of them had flushed; whether the storage replicates. Locks: none. Plan: function calls.
SELECT pg_is_in_recovery(),
       current_setting('transaction_read_only'),
       (SELECT system_identifier FROM pg_control_system()),
       CASE WHEN NOT pg_is_in_recovery()
            THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint
       END,
       EXISTS (SELECT FROM pg_stat_wal_receiver),
       (SELECT received_tli FROM pg_stat_wal_receiver),
       pg_wal_lsn_diff(
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END, '0/0'
       )::bigint,
       current_setting('fsync'),
       current_setting('synchronous_standby_names'),
       standbys.sync_following,
       standbys.following,
       standbys.lag_ms,
       false
  FROM (SELECT CASE WHEN count(*) = count(state)
                    THEN count(*) FILTER (WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum'))
               END AS sync_following,
               count(*) FILTER (WHERE state IS NULL OR state = 'streaming') AS following,
               max(extract(epoch FROM flush_lag) * 1000)::bigint AS lag_ms
          FROM pg_stat_replication) AS standbys
