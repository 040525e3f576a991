#!/usr/bin/env bats
# ops/deploy.sh and ops/setup.sh with stand-ins. The values that deploy.sh makes are rendered with the
# real chart elsewhere (ops/test-infra.d/drills).

load deploy

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

# Into `tree`, to be changed.
copy_sources() {
    tree=$BATS_TEST_TMPDIR/tree
    mkdir -p "$tree/ops/monitoring"
    cp -a "$root/k8s" "$root/sql" "$tree"
    cp -a "$root/ops/deploy.sh" "$root/ops/lib" "$tree/ops"
    cp -a "$root/ops/monitoring/rules" "$tree/ops/monitoring"
}

@test "deploy: changed rules and roles, which are links in the chart, are something to do" {
    copy_sources
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
    # What the message advises.
    copy_sources
    sed -i 's/^database:$/&\n  sslMode: verify-ca/' "$tree/k8s/values/production-us-west-2.yaml"
    root=$tree deploy --yes --region us-west-2
    [ "$status" -eq 0 ]
    [[ $output == *"known authority vouches for localhost"* ]]
    [ "$(upgrades)" = 1 ]
    certificate localhost
    deploy --yes
    [ "$status" -eq 0 ]
    [[ $output == *"vouches for localhost"* ]]
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
    [[ $output == *"cannot see from here whether the certificate of localhost is for it"* ]]
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
