# shellcheck shell=bash
# shellcheck disable=SC2034 # read by the scripts that source this
# What the drills in this folder share: arguments, targets, acts, waiting, the measured RTO.
#
# Every script: --dry-run only says what it would do; --region R; --yes asks nothing; --outputs FILE
# is `terraform output -json` (default: asked of terraform/environments/production).
# Exit: 0 passed, 1 failed (what was changed is put back where that is possible), 64 wrong use.

dry_run='' assume_yes='' region='' outputs='' timeout=900 poll=1
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
# What terraform calls the deployment; staging has one region and fewer drills.
terraform_root=$repository/terraform/environments/${ENGINE_ENVIRONMENT:-production}

say() { printf '%s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
wrong_use() {
    printf 'error: %s. %s --help explains\n' "$*" "${0##*/}" >&2
    exit 64
}

usage() {
    awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"
    say
    say "  --dry-run        say what would be done, and change nothing"
    say "  --region R       region to act in (default: the primary)"
    say "  --outputs FILE   terraform output -json (default: asked of $terraform_root)"
    say "  --yes            do not ask before the first change"
    say "  --timeout S      seconds until a wait has failed (default $timeout); --poll S: between two looks"
}

# parse "--own-option ..." "$@": own options take a value, into a variable of their name.
parse() {
    local own=" $1 " name
    shift
    while [ $# -gt 0 ]; do
        case $1 in
        --dry-run) dry_run=yes ;;
        --yes) assume_yes=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        --region | --outputs | --timeout | --poll | --*)
            [[ " --region --outputs --timeout --poll $own" == *" $1 "* ]] || wrong_use "unknown option $1"
            [ $# -ge 2 ] || wrong_use "$1 wants a value"
            name=${1#--}
            printf -v "${name//-/_}" %s "$2"
            shift
            ;;
        *) wrong_use "unknown argument $1" ;;
        esac
        shift
    done
    [[ $timeout =~ ^[0-9]+$ ]] || wrong_use "--timeout is whole seconds, not $timeout"
    [[ $poll =~ ^[0-9]+([.][0-9]+)?$ ]] || wrong_use "--poll is seconds, not $poll"
}

# The command line's first version ignores AWS_ENDPOINT_URL for some services; the flag holds for all.
aws() { command aws ${AWS_ENDPOINT_URL:+--endpoint-url "$AWS_ENDPOINT_URL"} "$@"; }

# Terraform's outputs, once. To be called in the script itself: in $(...) `die` would end only that.
outputs_read=''
need_targets() {
    local program
    for program in aws jq curl; do
        command -v "$program" >/dev/null || die "$program is missing: install it, then run this again"
    done
    if [ -n "$outputs" ]; then
        outputs_read=$(cat "$outputs") || die "cannot read $outputs"
    else
        outputs_read=$(terraform -chdir="$terraform_root" output -json) || die "no outputs of $terraform_root: give --outputs FILE"
    fi
    [ -n "$region" ] || region=$(out .primary_region.value) || exit 1
    jq -e --arg region "$region" '.regions.value | has($region)' <<<"$outputs_read" | grep -qx true ||
        die "terraform knows no region '$region'"
}

# out FILTER: a target; fails when terraform has none. $region is the region.
out() {
    local value
    # An empty file is no error to jq 1.6.
    value=$(jq -er --arg region "$region" "$1" <<<"$outputs_read") && [ -n "$value" ] || {
        printf 'error: terraform has no output for %s (region %s)\n' "$1" "${region:-none}" >&2
        return 1
    }
    printf '%s\n' "$value"
}

# Every region that terraform knows, one a line.
all_regions() { jq -r '.regions.value | keys[]' <<<"$outputs_read"; }
# Where engines answer /health, whatever the region: one address of all behind CloudFront.
all_health_urls() { jq -r '.regions.value[].health_url' <<<"$outputs_read" | sort -u; }

# act COMMAND...: says it, and does it unless --dry-run; a refusal ends the script. Said on standard
# error, for what the command itself prints is often thrown away.
act() {
    say "+ $*" >&2
    [ -n "$dry_run" ] || "$@" || die "this was refused, for the reason above: $*"
}

confirm() {
    [ -z "$dry_run" ] && [ -z "$assume_yes" ] || return 0
    [ -t 0 ] || die "this changes things: $1. Give --yes, or --dry-run to see what it would do"
    local answer
    read -r -p "$1. Go on? Type yes: " answer
    [ "$answer" = yes ] || die "not confirmed: nothing was done"
}

# elapsed SINCE: seconds since a value of $EPOCHREALTIME.
elapsed() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

# wait_for "what" COMMAND...: until it succeeds; fails after --timeout. Nothing to wait for in a dry run.
wait_for() {
    local what=$1 begin=$SECONDS
    shift
    if [ -n "$dry_run" ]; then
        say "+ wait until $what"
        return
    fi
    until "$@"; do
        [ $((SECONDS - begin)) -lt "$timeout" ] || die "not within $timeout s: $what"
        sleep "$poll"
    done
    say "  $what after $(elapsed "${act_began:-$EPOCHREALTIME}") s"
}

healthy() { [ "$(curl -sS -o /dev/null -m 5 -w '%{http_code}' "$1" 2>/dev/null)" = 200 ]; }

passed() {
    if [ -n "$dry_run" ]; then
        say "dry run: nothing was changed"
    else
        [ $# -eq 0 ] || say "$*"
        say "passed"
    fi
}
