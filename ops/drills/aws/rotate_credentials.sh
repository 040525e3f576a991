#!/usr/bin/env bash
# Gives the engine's database role a new password while engines run.
#
#   rotate_credentials.sh [--role app|read] [--region R] [--restart yes] [--context NAME]
#       Amazon: the secret's own rotation, then waits for the new version. --restart yes also
#       replaces the engines one by one, so that they log in under the new name at once
#   rotate_credentials.sh --database-url SUPERUSER_URL --file FILE [--role app|read]
#       a PostgreSQL of your own: FILE holds ENGINE_DATABASE_URL=postgres://USER:PASSWORD@HOST/...
#       and gets the new one; RTO does not apply, for nothing is interrupted
#
# Two users take turns, engine_app and engine_app_clone. The one that is NOT in use gets the new
# password, so a running engine goes on: its sessions stay, and when they break it logs in again with
# the former password, which works until the next rotation. An engine reads its password when it
# starts and at no other time: replace each one (a rolling restart) between two rotations. One that
# is older than two rotations serves on until its sessions break, and is then refused.
#
# In the tests: both users, terminated sessions and the refusal, against a real PostgreSQL and a
# running engine; Amazon's calls against moto, which has no rotation function.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

role=app restart=no context='' database_url='' file=''
parse "--role --restart --context --database-url --file" "$@"
[[ $role =~ ^(app|read)$ ]] || wrong_use "--role is app or read, not $role (the owner has one user: Terraform rotates it)"

own_server() {
    local first=engine_$role second=engine_${role}_clone url current next password rest
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
    say "in use: $current; the new password goes to $next"
    confirm "the password of $next changes: engines that were started before the last rotation lose theirs"
    if [ -n "$dry_run" ]; then
        say "+ psql SUPERUSER_URL: CREATE ROLE $second IN ROLE $first (if it is missing); ALTER ROLE $next PASSWORD ..."
        say "+ write postgres://$next:...@$rest into $file"
        return
    fi
    # Letters and digits: nothing that a URL would have to escape.
    password=$(LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c 40 || true)
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
    sed "s#^ENGINE_DATABASE_URL=.*#ENGINE_DATABASE_URL=postgres://$next:$password@$rest#" "$file" >"$part"
    mv -- "$part" "$file"
    say "$file has $next now. Restart each engine before the next rotation, whenever it suits"
}

amazon() {
    local secret health_url before
    need_targets
    secret=$(out ".secret_names.value.$role")
    health_url=$(out '.regions.value[$region].health_url')
    current() { aws secretsmanager list-secret-version-ids --region "$region" --secret-id "$secret" --output json | jq -er '.Versions[] | select(.VersionStages | index("AWSCURRENT")) | .VersionId'; }
    before=$(current) || die "the secret $secret has no version: nothing was done"
    confirm "the secret $secret is rotated"
    act_began=$EPOCHREALTIME
    act aws secretsmanager rotate-secret --region "$region" --secret-id "$secret" --output json >/dev/null
    rotated() { local now; now=$(current) && [ "$now" != "$before" ]; }
    wait_for "the secret has a new version" rotated
    wait_for "the engines answer 200" healthy "$health_url"
    if [ "$restart" = yes ]; then
        command -v kubectl >/dev/null || die "kubectl is missing: the secret is rotated, the engines still use the former password"
        [ -n "$context" ] || context=$(out '.regions.value[$region].cluster.name')
        # external-secrets looks every 5 minutes; told, it looks now.
        act kubectl --context "$context" --namespace engine annotate externalsecrets --all --overwrite "force-sync=$(date +%s)"
        act kubectl --context "$context" --namespace engine patch rollout engine --type merge \
            --patch "{\"spec\":{\"restartAt\":\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\"}}"
        wait_for "the engines answer 200 after it" healthy "$health_url"
    else
        say "restart the engines before the next rotation: the former password works until then"
    fi
    say "$(elapsed "$act_began") s until the new password was in force; no interruption was seen"
}

if [ -n "$database_url$file" ]; then
    [ -n "$database_url" ] && [ -n "$file" ] || wrong_use "--database-url and --file go together"
    own_server
else
    amazon
fi
passed
