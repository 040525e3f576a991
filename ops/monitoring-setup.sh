#!/usr/bin/env bash
# Installs and starts the monitoring of ops/monitoring; running it again changes only what differs.
#
#   ops/monitoring-setup.sh host [OPTIONS]       Debian packages on this machine
#   ops/monitoring-setup.sh cluster [OPTIONS]    Helm charts in a Kubernetes cluster
#
# Both:     --dry-run                  say what would be done, and do nothing
#           --pagerduty-key-file FILE  --slack-url-file FILE  --heartbeat-url URL   who is told
#           --runbook-base URL         put before the runbooks' paths: on a host in messages, in a cluster on
#                                      dashboards (in messages: the engine's chart, monitoring.runbookBase)
# host:     --engine HOST:PORT         an engine's admin listener; again for each (default 127.0.0.1:9464)
#           --certificate URL          an end point whose certificate is watched; again for each
#           --postgres-url URL         for the exporter, a role with pg_monitor (or POSTGRES_EXPORTER_URL)
#           --redis-url URL            for the exporter (default redis://127.0.0.1:6379)
#           --backups PLACE            a timer that tells their age hourly: the folder of `ops/backup --logical`,
#                                      or pgBackRest's configuration file
# cluster:  --terraform-output FILE    of `terraform output -json`: its clusters, one after the other
#           --context NAME             instead: one context of kubectl
#           --values CHART=FILE        more values for kube-prometheus-stack, loki or alloy; again for each. Without
#                                      Terraform, which tells Loki its bucket, loki=FILE has to
#
# In a cluster (Helm 3.14 or later) what Terraform told a release stays; this adds who is told, and the
# dashboards, as objects of their own that Terraform's next change of a release leaves alone.
# Grafana, Loki and Alloy are no Debian packages: on a host take Grafana's own repository, or the profile
# `monitoring` of ops/compose.yaml; the README says which files they read.
# Exit codes: 0 done, 64 asked wrongly, 69 something needed is missing, 1 a step failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ops/lib/common.sh

# Where Debian's packages look; a test gives another root.
root=${MONITORING_ROOT:-}
etc=$root/etc/prometheus
dry=
engines=() certificates=() contexts=()
pagerduty='' slack='' heartbeat='' base='' backups='' more_values=() redis=redis://127.0.0.1:6379 postgres=${POSTGRES_EXPORTER_URL:-} outputs=''

usage() { sed -n '2,/^# Exit codes/s/^# \{0,1\}//p' ops/monitoring-setup.sh; }
wrong() { say "error: $*" && exit 64; }
missing() { say "error: $*" && exit 69; }

# Does it, or says it.
act() {
    if [ -n "$dry" ]; then
        say "would run: $*"
    else
        "$@"
    fi
}

changed=0
# put FILE MODE: standard input becomes the file, unless it is that already.
put() {
    local path=$1 mode=$2 new
    new=$(mktemp)
    cat >"$new"
    if cmp -s "$new" "$path"; then
        rm -f -- "$new"
        return
    fi
    changed=1
    if [ -n "$dry" ]; then
        say "would write: $path"
        rm -f -- "$new"
        return
    fi
    mkdir -p "${path%/*}"
    chmod "$mode" "$new"
    mv -- "$new" "$path"
    say "wrote $path"
}

# With the runbooks' address before their paths.
with_base() { sed "s|runbook_url: ops/|runbook_url: ${base:+${base%/}/}ops/|" "$1"; }

alertmanager_file() {
    if [ -n "$heartbeat" ]; then
        sed "s|http://127.0.0.1:9096/heartbeat|$heartbeat|" ops/monitoring/alertmanager.yml
    else
        cat ops/monitoring/alertmanager.yml
    fi
}

targets() {
    local one
    for one in "$@"; do
        printf -- '- targets: ["%s"]\n' "$one"
    done
}

