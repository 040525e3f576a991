#!/usr/bin/env bash
# Sets an environment up in an AWS account: what is there already is left alone.
#
#   ops/setup.sh --environment staging|production --state-bucket NAME [--var-file FILE]
#
#   --state-bucket NAME   bucket of Terraform's state; made if it is missing (terraform/bootstrap)
#   --var-file FILE       the environment's variables (terraform/README.md lists them)
#   --outputs FILE        where Terraform's outputs go (default .data/outputs-ENVIRONMENT.json)
#   --dry-run             say what would be done: Terraform only plans
#   --yes                 do not ask before changes
#
# Steps: tools, account, service-linked role, state bucket, Terraform's apply (40 minutes or more the
# first time), its outputs for the other scripts. What comes after it needs the private
# clusters and the database, and is printed: terraform/README.md, steps 3 to 5.
#
# Emulated in the tests: account, role and bucket by moto; terraform by a stand-in.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ops/lib/common.sh

wrong_use() {
    say "error: $*. ops/setup.sh --help explains"
    exit 64
}
environment='' state_bucket='' var_file='' outputs='' dry_run='' assume_yes=''
while [ $# -gt 0 ]; do
    case $1 in
    --environment | --state-bucket | --var-file | --outputs)
        [ $# -ge 2 ] || wrong_use "$1 wants a value"
        name=${1#--}
        printf -v "${name//-/_}" %s "$2"
        shift
        ;;
    --dry-run) dry_run=yes ;;
    --yes) assume_yes=yes ;;
    -h | --help)
        sed -n '2,16s/^# \{0,1\}//p' ops/setup.sh
        exit
        ;;
    *) wrong_use "unknown argument $1" ;;
    esac
    shift
done
[[ $environment =~ ^(staging|production)$ ]] || wrong_use "--environment is staging or production"
[[ $state_bucket =~ ^[a-z0-9][a-z0-9.-]{2,62}$ ]] || wrong_use "--state-bucket is the name of a bucket"
for program in aws jq terraform; do
    command -v "$program" >/dev/null || die "$program is missing: install it, then run this again"
done
[ -z "$var_file" ] || var_file=$(realpath -e "$var_file") || die "there is no such --var-file"

aws() { command aws ${AWS_ENDPOINT_URL:+--endpoint-url "$AWS_ENDPOINT_URL"} "$@"; }
act() {
    say "+ $*"
    [ -n "$dry_run" ] || "$@"
}
confirm() {
    [ -z "$dry_run$assume_yes" ] || return 0
    [ -t 0 ] || die "$1: give --yes, or --dry-run to see what it would do"
    read -r -p "$1. Type yes: " answer
    [ "$answer" = yes ] || die "not confirmed: nothing further was done"
}

version=$(terraform version -json | jq -r .terraform_version)
[ "$(printf '%s\n1.11.0\n' "$version" | sort -V | head -n 1)" = 1.11.0 ] || die "terraform is $version, 1.11 is needed"
account=$(aws sts get-caller-identity --query Account --output text) || die "AWS knows no identity: log in (aws sso login), then run this again"
say "account $account, as $(aws sts get-caller-identity --query Arn --output text)"
confirm "$environment is set up in account $account"

# Node groups need it, and Terraform cannot make what may exist already.
if aws iam get-role --role-name AWSServiceRoleForAutoScaling >/dev/null 2>&1; then
    say "service-linked role of Auto Scaling: there"
else
    act aws iam create-service-linked-role --aws-service-name autoscaling.amazonaws.com --output json >/dev/null
fi

if aws s3api head-bucket --bucket "$state_bucket" >/dev/null 2>&1; then
    say "state bucket $state_bucket: there"
elif [ -n "$dry_run" ]; then
    say "+ terraform -chdir=terraform/bootstrap apply -var bucket_name=$state_bucket"
    say "dry run: without the bucket the environment cannot be planned"
    exit
else
    act terraform -chdir=terraform/bootstrap init -input=false
    act terraform -chdir=terraform/bootstrap apply -input=false -auto-approve -var "bucket_name=$state_bucket"
fi

root=terraform/environments/$environment
terraform -chdir="$root" init -input=false -reconfigure -backend-config="bucket=$state_bucket" >&2
status=0
terraform -chdir="$root" plan -input=false -detailed-exitcode ${var_file:+-var-file="$var_file"} >&2 || status=$?
case $status in
0) say "AWS is as terraform/ says" ;;
2)
    confirm "the plan above is applied"
    # Without the plan's file: it would hold what the plan read, passwords included.
    act terraform -chdir="$root" apply -input=false -auto-approve ${var_file:+-var-file="$var_file"}
    ;;
*) die "terraform plan failed: nothing was applied" ;;
esac
if [ -n "$dry_run" ]; then
    say "dry run: nothing was changed"
    exit
fi
[ -n "$outputs" ] || { mkdir -p .data && outputs=.data/outputs-$environment.json; }
terraform -chdir="$root" output -json >"$outputs"
say "outputs: $outputs"
say "next: the charts (terraform/README.md, 3), the database's roles (4), then"
say "  ops/deploy.sh --environment $environment --image $(jq -r '.image_repositories.value | to_entries[0].value // "REPOSITORY"' "$outputs")@sha256:..."
