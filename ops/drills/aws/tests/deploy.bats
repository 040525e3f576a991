#!/usr/bin/env bats
# ops/deploy.sh and ops/setup.sh with stand-ins for helm, kubectl, aws and terraform that write down
# how they were called. The values that deploy.sh makes are rendered with the real chart elsewhere
# (ops/test-infra.d/drills).

root=$BATS_TEST_DIRNAME/../../../..
image=123456789012.dkr.ecr.us-east-1.amazonaws.com/engine-production@sha256:$(printf 'a%.0s' $(seq 64))

# Fails when grep finds it; `! grep` alone fails no test.
absent() { ! grep -q "$@"; }

setup() {
    state=$BATS_TEST_TMPDIR/state
    calls=$state/calls
    mkdir -p "$state" "$BATS_TEST_TMPDIR/bin"
    : >"$calls"
    export STATE=$state DEPLOY_POLL_SECONDS=0.1
    # helm keeps the description of the last revision of each cluster; kubectl a phase.
    cat >"$BATS_TEST_TMPDIR/bin/helm" <<'SH'
#!/bin/bash
echo "helm $*" >>"$STATE/calls"
context=$2
case " $* " in
*" history "*) [ -f "$STATE/$context" ] || exit 1; jq -n --arg d "$(cat "$STATE/$context")" '[{status: "deployed", description: $d}]' ;;
*" upgrade "*) while [ "$1" != --description ]; do shift; done; printf %s "$2" >"$STATE/$context" ;;
esac
SH
    cat >"$BATS_TEST_TMPDIR/bin/kubectl" <<'SH'
#!/bin/bash
echo "kubectl $*" >>"$STATE/calls"
case " $* " in
*" get rollout "*) cat "$STATE/rollout.json" ;;
esac
SH
    cat >"$BATS_TEST_TMPDIR/bin/aws" <<'SH'
#!/bin/bash
echo "aws $*" >>"$STATE/calls"
case "$*" in
*get-caller-identity*) echo 123456789012 ;;
*head-bucket* | *get-role*) [ -f "$STATE/is-there" ] ;;
esac
SH
    cat >"$BATS_TEST_TMPDIR/bin/curl" <<'SH'
#!/bin/bash
cat "$STATE/health"
SH
    cat >"$BATS_TEST_TMPDIR/bin/terraform" <<'SH'
#!/bin/bash
echo "terraform $*" >>"$STATE/calls"
case " $* " in
*" version "*) echo '{"terraform_version":"1.11.4"}' ;;
*" output "*) echo '{"image_repositories":{"value":{"engine":"repository"}}}' ;;
*" plan "*) [ -f "$STATE/applied" ] || exit 2 ;;
*" apply "*) touch "$STATE/applied" "$STATE/is-there" ;;
esac
SH
    chmod +x "$BATS_TEST_TMPDIR"/bin/*
    PATH=$BATS_TEST_TMPDIR/bin:$PATH
    rollout Healthy
    echo -n 200 >"$state/health"
    outputs=$BATS_TEST_DIRNAME/outputs.json
}
# rollout PHASE [OBSERVED_GENERATION [IMAGE]]
rollout() {
    jq -n --arg phase "$1" --arg observed "${2:-7}" --arg image "${3:-$image}" \
        '{metadata: {generation: 7}, spec: {template: {spec: {containers: [{image: "mesh"}, {image: $image}]}}},
          status: {observedGeneration: $observed, phase: $phase}}' >"$state/rollout.json"
}
deploy() {
    run "$root/ops/deploy.sh" --environment production --outputs "$outputs" --image "$image" --timeout 2 "$@"
    echo "$output"
}
upgrades() { grep -c ' upgrade ' "$calls" || true; }

@test "deploy: a tag is no image, and a typo is no environment" {
    run "$root/ops/deploy.sh" --environment production --outputs "$outputs" --image engine:1.2.3 --yes
    [ "$status" -eq 64 ]
    [[ $output == *"a tag could be another image"* ]]
    run "$root/ops/deploy.sh" --environment prod --outputs "$outputs" --image "$image" --yes
    [ "$status" -eq 64 ]
    deploy --region eu-central-1 --yes
    [ "$status" -eq 1 ]
    [ "$(upgrades)" = 0 ]
}

@test "deploy: one region after the other, and a second run does nothing" {
    deploy --yes
    [ "$status" -eq 0 ]
    [ "$(grep ' upgrade ' "$calls" | grep -o 'engine-production-us-[a-z]*-[0-9]' | uniq | tr '\n' ' ')" = "engine-production-us-west-2 engine-production-us-east-1 " ]
    deploy --yes
    [ "$status" -eq 0 ]
    [[ $output == *"nothing to do"* ]]
    [ "$(upgrades)" = 2 ]
}

@test "deploy: a dry run changes nothing" {
    deploy --dry-run
    [ "$status" -eq 0 ]
    [[ $output == *"+ h upgrade"* ]]
    [ "$(upgrades)" = 0 ]
}

@test "deploy: without a terminal nobody is asked" {
    deploy </dev/null
    [ "$status" -eq 1 ]
    [ "$(upgrades)" = 0 ]
}

@test "deploy: a rollout that goes back ends it before the next region" {
    rollout Degraded
    deploy --yes
    [ "$status" -eq 1 ]
    # At once, not when its time is over.
    [[ $output == *"is Degraded: the old version serves"* ]]
    [ "$(upgrades)" = 1 ]
}

@test "deploy: what went back is not taken for done when it is run again" {
    rollout Degraded
    deploy --yes
    [ "$status" -eq 1 ]
    deploy --yes
    [ "$status" -eq 1 ]
    [[ $output == *"was given it before, its rollout is Degraded"*"the old version serves"* ]]
    # Neither tried once more, nor passed on to the next region.
    [ "$(upgrades)" = 1 ]
}

@test "deploy: an image that was taken back by hand is told" {
    deploy --yes
    rollout Healthy 7 "${image%@*}@sha256:$(printf 'b%.0s' $(seq 64))"
    deploy --yes
    [ "$status" -eq 1 ]
    [[ $output == *"another image by hand"* ]]
    [ "$(upgrades)" = 2 ]
}

@test "deploy: a run that was cut off waits for the rollout that it began" {
    rollout Paused
    deploy --region us-west-2 --yes
    [ "$status" -eq 1 ]
    [[ $output == *"Paused after 2 s"* ]]
    # Under way is not done: the other region waits.
    deploy --yes
    [ "$status" -eq 1 ]
    [ "$(upgrades)" = 1 ]
    rollout Healthy
    deploy --yes
    [ "$status" -eq 0 ]
    [ "$(grep -c ' upgrade .*us-west-2' "$calls")" = 1 ]
    [ "$(upgrades)" = 2 ]
}

@test "deploy: a rollout of before is not taken for this one's" {
    rollout Healthy 6
    deploy --yes
    [ "$status" -eq 1 ]
    [[ $output == *"Progressing after 2 s"* ]]
}

@test "deploy: healthy pods behind an edge that does not answer fail" {
    echo -n 503 >"$state/health"
    deploy --yes
    [ "$status" -eq 1 ]
    [[ $output == *"does not answer 200"* ]]
}

newest_migration() { find "$root/sql/migrations" -name 'V*.sql' | sed 's#.*/V\([0-9]*\)__.*#\1#' | sort -n | tail -n 1; }