certificate_targets() {
    local one
    [ $# -gt 0 ] || echo '[]'
    for one in "$@"; do
        printf -- '- targets: ["%s"]\n  labels: {__blackbox: "127.0.0.1:9115"}\n' "$one"
    done
}

host() {
    local package absent=() path
    [ -n "$dry$root" ] || [ "$(id -u)" = 0 ] || wrong "this writes to /etc: run it as root, or with --dry-run"
    for package in prometheus prometheus-alertmanager prometheus-node-exporter prometheus-postgres-exporter \
        prometheus-redis-exporter prometheus-blackbox-exporter; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || absent+=("$package")
    done
    if [ ${#absent[@]} -gt 0 ]; then
        act as_root apt-get update -q
        act as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${absent[@]}"
    fi
    for path in ops/monitoring/rules/*.yaml ops/monitoring/rules/host/*.yaml; do
        with_base "$path" | put "$etc/${path#ops/monitoring/}" 644
    done
    for path in ops/monitoring/targets/host/*.yaml; do
        case ${path##*/} in
        engine.yaml) targets "${engines[@]:-127.0.0.1:9464}" | put "$etc/targets/engine.yaml" 644 ;;
        certificates.yaml) certificate_targets "${certificates[@]}" | put "$etc/targets/certificates.yaml" 644 ;;
        *) put "$etc/targets/${path##*/}" 644 <"$path" ;;
        esac
    done
    put "$etc/prometheus.yml" 644 <ops/monitoring/prometheus.yml
    put "$etc/blackbox.yml" 644 <ops/monitoring/blackbox.yml
    alertmanager_file | put "$etc/alertmanager.yml" 644
    [ -z "$pagerduty" ] || put "$etc/secrets/pagerduty-key" 640 <"$pagerduty"
    [ -z "$slack" ] || put "$etc/secrets/slack-url" 640 <"$slack"
    # Alertmanager runs as prometheus and reads them at each message.
    if [ -z "$dry" ] && [ -d "$etc/secrets" ] && getent group prometheus >/dev/null; then
        chgrp -R prometheus "$etc/secrets"
    fi
    # Loopback: these pages have no authentication. 30 days of metrics, as of logs.
    put "$root/etc/default/prometheus" 644 <<<'ARGS="--web.listen-address=127.0.0.1:9090 --storage.tsdb.retention.time=30d"'
    put "$root/etc/default/prometheus-alertmanager" 644 <<<'ARGS="--web.listen-address=127.0.0.1:9093 --cluster.listen-address="'
    put "$root/etc/default/prometheus-node-exporter" 644 <<<'ARGS="--web.listen-address=127.0.0.1:9100"'
    put "$root/etc/default/prometheus-blackbox-exporter" 644 <<<'ARGS="--config.file=/etc/prometheus/blackbox.yml --web.listen-address=127.0.0.1:9115"'
    put "$root/etc/default/prometheus-redis-exporter" 640 <<<"ARGS=\"-redis.addr=$redis -web.listen-address=127.0.0.1:9121\""
    if [ -n "$postgres" ]; then
        printf 'DATA_SOURCE_NAME="%s"\nARGS="--web.listen-address=127.0.0.1:9187"\n' "$postgres" |
            put "$root/etc/default/prometheus-postgres-exporter" 640
    else
        say "no --postgres-url: the exporter keeps what /etc/default/prometheus-postgres-exporter says"
    fi
    [ -z "$backups" ] || backup_age
    if [ -z "$dry" ]; then
        promtool check config "$etc/prometheus.yml" >&2
        amtool check-config "$etc/alertmanager.yml" >&2
    fi
    [ -n "$pagerduty$slack" ] || say "nobody is told of alerts yet: --pagerduty-key-file, --slack-url-file"
    if [ "$changed" = 0 ]; then
        say "nothing changed"
        return
    fi
    for package in prometheus-node-exporter prometheus-postgres-exporter prometheus-redis-exporter \
        prometheus-blackbox-exporter prometheus-alertmanager prometheus; do
        act as_root systemctl enable "$package"
        act as_root systemctl restart "$package"
    done
    if [ -n "$backups" ]; then
        act as_root systemctl daemon-reload
        act as_root systemctl enable --now engine-backup-age.timer
    fi
}

