"""What a cell joins from the sections of params.yaml, and what it refuses."""

import copy
import json
import math

import pytest

from composed import composed_params
from lrstudy.errors import StudyError
from lrstudy.recipe.cells import Cell, default_values, make_cell
from lrstudy.recipe.config import Choices, check_params
from lrstudy.recipe.networks import architectures, kinds_of

PARAMS = composed_params()
PARAMS["num_epochs"] = {"cifar10": 10, "imdb": 5}
PARAMS["train"]["precision"] = "auto"
PARAMS["optimizer"] = {"name": "per_model"}
PARAMS["controller"] = {"name": "none"}
PARAMS["model"]["resnet"]["optimizer"] = {
    "name": "nesterov", "base_lr": 0.1, "momentum": 0.9, "weight_decay": 0.0001,
    "search": {"base_lr": {"low": 0.01, "high": 1.0, "log": True}},
}  # fmt: skip
PARAMS["schedule"] = {
    "static": {},
    "step": {
        "gamma": 0.1, "step_size": None,
        "search": {"gamma": {"low": 0.05, "high": 0.8}, "step_size": {"low": 1, "high": "num_epochs", "int": True}},
    },
    "warm_step": {
        "function": "step", "gamma": 0.5, "step_size": None, "warmup_epochs": 2, "granularity": "epoch",
        "search": {"step_size": {"low": 1, "high": "num_epochs", "int": True}},
    },
    "cosine": {"min_factor": 0.0, "search": {"min_factor": {"choices": [0.0, 0.01]}}},
}  # fmt: skip


def cell(model: str = "resnet", schedule: str = "step", rows: dict | None = None, **changes) -> Cell:
    """A cell of the sections above, with whole sections replaced, a schedule's keys changed or other ``rows``."""
    content = copy.deepcopy(PARAMS)
    content["schedule"] |= rows or {}
    for section, value in changes.items():
        if section in content["schedule"]:
            content["schedule"][section] |= value
        else:
            content[section] = value
    return make_cell(check_params(content), model, schedule)


# --- settings ---


def test_settings_are_the_config_joined_with_nothing_left_open():
    assert cell().settings() == {
        "dataset": "cifar10",
        "model": {"architecture": "resnet", "depth": 8, "width": 16},
        "batch_size": 128,
        "precision": "auto",
        "num_epochs": 10,
        "optimizer": {"name": "nesterov", "base_lr": 0.1, "momentum": 0.9, "weight_decay": 0.0001},
        "schedule": {
            "function": "step",
            "warmup_epochs": 0.0,
            "granularity": "step",
            # of ten epochs: drops at one half and three quarters
            "parameters": {"gamma": 0.1, "first_drop": 0.5, "interval": 0.25, "step_size": 2.5},
        },
        "controller": {"name": "none"},
    }


def test_settings_are_plain_json():
    settings = cell().settings({"base_lr": 0.3, "gamma": 0.2})
    assert json.loads(json.dumps(settings)) == settings


def test_tuned_values_replace_the_defaults_and_leave_the_rest():
    tuned = {"base_lr": 0.25, "step_size": 7}
    settings = cell().settings(tuned)
    assert settings["optimizer"] == {
        "name": "nesterov",
        "base_lr": 0.25,
        "momentum": 0.9,
        "weight_decay": 0.0001,
    }
    staircase = {"gamma": 0.1, "first_drop": 0.7, "interval": 0.7, "step_size": 7}
    assert settings["schedule"]["parameters"] == staircase
    assert tuned == {"base_lr": 0.25, "step_size": 7}
    assert cell().settings() == cell().settings({})
    untouched = cell().settings()
    assert {k: v for k, v in settings.items() if k not in ("optimizer", "schedule")} == {
        k: v for k, v in untouched.items() if k not in ("optimizer", "schedule")
    }


