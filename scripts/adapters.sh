#!/bin/sh
# Runs the examples of docs/adapters.md. The libraries that they are for lie in an environment of their own, so that `make
# lock` does not write them down; torch is .venv's.
set -eu
cd "$(dirname "$0")/.."

environment=.venv/adapters
[ -f "$environment/installed" ] || {
    .venv/bin/python -m venv "$environment"
    .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
        >"$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/study.pth"
    "$environment/bin/python" -m pip install -q --disable-pip-version-check \
        lightning==2.6.6 transformers==5.24.0 accelerate==1.15.0 keras==3.15.1 jax==0.10.2 optax==0.2.8
    touch "$environment/installed"
}
"$environment/bin/python" -m pytest tests/test_adapters.py -rs
