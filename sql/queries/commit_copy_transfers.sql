COPY transfers (
    id, debit_account_id, credit_account_id, amount, debit_balance, credit_balance, debit_version, credit_version,
    commit_id, position, currency_id, debit_previous_id, credit_previous_id, group_id, reverses,
    reference, category, metadata
) FROM STDIN BINARY
