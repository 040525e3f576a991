#!/usr/bin/env bash
# Fails the database over and measures how long until it is back.
#
#   simulate_rds_failover.sh [--kind instance|switchover] [--region R] [--health-url URL]
#
#   --kind instance     (default) another instance of the region's cluster becomes the writer
#   --kind switchover   the writer moves to --region, planned, without loss (global database)
#   --health-url URL    the engine's /health that must be 200 again (default: the region's; after a
#                       switchover that of every region, for the engines of all follow the writer)
#
# RTO: from the call until AWS names the new writer and the engines answer 200. Run
# `loadtest run --journal` meanwhile and `loadtest verify` afterwards: they prove what this
# only times. An unplanned failover of a lost region is test_lambda_failover.sh.
#
# Emulated in the tests (moto): the calls, their order, the waits and the failures. Not
# emulated: that engines lose and find the writer, and any real time.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

kind=instance health_url=''
parse "--kind --health-url" "$@"
need_targets
[[ $kind =~ ^(instance|switchover)$ ]] || wrong_use "--kind is instance or switchover, not $kind"
cluster=$(out '.database.value.clusters[$region]')
health_urls=("$health_url")
if [ -z "$health_url" ] && [ "$kind" = instance ]; then
    health_urls=("$(out '.regions.value[$region].health_url')")
elif [ -z "$health_url" ]; then
    mapfile -t health_urls < <(all_health_urls)
fi

writer() {
    if [ "$kind" = instance ]; then
        aws rds describe-db-clusters --region "$region" --db-cluster-identifier "$cluster" --output json |
            jq -er '.DBClusters[0] | select(.Status == "available") | .DBClusterMembers[] | select(.IsClusterWriter) | .DBInstanceIdentifier'
    else
        aws rds describe-global-clusters --region "$region" --global-cluster-identifier "$global" --output json |
            jq -er '.GlobalClusters[0] | select(.Status == "available") | .GlobalClusterMembers[] | select(.IsWriter) | .DBClusterArn'
    fi
}
moved() {
    local now
    now=$(writer) && if [ "$kind" = instance ]; then [ "$now" != "$before" ]; else [ "$now" = "$cluster" ]; fi
}

[ "$kind" = instance ] || global=$(out .database.value.global_cluster_id)
before=$(writer) || die "$region has no writer (another --region has it?), or its cluster is busy: nothing was done"
say "writer now: $before"
for url in "${health_urls[@]}"; do
    healthy "$url" || die "$url does not answer 200 before the drill: nothing was done"
done
if [ "$kind" = switchover ] && [ "$before" = "$cluster" ]; then
    die "$region has the writer already: give the other --region. Nothing was done"
fi
confirm "$kind failover of $cluster interrupts transfers for seconds to minutes"
act_began=$EPOCHREALTIME
if [ "$kind" = instance ]; then
    act aws rds failover-db-cluster --region "$region" --db-cluster-identifier "${cluster##*:}" --output json >/dev/null
else
    # AWS wants this call in the region that has the writer, the fourth part of its ARN.
    from=$(cut -d : -f 4 <<<"$before")
    act aws rds switchover-global-cluster --region "$from" --global-cluster-identifier "$global" \
        --target-db-cluster-identifier "$cluster" --output json >/dev/null
fi
wait_for "another writer is named" moved
for url in "${health_urls[@]}"; do
    wait_for "$url answers 200" healthy "$url"
done
passed "RTO $(elapsed "$act_began") s, writer now: $([ -n "$dry_run" ] || writer)"