@pytest.mark.parametrize("tuned", [{"decay_rate": 0.1}, {"step_size": 11}, {"gamma": 2.0}], ids=str)
def test_tuned_values_that_do_not_fit_the_schedule_are_an_error(tuned):
    with pytest.raises(StudyError, match=next(iter(tuned))):
        cell().settings(tuned)


def test_the_schedules_of_a_model_differ_in_the_schedule_alone():
    settings = [cell(schedule=name).settings() for name in PARAMS["schedule"]]
    for one in settings:
        del one["schedule"]
    assert all(one == settings[0] for one in settings)


# --- rows: function, warmup, granularity ---


def test_a_row_is_called_by_its_name_and_runs_its_function():
    row = cell(schedule="warm_step")
    assert (row.name, row.function) == ("resnet-warm_step", "step")
    assert row.settings()["schedule"] == {
        "function": "step",
        "warmup_epochs": 2.0,
        "granularity": "epoch",
        # of the eight epochs after the warmup
        "parameters": {"gamma": 0.5, "first_drop": 0.5, "interval": 0.25, "step_size": 2},
    }


def test_the_number_of_epochs_as_a_bound_is_what_the_warmup_leaves():
    assert cell().search_space()["step_size"].high == 10.0
    assert cell(model="lstm").search_space()["step_size"].high == 5.0
    assert cell(schedule="warm_step").search_space()["step_size"].high == 8.0


def test_a_bound_at_the_number_of_epochs_leaves_a_range_of_one_value():
    search = {"step_size": {"low": 5, "high": "num_epochs", "int": True}}
    space = cell(model="lstm", step={"search": search}).search_space()
    assert (space["step_size"].low, space["step_size"].high) == (5.0, 5.0)


@pytest.mark.parametrize(
    ("model", "schedule", "search", "message"),
    [
        ("lstm", "step", {"low": 7, "high": "num_epochs", "int": True}, "low 7 is above high 5 (num_epochs)"),
        ("lstm", "warm_step", {"low": 4, "high": "num_epochs", "int": True}, "low 4 is above high 3 (num_epochs less the warmup)"),
        ("lstm", "step", {"low": "num_epochs", "high": 3, "int": True}, "low 5 (num_epochs) is above high 3"),
    ],
)  # fmt: skip
def test_a_range_that_the_number_of_epochs_leaves_empty_is_an_error(model, schedule, search, message):
    """It is made no single value in silence: the search would look as if it had looked."""
    with pytest.raises(StudyError) as error:
        cell(model, schedule, **{schedule: {"search": {"step_size": search}}})
    assert str(error.value) == (
        f"params.yaml: {model}-{schedule}: search.step_size: {message}; change the bounds or the number of epochs."
        + (" See conf/schedule/step.yaml." if schedule == "step" else "")  # the other row is the test's own
    )
    # The same bounds fit where there are more epochs.
    if search["high"] == "num_epochs":
        cell("resnet", schedule, **{schedule: {"search": {"step_size": search | {"low": 6}}}})


def test_the_search_space_is_the_rate_first_and_then_the_rows_own():
    space = cell().search_space()
    assert list(space) == ["base_lr", "gamma", "step_size"]
    assert (space["base_lr"].low, space["base_lr"].high, space["base_lr"].log) == (0.01, 1.0, True)
    assert space["step_size"].int_
    assert cell(schedule="cosine").search_space()["min_factor"] == Choices(choices=[0.0, 0.01])
    assert list(cell(schedule="static").search_space()) == ["base_lr"]


@pytest.mark.parametrize("schedule", PARAMS["schedule"])
@pytest.mark.parametrize("model", ["resnet", "lstm", "transformer"])
def test_the_default_values_are_those_that_are_searched_with_nothing_left_open(model, schedule):
    found = cell(model, schedule)
    defaults = default_values(found)
    assert list(defaults) == list(found.search_space())
    assert None not in defaults.values()
    assert found.settings(defaults) == found.settings()


