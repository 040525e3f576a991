-- Writes WAL and, being a transaction of its own, waits until that is durable
-- wherever synchronous_commit asks for. WAL is one sequence: whatever this
-- session read before is then durable too.
-- Parameters: none. Rows: 1. Locks: none. Plan: a function call.
-- true: transactional, so that a transaction id is taken and COMMIT waits.
SELECT pg_logical_emit_message(true, 'engine.read', ''::text)::text AS lsn
