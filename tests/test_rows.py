"""Rows of models with their own length, columns and another row's values; rows of schedules with an optimizer."""

import copy
import functools
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf.errors import InterpolationResolutionError

from composed import ROOT, composed_params, conf_names, conf_section
from lrstudy import compose
from lrstudy.errors import StudyError
from lrstudy.ledger import Ledger
from lrstudy.recipe.cells import default_values, make_cell, num_epochs_of, searching_cell, stretched
from lrstudy.recipe.config import Choices, Params, check_params
from lrstudy.schedules import make_schedule
from lrstudy.stages import tune
from lrstudy.study import collect
from lrstudy.study import tasks as study
from lrstudy.study.tasks import training_task
from lrstudy.theory.paths import path_cell

BOTH = ("model=[resnet,resnet_20_epochs,lstm,lstm_20_epochs]",)


@functools.cache
def content(*overrides: str) -> dict:
    return composed_params(*overrides)


def params(*overrides: str, **changes: object) -> Params:
    """What conf/ composes to, with dotted keys (``__`` for the dots) changed."""
    found = copy.deepcopy(content(*overrides))
    for path, value in changes.items():
        *sections, key = path.split("__")
        node = found
        for section in sections:
            node = node[section]
        node[key] = value
    return check_params(found)


def task(found: Params, model: str, schedule: str, values: dict | None = None, seed: int = 1) -> dict:
    cell = make_cell(found, model, schedule)
    meta = {
        "fingerprint": "f" * 64,
        "dataset": cell.dataset,
        "label": "L",
        "official": True,
        "num_examples": {},
    }
    return training_task(cell, found, cell.settings(values), seed, meta, Path("/work"), "label")


# --- what a training is known by ---


@pytest.mark.parametrize("schedule", ["static", "static_monitored", "cosine"])
def test_a_row_of_20_epochs_is_the_training_of_20_epochs_of_its_network(schedule):
    beside = task(params(*BOTH), "resnet_20_epochs", schedule, {"base_lr": 0.2})
    alone = task(params("num_epochs.cifar10=20"), "resnet", schedule, {"base_lr": 0.2})
    assert beside["settings"] == alone["settings"]
    assert beside["key"] == alone["key"]
    assert beside["settings"]["num_epochs"] == 20


def test_nothing_that_a_row_is_in_the_study_is_part_of_a_training():
    plain = task(params(*BOTH), "resnet", "static")
    changes = {
        "model__resnet__num_epochs": 10,
        "model__resnet__schedules": ["static", "static_monitored", "cosine"],
    }
    assert task(params(*BOTH, **changes), "resnet", "static") == plain
    assert set(plain["settings"]["model"]) == {"architecture", "depth", "width"}


def test_the_studys_trainings_of_the_papers_question_are_those_of_preset_cpu():
    """So that what one began the other goes on with: tasks that are equal find the same records."""
    cpu, whole = params("preset=cpu"), params("preset=study")
    assert set(cpu.cells) < set(whole.cells)
    for listed in cpu.cells.values():
        one, other = (make_cell(found, listed.model, listed.schedule) for found in (cpu, whole))
        assert one == other
        assert task(cpu, listed.model, listed.schedule) == task(whole, listed.model, listed.schedule)
    assert (cpu.tune, cpu.train) == (whole.tune, whole.train)


@pytest.mark.parametrize("preset", ["cpu", "study"])
def test_the_study_is_in_float32_on_every_machine_and_has_ten_seeds_and_six_trials(monkeypatch, preset):
    monkeypatch.setattr(
        "lrstudy.training.devices.choose_dtype",
        lambda asked, _: pytest.fail("auto") if asked == "auto" else getattr(torch, asked),
    )
    found = params(f"preset={preset}")
    assert task(found, "lstm", "cosine")["settings"]["precision"] == "float32"
    assert found.train.seeds == list(range(1, 11))
    assert (found.tune.num_trials, found.tune.finalists, found.tune.confirm_seeds) == (6, 2, [102, 103])


# --- which cells there are, and whose search finds their values ---


