#!/usr/bin/env bats
# The drills against moto, a DNS server that reads from it, and local Redis servers.
#
#   ops/test-infra drills      makes the tools and starts this

drills=$BATS_TEST_DIRNAME/..

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Fails when grep finds it; `! grep` alone fails no test.
absent() { ! grep -q "$@"; }

# up LOG COMMAND...: until it succeeds; not for ever, for what never comes up must fail the test.
up() {
    local log=$1 begin=$SECONDS
    shift
    until "$@" >/dev/null 2>&1; do
        [ $((SECONDS - begin)) -lt 60 ] || { cat "$log"; return 1; }
        sleep 0.1
    done
}

# Each test has a world of its own: what one drill moves must not help the next.
setup() {
    local emulator_port health_port
    emulator_port=$(free_port) health_port=$(free_port) dns_port=$(free_port)
    unset AWS_PROFILE AWS_CONFIG_FILE
    export AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x AWS_DEFAULT_REGION=us-east-1 AWS_PAGER= AWS_EC2_METADATA_DISABLED=true
    export AWS_ENDPOINT_URL=http://127.0.0.1:$emulator_port NO_PROXY=127.0.0.1
    ill=$BATS_TEST_TMPDIR/ill
    python "$BATS_TEST_DIRNAME/awsemu.py" -p "$emulator_port" >"$BATS_TEST_TMPDIR/emulator.log" 2>&1 3>&- &
    pids=$!
    python "$BATS_TEST_DIRNAME/health.py" "$health_port" "$ill" >/dev/null 2>&1 3>&- &
    pids+=" $!"
    up "$BATS_TEST_TMPDIR/emulator.log" curl -fs "$AWS_ENDPOINT_URL/moto-api/"
    outputs=$BATS_TEST_TMPDIR/outputs.json
    python "$BATS_TEST_DIRNAME/world.py" "$health_port" >"$outputs"
    health=http://127.0.0.1:$health_port/health
}

teardown() {
    # shellcheck disable=SC2086 # several numbers
    kill $pids 2>/dev/null || true
}

start_dns() {
    python "$BATS_TEST_DIRNAME/dns.py" "$dns_port" "$health" >"$BATS_TEST_TMPDIR/dns.log" 2>&1 3>&- &
    pids+=" $!"
    up "$BATS_TEST_TMPDIR/dns.log" grep -q ready "$BATS_TEST_TMPDIR/dns.log"
}

drill() {
    local name=$1
    shift
    run "$drills/$name" --outputs "$outputs" --timeout 20 --poll 0.2 "$@"
    echo "$output"
}
# stuck COMMAND [TIMES]: from now on `aws ... COMMAND` does nothing; with TIMES it is refused that often, then does.
stuck() {
    local place=$BATS_TEST_TMPDIR/stuck
    mkdir -p "$place"
    echo "${2:-}" >"$place/left"
    cat >"$place/aws" <<SH
#!/bin/bash
left=\$(cat "$place/left")
case " \$* " in *" $1 "*)
    [ -n "\$left" ] || exit 0
    [ "\$left" -eq 0 ] || { echo \$((left - 1)) >"$place/left"; echo "InvalidDBClusterStateFault: busy" >&2; exit 254; } ;;
esac
exec "$(PATH=${PATH#"$place:"} command -v aws)" "\$@"
SH
    chmod +x "$place/aws"
    [[ $PATH == "$place:"* ]] || PATH=$place:$PATH
}
api() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }
writer_instance() { api rds describe-db-clusters --db-cluster-identifier engine-production-us-east-1 --query 'DBClusters[0].DBClusterMembers[?IsClusterWriter].DBInstanceIdentifier' --output text; }
writer_cluster() { api rds describe-global-clusters --query 'GlobalClusters[0].GlobalClusterMembers[?IsWriter].DBClusterArn' --output text; }
inverted() { api route53 list-health-checks --query 'HealthChecks[?HealthCheckConfig.Inverted].Id' --output text; }

