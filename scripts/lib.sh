# shellcheck shell=bash
# What the scripts share: saying what they do, and installing what is missing. Sourced, not run.
#
# Nothing is installed that is already there, nothing is installed without a line that says so, and nothing that takes
# long is silent: on a terminal cargo shows its own bar, elsewhere a line now and then says how long it has taken.

if [ "${BASH_VERSINFO[0]}" -lt 5 ]; then
    echo "${0##*/}: this needs bash 5, and this is $BASH_VERSION (on a Mac: brew install bash)" >&2
    exit 1
fi
# A step that fails within $(…) ends it there, as it would outside.
shopt -s inherit_errexit

# The folder of the clone.
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# What is kept between runs, for every clone of this user: tools' environments and, in CI, the build.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/trading-core
# One version for everyone: a newer one may know new rules, and the check is to fail only when we change something.
cargo_deny_version=0.20.2
# Seconds between two signs of life.
heartbeat_every=20
# Cargo's list of what it compiles is worth reading on a terminal only, where it ends in a bar.
cargo_quiet=()
[ -t 2 ] || cargo_quiet=(--quiet)

# Messages go to standard error: standard output belongs to the program that the script runs.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# manual ARGUMENTS...: prints the comment at the head of the script, which is its manual, where --help asks for it.
manual() {
    case ${1:-} in
    -h | --help)
        awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
        exit
        ;;
    esac
}

# lasted SECONDS: as people say it.
lasted() {
    if [ "$1" -lt 60 ]; then
        echo "$1 s"
    else
        echo "$(($1 / 60)) min $(($1 % 60)) s"
    fi
}

# start_heartbeat WHAT [LOG]: until stop_heartbeat, says now and then how long it has taken, and what the log says last.
heart=""
start_heartbeat() {
    (
        trap - EXIT
        start=$SECONDS
        # The sleep holds nothing open for which a reader of our output would wait; and nobody is left to read it when
        # the script is gone.
        while sleep "$heartbeat_every" >/dev/null 2>&1 && kill -0 "$$" 2>/dev/null; do
            last=""
            [ -z "${2:-}" ] || last=$(tail -n 1 -- "$2" | cut -c 1-70)
            say "$1: $(lasted $((SECONDS - start))) so far${last:+ ($last)}"
        done
    ) &
    heart=$!
}

stop_heartbeat() {
    [ -n "$heart" ] || return 0
    { kill "$heart" && wait "$heart"; } 2>/dev/null || true
    heart=""
}

# timed WHAT COMMAND...: says how long it took, and that it failed. The command shows itself, on a terminal, how far it is.
timed() {
    local what=$1 start=$SECONDS code=0
    shift
    [ -t 2 ] || start_heartbeat "$what"
    "$@" || code=$?
    stop_heartbeat
    [ "$code" -eq 0 ] || fail "$what: failed after $(lasted $((SECONDS - start)))"
    # What was there already is not worth a line.
    [ $((SECONDS - start)) -lt 2 ] || say "$what: done in $(lasted $((SECONDS - start)))"
}

# logged WHAT COMMAND...: as timed, for a command whose chatter nobody reads unless it fails: then its end is shown, and
# the rest is in a file that is named.
logged() {
    local what=$1 start=$SECONDS code=0 log
    shift
    log=$(mktemp "${TMPDIR:-/tmp}/trading-core-${0##*/}-XXXXXX.log")
    start_heartbeat "$what" "$log"
    "$@" >"$log" 2>&1 || code=$?
    stop_heartbeat
    if [ "$code" -ne 0 ]; then
        tail -n 15 -- "$log" | sed 's/^/    /' >&2
        ! grep -qiE 'resolv|could not connect|cannot initiate the connection|unreachable|timed out' "$log" ||
            say "this step needs the network, which seems to be missing; behind a proxy cargo and pip take HTTPS_PROXY, and apt its Acquire::http::Proxy"
        fail "$what: failed after $(lasted $((SECONDS - start))); all that it said is in $log"
    fi
    rm -f -- "$log"
    say "$what: done in $(lasted $((SECONDS - start)))"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root, and there is no sudo: $*"
    fi
}

