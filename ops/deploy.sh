#!/usr/bin/env bash
# Brings one image into the clusters of an environment, region by region.
#
#   ops/deploy.sh --environment staging|production --image REPOSITORY@sha256:... [--region R]...
#
#   --region R          once or more, in that order (default: the secondary, then the primary)
#   --outputs FILE      terraform output -json (default: asked of terraform/environments/ENVIRONMENT)
#   --kubeconfig FILE   has a context with each cluster's name (default: made with `aws eks`)
#   --database-ca FILE  PEM, the authorities that may vouch for the database (default: Amazon's, downloaded)
#   --values FOLDER     only write what the chart gets from Terraform, and end
#   --timeout S         seconds that a region may take (default 3600)
#   --dry-run, --yes    say what would be done; do not ask
#
# A region that serves this image, chart and settings already is left alone, and one whose rollout is
# under way is waited for, so a run that was cut off is simply run again. A rollout that goes back by
# itself ends this with exit 1, now and when it is run again, and no further region is touched.
# Exit 64: wrong use.
#
# There is one database: what migrates in the first region is met by the engines of all. They serve the schema of the
# next release too (sql/README.md, Releases and migrations), so a new migration is refused while engines that are two
# behind it run in any region of the environment, whatever --region says (a rollout that went back leaves such), and a
# release is taken back over one migration at most. Each region pulls from its own copy of the registry, once it is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ops/lib/common.sh

wrong_use() {
    say "error: $*. ops/deploy.sh --help explains"
    exit 64
}
environment='' image='' outputs='' kubeconfig='' values='' database_ca='' timeout=3600 dry_run='' assume_yes=''
regions=()
while [ $# -gt 0 ]; do
    case $1 in
    --environment | --image | --outputs | --kubeconfig | --values | --timeout | --database-ca | --region)
        [ -n "${2:-}" ] && [[ $2 != --* ]] || wrong_use "$1 wants a value"
        name=${1#--}
        if [ "$name" = region ]; then regions+=("$2"); else printf -v "${name//-/_}" %s "$2"; fi
        shift
        ;;
    --dry-run) dry_run=yes ;;
    --yes) assume_yes=yes ;;
    -h | --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' ops/deploy.sh
        exit
        ;;
    *) wrong_use "unknown argument $1" ;;
    esac
    shift
done
[[ $environment =~ ^(staging|production)$ ]] || wrong_use "--environment is staging or production"
[[ $image =~ ^[^@]+@sha256:[0-9a-f]{64}$ ]] || wrong_use "--image is REPOSITORY@sha256:DIGEST: a tag could be another image tomorrow"
programs=(jq)
[ -n "$values" ] || programs+=(aws helm kubectl curl openssl)
for program in "${programs[@]}"; do
    command -v "$program" >/dev/null || die "$program is missing: install it, then run this again"
done
if [ -n "$outputs" ]; then targets=$(cat "$outputs"); else
    targets=$(terraform -chdir="terraform/environments/$environment" output -json) || die "no outputs: give --outputs FILE"
fi
out() { jq -er --arg region "$region" "$1" <<<"$targets" || die "terraform has no output for $1 (region $region)"; }

