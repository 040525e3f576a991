-- Everything a small, plain batch writes, in one statement: of few rows each
-- statement costs more than its rows, and COPY an exchange of messages besides.
-- Parameters: $1 commit, $2 engine, $3 transfers, $4 rejections (written by a
-- statement of their own);
-- of the transfers, paired: $5 uuid[] ids, $6 bigint[] debits, $7 bigint[] credits,
-- $8 bigint[] amounts, $9 and $10 bigint[] balances and $11 and $12 bigint[] versions
-- of both sides, $13 smallint[] currencies, $14 and $15 uuid[] previous transfers of
-- both sides, $16 uuid[] groups, $17 uuid[] reversed, $18 text[] references,
-- $19 text[] categories, $20 text[] metadata;
-- of the keys, paired: $21 integer, how many, $22 uuid[] keys, $23 uuid[] fingerprints,
-- $24 uuid[] transfers, $25 integer[] periods;
-- of the accounts, paired: $26 integer, how many, $27 bigint[] ids, $28 bigint[]
-- balances, $29 bigint[] versions, $30 uuid[] heads.
-- Rows: one. Fewer accounts than $26 divide by zero, as does a standby that is
-- demanded and not waited for (commit_insert_commit.sql), so that the COMMIT which
-- follows in the same round trip rolls back instead.
-- Locks: the account rows are locked already.
-- Arrays are subscripted rather than unnested: unnest of many arrays fills a
-- tuple store for each.
WITH moved AS (
    INSERT INTO transfers (
        id, debit_account_id, credit_account_id, amount, debit_balance, credit_balance, debit_version, credit_version,
        commit_id, position, currency_id, debit_previous_id, credit_previous_id, group_id, reverses,
        reference, category, metadata
    )
    SELECT ($5::uuid[])[n], ($6::bigint[])[n], ($7::bigint[])[n], ($8::bigint[])[n], ($9::bigint[])[n],
           ($10::bigint[])[n], ($11::bigint[])[n], ($12::bigint[])[n], $1::bigint, n - 1, ($13::smallint[])[n],
           ($14::uuid[])[n], ($15::uuid[])[n], ($16::uuid[])[n], ($17::uuid[])[n], ($18::text[])[n],
           ($19::text[])[n], ($20::text[])[n]::jsonb
      FROM generate_series(1, $3::integer) AS n
), kept AS (
    INSERT INTO idempotency_keys (key, fingerprint, txn_id, period)
    SELECT ($22::uuid[])[n], ($23::uuid[])[n], ($24::uuid[])[n], ($25::integer[])[n]
      FROM generate_series(1, $21::integer) AS n
), numbered AS (
    INSERT INTO commits (id, engine_id, transfer_count, rejection_count) OVERRIDING SYSTEM VALUE
    VALUES ($1::bigint, $2::uuid, $3::integer,
            $4::integer / (CASE WHEN current_setting('engine.durability', true) = 'sync-standby'
                                 AND current_setting('synchronous_standby_names') = '' THEN 0 ELSE 1 END))
), changed AS (
    UPDATE accounts AS a
       SET balance = ($28::bigint[])[n], version = ($29::bigint[])[n], head_id = ($30::uuid[])[n], updated_at = now()
      FROM generate_series(1, $26::integer) AS n
     WHERE a.id = ($27::bigint[])[n]
    RETURNING 1
)
SELECT 1 / (CASE count(*) WHEN $26::integer THEN 1 ELSE 0 END)
  FROM changed
