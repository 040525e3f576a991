-- One transfer as most services write it: six statements, six round trips.
-- Variables: accounts, hot_percent (share of transfers into account 1).
-- Writes the engine's own tables, but less than the engine does: no idempotency
-- key, no commit row, no previous ids. All of that is in the naive side's favour.
\set is_hot random(1, 100) <= :hot_percent
\set one random(1, :accounts)
\set two random(1, :accounts - 1)
\set other CASE WHEN :two < :one THEN :two ELSE :two + 1 END
\set from CASE WHEN :is_hot THEN :two + 1 ELSE :one END
\set to CASE WHEN :is_hot THEN 1 ELSE :other END
-- UUID v7: the server's milliseconds, then 12 and 62 bits of the client's chance.
\set id_a random(0, 4095)
\set id_b random(0, 4611686018427387903) - 9223372036854775807
BEGIN;
SELECT id, balance, min_balance, version, status FROM accounts WHERE id IN (:from, :to) ORDER BY id FOR UPDATE;
UPDATE accounts SET balance = balance - 100, version = version + 1, updated_at = now(), head_id = encode(int8send(((date_part('epoch', now()) * 1000)::bigint << 16) | 28672 | :id_a) || int8send(:id_b), 'hex')::uuid WHERE id = :from RETURNING balance AS debit_balance, version AS debit_version, head_id AS id \gset
UPDATE accounts SET balance = balance + 100, version = version + 1, updated_at = now(), head_id = :id WHERE id = :to RETURNING balance AS credit_balance, version AS credit_version \gset
INSERT INTO transfers (debit_account_id, credit_account_id, amount, debit_balance, credit_balance, debit_version, credit_version, commit_id, position, currency_id, id) VALUES (:from, :to, 100, :debit_balance, :credit_balance, :debit_version, :credit_version, 0, 0, 840, :id);
COMMIT;
