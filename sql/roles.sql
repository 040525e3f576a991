-- Least privilege. Three roles, without passwords:
--
--   engine_owner  owns every table; for `engine migrate` and `engine maintain`
--   engine_app    for `engine serve`: adds rows, changes accounts, and can neither
--                 change nor delete a transfer, a refusal, a key or a commit
--   engine_read   for `engine verify` and reports: reads only
--
-- Run by a superuser in the ledger's database, after the first `engine migrate` and
-- after each that adds a table (running it again changes nothing):
--
--   psql "$SUPERUSER_URL" -v ON_ERROR_STOP=1 -f sql/roles.sql
--   psql "$SUPERUSER_URL" -c '\password engine_app'       (and the other two)
--
-- Run before the first `engine migrate`, it makes the roles, so that engine_owner can
-- migrate, and then asks to be run again.
--
-- Partitions need no grant: rows are reached through their parent. Whoever else
-- needs the database (a monitor, a person) is made a member of engine_read.

BEGIN;
SET LOCAL lock_timeout = '10s';
SET LOCAL search_path = public;

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['engine_owner', 'engine_app', 'engine_read'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- Roles belong to the server: another database made it just now.
            END;
        END IF;
    END LOOP;
    -- A service without superusers (Amazon RDS) lets only members hand over tables.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
       AND NOT pg_has_role(current_user, 'engine_owner', 'MEMBER') THEN
        EXECUTE format('GRANT engine_owner TO %I', current_user);
    END IF;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO engine_owner, engine_app, engine_read', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO engine_owner;
GRANT USAGE ON SCHEMA public TO engine_app, engine_read;
COMMIT;

BEGIN;
SET LOCAL lock_timeout = '10s';
SET LOCAL search_path = public;

-- Everything of the ledger belongs to engine_owner, whoever migrated first.
DO $$
DECLARE
    item regclass;
BEGIN
    IF to_regclass('accounts') IS NULL THEN
        RAISE EXCEPTION 'this database has no ledger yet'
            USING HINT = 'Run `engine migrate` first, then this file again.';
    END IF;
    FOR item IN
        SELECT c.oid
          FROM pg_class c
          LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
         WHERE c.relnamespace = 'public'::regnamespace
           AND c.relkind IN ('r', 'p', 'v')
           AND pg_get_userbyid(c.relowner) <> 'engine_owner'
           AND (c.relname IN ('refinery_schema_history', 'currencies', 'accounts', 'commits', 'transfers',
                              'reversals', 'rejections', 'key_periods', 'idempotency_keys',
                              'postings', 'accounts_decimal', 'transfers_decimal')
                OR i.inhparent IN ('transfers'::regclass, 'rejections'::regclass, 'idempotency_keys'::regclass))
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO engine_owner', item);
    END LOOP;
END
$$;

-- The engine reads all of the ledger.
GRANT SELECT ON refinery_schema_history, currencies, accounts, commits, transfers, reversals,
                rejections, key_periods, idempotency_keys, postings
   TO engine_app;
-- It adds rows and never changes or removes one (COPY needs INSERT only) ...
GRANT INSERT ON commits, transfers, reversals, rejections, idempotency_keys TO engine_app;
-- ... except of accounts, which open empty: balance, version and head begin at their
-- defaults, so that no money can be made by opening an account;
GRANT INSERT (id, currency_id, min_balance, name, owner) ON accounts TO engine_app;
-- and change in these columns. SELECT ... FOR UPDATE needs one such column.
GRANT UPDATE (balance, version, head_id, updated_at, status, min_balance, name) ON accounts TO engine_app;
-- It shows, and may demand, which standbys follow (pg_stat_replication). Without
-- this it sees that COMMIT waits for standbys, not whether they are there. It also
-- lets it see other sessions' statements, which hold no values of the engine's.
DO $$
BEGIN
    IF NOT pg_has_role('engine_app', 'pg_read_all_stats', 'MEMBER') THEN
        GRANT pg_read_all_stats TO engine_app;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'engine_app cannot see standbys: grant it pg_read_all_stats';
    WHEN unique_violation OR internal_error THEN
        NULL; -- Roles belong to the server: another database granted it just now.
END
$$;
-- A commit's number may be drawn before its row is written.
GRANT USAGE ON SEQUENCE commits_id_seq TO engine_app;

GRANT SELECT ON refinery_schema_history, currencies, accounts, commits, transfers, reversals,
                rejections, key_periods, idempotency_keys,
                postings, accounts_decimal, transfers_decimal
   TO engine_read;

COMMIT;