# --- two forms of a parameter ---

DECAYS = {
    "exponential": {
        "final_factor": None, "decay_rate": None,
        "search": {"final_factor": {"low": 0.001, "high": 0.8, "log": True}},
    },
}  # fmt: skip


def test_a_value_in_epochs_stands_for_the_relative_one_and_is_the_first_trial():
    row = cell("lstm", "exponential", rows={"exponential": DECAYS["exponential"] | {"decay_rate": 0.3}})
    expected = {"final_factor": pytest.approx(math.exp(-1.5), rel=1e-11), "decay_rate": 0.3}
    assert row.settings()["schedule"]["parameters"] == expected
    defaults = default_values(row)
    assert list(defaults) == ["base_lr", "final_factor"]
    # To the last bit, or trial 0 would be another training than the defaults.
    assert row.settings(defaults) == row.settings()
    assert row.parameters(defaults)["decay_rate"] == 0.3


def test_a_tuned_value_replaces_the_other_form_that_the_row_gives():
    row = cell("lstm", "exponential", rows={"exponential": DECAYS["exponential"] | {"decay_rate": 0.3}})
    tuned = row.settings({"base_lr": 0.01, "final_factor": 0.1})["schedule"]["parameters"]
    assert tuned == {"final_factor": 0.1, "decay_rate": pytest.approx(math.log(10) / 5, rel=1e-11)}


def test_two_forms_that_contradict_each_other_are_one_clear_error():
    row = DECAYS["exponential"] | {"final_factor": 0.05, "decay_rate": 0.3}
    with pytest.raises(StudyError) as error:
        cell("lstm", "exponential", rows={"exponential": row})
    assert str(error.value) == (
        "params.yaml: lstm-exponential: schedule exponential: final_factor is 0.05, but decay_rate is 0.3, which "
        "over 5 epochs is the final_factor 0.223130160148; give one of them, the other null."
        " See conf/schedule/exponential.yaml."
    )


def test_two_forms_of_one_value_are_not_searched_at_once():
    both = {"final_factor": {"low": 0.01, "high": 0.5}, "decay_rate": {"low": 0.01, "high": 1.0}}
    with pytest.raises(StudyError, match=r"search: final_factor and decay_rate are two forms of one value"):
        cell("lstm", "exponential", rows={"exponential": {"search": both}})


# --- rows that are static by another name ---


def test_the_committed_studys_transformer_step_is_refused():
    """Its first drop fell on the end of the third of three epochs: static, and yet it filled two gaps."""
    row = {"step": {"gamma": 0.13594476582572051, "step_size": 3}}
    with pytest.raises(StudyError) as error:
        cell("transformer", "step", rows=row, num_epochs={"imdb": 3})
    assert str(error.value) == (
        "params.yaml: transformer-step: schedule.step is not dynamic: over the 3 epochs of imdb its multiplier "
        "is 1 at every update (gamma 0.13594476582572051, first_drop 1.0, interval 1.0, step_size 3), and a "
        "schedule moves by 0.1 of its largest multiplier or more. Choose other parameters, or leave the row out: "
        "static stands for a constant rate. See conf/schedule/step.yaml."
    )
    cell("transformer", "step", rows=row, num_epochs={"imdb": 4})


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"function": "cosine", "min_factor": 0.95},
            "its multiplier lies between 0.95 and 1 (min_factor 0.95)",
        ),
        ({"function": "exponential", "decay_rate": 0.01}, "its multiplier lies between 0.95"),
        ({"function": "cosine", "warmup_epochs": 4.5, "granularity": "epoch"}, "leave it no update"),
        (
            {"function": "step", "warmup_epochs": 3, "step_size": 2},
            "is 1 at every update",
        ),  # the warmup moves
        (
            {"function": "cosine", "min_factor": 1.0, "controller": "validation_monitor"},
            "is 1 at every update",
        ),
    ],
)
def test_a_row_that_does_not_move_the_rate_is_refused(row, says):
    with pytest.raises(StudyError, match=r"params\.yaml: lstm-row: schedule\.row is not dynamic") as error:
        cell("lstm", "row", rows={"row": row})
    assert says in str(error.value)
    assert ("or granularity: step" in str(error.value)) == (row.get("granularity") == "epoch")