@test "every drill explains itself, and refuses what it does not know" {
    for name in simulate_rds_failover test_route53_failover test_lambda_failover test_backups test_redis_replication test_istio rotate_credentials; do
        run "$drills/$name.sh" --help
        [ "$status" -eq 0 ]
        [[ $output == *--dry-run* && $output == *--region* && $output == *"the tests"* ]]
        run "$drills/$name.sh" --nonsense
        [ "$status" -eq 64 ]
        run "$drills/$name.sh" --region
        [ "$status" -eq 64 ]
        run "$drills/$name.sh" --timeout soon
        [ "$status" -eq 64 ]
    done
}

@test "targets that terraform does not have are told, and nothing is done" {
    drill simulate_rds_failover.sh --region eu-central-1 --yes
    [ "$status" -eq 1 ]
    [[ $output == *"knows no region"* ]]
    echo '{}' >"$outputs"
    drill simulate_rds_failover.sh --yes
    [ "$status" -eq 1 ]
    [[ $output == *"has no output for .primary_region.value"* ]]
    : >"$outputs"
    drill test_redis_replication.sh --yes
    [ "$status" -eq 1 ]
}

@test "without a terminal nobody is asked, and nothing is done" {
    before=$(writer_instance)
    drill simulate_rds_failover.sh </dev/null
    [ "$status" -eq 1 ]
    [[ $output == *"Give --yes"* ]]
    [ "$(writer_instance)" = "$before" ]
}

@test "rds: another instance becomes the writer" {
    before=$(writer_instance)
    drill simulate_rds_failover.sh --yes
    [ "$status" -eq 0 ]
    [[ $output == *"RTO "*" s"* ]]
    [ "$(writer_instance)" != "$before" ]
}

@test "rds: a dry run changes nothing" {
    before=$(writer_instance)
    drill simulate_rds_failover.sh --dry-run
    [ "$status" -eq 0 ]
    [[ $output == *"+ aws rds failover-db-cluster"* && $output == *"nothing was changed"* ]]
    [ "$(writer_instance)" = "$before" ]
}

@test "rds: engines that do not come back fail the drill" {
    # Well when the drill looks first, and never again.
    echo 1 >"$ill"
    drill simulate_rds_failover.sh --yes --timeout 2
    [ "$status" -eq 1 ]
    [[ $output == *"not within 2 s: $health answers 200"* ]]
}

@test "rds: what is ill before the drill, or has no writer, is left alone" {
    before=$(writer_instance)
    api rds stop-db-cluster --region us-west-2 --db-cluster-identifier engine-production-us-west-2
    drill simulate_rds_failover.sh --region us-west-2 --yes
    [ "$status" -eq 1 ]
    [[ $output == *"or its cluster is busy: nothing was done"* ]]
    touch "$ill"
    drill simulate_rds_failover.sh --yes
    [ "$status" -eq 1 ]
    [[ $output == *"before the drill: nothing was done"* ]]
    [ "$(writer_instance)" = "$before" ]
}

@test "rds: the writer moves to the other region, and not to where it is" {
    drill simulate_rds_failover.sh --kind switchover --region us-east-1 --yes
    [ "$status" -eq 1 ]
    [[ $output == *"has the writer already"* ]]
    drill simulate_rds_failover.sh --kind switchover --region us-west-2 --yes
    [ "$status" -eq 0 ]
    # Asked of the region that had the writer, about the one that gets it.
    [[ $output == *"switchover-global-cluster --region us-east-1 "*"--target-db-cluster-identifier arn:aws:rds:us-west-2:"* ]]
    [[ $(writer_cluster) == *us-west-2* ]]
    drill simulate_rds_failover.sh --kind switchover --region us-east-1 --yes
    [ "$status" -eq 0 ]
    [[ $output == *"switchover-global-cluster --region us-west-2 "* ]]
    [[ $(writer_cluster) == *us-east-1* ]]
}

@test "route53: the name leads elsewhere and back, and the check is put back" {
    start_dns
    drill test_route53_failover.sh --resolver 127.0.0.1 --dns-port "$dns_port" --yes
    [ "$status" -eq 0 ]
    [[ $output == *"RTO "*"back after"* ]]
    [ -z "$(inverted)" ]
}

