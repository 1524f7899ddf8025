"""Is everything here that a study needs? python -m lrstudy.doctor (``make doctor``).

Prints a line per thing looked at, and under what is wrong how to fix it. Exit status 1 if something would
stop a study, 0 if not. Changes nothing, and runs without a single package installed: that is one of the
things it finds out.
"""

from __future__ import annotations  # an old Python shall get as far as the finding that it is one

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrstudy.recipe.config import Params

MARKS = {"ok": "  ok  ", "note": " note ", "problem": " FAIL "}
VARIABLES = {
    "LRSTUDY_BROWSER": "required: the browser's tests fail without one, where they would be skipped",
    "LRSTUDY_CONF": "a folder of your own laid out as conf/, whose files can be chosen, too",
    "LRSTUDY_DATA_MIRROR": "a folder laid out as the hub, to use in its place",
    "LRSTUDY_OPTUNA_STORAGE": "the database of trials",
    "LRSTUDY_PEERS": "required: comparisons with other libraries fail without these",
    "LRSTUDY_WARM": "0: no process is kept between stages",
    "LRSTUDY_WORKERS": "trainings at a time",
}

_PYTHON = (3, 11)
_GIB = 2**30
_WORKER_GIB = 2.5  # what the Transformer took in a whole epoch (notes/log.md), the most that was seen
_DISK_GIB = 3  # both data sets raw, in DVC's cache and processed, and a study's models and databases
_SECONDS = 10  # to wait for a server
_NETWORK_FILESYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "lustre", "9p", "afs"}


@dataclass(frozen=True)
class Finding:
    """What was found of one thing: ``status`` is ok, note (worth knowing) or problem; ``fix`` says how."""

    subject: str
    status: str
    found: str
    fix: str = ""


Check = Callable[[Path], Iterator[Finding]]


def examine(root: Path) -> Iterator[Finding]:
    """Look at everything, for the workspace ``root``; a check that breaks is a finding too."""
    for check in CHECKS:
        subject = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            yield from check(root)
        except ImportError as error:
            yield Finding(subject, "problem", f"not looked at: {error}", "make setup")
        except _NoParams:
            yield Finding(subject, "note", "not looked at: params.yaml cannot be read")
        except Exception as error:  # whatever it is, the other checks go on and it is not lost
            what = str(error).strip().splitlines() or [""]
            yield Finding(subject, "problem", f"not looked at: {type(error).__name__}: {what[0]}")


class _NoParams(Exception):
    """params.yaml cannot be read, which is a finding of :func:`check_config`."""


def _params(root: Path) -> Params:
    from lrstudy.errors import StudyError
    from lrstudy.recipe.config import load_params

    try:
        return load_params(root / "params.yaml")
    except StudyError:
        raise _NoParams from None


def check_python(root: Path) -> Iterator[Finding]:
    """The interpreter's version, and whose it is."""
    found = f"{sys.version.split()[0]} ({sys.executable})"
    if sys.version_info < _PYTHON:
        wanted = ".".join(map(str, _PYTHON))
        yield Finding("python", "problem", found, f"install {wanted} or later; make setup PYTHON=/path/to/it")
    elif Path(sys.prefix).resolve() != (root / ".venv").resolve():
        fix = "make doctor uses .venv, as every target does; make setup makes it"
        yield Finding("python", "note", f"{found}, not {root / '.venv'}", fix)
    else:
        yield Finding("python", "ok", found)


