-- What a good team would write by hand: the naive side's statements in one
-- function, so that a transfer is one round trip and one implicit transaction.
CREATE SCHEMA IF NOT EXISTS bench;

CREATE OR REPLACE FUNCTION bench.transfer(debit bigint, credit bigint, minor bigint, id_a bigint, id_b bigint)
RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    new_id uuid := encode(int8send(((date_part('epoch', now()) * 1000)::bigint << 16) | 28672 | id_a) || int8send(id_b), 'hex')::uuid;
    debit_balance bigint;
    debit_version bigint;
    credit_balance bigint;
    credit_version bigint;
BEGIN
    -- Ascending, as every writer does: no deadlock.
    PERFORM FROM accounts WHERE id IN (debit, credit) ORDER BY id FOR UPDATE;
    UPDATE accounts SET balance = balance - minor, version = version + 1, head_id = new_id, updated_at = now()
     WHERE id = debit RETURNING balance, version INTO STRICT debit_balance, debit_version;
    UPDATE accounts SET balance = balance + minor, version = version + 1, head_id = new_id, updated_at = now()
     WHERE id = credit RETURNING balance, version INTO STRICT credit_balance, credit_version;
    INSERT INTO transfers (debit_account_id, credit_account_id, amount, debit_balance, credit_balance,
                           debit_version, credit_version, commit_id, position, currency_id, id)
    VALUES (debit, credit, minor, debit_balance, credit_balance, debit_version, credit_version, 0, 0, 840, new_id);
    RETURN new_id;
END
$$;
