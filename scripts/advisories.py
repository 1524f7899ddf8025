"""Known vulnerabilities of locked packages, without a network.

    python scripts/advisories.py all.zip LOCK [ANSWERED ...]

``all.zip`` is OSV's export of PyPI's advisories (https://google.github.io/osv.dev/data/), brought by hand.
Prints every advisory that applies to a locked version. Exit status 1 if one is not among ANSWERED (ids or
aliases), 2 if nothing could be looked up.
"""

import json
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


def locked(path: Path) -> dict[str, Version]:
    """The versions of a lock file by canonical name."""
    found = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith(("#", "-")):
            requirement = Requirement(line.partition(" #")[0])
            [pin] = requirement.specifier
            found[canonicalize_name(requirement.name)] = Version(pin.version)
    return found


def advisories(path: Path) -> Iterator[dict]:
    """The records of an export that were not withdrawn."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                record = json.loads(archive.read(name))
                if "withdrawn" not in record:
                    yield record


def is_affected(version: Version, affected: dict) -> bool:
    """Whether an ``affected`` entry names the version or has it in a range (OSV's schema, "Evaluation").

    A range is a list of events in order: from ``introduced`` (included) to ``fixed`` (excluded) or
    ``last_affected`` (included).
    """
    if any(version == known for known in map(_version, affected.get("versions", [])) if known):
        return True
    for span in affected.get("ranges", []):
        inside = False
        for event in span["events"] if span["type"] == "ECOSYSTEM" else []:
            [(kind, at)] = event.items()
            bound = _version(at)
            if kind == "introduced" and (at == "0" or (bound and version >= bound)):
                inside = True
            elif bound and (
                (kind == "fixed" and version >= bound) or (kind == "last_affected" and version > bound)
            ):
                inside = False
        if inside:
            return True
    return False


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:  # advisories of old packages have such
        return None


def main(export: str, lock: str, answered: Iterable[str]) -> int:
    try:
        versions, known = locked(Path(lock)), list(advisories(Path(export)))
    except (OSError, zipfile.BadZipFile, ValueError, InvalidRequirement) as error:
        print(
            f"error: {export} and {lock} cannot be compared ({error}); nothing was audited.", file=sys.stderr
        )
        return 2
    by_package = defaultdict(list)
    for record in known:
        for entry in record.get("affected", []):
            package = entry.get("package", {})
            if package.get("ecosystem") == "PyPI":
                by_package[canonicalize_name(package["name"])].append((record, entry))
    if not by_package:
        print(f"error: {export} has no advisory of a PyPI package; nothing was audited.", file=sys.stderr)
        return 2
    found: dict[tuple[str, str], dict] = {}
    for name, version in versions.items():
        for record, entry in by_package[name]:
            if is_affected(version, entry):
                found[name, record["id"]] = record
    answered, open_ones = set(answered), 0
    for (name, identifier), record in sorted(found.items()):
        ids = [identifier, *record.get("aliases", [])]
        known_answer = bool(answered.intersection(ids))
        open_ones += not known_answer
        note = "answered in docs/security.md" if known_answer else record.get("summary", "")
        print(f"{name} {versions[name]}: {', '.join(ids)}: {note}")
    newest = max(record["modified"] for record in known)
    print(
        f"{len(versions)} packages against {len(known)} advisories, the newest of {newest[:10]}: "
        f"{len(found)} apply, {open_ones} of them without an answer"
    )
    return int(open_ones > 0)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
