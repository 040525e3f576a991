-- Acts as the owner of the ledger for the rest of the session.
-- Parameters: none.
-- Rows: one text, the owner's name; none where there is no ledger yet.
-- Locks: none.
SELECT set_config('role', pg_get_userbyid(relowner)::text, false)
  FROM pg_class
 WHERE oid = to_regclass('accounts')
