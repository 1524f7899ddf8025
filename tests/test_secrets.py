"""Passwords in addresses reach the servers that they are for, and nothing else."""

import gzip
import json
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from lrstudy.process.exits import exit_status
from lrstudy.stages import train, tune
from test_tracking import LOGIN, SECRETS, TrackingServer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A workspace in which a cell can be tuned and trained."""
    from faults import MODEL, SCHEDULE, make_template

    monkeypatch.setattr("faults.Stage.run", lambda self: self.main() or 0)  # here, not in a fork
    for name in [n for n in os.environ if n.startswith(("LRSTUDY_", "MLFLOW_", "DVC_"))]:
        monkeypatch.delenv(name)
    folder = make_template(tmp_path / "workspace")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LRSTUDY_WORKERS", "1")
    monkeypatch.setattr(sys, "argv", ["stage", MODEL, SCHEDULE])
    return folder


def written(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, as a reader of it sees it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): gzip.decompress(content) if path.suffix == ".gz" else content
        for path in files
        for content in [path.read_bytes()]
    }


def with_secrets(found: dict[str, bytes]) -> list[tuple[str, str]]:
    return [(name, s) for name, content in found.items() for s in SECRETS if s.encode() in content]


def test_a_cell_trained_with_a_server_that_wants_a_password_leaves_it_nowhere(workspace, monkeypatch, capfd):
    with TrackingServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri(LOGIN))
        monkeypatch.setenv("HF_TOKEN", "hf_s3cr")
        assert exit_status(train.main) == 0
        server.shutdown()
        thread.join()
    assert any(login and login.startswith("Basic ") for login in server.logins)
    told = json.dumps(server.told)
    assert "runs/create" in told
    assert "log-batch" in told
    said = "".join(capfd.readouterr())
    found = written(workspace) | {"told": told.encode(), "said": said.encode()}
    assert len([name for name in found if name.endswith("journal.jsonl")]) == 3
    assert len([name for name in found if name.startswith("ledger/trainings/")]) == 2
    assert with_secrets(found) == []


def test_a_database_of_trials_that_cannot_be_opened_is_named_without_its_password(
    workspace, monkeypatch, capfd
):
    shutil.rmtree(workspace / "artifacts/tuned")
    monkeypatch.setenv("LRSTUDY_OPTUNA_STORAGE", f"postgresql+psycopg2://{LOGIN}127.0.0.1:1/db?password=s3cr")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{LOGIN}127.0.0.1:1")
    assert exit_status(tune.main) == 2
    said = capfd.readouterr().err
    assert "Optuna's database postgresql+psycopg2://127.0.0.1:1/db cannot be opened" in said
    assert with_secrets(written(workspace) | {"said": said.encode()}) == []
