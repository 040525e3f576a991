#!/usr/bin/env bash
# Gives the engine's database role, or the cache, a new password while engines run.
#
#   rotate_credentials.sh [--role app|read] [--restart yes] [--region R] [--context NAME]
#       Amazon: the secret's own rotation, then waits until every region has the new version.
#       --restart yes also replaces the engines one by one, so that they use it at once, in
#       --region or else in all; --context: kubectl's for that one region (default: the cluster's name)
#   rotate_credentials.sh --role redis [--restart yes] [--region R] [--context NAME]
#       Amazon: a new token for every region's cache, then the secret (ElastiCache has no
#       rotation of its own)
#   rotate_credentials.sh --database-url SUPERUSER_URL --file FILE [--role app|read]
#       a PostgreSQL of your own: FILE holds ENGINE_DATABASE_URL=postgres://USER:PASSWORD@HOST/...
#       and gets the new one, ENGINE_DATABASE_READ_URL of the same user too; RTO does not apply,
#       for nothing is interrupted
#
# Two users take turns, engine_app and engine_app_clone. The one that is NOT in use gets the new
# password, so a running engine goes on: its sessions stay, and when they break it logs in again with
# the former password, which works until the next rotation. An engine reads its password when it
# starts and at no other time: replace each one (a rolling restart) between two rotations. One that
# is older than two rotations serves on until its sessions break, and is then refused. The caches
# likewise take the former token besides the new one, until the next.
#
# In the tests: both users, terminated sessions, load without a lost transfer, and the refusal, against
# a real PostgreSQL and a running engine; Amazon's calls against moto, which has no rotation function
# and no tokens; kubectl from files. Not shown: whether a cache in a global datastore takes a new token.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

role=app restart=no context='' database_url='' file=''
parse "--role --restart --context --database-url --file" "$@"
[[ $role =~ ^(app|read|redis)$ ]] || wrong_use "--role is app, read or redis, not $role (the owner has one user: Terraform rotates it)"
[[ $restart =~ ^(yes|no)$ ]] || wrong_use "--restart is yes or no, not $restart"
[ "$role$restart" != readyes ] || wrong_use "--restart is for what engines use: no engine logs in as read"
[ -z "$context" ] || [ -n "$region" ] || wrong_use "--context is one cluster's: give its --region too"