@test "deploy: one migration goes from region to region like anything else" {
    local before=$(($(newest_migration) - 1))
    for region in us-east-1 us-west-2; do echo -n "image sha256:b, migrations to V$before, settings x" >"$state/engine-production-$region"; done
    deploy --yes
    [ "$status" -eq 0 ]
    [ "$(upgrades)" = 2 ]
    # The second region is touched only after the first is healthy.
    [ "$(grep -n 'get rollout' "$calls" | head -n 1 | cut -d : -f 1)" -lt "$(grep -n ' upgrade ' "$calls" | tail -n 1 | cut -d : -f 1)" ]
}

@test "deploy: two migrations at once are refused" {
    local before=$(($(newest_migration) - 2))
    echo -n "image sha256:b, migrations to V$before, settings x" >"$state/engine-production-us-west-2"
    deploy --yes
    [ "$status" -eq 1 ]
    [[ $output == *"releases between first"* ]]
    [ "$(upgrades)" = 0 ]
}

@test "deploy: a release is taken back over one migration, not over two" {
    local newer=$(($(newest_migration) + 2))
    echo -n "image sha256:b, migrations to V$newer, settings x" >"$state/engine-production-us-west-2"
    deploy --yes
    [ "$status" -eq 1 ]
    [[ $output == *"forward only"* ]]
    [ "$(upgrades)" = 0 ]
    echo -n "image sha256:b, migrations to V$((newer - 1)), settings x" >"$state/engine-production-us-west-2"
    deploy --yes
    [ "$status" -eq 0 ]
}

@test "setup: all of it once, and nothing the second time" {
    cd "$BATS_TEST_TMPDIR"
    run "$root/ops/setup.sh" --environment production --outputs "$state/outputs.json" --state-bucket my-state --dry-run
    [ "$status" -eq 0 ]
    absent ' apply ' "$calls"
    run "$root/ops/setup.sh" --environment production --outputs "$state/outputs.json" --state-bucket my-state --yes
    echo "$output"
    [ "$status" -eq 0 ]
    grep -q 'create-service-linked-role' "$calls"
    grep -q 'bucket_name=my-state' "$calls"
    : >"$calls"
    run "$root/ops/setup.sh" --environment production --outputs "$state/outputs.json" --state-bucket my-state --yes
    [ "$status" -eq 0 ]
    absent ' apply ' "$calls"
    absent create-service-linked-role "$calls"
}

@test "setup: without a terminal nobody is asked, and a bad name is refused" {
    run "$root/ops/setup.sh" --environment production --outputs "$state/outputs.json" --state-bucket my-state </dev/null
    [ "$status" -eq 1 ]
    absent ' apply ' "$calls"
    run "$root/ops/setup.sh" --environment production --state-bucket 'My State'
    [ "$status" -eq 64 ]
}