def check_packages(root: Path) -> Iterator[Finding]:
    """What is installed against requirements.lock."""
    from importlib.metadata import PackageNotFoundError, version

    lines = (root / "requirements.lock").read_text().splitlines()
    missing, others = [], []
    for line in lines:
        name, equal, wanted = line.partition(";")[0].strip().partition("==")
        if not equal or name.startswith("#"):
            continue
        try:
            found = version(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        if found.partition("+")[0] != wanted.partition("+")[0]:  # +cpu and +cu128 are builds of one version
            others.append(f"{name} {found} (locked: {wanted})")
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        fix = "rm -f .venv/.installed; make setup"
        yield Finding("packages", "problem", f"{len(missing)} of {len(lines)} are missing: {some}", fix)
    if others:
        fix = "results may differ from other versions'; rm -f .venv/.installed; make setup"
        some = "; ".join(others[:3]) + ("; ..." if len(others) > 3 else "")
        yield Finding("packages", "note", f"{len(others)} have another version: {some}", fix)
    if not (missing or others):
        yield Finding("packages", "ok", f"the {len(lines)} of requirements.lock")


def check_variables(root: Path) -> Iterator[Finding]:
    """Names of this project's variables: one with a typo would be ignored without a word."""
    import difflib

    there = sorted(name for name in os.environ if name.startswith("LRSTUDY_"))
    for name in there:
        if name not in VARIABLES:
            near = difflib.get_close_matches(name, VARIABLES, n=1)
            fix = f"unset it; there are {', '.join(VARIABLES)}" + (f" (meant {near[0]}?)" if near else "")
            yield Finding("variables", "problem", f"{name} is none of this project's", fix)
    if known := [name for name in there if name in VARIABLES]:
        yield Finding("variables", "ok", ", ".join(known))


def check_config(root: Path) -> Iterator[Finding]:
    """params.yaml: valid, every cell can be made, and what conf/ would give."""
    from lrstudy.compose import compose
    from lrstudy.errors import StudyError
    from lrstudy.recipe.cells import make_cell
    from lrstudy.recipe.config import load_params

    try:
        params = load_params(root / "params.yaml")
        for cell in params.cells.values():
            make_cell(params, cell.model, cell.schedule)
    except StudyError as error:
        yield Finding("config", "problem", str(error), "correct it in conf/ and run make params")
        return
    yield Finding("config", "ok", f"params.yaml: preset {params.preset}, {len(params.cells)} cells")
    try:
        with tempfile.TemporaryDirectory() as folder:
            composed = Path(folder) / "params.yaml"
            compose(root, composed, [])
            same = load_params(composed) == params
    except StudyError as error:
        yield Finding("conf/", "problem", f"it gives no params.yaml: {error}", "correct it; git diff conf")
        return
    if same:
        yield Finding("conf/", "ok", "Hydra composes it to params.yaml")
    else:
        found = "Hydra composes it to another params.yaml (the last run had -S, or conf/ was edited)"
        fix = "make params for dvc repro with conf/'s values; dvc exp run composes by itself"
        yield Finding("conf/", "note", found, fix)


def check_design(root: Path) -> Iterator[Finding]:
    """Whether the study can decide anything: better known before it trains."""
    from lrstudy.design import verdict

    decides, line = verdict(_params(root))
    fix = "python -m lrstudy.design says what each claim needs; a look at the pipeline needs none of it"
    yield Finding("design", "ok", line) if decides else Finding("design", "note", line, fix)


def check_processors(root: Path) -> Iterator[Finding]:
    """How many trainings run at a time, and whether the memory is enough for them."""
    import psutil

    from lrstudy.errors import StudyError
    from lrstudy.process.parallel import num_workers

    train = _params(root).train
    try:
        workers = num_workers(train.threads, train.device)
    except StudyError as error:
        yield Finding("processors", "problem", str(error), "unset LRSTUDY_WORKERS, or correct it")
        return
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"{usable} usable, {workers} trainings at a time, threads of each: {train.threads}"
    yield Finding("processors", "ok", found)
    memory = psutil.virtual_memory()
    needed = workers * _WORKER_GIB
    found = f"{memory.available / _GIB:.1f} GiB free of {memory.total / _GIB:.1f}"
    if memory.available < needed * _GIB:
        fewer = max(1, int(memory.available / _GIB / _WORKER_GIB))
        fix = f"{workers} trainings may take {needed:.1f} GiB; export LRSTUDY_WORKERS={fewer}, or free some"
        yield Finding("memory", "note" if fewer < workers else "problem", found, fix)
    else:
        yield Finding("memory", "ok", found)


def check_device(root: Path) -> Iterator[Finding]:
    """What torch computes on, and in which precision."""
    import torch

    from lrstudy.errors import StudyError
    from lrstudy.process.parallel import has_accelerator
    from lrstudy.training.devices import choose_device, choose_dtype

    name = _params(root).train.device
    try:
        device = choose_device(name)
    except StudyError as error:
        yield Finding("device", "problem", str(error), "-S train.device=auto")
        return
    precision = str(choose_dtype("auto", device)).removeprefix("torch.")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    found = f"{where}, {precision} where precision is auto (torch {torch.__version__})"
    if device.type == "cpu" and has_accelerator():
        fix = "install the driver and the build of torch that fit each other (pytorch.org/get-started)"
        yield Finding("device", "problem", f"{found}: a driver is there, and torch cannot use it", fix)
    else:
        yield Finding("device", "ok", found)


def check_disk(root: Path) -> Iterator[Finding]:
    """Whether the workspace takes files, how many, and whether databases are safe on it."""
    free = shutil.disk_usage(root).free / _GIB
    try:
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        fix = "make it writable for this user, or use a clone that is"
        yield Finding("disk", "problem", f"{root}: {error.strerror}", fix)
        return
    if free < _DISK_GIB:
        fix = f"a study with its data takes {_DISK_GIB} GiB; free some (dvc gc -w: what is not in use)"
        yield Finding("disk", "problem", f"{free:.1f} GiB free", fix)
    else:
        yield Finding("disk", "ok", f"{free:.1f} GiB free")
    kind = _filesystem(root)
    addresses = (
        os.environ.get(name, "sqlite:") for name in ("MLFLOW_TRACKING_URI", "LRSTUDY_OPTUNA_STORAGE")
    )
    if kind in _NETWORK_FILESYSTEMS and any(address.startswith("sqlite:") for address in addresses):
        fix = "several machines on one SQLite file there can damage it: use servers (docs/cluster.md)"
        yield Finding("disk", "note", f"{root} is on {kind}, and databases are SQLite files in it", fix)


def check_git(root: Path) -> Iterator[Finding]:
    """Git, and that the workspace is a repository's root with a commit: DVC keeps experiments in it."""
    if shutil.which("git") is None:
        yield Finding("git", "problem", "not found", "install git")
        return
    top = _run("git", "rev-parse", "--show-toplevel", cwd=root)
    if top is None or Path(top).resolve() != root.resolve():
        yield Finding("git", "problem", f"{root} is not a repository's root", "make setup makes it one")
        return
    commit = _run("git", "rev-parse", "--short", "HEAD", cwd=root)
    if commit is None:
        fix = "git add -A && git commit -m 'first': experiments are kept on top of a commit"
        yield Finding("git", "problem", "the repository has no commit", fix)
        return
    changed = _run("git", "status", "--porcelain", "--", "src", "conf", "dvc.yaml", cwd=root)
    found = f"commit {commit}" + (", with changes in src, conf or dvc.yaml" if changed else "")
    yield Finding("git", "ok", found)


def check_dvc(root: Path) -> Iterator[Finding]:
    """DVC's settings, its lock file, and whether somebody is at work."""
    import psutil
    from dvc.config import Config, ConfigError
    from dvc.dirs import site_cache_dir
    from dvc.version import __version__

    if not (root / ".dvc/config").is_file():
        yield Finding("dvc", "problem", f"{root / '.dvc/config'} is not there", "git checkout .dvc/config")
        return
    try:
        config = Config(str(root / ".dvc"))
    except ConfigError as error:
        yield Finding(
            "dvc",
            "problem",
            str(error).splitlines()[0],
            "git checkout .dvc/config; look at .dvc/config.local",
        )
        return
    if not config["hydra"].get("enabled"):
        fix = "dvc config hydra.enabled true: -S changes params.yaml alone without it"
        yield Finding("dvc", "problem", f"{__version__}, hydra.enabled is off", fix)
    else:
        yield Finding("dvc", "ok", f"{__version__}, hydra.enabled")
    cache = Path(site_cache_dir(config["core"].get("site_cache_dir")))
    if cache.exists() and cache.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        found = f"it remembers hashes in {cache}, where others may write, and unpickles what is there"
        yield Finding("dvc", "note", found, "make setup names a private folder in .dvc/config.local")
    if "<<<<<<<" in ((root / "dvc.lock").read_text() if (root / "dvc.lock").exists() else ""):
        yield Finding(
            "dvc", "problem", "dvc.lock has marks of a merge", "git checkout --ours dvc.lock; dvc repro"
        )
    with contextlib.suppress(OSError, ValueError):
        held = json.loads((root / ".dvc/tmp/rwlock").read_text())
        paths = [*held.get("read", {}).values(), *held.get("write", {}).values()]
        holders = [holder for entry in paths for holder in (entry if isinstance(entry, list) else [entry])]
        alive = sorted({str(holder["pid"]) for holder in holders if psutil.pid_exists(holder["pid"])})
        if alive:
            yield Finding(
                "dvc",
                "note",
                f"at work here: process {', '.join(alive)}",
                "its stages are held until it ends",
            )


def check_data(root: Path) -> Iterator[Finding]:
    """Per data set of the study: it is here, or the place that it comes from answers."""
    from lrstudy.data.raw import OFFICIAL_SPLITS
    from lrstudy.data.records import Source
    from lrstudy.errors import StudyError
    from lrstudy.recipe.dataset import Hub, Torchvision

    params = _params(root)
    source, mirror = params.data.source, os.environ.get("LRSTUDY_DATA_MIRROR")
    for name, spec in params.dataset.items():
        folder, origin = root / "data/raw" / name, spec.origin
        with contextlib.suppress(OSError, StudyError):
            here = Source.read(folder / "source.json", f"download@{name}")
            if (here.source == "sample") == (source == "sample") and all(
                (folder / f"{split}.parquet").stat().st_size == here.files[split].bytes
                for split in OFFICIAL_SPLITS
            ):
                yield Finding("data", "ok", f"{name}: {here.label} in {folder.relative_to(root)}")
                continue
            found = f"{name}: here is {here.label}, and params.yaml has data.source {source}"
            yield Finding("data", "note", found, f"dvc repro download@{name} replaces it")
        if source == "sample":
            yield Finding("data", "ok", f"{name}: the embedded sample")
        elif source == "archive" and spec.archive is not None:
            yield _reach(name, spec.archive.url, of_hub=False)
        elif isinstance(origin, Torchvision):
            yield Finding("data", "ok", f"{name}: torchvision downloads {origin.name}")
        elif not isinstance(origin, Hub):
            place = root / Path(origin.folder).expanduser()
            if place.is_dir():
                yield Finding("data", "ok", f"{name}: in {place}")
            else:
                fix = f"correct origin.folder in the data set's conf file ({name}.yaml)"
                yield Finding("data", "problem", f"{name}: {place} is no folder", fix)
        elif mirror:
            files = [file for split in OFFICIAL_SPLITS for file in origin.files[split]]
            places = [Path(mirror).expanduser() / origin.repo / file for file in files]
            if missing := [path for path in places if not path.is_file()]:
                fix = "lay it out as the hub (docs/data.md), or unset LRSTUDY_DATA_MIRROR"
                yield Finding("data", "problem", f"{name}: {missing[0]} is not there", fix)
            else:
                yield Finding("data", "ok", f"{name}: in the mirror {mirror}")
        else:
            from huggingface_hub import hf_hub_url

            file = origin.files["train"][0]
            url = hf_hub_url(origin.repo, file, repo_type="dataset", revision=origin.revision)
            yield _reach(name, url, of_hub=True)


def check_mlflow(root: Path) -> Iterator[Finding]:
    """The tracking server or database, and what still waits to be sent."""
    from lrstudy.sync import journal_folders
    from lrstudy.tracking.store import describe, server_name, tracking_uri, waiting

    uri = tracking_uri(root)
    name = server_name(uri)
    if uri.startswith("sqlite:"):
        yield _database("mlflow", Path(uri.removeprefix("sqlite:///")))
    else:
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(_SECONDS)
        from mlflow import MlflowClient

        try:
            MlflowClient(uri).search_experiments(max_results=1)
        except Exception as error:  # the boundary to a server
            fix = "start it, or correct MLFLOW_TRACKING_URI; trainings go on without, make sync sends later"
            yield Finding("mlflow", "problem", f"{name}: {describe(error, uri)}", fix)
        else:
            yield Finding("mlflow", "ok", f"{name} answers")
    left = sum(waiting(folder, uri) for folder in journal_folders(root))
    if left:
        found = f"events that wait in the journals of checkpoints/: {left}"
        yield Finding("mlflow", "note", found, "make sync sends them")


def check_optuna(root: Path) -> Iterator[Finding]:
    """The database of trials."""
    from lrstudy.search.tuning import storage_uri
    from lrstudy.tracking.store import describe, server_name

    uri = storage_uri(root)
    if uri.startswith("sqlite:"):
        yield _database("optuna", Path(uri.removeprefix("sqlite:///")))
        return
    import sqlalchemy

    try:
        sqlalchemy.create_engine(uri).connect().close()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        fix = "start it, or correct LRSTUDY_OPTUNA_STORAGE; unset it is optuna.db in the workspace"
        yield Finding("optuna", "problem", f"{server_name(uri)}: {describe(error, uri)}", fix)
    else:
        yield Finding("optuna", "ok", f"{server_name(uri)} answers")


def check_ray(root: Path) -> Iterator[Finding]:
    """The cluster, where params.yaml wants one."""
    if _params(root).parallel.backend != "ray":
        return
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if not address:
        fix = "ray start --head prints what to set it to (docs/cluster.md); or -S parallel=local"
        yield Finding("ray", "problem", "params.yaml wants a cluster, and RAY_ADDRESS names none", fix)
    else:
        yield Finding("ray", "ok", f"{ray.__version__}, cluster {address}")


CHECKS: tuple[Check, ...] = (
    check_python, check_packages, check_variables, check_processors, check_device, check_disk, check_git,
    check_dvc, check_config, check_design, check_data, check_mlflow, check_optuna, check_ray,
)  # fmt: skip


def _run(*command: str, cwd: Path) -> str | None:
    """What the command prints, or None if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def _filesystem(folder: Path) -> str:
    """The kind of the file system that the folder lies on."""
    import psutil

    mounts = [mount for mount in psutil.disk_partitions(all=True) if folder.is_relative_to(mount.mountpoint)]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else ""


def _database(subject: str, path: Path) -> Finding:
    """Whether the SQLite file can be written to: it is there, sound, and nobody holds it."""
    if not path.exists():
        return Finding(subject, "ok", f"{path.name} will be made")
    fix = f"wait for whoever writes to it; move {path.name} away to begin a new one (its runs go with it)"
    if not os.access(path, os.W_OK):
        return Finding(subject, "problem", f"{path} is read-only", "make it writable for this user")
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")
            tables = database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
            database.rollback()
    except sqlite3.Error as error:
        return Finding(subject, "problem", f"{path}: {error}", fix)
    return Finding(subject, "ok", f"{path.name}: {tables} tables, {path.stat().st_size / 1e6:.1f} MB")


def _reach(dataset: str, url: str, of_hub: bool) -> Finding:
    """Whether the place that the data set is downloaded from answers."""
    import httpx2
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        if of_hub:
            get_hf_file_metadata(url, timeout=_SECONDS)
        else:
            httpx2.head(url, timeout=_SECONDS, follow_redirects=True).raise_for_status()
    except (httpx2.HTTPError, HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        what = (str(error).strip().splitlines() or [type(error).__name__])[0]
        fix = "export LRSTUDY_DATA_MIRROR=<folder laid out as the hub> (docs/data.md), or -S data=sample"
        return Finding("data", "problem", f"{dataset}: {url} is out of reach ({what})", fix)
    return Finding("data", "ok", f"{dataset}: {url} answers")


def main() -> int:
    """Print every finding; 1 if one is a problem."""
    what = __doc__.partition("\n\n")[2]
    argparse.ArgumentParser(prog="python -m lrstudy.doctor", description=what).parse_args()
    found = []
    for finding in examine(Path.cwd()):
        found.append(finding.status)
        print(f"{MARKS[finding.status]}{finding.subject:<12}{finding.found}", flush=True)
        if finding.fix:
            print(f"{'':18}-> {finding.fix}", flush=True)
    problems, notes = found.count("problem"), found.count("note")
    print(f"{problems} problems, {notes} notes" if problems or notes else "everything is here")
    return int(problems > 0)


if __name__ == "__main__":
    from lrstudy.process.exits import exit_status

    sys.exit(exit_status(main))