def test_the_study_has_the_cells_of_its_three_parts():
    found = content("preset=study")
    columns: dict[str, list[str]] = {}
    for cell in found["cells"].values():
        columns.setdefault(cell["model"], []).append(cell["schedule"])
    question = ["static", "step", "exponential", "cosine", "static_monitored"]
    field = [
        "linear", "one_cycle", "inverse_time", "cosine_restarts", "late_decay_50", "late_decay_70", "late_decay_90",
        "triangular", "welch", "hann", "schedule_free",
    ]  # fmt: skip
    assert columns == {
        **{model: [*question, *field] for model in ("resnet", "lstm", "transformer")},
        "resnet_20_epochs": ["static", "cosine", "static_monitored"],
        "lstm_20_epochs": ["static", "step", "cosine", "static_monitored"],
        "transformer_20_epochs": ["static", "step", "cosine", "static_monitored"],
    }
    assert set(found["stages"]["searches"]) == {
        f"{model}-{schedule}"
        for model in ("resnet", "lstm", "transformer")
        for schedule in [*question, *field]
    }
    assert [found["schedule"][f"late_decay_{share}"]["start"] for share in (50, 70, 90)] == [0.5, 0.7, 0.9]
    assert {found["schedule"][f"late_decay_{share}"]["function"] for share in (50, 70, 90)} == {"late_decay"}
    assert all("start" not in found["schedule"][f"late_decay_{share}"]["search"] for share in (50, 70, 90))


def test_a_cell_says_whose_values_it_takes_and_where_its_length_stands():
    cells = content(*BOTH)["cells"]
    assert cells["resnet_20_epochs-cosine"] == {
        "model": "resnet_20_epochs", "schedule": "cosine", "dataset": "cifar10", "tuned": "resnet/cosine",
        "num_epochs": "model.resnet_20_epochs.num_epochs", "batch_size": "batch_size.cifar10",
    }  # fmt: skip
    assert (cells["resnet-cosine"]["tuned"], cells["resnet-cosine"]["num_epochs"]) == (
        "resnet/cosine",
        "num_epochs.cifar10",
    )


def test_a_study_of_fewer_schedules_has_of_each_row_what_is_left():
    found = content(*BOTH, "schedule=[exponential,cosine]")
    assert list(found["cells"]) == [
        "resnet-exponential", "resnet-cosine", "resnet_20_epochs-cosine", "lstm-exponential", "lstm-cosine",
        "lstm_20_epochs-cosine",
    ]  # fmt: skip
    assert content(*BOTH, "schedule=exponential")["stages"]["searches"].keys() == {
        "resnet-exponential",
        "lstm-exponential",
    }


def test_only_the_data_of_the_cells_are_wanted():
    overrides = ("model=[resnet,lstm]", "schedule=cosine", "+model.lstm.schedules=[static]")
    assert content(*overrides)["datasets"] == ["cifar10"]


def test_a_row_is_written_with_nothing_repeated():
    for path in (ROOT / "conf/model").glob("*_20_epochs.yaml"):
        base = path.stem.removesuffix("_20_epochs")
        mine, other = (
            yaml.safe_load(path.read_text()),
            yaml.safe_load((path.parent / f"{base}.yaml").read_text()),
        )
        assert set(mine) == {"defaults", "num_epochs", "tuned_as", "schedules"}
        composed = content(f"model=[{base},{path.stem}]")["model"][path.stem]
        assert {key: composed[key] for key in other} == other


# --- mistakes ---


