# shellcheck shell=bash
# Shared by scripts/demo, scripts/test and scripts/check; not a command of its own.
#
# Promises: after `set_up EXTRA` (EXTRA is `all` or `dev`), "$venv_python" runs Python 3.11 or later with
# atop[EXTRA] of this checkout installed in "$venv". When everything is there already that is found out in
# a few hundredths of a second, without the network.
#
# Installs Debian packages only as root or with a sudo that asks for no password, only those that are
# missing, and none with ATOP_SETUP_SYSTEM=no. Where it may not, it says exactly what to type and exits 1.
# Never asks a question, and never writes elsewhere than in "$venv".
#
# Settings, all optional: PYTHON (the interpreter to use), ATOP_VENV (default: .venv of this checkout),
# BERKELEYDB_DIR, or BERKELEYDB_INCDIR and BERKELEYDB_LIBDIR, for a Berkeley DB in an unusual place.

set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="${ATOP_VENV:-$root/.venv}"
venv_python="$venv/bin/python"
setup_log="$venv/setup.log"

say() { printf 'atop: %s\n' "$*" >&2; }

# Prints its arguments, one a line, and ends the command.
fail() {
    printf '\n' >&2
    say "$1"
    shift
    if [ $# -gt 0 ]; then printf '%s\n' "$@" >&2; fi
    exit 1
}

# --- what is there -----------------------------------------------------------------------------------------

# True if "$1" starts and is Python 3.11 or later. (A pyenv shim may exist and yet not start.)
new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

has_venv_module() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

has_python_headers() {
    "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' >/dev/null 2>&1
}

has_compiler() {
    local compiler
    for compiler in ${CC:-} cc gcc clang; do
        if printf '#include <stdio.h>\n' | "$compiler" -E -x c - >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

# The places where the build of `berkeleydb` looks for the header of Berkeley DB 5.3.
has_berkeley_db() {
    if [ -n "${BERKELEYDB_DIR:-}${BERKELEYDB_INCDIR:-}" ]; then return 0; fi
    local directory
    for directory in /usr/include /usr/include/db5 /usr/include/db53 /usr/local/include/db5 /usr/local/include/db53 \
        /usr/local/BerkeleyDB.5.3/include /opt/local/include/db53; do
        if grep -q 'DB_VERSION_MAJOR[[:space:]]*5$' "$directory/db.h" 2>/dev/null; then return 0; fi
    done
    for directory in /opt/homebrew/opt/berkeley-db@5 /usr/local/opt/berkeley-db@5; do
        if [ -f "$directory/include/db.h" ]; then
            export BERKELEYDB_DIR="$directory"
            return 0
        fi
    done
    return 1
}

# True if "$1" belongs to the system, so that the system's packages can complete it.
is_system_python() { "$1" -c 'import sys; sys.exit(sys.base_prefix != "/usr")' >/dev/null 2>&1; }

# Prints the path of the interpreter to make the environment with: the first that lacks nothing, else the
# first that packages can complete, else the first that is new enough. Prints nothing if there is none.
find_python() {
    local name path completable="" other=""
    local -a names=(python3.13 python3.12 python3.11 python3)
    if [ -n "${PYTHON:-}" ]; then names=("$PYTHON"); fi
    for name in "${names[@]}"; do
        path="$(command -v "$name" 2>/dev/null)" || continue
        new_enough "$path" || continue
        if has_venv_module "$path" && has_python_headers "$path"; then
            printf '%s\n' "$path"
            return
        fi
        if is_system_python "$path"; then
            completable="${completable:-$path}"
        else
            other="${other:-$path}"
        fi
    done
    printf '%s\n' "${completable:-$other}"
}

# --- what is missing from the system -----------------------------------------------------------------------

# Sets `missing` to words for a person and `packages` to Debian packages, for "$1" (an interpreter or "").
find_missing() {
    local interpreter="$1" version="3"
    missing=()
    packages=()
    if [ -z "$interpreter" ]; then
        missing+=("Python 3.11 or later")
        packages+=(python3 python3-venv python3-dev)
    else
        if is_system_python "$interpreter"; then
            version="$("$interpreter" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
        fi
        if ! has_venv_module "$interpreter"; then
            missing+=("Python's venv module for $interpreter")
            packages+=("python$version-venv")
        fi
        if ! has_python_headers "$interpreter"; then
            missing+=("Python's headers (Python.h) for $interpreter")
            packages+=("python$version-dev")
        fi
    fi
    if ! has_compiler; then
        missing+=("a C compiler")
        packages+=(gcc libc6-dev)
    fi
    if ! has_berkeley_db; then
        missing+=("Berkeley DB 5.3 with its header (db.h)")
        packages+=(libdb5.3-dev)
    fi
}

# Prints, one a line, what a person should type to get what find_missing found.
how_to_install() {
    if command -v apt-get >/dev/null 2>&1; then
        if [ "$(id -u)" = 0 ]; then
            printf '    apt-get update && apt-get install %s\n' "${packages[*]}"
        else
            printf '    sudo apt-get update && sudo apt-get install %s\n' "${packages[*]}"
        fi
    elif command -v dnf >/dev/null 2>&1; then
        printf '    sudo dnf install libdb-devel gcc python3 python3-devel\n'
    elif [ "$(uname -s)" = Darwin ]; then
        printf '    xcode-select --install\n    brew install berkeley-db@5 python@3.13\n'
    else
        printf '    (with the package manager of this system: the packages that contain the above)\n'
        printf '    A Berkeley DB in an unusual place is found through BERKELEYDB_INCDIR and BERKELEYDB_LIBDIR.\n'
    fi
}

# Prints the prefix that runs a command as root without a question; fails if there is none.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        printf 'env'
    elif command -v sudo >/dev/null 2>&1 && sudo -n true >/dev/null 2>&1; then
        printf 'sudo -n env'
    else
        return 1
    fi
}

# Installs `packages`; true if apt-get said that it did.
install_packages() {
    local prefix="$1"
    # shellcheck disable=SC2206 # the prefix is words of our own
    local -a install=($prefix DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends)
    say "installing Debian packages: ${packages[*]}"
    if "${install[@]}" "${packages[@]}" >"$setup_log" 2>&1 </dev/null; then return 0; fi
    # A new machine has no package lists yet, an old one has stale ones.
    $prefix DEBIAN_FRONTEND=noninteractive apt-get update >>"$setup_log" 2>&1 </dev/null || true
    "${install[@]}" "${packages[@]}" >>"$setup_log" 2>&1 </dev/null
}

# Makes sure of an interpreter (left in `interpreter`) and of what building `berkeleydb` needs.
ensure_system() {
    local prefix line
    local -a missing=() packages=() lines=()
    interpreter="$(find_python)"
    if [ -n "${PYTHON:-}" ] && [ -z "$interpreter" ]; then
        fail "PYTHON=$PYTHON does not start, or is older than Python 3.11."
    fi
    find_missing "$interpreter"
    if [ ${#missing[@]} = 0 ]; then return; fi
    if [ "${ATOP_SETUP_SYSTEM:-yes}" != no ] && command -v apt-get >/dev/null 2>&1 && prefix="$(as_root)"; then
        local failed=""
        install_packages "$prefix" || failed=yes
        interpreter="$(find_python)"
        find_missing "$interpreter"
        if [ ${#missing[@]} = 0 ]; then return; fi
        if [ -n "$failed" ]; then
            tail -n 5 "$setup_log" >&2
            lines+=("apt-get failed (its words are above, all of them in $setup_log).")
            lines+=("Is this machine online? Once it works, run this command again.")
        fi
    fi
    lines+=("this is missing:")
    for line in "${missing[@]}"; do lines+=("    - $line"); done
    if [ -z "$interpreter" ] && command -v python3 >/dev/null 2>&1; then
        lines+=("    ($(command -v python3) is $(python3 -V 2>&1 || true): too old, or it does not start)")
    fi
    lines+=("Please type this, then run this command again:")
    while IFS= read -r line; do lines+=("$line"); done < <(how_to_install)
    # In a line of its own: where there is no such package, the others are installed all the same.
    if [ -n "${with_chromium:-}" ] && ! find_chromium >/dev/null; then
        lines+=("and this, or the tests of the data browser's pages are skipped:")
        while IFS= read -r line; do lines+=("$line"); done < <(how_to_get_chromium)
    fi
    fail "${lines[@]}"
}

# --- the environment ---------------------------------------------------------------------------------------

# What an installation is good for: these requirements, this Python, this place.
setup_key() {
    local version
    version="$("$venv_python" -V 2>/dev/null)" || return 1
    printf '%s|%s|%s\n' "$(cksum <"$root/pyproject.toml")" "$version" "$root"
}

# True if this extra, or one that includes it, is installed for the present key.
is_set_up() {
    local extra="$1" key stamp
    key="$(setup_key)" || return 1
    for stamp in "$venv/.set-up-$extra" "$venv/.set-up-dev"; do
        if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ]; then return 0; fi
    done
    return 1
}

# True if the environment works as it is and is of the Python that was asked for.
venv_works() {
    new_enough "$venv_python" && "$venv_python" -m pip --version >/dev/null 2>&1 || return 1
    [ -z "${PYTHON:-}" ] || [ "$("$venv_python" -V)" = "$("$PYTHON" -V 2>/dev/null)" ]
}

make_venv() {
    say "making a virtual environment with $interpreter in $venv"
    "$interpreter" -m venv --clear "$venv" >&2 || fail "$interpreter could not make a virtual environment in $venv."
}

install_package() {
    local extra="$1"
    say "installing atop[$extra] and what it needs (the first time takes a minute or two)"
    if "$venv_python" -m pip install --disable-pip-version-check --retries 2 -e "${root}[$extra]" \
        >"$setup_log" 2>&1 </dev/null; then
        return
    fi
    tail -n 15 "$setup_log" >&2
    if grep -qiE 'name resolution|NewConnectionError|ConnectTimeout|Network is unreachable|ProxyError' "$setup_log"; then
        fail "the Python packages could not be fetched: this machine seems to be offline." \
            "The first set-up needs the network, later ones do not. (All of pip's words: $setup_log)"
    fi
    fail "pip failed (its last words are above, all of them in $setup_log)." \
        "Once what it names is mended, run this command again."
}

check_berkeley_db() {
    local version
    version="$("$venv_python" -c 'import berkeleydb; print("%d.%d" % berkeleydb.db.version()[:2])' 2>&1)" ||
        fail "the module berkeleydb was installed but does not load:" "    ${version##*$'\n'}" \
            "Remove $venv and run this command again to build it anew."
}

set_up() {
    local extra="$1" interpreter=""
    if is_set_up "$extra"; then return; fi
    # Two commands at once must not build the same environment; not every system has flock.
    exec 9<"$root"
    if command -v flock >/dev/null 2>&1; then flock 9 || true; fi
    if ! is_set_up "$extra"; then
        if ! venv_works; then
            mkdir -p "$venv"
            ensure_system
            make_venv
        elif ! "$venv_python" -c 'import berkeleydb' >/dev/null 2>&1; then
            PYTHON="$venv_python" ensure_system
        fi
        install_package "$extra"
        check_berkeley_db
        setup_key >"$venv/.set-up-$extra"
        say "set up; this is not needed again until pyproject.toml or Python changes"
    fi
    exec 9<&-
}

# --- a browser for the tests of the data browser -----------------------------------------------------------

find_chromium() {
    local name
    for name in chromium chromium-browser google-chrome; do
        if command -v "$name" 2>/dev/null; then return; fi
    done
    return 1
}

# Prints what to type to get it.
how_to_get_chromium() {
    local -a packages=(chromium)
    if command -v apt-get >/dev/null 2>&1; then
        how_to_install
    elif command -v dnf >/dev/null 2>&1; then
        printf '    sudo dnf install chromium\n'
    elif [ "$(uname -s)" = Darwin ]; then
        printf '    brew install --cask chromium\n'
    else
        printf '    (with the package manager of this system: Chromium)\n'
    fi
}

# Installs Chromium where it may; where not, says what to type. The tests that need it are skipped without it.
ensure_chromium() {
    local prefix
    local -a packages=(chromium)
    if find_chromium >/dev/null; then return; fi
    if [ "${ATOP_SETUP_SYSTEM:-yes}" != no ] && command -v apt-get >/dev/null 2>&1 && prefix="$(as_root)"; then
        mkdir -p "$venv"
        install_packages "$prefix" || true
        if find_chromium >/dev/null; then return; fi
    fi
    say "Chromium is not installed, so the data browser's pages are NOT tested. To test them, type:"
    how_to_get_chromium >&2
}
