#!/usr/bin/env bats
# ops/deploy.sh with regions that stand at different migrations of the one database.

load deploy

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