WRONG = [
    (
        "a row without the one that finds its values",
        ("model=[lstm,resnet_20_epochs]",),
        {},
        "model.resnet_20_epochs.tuned_as: 'resnet' is not among the models of this study (lstm, resnet_20_epochs), so "
        "nothing finds the values of resnet_20_epochs; add it: -S 'model=[resnet,lstm,resnet_20_epochs]'.",
    ),
    (
        "a chain",
        BOTH,
        {"model__resnet__tuned_as": "resnet_20_epochs"},
        "model.resnet.tuned_as: resnet_20_epochs has no search of its own but takes the values of resnet; name a row "
        "without tuned_as.",
    ),
    (
        "itself",
        BOTH,
        {"model__lstm__tuned_as": "lstm"},
        "model.lstm.tuned_as: lstm has no search of its own but takes the values of lstm; name a row without tuned_as.",
    ),
    (
        "the values of another data set",
        BOTH,
        {"model__resnet_20_epochs__tuned_as": "lstm"},
        "model.resnet_20_epochs.tuned_as: dataset is 'cifar10', and that of lstm 'imdb'; values are taken for the same "
        "data set, network and optimizer alone: change both, or leave tuned_as out.",
    ),
    (
        "the values of another size",
        BOTH,
        {"model__resnet__width": 32},
        "model.resnet_20_epochs.tuned_as: width is 16, and that of resnet 32;",
    ),
    (
        "the values of another optimizer",
        BOTH,
        {"model__resnet__optimizer__momentum": 0.8},
        "model.resnet_20_epochs.tuned_as: optimizer is {",
    ),
    (
        "a column that the other row has not",
        (*BOTH, "+model.resnet.schedules=[static,cosine]"),
        {},
        "model.resnet_20_epochs.tuned_as: resnet_20_epochs has the schedule static_monitored and resnet has not, so "
        "nothing finds its values; add it to model.resnet.schedules, or leave it out of "
        "model.resnet_20_epochs.schedules.",
    ),
    ("no epochs", BOTH, {"model__lstm__num_epochs": 0}, "model.lstm.num_epochs: found 0; input should be greater"),
    ("no columns", BOTH, {"model__lstm__schedules": []}, "model.lstm.schedules: found [];"),
    (
        "no cell",
        ("model=[resnet,resnet_20_epochs]",),
        {"cells": {}},
        "no cell: of the schedules static, step, exponential, cosine, static_monitored the models resnet, "
        "resnet_20_epochs run none (model.<name>.schedules); choose others.",
    ),
    ("precision where it stood before", BOTH, {"model__lstm__precision": "auto"}, "model.lstm_20_epochs.tuned_as: precision is None, and that of lstm 'auto';"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "changes", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG]
)
def test_what_does_not_fit_together_gets_one_clear_error(overrides, changes, message):
    found = copy.deepcopy(raw(*overrides))
    for path, value in changes.items():
        *sections, key = path.split("__")
        node = found
        for section in sections:
            node = node[section]
        node[key] = value
    with pytest.raises(StudyError) as error:
        check_params(found)
    assert str(error.value).startswith(f"params.yaml: {message}")
    assert "\n" not in str(error.value)


def raw(*overrides: str) -> dict:
    """The composition as DVC makes it, unchecked."""
    import tempfile

    from dvc.utils.hydra import compose_and_dump

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        compose_and_dump(path, str(ROOT / "conf"), None, "config", str(ROOT), list(overrides))
        return yaml.safe_load(path.read_text())


def test_a_column_that_is_no_schedule_is_named_before_anything_is_written(monkeypatch):
    says = r"model\.resnet_20_epochs\.schedules: cosin is no schedule; choose from .*cosine, cosine_restarts"
    with pytest.raises(InterpolationResolutionError, match=says):
        raw(*BOTH, "model.resnet_20_epochs.schedules=[static,cosin]")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["compose", *BOTH, "model.resnet_20_epochs.schedules=[static,cosin]"])
    before = (ROOT / "params.yaml").read_text()
    with pytest.raises(StudyError, match=says):
        compose.main()
    assert (ROOT / "params.yaml").read_text() == before
    # A row of the command line is one, too.
    row = "+schedule.early={function: cosine, search: {}}"
    found = raw("model=resnet", "+model.resnet.schedules=[static,early]", row)
    assert list(found["cells"]) == ["resnet-static", "resnet-early"]


def test_a_cell_that_the_row_has_not_is_refused():
    with pytest.raises(
        StudyError, match=r"resnet_20_epochs\.schedules: 'step' is not one of them; choose one of cosine"
    ):
        make_cell(params(*BOTH), "resnet_20_epochs", "step")


@pytest.mark.parametrize("asked", [["cosine"], []])  # none: all of the row's, of which the first is told
def test_a_row_with_anothers_values_has_no_search(monkeypatch, asked):
    found = params(*BOTH)
    monkeypatch.setattr("sys.argv", ["tune", "resnet_20_epochs", *asked])
    monkeypatch.setattr(tune, "load_params", lambda: found)
    with pytest.raises(StudyError) as error:
        tune.main()
    told = asked[0] if asked else "static"
    assert str(error.value) == (
        f"resnet_20_epochs-{told}: has no search of its own (model.resnet_20_epochs.tuned_as); `dvc repro "
        f"tune@resnet-{told}` finds its values."
    )


