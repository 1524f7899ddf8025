"""The audit without a network: advisories in OSV's form against a lock file, by the real command."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def advisory(name: str = "some_package", versions=(), events=(), **fields) -> dict:
    entry = {"package": {"ecosystem": "PyPI", "name": name}, "versions": list(versions)}
    if events:
        entry["ranges"] = [{"type": "ECOSYSTEM", "events": list(events)}]
    record = {"id": "PYSEC-2026-1", "modified": "2026-11-01T00:00:00Z", "summary": "It burns."}
    return record | {"affected": [entry]} | fields


def audit(
    folder: Path, *records: dict, lock: str = "Some.Package==2.1\n", answered=()
) -> subprocess.CompletedProcess:
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for number, record in enumerate(records):
            archive.writestr(f"{number}.json", json.dumps(record))
    (folder / "lock").write_text(lock)
    command = [sys.executable, str(ROOT / "scripts/advisories.py"), "all.zip", "lock", *answered]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


FROM_2, FIXED_22, LAST_21 = {"introduced": "2.0"}, {"fixed": "2.2"}, {"last_affected": "2.1"}


@pytest.mark.parametrize(
    ("versions", "events", "applies"),
    [
        (["2.0", "2.1"], [], True),
        (["2.1.0"], [], True),  # the same version in other words
        (["2.0", "2.2", "of old"], [], False),
        ([], [{"introduced": "0"}], True),
        ([], [FROM_2, FIXED_22], True),
        ([], [FROM_2, {"fixed": "2.1"}], False),
        ([], [{"introduced": "2.1"}, FIXED_22], True),
        ([], [{"introduced": "2.2"}], False),
        ([], [FROM_2, LAST_21], True),
        ([], [{"introduced": "1"}, {"last_affected": "2.0"}], False),
        ([], [{"introduced": "0"}, {"fixed": "1"}, FROM_2, FIXED_22], True),
        ([], [{"introduced": "0"}, {"fixed": "1"}, {"introduced": "3"}], False),
    ],
)  # fmt: skip
def test_an_advisory_applies_to_the_versions_that_it_names(tmp_path, versions, events, applies):
    done = audit(tmp_path, advisory(versions=versions, events=events))
    assert done.returncode == int(applies), done.stdout
    assert ("some-package 2.1: PYSEC-2026-1: It burns." in done.stdout) == applies
    assert f"1 packages against 1 advisories, the newest of 2026-11-01: {int(applies)} apply" in done.stdout


def test_what_is_answered_is_shown_and_fails_nothing(tmp_path):
    record = advisory(versions=["2.1"], aliases=["CVE-2026-1"])
    done = audit(tmp_path, record, answered=["CVE-2026-1"])
    assert done.returncode == 0
    assert "some-package 2.1: PYSEC-2026-1, CVE-2026-1: answered in docs/security.md" in done.stdout
    assert audit(tmp_path, record, answered=["CVE-2026-2"]).returncode == 1


def test_withdrawn_ones_and_other_packages_do_not_count(tmp_path):
    withdrawn = advisory(versions=["2.1"], withdrawn="2026-11-02T00:00:00Z")
    other = advisory("another", versions=["2.1"])
    done = audit(tmp_path, withdrawn, other)
    assert (done.returncode, "against 1 advisories" in done.stdout) == (0, True)


@pytest.mark.parametrize("content", [None, b"no archive", "empty"])
def test_silence_is_not_a_finding(tmp_path, content):
    done = audit(tmp_path)
    if content is None:
        (tmp_path / "all.zip").unlink()
    elif content != "empty":
        (tmp_path / "all.zip").write_bytes(content)
    command = [sys.executable, str(ROOT / "scripts/advisories.py"), "all.zip", "lock"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nothing was audited" in done.stderr


def test_the_projects_own_lock_can_be_audited(tmp_path):
    lock = (ROOT / "requirements.lock").read_text()
    done = audit(tmp_path, advisory("torch", events=[{"introduced": "0"}]), lock=lock)
    assert done.returncode == 1
    assert done.stdout.startswith("torch 2.14.1: ")
