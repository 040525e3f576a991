#!/usr/bin/env bats
# ops/deploy.sh and ops/setup.sh with stand-ins for helm, kubectl, aws and terraform that write down
# how they were called. The values that deploy.sh makes are rendered with the real chart elsewhere
# (ops/test-infra.d/drills).

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

@test "deploy: an option without its value is told, a region's too" {
    for wrong in "--yes --region" "--region --yes" "--yes --timeout"; do
        # shellcheck disable=SC2086 # words
        deploy $wrong
        [ "$status" -eq 64 ]
        [[ $output == *"wants a value"* ]]
    done
    [ ! -s "$calls" ]
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
    [[ $output == *"+ k create configmap engine-database-ca-"* ]]
    [[ $output == *"+ h upgrade"* ]]
    absent ' create ' "$calls"
    [ "$(upgrades)" = 0 ]
}

@test "deploy: each cluster gets the database's authorities before the chart that names them" {
    deploy --yes
    [ "$status" -eq 0 ]
    local map
    map=engine-database-ca-$(sha256sum "$state/ca.pem" | cut -c 1-8)
    [ "$(grep -c "create configmap $map --from-file=ca.pem=" "$calls")" = 2 ]
    [ "$(grep -c "upgrade .*--set database.caConfigMap.name=$map " "$calls")" = 2 ]
    [ "$(grep -n ' create configmap ' "$calls" | head -n 1 | cut -d : -f 1)" -lt "$(grep -n ' upgrade ' "$calls" | head -n 1 | cut -d : -f 1)" ]
    # Other authorities are something to deploy, under another name; the same ones are not made twice.
    rollout Healthy
    : >"$calls"
    cat "$state/ca.pem" >"$BATS_TEST_TMPDIR/mine.pem"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=three -days 2 -keyout /dev/null 2>/dev/null >>"$BATS_TEST_TMPDIR/mine.pem"
    deploy --yes --region us-west-2 --database-ca "$BATS_TEST_TMPDIR/mine.pem"
    [ "$status" -eq 0 ]
    [ "$(upgrades)" = 1 ]
    absent "$map" "$calls"
    : >"$calls"
    deploy --yes --region us-west-2
    [ "$(upgrades)" = 1 ]
    absent ' create configmap ' "$calls"
}

@test "deploy: authorities that are none, cut off or not to be shown are refused" {
    echo '<html>not here</html>' >"$BATS_TEST_TMPDIR/page"
    head -n 6 "$state/ca.pem" >"$BATS_TEST_TMPDIR/cut"
    sed '3s/./!/' "$state/ca.pem" >"$BATS_TEST_TMPDIR/damaged"
    cat "$state/ca.pem" "$BATS_FILE_TMPDIR/key.pem" >"$BATS_TEST_TMPDIR/with-key"
    : >"$BATS_TEST_TMPDIR/empty"
    for name in page cut damaged with-key empty missing; do
        deploy --yes --database-ca "$BATS_TEST_TMPDIR/$name"
        [ "$status" -eq 1 ]
        [[ $output == *"--database-ca: "*"Nothing was done"* ]]
    done
    rm "$state/ca.pem"
    deploy --yes
    [ "$status" -eq 1 ]
    [[ $output == *"--database-ca FILE"* ]]
    [ ! -s "$calls" ]
}

@test "deploy: each region's image is its own copy, and is waited for" {
    printf 'ImageNotFoundException: not yet\nRepositoryNotFoundException: not yet\n' >"$state/image-errors"
    deploy --yes --region us-west-2
    [ "$status" -eq 0 ]
    [ "$(grep -c 'describe-images --region us-west-2 --repository-name engine-production --image-ids imageDigest=sha256:aaa' "$calls")" = 3 ]
    [ "$(grep -n ' describe-images ' "$calls" | tail -n 1 | cut -d : -f 1)" -lt "$(grep -n ' upgrade ' "$calls" | cut -d : -f 1)" ]
    # Who may not look goes on; what never comes ends it.
    echo 'AccessDeniedException: no' >"$state/image-errors"
    deploy --yes --region us-east-1
    [ "$status" -eq 0 ]
    [[ $output == *"cannot see whether"* ]]
    for _ in $(seq 100); do echo 'ImageNotFoundException: no'; done >"$state/image-errors"
    : >"$calls"
    rm "$state/engine-production-us-west-2"
    deploy --yes --region us-west-2
    [ "$status" -eq 1 ]
    [[ $output == *"is it replicated? Nothing was done"* ]]
    [ "$(upgrades)" = 0 ]
}