# --- the length, and values that stretch with it ---


def test_a_rows_own_length_comes_before_that_of_its_data_set():
    found = params(*BOTH)
    assert [num_epochs_of(found, model) for model in found.model] == [10, 20, 4, 20]
    assert [make_cell(found, model, "cosine").num_epochs for model in found.model] == [10, 20, 4, 20]
    without = params(*BOTH, num_epochs={"imdb": 3})
    assert make_cell(without, "resnet_20_epochs", "cosine").num_epochs == 20
    # neither the row nor the preset: the data set's own
    assert make_cell(without, "resnet", "cosine").num_epochs == found.dataset["cifar10"].num_epochs
    others = params(*BOTH, num_epochs={"imdb": 3, "others": 2})
    assert [num_epochs_of(others, model) for model in others.model] == [2, 20, 3, 20]


def test_an_experiment_of_the_theory_has_its_own_length_and_rows_whatever_the_models_row_says():
    found = params(*BOTH)
    row = found.schedule["step"]
    assert (
        path_cell(
            found, "resnet_20_epochs", "trunk", row.model_copy(update={"function": "step"}), 8
        ).num_epochs
        == 8
    )


def pair(row: dict, length: int = 20):
    """A row over 10 epochs of the ResNet, and over ``length``."""
    found = content(*BOTH)
    changed = copy.deepcopy(found)
    changed["schedule"]["row"] = row
    changed["model"]["resnet_20_epochs"] |= {"num_epochs": length, "schedules": ["row"]}
    checked = check_params(changed)
    return make_cell(checked, "resnet", "row"), make_cell(checked, "resnet_20_epochs", "row")


