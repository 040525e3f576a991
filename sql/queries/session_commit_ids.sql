-- Numbers for the next batches of a session, a block at a time: asking for each
-- would cost every batch a statement. Unused ones are lost; gaps mean nothing.
-- Rows, as text: 256 numbers. Locks: none.
SELECT nextval('commits_id_seq')
  FROM generate_series(1, 256)
