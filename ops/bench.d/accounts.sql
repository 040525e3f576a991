-- Accounts for the sides that write by SQL. Variables: accounts.
-- Funded by fiat: these databases measure speed and are never verified.
INSERT INTO accounts (id, balance, min_balance, currency_id)
SELECT id, 100000000000000, 0, 840 FROM generate_series(1, :accounts) AS id;
VACUUM (ANALYZE) accounts;