@test "route53: DNS that does not follow fails the drill, and the check is put back" {
    start_dns
    # Without the other region's record the last resort stays the primary.
    zone=$(jq -r .zone.value.id "$outputs")
    record=$(api route53 list-resource-record-sets --hosted-zone-id "$zone" --output json | jq -c '.ResourceRecordSets[] | select(.Failover == "SECONDARY")')
    api route53 change-resource-record-sets --hosted-zone-id "$zone" --change-batch "{\"Changes\": [{\"Action\": \"DELETE\", \"ResourceRecordSet\": $record}]}"
    drill test_route53_failover.sh --resolver 127.0.0.1 --dns-port "$dns_port" --yes --timeout 3
    [ "$status" -eq 1 ]
    [[ $output == *"not within 3 s"*"putting the health check back"* ]]
    [ -z "$(inverted)" ]
}

@test "route53: a drill that is interrupted puts the check back" {
    start_dns
    zone=$(jq -r .zone.value.id "$outputs")
    record=$(api route53 list-resource-record-sets --hosted-zone-id "$zone" --output json | jq -c '.ResourceRecordSets[] | select(.Failover == "SECONDARY")')
    api route53 change-resource-record-sets --hosted-zone-id "$zone" --change-batch "{\"Changes\": [{\"Action\": \"DELETE\", \"ResourceRecordSet\": $record}]}"
    "$drills/test_route53_failover.sh" --outputs "$outputs" --poll 0.2 --resolver 127.0.0.1 --dns-port "$dns_port" --yes >"$BATS_TEST_TMPDIR/drill.log" 2>&1 3>&- &
    drill=$!
    until [ -n "$(inverted)" ]; do kill -0 "$drill"; done
    # The next while the check is inverted is told so.
    drill test_route53_failover.sh --resolver 127.0.0.1 --dns-port "$dns_port" --yes
    [ "$status" -eq 1 ]
    [[ $output == *"is inverted already"* ]]
    kill -TERM "$drill"
    # Not by `run`: its subshell has no such child.
    wait "$drill" && status=0 || status=$?
    cat "$BATS_TEST_TMPDIR/drill.log"
    [ "$status" -eq 143 ]
    grep -q 'putting the health check back' "$BATS_TEST_TMPDIR/drill.log"
    [ -z "$(inverted)" ]
}

@test "route53: a region is not taken away when the other one is ill" {
    start_dns
    # Once for the DNS server's own look, then ill.
    echo 1 >"$ill"
    drill test_route53_failover.sh --resolver 127.0.0.1 --dns-port "$dns_port" --yes
    [ "$status" -eq 1 ]
    [[ $output == *"so it cannot take over: nothing was done"* ]]
    absent 'update-health-check' <<<"$output"
}

@test "route53: a dry run inverts nothing" {
    start_dns
    drill test_route53_failover.sh --resolver 127.0.0.1 --dns-port "$dns_port" --dry-run
    [ "$status" -eq 0 ]
    [ -z "$(inverted)" ]
}

@test "lambda: check tells facts and refusals, and changes nothing" {
    drill test_lambda_failover.sh
    [ "$status" -eq 0 ]
    [[ $output == *"confirm with force"* ]]
    [[ $(writer_cluster) == *us-east-1* ]]
}

@test "lambda: a healthy region is not failed over without confirmation" {
    drill test_lambda_failover.sh --action failover --yes
    [ "$status" -eq 1 ]
    [[ $output == *"the function says refused"* ]]
    [[ $(writer_cluster) == *us-east-1* ]]
}

@test "lambda: a planned switchover, run by the function itself" {
    drill test_lambda_failover.sh --action switchover --dry-run
    [ "$status" -eq 0 ]
    [[ $(writer_cluster) == *us-east-1* ]]
    drill test_lambda_failover.sh --action switchover --yes
    [ "$status" -eq 0 ]
    [[ $output == *"RTO "* ]]
    [[ $(writer_cluster) == *us-west-2* ]]
}

@test "lambda: a lost region is fenced and replaced" {
    touch "$ill"
    drill test_lambda_failover.sh --action failover --confirm force,accept_loss --yes
    [ "$status" -eq 0 ]
    [[ $output == *'"fence": "up"'* ]]
    [[ $(writer_cluster) == *us-west-2* ]]
    # Not by the region that is fenced off, but by the one that took over.
    drill test_lambda_failover.sh --action unfence --region us-east-1 --yes
    [ "$status" -eq 1 ]
    [[ $output == *"not the only writer"* ]]
    drill test_lambda_failover.sh --action unfence --yes
    [ "$status" -eq 0 ]
    [[ $output == *'"fence": "down"'*"the fence is down after"* ]]
}

