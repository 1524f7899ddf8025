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
.venv/bin/python -m build --no-isolation --outdir dist . >/dev/null
$twine/bin/twine check --strict dist/*
