COPY idempotency_keys (key, fingerprint, txn_id, period) FROM STDIN BINARY
