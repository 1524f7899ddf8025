"""What people do wrong, and what each gets: the first line of the message, and the exit status.

Every case runs a stage's or a command's ``main`` in a workspace of its own, with one thing wrong.
"""

import errno
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from composed import composed_params
from lrstudy.errors import StudyError
from lrstudy.process.exits import exit_status
from tiny_data import write_dataset

ROOT = Path(__file__).parents[1]
TRAIN = ("lrstudy.stages.train", "lstm", "cosine")
TUNE = ("lrstudy.stages.tune", "lstm", "cosine")


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """params.yaml for two models and schedules, and a tiny processed data set."""
    folder = tmp_path_factory.mktemp("template")
    params = composed_params("model=[resnet,lstm]", "schedule=[static,cosine]", "preset=smoke")
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    write_dataset("text", folder / "data/processed/imdb")
    meta = folder / "data/processed/imdb/meta.json"
    known = {"dataset": "imdb", "label": "tiny", "official": False}
    meta.write_text(json.dumps(json.loads(meta.read_text()) | known))
    tuned = folder / "artifacts/tuned/lstm/cosine/best.json"
    tuned.parent.mkdir(parents=True)
    values = {"base_lr": 0.01, "min_factor": 0.0}
    tuned.write_text(
        json.dumps({"model": "lstm", "schedule": "cosine", "source": "defaults", "values": values})
    )
    return folder