@test "backups: they are there, and one comes back and is deleted again" {
    drill test_backups.sh --restore yes --yes
    [ "$status" -eq 0 ]
    [[ $output == *"the copy's storage is restored"*"+ aws rds create-db-instance"*"RTO of a restore"* ]]
    [ "$(api rds describe-db-clusters --query 'length(DBClusters)')" = 1 ]
}

@test "backups: one that is torn, old or unprotected is told" {
    bucket=$(jq -r '.backups.value.buckets["us-east-1"]' "$outputs")
    api s3api delete-object --bucket "$bucket" --key logical/2026-01-31T03-00-00Z/manifest.json
    api rds modify-db-cluster --db-cluster-identifier engine-production-us-east-1 --no-deletion-protection --backup-retention-period 3 --apply-immediately
    drill test_backups.sh
    [ "$status" -eq 1 ]
    [[ $output == *"FAILED  a whole logical backup"* && $output == *"FAILED  the cluster is protected"* && $output == *"FAILED  the cluster keeps"* ]]
    [[ $output == *"3 of the checks failed"* ]]
}

@test "backups: a restore that is not ready in time is deleted too" {
    stuck create-db-instance
    drill test_backups.sh --restore yes --yes --timeout 2
    [ "$status" -eq 1 ]
    [[ $output == *"not within 2 s: the copy is available"* ]]
    [ "$(api rds describe-db-clusters --query 'length(DBClusters)')" = 1 ]
}

@test "backups: a restore that AWS refuses leaves nothing, and asks for nothing" {
    stuck restore-db-cluster-to-point-in-time 1
    drill test_backups.sh --restore yes --yes
    [ "$status" -eq 1 ]
    [[ $output == *"this was refused"*"restore-db-cluster-to-point-in-time"* && $output != *"IS STILL THERE"* ]]
}

@test "backups: a copy that cannot be deleted yet is asked for again, and in the end told" {
    # As AWS refuses while an instance is being made: the first three times.
    stuck delete-db-cluster 3
    drill test_backups.sh --restore yes --yes
    [ "$status" -eq 0 ]
    [ "$(api rds describe-db-clusters --query 'length(DBClusters)')" = 1 ]
    stuck delete-db-cluster 1000
    drill test_backups.sh --restore yes --yes --timeout 3
    [ "$status" -eq 1 ]
    [[ $output == *"IS STILL THERE, and costs money"* ]]
}

@test "redis: what one takes the other has, and another node takes over" {
    first=$(free_port) second=$(free_port)
    redis-server --port "$first" --bind 127.0.0.1 --save '' --dir "$BATS_TEST_TMPDIR" >/dev/null 3>&- &
    pids+=" $!"
    redis-server --port "$second" --bind 127.0.0.1 --save '' --dir "$BATS_TEST_TMPDIR" --replicaof 127.0.0.1 "$first" >/dev/null 3>&- &
    pids+=" $!"
    linked() { redis-cli -p "$second" INFO replication | grep -q master_link_status:up; }
    up /dev/null linked
    drill test_redis_replication.sh --primary "127.0.0.1:$first" --replica "127.0.0.1:$second" --tls no --yes
    [ "$status" -eq 0 ]
    [[ $output == *"is at 127.0.0.1:$second after"*"--node-group-id 0001"*"primary now: engine-production-us-east-1-002"* ]]
    # Two servers that know nothing of each other.
    redis-cli -p "$second" REPLICAOF NO ONE
    drill test_redis_replication.sh --primary "127.0.0.1:$first" --replica "127.0.0.1:$second" --tls no --yes
    [ "$status" -eq 1 ]
    [[ $output == *"is no replica"* ]]
}

@test "redis: a group that does not fail over by itself is told" {
    api elasticache modify-replication-group --replication-group-id engine-production-us-east-1 --no-automatic-failover-enabled --apply-immediately
    drill test_redis_replication.sh --yes
    [ "$status" -eq 1 ]
    [[ $output == *"automatic failover is off"* ]]
}

