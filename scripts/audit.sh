#!/bin/sh
# Known vulnerabilities of the versions in requirements.lock: audit.sh [LOCK]
# Asks PyPI's advisory service, or looks into ADVISORIES, OSV's export of PyPI (all.zip), where there is no network.
# What docs/security.md names is answered and does not fail the audit.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "error: $1" >&2; exit 1; }

lock=${1:-requirements.lock}
answered=$(grep -oE '(CVE|PYSEC)-[0-9]+-[0-9]+|GHSA(-[0-9a-z]{4}){3}' docs/security.md | sort -u)
if [ -n "${ADVISORIES:-}" ]; then
    # shellcheck disable=SC2086
    exec python scripts/advisories.py "$ADVISORIES" "$lock" $answered
fi

# In an environment of its own: `make lock` writes down what is installed in .venv.
audit=.venv/audit
[ -x $audit/bin/pip-audit ] ||
    { python -m venv $audit && $audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1; } ||
    fail "pip-audit could not be installed; nothing was audited."
probe=$(grep '^PyYAML==' requirements.lock | tr -d ' ')
python - "${probe#*==}" <<'PROBE' || fail "the advisory service can't be reached; nothing was audited. It needs https://pypi.org; without: make audit ADVISORIES=all.zip (docs/security.md)."
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
ignored=$(for id in $answered; do echo "--ignore-vuln $id"; done)
# shellcheck disable=SC2086
$audit/bin/pip-audit --requirement "$lock" --no-deps --disable-pip --strict --progress-spinner off $ignored
