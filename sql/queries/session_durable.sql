-- An acknowledgement promises durability: a session may not waive it, whatever
-- the server's or the role's default is. Stronger settings stay as they are.
-- Rows: one if it was changed. Locks: none.
SELECT set_config('synchronous_commit', 'on', false)
 WHERE current_setting('synchronous_commit') IN ('off', 'local')