@pytest.fixture
def workspace(template, tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "workspace"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    for name in [n for n in os.environ if n.startswith(("LRSTUDY_", "MLFLOW_", "DVC_"))]:
        monkeypatch.delenv(name)
    return folder


def put(path: str, value: object) -> Callable[[Path], None]:
    """params.yaml with one dotted key changed, or added."""

    def change(folder: Path) -> None:
        file = folder / "params.yaml"
        params = yaml.safe_load(file.read_text())
        *sections, key = path.split(".")
        node = params
        for section in sections:
            node = node[section]
        node[key] = value
        file.write_text(yaml.safe_dump(params))

    return change


def text(path: str, content: str | bytes) -> Callable[[Path], None]:
    """A file with other content."""

    def change(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def gone(path: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = folder / path
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return change


def cut(path: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(content[: len(content) // 2])

    return change


def nothing(folder: Path) -> None:
    pass


IMDB = "data/processed/imdb"
BEST = "artifacts/tuned/lstm/cosine/best.json"

# (what is wrong, how the workspace gets so, the command, exit status, how the first line begins)
CASES = [
    # a typo in every group of params.yaml
    ("typo in data", put("data.limt", 5), TRAIN, 2, "error: params.yaml: data: 'limt' is not a known key; choose one of limit, "),
    ("typo in model", put("model.lstm.hiden_size", 5), TRAIN, 2, "error: params.yaml: model.lstm: 'hiden_size' is not an argument of the network 'lstm';"),
    ("typo in schedule", put("schedule.cosine.min_facter", 0.1), TRAIN, 2, "error: params.yaml: schedule.cosine: 'min_facter' is not a parameter of 'cosine';"),
    ("typo in optimizer", put("optimizer", {"name": "per_modle"}), TRAIN, 2, "error: params.yaml: optimizer"),
    ("typo in controller", put("controller.name", "nune"), TRAIN, 2, "error: params.yaml: lstm-cosine: controller: 'nune' is not a controller; choose one of "),
    ("typo in train", put("train.thread", 2), TRAIN, 2, "error: params.yaml: train: 'thread' is not a known key; choose one of "),
    ("typo in tune", put("tune.num_trails", 2), TRAIN, 2, "error: params.yaml: tune: 'num_trails' is not a known key; choose one of "),
    ("typo in compare", put("compare.refernce", "static"), TRAIN, 2, "error: params.yaml: compare: 'refernce' is not a known key; choose one of "),
    ("typo in num_epochs", put("num_epochs.cifar", 2), TRAIN, 2, "error: params.yaml: num_epochs: 'cifar' is not a data set; choose one of "),
    ("typo in a section's name", put("trian", {}), TRAIN, 2, "error: params.yaml: 'trian' is not a known key; choose one of "),
    ("typo in a schedule's function", put("schedule.cosine.function", "cosin"), TRAIN, 2, "error: params.yaml: schedule.cosine: schedule: 'cosin' is not a schedule; choose one of "),
    ("typo in an optimizer's name", put("model.lstm.optimizer.name", "adamm"), TRAIN, 2, "error: params.yaml: lstm-cosine: optimizer: 'adamm' is not an optimizer; choose one of "),
    # wrong types
    ("words for a number", put("train.threads", "two"), TRAIN, 2, "error: params.yaml: train.threads: found 'two'; input should be a valid integer"),
    ("a number in quotes", put("num_epochs.imdb", "3"), TRAIN, 2, "error: params.yaml: num_epochs.imdb: found '3'; input should be a valid integer"),
    ("a fraction of an epoch", put("num_epochs.imdb", 1.5), TRAIN, 2, "error: params.yaml: num_epochs.imdb: found 1.5; input should be a valid integer"),
    ("one seed instead of a list", put("train.seeds", 1), TRAIN, 2, "error: params.yaml: train.seeds: found 1; input should be a valid list"),
    ("true for a number", put("batch_size.imdb", True), TRAIN, 2, "error: params.yaml: batch_size.imdb: found True; input should be a valid integer"),
    ("a list for a section", put("data", []), TRAIN, 2, "error: params.yaml: data: found []; input should be"),
    ("a page for a number", put("train.threads", "x" * 10_000), TRAIN, 2, "error: params.yaml: train.threads: found 'xxxx"),
    # out of range
    ("no seeds", put("train.seeds", []), TRAIN, 2, "error: params.yaml: train.seeds: found [];"),
    ("a seed twice", put("train.seeds", [1, 1]), TRAIN, 2, "error: params.yaml: train.seeds has a seed twice in [1, 1];"),
    ("tuning on the final seeds", put("tune.seeds", [1]), TRAIN, 2, "error: params.yaml: tune.seeds and train.seeds share [1];"),
    ("no threads", put("train.threads", 0), TRAIN, 2, "error: params.yaml: train.threads: found 0; input should be greater than or equal to 1"),
    ("a rate of nothing", put("model.lstm.optimizer.base_lr", 0.0), TRAIN, 2, "error: params.yaml: model.lstm.optimizer.base_lr: found 0.0;"),
    ("a rate without end", put("model.lstm.optimizer.base_lr", float("inf")), TRAIN, 2, "error: params.yaml: model.lstm.optimizer.base_lr: found inf;"),
    ("a factor above one", put("schedule.cosine.min_factor", 2.0), TRAIN, 2, "error: params.yaml: lstm-cosine: schedule cosine: min_factor is 2"),
    ("a warmup as long as the training", put("schedule.cosine.warmup_epochs", 99.0), TRAIN, 2, "error: params.yaml: lstm-cosine: schedule.cosine.warmup_epochs is 99, which leaves nothing of the "),
    ("a vocabulary of one", put("data.vocab_size", 1), TRAIN, 2, "error: params.yaml: data.vocab_size: found 1;"),
    ("a name with a slash", put("schedule.a/b", {"function": "static"}), TRAIN, 2, "error: params.yaml: schedule: 'a/b' is not a name; use letters, digits and underscores alone."),
    # params.yaml itself
    ("no params.yaml", gone("params.yaml"), TRAIN, 2, "error: params.yaml: not found. Run in the repository's root; `make params` writes it from conf/."),
    ("no YAML", text("params.yaml", "train: [1}\n"), TRAIN, 2, "error: params.yaml, line 1: not readable as YAML ("),
    ("a list", text("params.yaml", "- 1"), TRAIN, 2, "error: params.yaml: found list, not a mapping of sections; `make params` writes it from conf/."),
    ("a key twice", text("params.yaml", "train: 1\ntrain: 2"), TRAIN, 2, "error: params.yaml, line 2: not readable as YAML (the key 'train' stands twice); `make params` writes it from conf/."),
    ("an alias", text("params.yaml", "a: &x [1]\nb: *x"), TRAIN, 2, "error: params.yaml, line 2: not readable as YAML (an alias (*name) is not allowed); `make params` writes it from conf/."),
    ("no text", text("params.yaml", b"\xff\xfe\x00"), TRAIN, 2, "error: params.yaml: not readable as YAML ("),
    ("endless", text("params.yaml", "#" * 1_100_000), TRAIN, 2, "error: params.yaml: more than 1,048,576 bytes;"),
    ("a folder", lambda f: (gone("params.yaml")(f), (f / "params.yaml").mkdir()), TRAIN, 2, "error: params.yaml: cannot be read (Is a directory); `make params` writes it from conf/."),
    # the command line
    ("a model that the study has not", nothing, ("lrstudy.stages.train", "lsmt", "cosine"), 2, "error: params.yaml: model: 'lsmt' is not a model of this study; choose one of lstm, resnet. Did you mean 'lstm'?"),
    ("a schedule that the study has not", nothing, ("lrstudy.stages.train", "lstm", "cosin"), 2, "error: params.yaml: schedule: 'cosin' is not a schedule of this study; choose one of cosine, static. Did you mean 'cosine'?"),
    ("a data set that nobody has", nothing, ("lrstudy.stages.download", "mnist"), 2, "error: dataset: 'mnist' is not a data set of the study's models; choose one of "),
    ("no arguments", nothing, ("lrstudy.stages.train",), 2, "usage: python -m "),
    ("a preview of nothing", nothing, ("lrstudy.preview", "cosin"), 2, "preview: schedule: 'cosin' is not a schedule; choose one of "),
    # data and results that are missing or damaged
    ("no processed data", gone(IMDB), TRAIN, 2, f"error: {IMDB}/meta.json: not found; `dvc repro preprocess@imdb` makes it."),
    ("data of the other kind only", nothing, ("lrstudy.stages.tune", "resnet", "cosine"), 2, "error: data/processed/cifar10/meta.json: not found; `dvc repro preprocess@cifar10` makes it."),
    ("half of meta.json", cut(f"{IMDB}/meta.json"), TRAIN, 2, f"error: {IMDB}/meta.json: not JSON (line "),
    ("another meta.json", text(f"{IMDB}/meta.json", "{}"), TRAIN, 2, f"error: {IMDB}/meta.json: dataset is missing: not what this version of the stage writes; `dvc repro --force -s preprocess@imdb` makes it anew."),
    ("no raw data", nothing, ("lrstudy.stages.preprocess", "imdb"), 2, "error: data/raw/imdb/source.json: not found; `dvc repro download@imdb` makes it."),
    ("another source.json", text("data/raw/imdb/source.json", "[]"), ("lrstudy.stages.preprocess", "imdb"), 2, "error: data/raw/imdb/source.json: a list, not an object; `dvc repro --force -s download@imdb` makes it anew."),
    ("no tuned values", gone(BEST), TRAIN, 2, f"error: {BEST}: not found; `dvc repro tune@lstm-cosine` makes it."),
    ("half of the tuned values", cut(BEST), TRAIN, 2, f"error: {BEST}: not JSON (line "),
    ("other tuned values", text(BEST, '{"values": {}}'), TRAIN, 2, f"error: {BEST}: model is missing: not what this version of the stage writes; `dvc repro --force -s tune@lstm-cosine` makes it anew."),
    ("tuned values in no text", text(BEST, b"\xff"), TRAIN, 2, f"error: {BEST}: not JSON; `dvc repro --force -s tune@lstm-cosine` makes it anew."),
    ("nothing trained", nothing, ("lrstudy.stages.evaluate", "lstm", "cosine"), 2, "error: artifacts/train/lstm/cosine/training.json: not found; `dvc repro train@lstm-cosine` makes it."),
    ("nothing evaluated", nothing, ("lrstudy.stages.compare",), 2, "error: /"),  # the ledger has none of the trainings
    ("nothing compared", nothing, ("lrstudy.stages.report",), 2, "error: reports/comparison.json: not found"),
    ("an event that is none", text("checkpoints/c/r/journal.jsonl", "3\n"), ("lrstudy.sync",), 2, "error: /"),
]  # fmt: skip


def run(command: tuple[str, ...], monkeypatch, capfd) -> tuple[int, list[str]]:
    """A command's exit status and what it said on the error stream."""
    module, *arguments = command
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    main = importlib.import_module(module).main
    status = exit_status(lambda: sys.exit(main()))  # a command's main may return its status
    return status, capfd.readouterr().err.splitlines()


def test_there_are_many_of_them():
    assert len(CASES) >= 40
    assert len({case[0] for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    ("change", "command", "status", "line"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_wrong_use_is_one_message_and_an_exit_status(
    workspace, monkeypatch, capfd, change, command, status, line
):
    change(workspace)
    found, said = run(command, monkeypatch, capfd)
    assert found == status
    assert said[0].startswith(line)
    assert max(map(len, said)) < 1500
    if line.startswith("error:"):
        assert len(said) == 1
    assert not (workspace / "checkpoints/lstm-cosine").exists()


ENVIRONMENT = [
    ("LRSTUDY_WORKERS", "none", TRAIN, "error: LRSTUDY_WORKERS: found 'none'; it must be a whole number of at least 1."),
    ("LRSTUDY_WORKERS", "0", TUNE, "error: LRSTUDY_WORKERS: found '0'; it must be a whole number of at least 1."),
    ("LRSTUDY_DATA_MIRROR", "/nowhere", ("lrstudy.stages.download", "imdb"), "error: LRSTUDY_DATA_MIRROR=/nowhere: /nowhere/stanfordnlp/imdb/plain_text/train-00000-of-00001.parquet is not there."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "command", "line"), ENVIRONMENT, ids=[f"{e[0]}={e[1]}" for e in ENVIRONMENT]
)
def test_a_wrong_variable_of_the_environment_is_named(
    workspace, monkeypatch, capfd, name, value, command, line
):
    monkeypatch.setattr("lrstudy.stages.train.Sender", _NoSender)
    monkeypatch.setattr("lrstudy.stages.tune.Sender", _NoSender)
    monkeypatch.setenv(name, value)
    status, said = run(command, monkeypatch, capfd)
    assert status == 2
    assert said[-1].startswith(line)
    assert "Traceback" not in "".join(said)


class _NoSender:
    """Nothing is sent: MLflow is no part of these tests."""

    def __init__(self, root: Path):
        self.run_ids: dict[str, str] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def follow(self, folder: Path) -> None:
        pass


# --- the machine ---


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EDQUOT, "Disk quota exceeded; free some space"),
        (errno.EROFS, "Read-only file system; make it writable"),
        (errno.EACCES, "Permission denied; allow it to this user"),
        (errno.EFBIG, "File too large; raise the limit on the size of a file (ulimit -f)"),
    ],
)
def test_a_folder_that_takes_nothing_is_named(workspace, monkeypatch, capfd, number, advice):
    """As the operating system reports it, at the first folder that a stage makes."""
    mkdir = os.mkdir

    def refused(path, *args, **kwargs):
        if Path(path).name == "checkpoints":
            raise OSError(number, os.strerror(number), str(path))
        return mkdir(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", refused)
    status, said = run(TRAIN, monkeypatch, capfd)
    assert status == 2
    assert said == [
        f"error: {workspace / 'checkpoints'}: {advice}, then run it again: what was finished is kept."
    ]


def test_a_database_of_trials_that_fails_in_mid_search_is_one_message(workspace, monkeypatch, capfd):
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import OperationalError

    def full(*_, **__):
        raise StorageInternalError("in a commit") from OperationalError(
            "INSERT", {}, Exception("database or disk is full")
        )

    monkeypatch.setattr("lrstudy.stages.tune.Sender", _NoSender)
    monkeypatch.setattr("lrstudy.study.cell_jobs.earlier_studies", lambda *_: None)
    monkeypatch.setattr("lrstudy.search.tuning._open_study", full)
    status, said = run(TUNE, monkeypatch, capfd)
    assert status == 2
    design, *epochs, last = said
    assert design.startswith("lstm-cosine: THIS DESIGN CANNOT DECIDE ANYTHING: 1 seed")
    assert all("lstm-cosine trial 0 seed 101" in line for line in epochs)  # its training is kept
    said = [last]
    assert said[0].startswith(
        f"error: Optuna's database sqlite:///{workspace}/optuna.db failed (OperationalError: "
    )
    assert "database or disk is full" in said[0]


def test_other_errors_of_the_system_are_no_mistakes_of_the_user():
    def fails() -> None:
        raise OSError(errno.ECONNRESET, "Connection reset by peer")

    with pytest.raises(OSError, match="Connection reset"):
        exit_status(fails)


def test_locks_that_a_dead_process_left_stop_nothing(workspace, monkeypatch, capfd):
    """The files stay; the locks went with the process."""
    from lrstudy.stages import train

    reached = []

    def trains(task: dict) -> str:
        reached.append(task["label"])
        raise StudyError("far enough")

    folder = workspace / "checkpoints/lstm-cosine"
    folder.mkdir(parents=True)
    monkeypatch.setattr(train, "Sender", _NoSender)
    monkeypatch.setattr("lrstudy.study.runs._train", lambda folder, task: trains(task))
    monkeypatch.setenv("LRSTUDY_WORKERS", "1")
    for _ in range(2):
        status, said = run(TRAIN, monkeypatch, capfd)
        assert (status, said) == (2, ["error: far enough"])
        for path in folder.rglob("*.lock"):
            path.write_text("12345")  # a process that is gone
    assert len(list(folder.rglob("run.lock"))) == 1
    assert reached == ["lstm-cosine seed 1"] * 2


# --- setting up ---


@pytest.fixture
def machine(tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Run scripts/setup.sh where only some commands are there."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("sh", "cat", "cksum", "dirname", "df", "awk", "git", "mktemp", "rm", "grep", "tail"):
        (commands / name).symlink_to(shutil.which(name))
    project = tmp_path / "project"
    (project / "scripts").mkdir(parents=True)
    for path in (ROOT / "scripts/setup.sh", ROOT / "pyproject.toml", *ROOT.glob("requirements*")):
        shutil.copy2(path, project / path.relative_to(ROOT))

    def script(name: str, content: str) -> None:
        (commands / name).unlink(missing_ok=True)
        (commands / name).write_text(f"#!{shutil.which('sh')}\n{content}\n")
        (commands / name).chmod(0o755)

    def setup(*, without: str = "", **scripts: str) -> subprocess.CompletedProcess:
        for name, content in scripts.items():
            script(name, content)
        if without:
            (commands / without).unlink()
        return subprocess.run(
            [shutil.which("sh"), "scripts/setup.sh"], cwd=project, env={"PATH": str(commands)},
            capture_output=True, text=True,
        )  # fmt: skip

    return setup


OLD = 'case "$*" in --version) echo "Python 3.8.10";; *) exit 1;; esac'
DF = 'printf "Filesystem 1024-blocks Used Available Capacity Mounted\\n/dev/x 9 9 1048576 9%% /\\n"'


def test_a_python_that_is_too_old_is_named(machine):
    done = machine(python3=OLD)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith(
        "error: Python 3.11 or later is needed; found Python 3.8.10. Install one, or name it: make setup PYTHON="
    )


def test_a_machine_without_git_is_told_so(machine):
    done = machine(without="git", python3="exit 0")
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: git is needed (DVC keeps experiments in it); install it, then run this again.\n"
    )


def test_a_disk_that_is_too_full_is_told_before_anything_is_installed(machine):
    done = machine(python3="exit 0", df=DF)
    assert done.returncode == 1
    assert done.stderr.startswith("error: 10 GiB of free disk are needed for the packages; found 1 GiB in ")