own_server() {
    local first=engine_$role second=engine_${role}_clone url current next password rest read_rest=
    [ "$role" != redis ] || wrong_use "--role redis is Amazon's: with a Redis of your own, change its ACL and the engines' URL"
    command -v psql >/dev/null || die "psql is missing: install postgresql-client, then run this again"
    [ -f "$file" ] || die "there is no $file"
    url=$(sed -n 's/^ENGINE_DATABASE_URL=//p' "$file" | tail -n 1)
    [[ $url =~ ^postgres(ql)?://([^:@/]+):[^@]*@(.+)$ ]] || die "$file has no line ENGINE_DATABASE_URL=postgres://USER:PASSWORD@HOST/DATABASE"
    current=${BASH_REMATCH[2]} rest=${BASH_REMATCH[3]}
    case $current in
    "$first") next=$second ;;
    "$second") next=$first ;;
    *) die "$file has the user $current, neither $first nor $second: nothing was done" ;;
    esac
    url=$(sed -n 's/^ENGINE_DATABASE_READ_URL=//p' "$file" | tail -n 1)
    if [[ $url =~ ^postgres(ql)?://($first|$second):[^@]*@(.+)$ ]]; then
        read_rest=${BASH_REMATCH[3]}
    fi
    say "in use: $current; the new password goes to $next"
    confirm "the password of $next changes: engines that were started before the last rotation lose theirs"
    if [ -n "$dry_run" ]; then
        say "+ psql SUPERUSER_URL: CREATE ROLE $second IN ROLE $first (if it is missing); ALTER ROLE $next PASSWORD ..."
        say "+ write postgres://$next:...@$rest into $file${read_rest:+, and $next for its ENGINE_DATABASE_READ_URL}"
        return
    fi
    password=$(made_up)
    [ ${#password} -eq 40 ] || die "no random password could be made: nothing was done"
    # Through the environment: other users of a machine read command lines, not environments.
    NEW_PASSWORD=$password FIRST=$first SECOND=$second NEXT=$next PGOPTIONS='-c client_min_messages=warning' \
        psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 "$database_url" >/dev/null <<'SQL' || die "PostgreSQL refused: $file is as it was"
\getenv password NEW_PASSWORD
\getenv first FIRST
\getenv second SECOND
\getenv next NEXT
SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', :'second')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'second')
\gexec
GRANT :"first" TO :"second";
-- Never in the server's log, not even as a statement that failed.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
ALTER ROLE :"next" PASSWORD :'password';
SQL
    # Tried before anybody is told to use it.
    PGPASSWORD=$password psql --no-psqlrc --quiet --tuples-only --no-align "postgresql://$next@$rest" -c 'SELECT 1 FROM accounts LIMIT 1' >/dev/null ||
        die "$next cannot log in or read the ledger: $file is as it was, and engines go on as $current"
    local part
    part=$(mktemp "$file.XXXXXX")
    chmod --reference="$file" "$part"
    chown --reference="$file" "$part"
    # Not by sed: what stands for itself in a URL, such as &, does not in a replacement.
    WRITER=postgres://$next:$password@$rest READER=${read_rest:+postgres://$next:$password@$read_rest} awk '
        /^ENGINE_DATABASE_URL=/ { print "ENGINE_DATABASE_URL=" ENVIRON["WRITER"]; next }
        /^ENGINE_DATABASE_READ_URL=/ && ENVIRON["READER"] { print "ENGINE_DATABASE_READ_URL=" ENVIRON["READER"]; next }
        { print }' "$file" >"$part"
    mv -- "$part" "$file"
    say "$file has $next now. Restart each engine before the next rotation, whenever it suits"
}

# The version of the secret in a region that engines get now.
current() {
    aws secretsmanager list-secret-version-ids --region "$1" --secret-id "$secret" --output json |
        jq -er '.Versions[] | select(.VersionStages | index("AWSCURRENT")) | .VersionId'
}
has_new() {
    local now
    watch
    now=$(current "$1") && [ "$now" != "$before" ]
}

# Every look while something is waited for also asks the engines: what a client would have met.
asked=0 failed=0
watch() {
    local url
    for url in "${health_urls[@]}"; do
        asked=$((asked + 1))
        healthy "$url" || failed=$((failed + 1))
    done
}

cache_available() {
    watch
    aws elasticache describe-replication-groups --region "$1" --replication-group-id "$2" --query 'ReplicationGroups[0].Status' --output text | grep -qx available
}

new_token() {
    local token place group
    token=$(made_up)
    [ ${#token} -eq 40 ] || die "no random token could be made: nothing was done"
    requests=$(mktemp -d)
    trap 'rm -rf -- "$requests"' EXIT
    for place in $(all_regions); do
        group=$(jq -er --arg region "$place" '.regions.value[$region].cache.id' <<<"$outputs_read") || die "terraform names no cache in $place: nothing more was done, the former token works everywhere"
        # In files: other users of a machine read command lines.
        TOKEN=$token jq -n --arg group "$group" '{ReplicationGroupId: $group, AuthToken: env.TOKEN, AuthTokenUpdateStrategy: "ROTATE", ApplyImmediately: true}' >"$requests/$place.json"
        wait_for "the cache in $place is available" cache_available "$place" "$group"
        act aws elasticache modify-replication-group --region "$place" --cli-input-json "file://$requests/$place.json" --output json >/dev/null
        wait_for "the cache in $place takes the new token" cache_available "$place" "$group"
    done
    TOKEN=$token SECRET=$secret jq -n '{SecretId: env.SECRET, SecretString: ({password: env.TOKEN} | tojson)}' >"$requests/secret.json"
    act aws secretsmanager put-secret-value --region "$home_region" --cli-input-json "file://$requests/secret.json" --output json >/dev/null
}

restart_engines() {
    local place=$1 named=${context:-} since from
    command -v kubectl >/dev/null || die "kubectl is missing: the secret is rotated, the engines still use the former password, which works until the next rotation"
    [ -n "$named" ] || named=$(jq -er --arg region "$place" '.regions.value[$region].cluster.name' <<<"$outputs_read")
    k() { kubectl --context "$named" --namespace engine "$@"; }
    since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    # external-secrets looks every few minutes; told, it looks now. Pods that start before would read the former one.
    # Its name is of what it says: the rollout knows which one its pods read.
    from=engine-app-...
    [ -n "$dry_run" ] || from=$(k get rollout engine -o json | jq -er '.spec.template.spec.containers[0].envFrom[].secretRef.name // empty') ||
        die "$place's rollout names no secret: the secret is rotated, the engines there still use the former password, which works until the next rotation"
    act k annotate externalsecret "$from" --overwrite "force-sync=$since"
    synced() { watch; k get externalsecret "$from" -o json | jq -e --arg since "$since" '.status.refreshTime >= $since' >/dev/null; }
    wait_for "$place's cluster has the new password" synced
    act k patch rollout engine --type merge --patch "{\"spec\":{\"restartAt\":\"$since\"}}"
    # The controller says so when the last pod is newer than that.
    restarted() { watch; k get rollout engine -o json | jq -e --arg since "$since" '.status.restartedAt == $since and .status.phase == "Healthy"' >/dev/null; }
    wait_for "$place's engines are all new" restarted
}

amazon() {
    local places place wanted=$region
    need_targets
    secret=$(out ".secret_names.value.$role")
    # A secret is changed where it was made; the other regions have copies, which refuse.
    home_region=$(out .primary_region.value)
    places=${wanted:-$(all_regions)}
    mapfile -t health_urls < <(all_health_urls)
    before=$(current "$home_region") || die "the secret $secret has no version: nothing was done"
    watch
    [ "$failed" -eq 0 ] || die "not every region's /health answers 200 before the rotation: nothing was done"
    confirm "the secret $secret is rotated, in every region"
    act_began=$EPOCHREALTIME
    if [ "$role" = redis ]; then new_token; else
        act aws secretsmanager rotate-secret --region "$home_region" --secret-id "$secret" --output json >/dev/null
    fi
    for place in $(all_regions); do
        wait_for "the secret has a new version in $place" has_new "$place"
    done
    if [ "$restart" = yes ]; then
        for place in $places; do restart_engines "$place"; done
    fi
    [ "$restart" = yes ] && [ -z "$wanted" ] || [ "$role" = read ] || say "restart every engine before the next rotation: the former password works until then"
    [ -z "$dry_run" ] || return 0
    watch
    [ "$failed" -eq 0 ] || die "the secret is rotated, but $failed of $asked answers of /health were not 200"
    say "RTO 0 s: all $asked answers of /health were 200; $(elapsed "$act_began") s until the new password was in force"
}

# Letters and digits: nothing that a URL would have to escape.
made_up() { LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c 40 || true; }

if [ -n "$database_url$file" ]; then
    [ -n "$database_url" ] && [ -n "$file" ] || wrong_use "--database-url and --file go together"
    own_server
else
    amazon
fi
passed
