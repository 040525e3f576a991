-- Closes a batch. Written even when nothing else is: the commit then has WAL to
-- wait for, which makes what the batch read durable before it is answered.
-- Where the session demands a synchronous standby and none would be waited for,
-- this divides by zero, so that the COMMIT behind it rolls back.
-- Parameters: $1 id, $2 engine, $3 transfers, $4 rejections. Rows: none. Locks: none.
INSERT INTO commits (id, engine_id, transfer_count, rejection_count) OVERRIDING SYSTEM VALUE
VALUES ($1::bigint, $2::uuid, $3::integer,
        $4::integer / (CASE WHEN current_setting('engine.durability', true) = 'sync-standby'
              AND current_setting('synchronous_standby_names') = '' THEN 0 ELSE 1 END))