@test "redis: a group that stays as it is fails the drill" {
    stuck test-failover
    drill test_redis_replication.sh --yes --timeout 2
    [ "$status" -eq 1 ]
    [[ $output == *"not within 2 s: another node is the primary"* ]]
}

# kubectl from files: get KIND prints $cluster/KIND.json.
stub_kubectl() {
    cluster=$BATS_TEST_TMPDIR/cluster
    mkdir -p "$cluster" "$BATS_TEST_TMPDIR/bin"
    cat >"$BATS_TEST_TMPDIR/bin/kubectl" <<SH
#!/bin/bash
echo "\$*" >>"$cluster/calls"
while [ "\${1#--}" != "\$1" ]; do shift 2; done
case \$1 in
get) cat "$cluster/\$2.json" ;;
annotate) jq -n --arg at "\$(date -u +%Y-%m-%dT%H:%M:%SZ)" '{status: {refreshTime: \$at}}' >"$cluster/externalsecret.json" ;;
patch) rollout=\$(jq --argjson patch "\${@: -1}" '.status = {restartedAt: \$patch.spec.restartAt, phase: "Healthy"}' "$cluster/rollout.json") && echo "\$rollout" >"$cluster/rollout.json" ;;
delete) cp "$cluster/after.json" "$cluster/pods.json" ;;
esac
SH
    chmod +x "$BATS_TEST_TMPDIR/bin/kubectl"
    PATH=$BATS_TEST_TMPDIR/bin:$PATH
    pod() { printf '{"metadata":{"name":"%s"},"spec":{"containers":[{"name":"engine"}],"initContainers":[{"name":"istio-proxy"}]},"status":{"conditions":[{"type":"Ready","status":"True"}]}}' "$1"; }
    echo "{\"items\":[$(pod a),$(pod b)]}" >"$cluster/pods.json"
    echo "{\"items\":[$(pod b),$(pod c)]}" >"$cluster/after.json"
    # What the chart really renders, as kubectl would list it.
    local kind
    python -c 'import json, sys, yaml; print(json.dumps(next(d for d in yaml.safe_load_all(open(sys.argv[1])) if d and d["kind"] == "Rollout")))' \
        "$drills/../../../k8s/rendered/production-us-east-1.yaml" >"$cluster/rollout.json"
    for kind in PeerAuthentication AuthorizationPolicy VirtualService; do
        python -c 'import json, sys, yaml; print(json.dumps({"items": [d for d in yaml.safe_load_all(open(sys.argv[1])) if d and d["kind"] == sys.argv[2]]}))' \
            "$drills/../../../k8s/rendered/production-us-east-1.yaml" "$kind" >"$cluster/$(tr '[:upper:]' '[:lower:]' <<<"$kind" | sed 's/y$/ie/')s.json"
    done
}

@test "istio: the chart's promises are found in its own rendering, and a pod is replaced" {
    stub_kubectl
    drill test_istio.sh --yes
    [ "$status" -eq 0 ]
    [[ $output == *"all "*" answers were 200"* ]]
    grep -q 'delete pod a' "$cluster/calls"
}

@test "istio: each broken promise is told, and nothing is deleted" {
    stub_kubectl
    sed -i 's/STRICT/PERMISSIVE/' "$cluster/peerauthentications.json"
    drill test_istio.sh --yes
    [ "$status" -eq 1 ]
    [[ $output == *"FAILED  mTLS"* ]]
    stub_kubectl
    jq '(.items[].spec.http[] | select(.name == "other") | .retries.attempts) = 2' "$cluster/virtualservices.json" >"$cluster/x" && mv "$cluster/x" "$cluster/virtualservices.json"
    drill test_istio.sh --yes
    [ "$status" -eq 1 ]
    [[ $output == *"FAILED  no rule repeats"* ]]
    stub_kubectl
    jq '(.items[] | select(.spec.rules) | .spec.rules) += [{to: [{operation: {methods: ["GET"]}}]}]' "$cluster/authorizationpolicies.json" >"$cluster/x" && mv "$cluster/x" "$cluster/authorizationpolicies.json"
    drill test_istio.sh --yes
    [ "$status" -eq 1 ]
    [[ $output == *"FAILED  only named callers"* ]]
    stub_kubectl
    sed -i 's/istio-proxy/nothing/' "$cluster/pods.json"
    drill test_istio.sh --yes
    [ "$status" -eq 1 ]
    [[ $output == *"FAILED  every engine has its sidecar"* ]]
    absent delete "$cluster/calls"
}

