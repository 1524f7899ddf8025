#!/bin/sh
# The adapter for torch, the finder and the schedules with other versions of torch, each in an environment of its own:
# TORCH='2.5.1 2.13.0' compat.sh. Each is gigabytes, and not part of `make test`.
set -eu
cd "$(dirname "$0")/.."

others=$(mktemp)
trap 'rm -f "$others"' EXIT
grep -vE '^(torch|torchvision|triton|nvidia-|cuda-|setuptools)' requirements.lock >"$others"
for version in ${TORCH:-2.5.1 2.13.0}; do
    environment=.venv/torch-$version
    [ -x "$environment/bin/pytest" ] || {
        .venv/bin/python -m venv "$environment"
        "$environment/bin/python" -m pip install -q --disable-pip-version-check -c "$others" "torch==$version" \
            numpy matplotlib pytest hypothesis PyYAML hydra-core omegaconf pydantic
    }
    echo "torch $("$environment/bin/python" -c 'import torch; print(torch.__version__)')"
    # The rows of conf/ need DVC, and no torch.
    PYTHONPATH=src "$environment/bin/python" -m pytest -o addopts= -q -p no:cacheprovider \
        tests/test_schedules.py tests/test_lr_finder.py -k "not TestRows"
done
