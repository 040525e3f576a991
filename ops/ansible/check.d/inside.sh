#!/usr/bin/env bash
# Run on the machine of ops/test-infra.d/single-host, as root: is what the playbook promises so?
#
#   inside.sh PART...     common, units, database, cache, serve, monitoring, backup
set -euo pipefail

domain=ledger.example.com
authority=/usr/local/share/ca-certificates/engine-caddy.crt
figures=/var/lib/prometheus/node-exporter
say() { printf '%s\n' "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}
# As a user of the system.
as() {
    local user=$1
    shift
    setpriv --reuid "$user" --regid "$(id -gn "$user")" --init-groups "$@"
}
# until_true SECONDS WHAT COMMAND...: waits for it.
until_true() {
    local seconds=$1 what=$2
    shift 2
    for _ in $(seq $((seconds * 4))); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.25
    done
    die "not within $seconds s: $what"
}
refused() {
    local what=$1
    shift
    ! "$@" >/dev/null 2>&1 || die "$what"
}
ready() { curl -fs http://127.0.0.1:9464/readyz; }
# prometheus QUERY: the values, one a line.
prometheus() {
    curl -fsS http://127.0.0.1:9090/api/v1/query --data-urlencode "query=$1" |
        python3 -c 'import json, sys; [print(one["value"][1]) for one in json.load(sys.stdin)["data"]["result"]]'
}
holds() { [ "$(prometheus "$1" | wc -l)" -gt 0 ]; }

common() {
    local words
    words=$(sshd -T 2>/dev/null)
    for line in 'passwordauthentication no' 'permitrootlogin no' 'kbdinteractiveauthentication no'; do
        grep -qx "$line" <<<"$words" || die "the SSH server does not say $line"
    done
    words=$(unattended-upgrade --dry-run --debug 2>&1 | grep '^Allowed origins are' | tr ',' '\n')
    grep -q 'label=Debian-Security' <<<"$words" || die "no security upgrades: $words"
    ! grep -q 'label=Debian$' <<<"$words" || die "other upgrades too: $words"
    systemctl --quiet is-enabled apt-daily.timer apt-daily-upgrade.timer || die "upgrades are never looked for"
    chronyd -p -f /etc/chrony/chrony.conf | grep -q '^pool' || die "the clock asks nobody"
    refused "two programs set the clock" systemctl --quiet is-enabled systemd-timesyncd
    firewall
}

# From another machine, which is a namespace with one end of a cable.
firewall() {
    local far=(ip netns exec far)
    ip netns add far
    ip link add near type veth peer name end netns far
    ip address add 192.0.2.1/24 dev near
    ip link set near up
    "${far[@]}" ip address add 192.0.2.2/24 dev end
    "${far[@]}" ip address add 198.51.100.2/32 dev end
    "${far[@]}" ip link set end up
    ip route add 198.51.100.2 dev near
    python3 -m http.server --bind 192.0.2.1 8099 >/dev/null 2>&1 &
    local listener=$!
    until_true 10 "a page on port 8099" curl -fs http://192.0.2.1:8099/
    refused "port 8099 can be reached from outside" "${far[@]}" curl -fs --connect-timeout 2 http://192.0.2.1:8099/
    nft flush chain inet engine input
    nft add chain inet engine input '{ policy accept; }'
    "${far[@]}" curl -fs --connect-timeout 5 http://192.0.2.1:8099/ >/dev/null || die "without the firewall it cannot be reached either: the check is none"
    systemctl reload nftables
    refused "after a reload port 8099 can be reached from outside" "${far[@]}" curl -fs --connect-timeout 2 http://192.0.2.1:8099/
    kill "$listener"
    "${far[@]}" timeout 5 bash -c 'exec 3<>/dev/tcp/192.0.2.1/22 && head -c 4 <&3' | grep -q SSH- || die "the SSH server cannot be reached"
    calls() { "${far[@]}" curl -s -m 10 -o /dev/null -w '%{http_code}' --cacert "$authority" --interface "$1" --resolve "$domain:443:192.0.2.1" "https://$domain/health"; }
    [ "$(calls 192.0.2.2)" = 200 ] || die "a caller of engine_client_cidrs got $(calls 192.0.2.2)"
    [ "$(calls 198.51.100.2)" = 403 ] || die "a stranger got $(calls 198.51.100.2)"
    ip netns delete far
}

units() {
    local unit
    systemd-analyze verify --man=no /etc/systemd/system/engine*.service /etc/systemd/system/engine*.timer
    for unit in engine engine-maintain engine-verify engine-backup engine-backup-age; do
        systemd-analyze security --no-pager --threshold=20 "$unit.service" | tail -n 1 >&2
    done
    sed 's/^ProtectSystem=.*//; s/^PrivateUsers=.*//; s/^CapabilityBoundingSet=.*//; s/^SystemCallFilter=.*//' /etc/systemd/system/engine.service >/run/planted.service
    refused "systemd-analyze is content with a unit that has lost its sandbox" systemd-analyze security --no-pager --offline=true --threshold=20 /run/planted.service
    for unit in engine-maintain engine-verify engine-backup engine-backup-age; do
        systemctl --quiet is-active "$unit.timer" || die "$unit.timer does not run"
    done
    killed
    misconfigured
}

killed() {
    local before
    before=$(systemctl show --property MainPID --value engine)
    kill -KILL "$before"
    until_true 30 "systemd starts a killed engine again" ready
    [ "$(systemctl show --property NRestarts --value engine)" = 1 ] || die "it was not systemd that started it again"
}

# A wrong setting ends with 64 and is not tried again and again.
misconfigured() {
    mkdir -p /run/systemd/system/engine.service.d
    printf '[Service]\nEnvironment=ENGINE_LOCK_TIMEOUT=never\n' >/run/systemd/system/engine.service.d/planted.conf
    systemctl daemon-reload
    systemctl restart engine || true
    until_true 20 "a wrong setting ends the engine" systemctl --quiet is-failed engine
    sleep 3
    [ "$(systemctl show --property ExecMainStatus --value engine)" = 64 ] || die "a wrong setting ended it with $(systemctl show --property ExecMainStatus --value engine)"
    [ "$(systemctl show --property NRestarts --value engine)" = 0 ] || die "a wrong setting is tried again and again"
    rm -r /run/systemd/system/engine.service.d
    systemctl daemon-reload
    systemctl reset-failed engine
    systemctl start engine
    until_true 30 "the engine serves again" ready
}

ask() { as postgres psql -XAtc "$1" "${2:-postgres}"; }

database() {
    local setting
    for setting in fsync=on synchronous_commit=on full_page_writes=on data_checksums=on archive_mode=on listen_addresses= max_connections=100 archive_timeout=1min; do
        [ "$(ask "SHOW ${setting%%=*}")" = "${setting#*=}" ] || die "${setting%%=*} is $(ask "SHOW ${setting%%=*}")"
    done
    [ -z "$(ss -Hltn 'sport = :5432 or sport = :6379')" ] || die "a database listens on TCP"
    as engine psql -Atc 'SELECT 1' 'dbname=ledger user=engine_app' >/dev/null || die "the engine cannot log in"
    refused "nobody may log in as engine_app" as nobody psql -Atc 'SELECT 1' 'dbname=ledger user=engine_app'
    refused "the engine may log in as the owner" as engine psql -Atc 'SELECT 1' 'dbname=ledger user=engine_owner'
    refused "who verifies may write" as engine-read psql -Atc 'DELETE FROM accounts' 'dbname=ledger user=engine_read'
    as prometheus psql -Atc "SELECT pg_database_size('ledger')" 'dbname=postgres user=engine_monitor' >/dev/null || die "the exporter's role sees nothing"
    refused "the exporter's role reads the ledger" as prometheus psql -Atc 'SELECT 1' 'dbname=ledger user=engine_monitor'
}

cache() {
    local socket=/run/redis/redis-server.sock
    cached() { REDISCLI_AUTH=$(cat "/etc/redis/$1.password") redis-cli -s "$socket" --user "$1" --no-auth-warning "${@:2}"; }
    [ "$(redis-cli -s "$socket" ping)" = "NOAUTH Authentication required." ] || die "Redis answers without a password"
    [ "$(as nobody redis-cli -s "$socket" ping 2>&1 | grep -c 'Permission denied')" = 1 ] || die "anybody opens the socket of Redis"
    [ "$(cached engine ping)" = PONG ] || die "the engine's user of Redis does not work"
    cached exporter info memory | tr -d '\r' | grep -qx 'maxmemory_policy:allkeys-lru' || die "Redis does not make room"
    grep -q NOPERM <<<"$(cached exporter set ledger:1 x)" || die "the exporter may write balances"
    grep -q NOPERM <<<"$(cached engine flushall)" || die "the engine may empty Redis"
    grep -q NOPERM <<<"$(cached engine config get '*')" || die "the engine may ask for Redis' settings"
}

# Nothing secret is where it can be read.
secrets() {
    local file name
    for file in '/etc/redis/engine.password 600 root root' '/etc/redis/exporter.password 600 root root' '/etc/engine/engine.env 640 root engine' \
        '/etc/default/prometheus-redis-exporter 640 root root' '/etc/prometheus/secrets 750 root prometheus'; do
        [ "$(stat -c '%n %a %U %G' "${file%% *}")" = "$file" ] || die "it should be $file: $(stat -c '%n %a %U %G' "${file%% *}")"
    done
    for name in engine exporter; do
        refused "the password of $name is in the journal" grep -qF "$(cat "/etc/redis/$name.password")" <(journalctl --no-pager --output cat)
        refused "the password of $name can be read under /etc" as nobody grep -rqsF "$(cat "/etc/redis/$name.password")" /etc
    done
}

post() { curl -fsS -m 15 --cacert "$authority" -H 'Content-Type: application/json' "https://$domain$1" "${@:2}"; }
balance_is_cached() { post /balance/2 | grep -q '"cached":true'; }

serve() {
    post /accounts -d '[{"account_id":1,"currency":"USD","min_balance":null},{"account_id":2,"currency":"USD","min_balance":0}]' >/dev/null
    post /transaction -H 'Idempotency-Key: a' -d '{"from":1,"to":2,"amount":5}' >/dev/null
    until_true 90 "the cache is reached over its socket" balance_is_cached
    [ "$(curl -s -o /dev/null -w '%{http_code}' --cacert "$authority" "https://$domain/metrics")" = 404 ] || die "metrics are served to callers"
    database
    cache
    secrets
}

# What this machine's load or clock may cause is not the playbook's.
quiet() { ! holds 'ALERTS{alertname!~"Watchdog|AlertsNotDelivered|EngineRestarting|Host(Cpu|Memory|Disk|OutOfMemory|Clock).*"} == 1'; }

# What a rule asks for must be there on this machine too, under this sandbox; but for what takes an event,
# a replica or another place to run at.
monitoring() {
    local down missing active
    until_true 90 "every target answers" bash -c '! curl -fsS http://127.0.0.1:9090/api/v1/targets | grep -q "\"health\":\"\(down\|unknown\)\""'
    [ "$(prometheus 'count(up == 1)')" = 6 ] || die "targets that answer: $(prometheus 'count(up == 1)'), not 6"
    # Caddy's own certificates live for hours, so they are no target; this is what asks of others.
    curl -fsS "http://127.0.0.1:9115/probe?module=https&target=https://$domain/health" >/run/probe.txt
    grep -qx 'probe_success 1' /run/probe.txt || die "the certificate is not trusted by who would watch it: $(grep -v '^#' /run/probe.txt)"
    down=$(prometheus 'pg_up != 1 or redis_up != 1 or pg_exporter_last_scrape_error != 0')
    [ -z "$down" ] || die "an exporter does not reach what it measures"
    missing=$(python3 - <<'PYTHON'
import json, re, urllib.request
def get(path):
    return json.load(urllib.request.urlopen("http://127.0.0.1:9090/api/v1/" + path))["data"]
rules = [rule for group in get("rules")["groups"] for rule in group["rules"]]
assert len(rules) > 60, f"only {len(rules)} rules are loaded"
for rule in rules:
    if rule["health"] == "err":
        print(rule["name"], rule["lastError"])
wanted = set(re.findall(r"\b(?:engine|pg|redis|node|process|ops|probe|prometheus|alertmanager)_[a-zA-Z0-9_]+", " ".join(re.sub(r'"[^"]*"', "", rule["query"]) for rule in rules)))
there = set(get("label/__name__/values"))
# node_timex: the clock is hidden from a machine without a kernel of its own.
absent = re.compile("probe_|node_timex_|engine_replica_|engine_database_replication_lag|pg_stat_replication_")
for name in sorted(wanted - there):
    if not absent.match(name):
        print(name)
PYTHON
    )
    [ -z "$missing" ] || die "rules that cannot be evaluated, or metrics that nobody brings: $missing"
    for active in 'ops_job_last_success_timestamp_seconds{task="maintain"}' 'ops_job_last_success_timestamp_seconds{task="verify"}' \
        'ops_job_last_success_timestamp_seconds{task="backup"}' 'time() - ops_backup_newest_timestamp_seconds < 3600' \
        'process_start_time_seconds{job="engine"}' 'process_max_fds{job="engine"}'; do
        until_true 60 "$active" holds "$active"
    done
    # The engine was just killed on purpose; that must pass by itself.
    for _ in $(seq 120); do
        ! quiet || break
        sleep 1
    done
    quiet || die "alerts on a healthy machine: $(curl -fsS http://127.0.0.1:9090/api/v1/alerts)"
    until_true 60 "Alertmanager hears of the alert that always fires" bash -c 'curl -fsS http://127.0.0.1:9093/api/v2/alerts | grep -q Watchdog'
    # The other side of the same coin.
    mv "$figures/ops_backup_physical.prom" /root/
    until_true 90 "HostBackupUnknown is noticed" holds 'ALERTS{alertname="HostBackupUnknown"}'
    systemctl start engine-backup-age
    until_true 90 "the timer's service tells of the backup again" holds 'ops_backup_newest_timestamp_seconds'
}

archived() { [ "$(ask "SELECT last_archived_wal >= '$1' FROM pg_stat_archiver")" = t ]; }

# A daily one after the first, and the moment of now out of them.
backup() {
    local before restored file sums='SELECT (SELECT count(*) FROM transfers), (SELECT balance FROM accounts WHERE id = 2)'
    systemctl start engine-backup
    as postgres /usr/local/lib/engine-ops/backup --config /etc/engine-backup/pgbackrest.conf --list | grep -q '"type": "diff"' || die "the second backup is not there"
    post /transaction -H 'Idempotency-Key: b' -d '{"from":1,"to":2,"amount":7}' >/dev/null
    before=$(ask "$sums" ledger)
    file=$(ask 'SELECT pg_walfile_name(pg_switch_wal())')
    until_true 60 "the log is archived" archived "$file"
    [ "$(ask 'SELECT failed_count FROM pg_stat_archiver')" = 0 ] || die "archiving failed: $(ask 'SELECT * FROM pg_stat_archiver')"
    (cd / && runuser -u postgres -- /usr/local/lib/engine-ops/restore --config /etc/engine-backup/pgbackrest.conf --to latest \
        --data-dir /var/lib/postgresql/restored --port 5433 --socket-dir /var/lib/postgresql --engine /usr/local/bin/engine) >/root/restore.txt 2>&1 ||
        die "the restore failed: $(tail -n 8 /root/restore.txt)"
    restored=$(as postgres psql -h /var/lib/postgresql -p 5433 -XAtc "$sums" ledger)
    as postgres /usr/lib/postgresql/15/bin/pg_ctl -D /var/lib/postgresql/restored stop -m fast >/dev/null
    rm -r /var/lib/postgresql/restored
    [ "$before" = "$restored" ] || die "restored $restored, not $before"
    say "   $(tail -n 1 /root/restore.txt)"
}

for part in "$@"; do
    say "   $part"
    "$part"
done
