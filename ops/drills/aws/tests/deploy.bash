# shellcheck shell=bash
# What deploy.bats and deploy_migrations.bats share: stand-ins for helm, kubectl, aws and terraform that
# write down how they were called.

root=$BATS_TEST_DIRNAME/../../../..
image=123456789012.dkr.ecr.us-east-1.amazonaws.com/engine-production@sha256:$(printf 'a%.0s' $(seq 64))

# Fails when grep finds it; `! grep` alone fails no test.
absent() { ! grep -q "$@"; }

setup_file() {
    # What Amazon's bundle is: several authorities, one after the other.
    for name in one two; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -days 2 \
            -keyout "$BATS_FILE_TMPDIR/key.pem" 2>/dev/null >>"$BATS_FILE_TMPDIR/ca.pem"
    done
}
setup() {
    state=$BATS_TEST_TMPDIR/state
    calls=$state/calls
    mkdir -p "$state" "$BATS_TEST_TMPDIR/bin"
    : >"$calls"
    export STATE=$state DEPLOY_POLL_SECONDS=0.1
    # helm keeps the descriptions of each cluster's revisions; kubectl a phase, its ConfigMaps, and engines
    # of the last revision unless others are said to run.
    cat >"$BATS_TEST_TMPDIR/bin/helm" <<'SH'
#!/bin/bash
echo "helm $*" >>"$STATE/calls"
context=$2
case " $* " in
*" history "*)
    if [ -f "$STATE/$context.broken" ]; then cat "$STATE/$context.broken" >&2; exit 1; fi
    if [ ! -f "$STATE/$context" ]; then echo 'Error: release: not found' >&2; exit 1; fi
    jq -nR '[inputs] | to_entries | map({revision: .key, description: .value, status: "superseded"}) | last.status = "deployed"' "$STATE/$context"
    ;;
*" upgrade "*) while [ "$1" != --description ]; do shift; done; echo "$2" >>"$STATE/$context" ;;
esac
SH
    cat >"$BATS_TEST_TMPDIR/bin/kubectl" <<'SH'
#!/bin/bash
echo "kubectl $*" >>"$STATE/calls"
case " $* " in
*" get rollout "*) cat "$STATE/rollout.json" ;;
*" get replicasets "*)
    [ ! -f "$STATE/$2.broken" ] || exit 1
    for digest in $(cat "$STATE/$2.runs" 2>/dev/null || sed -n '$s/^image \([^,]*\),.*/\1/p' "$STATE/$2" 2>/dev/null); do echo "$digest"; done |
        jq -nR 'def set(n; i): {spec: {replicas: n, template: {spec: {containers: [{name: "mesh", image: "mesh:1"}, {name: "engine", image: "here/engine@\(i)"}]}}}};
            {items: ([inputs | set(2; .)] + [set(0; "sha256:long-ago")])}'
    ;;
*" get configmap "*) [ -f "$STATE/$2.$7" ] ;;
*" create configmap "*) touch "$STATE/$2.$7" ;;
esac
SH
    cat >"$BATS_TEST_TMPDIR/bin/aws" <<'SH'
#!/bin/bash
echo "aws $*" >>"$STATE/calls"
case "$*" in
*get-caller-identity*) echo 123456789012 ;;
*head-bucket* | *get-role*) [ -f "$STATE/is-there" ] ;;
*describe-images*)
    error=$(head -n 1 "$STATE/image-errors" 2>/dev/null) || exit 0
    sed -i 1d "$STATE/image-errors"
    [ -z "$error" ] || { echo "$error" >&2; exit 254; }
    ;;
esac
SH
    cat >"$BATS_TEST_TMPDIR/bin/curl" <<'SH'
#!/bin/bash
case "$*" in
*truststore*) while [ "$1" != -o ]; do shift; done; cp "$STATE/ca.pem" "$2" ;;
*) if [ -f "$STATE/health" ]; then cat "$STATE/health"; else exec "$CURL" "$@"; fi ;;
esac
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
    CURL=$(command -v curl)
    export CURL
    PATH=$BATS_TEST_TMPDIR/bin:$PATH
    rollout Healthy
    echo -n 200 >"$state/health"
    cp "$BATS_FILE_TMPDIR/ca.pem" "$state/ca.pem"
    outputs=$state/outputs.json
    world '.'
}
teardown() {
    for server in "${servers[@]}"; do kill "$server" || true; done
}
# Terraform's outputs, changed by jq's FILTER; the database is not reached.
world() { jq '.database.value |= (.port = 1 | .writer_endpoint = "localhost" | .reader_endpoints[] = "localhost") | '"$1" "$BATS_TEST_DIRNAME/outputs.json" >"$outputs"; }
# double NAME ARGUMENT...: sets `port`, where it listens.
servers=()
double() {
    python3 "$BATS_TEST_DIRNAME/doubles.py" "$@" >"$state/port" 3>&- &
    servers+=($!)
    for _ in $(seq 100); do
        port=$(cat "$state/port")
        [ -z "$port" ] || return 0
        sleep 0.1
    done
    return 1
}
# recorded REGION MIGRATION [DIGEST]: one more revision that Helm brought in.
recorded() { echo "image ${3:-sha256:v$2}, migrations to V$2, settings x" >>"$state/engine-production-$1"; }
# What runs there, if not what Helm brought in last.
runs() { echo "$2" >"$state/engine-production-$1.runs"; }
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