@test "deploy: the first deploy of a region has its cache, database and readers" {
    run "$root/ops/deploy.sh" --environment production --outputs "$BATS_TEST_DIRNAME/outputs.json" --image "$image" --values "$BATS_TEST_TMPDIR/values"
    [ "$status" -eq 0 ]
    for region in us-east-1 us-west-2; do
        jq -e --arg region "$region" '.image.repository == "123456789012.dkr.ecr.\($region).amazonaws.com/engine-production" and .redis.host == "master.engine-production-\($region).cache.amazonaws.com" and (.redis.cidrs | length) == 3
            and (.database.cidrs | length) == 6 and (.database.readHost | contains($region))' "$BATS_TEST_TMPDIR/values/$region.json"
    done
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

@test "deploy: one lost answer of the edge is no failed deploy" {
    rm "$state/health"
    double health
    world ".regions.value[].health_url = \"http://127.0.0.1:$port/health\""
    deploy --timeout 60 --yes --region us-west-2
    [ "$status" -eq 0 ]
    [[ $output == *"error: 503"*"healthy after"* ]]
}

@test "deploy: changed rules and roles, which are links in the chart, are something to do" {
    local tree=$BATS_TEST_TMPDIR/tree
    mkdir -p "$tree/ops/monitoring"
    cp -a "$root/k8s" "$root/sql" "$tree"
    cp -a "$root/ops/deploy.sh" "$root/ops/lib" "$tree/ops"
    cp -a "$root/ops/monitoring/rules" "$tree/ops/monitoring"
    root=$tree deploy --yes
    [ "$status" -eq 0 ]
    root=$tree deploy --yes
    [[ $output == *"nothing to do"* ]]
    for changed in "$(find "$tree/ops/monitoring/rules" -name '*.y*ml' | head -n 1)" "$tree/sql/roles.sql"; do
        : >"$calls"
        echo "# changed" >>"$changed"
        root=$tree deploy --yes
        [ "$(upgrades)" = 2 ]
    done
}

# certificate NAME: of the first authority, for this host.
certificate() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=database" -keyout "$state/server.key" -out "$state/server.csr" 2>/dev/null
    openssl x509 -req -in "$state/server.csr" -CA "$state/issuer.pem" -CAkey "$state/issuer.key" -CAcreateserial -days 2 \
        -extfile <(echo "subjectAltName=DNS:$1") -out "$state/server.pem" 2>/dev/null
    double postgres "$state/server.pem" "$state/server.key"
    world ".database.value.port = $port"
}

@test "deploy: a database whose certificate is for another name is told before anything is installed" {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=issuer -days 2 -keyout "$state/issuer.key" -out "$state/issuer.pem" 2>/dev/null
    certificate elsewhere.invalid
    cat "$state/issuer.pem" >>"$state/ca.pem"
    deploy --yes
    [ "$status" -eq 1 ]
    [[ $output == *"not for localhost"*"database.sslMode: verify-ca"* ]]
    absent ' create ' "$calls"
    [ "$(upgrades)" = 0 ]
    certificate localhost
    deploy --yes
    [ "$status" -eq 0 ]
    [[ $output == *"certificate is for localhost"* ]]
    # Authorities of somebody else.
    cp "$BATS_FILE_TMPDIR/ca.pem" "$state/ca.pem"
    : >"$calls"
    deploy --yes
    [ "$status" -eq 1 ]
    [[ $output == *"no authority given vouches for localhost"*"--database-ca"* ]]
    [ "$(upgrades)" = 0 ]
}

@test "deploy: a database that is not reached from here is said to be unseen" {
    deploy --yes --region us-west-2
    [ "$status" -eq 0 ]
    [[ $output == *"cannot see from here whether the database's certificate is for localhost"* ]]
}

newest_migration() { find "$root/sql/migrations" -name 'V*.sql' | sed 's#.*/V\([0-9]*\)__.*#\1#' | sort -n | tail -n 1; }

@test "deploy: one migration goes from region to region like anything else" {
    local before=$(($(newest_migration) - 1))
    for region in us-east-1 us-west-2; do recorded "$region" "$before"; done
    deploy --yes
    [ "$status" -eq 0 ]
    [ "$(upgrades)" = 2 ]
    # The second region is touched only after the first is healthy.
    [ "$(grep -n 'get rollout' "$calls" | head -n 1 | cut -d : -f 1)" -lt "$(grep -n ' upgrade ' "$calls" | tail -n 1 | cut -d : -f 1)" ]
}