def test_static_itself_may_have_a_warmup_and_a_controller():
    row = {"function": "static", "warmup_epochs": 1, "controller": "validation_monitor"}
    assert not cell("lstm", "row", rows={"row": row}).moves()


def test_a_candidate_of_the_search_is_asked_whether_it_moves():
    row = cell("transformer", "step")
    assert row.moves()
    assert row.moves({"base_lr": 0.01, "gamma": 0.5, "step_size": 2})
    assert not row.moves({"base_lr": 0.01, "gamma": 0.5, "step_size": 5})
    assert not row.moves({"gamma": 0.97})  # 0.97 ** 2 is above 0.9
    late = cell("lstm", "late_decay", rows={"late_decay": {"start": 0.8}}, num_epochs={"imdb": 1})
    assert late.moves()
    assert not late.moves(steps_per_epoch=5)  # the last of five updates comes before the decay


# --- optimizer and controller ---


def test_each_model_brings_its_optimizer_unless_one_is_put_on_all():
    assert cell("lstm").settings()["optimizer"]["name"] == "adamw"
    adagrad = {"name": "adagrad", "base_lr": 0.02, "search": {"base_lr": {"low": 0.001, "high": 0.1}}}
    for model in ("resnet", "lstm"):
        assert cell(model, optimizer=adagrad).settings()["optimizer"] == {"name": "adagrad", "base_lr": 0.02}


MONITOR = {"name": "validation_monitor", "patience": 1}


@pytest.mark.parametrize(
    ("everywhere", "of_the_row", "expected"),
    [
        ({"name": "none"}, None, {"name": "none"}),
        (MONITOR, None, MONITOR),
        ({"name": "none"}, MONITOR, MONITOR),
        ({"name": "none"}, "validation_monitor", {"name": "validation_monitor"}),
        (MONITOR, "none", {"name": "none"}),
        (MONITOR, {"name": "loss_decay"}, {"name": "loss_decay"}),
    ],
)
def test_a_rows_controller_comes_before_the_one_for_all(everywhere, of_the_row, expected):
    row = {"controller": of_the_row} if of_the_row else {}
    assert cell(controller=everywhere, step=row).settings()["controller"] == expected
    assert cell(schedule="static", controller=everywhere, step=row).settings()["controller"] == everywhere


def test_a_metric_that_the_study_has_not_is_named():
    watching = {"name": "validation_monitor", "watch": "+bleu"}
    with pytest.raises(
        StudyError,
        match=r"^params\.yaml: resnet-step: controller validation_monitor: watch: 'bleu' is not a metric of the "
        r"study's trainings; choose one of accuracy, f1, .*See conf/schedule/step\.yaml",
    ):
        cell(step={"controller": watching})
    for watch in ("accuracy", "f1", "gap", "-gradient_norm"):
        cell(step={"controller": watching | {"watch": watch}})


# --- names and mistakes ---


@pytest.mark.parametrize("warmup", [5, 7.5])
def test_a_warmup_that_leaves_nothing_of_the_training_is_named(warmup):
    with pytest.raises(StudyError) as error:
        cell("lstm", "cosine", cosine={"warmup_epochs": warmup})
    assert str(error.value) == (
        f"params.yaml: lstm-cosine: schedule.cosine.warmup_epochs is {warmup:g}, which leaves nothing of the 5 "
        "epochs of imdb; make it shorter or num_epochs more. See conf/schedule/cosine.yaml."
    )
    cell("lstm", "cosine", cosine={"warmup_epochs": 4.5})


