# shellcheck shell=bash
# What the scripts share: saying what they do, and installing what is missing. Sourced, not run.
#
# Nothing is installed that is already there, and nothing is installed without a line that says so.

# A step that fails within $(…) ends it there, as it would outside.
shopt -s inherit_errexit

# The folder of the clone.
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# What is kept between runs, for every clone of this user: tools' environments and, in CI, the build.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/trading-core
# One version for everyone: a newer one may know new rules, and the check is to fail only when we change something.
cargo_deny_version=0.20.2

# Messages go to standard error: standard output belongs to the program that the script runs.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() {
    say "$*"
    exit 1
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

# apt_install WHY PACKAGE...: installs packages of the distribution, once its lists are fresh.
apt_install() {
    local why=$1
    shift
    command -v apt-get >/dev/null ||
        fail "$why is missing and this is not Debian or Ubuntu: install it by hand (there the packages are: $*)"
    say "installing $* ($why)"
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 update >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold install "$@" >&2
}

# Cargo, of a version that can build this, and the linker that it calls.
need_rust() {
    # rustup puts it there; a shell that was open before does not know it yet.
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    command -v cargo >/dev/null ||
        fail "cargo is missing: install Rust as https://rustup.rs says, then run this again"
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
    # Debian makes and starts a cluster "main" with the package; nobody here would use it.
    local settings=/etc/postgresql-common/createcluster.conf
    if command -v apt-get >/dev/null && [ ! -e "$settings" ]; then
        as_root mkdir -p "${settings%/*}"
        echo 'create_main_cluster = false' | as_root tee "$settings" >/dev/null
    fi
    apt_install "a PostgreSQL server's programs" postgresql
    have_postgres || fail "postgresql is installed, but its initdb, postgres and psql are not found"
}

# What some tests need beside a server: another clock, and a connection pooler.
need_tools() {
    local missing=()
    # The library, not only the program: tests put it into a child's LD_PRELOAD.
    compgen -G "/usr/lib/*/faketime/libfaketimeMT.so.1" >/dev/null ||
        [ -e /usr/lib/faketime/libfaketimeMT.so.1 ] || missing+=(faketime)
    command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
    [ "${#missing[@]}" -gt 0 ] || return 0
    apt_install "what tests of clocks and of connection poolers need" "${missing[@]}"
}

need_cargo_deny() {
    [ "$(cargo deny --version 2>/dev/null)" = "cargo-deny $cargo_deny_version" ] && return
    say "installing cargo-deny $cargo_deny_version (builds it: some minutes)"
    # Not into our target folder, which would keep its build for good.
    env -u CARGO_TARGET_DIR cargo install --locked --quiet "cargo-deny@$cargo_deny_version" >&2
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
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" >&2
        touch "$folder/complete"
    fi
    echo "$folder/bin/python"
}

# Where cargo puts what it builds.
target_dir() { echo "${CARGO_TARGET_DIR:-$root/target}"; }
