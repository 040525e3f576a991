-- Keeps the refusals of requests that carried a key.
-- Parameters: $1 commit, then arrays, paired: ids, debits, credits, accounts,
-- amounts (decimal text), reasons, reverses, references, categories, metadata.
-- Rows: none. Locks: none.
INSERT INTO rejections (
    commit_id, id, debit_account_id, credit_account_id, account_id, amount, reason, reverses, reference, category, metadata
)
SELECT $1::bigint, r.id, r.debit, r.credit, r.account, r.amount::numeric, r.reason, r.reverses, r.reference, r.category,
       r.metadata::jsonb
  FROM unnest(
           $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::smallint[], $8::uuid[],
           $9::text[], $10::text[], $11::text[]
       ) AS r (id, debit, credit, account, amount, reason, reverses, reference, category, metadata)
