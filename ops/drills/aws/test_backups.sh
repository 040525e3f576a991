#!/usr/bin/env bash
# Are there backups, and does one come back?
#
#   test_backups.sh [--region R] [--max-age-hours N] [--restore yes]
#
#   --max-age-hours N   the newest logical backup may be this old (default 26: daily, and some)
#   --restore yes       also restore the cluster to its latest moment beside itself, measure how long
#                       that takes (RTO), and delete the copy. Costs an instance for that time. A copy
#                       that is still being made cannot be deleted: then it is asked again for --timeout
#
# Looked at: the bucket (versions, lock, encryption, a whole backup: the manifest comes last), the
# cluster's own backups (7 days, protected from deletion, encrypted), a recovery point in the vault.
#
# This shows that a restore comes up, not what is in it: `ops/drill backup-restore` and a monthly
# restore of the real dump with `engine verify` do (ops/drill.d/README.md).
#
# Emulated in the tests: all calls. Not emulated: the time a restore takes, or data in it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

max_age_hours=26 restore=no
parse "--max-age-hours --restore" "$@"
need_targets
bucket=$(out '.backups.value.buckets[$region]')
cluster=$(out '.database.value.clusters[$region]')
vault=$(jq -r --arg region "$region" '.backups.value.vaults[$region] // ""' <<<"$outputs_read")

problems=0
check() {
    local what=$1
    shift
    if "$@"; then say "ok      $what"; else
        say "FAILED  $what"
        problems=$((problems + 1))
    fi
}
versioned() { [ "$(aws s3api get-bucket-versioning --region "$region" --bucket "$bucket" --query Status --output text)" = Enabled ]; }
locked() { [ "$(aws s3api get-object-lock-configuration --region "$region" --bucket "$bucket" --query ObjectLockConfiguration.ObjectLockEnabled --output text 2>/dev/null)" = Enabled ]; }
encrypted() { aws s3api get-bucket-encryption --region "$region" --bucket "$bucket" --query 'ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault.SSEAlgorithm' --output text 2>/dev/null | grep -q aws:kms; }
# The manifest is uploaded last: without it the rest is a torn upload.
recent() {
    local newest
    newest=$(aws s3api list-objects-v2 --region "$region" --bucket "$bucket" --prefix logical/ --output json |
        jq -er '[.Contents[]? | select(.Key | endswith("/manifest.json")) | .LastModified] | max') || return 1
    say "        newest: $newest"
    [ $(($(date +%s) - $(date -d "$newest" +%s))) -le $((max_age_hours * 3600)) ]
}
cluster_is() { aws rds describe-db-clusters --region "$region" --db-cluster-identifier "$cluster" --output json | jq -e ".DBClusters[0] | $1" >/dev/null; }
recovery_point() { aws backup list-recovery-points-by-backup-vault --region "$region" --backup-vault-name "$vault" --output json | jq -e '[.RecoveryPoints[]? | select(.Status == "COMPLETED")] | length > 0' >/dev/null; }

say "bucket $bucket, cluster $cluster"
check "the bucket keeps versions" versioned
check "the bucket is locked against deletion" locked
check "the bucket is encrypted with a key of its own" encrypted
check "a whole logical backup of the last $max_age_hours hours" recent
check "the cluster keeps its own backups 7 days" cluster_is '.BackupRetentionPeriod >= 7'
check "the cluster is protected from deletion" cluster_is .DeletionProtection
check "the cluster is encrypted" cluster_is .StorageEncrypted
[ -z "$vault" ] || check "the vault $vault has a recovery point" recovery_point

if [ "$restore" = yes ]; then
    confirm "a copy of $cluster is made, and deleted again"
    copy=engine-drill-$(date -u +%Y%m%d%H%M%S)
    made='' remove_timeout=$timeout
    # AWS refuses while the copy or its instance is being made, and the copy while its instance is not
    # yet going.
    deleted() {
        local said
        aws rds delete-db-instance --region "$region" --db-instance-identifier "$copy-1" --skip-final-snapshot --output json >/dev/null 2>&1 || true
        said=$(aws rds delete-db-cluster --region "$region" --db-cluster-identifier "$copy" --skip-final-snapshot --output json 2>&1) ||
            [[ $said == *DBClusterNotFoundFault* ]]
    }
    remove() {
        local begin=$SECONDS
        say "deleting $copy"
        until deleted; do
            [ $((SECONDS - begin)) -lt "$remove_timeout" ] ||
                die "$copy IS STILL THERE, and costs money. Run: aws rds delete-db-cluster --region $region --db-cluster-identifier $copy --skip-final-snapshot"
            sleep "$poll"
        done
        made=
    }
    clean_up() {
        local status=$?
        trap - EXIT INT TERM
        [ -z "$made" ] || (remove) || status=1
        exit $status
    }
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    described=$(aws rds describe-db-clusters --region "$region" --db-cluster-identifier "$cluster" --output json)
    subnets=$(jq -r '.DBClusters[0].DBSubnetGroup // ""' <<<"$described")
    class=$(aws rds describe-db-instances --region "$region" --output json |
        jq -er --arg cluster "${cluster##*:}" '[.DBInstances[] | select(.DBClusterIdentifier == $cluster) | .DBInstanceClass][0]') ||
        die "$cluster has no instance: nothing was restored"
    # Without it a copy takes no instance of the class db.serverless.
    capacity=$(jq -c '.DBClusters[0].ServerlessV2ScalingConfiguration // empty | {MinCapacity, MaxCapacity}' <<<"$described")
    act_began=$EPOCHREALTIME
    [ -n "$dry_run" ] || made=yes
    act aws rds restore-db-cluster-to-point-in-time --region "$region" --source-db-cluster-identifier "${cluster##*:}" \
        --db-cluster-identifier "$copy" --use-latest-restorable-time ${subnets:+--db-subnet-group-name "$subnets"} \
        ${capacity:+--serverless-v2-scaling-configuration "$capacity"} --no-deletion-protection --output json >/dev/null
    standing() { aws rds describe-db-clusters --region "$region" --db-cluster-identifier "$copy" --query 'DBClusters[0].Status' --output text | grep -qx available; }
    # An instance is refused before.
    wait_for "the copy's storage is restored" standing
    act aws rds create-db-instance --region "$region" --db-instance-identifier "$copy-1" --db-cluster-identifier "$copy" \
        --db-instance-class "$class" --engine aurora-postgresql --output json >/dev/null
    restored() { aws rds describe-db-instances --region "$region" --db-instance-identifier "$copy-1" --query 'DBInstances[0].DBInstanceStatus' --output text | grep -qx available; }
    wait_for "the copy is available" restored
    say "RTO of a restore: $(elapsed "$act_began") s until the copy takes connections"
    [ -n "$dry_run" ] || remove
fi
[ "$problems" -eq 0 ] || die "$problems of the checks failed"
passed
