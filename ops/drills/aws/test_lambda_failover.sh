#!/usr/bin/env bash
# Asks the failover function of a region what it would do, or lets it do it.
#
#   test_lambda_failover.sh [--action check|switchover|failover|unfence] [--region R] [--confirm WORDS]
#
#   --region R          the region that takes over (default: the secondary)
#   --action check      (default) changes nothing: the facts, and every refusal
#   --action switchover planned, without loss; run it again with the other --region to go back
#   --action failover   unplanned, for rehearsal accounts: fences and promotes, may lose what lags
#   --action unfence    after a failover, when the former writer's region is back as a secondary: lets
#                       its database be reached again. Without it no way back ends well
#   --confirm WORDS     for failover: force,accept_loss,accept_unfenced (terraform/modules/failover)
#
# `check` passes when the function answers and the facts fit: it is the writer's other side.
# RTO of switchover and failover: from the call until the global database names this region's cluster.
#
# Emulated in the tests: the function's own code, run for real against moto. Not emulated: its
# role's permissions, its time limit, Aurora's own time.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

action=check confirm=''
parse "--action --confirm" "$@"
[[ $action =~ ^(check|switchover|failover|unfence)$ ]] || wrong_use "--action is check, switchover, failover or unfence, not $action"
wanted=$region
need_targets
[ -n "$wanted" ] || region=$(out .secondary_region.value)
function=$(out '.failover_functions.value[$region]')
global=$(out .database.value.global_cluster_id)
cluster=$(out '.database.value.clusters[$region]')

payload=$(jq -cn --arg action "$action" --arg words "$confirm" \
    '{action: $action} + ($words | split(",") | map(select(. != "") | {(.): true}) | add // {})')
answer=$(mktemp)
trap 'rm -f -- "$answer"' EXIT
# The first version of the command line takes the payload as it is, the second wants to be told so.
raw=(--cli-binary-format raw-in-base64-out)
[[ $(command aws --version 2>&1) != aws-cli/1.* ]] || raw=()
call() {
    local error
    error=$(aws lambda invoke --region "$region" --function-name "$function" "${raw[@]}" --cli-read-timeout 0 \
        --payload "$1" --query FunctionError --output text "$answer") || return 1
    [ "$error" = None ] || die "the function failed: $(cat "$answer")"
}
is_writer() {
    aws rds describe-global-clusters --region "$region" --global-cluster-identifier "$global" --output json |
        jq -e --arg arn "$cluster" '.GlobalClusters[0] | .Status == "available" and ([.GlobalClusterMembers[] | select(.IsWriter) | .DBClusterArn] == [$arn])' >/dev/null
}

case $action in
check) ;;
unfence) confirm "the database of the region that $region replaced can be reached again" ;;
*) confirm "$action: $region becomes the writer" ;;
esac
act_began=$EPOCHREALTIME
if [ "$action" != check ] && [ -n "$dry_run" ]; then
    say "+ aws lambda invoke --region $region --function-name $function --payload $payload"
    payload='{"action":"check"}'
    say "asking with check instead:"
fi
call "$payload" || die "the function could not be called"
jq . "$answer"
outcome=$(jq -r .outcome "$answer")
if [ "$action" = check ] || [ -n "$dry_run" ]; then
    jq -e '.facts.own_status == "available"' "$answer" >/dev/null || die "$region's cluster is not available: it could not take over"
    jq -e '.facts.own_is_writer != .facts.peer_is_writer' "$answer" >/dev/null || die "not exactly one of the two regions is the writer"
    passed "the function would say: $outcome"
    exit
fi
case $outcome in
done | running) ;;
*) die "the function says $outcome: $(jq -r '.reasons | join("; ")' "$answer")" ;;
esac
if [ "$action" = unfence ]; then
    passed "the fence is down after $(elapsed "$act_began") s"
    exit
fi
wait_for "$region is the only writer" is_writer
passed "RTO $(elapsed "$act_began") s"
