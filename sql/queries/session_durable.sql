-- An acknowledgement promises durability: a session may not waive it, whatever
-- the server's or the role's default is: on waits for the disks of the server and of
-- its synchronous standbys, if it has any. remote_apply is stronger and stays.
-- Rows: one if it was changed. Locks: none.
SELECT set_config('synchronous_commit', 'on', false)
 WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
