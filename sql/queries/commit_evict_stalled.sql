-- Ends commit sessions that wait for their engine in the middle of a transaction
-- for longer than the idle limit. The server's own limits do not see them: a
-- batch is sent in one piece, and a backend that has had half of it counts as
-- active (between two messages, or inside COPY), neither idle nor in a statement
-- that a time limit could end. Their transactions roll back; an engine that was
-- only slow finds that out and starts over.
-- Rows, as text: one per session ended. Locks: none.
SELECT pg_terminate_backend(pid)
  FROM pg_stat_activity
 WHERE datname = current_database()
   AND usename = current_user
   AND application_name = current_setting('application_name')
   AND pid <> pg_backend_pid()
   AND wait_event = 'ClientRead'
   AND xact_start < now() - current_setting('idle_in_transaction_session_timeout')::interval