region=$(jq -er '.primary_region.value' <<<"$targets") || die "terraform has no output primary_region"
primary=$region
mapfile -t all < <(jq -r '.secondary_region.value // empty, .primary_region.value' <<<"$targets")
[ ${#regions[@]} -gt 0 ] || regions=("${all[@]}")
mapfile -t everywhere < <(jq -r '.regions.value | keys[]' <<<"$targets")
for region in "${regions[@]}"; do
    jq -e --arg region "$region" '.regions.value | has($region)' <<<"$targets" >/dev/null || die "terraform knows no region '$region'"
done
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT

# The image in the region's own copy of the registry (ECR replicates it): a region that has lost the other must still
# be able to start a pod.
image_of() { sed -E "s/(\.dkr\.ecr\.)[a-z0-9-]+\./\1$1./" <<<"$image"; }
base_of() { if [ "$environment" = staging ]; then echo k8s/values/staging.yaml; else echo "k8s/values/production-$1.yaml"; fi; }

# What the chart is told of a region, from Terraform's outputs; the rest stands in k8s/values.
values_of() {
    jq --arg region "$1" --arg image "$(image_of "$1")" '
        .regions.value[$region] as $here |
        {
          image: { repository: ($image | split("@")[0]), digest: ($image | split("@")[1]) },
          serviceAccount: { secretsRoleArn: $here.role_arns.secrets, backupRoleArn: $here.role_arns.backup },
          database: { host: .database.value.writer_endpoint, readHost: .database.value.reader_endpoints[$region],
                      port: .database.value.port, name: .database.value.name, cidrs: [.regions.value[].database_cidrs[]] },
          # In the same subnets as the database of this region.
          redis: { host: $here.cache.endpoint, cidrs: $here.database_cidrs },
          externalSecrets: ({ region: $region } + (.secret_names.value | { app, owner, read, redis, loadtest })),
          istio: { hosts: [.domain_name.value, $here.name] },
          verify: { host: .database.value.reader_endpoints[$region] },
          backup: { destination: "s3://\(.backups.value.buckets[$region])/logical" }
        }' <<<"$targets"
}
for region in "${regions[@]}"; do
    values_of "$region" >"$scratch/$region.json" || die "terraform's outputs lack something that the chart needs"
    ! jq -e '[.. | select(. == null)] | length > 0' "$scratch/$region.json" >/dev/null ||
        die "terraform's outputs lack something that the chart needs: $(jq -c '[paths(. == null) | join(".")]' "$scratch/$region.json")"
done
if [ -n "$values" ]; then
    mkdir -p "$values"
    cp "$scratch"/*.json "$values/"
    exit
fi

# The engines take the database for what it says it is only if one of these authorities vouches for it. They go
# into a ConfigMap whose name is of its content, so that other authorities are a new version of the pods: watched,
# and taken back, as any other.
amazon_ca=https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem
if [ -z "$database_ca" ]; then
    database_ca=$scratch/database-ca.pem
    curl -fsS --proto '=https' --tlsv1.2 -m 60 -o "$database_ca" "$amazon_ca" ||
        die "$amazon_ca cannot be had: nothing was done. Without a way to the internet: --database-ca FILE"
fi
certificates=$(grep -c -e '^-----BEGIN CERTIFICATE-----' "$database_ca") || die "--database-ca: no certificate in PEM is in it. Nothing was done"
readable=$(openssl crl2pkcs7 -nocrl -certfile "$database_ca" 2>/dev/null | openssl pkcs7 -print_certs -noout 2>/dev/null | grep -c '^subject') || readable=0
[ "$certificates" = "$readable" ] || die "--database-ca: of $certificates certificates $readable can be read: cut off, or damaged. Nothing was done"
! grep -q 'PRIVATE KEY' "$database_ca" || die "--database-ca: there is a private key in it, and everybody may read a ConfigMap. Nothing was done"
ca_map=engine-database-ca-$(sha256sum "$database_ca" | cut -c 1-8)

aws() { command aws ${AWS_ENDPOINT_URL:+--endpoint-url "$AWS_ENDPOINT_URL"} "$@"; }
act() {
    say "+ $*"
    [ -n "$dry_run" ] || "$@"
}
k() { KUBECONFIG=$kubeconfig kubectl --context "$cluster" --namespace engine "$@"; }
h() { KUBECONFIG=$kubeconfig helm --kube-context "$cluster" --namespace engine "$@"; }

made_kubeconfig=
[ -n "$kubeconfig" ] || {
    kubeconfig=$scratch/kubeconfig
    made_kubeconfig=yes
}
connect() {
    cluster=$(out '.regions.value[$region].cluster.name') || return
    [ -z "$made_kubeconfig" ] ||
        aws eks update-kubeconfig --region "$region" --name "$cluster" --alias "$cluster" --kubeconfig "$kubeconfig" >/dev/null
}

migrations=$(find sql/migrations -name 'V*.sql' | sed 's#.*/V\([0-9]*\)__.*#\1#' | sort -n | tail -n 1)
# What decides whether there is anything to do: kept as the description of Helm's revision. Rules and roles are links.
settings_of() { cat "$(base_of "$1")" "$scratch/$1.json" "$database_ca" <(find -L k8s/chart -type f -print0 | sort -z | xargs -0 cat) | sha256sum | cut -c 1-16; }
description_of() { printf 'image %s, migrations to V%s, settings %s' "${image#*@}" "$migrations" "$(settings_of "$1")"; }
# Status and description of each of Helm's revisions; nothing on a cluster without the engine.
history_of() {
    if ! h history engine --output json >"$scratch/history" 2>"$scratch/error"; then
        grep -q 'release: not found' "$scratch/error"
    else
        jq -r '.[] | "\(.status) \(.description)"' "$scratch/history" 2>"$scratch/error"
    fi
}

# The rollout at the generation that was applied last: Healthy, Degraded, Aborted, or on its way; Undone
# when it was given another image behind Helm's back (`kubectl argo rollouts undo`).
phase_of() {
    k get rollout engine --output json |
        jq -r --arg digest "${image#*@}" '
            if (.status.observedGeneration | tostring) != (.metadata.generation | tostring) then "Progressing"
            elif [.spec.template.spec.containers[].image | endswith($digest)] | any | not then "Undone"
            elif .status.abort == true then "Aborted"
            else .status.phase end' || echo unknown
}

# All regions: they share the database. One that is lost must not keep the others from a release without a migration.
declare -A applied unseen
for region in "${everywhere[@]}"; do
    : >"$scratch/error"
    if connect 2>"$scratch/error" && history_of >"$scratch/$region.history"; then continue; fi
    error=$(tail -n 1 "$scratch/error")
    [[ " ${regions[*]} " != *" $region "* ]] ||
        die "$region: Helm cannot say what is there ($error). Is its API server reached from here, with the right to read? Nothing was done"
    unseen[$region]=$error
done
sed -n 's/.*image \([^,]*\), migrations to V\([0-9]*\),.*/\1 \2/p' "$scratch"/*.history >"$scratch/known"
# The migration that an image was deployed with.
migration_of() { awk -v image="$1" '$1 == image { print $2 }' "$scratch/known" | sort -nr | tail -n 1; }
# Where the database is, at least.
newest=$(cut -d ' ' -f 2 "$scratch/known" | sort -n | tail -n 1)
# An image brings its own migrations, not those of the sources that it is deployed from when it is taken back to.
deployed_with=$(migration_of "${image#*@}")
migrations=${deployed_with:-$migrations}

todo=()
for region in "${regions[@]}"; do
    connect
    standing=$(sed -n 's/^deployed //p' "$scratch/$region.history" | tail -n 1)
    if [ "$standing" = "$(description_of "$region")" ]; then
        # Applied is not served: Helm calls a revision deployed whatever becomes of its rollout.
        phase=$(phase_of)
        if [ "$phase" = Healthy ]; then
            say "$region: has it already"
            continue
        fi
        say "$region: was given it before, its rollout is $phase"
        applied[$region]=yes
    fi
    todo+=("$region")
done
if [ ${#todo[@]} -eq 0 ]; then
    say "nothing to do"
    exit
fi

# Not what Helm applied last but what runs: a rollout that went back left the engines of before.
one_ahead() {
    local running digest serves
    connect
    running=$(k get replicasets --selector app.kubernetes.io/name=engine,app.kubernetes.io/component=server --output json |
        jq -r '[.items[] | select(.spec.replicas > 0) | .spec.template.spec.containers[] | select(.name == "engine") | .image | split("@") | last] | unique[]') ||
        die "$region: cannot see which engines run, and this release brings a migration. Nothing was done"
    for digest in $running; do
        [ "$digest" != "${image#*@}" ] || continue
        serves=$(migration_of "$digest")
        [ -n "$serves" ] || die "$region runs engines of $digest, and no revision of Helm says which migrations they know. Deploy the release before this one everywhere first. Nothing was done"
        [ $((serves + 1)) -ge "$migrations" ] ||
            die "$region runs engines of V$serves, this release brings V$migrations: they know one migration ahead, not more. Deploy the releases between first, each everywhere, until its rollout is Healthy. Nothing was done"
    done
}
if [ "$migrations" -gt "${newest:-0}" ]; then
    for region in "${everywhere[@]}"; do
        [ -z "${unseen[$region]:-}" ] ||
            die "$region: Helm cannot say what is there (${unseen[$region]}), and this release brings a migration that its engines may not know. Reach it, or deploy a release without one. Nothing was done"
        one_ahead
    done
elif [ $((migrations + 1)) -lt "$newest" ]; then
    die "the database is at migration V$newest, this release knows V$migrations: its engines serve one migration ahead, not more. Migrations are forward only. Nothing was done"
else
    for region in "${!unseen[@]}"; do say "$region: cannot be seen (${unseen[$region]}); this release brings no migration: going on"; done
fi
if [ -z "$dry_run$assume_yes" ]; then
    [ -t 0 ] || die "this changes ${todo[*]}: give --yes, or --dry-run to see what it would do"
    read -r -p "Deploy $image to ${todo[*]} of $environment. Type yes: " answer
    [ "$answer" = yes ] || die "not confirmed: nothing was done"
fi

# Replication takes minutes, and the migration would fail without its image.
await_image() {
    local begin=$SECONDS host name error
    host=${image%%/*} name=${image#*/}
    [[ $host == *.dkr.ecr.* ]] && [ -z "$dry_run" ] || return 0
    until error=$(aws ecr describe-images --region "$region" --repository-name "${name%%@*}" --image-ids "imageDigest=${image#*@}" 2>&1 >/dev/null); do
        if [[ $error != *NotFoundException* ]]; then
            say "$region: cannot see whether the image is there ($error); going on"
            return
        fi
        [ $((SECONDS - begin)) -lt "$timeout" ] || die "$region: $(image_of "$region") is not there after $timeout s: is it replicated? Nothing was done in $region"
        sleep "${DEPLOY_POLL_SECONDS:-5}"
    done
}
authorities() {
    if k get configmap "$ca_map" >/dev/null 2>&1; then
        say "$region: knows the database's authorities ($certificates)"
    else
        act k create configmap "$ca_map" --from-file=ca.pem="$database_ca"
    fi
}
# Nobody has shown yet that Aurora's certificate is for the global name, too: engines that ask for it would not start.
certified() {
    local mode name port said names=()
    mode=$(grep -ohE '^[^#]*sslMode: *[a-z-]+' "$(base_of "$region")" k8s/chart/values.yaml | sed -n '1s/.*: *//p')
    [[ $mode == verify-* ]] || return 0
    port=$(jq -r .database.port "$scratch/$region.json")
    for name in $(jq -r '.database | [.host, .readHost] | unique[]' "$scratch/$region.json"); do
        [ "$mode" != verify-full ] || names=(-verify_hostname "$name")
        said=$(timeout 15 openssl s_client -starttls postgres -connect "$name:$port" "${names[@]}" -CAfile "$database_ca" -no-CApath -no-CAstore </dev/null 2>&1) || true
        if [[ $said == *"verify error:num=62:"* ]]; then
            die "$region: the database's certificate is not for $name, so engines with sslMode verify-full would refuse it. Put \`database.sslMode: verify-ca\` (the authority alone) into $(base_of "$region"), then run this again. Nothing was done in $region"
        elif [[ $said == *"verify error:"* ]]; then
            die "$region: no authority given vouches for $name ($(sed -n 's/.*verify error:num=[0-9]*://p' <<<"$said" | sed -n 1p)): --database-ca FILE. Nothing was done in $region"
        elif [[ $said == *"BEGIN CERTIFICATE"* ]]; then
            say "$region: a known authority vouches for $name$([ "$mode" = verify-full ] || echo ", whatever its certificate is for")"
        else
            say "$region: cannot see from here whether the certificate of $name is for it ($name:$port is not reached, or has no TLS); going on"
        fi
    done
}
install() {
    [ -z "${applied[$region]:-}" ] || return 0
    act h upgrade --install engine k8s/chart --values "$(base_of "$region")" --values "$scratch/$region.json" \
        --set "database.caConfigMap.name=$ca_map" --description "$(description_of "$region")" --timeout 20m
}
# Healthy at the generation that was just applied; gone back or stuck is a failure, told at once.
await() {
    local begin=$SECONDS phase
    if [ -n "$dry_run" ]; then
        say "+ wait until $region's rollout is healthy"
        return
    fi
    while :; do
        phase=$(phase_of)
        case $phase in
        Healthy) break ;;
        Degraded | Aborted) die "$region: the rollout is $phase: the old version serves. kubectl --namespace engine get analysisruns says why; then deploy another digest, or kubectl argo rollouts retry rollout engine -n engine. No further region was touched" ;;
        esac
        # Helm compares with what it applied last, so it would change nothing.
        [ "$phase" != Undone ] || die "$region: somebody set another image by hand. kubectl argo rollouts set image engine engine=$image -n engine, then run this again. No further region was touched"
        [ $((SECONDS - begin)) -lt "$timeout" ] || die "$region: the rollout is $phase after $timeout s. No further region was touched"
        sleep "${DEPLOY_POLL_SECONDS:-5}"
    done
    local url left code
    url=$(out '.regions.value[$region].health_url')
    # One lost packet is no failed deploy. 0 would be without an end.
    left=$((timeout - (SECONDS - begin)))
    code=$(curl -fsS -o /dev/null -m 10 -w '%{http_code}' --retry 9999 --retry-all-errors --retry-delay 1 --retry-max-time $((left > 0 ? left : 1)) "$url") || true
    [ "$code" = 200 ] || die "$region: healthy, but $url does not answer 200. No further region was touched"
    say "$region: healthy after $((SECONDS - begin)) s"
}
for region in "${todo[@]}"; do
    connect
    await_image
    [ -n "${applied[$region]:-}" ] || certified
    authorities
    install
    await
done
[ -z "$dry_run" ] || say "dry run: nothing was changed"
say "done (writer's region in quiet times: $primary)"
