"""The full side's database: 20 million transfers and keys that verify."""

import time

from database import HERE, BenchError

TRANSFERS = 20_000_000
CHUNK = 1_000_000
# fill_commits.sql and fill_chunk.sql put so many transfers into one commit.
COMMIT_ROWS = 4_000
# bench.id_of puts so many ids into one millisecond.
IDS_PER_MS = 2_000


def fill(ledger, say, transfers=TRANSFERS, chunk=CHUNK):
    """Fills a prepared ledger whose accounts hold nothing but their funding."""
    accounts = ledger.accounts
    if transfers % accounts or transfers % COMMIT_ROWS or transfers % chunk:
        raise BenchError(f"{transfers} transfers do not divide into rounds, commits and chunks")
    database = ledger.database
    database.file("fill_functions.sql")
    database.file("fill_commits.sql", commits=transfers // COMMIT_ROWS)
    begin = time.monotonic()
    for first in range(0, transfers, chunk):
        database.psql(
            "-1",
            "-f",
            HERE / "fill_chunk.sql",
            variables={"accounts": accounts, "first": first, "last": first + chunk - 1},
        )
        done = first + chunk
        rate = done / (time.monotonic() - begin)
        say(f"full: {done:,} of {transfers:,} transfers and keys stored ({rate:,.0f}/s)")
    # The newest id must be past before the engine makes the next one.
    last_ms = int(database.query("SELECT first_ms FROM bench.fill")) + transfers // IDS_PER_MS
    time.sleep(max(0.0, last_ms / 1000 - time.time() + 0.1))
    database.file("fill_accounts.sql", accounts=accounts, rounds=transfers // accounts)
    database.checkpoint()


def sizes(database):
    """What there is to keep in memory, and how much may be kept."""
    tables = "(SELECT relid FROM pg_partition_tree('{}') WHERE isleaf) AS leaf"
    keys = database.query(
        "SELECT sum(pg_indexes_size(relid)) FROM " + tables.format("idempotency_keys")
    )
    rows = database.query(
        "SELECT sum(pg_total_relation_size(relid)) FROM " + tables.format("transfers")
    )
    buffers = database.query(
        "SELECT setting::bigint * 8192 FROM pg_settings WHERE name = 'shared_buffers'"
    )
    return {
        "key_index_mib": int(keys) // 2**20,
        "transfers_mib": int(rows) // 2**20,
        "shared_buffers_mib": int(buffers) // 2**20,
    }
