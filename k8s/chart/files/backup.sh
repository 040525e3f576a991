#!/usr/bin/env bash
# One logical backup of the ledger into DIRECTORY/TIME:
#
#   dump/           pg_dump in directory format: restore with `pg_restore --jobs`
#   SHA256SUMS      of every file of the dump; check with `sha256sum --check`
#   manifest.json   row counts and balance sums, read in the dump's own snapshot
#
#   backup.sh DIRECTORY        PGHOST, PGUSER, PGPASSWORD and PGDATABASE say of what,
#                              BACKUP_JOBS how many connections, BACKUP_KEEP_DAYS how long
#
# The manifest is written last and the folder renamed into place after it: what has a
# name without .part is whole. Exit 0 only then.
#
# Seam: this stands for `ops/backup --logical`, whose format it is.
set -euo pipefail

directory=${1:?"the directory that takes the backup, as the only argument"}
time=$(date -u +%Y-%m-%dT%H-%M-%SZ)
part=$directory/$time.part
fail() {
    echo "backup: $*; nothing was kept of it" >&2
    rm -rf -- "$part"
    exit 1
}
trap 'fail "interrupted"' INT TERM

# What a killed run left behind, and what is old enough.
find "$directory" -mindepth 1 -maxdepth 1 -type d -name '*.part' -exec rm -rf -- {} +
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
    'format', 1,
    'taken_at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
    'database', current_database(),
    'server_version', current_setting('server_version'),
    'schema_version', (SELECT max(version) FROM refinery_schema_history),
    'rows', json_build_object(
        'accounts', (SELECT count(*) FROM accounts),
        'commits', (SELECT count(*) FROM commits),
        'transfers', (SELECT count(*) FROM transfers),
        'reversals', (SELECT count(*) FROM reversals),
        'rejections', (SELECT count(*) FROM rejections),
        'idempotency_keys', (SELECT count(*) FROM idempotency_keys)),
    'balances', (SELECT coalesce(json_object_agg(code, sums), '{}') FROM (
        SELECT c.code, json_build_object('accounts', count(*), 'sum_minor', sum(a.balance)::text,
                                         'sum_positive_minor', coalesce(sum(a.balance) FILTER (WHERE a.balance > 0), 0)::text) AS sums
          FROM accounts a JOIN currencies c ON c.id = a.currency_id GROUP BY c.code) AS by_currency));" ||
    fail "the ledger's sums cannot be read"
manifest=$answer
ask "COMMIT; SELECT 'ended';" && [ "$answer" = ended ] || fail "the session that held the snapshot was lost"
printf '%s\n' '\q' >&"$to_sql"
wait "$sql_pid" || fail "the session that held the snapshot was lost"

(cd "$part" && find dump -type f -print0 | sort -z | xargs -0 sha256sum) >"$part/SHA256SUMS" || fail "no checksums"
printf '%s\n' "$manifest" >"$part/manifest.json"
sync "$part"/manifest.json "$part"/SHA256SUMS
mv -- "$part" "$directory/$time"
find "$directory" -mindepth 1 -maxdepth 1 -type d -mtime "+$((${BACKUP_KEEP_DAYS:-7} - 1))" ! -name "$time" -exec rm -rf -- {} +
echo "backup: $directory/$time $manifest"
