#!/bin/sh
# Makes .venv with everything pinned in requirements.lock, and the package. Does nothing when that is done.
# Says what is missing before it starts anything that takes long.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "error: $1" >&2; exit 1; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    found=$(python3 --version 2>/dev/null || echo "no python3")
    fail "Python 3.11 or later is needed; found $found. Install one, or name it: make setup PYTHON=/path/to/python3.11"
}

wanted=$(cat requirements.lock pyproject.toml | cksum)
if [ -f .venv/.installed ] && [ "$(cat .venv/.installed)" = "$wanted" ] && .venv/bin/python -c 'import lrstudy' 2>/dev/null; then
    ready=1
else
    ready=0
fi

command -v git >/dev/null 2>&1 || fail "git is needed (DVC keeps experiments in it); install it, then run this again."

if [ "$ready" = 0 ]; then
    python=$(find_python)
    # The packages, mostly PyTorch with its CUDA libraries on Linux, and what pip unpacks on the way.
    needed=10
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
    [ -d .venv ] || [ "$free" -ge "$needed" ] ||
        fail "$needed GiB of free disk are needed for the packages; found $free GiB in $(pwd)."
    [ -x .venv/bin/python ] || "$python" -m venv .venv ||
        fail "$python could not make a virtual environment (on Debian and Ubuntu: apt-get install python3-venv)."
    probe=$(mktemp -d)
    trap 'rm -rf "$probe"' EXIT
    .venv/bin/python -m pip download -q --disable-pip-version-check --retries 1 --timeout 20 --no-deps --no-cache-dir \
        -d "$probe" "$(grep '^PyYAML==' requirements.lock)" >"$probe/log" 2>&1 ||
        fail "the package index can't be reached ($(grep -v '^WARNING' "$probe/log" | tail -n 1)). Check the network, or set PIP_INDEX_URL."
    echo "installing the packages of requirements.lock into .venv (some minutes) ..."
    .venv/bin/python -m pip install -q --disable-pip-version-check 'setuptools>=77' wheel
    .venv/bin/python -m pip install -q --disable-pip-version-check -c requirements.lock --no-build-isolation \
        -e '.[study,dev,ray]'
    echo "$wanted" >.venv/.installed
fi

# An unpacked archive has no repository, and DVC's experiments need one.
if [ "$(git rev-parse --show-toplevel 2>/dev/null || true)" != "$(pwd -P)" ]; then
    echo "no git repository here: making one, so that DVC can keep experiments"
    git init -q .
    git add -A
    git -c user.name=lrstudy -c user.email=lrstudy@localhost commit -q -m "The unpacked archive"
fi

# DVC remembers files' hashes in /var/tmp/dvc, which every user of the machine may write to, and unpickles what it
# finds there (docs/security.md). Here it gets a folder that nobody else can enter.
if ! grep -qs site_cache_dir .dvc/config.local; then
    private=${XDG_CACHE_HOME:-${HOME:-$(pwd -P)/.dvc/tmp}/.cache}/lrstudy/dvc
    mkdir -p "$private"
    chmod 700 "$private"
    .venv/bin/dvc config --local core.site_cache_dir "$private"
fi
[ "$ready" = 1 ] || echo "ready: . .venv/bin/activate"
