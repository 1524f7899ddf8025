#!/bin/sh
# Builds the sdist, and from it the wheel, into dist/, and has twine check what an index would show of them.
set -eu
cd "$(dirname "$0")/.."

# In an environment of its own: `make lock` writes down what is installed in .venv.
twine=.venv/twine
[ -x $twine/bin/twine ] ||
    { .venv/bin/python -m venv $twine && $twine/bin/python -m pip install -q --disable-pip-version-check twine==7.0.0; } || {
    rm -rf $twine
    echo "error: twine could not be installed; nothing was checked. Check the network, or set PIP_INDEX_URL." >&2
    exit 1
}
rm -rf dist
said=$(mktemp)
trap 'rm -f "$said"' EXIT
.venv/bin/python -m build --no-isolation --outdir dist . >"$said" 2>&1 || { cat "$said" >&2; exit 1; }
$twine/bin/twine check --strict dist/*
