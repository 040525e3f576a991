# shellcheck shell=bash
# What ops/run and ops/test share: messages, and the programs they need.
# Sourced from the repository's root; sets nothing but functions.

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# The highest PostgreSQL under Debian's folder or on the PATH; 0 if none.
postgres_major() {
    local program major highest=0
    for program in /usr/lib/postgresql/*/bin/postgres "$(command -v postgres || true)"; do
        [ -x "$program" ] || continue
        major=$("$program" --version | sed -n 's/^postgres (PostgreSQL) \([0-9]*\).*/\1/p')
        [ "${major:-0}" -gt "$highest" ] && highest=$major
    done
    printf '%s\n' "$highest"
}

# The newest PostgreSQL package of this system from 15 on; nothing if there is none.
postgres_package() {
    local major
    for major in 18 17 16 15; do
        if apt-cache show "postgresql-$major" >/dev/null 2>&1; then
            printf 'postgresql-%s\n' "$major"
            return
        fi
    done
}

# Whether a browser is there that the test of the load generator's page can drive.
has_browser() {
    local name
    for name in chromium chromium-browser google-chrome chrome; do
        command -v "$name" >/dev/null && return
    done
    return 1
}

# Ubuntu's package of Chromium only fetches a snap, which cannot be run from a test.
has_browser_package() {
    apt-cache show chromium 2>/dev/null | grep -q '^Package: chromium$' &&
        ! grep -q '^ID=ubuntu$' /etc/os-release
}

# Runs a command as root: directly, or through sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null || die "root is needed to install packages, and there is no sudo. As root, run: $*"
        sudo "$@"
    fi
}

# need_packages run|test [PROGRAM:PACKAGE...]: installs what is missing on Debian or
# Ubuntu, these programs included, and says so first.
need_packages() {
    local purpose=$1 package program
    local missing=()
    shift
    [ "$(postgres_major)" -ge 15 ] || missing+=(postgresql)
    # The `postgres` package has no client; the demonstration asks with psql.
    command -v psql >/dev/null || missing+=(postgresql-client)
    command -v redis-server >/dev/null || command -v valkey-server >/dev/null || missing+=(redis-server)
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v curl >/dev/null || missing+=(curl ca-certificates)
    if [ "$purpose" = test ]; then
        # Its promtool checks the metrics page.
        command -v promtool >/dev/null || missing+=(prometheus)
        # Refused by the engine, which a test shows with one of its own, not with
        # the service that Debian starts. Only root has its folder on the PATH.
        [ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null || missing+=(pgbouncer)
        # python3-minimal alone has no unittest.
        python3 -c 'import unittest' 2>/dev/null || missing+=(python3)
        # Opens the load generator's page.
        [ "${LOADTEST_SKIP_BROWSER:-}" = 1 ] || has_browser || missing+=(chromium)
    fi
    for program in "$@"; do
        # Only root has the folder of daemons on the PATH.
        [ -x "/usr/sbin/${program%%:*}" ] || command -v "${program%%:*}" >/dev/null || missing+=("${program#*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0

    if [ -n "${ENGINE_NO_INSTALL:-}" ] || ! command -v apt-get >/dev/null; then
        die "missing: ${missing[*]} (PostgreSQL 15 or later). Install them, then run this again."
    fi
    say "Installing with apt: ${missing[*]} (set ENGINE_NO_INSTALL=1 to be told instead)."
    say "Debian may start services of its own for them; the engine leaves those alone."
    as_root apt-get update -q
    if [ "${missing[0]}" = postgresql ]; then
        package=$(postgres_package)
        [ -n "$package" ] || die "this system's newest PostgreSQL is older than 15. Add PostgreSQL's own packages first:
  apt-get install -y postgresql-common && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y"
        missing[0]=$package
    fi
    if [[ " ${missing[*]} " == *" chromium "* ]] && ! has_browser_package; then
        die "this system has no package of Chromium but a snap. Install Google Chrome's package (https://www.google.com/chrome/), or set LOADTEST_SKIP_BROWSER=1: the load generator's page is then not tested."
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# need_rust run|test: puts cargo on the PATH, and says how to get what is missing.
need_rust() {
    local purpose=$1 component minor
    local get="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt -c clippy"
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    command -v cargo >/dev/null || die "Rust is missing. Install it, then run this again:
  $get"
    minor=$(cargo --version | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
    [ "${minor:-0}" -ge 92 ] || die "$(cargo --version) is older than 1.92. Run: rustup update stable"
    [ "$purpose" = test ] || return 0
    for component in fmt clippy; do
        cargo "$component" --version >/dev/null 2>&1 || die "cargo $component is missing. Run: rustup component add ${component/fmt/rustfmt}"
    done
}

# Where cargo puts what it builds, whatever its configuration says.
target_dir() {
    cargo metadata --format-version 1 --no-deps --offline 2>/dev/null |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# need_program PROGRAM PACKAGE: installs a Debian package for a program that is missing.
need_program() {
    ! command -v "$1" >/dev/null || return 0
    if [ -n "${ENGINE_NO_INSTALL:-}" ] || ! command -v apt-get >/dev/null; then
        die "missing: $1. Install $2, then run this again."
    fi
    say "Installing with apt: $2 (set ENGINE_NO_INSTALL=1 to be told instead)."
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$2"
}

# run_swept FOLDER MAIN.py [ARGUMENT...]: runs it in FOLDER, and ends with its exit code.
# However it ends, `MAIN.py --sweep` then removes what a kill left behind. Sets traps.
run_swept() {
    local folder=$1 main=$2 status=0
    shift 2
    swept=("$folder" "$main" "$@")
    runner=
    trap sweep_and_exit EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    cd "$folder" || exit
    # In the background, so that a signal reaches the traps above at once.
    python3 "$main" "$@" </dev/null &
    runner=$!
    wait "$runner" || status=$?
    runner=
    exit "$status"
}

# shellcheck disable=SC2317,SC2329  # the trap of run_swept calls it
sweep_and_exit() {
    local status=$?
    trap - EXIT INT TERM
    if [ -n "$runner" ] && kill -TERM "$runner" 2>/dev/null; then
        wait "$runner" || true
    fi
    # Only if the runner was killed: otherwise it has ended all it started.
    (cd "${swept[0]}" && python3 "${swept[1]}" --sweep "${swept[@]:2}") || say "servers of ${swept[1]} may still run"
    exit "$status"
}

# need_venv FOLDER PACKAGE==VERSION...: a virtual environment with these packages, made
# anew when they change.
need_venv() {
    local folder=$1
    shift
    if [ "$(cat "$folder/wanted" 2>/dev/null)" = "$*" ]; then
        return
    fi
    need_program python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || need_program /usr/lib/python3-venv-is-missing python3-venv
    say "Installing into $folder: $*"
    rm -rf -- "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
    printf '%s' "$*" >"$folder/wanted"
}

# need_node_modules FOLDER PACKAGE.json: its dependencies in FOLDER/node_modules, made
# anew when the file changes.
need_node_modules() {
    local folder=$1 list=$2
    if cmp -s "$list" "$folder/package.json" && [ -e "$folder/whole" ]; then
        return
    fi
    need_program node nodejs
    need_program npm npm
    say "Installing into $folder what $list names"
    rm -rf -- "$folder"
    mkdir -p "$folder"
    cp "$list" "$folder/package.json"
    (cd "$folder" && npm install --no-audit --no-fund --ignore-scripts --loglevel=error)
    touch "$folder/whole"
}
