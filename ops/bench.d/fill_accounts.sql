-- Where the accounts stand after all rounds. Variables: accounts, rounds.
UPDATE accounts a
   SET version = h.version + 2 * :rounds,
       head_id = bench.id_of((:rounds - 1)::bigint * :accounts
                             + CASE WHEN a.id = 1 THEN :accounts - 1 ELSE a.id - 1 END, f.first_ms)
  FROM bench.fill_heads h, bench.fill f
 WHERE h.id = a.id;

DROP SCHEMA bench CASCADE;
VACUUM (ANALYZE);
