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
    assert exit_status(lambda: composed(overrides, monkeypatch)) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "missing" not in line
    assert f"'{typo}'" in line
    assert f"Did you mean '{key}'" in line
    assert line.endswith(f" See conf/{file}.yaml.")


def test_every_group_of_conf_has_its_typo():
    groups = {path.name for path in (ROOT / "conf").glob("*/")}
    assert {file.partition("/")[0] for file, *_ in TYPOS} == groups | {"config"}


# A value that is refused, and the file that has it; that of a row names the row's, whatever it is based on.
VALUES = [
    ("schedule/cosine", "min_factor: 0.0", "min_factor: 7", ()),
    ("schedule/cosine", "choices: [0.0, 0.01, 0.1]", "low: 0.1", ()),
    ("schedule/static_monitored", "patience: 1", "patience: -1", ()),
    (
        "schedule/schedule_free",
        "weight_decay: 0.01",
        "weight_decay: -1",
        ("schedule=[static,schedule_free]",),
    ),
    ("model/lstm", "hidden_size: 64", "hidden_size: 0", ()),
    ("model/lstm", "weight_decay: 0.01", "weight_decay: -1", ()),
    ("model/lstm_20_epochs", "tuned_as: lstm", "tuned_as: resnet", ("model=[resnet,lstm,lstm_20_epochs]",)),
    ("dataset/imdb", "kind: text", "kind: tones", ()),
    ("optimizer/adam", "beta1: 0.9", "beta1: 9", ("optimizer=adam",)),
    ("optimizer/adam", "base_lr: 0.001", "base_lr: -1", ("optimizer=adam",)),
    ("controller/validation_monitor", "patience: 1", "patience: -1", ("controller=validation_monitor",)),
    ("preset/cpu", "precision: float32", "precision: float31", ()),
    ("preset/cpu", "num_trials: 6", "num_trials: -6", ()),
    ("data/hub", "split_seed: 0", "split_seed: -7", ()),
    ("config", "threads: 1", "threads: 0", ()),
    ("parallel/ray", "num_gpus: 0.0", "num_gpus: 1.5", ("parallel=ray",)),
    ("timing/minutes", "updates: ", "updates: -", ()),
]


@pytest.mark.parametrize(("file", "before", "after", "overrides"), VALUES)
def test_a_value_that_is_refused_is_told_with_its_file(
    conf, monkeypatch, capfd, file, before, after, overrides
):
    path = conf / f"{file}.yaml"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    assert exit_status(lambda: composed(overrides, monkeypatch)) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("error: params.yaml: ")
    assert line.endswith(f" See conf/{file}.yaml.")


def test_a_value_that_no_file_has_is_told_with_none(conf, monkeypatch, capfd):
    assert exit_status(lambda: composed(("train.threads=0",), monkeypatch)) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("error: params.yaml: train.threads: found 0; ")
    assert " See " not in line


# --- what the resolvers find ---


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("+model.lstm.schedules=[cosin]", "model.lstm.schedules: cosin is no schedule; choose from "),
        (
            "model.lstm.dataset=mnist",
            "model: the data set mnist has no file in conf/dataset, nor in LRSTUDY_CONF;",
        ),
        ("~model.lstm.dataset", "model.lstm: found no dataset; it names one of "),
        ("+model.lsmt=3", "model.lsmt: found 3, no row; name files as in -S 'model=[resnet]'."),
        ("schedule=[]", "schedule: no row is chosen; name one or more files of conf/schedule, as in -S"),
        ("model=[]", "model: no row is chosen; name one or more files of conf/model, as in -S"),
        ("train.threads=${train.threads}", "train.threads: found ${train.threads}, which leads nowhere (Rec"),
        ("train.seeds=[1,${sedes}]", "train.seeds.1: found ${sedes}, which leads nowhere (Interpolation key"),
        ("preset=${oc.env:NOWHERE}", "preset=${oc.env:NOWHERE}: "),
        (
            "dataset=cifar10",
            "dataset: a model's row names its data set, as in -S model.resnet.dataset=cifar10.",
        ),
        ("train.seeds=[1,", "train.seeds=[1,: no viable alternative"),
        ("schedule=static,cosine", "schedule=static,cosine: Ambiguous value"),
    ],
)
def test_what_a_resolver_refuses_is_one_line(conf, monkeypatch, capfd, override, line):
    assert exit_status(lambda: composed((override,), monkeypatch)) == 2
    [said] = capfd.readouterr().err.splitlines()
    assert said.startswith(f"error: {line}")
    assert not (conf.parent / "params.yaml").exists()