BY_HAND = [
    # 0.3 an epoch for 10 epochs leaves exp(-3), which over 20 is 0.15 an epoch.
    ({"function": "exponential"}, {"decay_rate": 0.3}, {"final_factor": 0.0497870683679}, {"decay_rate": 0.15}),
    # every second of 10 epochs is every fourth of 20
    ({"function": "step"}, {"step_size": 2, "gamma": 0.5}, {"interval": 0.2, "gamma": 0.5}, {"step_size": 4.0, "gamma": 0.5}),
    ({"function": "step"}, {"first_drop": 0.6, "gamma": 0.5}, {"first_drop": 0.6, "gamma": 0.5}, {"step_size": 4.0}),
    ({"function": "cosine"}, {"min_factor": 0.1}, {"min_factor": 0.1}, {"min_factor": 0.1}),
    ({"function": "static"}, {}, {}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("row", "found", "taken", "over_20"), BY_HAND)
def test_values_stretch_with_the_length(row, found, taken, over_20):
    short, long = pair(row)
    values = stretched({"base_lr": 0.3, **found}, short, long)
    assert values == pytest.approx({"base_lr": 0.3, **taken}, rel=1e-11)
    chosen = long.settings(values)
    assert chosen["optimizer"]["base_lr"] == 0.3
    assert {name: chosen["schedule"]["parameters"][name] for name in over_20} == pytest.approx(
        over_20, rel=1e-11
    )


def test_values_for_the_same_length_are_the_same_to_the_last_digit():
    short, same = pair({"function": "exponential"}, length=10)
    values = {"base_lr": 0.3, "decay_rate": 0.1234567}
    assert stretched(values, short, same) == values
    assert same.settings(stretched(values, short, same)) == short.settings(values)


def test_the_defaults_of_a_search_are_the_defaults_of_the_longer_training():
    found = params(*BOTH)
    for cell in (make_cell(found, *name.split("-")) for name in found.cells if "20_epochs" in name):
        searching = searching_cell(found, cell)
        assert searching.name == cell.name.replace("_20_epochs", "")
        assert cell.settings(stretched(default_values(searching), searching, cell)) == cell.settings()
    assert searching_cell(found, searching) is searching


ROWS = {
    name: {"function": name, **row}
    for name in conf_names("schedule")
    # A warmup in epochs does not stretch.
    if not (row := conf_section("schedule", name))["warmup_epochs"] and "optimizer" not in row
}


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_stretched_schedule_has_the_same_rate_at_the_same_share_of_the_training(data):
    """multiplier over 20 epochs at 2 t = multiplier over 10 epochs at t, whatever the search finds."""
    name = data.draw(st.sampled_from(list(ROWS)))
    short, long = pair(ROWS[name])
    values = {}
    for searched, where in short.search_space().items():
        if isinstance(where, Choices):
            values[searched] = data.draw(st.sampled_from(where.choices))
        elif where.int_:
            values[searched] = data.draw(st.integers(int(where.low), int(where.high)))
        else:
            values[searched] = float(f"{data.draw(st.floats(where.low, where.high)):.6g}")
    t = data.draw(st.integers(0, 1000)) / 100
    taken = stretched(values, short, long)
    assert taken["base_lr"] == values["base_lr"]
    rates = [
        make_schedule(**cell._schedule(v))(at) for cell, v, at in ((short, values, t), (long, taken, 2 * t))
    ]
    assert rates[1] == pytest.approx(rates[0], rel=1e-9, abs=1e-12)


def test_which_trainings_a_longer_row_needs_is_known_once_the_other_rows_search_is_done(
    tmp_path, monkeypatch
):
    found = params(*BOTH, tune__num_trials=0)
    cell = make_cell(found, "resnet_20_epochs", "cosine")
    meta = {"fingerprint": "f" * 64, "dataset": "cifar10", "label": "L", "official": True, "num_examples": {}}
    ledger = Ledger(study.ledger_folder(tmp_path))
    plan = collect.plan(cell, found, meta, tmp_path, ledger.find)
    assert (plan.waiting, [need.name for need in plan.needs]) == (
        "",
        [f"seed {seed}" for seed in range(1, 11)],
    )
    assert {need.task["settings"]["num_epochs"] for need in plan.needs} == {20}
    found = params(*BOTH)
    plan = collect.plan(cell, found, meta, tmp_path, ledger.find)
    # The trials are another cell's need.
    assert plan.needs == []
    assert plan.waiting == "10 trainings with the values that the search of resnet-cosine will find"


# --- a row with an optimizer of its own ---


def test_a_rows_optimizer_replaces_that_of_each_model():
    found = params("schedule=[static,schedule_free]")
    cells = {model: make_cell(found, model, "schedule_free") for model in found.model}
    assert {model: cell.optimizer.name for model, cell in cells.items()} == {
        "resnet": "schedule_free_sgd",
        "lstm": "schedule_free_adamw",
        "transformer": "schedule_free_adamw",
    }
    for model, cell in cells.items():
        replaced = make_cell(found, model, "static")
        assert cell.optimizer.options["weight_decay"] == replaced.optimizer.options["weight_decay"]
        assert {k: v for k, v in cell.settings().items() if k != "optimizer"} == {
            k: v for k, v in replaced.settings().items() if k != "optimizer"
        }
    # The options are those of conf/optimizer/.
    of_lstm = conf_section("optimizer", "schedule_free_adamw")
    assert (
        cells["lstm"].optimizer.model_dump()["search"]["base_lr"]["high"]
        == of_lstm["search"]["base_lr"]["high"]
    )
    assert cells["lstm"].optimizer.options == {
        k: v for k, v in (of_lstm | {"weight_decay": 0.01}).items() if k not in ("name", "base_lr", "search")
    }


def test_a_rows_optimizer_comes_before_the_one_for_all():
    found = params("schedule=[static,schedule_free]", "optimizer=adagrad")
    assert make_cell(found, "lstm", "static").optimizer.name == "adagrad"
    assert make_cell(found, "lstm", "schedule_free").optimizer.name == "schedule_free_adamw"


def test_a_model_whose_optimizer_the_row_does_not_replace_is_named():
    found = params("schedule=[static,schedule_free]", model__lstm__optimizer__name="adam")
    with pytest.raises(StudyError) as error:
        make_cell(found, "lstm", "schedule_free")
    assert str(error.value) == (
        "params.yaml: schedule.schedule_free.optimizer: found adamw, nesterov; the model 'lstm' has adam, so add what "
        "replaces it."
    )