@test "credentials: Amazon's secret gets a new version, or the drill fails" {
    version() { api secretsmanager list-secret-version-ids --secret-id engine-production/database/app --query 'Versions[?contains(VersionStages, `AWSCURRENT`)].VersionId' --output text; }
    before=$(version)
    drill rotate_credentials.sh --dry-run
    [ "$status" -eq 0 ]
    [ "$(version)" = "$before" ]
    drill rotate_credentials.sh --yes
    [ "$status" -eq 0 ]
    [[ $output == *"new version in us-east-1"*"new version in us-west-2"*"answers of /health were 200"* ]]
    before=$(version)
    # From the other region, too: its copy of the secret refuses.
    drill rotate_credentials.sh --region us-west-2 --yes
    [ "$status" -eq 0 ]
    [ "$(version)" != "$before" ]
    before=$(version)
    touch "$ill"
    drill rotate_credentials.sh --yes --timeout 2
    [ "$status" -eq 1 ]
    [ "$(version)" = "$before" ]
    # Well at first, not while it goes on.
    echo 1 >"$ill"
    drill rotate_credentials.sh --yes
    [ "$status" -eq 1 ]
    [[ $output == *"answers of /health were not 200"* ]]
}

@test "credentials: a rotation that makes no new version fails" {
    stuck rotate-secret
    drill rotate_credentials.sh --yes --timeout 2
    [ "$status" -eq 1 ]
    [[ $output == *"not within 2 s: the secret has a new version in us-east-1"* ]]
}

@test "credentials: engines are replaced in every region once the new password is there" {
    stub_kubectl
    drill rotate_credentials.sh --restart yes --yes
    [ "$status" -eq 0 ]
    [[ $output == *"us-east-1's engines are all new"*"us-west-2's engines are all new"* ]]
    [ "$(grep -c 'patch rollout engine' "$cluster/calls")" = 2 ]
    # The secret that the chart's pods read, by the name that it has there.
    name=$(sed -n 's/^  name: \(engine-app-.*\)/\1/p' "$drills/../../../k8s/rendered/production-us-east-1.yaml")
    [ "$(grep -c "annotate externalsecret $name --overwrite" "$cluster/calls")" = 2 ]
    # One region: the others are told of.
    drill rotate_credentials.sh --restart yes --region us-west-2 --yes
    [ "$status" -eq 0 ]
    [[ $output == *"restart every engine before the next rotation"* ]]
    [ "$(grep -c 'patch rollout engine' "$cluster/calls")" = 3 ]
    # A cluster that goes on with the former password is not restarted.
    sed -i '/^annotate/d' "$BATS_TEST_TMPDIR/bin/kubectl"
    echo '{"status": {"refreshTime": "2020-01-01T00:00:00Z"}}' >"$cluster/externalsecret.json"
    drill rotate_credentials.sh --restart yes --yes --timeout 2
    [ "$status" -eq 1 ]
    [[ $output == *"not within 2 s: us-east-1's cluster has the new password"* ]]
    [ "$(grep -c 'patch rollout engine' "$cluster/calls")" = 3 ]
}

@test "credentials: the caches of both regions take a new token, which nobody reads on the way" {
    token() { api secretsmanager get-secret-value --secret-id engine-production/redis --query SecretString --output text | jq -r .password; }
    before=$(token)
    drill rotate_credentials.sh --role redis --dry-run
    [ "$status" -eq 0 ]
    [ "$(token)" = "$before" ]
    drill rotate_credentials.sh --role redis --yes
    [ "$status" -eq 0 ]
    after=$(token)
    [ "$after" != "$before" ]
    [ "${#after}" -eq 40 ]
    [[ $output != *"$after"* ]]
    [ "$(grep -c 'modify-replication-group --region us-' <<<"$output")" = 2 ]
    # Its secret is set last: engines must never get a token that a cache does not know.
    stuck modify-replication-group 1
    drill rotate_credentials.sh --role redis --yes
    [ "$status" -eq 1 ]
    [ "$(token)" = "$after" ]
}