# What is typed after -S, and what was meant.
CHOICES = [
    (
        "schedule=exponental",
        "schedule: 'exponental' has no file in conf/schedule, nor in LRSTUDY_CONF",
        "exponential",
    ),
    ("schedule=expo", "schedule: 'expo' has no file in conf/schedule", "exponential"),
    ("schedule=[static,cosin]", "schedule: 'cosin' has no file in conf/schedule", "cosine"),
    ("model=resnett", "model: 'resnett' has no file in conf/model", "resnet"),
    ("optimizer=adamww", "optimizer: 'adamww' has no file in conf/optimizer", "adamw"),
    (
        "controller=validation",
        "controller: 'validation' has no file in conf/controller",
        "validation_monitor",
    ),
    ("preset=smke", "preset: 'smke' has no file in conf/preset", "smoke"),
    ("data=smaple", "data: 'smaple' has no file in conf/data", "sample"),
    ("theory=hour", "theory: 'hour' has no file in conf/theory", "hours"),
    ("timing=second", "timing: 'second' has no file in conf/timing", "seconds"),
    ("parallel=rya", "parallel: 'rya' has no file in conf/parallel", "ray"),
    ("schedul=static", "'schedul' is no section of params.yaml; choose from batch_size, ", "schedule"),
    ("~trian", "'trian' is no section of params.yaml", "train"),
]


@pytest.mark.parametrize(("typed", "line", "meant"), CHOICES, ids=[typed for typed, *_ in CHOICES])
def test_a_choice_that_is_misspelt_is_one_line_with_what_was_meant(
    conf, monkeypatch, capfd, typed, line, meant
):
    assert exit_status(lambda: composed((typed,), monkeypatch)) == 2
    [said] = capfd.readouterr().err.splitlines()
    assert said.startswith(f"error: {line}")
    assert said.endswith(f" Did you mean '{meant}'?")


def test_a_key_after_s_that_is_misspelt_is_one_line_with_what_was_meant(conf, monkeypatch, capfd):
    assert exit_status(lambda: composed(("schedule.cosine.min_facter=0.1",), monkeypatch)) == 2
    [said] = capfd.readouterr().err.splitlines()
    assert said.startswith(
        "error: -S schedule.cosine: 'min_facter' is not a known key; choose one of granularity, "
    )
    assert "Did you mean 'min_factor'?" in said


@pytest.mark.parametrize("value", ["schedule.cosine.min_factor=7", "tune.seeds=[1]", "schedule=[]"])
def test_a_value_that_is_refused_stays_out_of_the_file(conf, monkeypatch, capfd, value):
    composed((), monkeypatch)
    before = Path("params.yaml").read_text()
    assert exit_status(lambda: composed((value,), monkeypatch)) == 2
    assert Path("params.yaml").read_text() == before
    assert [path.name for path in Path.cwd().iterdir() if "params" in path.name] == ["params.yaml"]


# --- files that would be merged into nothing ---

