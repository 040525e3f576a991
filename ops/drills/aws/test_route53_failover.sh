#!/usr/bin/env bash
# Takes one region out of DNS and measures how long until the name leads to the other.
#
#   test_route53_failover.sh [--region R] [--name NAME] [--resolver IP] [--dns-port N]
#
#   --region R      the region that is declared ill (default: the primary)
#   --name NAME     asked for (default: the domain; behind CloudFront give origin.DOMAIN)
#   --resolver IP   asked by dig (default: the machine's own); --dns-port N (default 53)
#
# The region's health check is inverted: it goes on serving, and Route 53 believes it ill. It is
# put back whatever happens, also on Ctrl-C, and the way back is waited for. RTO: from the call
# until the domain's answer has none of the region's own addresses. Clients that hold on to
# an old answer longer than its TTL are not seen.
#
# With routing = "latency" a resolver near the other region never got this region's answer:
# use a resolver near --region.
#
# Emulated in the tests: moto keeps the health check and the records; a DNS server of 60 lines
# answers by them. Route 53's own timing (3 probes of 10 s, TTL 60 s) is not.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

resolver='' dns_port=53 name=''
parse "--name --resolver --dns-port" "$@"
need_targets
command -v dig >/dev/null || die "dig is missing: install bind9-dnsutils, then run this again"
domain=${name:-$(out .domain_name.value)}
check=$(out '.health_check_ids.value[$region]')
own_name=$(out '.regions.value[$region].name')
others=$(jq -r --arg region "$region" '.regions.value | to_entries[] | select(.key != $region) | .value.health_url' <<<"$outputs_read")
[ -n "$others" ] || die "there is one region only: nothing can take over"

ask() { dig +short +tries=1 +time=2 -p "$dns_port" ${resolver:+"@$resolver"} "$1" A | grep -E '^[0-9.]+$' | sort; }
# Does the domain lead to the region, judged by the region's own name?
leads_here() {
    local here there
    here=$(ask "$own_name") && there=$(ask "$domain") && comm -12 <(printf '%s\n' "$here") <(printf '%s\n' "$there") | grep -q .
}
leads_away() {
    local answer
    answer=$(ask "$domain") && [ -n "$answer" ] && ! leads_here
}

[ "$(aws route53 get-health-check --health-check-id "$check" --query HealthCheck.HealthCheckConfig.Inverted --output text)" != True ] ||
    die "the health check $check is inverted already, by a run that was killed? Nothing was done. Run: aws route53 update-health-check --health-check-id $check --no-inverted"
leads_here || die "$domain does not lead to $region now (or $own_name has no address): nothing was done"
# Were all ill, Route 53 would lead clients here as before.
while read -r url; do
    healthy "$url" || die "$url does not answer 200, so it cannot take over: nothing was done"
done <<<"$others"
confirm "DNS will lead clients of $domain away from $region"

inverted=
restore() {
    local status=$?
    trap - EXIT INT TERM
    if [ -n "$inverted" ]; then
        say "putting the health check back"
        aws route53 update-health-check --health-check-id "$check" --no-inverted --output json >/dev/null || {
            printf 'error: the health check %s IS STILL INVERTED. Run: aws route53 update-health-check --health-check-id %s --no-inverted\n' "$check" "$check" >&2
            status=1
        }
    fi
    exit $status
}
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

act_began=$EPOCHREALTIME
[ -n "$dry_run" ] || inverted=yes
act aws route53 update-health-check --health-check-id "$check" --inverted --output json >/dev/null
wait_for "$domain leads elsewhere" leads_away
rto=$(elapsed "$act_began")

act_began=$EPOCHREALTIME
act aws route53 update-health-check --health-check-id "$check" --no-inverted --output json >/dev/null
inverted=
wait_for "$domain leads to $region again" leads_here
passed "RTO $rto s; back after $(elapsed "$act_began") s"
