"""A key that is written wrongly in any file of conf/: one line that names it and the one that was meant."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from composed import composed_params
from lrstudy import compose
from lrstudy.errors import StudyError
from lrstudy.process.exits import exit_status
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import load_params

ROOT = Path(__file__).parents[1]

# The file, the key in it that is right, what stands there instead, and the choices that bring the file in.
TYPOS = [
    ("config", "threads", "thread", ()),
    ("config", "gradient_clip", "gradiant_clip", ()),
    ("config", "sampler_seed", "sampler_sed", ()),
    ("config", "reference", "refrence", ()),
    ("config", "num_epochs", "num_epoch", ()),
    ("config", "batch_size", "batchsize", ()),
    ("data/hub", "limit", "limt", ()),
    ("data/archive", "source", "sorce", ("data=archive",)),
    ("data/sample", "vocab_size", "vocabsize", ("data=sample",)),
    ("model/lstm", "dataset", "datset", ()),
    ("model/lstm", "architecture", "architectur", ()),
    ("model/lstm", "hidden_size", "hiden_size", ()),
    ("model/lstm", "optimizer", "optimiser", ()),
    ("model/lstm", "base_lr", "base_rl", ()),
    ("model/lstm", "search", "serach", ()),
    ("model/resnet20", "depth", "dept", ("model=resnet20",)),
    ("model/lstm_20_epochs", "tuned_as", "tuned_is", ("model=[lstm,lstm_20_epochs]",)),
    ("model/lstm_20_epochs", "schedules", "shedules", ("model=[lstm,lstm_20_epochs]",)),
    ("dataset/imdb", "headline", "hedline", ()),
    ("dataset/imdb", "kind", "knd", ()),
    ("dataset/imdb", "origin", "orign", ()),
    ("dataset/imdb", "repo", "rpo", ()),
    ("dataset/imdb", "type", "tipe", ()),
    ("schedule/static", "granularity", "granularty", ()),
    ("schedule/static", "warmup_epochs", "warmup_epoch", ()),
    ("schedule/cosine", "min_factor", "min_facter", ()),
    ("schedule/cosine", "search", "serach", ()),
    ("schedule/cosine", "choices", "choises", ()),
    ("schedule/welch", "window", "windw", ("schedule=[static,welch]",)),
    ("schedule/triangular", "function", "fuction", ("schedule=[static,triangular]",)),
    ("schedule/static_monitored", "controller", "controler", ()),
    ("schedule/static_monitored", "patience", "patiense", ()),
    ("optimizer/sgd", "name", "nmae", ("optimizer=sgd",)),
    ("optimizer/sgd", "base_lr", "base_rl", ("optimizer=sgd",)),
    ("optimizer/adam", "beta1", "betta1", ("optimizer=adam",)),
    ("optimizer/adam", "high", "hgih", ("optimizer=adam",)),
    ("optimizer/per_model", "name", "nmae", ()),
    ("controller/validation_monitor", "name", "nmae", ("controller=validation_monitor",)),
    ("controller/validation_monitor", "cooldown", "coldown", ("controller=validation_monitor",)),
    ("controller/none", "name", "nam", ()),
    ("preset/cpu", "seeds", "seds", ()),
    ("preset/cpu", "num_trials", "num_trails", ()),
    ("preset/cpu", "num_epochs", "num_epoch", ()),
    ("preset/cpu", "batch_size", "batch_sizes", ()),
    ("preset/cpu", "preset", "prest", ()),
    ("preset/cpu", "train", "trian", ()),
    ("preset/cpu", "cifar10", "cifar", ()),
    ("theory/hours", "noise", "nois", ()),
    ("theory/hours", "shape", "shap", ()),
    ("theory/hours", "curve_lr", "curv_lr", ()),
    ("theory/hours", "toy", "toi", ()),
    ("theory/none", "level_sets", "level_set", ()),
    ("timing/minutes", "rounds", "rouds", ()),
    ("timing/seconds", "updates", "update", ("timing=seconds",)),
    ("parallel/local", "backend", "bakend", ()),
    ("parallel/ray", "num_gpus", "num_gpu", ("parallel=ray",)),
    ("parallel/ray", "memory_gib", "memory_gb", ("parallel=ray",)),
]


@pytest.fixture
def conf(tmp_path, monkeypatch) -> Path:
    """A copy of conf/ in a folder of its own, where the command runs."""
    for name in ("conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    composed_params()  # has Hydra import the resolvers, once in a process
    monkeypatch.setattr(sys.modules["hydra_plugins.lrstudy_cells"], "CONF", tmp_path / "conf")
    return tmp_path / "conf"


def composed(overrides: tuple[str, ...], monkeypatch) -> None:
    """What `code`, the first stage, does: compose, read, put every cell together."""
    monkeypatch.setattr(sys, "argv", ["compose", *overrides])
    compose.main()
    params = load_params()
    for cell in params.cells.values():
        make_cell(params, cell.model, cell.schedule)


def misspell(conf: Path, file: str, key: str, typo: str) -> None:
    path = conf / f"{file}.yaml"
    changed, count = re.subn(rf"(?<![a-z_]){key}:", f"{typo}:", path.read_text(), count=1)
    assert count == 1
    path.write_text(changed)


@pytest.mark.parametrize(("file", "key", "typo", "overrides"), TYPOS, ids=[f"{t[0]}-{t[1]}" for t in TYPOS])
def test_a_typo_is_named_with_what_was_meant(conf, monkeypatch, capfd, file, key, typo, overrides):
    misspell(conf, file, key, typo)
    assert exit_status(lambda: composed(overrides, monkeypatch)) in (1, 2)
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "missing" not in line
    assert f"'{typo}'" in line
    assert f"Did you mean '{key}'" in line


def test_every_group_of_conf_has_its_typo():
    groups = {path.name for path in (ROOT / "conf").glob("*/")}
    assert {file.partition("/")[0] for file, *_ in TYPOS} == groups | {"config"}


# --- what the resolvers find ---


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("+model.lstm.schedules=[cosin]", "model.lstm.schedules: cosin is no schedule; choose from cosine, "),
        (
            "model.lstm.dataset=mnist",
            "model: the data set mnist has no file in conf/dataset, nor in LRSTUDY_CONF;",
        ),
        ("~model.lstm.dataset", "model.lstm: found no dataset; it names one of ag_news, cifar10, "),
    ],
)
def test_what_a_resolver_refuses_is_one_line(conf, monkeypatch, capfd, override, line):
    assert exit_status(lambda: composed((override,), monkeypatch)) == 1
    [said] = capfd.readouterr().err.splitlines()
    assert said.startswith(f"error: {line}")
    assert not (conf.parent / "params.yaml").exists()


@pytest.mark.slow
def test_dvc_says_it_in_that_line_too(conf):
    folder = conf.parent
    (folder / "dvc.yaml").write_text("stages: {}\n")
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["dvc", "config", "hydra.enabled", "true"],
        ["git", "add", "."],
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "conf"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run(
        ["dvc", "exp", "run", "-S", "+model.lstm.schedules=[cosin]"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 255
    [line] = done.stderr.splitlines()
    assert line.startswith("ERROR: model.lstm.schedules: cosin is no schedule; choose from cosine, ")


def test_a_folder_of_ones_own_that_is_not_there_is_one_line(conf, monkeypatch, capfd):
    monkeypatch.setenv("LRSTUDY_CONF", "/nowhere")
    assert exit_status(lambda: composed((), monkeypatch)) == 1
    assert capfd.readouterr().err.splitlines() == [
        "error: LRSTUDY_CONF=/nowhere: no such folder. Correct the path, or unset the variable."
    ]


def test_a_whole_conf_composes(conf, monkeypatch):
    composed((), monkeypatch)
    with pytest.raises(StudyError, match="not a model of this study"):
        make_cell(load_params(), "lsmt", "static")
