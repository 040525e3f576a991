-- One commit for each 4,000 transfers. Variables: commits.
WITH made AS (
    INSERT INTO commits (engine_id, transfer_count, rejection_count)
    SELECT '00000000-0000-7000-8000-000000000000', 4000, 0 FROM generate_series(1, :commits)
    RETURNING id
)
UPDATE bench.fill SET first_commit = (SELECT min(id) FROM made);
