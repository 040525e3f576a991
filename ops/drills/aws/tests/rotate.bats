#!/usr/bin/env bats
# rotate_credentials.sh against a real PostgreSQL, with an engine that runs through all of it.
#
#   ENGINE=target/debug/engine LOADTEST=target/debug/loadtest \
#       target/debug/engine dev --servers-only --data-dir DIR -- bats rotate.bats

rotate=$BATS_TEST_DIRNAME/../rotate_credentials.sh

setup() {
    # One database and one pair of roles; the roles belong to the server.
    admin=${ENGINE_TEST_DATABASE_URL%/*}/ledger_rotate
    psql -Xq "$ENGINE_TEST_DATABASE_URL" -c 'DROP DATABASE IF EXISTS ledger_rotate WITH (FORCE)' -c 'CREATE DATABASE ledger_rotate'
    env -i "$ENGINE" migrate --database-url "$admin" >/dev/null 2>&1
    psql -Xq -v ON_ERROR_STOP=1 "$admin" -f "$BATS_TEST_DIRNAME/../../../../sql/roles.sql" >/dev/null 2>&1
    psql -Xq "$admin" -c "ALTER ROLE engine_app PASSWORD 'first'"
    file=$BATS_TEST_TMPDIR/engine.env
    place=${ENGINE_TEST_DATABASE_URL##*@}
    place=${place%/*}
    printf 'ENGINE_LOG_LEVEL=warn\nENGINE_DATABASE_URL=postgres://engine_app:first@%s/ledger_rotate\n' "$place" >"$file"
    chmod 0640 "$file"
    engine_pid='' load_pid=''
}

teardown() {
    [ -z "$load_pid" ] || kill "$load_pid" 2>/dev/null || true
    [ -z "$engine_pid" ] || kill "$engine_pid" 2>/dev/null || true
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# start: an engine with the file's credentials; its addresses are $api and $admin_api.
start() {
    local port admin_port
    port=$(free_port) admin_port=$(free_port)
    # shellcheck disable=SC2046 # lines without blanks
    env -i $(cat "$file") "$ENGINE" serve --listen "127.0.0.1:$port" --admin-listen "127.0.0.1:$admin_port" >"$BATS_TEST_TMPDIR/engine.log" 2>&1 3>&- &
    engine_pid=$!
    api=http://127.0.0.1:$port admin_api=http://127.0.0.1:$admin_port
    for _ in $(seq 200); do
        ! curl -fs "$api/health" >/dev/null || return 0
        kill -0 "$engine_pid" 2>/dev/null || break
        sleep 0.1
    done
    cat "$BATS_TEST_TMPDIR/engine.log"
    return 1
}
transfer() {
    curl -sS -m 12 -o "$BATS_TEST_TMPDIR/answer" -w '%{http_code}' "$api/transaction" -H 'Content-Type: application/json' \
        -H "Idempotency-Key: $1" -d '{"from":1,"to":2,"amount":1}'
}
# A transfer with its key, repeated as a client would, for at most ten seconds.
moved() {
    local begin=$SECONDS
    until [ "$(transfer "$1")" = 200 ]; do
        [ $((SECONDS - begin)) -lt 10 ] || { cat "$BATS_TEST_TMPDIR/answer" "$BATS_TEST_TMPDIR/engine.log"; return 1; }
        sleep 0.2
    done
}
open_accounts() {
    curl -fsS "$api/accounts" -H 'Content-Type: application/json' \
        -d '[{"account_id":1,"currency":"USD","min_balance":null},{"account_id":2,"currency":"USD","min_balance":0}]' >/dev/null
}
# Cuts every session of the engine, as a failover would.
cut() { psql -XqAt "$admin" -c "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename LIKE 'engine_app%'" >/dev/null; }
users() { psql -XqAt "$admin" -c "SELECT DISTINCT usename FROM pg_stat_activity WHERE usename LIKE 'engine_app%'"; }
rotated() { "$rotate" --database-url "$admin" --file "$file" --yes; }

@test "the engine survives a rotation, even when all of its sessions break after it" {
    start
    open_accounts
    moved before
    rotated
    moved after
    cut
    moved after-cut
    [ "$(users)" = engine_app ]
    kill -0 "$engine_pid"
    # Balances tell that each was applied once.
    [[ $(curl -fs "$api/balance/2?consistent=true") == *'"balance":3.00'* ]]
}

@test "under load no acknowledged transfer is lost, whatever the rotation breaks, without a restart" {
    local journal=$BATS_TEST_TMPDIR/load.journal sent=0
    start
    curl -fsS "$api/accounts" -H 'Content-Type: application/json' \
        -d "[$(seq -f '{"account_id":%g,"currency":"USD","min_balance":null}' -s , 1 20)]" >/dev/null
    "$LOADTEST" run --quiet --host "$api" --accounts 1..=20 --users 8 --keys on --retries 5 --timeout 15s --run-time 120s --threads 1 \
        --journal "$journal" --json "$BATS_TEST_TMPDIR/load.json" >"$BATS_TEST_TMPDIR/load.log" 2>&1 3>&- &
    load_pid=$!
    completed() { curl -fs "$admin_api/metrics" | awk '/^engine_transfers_total\{.*outcome="completed"/ { n += $2 } END { print n + 0 }'; }
    # More transfers than before: until then nothing may go on.
    goes_on() {
        local begin=$SECONDS
        sent=$(($(completed) + 50))
        until [ "$(completed)" -ge "$sent" ]; do
            [ $((SECONDS - begin)) -lt 30 ] || { cat "$BATS_TEST_TMPDIR/load.log" "$BATS_TEST_TMPDIR/engine.log"; return 1; }
            sleep 0.1
        done
    }
    goes_on
    rotated
    goes_on
    cut
    goes_on
    cut
    goes_on
    kill -INT "$load_pid"
    wait "$load_pid" || true
    load_pid=
    kill -0 "$engine_pid"
    LOADTEST_DATABASE_URL=$admin "$LOADTEST" verify --quiet --journal "$journal" --json "$BATS_TEST_TMPDIR/verify.json"
    jq -e '.verdict == "kept" and 200 < .acknowledged' "$BATS_TEST_TMPDIR/verify.json"
    env -i "$ENGINE" verify --database-url "$admin"
}

@test "a URL keeps what it says besides, and the URL for reads follows" {
    sed -i 's#/ledger_rotate$#/ledger_rotate?application_name=a\&connect_timeout=5#' "$file"
    printf 'ENGINE_DATABASE_READ_URL=postgres://engine_app:first@replica/ledger?a=1&b=2\n' >>"$file"
    rotated
    grep -qE '^ENGINE_DATABASE_URL=postgres://engine_app_clone:[A-Za-z0-9]{40}@[^@]*/ledger_rotate\?application_name=a&connect_timeout=5$' "$file"
    grep -qE '^ENGINE_DATABASE_READ_URL=postgres://engine_app_clone:[A-Za-z0-9]{40}@replica/ledger\?a=1&b=2$' "$file"
    [ "$(sed -n 's/.*_clone:\(.*\)@.*/\1/p' "$file" | sort -u | wc -l)" = 1 ]
}

@test "a restarted engine uses the new user, and the next rotation goes back to the first" {
    rotated
    grep -q '^ENGINE_DATABASE_URL=postgres://engine_app_clone:' "$file"
    start
    open_accounts
    moved as-clone
    [ "$(users)" = engine_app_clone ]
    rotated
    grep -q '^ENGINE_DATABASE_URL=postgres://engine_app:' "$file"
    cut
    moved as-clone-after-second
}

@test "after two rotations the first password is refused: an engine that old loses its sessions for good" {
    start
    open_accounts
    rotated
    rotated
    moved sessions-stay
    cut
    run transfer refused
    [ "$output" = 503 ] || [ "$output" = 504 ]
    sleep 1
    run transfer refused-again
    [ "$output" = 503 ]
}

@test "the file keeps its mode and its other lines, and a dry run keeps all of it" {
    cp -p "$file" "$file.before"
    run "$rotate" --database-url "$admin" --file "$file" --dry-run
    [ "$status" -eq 0 ]
    [[ $output != *first@* ]]
    cmp "$file" "$file.before"
    run rotated
    [ "$status" -eq 0 ]
    [ "$(stat -c %a "$file")" = 640 ]
    grep -qx ENGINE_LOG_LEVEL=warn "$file"
    # The new password is said nowhere.
    password=$(sed -n 's/^ENGINE_DATABASE_URL=.*:\(.*\)@.*/\1/p' "$file")
    [ "${#password}" -eq 40 ]
    [[ $output != *"$password"* ]]
}

@test "a new password that does not work changes nothing" {
    psql -Xq "$admin" -c 'REVOKE SELECT ON accounts FROM engine_app'
    cp -p "$file" "$file.before"
    run rotated
    [ "$status" -eq 1 ]
    [[ $output == *"is as it was"* ]]
    cmp "$file" "$file.before"
}