# need_disk MEGABYTES FOLDER WHAT: before something is begun that would fill the disk.
need_disk() {
    local folder=$2 free
    until [ -d "$folder" ]; do folder=$(dirname -- "$folder"); done
    free=$(df -Pk -- "$folder" | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free" -ge "$1" ] || fail "$3 takes about $1 MB in $folder, and only $free MB are free there"
}

# apt_install WHY PACKAGE...: installs packages of the distribution, once its lists are fresh.
apt_install() {
    local why=$1
    shift
    command -v apt-get >/dev/null ||
        fail "$why is missing and this is not Debian or Ubuntu: install it by hand (there the packages are: $*)"
    say "installing $* ($why)"
    # Lists of other sources may fail without harm: if one was needed, the installation says so.
    # shellcheck disable=SC2016 # For the inner shell.
    logged "installing $*" as_root env DEBIAN_FRONTEND=noninteractive sh -c '
        apt-get -q -o DPkg::Lock::Timeout=300 update
        exec apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold install "$@"
    ' apt "$@"
}

# The version of cargo, or of rustc where that is older; nothing where one of them is missing.
rust_version() {
    local cargo rustc
    cargo=$(cargo --version 2>/dev/null) || return 0
    rustc=$(rustc --version 2>/dev/null) || return 0
    printf '%s\n' "$cargo" "$rustc" | cut -d ' ' -f 2 | sort -V | sed -n 1p
}

# new_enough WANTED FOUND: as versions: 1.100 is newer than 1.94.
new_enough() { [ -n "$2" ] && printf '%s\n' "$1" "$2" | sort -V -C; }

# Cargo and a compiler of a version that can build this, and the linker that they call.
need_rust() {
    local wanted found bin=${CARGO_HOME:-$HOME/.cargo}/bin how
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
    found=$(rust_version)
    # rustup puts it there; a shell that was open before does not know it, or finds a distribution's older one first.
    if ! new_enough "$wanted" "$found" && [ -x "$bin/cargo" ]; then
        PATH="$bin:$PATH"
        found=$(rust_version)
    fi
    if ! new_enough "$wanted" "$found"; then
        how="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
        ! command -v rustup >/dev/null || how="rustup default stable && rustup update stable"
        say "Rust $wanted or newer is needed; here is ${found:-none}${found:+ ($(command -v cargo))}. The packages of Debian and Ubuntu are"
        say "older. This installs it for your user, as https://rustup.rs says; then run $0 again:"
        say "    $how"
        if [ -n "${SUDO_USER:-}" ] && [ "$(id -u)" -eq 0 ]; then
            say "If $SUDO_USER has it: run this without sudo. It asks for root's rights itself, where they are needed."
        fi
        exit 1
    fi
    command -v cc >/dev/null || apt_install "a C compiler and linker" gcc libc6-dev
}

# Whether the programs of a PostgreSQL server are where trading-core looks for them.
have_postgres() {
    local folder
    command -v psql >/dev/null || return 1
    for folder in "$(pg_config --bindir 2>/dev/null || true)" /usr/lib/postgresql/*/bin \
        /usr/pgsql-*/bin /usr/local/pgsql/bin "$(dirname -- "$(command -v postgres || true)")"; do
        if [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then
            return 0
        fi
    done
    return 1
}

# The programs only: trading-core makes and runs a cluster of its own, as an ordinary user.
need_postgres() {
    have_postgres && return
    # Debian makes and starts a cluster "main" with the package, unless this file is there and says otherwise. It is there
    # only as long as that takes: who wants such a cluster later is to get one.
    local settings=/etc/postgresql-common/createcluster.conf
    (
        if command -v apt-get >/dev/null && [ ! -e "$settings" ]; then
            as_root mkdir -p "${settings%/*}"
            echo 'create_main_cluster = false' | as_root tee "$settings" >/dev/null
            trap 'as_root rm -f "$settings.ucf-dist"
                as_root cp /usr/share/postgresql-common/createcluster.conf "$settings" 2>/dev/null || as_root rm -f "$settings"' EXIT
        fi
        apt_install "a PostgreSQL server's programs; the package's own service gets no cluster, pg_createcluster makes one" postgresql
    )
    have_postgres || fail "postgresql is installed, but its initdb, postgres and psql are not found"
}

# What some tests need beside a server: another clock, a connection pooler, the shells that complete, and a reader of
# scripts.
need_tools() {
    local missing=()
    # The library, not only the program: tests put it into a child's LD_PRELOAD.
    compgen -G "/usr/lib/*/faketime/libfaketimeMT.so.1" >/dev/null ||
        [ -e /usr/lib/faketime/libfaketimeMT.so.1 ] || missing+=(faketime)
    command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
    command -v zsh >/dev/null || missing+=(zsh)
    command -v fish >/dev/null || missing+=(fish)
    command -v shellcheck >/dev/null || missing+=(shellcheck)
    [ "${#missing[@]}" -gt 0 ] || return 0
    apt_install "what tests of clocks, connection poolers, completion and scripts need" "${missing[@]}"
}

need_cargo_deny() {
    [ "$(cargo deny --version 2>/dev/null)" = "cargo-deny $cargo_deny_version" ] && return
    say "installing cargo-deny $cargo_deny_version, which is built: 2 to 5 minutes"
    # Not into our target folder, which would keep its build for good.
    timed "building cargo-deny" env -u CARGO_TARGET_DIR \
        cargo install --locked "${cargo_quiet[@]}" "cargo-deny@$cargo_deny_version" >&2
}

# need_python REQUIREMENTS: prints the python of an environment with exactly these packages.
need_python() {
    local requirements=$1 folder
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install "python with venv" python3 python3-venv
    # Named after its content: other requirements make another environment.
    folder=$cache/python-$(sha256sum "$requirements" | cut -c 1-16)
    if [ ! -e "$folder/complete" ]; then
        say "installing ${requirements#"$root"/} into $folder"
        rm -rf "$folder"
        python3 -m venv "$folder" >&2
        logged "installing ${requirements##*/}" \
            "$folder/bin/python" -m pip install --disable-pip-version-check -r "$requirements"
        touch "$folder/complete"
    fi
    echo "$folder/bin/python"
}

# Where cargo puts what it builds.
target_dir() { echo "${CARGO_TARGET_DIR:-$root/target}"; }

# The program, and its crates before: so that a network that is missing is told from code that does not build.
build_program() {
    local target
    target=$(target_dir)
    if [ ! -e "$target/release/trading-core" ]; then
        say "building trading-core: the first time takes 4 to 8 minutes on two cores, and 1.4 GB of disk in $target and ${CARGO_HOME:-~/.cargo}"
        need_disk 1400 "$target" "the build"
    fi
    fetch_crates
    # From where it is called: a path in the arguments means what it meant to the caller.
    timed "building trading-core" cargo build --release --locked "${cargo_quiet[@]}" \
        --manifest-path "$root/Cargo.toml" --package trading-core
}

fetch_crates() {
    local host
    host=$(rustc -vV | sed -n 's/^host: //p')
    # Of this kind of machine only; nothing is asked when all is there.
    if ! (timed "fetching crates" cargo fetch --locked "${cargo_quiet[@]}" \
        --manifest-path "$root/Cargo.toml" --target "$host"); then
        fail "the first build needs the network (crates.io); cargo takes a proxy from HTTPS_PROXY"
    fi
}
