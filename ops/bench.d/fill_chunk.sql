-- Transfers first..last and their keys. Variables: accounts, first, last.
INSERT INTO transfers (debit_account_id, credit_account_id, amount, debit_balance, credit_balance,
                       debit_version, credit_version, commit_id, position, currency_id, id,
                       debit_previous_id, credit_previous_id)
SELECT d.id, c.id, 100,
       -- At place 0 a round's debit comes before its credit, elsewhere after it.
       CASE WHEN i % :accounts = 0 THEN d.balance - 100 ELSE d.balance END,
       CASE WHEN c.id = 1 THEN c.balance ELSE c.balance + 100 END,
       d.version + 2 * (i / :accounts) + CASE WHEN i % :accounts = 0 THEN 1 ELSE 2 END,
       c.version + 2 * (i / :accounts) + CASE WHEN c.id = 1 THEN 2 ELSE 1 END,
       f.first_commit + i / 4000, (i % 4000)::integer, 840, bench.id_of(i, f.first_ms),
       CASE WHEN i = 0 THEN d.head_id ELSE bench.id_of(i - 1, f.first_ms) END,
       CASE WHEN i + 1 < :accounts THEN c.head_id ELSE bench.id_of(i + 1 - :accounts, f.first_ms) END
  FROM generate_series(:first::bigint, :last::bigint) AS i
 CROSS JOIN bench.fill f
  JOIN bench.fill_heads d ON d.id = 1 + i % :accounts
  JOIN bench.fill_heads c ON c.id = 1 + (i + 1) % :accounts
 ORDER BY i;

-- Hashes come in no order: the index grows as it would in service.
INSERT INTO idempotency_keys (key, fingerprint, txn_id, period)
SELECT md5('key ' || i)::uuid, md5('request ' || i)::uuid, bench.id_of(i, f.first_ms), f.period
  FROM generate_series(:first::bigint, :last::bigint) AS i
 CROSS JOIN bench.fill f;
