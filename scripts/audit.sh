#!/bin/sh
# Asks PyPI's advisory service about every version in requirements.lock. docs/security.md answers what it finds.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "error: $1" >&2; exit 1; }

# In an environment of its own: `make lock` writes down what is installed in .venv.
audit=.venv/audit
[ -x $audit/bin/pip-audit ] ||
    { python -m venv $audit && $audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1; } ||
    fail "pip-audit could not be installed; nothing was audited."
probe=$(grep '^PyYAML==' requirements.lock | tr -d ' ')
python - "${probe#*==}" <<'PROBE' || fail "the advisory service can't be reached; nothing was audited. It needs https://pypi.org."
import json
import sys
import urllib.request

url = f"https://pypi.org/pypi/PyYAML/{sys.argv[1]}/json"
try:
    with urllib.request.urlopen(url, timeout=20) as answer:
        json.load(answer)["vulnerabilities"]
except (OSError, ValueError, KeyError) as error:
    print(f"{url}: {error!r}", file=sys.stderr)
    sys.exit(1)
PROBE
# Nothing is resolved or installed. Without --strict, a package that the service does not know counts as sound.
$audit/bin/pip-audit --requirement "${1:-requirements.lock}" --no-deps --disable-pip --strict --progress-spinner off