def test_models_and_schedules_that_the_study_does_not_have_are_named():
    with pytest.raises(
        StudyError, match=r"model: 'resnet9' is not a model of this study; choose one of lstm, resnet"
    ):
        cell("resnet9")
    with pytest.raises(
        StudyError, match=r"schedule: 'expo' is not a schedule of this study; choose one of cosine"
    ):
        cell(schedule="expo")


@pytest.mark.parametrize("name", ["a|b", "<b>", "../x", "a b", "step-2", "", "schritt_ä", "a\n"], ids=repr)
@pytest.mark.parametrize("section", ["model", "schedule"])
def test_names_that_could_break_a_folder_or_a_table_are_refused(section, name):
    content = copy.deepcopy(PARAMS)
    content[section][name] = next(iter(content[section].values()))
    with pytest.raises(StudyError) as error:
        check_params(content)
    assert str(error.value) == (
        f"params.yaml: {section}: {name!r} is not a name; use letters, digits and underscores alone."
    )


@pytest.mark.parametrize(("section", "key"), [("compare", "reference"), (None, "preset")])
def test_the_reference_and_the_preset_are_names_too(section, key):
    content = copy.deepcopy(PARAMS)
    (content[section] if section else content)[key] = "static | <script>"
    with pytest.raises(StudyError, match=rf"{key}: 'static \| <script>' is not a name"):
        check_params(content)


@pytest.mark.parametrize("bound", ["low", "high"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_a_range_without_an_end_is_refused(bound, value):
    content = copy.deepcopy(PARAMS)
    content["schedule"]["step"]["search"]["gamma"][bound] = value
    with pytest.raises(
        StudyError,
        match=rf"schedule\.step\.search\.gamma\.{bound}: found (nan|-?inf); input should be a finite",
    ):
        check_params(content)


@pytest.mark.parametrize("section", ["num_epochs", "batch_size"])
def test_what_the_preset_does_not_say_of_a_data_set_its_conf_file_says(section):
    for preset, expected in (
        ({"cifar10": 7, "others": 3}, 7),
        ({"imdb": 7, "others": 3}, 3),
        ({"imdb": 7}, PARAMS["dataset"]["cifar10"][section]),
    ):
        assert getattr(cell(**{section: preset}), section) == expected


# --- the network and the data ---


@pytest.mark.parametrize(
    ("model", "dataset", "network", "data"),
    [
        ("lstm", "cifar10", "text", "image"), ("transformer", "fashion_mnist", "text", "image"),
        ("resnet", "ag_news", "image", "text"), ("resnet18", "imdb", "image", "text"),
    ],
)  # fmt: skip
def test_a_network_for_another_kind_of_data_is_refused_before_anything_is_brought(
    model, dataset, network, data
):
    with pytest.raises(StudyError) as refused:
        composed_params(f"model={model}", f"model.{model}.dataset={dataset}")
    fitting = ", ".join(name for name in architectures() if data in kinds_of(name))
    assert str(refused.value) == (
        f"params.yaml: model.{model}: the network '{model}' is for data of kind {network}, and {dataset} is of kind "
        f"{data}; choose a data set of kind {network}, or one of the networks {fitting}."
        f" See conf/model/{model}.yaml."
    )


def test_a_network_of_ones_own_is_for_the_data_whose_sizes_it_asks_for(tmp_path, monkeypatch):
    asked = {
        "any": ("num_classes", ("image", "text")),
        "images": ("num_classes, image_size", ("image",)),
        "texts": ("num_classes, vocab_size=None", ("text",)),
        "both": ("num_classes, in_channels=3, max_length=1", ("image", "text")),
    }
    text = "".join(f"def {name}({arguments}):\n    ...\n" for name, (arguments, _) in asked.items())
    (tmp_path / "nets_of_kinds.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert {name: kinds_of(f"nets_of_kinds:{name}") for name in asked} == {
        name: kinds for name, (_, kinds) in asked.items()
    }
