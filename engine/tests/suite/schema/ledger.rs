//! A small right ledger, written by SQL alone: the checks must not be tested with
//! the code whose faults they are to find.

use engine::domain::TransferId;
use tokio_postgres::Client;

/// `test_move` writes one commit of one transfer (and its key), rightly; the
/// commit's position 1, if any, follows with `test_more`.
const FUNCTIONS: &str = r"
CREATE FUNCTION test_id(ms bigint, n integer) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex(ms), 12, '0') || '7' || lpad(to_hex(n), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid
$$;
CREATE FUNCTION test_more(commit bigint, place integer, new_id uuid, debit bigint, credit bigint, moved bigint, original uuid)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE d accounts; c accounts;
BEGIN
    SELECT * INTO STRICT d FROM accounts WHERE id = debit FOR UPDATE;
    SELECT * INTO STRICT c FROM accounts WHERE id = credit FOR UPDATE;
    INSERT INTO transfers (debit_account_id, credit_account_id, amount, debit_balance, credit_balance,
                           debit_version, credit_version, commit_id, position, currency_id, id,
                           debit_previous_id, credit_previous_id, reverses)
    VALUES (debit, credit, moved, d.balance - moved, c.balance + moved, d.version + 1, c.version + 1,
            commit, place, d.currency_id, new_id, d.head_id, c.head_id, original);
    UPDATE accounts SET balance = balance - moved, version = version + 1, head_id = new_id WHERE id = debit;
    UPDATE accounts SET balance = balance + moved, version = version + 1, head_id = new_id WHERE id = credit;
    IF original IS NOT NULL THEN
        INSERT INTO reversals (original_id, reversal_id) VALUES (original, new_id);
    END IF;
    INSERT INTO idempotency_keys (key, fingerprint, txn_id, period)
    SELECT md5('key' || new_id)::uuid, md5('body' || new_id)::uuid, new_id, period
      FROM key_periods WHERE starts_at <= now() AND now() < ends_at;
END $$;
CREATE FUNCTION test_commit(transfers integer, rejections integer) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO commits (engine_id, transfer_count, rejection_count)
    VALUES (md5('engine')::uuid, transfers, rejections) RETURNING id
$$;
";

/// Accounts 0 (may go negative), 1, 2, 3 in USD and 10, 11 in JPY; ten transfers
/// with ids `test_id(start, 1)` to `test_id(start, 10)`, the fifth reversed by the
/// seventh, the eighth to tenth in one commit; one refusal, `test_id(start, 20)`.
const LEDGER: &str = r"
INSERT INTO accounts (id, currency_id, min_balance) VALUES
    (0, 840, NULL), (1, 840, 0), (2, 840, 0), (3, 840, -100), (10, 392, NULL), (11, 392, 0);
DO $$
DECLARE
    start bigint := $start$;
    commit bigint;
    step record;
BEGIN
    FOR step IN SELECT * FROM (VALUES
        (1, 0, 1, 1000, NULL), (2, 0, 2, 500, NULL), (3, 10, 11, 77, NULL), (4, 1, 2, 300, NULL),
        (5, 2, 3, 50, NULL), (6, 1, 0, 200, NULL), (7, 3, 2, 50, 5)) AS steps (n, debit, credit, amount, original)
    LOOP
        PERFORM test_more(test_commit(1, 0), 0, test_id(start, step.n), step.debit, step.credit, step.amount,
                          test_id(start, step.original));
    END LOOP;
    commit := test_commit(3, 1);
    PERFORM test_more(commit, 0, test_id(start, 8), 1, 3, 10, NULL);
    PERFORM test_more(commit, 1, test_id(start, 9), 3, 1, 10, NULL);
    PERFORM test_more(commit, 2, test_id(start, 10), 2, 1, 5, NULL);
    INSERT INTO rejections (debit_account_id, credit_account_id, commit_id, account_id, amount, reason, id)
    VALUES (1, 2, commit, 1, 99999.5, 6, test_id(start, 20));
    INSERT INTO idempotency_keys (key, fingerprint, txn_id, period)
    SELECT md5('refused')::uuid, md5('body')::uuid, test_id(start, 20), period
      FROM key_periods WHERE starts_at <= now() AND now() < ends_at;
    -- A batch of nothing but replays.
    PERFORM test_commit(0, 0);
END $$;
";

/// Writes the ledger and tells the time of its ids.
pub(crate) async fn write(client: &Client) -> u64 {
    client.batch_execute(FUNCTIONS).await.unwrap();
    let row = client
        .query_one("SELECT (extract(epoch FROM now()) * 1000)::bigint", &[])
        .await
        .unwrap();
    let start: i64 = row.get(0);
    client
        .batch_execute(&LEDGER.replace("$start$", &start.to_string()))
        .await
        .unwrap();
    start.unsigned_abs()
}

/// The id of the ledger's transfer `n`.
pub(crate) async fn id(client: &Client, start: u64, n: i32) -> TransferId {
    let start = i64::try_from(start).unwrap();
    let row = client
        .query_one("SELECT test_id($1, $2)", &[&start, &n])
        .await
        .unwrap();
    TransferId::from_uuid(row.get(0))
}
