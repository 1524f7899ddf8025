"""`make doctor`: in a workspace with one thing wrong, that thing is named with the way to fix it."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from composed import composed_params
from described import shipped
from hub_server import hub_server
from lrstudy import doctor
from lrstudy.compose import compose
from lrstudy.data.records import Source
from lrstudy.tracking.journal import Journal
from test_tracking import LOGIN, SECRETS

ROOT = Path(__file__).parents[1]
GIB = 2**30


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A repository with a commit, the project's conf/, and its params.yaml for the sample."""
    folder = tmp_path_factory.mktemp("template")
    for name in ("conf", ".dvc"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("tmp", "cache", "*.local"))
    shutil.copytree(ROOT / "hydra_plugins", folder / "hydra_plugins")
    shutil.copy(ROOT / "requirements.lock", folder)
    config = folder / "conf/config.yaml"
    config.write_text(config.read_text().replace("data: hub", "data: sample"))
    preset = folder / "conf/preset/cpu.yaml"
    enough = f"  seeds: {list(range(1, 11))}"  # so many that the design decides something
    preset.write_text(
        re.sub(r"(?<=^train:\n)  seeds: \[.*?\]", enough, preset.read_text(), flags=re.MULTILINE)
    )
    compose(folder, folder / "params.yaml", [])
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "first")):
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        subprocess.run(["git", *who, *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def workspace(template, tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "workspace"
    shutil.copytree(template, folder)
    for name in [n for n in os.environ if n.startswith(("LRSTUDY_", "MLFLOW_", "DVC_", "RAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "prefix", str(folder / ".venv"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / ".dvc/tmp/site"))
    return folder


def subject(name: str, root: Path) -> list[doctor.Finding]:
    return list({check.__name__: check for check in doctor.CHECKS}[f"check_{name}"](root))


def command(root: Path, option: str = "-q", **variables: str) -> subprocess.CompletedProcess:
    """``python -m lrstudy.doctor`` as it is typed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | variables
    line = [sys.executable, option, "-m", "lrstudy.doctor"]
    return subprocess.run(line, cwd=root, env=environment, capture_output=True, text=True)


def edit(path: str, old: str, new: str) -> Callable:
    def change(folder: Path, _) -> None:
        file = folder / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


def put(path: str, content: str) -> Callable:
    def change(folder: Path, _) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)

    return change


def setting(**variables: str) -> Callable:
    def change(_, monkeypatch) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return change


def compose_with(*overrides: str) -> Callable:
    def change(folder: Path, _) -> None:
        (folder / "params.yaml").write_text(yaml.safe_dump(composed_params("data=sample", *overrides)))

    return change


def old_python(_, monkeypatch) -> None:
    info = namedtuple("version_info", "major minor micro releaselevel serial")
    monkeypatch.setattr(sys, "version_info", info(3, 10, 1, "final", 0))


def little_memory(_, monkeypatch) -> None:
    memory = namedtuple("memory", "total available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(8 * GIB, 2 * GIB))
    monkeypatch.setenv("LRSTUDY_WORKERS", "4")


def full_disk(_, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100 * GIB, 99 * GIB, GIB))


def read_only(_, monkeypatch) -> None:
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)


def on_nfs(folder: Path, monkeypatch) -> None:
    mount = namedtuple("mount", "mountpoint fstype")
    monkeypatch.setattr(
        psutil, "disk_partitions", lambda all: [mount("/", "ext4"), mount(str(folder), "nfs4")]
    )


def no_repository(folder: Path, _) -> None:
    shutil.rmtree(folder / ".git")


def no_commit(folder: Path, _) -> None:
    shutil.rmtree(folder / ".git")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def dvc_at_work(folder: Path, _) -> None:
    held = {"read": {}, "write": {"/a": {"pid": os.getpid(), "cmd": "dvc repro"}}}
    put(".dvc/tmp/rwlock", json.dumps(held))(folder, _)


def open_cache(folder: Path, monkeypatch) -> None:
    (folder / "site").mkdir()
    (folder / "site").chmod(0o777)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))


def other_data(folder: Path, _) -> None:
    raw = folder / "data/raw/imdb"
    raw.mkdir(parents=True)
    files = {split: {"sha256": "0" * 64, "bytes": 0, "rows": 2} for split in ("train", "test")}
    for split in files:
        (raw / f"{split}.parquet").touch()
    layout = {"kind": "text", "columns": {"input": "text", "label": "label"}, "class_names": ["neg", "pos"]}
    Source(
        dataset="imdb",
        source="hub",
        official=True,
        label="IMDB",
        encoding="utf-8",
        revision=None,
        layout=layout,
        files=files,
    ).write(raw / "source.json")


def held_database(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "_SECONDS", 0)
    holder = sqlite3.connect(folder / "mlflow.db")
    holder.execute("CREATE TABLE t (a)")
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(doctor, "holder", holder, raising=False)  # held until the test ends


def journal_waits(folder: Path, _) -> None:
    Journal(folder / "checkpoints/lstm-static/a", "a").create("lstm-static", {})


CASES = [
    ("python", old_python, "problem", "3.11", "install 3.11 or later"),
    ("python", lambda f, m: m.setattr(sys, "prefix", "/usr"), "note", "not ", "make setup makes it"),
    ("packages", put("requirements.lock", "nosuchpackage==1.0\n"), "problem", "1 of 1 are missing: nosuchpackage", "make setup"),
    ("packages", put("requirements.lock", "torch==1.0\n"), "note", "(locked: 1.0)", "make setup"),
    ("variables", setting(LRSTUDY_WORKER="2"), "problem", "LRSTUDY_WORKER is none", "meant LRSTUDY_WORKERS?"),
    ("processors", setting(LRSTUDY_WORKERS="none"), "problem", "found 'none'", "unset LRSTUDY_WORKERS"),
    ("processors", little_memory, "note", "2.0 GiB free of 8.0", "LRSTUDY_WORKERS=1"),
    ("device", compose_with("train.device=cuda"), "problem", "'cuda' is not available", "train.device=auto"),
    ("disk", full_disk, "problem", "1.0 GiB free", "free some"),
    ("disk", read_only, "problem", "Permission denied", "make it writable"),
    ("disk", on_nfs, "note", "is on nfs4", "docs/cluster.md"),
    ("git", lambda f, m: m.setenv("PATH", ""), "problem", "not found", "install git"),
    ("git", no_repository, "problem", "is not a repository's root", "make setup"),
    ("git", no_commit, "problem", "has no commit", "git commit"),
    ("dvc", edit(".dvc/config", "enabled = true", "enabled = false"), "problem", "hydra.enabled is off", "dvc config hydra.enabled true"),
    ("dvc", put(".dvc/config", "[hydra]\nenabled = perhaps\n"), "problem", "expected true or false", "git checkout .dvc/config"),
    ("dvc", lambda f, m: (f / ".dvc/config").unlink(), "problem", "is not there", "git checkout .dvc/config"),
    ("dvc", put("dvc.lock", "<<<<<<< HEAD\n"), "problem", "marks of a merge", "dvc repro"),
    ("dvc", dvc_at_work, "note", "at work here: process ", "until it ends"),
    ("dvc", open_cache, "note", "where others may write", "make setup"),
    ("config", edit("params.yaml", "threads: 1", "threads: 0"), "problem", "train.threads: found 0", "make params"),
    ("config", edit("conf/config.yaml", "preset: ", "preset: no"), "problem", "it gives no params.yaml", "git diff conf"),
    ("config", compose_with("preset=smoke"), "note", "another params.yaml", "make params"),
    ("data", other_data, "note", "imdb: here is IMDB, and params.yaml has data.source sample", "dvc repro download@imdb"),
    ("mlflow", put("mlflow.db", "no database at all, and long enough to be looked at as one" * 10), "problem", "not a database", "move mlflow.db away"),
    ("mlflow", held_database, "problem", "locked", "wait for whoever writes to it"),
    ("mlflow", setting(MLFLOW_TRACKING_URI=f"http://{LOGIN}127.0.0.1:1"), "problem", "http://127.0.0.1:1: ", "make sync"),
    ("mlflow", journal_waits, "note", "wait in the journals of checkpoints/: 1", "make sync"),
    ("optuna", setting(LRSTUDY_OPTUNA_STORAGE=f"postgresql+psycopg://{LOGIN}127.0.0.1:1/db"), "problem", "127.0.0.1:1/db: ", "unset it"),
    ("ray", compose_with("parallel=ray"), "problem", "RAY_ADDRESS names none", "ray start --head"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "status", "found", "fix"), CASES)
def test_what_is_wrong_is_named_with_the_way_to_mend_it(
    workspace, monkeypatch, name, change, status, found, fix
):
    change(workspace, monkeypatch)
    findings = [f for f in subject(name, workspace) if f.status != "ok"]
    assert len(findings) == 1
    said = findings[0]
    assert said.status == status
    assert found in said.found
    assert fix in said.fix
    assert not [secret for secret in SECRETS if secret in said.found + said.fix]


@pytest.mark.slow
def test_where_nothing_is_wrong_nothing_is_said(workspace):
    before = {
        path: path.read_bytes()
        for path in workspace.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }
    found = list(doctor.examine(workspace))
    assert [finding for finding in found if finding.status != "ok"] == []
    assert len({finding.subject for finding in found}) >= 10
    after = {
        path: path.read_bytes()
        for path in workspace.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }
    assert after == before


def test_a_driver_that_torch_cannot_use_is_a_problem(workspace, monkeypatch):
    monkeypatch.setattr("lrstudy.process.parallel.has_accelerator", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    [finding] = subject("device", workspace)
    assert (finding.status, "torch cannot use it" in finding.found) == ("problem", True)


def test_a_mirror_is_looked_into(workspace, monkeypatch, tmp_path):
    compose_with("data=hub", "model=lstm")(workspace, None)
    monkeypatch.setenv("LRSTUDY_DATA_MIRROR", str(tmp_path))
    [finding] = subject("data", workspace)
    assert (finding.status, finding.found) == (
        "problem", f"imdb: {tmp_path}/stanfordnlp/imdb/plain_text/train-00000-of-00001.parquet is not there"
    )  # fmt: skip
    for split in ("train", "test"):
        origin = shipped("imdb").origin
        path = tmp_path / origin.repo / origin.files[split][0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [f.status for f in subject("data", workspace)] == ["ok"]


@pytest.mark.slow
def test_the_hub_is_asked_and_not_downloaded(workspace):
    compose_with("data=hub", "model=lstm")(workspace, None)
    origin = shipped("imdb").origin
    with hub_server() as server:
        server.add(origin.repo, origin.revision, origin.files["train"][0], b"parquet")
        done = command(workspace, HF_ENDPOINT=server.url)
        assert f"  ok  data        imdb: {server.url}/datasets/stanfordnlp/imdb/" in done.stdout
        asked = {(method, path.rpartition("/")[2]) for method, path, _ in server.requests}
        assert ("GET", "train-00000-of-00001.parquet") not in asked
        server.status = 500
        done = command(workspace, HF_ENDPOINT=server.url)
    assert done.returncode == 1
    assert f" FAIL data        imdb: {server.url}/datasets/stanfordnlp/imdb/" in done.stdout
    assert "-> export LRSTUDY_DATA_MIRROR=" in done.stdout


def test_a_config_that_cannot_be_read_is_told_once(workspace):
    (workspace / "params.yaml").write_text("data: {}\n")
    found = [finding for finding in doctor.examine(workspace) if finding.status != "ok"]
    assert [f.subject for f in found if f.status == "problem"] == ["config"]
    assert [f.subject for f in found if "params.yaml cannot be read" in f.found] == [
        "processors", "device", "design", "data", "ray"
    ]  # fmt: skip


def test_a_check_that_breaks_is_a_finding_and_stops_no_other(workspace, monkeypatch):
    def check_luck(_):
        raise RuntimeError("none left")

    monkeypatch.setattr(doctor, "CHECKS", (check_luck, doctor.check_git))
    found = list(doctor.examine(workspace))
    assert [f.status for f in found] == ["problem", "ok"]
    assert found[0].found == "not looked at: RuntimeError: none left"


def test_the_names_of_variables_are_those_that_the_project_reads():
    import re

    texts = [
        path.read_text()
        for folder in ("src", "tests", "scripts")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".sh")
    ]
    read = {
        name for text in texts for name in re.findall(r"""environ[^\n]{0,8}["'](LRSTUDY_[A-Z_]+)["']""", text)
    }
    assert read == doctor.VARIABLES.keys()


@pytest.mark.slow
@pytest.mark.parametrize(("option", "status", "said"), [("-q", 0, " notes\n"), ("-S", 1, "are missing: ")])
def test_the_command_says_it_all_and_fails_where_a_study_would(workspace, option, status, said):
    """``-S`` is Python without a single package."""
    done = command(workspace, option)
    assert done.returncode == status, done.stdout
    assert said in done.stdout
    assert done.stderr == ""
