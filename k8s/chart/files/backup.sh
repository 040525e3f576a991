#!/usr/bin/env bash
# One logical backup of the ledger into DIRECTORY/ledger-TIME, as `ops/backup --logical` writes it
# and `ops/restore --logical` takes it, with nothing but what PostgreSQL's own image has:
#
#   dump/           pg_dump in directory format
#   manifest.json   a checksum of every file; rows, and sums and digests of balances, read in the
#                   dump's own snapshot: the restore compares them
#
#   backup.sh DIRECTORY        PGHOST, PGUSER, PGPASSWORD, PGDATABASE and libpq's other variables say
#                              of what, BACKUP_JOBS how many connections, BACKUP_KEEP_DAYS how long
#
# The manifest is written last and the folder renamed into place after it: what has a
# name without a dot before it is whole. Exit 0 only then.
set -euo pipefail

directory=${1:?"the directory that takes the backup, as the only argument"}
name=ledger-$(date -u +%Y%m%dT%H%M%SZ)
part=$directory/.$name.unfinished
fail() {
    echo "backup: $*; nothing was kept of it" >&2
    rm -rf -- "$part"
    exit 1
}
trap 'fail "interrupted"' INT TERM

# What a killed run left behind.
find "$directory" -mindepth 1 -maxdepth 1 -type d -name '.*.unfinished' -exec rm -rf -- {} +
mkdir "$part" || fail "$part cannot be made"

# One session holds the snapshot open: the dump and the sums see the same moment.
coproc psql --no-psqlrc --quiet --tuples-only --no-align -v ON_ERROR_STOP=1
# Bash forgets a coprocess and its pipes the moment it ends: kept here.
exec {to_sql}>&"${COPROC[1]}" {from_sql}<&"${COPROC[0]}"
sql_pid=$COPROC_PID
# psql ends at its first error; writing to it then must fail, not kill.
trap '' PIPE
ask() {
    { printf '%s\n' "$1" >&"$to_sql"; } 2>/dev/null && IFS= read -r answer <&"$from_sql"
}
ask "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();" || fail "PostgreSQL does not answer"
snapshot=$answer

pg_dump --format=directory --jobs="${BACKUP_JOBS:-2}" --snapshot="$snapshot" --lock-wait-timeout=60s \
    --no-password --file="$part/dump" || fail "pg_dump failed"

ask "SELECT json_build_object(
    'version', 1,
    'taken_at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
    'tables', json_build_object(
        'accounts', (SELECT count(*) FROM accounts),
        'transfers', (SELECT count(*) FROM transfers),
        'commits', (SELECT count(*) FROM commits),
        'reversals', (SELECT count(*) FROM reversals),
        'rejections', (SELECT count(*) FROM rejections),
        'idempotency_keys', (SELECT count(*) FROM idempotency_keys),
        'key_periods', (SELECT count(*) FROM key_periods),
        'currencies', (SELECT count(*) FROM currencies)),
    'balances', (SELECT coalesce(json_object_agg(code, facts), '{}') FROM (
        SELECT c.code, json_build_object('accounts', count(*), 'sum', sum(a.balance)::text,
                   'digest', sum(hashtextextended(concat_ws(':', a.id, a.balance, a.version), 0)::numeric)::text) AS facts
          FROM accounts a JOIN currencies c ON c.id = a.currency_id GROUP BY c.code) AS by_currency));" ||
    fail "the ledger's sums cannot be read"
manifest=$answer
ask "COMMIT; SELECT 'ended';" && [ "$answer" = ended ] || fail "the session that held the snapshot was lost"
printf '%s\n' '\q' >&"$to_sql"
wait "$sql_pid" || fail "the session that held the snapshot was lost"

# pg_dump's names are digits, letters and dots: nothing that JSON would have to escape.
files=$(cd "$part/dump" && find . -type f -printf '%P\0' | sort -z | xargs -0 sha256sum) || fail "no checksums"
files=$(sed -E 's/^([0-9a-f]{64})  (.+)$/"\2": "\1"/' <<<"$files" | paste -sd ,)
printf '%s\n' "${manifest%\}}, \"files\": {$files}}" >"$part/manifest.json"
sync "$part/manifest.json"
mv -- "$part" "$directory/$name"
find "$directory" -mindepth 1 -maxdepth 1 -type d -name 'ledger-*' -mtime "+$((${BACKUP_KEEP_DAYS:-7} - 1))" ! -name "$name" -exec rm -rf -- {} +
echo "backup: $directory/$name $manifest"