# A unit and its timer of the names that the Ansible role `backup` gives them.
backup_age() {
    local kind=--logical units=$root/etc/systemd/system
    [ -d "$backups" ] || kind=--config
    put "$root/usr/local/lib/engine-ops/job-metrics" 755 <ops/monitoring/job-metrics
    put "$units/engine-backup-age.service" 644 <<END
[Unit]
Description=How old the newest backup of the ledger is

[Service]
Type=oneshot
# It only asks: pgBackRest's own logs are those of its owner.
Environment=PGBACKREST_LOG_LEVEL_FILE=off
ExecStart=/usr/local/lib/engine-ops/job-metrics backup $kind $backups
NoNewPrivileges=true
ProtectSystem=strict
ReadWritePaths=/var/lib/prometheus/node-exporter
PrivateTmp=true
END
    put "$units/engine-backup-age.timer" 644 <<END
[Unit]
Description=Hourly age of the newest backup

[Timer]
OnCalendar=hourly
OnActiveSec=1min

[Install]
WantedBy=timers.target
END
}

# The version that Terraform installs, so that both ways agree.
chart_version() {
    sed -nE "s/^ *$1 += \{.*chart = \"$1\", version = \"([^\"]+)\".*/\1/p" terraform/modules/platform/main.tf
}

release() {
    local context=$1 name=$2 repository=$3 version one
    shift 3
    version=$(chart_version "$name")
    [ -n "$version" ] || die "terraform/modules/platform names no version of $name"
    for one in "${more_values[@]}"; do
        [ "${one%%=*}" != "$name" ] || set -- "$@" --values "${one#*=}"
    done
    # Terraform told the release what only it knows (Loki's bucket and role, labels): that stays.
    act helm upgrade --install --reset-then-reuse-values "$name" "$name" --kube-context "$context" --namespace monitoring --create-namespace \
        --repo "$repository" --version "$version" --values "terraform/helm-values/$name.yaml" --atomic --timeout 10m "$@"
}

