#!/usr/bin/env bash
# Does the mesh keep what the chart promises, and do clients notice when a pod goes?
#
#   test_istio.sh [--region R] [--namespace NS] [--health-url URL] [--context NAME]
#
#   --context NAME   kubectl's context for the region's cluster (default: the cluster's name)
#
# Looked at: mTLS is STRICT, only named callers are allowed, POSTs without a key are not repeated,
# every engine has its sidecar. Then one engine is deleted and the region's /health asked ten times
# a second until the replacement is ready: every answer must be 200. RTO: until it is ready.
#
# In the tests kubectl is a stand-in that answers from files: they show that each broken promise
# is told, and the calls. Nothing of a mesh is emulated; only a cluster proves this drill.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

namespace=engine health_url='' context=''
parse "--namespace --health-url --context" "$@"
need_targets
command -v kubectl >/dev/null || die "kubectl is missing: install it, then run this again"
[ -n "$context" ] || context=$(out '.regions.value[$region].cluster.name')
[ -n "$health_url" ] || health_url=$(out '.regions.value[$region].health_url')
k() { kubectl --context "$context" --namespace "$namespace" "$@"; }

problems=0
check() {
    local what=$1 filter=$2
    shift 2
    if k get "$@" -o json | jq -e "$filter" >/dev/null; then say "ok      $what"; else
        say "FAILED  $what"
        problems=$((problems + 1))
    fi
}
engines=(pods --selector=app.kubernetes.io/component=engine)
check "mTLS is STRICT" '[.items[].spec | .mtls.mode, (.portLevelMtls // {})[].mode] | length > 0 and all(. == "STRICT")' peerauthentications
# One policy without rules lets nobody in; what the others let in has a name.
check "only named callers are let in" \
    '[.items[].spec | select((.action // "ALLOW") == "ALLOW") | .rules // []]
     | any(length == 0) and all(all(.from // [] | length > 0 and all(.source.principals // [] | length > 0 and all(test("^[*]?$") | not))))' authorizationpolicies
# A route that says nothing about retries gets Istio's two.
check "no rule repeats a POST without a key" \
    '[.items[].spec.http[] | select((.retries.attempts // 2) > 0)
      | select((.match // []) | length > 0 and all(.method.exact == "GET" or .method.exact == "HEAD" or (.headers // {} | has("idempotency-key"))) | not)]
     | length == 0' virtualservices
check "every engine has its sidecar, and is ready" \
    '[.items[]] | length > 1 and all(any(.spec.containers[], .spec.initContainers[]?; .name == "istio-proxy")
                                     and any(.status.conditions[]; .type == "Ready" and .status == "True"))' "${engines[@]}"
[ "$problems" -eq 0 ] || die "$problems of the checks failed: nothing was deleted"

pods=$(k get "${engines[@]}" -o json)
victim=$(jq -er '.items[0].metadata.name' <<<"$pods")
count=$(jq '.items | length' <<<"$pods")
healthy "$health_url" || die "$health_url does not answer 200 before the drill: nothing was done"
confirm "the pod $victim is deleted"
act_began=$EPOCHREALTIME
act k delete pod "$victim" --wait=false
if [ -n "$dry_run" ]; then
    passed
    exit
fi
asked=0 failed=0
replaced() { k get "${engines[@]}" -o json | jq -e --arg gone "$victim" --argjson count "$count" '[.items[]] | length >= $count and all(.metadata.name != $gone and any(.status.conditions[]; .type == "Ready" and .status == "True"))' >/dev/null; }
began=$SECONDS
until replaced; do
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        asked=$((asked + 1))
        healthy "$health_url" || failed=$((failed + 1))
        sleep 0.1
    done
    [ $((SECONDS - began)) -lt "$timeout" ] || die "no replacement is ready within $timeout s; $failed of $asked answers were not 200"
done
rto=$(elapsed "$act_began")
[ "$failed" -eq 0 ] || die "$failed of $asked answers were not 200 while the pod was replaced ($rto s)"
passed "RTO $rto s; all $asked answers were 200"
