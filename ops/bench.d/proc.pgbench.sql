-- One transfer inside one PL/pgSQL function: one round trip (see proc.sql).
-- Variables: accounts.
\set from random(1, :accounts)
\set two random(1, :accounts - 1)
\set to CASE WHEN :two < :from THEN :two ELSE :two + 1 END
\set id_a random(0, 4095)
\set id_b random(0, 4611686018427387903) - 9223372036854775807
SELECT bench.transfer(:from, :to, 100, :id_a, :id_b);
