-- The number of this batch, and the database's time at its BEGIN.
-- Rows: one: commit id, milliseconds since the Unix epoch.
-- Locks: none. A number is lost when its batch rolls back; gaps mean nothing.
SELECT nextval('commits_id_seq'), (extract(epoch FROM now()) * 1000)::bigint