@test "deploy: two migrations at once are refused" {
    recorded us-west-2 $(($(newest_migration) - 2))
    deploy --yes
    [ "$status" -eq 1 ]
    [[ $output == *"releases between first"* ]]
    [ "$(upgrades)" = 0 ]
}

@test "deploy: a migration waits for the engines that a rollout which went back left" {
    local newest
    newest=$(newest_migration)
    recorded us-west-2 $((newest - 2))
    recorded us-west-2 $((newest - 1))
    runs us-west-2 "sha256:v$((newest - 2)) sha256:v$((newest - 1))"
    deploy --yes --region us-west-2
    [ "$status" -eq 1 ]
    [[ $output == *"us-west-2 runs engines of V$((newest - 2))"*"releases between first"* ]]
    # An engine that nobody deployed may know anything.
    runs us-west-2 sha256:by-hand
    deploy --yes --region us-west-2
    [ "$status" -eq 1 ]
    [[ $output == *"us-west-2 runs engines of sha256:by-hand, and no revision"* ]]
    [ "$(upgrades)" = 0 ]
    runs us-west-2 "sha256:v$((newest - 1))"
    deploy --yes --region us-west-2
    [ "$status" -eq 0 ]
}

@test "deploy: a release that mends the one which went back may bring the same migration" {
    local newest
    newest=$(newest_migration)
    recorded us-west-2 $((newest - 1))
    recorded us-west-2 "$newest"
    recorded us-east-1 $((newest - 1))
    runs us-west-2 "sha256:v$((newest - 1))"
    deploy --yes
    [ "$status" -eq 0 ]
    [ "$(upgrades)" = 2 ]
}

@test "deploy: a migration waits for the region that was not chosen" {
    local newest
    newest=$(newest_migration)
    recorded us-west-2 $((newest - 1))
    recorded us-east-1 $((newest - 2))
    deploy --yes --region us-west-2
    [ "$status" -eq 1 ]
    [[ $output == *"us-east-1 runs engines of V$((newest - 2))"*"releases between first"* ]]
    [ "$(upgrades)" = 0 ]
    recorded us-east-1 $((newest - 1))
    deploy --yes --region us-west-2
    [ "$status" -eq 0 ]
}

@test "deploy: what Helm cannot tell is not taken for never deployed" {
    local newest
    newest=$(newest_migration)
    echo 'Error: Kubernetes cluster unreachable: dial tcp: i/o timeout' >"$state/engine-production-us-west-2.broken"
    recorded us-east-1 "$newest"
    deploy --yes --region us-west-2
    [ "$status" -eq 1 ]
    [[ $output == *"us-west-2: Helm cannot say"*"i/o timeout"*"Nothing was done"* ]]
    [ "$(upgrades)" = 0 ]
    # A lost region does not keep the other from a release without a migration, but from one with.
    deploy --yes --region us-east-1
    [ "$status" -eq 0 ]
    [[ $output == *"us-west-2: cannot be seen"*"i/o timeout"*"going on"* ]]
    rm "$state/engine-production-us-east-1"
    recorded us-east-1 $((newest - 1))
    : >"$calls"
    deploy --yes --region us-east-1
    [ "$status" -eq 1 ]
    [[ $output == *"us-west-2: Helm cannot say"*"or deploy a release without one"* ]]
    [ "$(upgrades)" = 0 ]
}

@test "deploy: a former image is recorded with its own migration, not with the sources'" {
    local newest
    newest=$(newest_migration)
    recorded us-west-2 $((newest - 1)) "${image#*@}"
    recorded us-west-2 "$newest"
    deploy --yes --region us-west-2
    [ "$status" -eq 0 ]
    [[ $(tail -n 1 "$state/engine-production-us-west-2") == *"migrations to V$((newest - 1)),"* ]]
}

@test "deploy: a release is taken back over one migration, not over two" {
    local newest
    newest=$(newest_migration)
    # In between is where it was taken back to already: the database stays where it was.
    recorded us-west-2 $((newest + 2))
    recorded us-west-2 $((newest + 1))
    deploy --yes
    [ "$status" -eq 1 ]
    [[ $output == *"forward only"* ]]
    [ "$(upgrades)" = 0 ]
    rm "$state/engine-production-us-west-2"
    recorded us-west-2 $((newest + 1))
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
