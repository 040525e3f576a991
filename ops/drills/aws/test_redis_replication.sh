#!/usr/bin/env bash
# Does the cache replicate, and does its replica take over?
#
#   test_redis_replication.sh [--region R] [--primary HOST:PORT --replica HOST:PORT] [--tls no]
#
#   --primary, --replica   also write to the one and read from the other, by redis-cli: through the
#                          bastion's port forwarding. REDISCLI_AUTH holds the token; --tls no for a
#                          Redis without TLS
#
# Then ElastiCache is told to fail over (test-failover). RTO: until the group is available with
# another primary. The engine needs none of it: without Redis PostgreSQL answers every read.
#
# Emulated in the tests: ElastiCache's calls by moto, which moves no role; the data by two local
# Redis servers. Not emulated: ElastiCache's own time.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

primary='' replica='' tls=yes
parse "--primary --replica --tls" "$@"
need_targets
group=$(out '.regions.value[$region].cache.id')

described() { aws elasticache describe-replication-groups --region "$region" --replication-group-id "$group" --output json; }
# Prints the primary's node; fails while the group is not available or has none.
role() { described | jq -er '.ReplicationGroups[0] | select(.Status == "available") | .NodeGroups[0].NodeGroupMembers[] | select(.CurrentRole == "primary") | .CacheClusterId'; }
encryption=(--tls)
[ "$tls" != no ] || encryption=()
redis() {
    local place=$1
    shift
    redis-cli -h "${place%:*}" -p "${place##*:}" "${encryption[@]}" "$@"
}

before=$(role) || die "$group is not available, or has no primary: nothing was done"
say "primary now: $before"
described | jq -e '.ReplicationGroups[0].AutomaticFailover == "enabled"' >/dev/null || die "$group does not fail over by itself (automatic failover is off)"

if [ -n "$primary$replica" ]; then
    [ -n "$primary" ] && [ -n "$replica" ] || wrong_use "--primary and --replica go together"
    redis "$replica" INFO replication | tr -d '\r' | grep -qx role:slave || die "$replica is no replica"
    key=engine-drill:$RANDOM$RANDOM
    if [ -z "$dry_run" ]; then
        began=$EPOCHREALTIME
        [ "$(redis "$primary" SET "$key" "$key" EX 60)" = OK ] || die "$primary takes no write"
        arrived() { [ "$(redis "$replica" GET "$key")" = "$key" ]; }
        act_began=$began
        timeout=10 wait_for "what $primary took is at $replica" arrived
        redis "$primary" DEL "$key" >/dev/null
    fi
fi

confirm "the cache $group fails over: reads go to PostgreSQL for a while"
node_group=$(described | jq -er '.ReplicationGroups[0].NodeGroups[0].NodeGroupId')
act_began=$EPOCHREALTIME
act aws elasticache test-failover --region "$region" --replication-group-id "$group" --node-group-id "$node_group" --output json >/dev/null
took_over() {
    local now
    now=$(role) && [ "$now" != "$before" ]
}
wait_for "another node is the primary" took_over
passed "RTO $(elapsed "$act_began") s, primary now: $([ -n "$dry_run" ] || role)"