FILES = [
    ("schedule/mine", "", "holds no keys. Write what mine is (docs/extending.md has an example)"),
    ("schedule/mine", "# @package schedule.mine\n# soon\n", "holds no keys."),
    ("optimizer/mine", "\n", "holds no keys."),
    ("preset/mine", "- 1\n", "is no mapping of keys to values."),
    ("schedule/mine", "knee: [\n", "not readable as YAML ("),
    ("model/mine", "dataset: imdb\n", "found no such line. The first line must be '# @package model.mine'"),
    (
        "schedule/mine",
        "# @package schedule.mien\nfunction: static\n",
        "found '# @package schedule.mien' in line 1. The first line must be '# @package schedule.mine'",
    ),
    (
        "schedule/mine",
        "# A schedule.\n# @package schedule.mine\nfunction: static\n",
        "found '# @package schedule.mine' in line 2. The first line must be '# @package schedule.mine'",
    ),
    (
        "schedule/mine",
        "# @package schedule.mine of mine\nfunction: static\n",
        "found '# @package schedule.mine of mine' in line 1.",
    ),
    ("preset/mine", "preset: mine\n", "found no such line. The first line must be '# @package _global_'"),
    ("data/mine", "# @package dat\nsource: hub\n", "The first line must be '# @package data'"),
    ("optimizer/mine", "# @package optimizers\nname: sgd\n", "The first line must be '# @package optimizer'"),
    (
        "controller/mine",
        "# @package schedule\nname: none\n",
        "The first line must be '# @package controller'",
    ),
]


@pytest.mark.parametrize("own", [False, True], ids=["conf", "LRSTUDY_CONF"])
@pytest.mark.parametrize(("file", "text", "line"), FILES)
def test_a_file_whose_keys_would_come_to_lie_nowhere_is_named(
    conf, tmp_path, monkeypatch, capfd, file, text, line, own
):
    folder = tmp_path / "mine" if own else conf
    if own:
        monkeypatch.setenv("LRSTUDY_CONF", str(folder))
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{file}.yaml").write_text(text)
    group = file.partition("/")[0]
    assert exit_status(lambda: composed((f"{group}=mine",), monkeypatch)) == 2
    [said] = capfd.readouterr().err.splitlines()
    assert said.startswith(f"error: {folder.name}/{file}.yaml")
    assert line in said


def test_the_file_of_a_data_set_that_holds_nothing_is_named(conf, monkeypatch, capfd):
    (conf / "dataset/imdb.yaml").write_text("# soon\n")
    assert exit_status(lambda: composed((), monkeypatch)) == 2
    [said] = capfd.readouterr().err.splitlines()
    assert said.startswith(
        "error: conf/dataset/imdb.yaml: holds no keys. Write what imdb is (docs/data.md has"
    )


@pytest.mark.slow
def test_dvc_says_it_in_that_line_too(conf):
    folder = conf.parent
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (conf / "schedule/mine.yaml").write_text("function: static\n")
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["dvc", "config", "hydra.enabled", "true"],
        ["git", "add", "."],
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "conf"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    for typed, line in (
        ("+model.lstm.schedules=[cosin]", "model.lstm.schedules: cosin is no schedule; choose from "),
        ("schedule=exponental", "schedule: 'exponental' has no file in conf/schedule, nor in LRSTUDY_CONF"),
        ("schedule=[]", "schedule: no row is chosen; "),
        ("schedule=mine", "conf/schedule/mine.yaml: found no such line. The first line must be '# @package "),
        ("train.threads=${train.threads}", "train.threads: found ${train.threads}, which leads nowhere"),
        ("presett=cpu", "'presett' is no section of params.yaml; "),
    ):
        done = subprocess.run(["dvc", "exp", "run", "-S", typed], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 255
        [said] = done.stderr.splitlines()
        assert said.startswith(f"ERROR: {line}")


def test_a_folder_of_ones_own_that_is_not_there_is_one_line(conf, monkeypatch, capfd):
    monkeypatch.setenv("LRSTUDY_CONF", "/nowhere")
    assert exit_status(lambda: composed((), monkeypatch)) == 2
    assert capfd.readouterr().err.splitlines() == [
        "error: LRSTUDY_CONF=/nowhere: no such folder. Correct the path, or unset the variable."
    ]


def test_a_whole_conf_composes(conf, monkeypatch):
    composed((), monkeypatch)
    with pytest.raises(StudyError, match="not a model of this study"):
        make_cell(load_params(), "lsmt", "static")
