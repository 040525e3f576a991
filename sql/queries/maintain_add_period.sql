-- Adds a key period; its partition is made in the same transaction.
-- Parameters: $1 integer period, $2 bigint starts_ms, $3 bigint ends_ms (Unix epoch).
-- Rows: none.
-- Locks: ROW EXCLUSIVE on key_periods.
INSERT INTO key_periods (period, starts_at, ends_at)
VALUES ($1,
        'epoch'::timestamptz + $2::bigint * interval '1 millisecond',
        'epoch'::timestamptz + $3::bigint * interval '1 millisecond')