cluster() {
    local context path name region values
    for name in helm kubectl; do
        command -v "$name" >/dev/null || missing "$name is not there"
    done
    if [ -n "$outputs" ]; then
        command -v aws >/dev/null || missing "aws is not there; or give --context"
        [ -r "$outputs" ] || wrong "$outputs cannot be read; write it with: terraform output -json"
        while read -r name region; do
            act aws eks update-kubeconfig --name "$name" --region "$region" --alias "$name"
            contexts+=("$name")
        done < <(python3 -c '
import json, sys
for region, it in json.load(open(sys.argv[1])).get("regions", {}).get("value", {}).items():
    print(it["cluster"]["name"], region)
' "$outputs")
    fi
    [ ${#contexts[@]} -gt 0 ] || wrong "which cluster? --context NAME, or --terraform-output FILE with clusters in it"
    values=$(mktemp -d)
    for context in "${contexts[@]}"; do
        say "cluster $context"
        printf 'prometheus:\n  prometheusSpec:\n    externalLabels: {cluster: "%s"}\n' "$context" >"$values/kube-prometheus-stack.yaml"
        act kubectl --context "$context" create namespace monitoring --dry-run=client -o yaml | apply "$context"
        receivers "$context"
        release "$context" kube-prometheus-stack https://prometheus-community.github.io/helm-charts --values "$values/kube-prometheus-stack.yaml"
        release "$context" loki https://grafana.github.io/helm-charts
        release "$context" alloy https://grafana.github.io/helm-charts
        for path in ops/monitoring/dashboards/*.json; do
            name=$(basename "$path" .json)
            sed "s|\"ops/monitoring/runbooks\"|\"${base:+${base%/}/}ops/monitoring/runbooks\"|" "$path" >"$values/$name.json"
            act kubectl --context "$context" --namespace monitoring create configmap "dashboard-$name" \
                --from-file="$values/$name.json" --dry-run=client -o yaml | labelled | apply "$context"
        done
        say "the engine's own rules come with its chart (k8s/chart)${base:+; for their runbooks: monitoring.runbookBase=$base in its values}"
    done
    rm -rf -- "$values"
    [ -n "$pagerduty$slack" ] || say "receivers keep the keys they have; without any nobody is told: --pagerduty-key-file, --slack-url-file"
}

# Alertmanager's configuration and its receivers' keys: a secret that the release's values name and no release
# owns, so that no later change of the release can silence it. A key that is not given stays.
receivers() {
    local context=$1 name file kept folder
    folder=$(mktemp -d)
    # The operator mounts every key of the secret there.
    alertmanager_file | sed 's|/etc/prometheus/secrets/|/etc/alertmanager/config/|' >"$folder/alertmanager.yaml"
    for name in pagerduty-key slack-url; do
        file=$pagerduty
        [ "$name" = pagerduty-key ] || file=$slack
        if [ -n "$file" ]; then
            cp "$file" "$folder/$name"
        elif [ -z "$dry" ]; then
            kept=$(kubectl --context "$context" --namespace monitoring get secret alertmanager-config --ignore-not-found --output "jsonpath={.data['$name']}")
            [ -z "$kept" ] || base64 -d <<<"$kept" >"$folder/$name"
        fi
    done
    act kubectl --context "$context" --namespace monitoring create secret generic alertmanager-config \
        --from-file="$folder" --dry-run=client -o yaml | apply "$context"
    rm -rf -- "$folder"
}

# What Grafana's sidecar looks for.
labelled() { sed 's/^metadata:$/metadata:\n  labels: {grafana_dashboard: "1"}/'; }

apply() {
    if [ -n "$dry" ]; then
        cat >/dev/null
    else
        kubectl --context "$1" apply --server-side -f - >&2
    fi
}

mode=${1:-}
case $mode in
host | cluster) shift ;;
-h | --help) usage && exit ;;
*) wrong "host or cluster? See --help" ;;
esac
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry=yes && shift && continue ;;
    -h | --help) usage && exit ;;
    esac
    [ $# -ge 2 ] || wrong "$1 is unknown or needs a value; see --help"
    case $1 in
    --engine) engines+=("$2") ;;
    --certificate) certificates+=("$2") ;;
    --postgres-url) postgres=$2 ;;
    --redis-url) redis=$2 ;;
    --pagerduty-key-file) pagerduty=$2 ;;
    --slack-url-file) slack=$2 ;;
    --heartbeat-url) heartbeat=$2 ;;
    --runbook-base) base=$2 ;;
    --backups) backups=$2 ;;
    --values) more_values+=("$2") ;;
    --terraform-output) outputs=$2 ;;
    --context) contexts+=("$2") ;;
    *) wrong "$1 is unknown; see --help" ;;
    esac
    shift 2
done
for file in $pagerduty $slack $backups $outputs "${more_values[@]#*=}"; do
    [ -r "$file" ] || wrong "$file cannot be read"
done
for file in "${more_values[@]}"; do
    case $file in kube-prometheus-stack=* | loki=* | alloy=*) ;; *) wrong "--values $file: kube-prometheus-stack=FILE, loki=FILE or alloy=FILE" ;; esac
done
case $backups in '' | /*) ;; *) wrong "--backups $backups: a unit wants it from the root on" ;; esac
case $base in '' | http://* | https://*) ;; *) wrong "--runbook-base $base is no http address" ;; esac
"$mode"
