"""The search: the same trials whatever is killed, however many there are to be, and a fair one."""

import copy
import itertools
import json
import math
import threading
from pathlib import Path

import pytest

from composed import composed_params
from lrstudy.cells import Cell, default_values, make_cell
from lrstudy.config import TuneParams, check_params
from lrstudy.errors import StudyError
from lrstudy.stages.tune import judge, mean_curves
from lrstudy.tuning import best_trial, storage_uri, tune

PARAMS = composed_params()
NUMBERS = itertools.count()


def make(schedule: str = "step", **changes) -> Cell:
    """A cell of the ResNet with 10 epochs, searching every kind of range; ``changes`` go to the row."""
    content = copy.deepcopy(PARAMS)
    content["num_epochs"]["cifar10"] = 10
    content["model"]["resnet"]["optimizer"] = {
        "name": "sgd", "base_lr": 0.1, "search": {"base_lr": {"low": 0.001, "high": 1.0, "log": True}},
    }  # fmt: skip
    content["schedule"] = {
        "step": {
            "gamma": 0.1, "step_size": None,
            "search": {"gamma": {"low": 0.05, "high": 0.8}, "step_size": {"low": 1, "high": "num_epochs", "int": True}},
        },
        "cosine": {"min_factor": 0.0, "search": {"min_factor": {"choices": [0.0, 0.01, 0.1]}}},
    }  # fmt: skip
    content["schedule"][schedule] |= changes
    return make_cell(check_params(content), "resnet", schedule)


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> str:
    """One Optuna database for all tests: making it takes longer than a search."""
    return f"sqlite:///{tmp_path_factory.mktemp('optuna') / 'optuna.db'}"


@pytest.fixture(autouse=True)
def _storage(database, monkeypatch):
    monkeypatch.setenv("LRSTUDY_OPTUNA_STORAGE", database)


@pytest.fixture
def key() -> str:
    """A study that no other test has."""
    return f"{next(NUMBERS):016d}"


def loss(values: dict) -> float:
    """An objective with its minimum at a rate of 0.02; not a number that a short decimal has."""
    found = 0.5 + (math.log10(values["base_lr"]) - math.log10(0.02)) ** 2
    found += (values.get("gamma", 0) - 0.4) ** 2 + abs(values.get("step_size", 7) - 7) / 30
    return found + values.get("min_factor", 0)


class Trainings:
    """Evaluates trials by ``loss``; keeps which batches were asked for."""

    def __init__(self, objective=loss):
        self.objective, self.batches = objective, []

    def numbers(self) -> list[int]:
        """All trials that were trained, in order."""
        return [number for batch in self.batches for number in batch]

    def __call__(self, trials):
        self.batches.append([number for number, _ in trials])
        return [
            (self.objective(values), {"status": "finished", "ended": number}) for number, values in trials
        ]


def params(num_trials: int = 6, batch_size: int = 2, sampler_seed: int = 0, rungs=(1.0,)) -> TuneParams:
    return TuneParams(
        num_trials=num_trials,
        rungs=list(rungs),
        seeds=[101],
        batch_size=batch_size,
        sampler_seed=sampler_seed,
    )


# --- the trials ---


@pytest.mark.parametrize("batch_size", [1, 4])
def test_there_are_as_many_trials_as_asked_for_in_whole_batches(tmp_path, key, batch_size):
    trainings = Trainings()
    trials = tune(make(), params(6, batch_size), key, tmp_path, trainings)
    assert [trial["number"] for trial in trials] == list(range(6))
    assert trainings.numbers() == list(range(6))
    assert [len(batch) for batch in trainings.batches] == {1: [1] * 6, 4: [4, 2]}[batch_size]


def test_the_first_trial_is_the_defaults_and_all_lie_within_their_ranges(tmp_path, key):
    trials = tune(make(), params(8, 4), key, tmp_path, Trainings())
    # conf leaves step_size open: its default is worked out from the number of epochs
    assert trials[0]["values"] == default_values(make())
    assert trials[0]["values"]["base_lr"] == 0.1
    assert isinstance(trials[0]["values"]["step_size"], int)
    for trial in trials:
        values = trial["values"]
        assert set(values) == {"base_lr", "gamma", "step_size"}
        assert 0.001 <= values["base_lr"] <= 1.0
        assert 0.05 <= values["gamma"] <= 0.8
        assert type(values["step_size"]) is int
        assert 1 <= values["step_size"] <= 10
        assert trial["objective"] == loss(values)
        assert (trial["status"], trial["ended"]) == ("finished", trial["number"])
    assert len({json.dumps(trial["values"]) for trial in trials}) == 8


def test_a_logarithmic_range_is_searched_by_decades(tmp_path, key):
    trials = tune(make(), params(12, 12), key, tmp_path, Trainings())
    rates = [trial["values"]["base_lr"] for trial in trials[1:]]
    # evenly in the logarithm, 7.3 of 11 lie below 0.1 on average; evenly in the rate itself 1.1 would
    assert sum(rate < 0.1 for rate in rates) >= 4


def test_choices_are_chosen_from_and_keep_their_values(tmp_path, key):
    trials = tune(make("cosine"), params(8, 8), key, tmp_path, Trainings())
    chosen = [trial["values"]["min_factor"] for trial in trials]
    assert chosen[0] == 0.0
    assert set(chosen) <= {0.0, 0.01, 0.1}
    assert len(set(chosen)) > 1


def test_values_make_a_training_and_come_back_from_json_unchanged(tmp_path, key):
    cell = make()
    trials = tune(cell, params(3), key, tmp_path, Trainings())
    for trial in json.loads(json.dumps(trials)):
        settings = cell.settings(trial["values"])
        assert settings["optimizer"]["base_lr"] == trial["values"]["base_lr"]
        assert settings["schedule"]["parameters"]["step_size"] == trial["values"]["step_size"]


def test_the_sampler_seed_decides_the_trials(tmp_path, key, uninterrupted):
    other = tune(make(), params(6, 4, sampler_seed=1), key, tmp_path, Trainings())
    first = uninterrupted[4]
    assert first[0] == other[0]  # the defaults
    assert all(mine["values"] != theirs["values"] for mine, theirs in zip(first[1:], other[1:], strict=True))


def test_the_search_learns_from_earlier_batches(tmp_path, key, uninterrupted):
    """From the fifth trial on, other results lead to other suggestions."""
    away = tune(make(), params(6, 4), key, tmp_path, Trainings(lambda values: -loss(values)))
    towards = uninterrupted[4]
    assert [trial["values"] for trial in towards[:4]] == [trial["values"] for trial in away[:4]]
    assert all(mine["values"] != theirs["values"] for mine, theirs in zip(towards[4:], away[4:], strict=True))


# --- killed and continued ---


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, database) -> dict[int, list[dict]]:
    """Six trials by batch size, from a search that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRSTUDY_OPTUNA_STORAGE", database)
        root = tmp_path_factory.mktemp("uninterrupted")
        return {
            size: tune(make(), params(6, size), f"{next(NUMBERS):016d}", root, Trainings()) for size in (2, 4)
        }


def stored_states(database: str, key: str) -> list[str]:
    import optuna

    study = optuna.load_study(study_name=f"resnet-step-{key}", storage=database)
    return [trial.state.name for trial in study.trials]


@pytest.mark.parametrize(("batch_size", "batch"), [(2, 0), (2, 2), (4, 1)])
def test_killed_while_a_batch_trains(tmp_path, key, database, uninterrupted, batch_size, batch):
    trainings = Trainings()

    def dies(trials):
        if len(trainings.batches) == batch:
            raise Killed
        return trainings(trials)

    with pytest.raises(Killed):
        tune(make(), params(6, batch_size), key, tmp_path, dies)
    assert "RUNNING" in stored_states(database, key)
    trials = tune(make(), params(6, batch_size), key, tmp_path, trainings)
    assert trials == uninterrupted[batch_size]
    assert trainings.numbers() == list(range(6))  # what was finished was not trained again
    assert stored_states(database, key) == ["COMPLETE"] * 6


@pytest.mark.parametrize("method", ["add_trial", "tell", "Trial.set_user_attr"])
@pytest.mark.parametrize(("call", "before"), [(0, False), (5, True)])
def test_killed_between_two_writes_to_the_database(
    tmp_path, key, database, uninterrupted, monkeypatch, method, call, before
):
    import optuna

    owner = optuna.trial.Trial if method.startswith("Trial.") else optuna.Study
    name = method.removeprefix("Trial.")
    original, calls = getattr(owner, name), itertools.count()

    def dying(self, *arguments, **options):
        if isinstance(self, optuna.Study) and "memory" in type(self._storage).__name__.lower():
            return original(self, *arguments, **options)  # not the stored study
        now = next(calls) == call
        if now and before:
            raise Killed
        found = original(self, *arguments, **options)
        if now:
            raise Killed
        return found

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            tune(make(), params(6, 4), key, tmp_path, Trainings())
    assert tune(make(), params(6, 4), key, tmp_path, Trainings()) == uninterrupted[4]
    assert stored_states(database, key) == ["COMPLETE"] * 6


def test_raising_the_number_of_trials_continues_as_if_it_had_been_so_from_the_start(
    tmp_path, key, uninterrupted
):
    trainings = Trainings()
    for num_trials in (1, 5, 6):
        trials = tune(make(), params(num_trials, 4), key, tmp_path, trainings)
        assert trials == uninterrupted[4][:num_trials]
    assert trainings.numbers() == list(range(6))
    # fewer again: the first ones, nothing is trained
    assert tune(make(), params(2, 4), key, tmp_path, trainings) == uninterrupted[4][:2]
    assert trainings.numbers() == list(range(6))


def test_two_processes_tuning_the_same_cell_train_every_trial_once(tmp_path, key, uninterrupted, capsys):
    """The second waits for the first; flock tells two open files of one process apart like two processes'."""
    trainings, found = Trainings(), {}
    started = threading.Event()

    def slow(trials):
        started.set()
        return trainings(trials)

    def search(name: str) -> None:
        found[name] = tune(make(), params(4, 2), key, tmp_path, slow)

    threads = [threading.Thread(target=search, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert started.is_set()
    assert found["first"] == found["second"] == uninterrupted[2][:4]
    assert trainings.numbers() == list(range(4))


def test_two_cells_may_make_the_database_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("LRSTUDY_OPTUNA_STORAGE")
    barrier, found = threading.Barrier(2), {}

    def search(schedule: str) -> None:
        barrier.wait()
        found[schedule] = tune(make(schedule), params(2), "0" * 16, tmp_path, Trainings())

    threads = [threading.Thread(target=search, args=(name,)) for name in ("step", "cosine")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: len(trials) for name, trials in found.items()} == {"step": 2, "cosine": 2}
    assert (tmp_path / "optuna.db").exists()


# --- divergence, the best, mistakes ---


def test_a_diverged_trial_is_kept_with_its_reason_and_is_never_the_best(tmp_path, key):
    def evaluate(trials):
        return [
            (bad, {"status": "diverged", "reason": "the loss was not finite in epoch 2"})
            if (bad := {1: math.inf, 3: math.nan}.get(number)) is not None
            else (loss(values), {"status": "finished"})
            for number, values in trials
        ]

    trials = tune(make(), params(6, 2), key, tmp_path, evaluate)
    assert len(trials) == 6
    for number in (1, 3):
        assert trials[number]["objective"] is None
        assert trials[number]["status"] == "diverged"
        assert trials[number]["reason"] == "the loss was not finite in epoch 2"
    assert best_trial(trials)["number"] not in (1, 3)
    assert best_trial(trials)["objective"] == min(
        t["objective"] for t in trials if t["objective"] is not None
    )


def test_a_search_in_which_all_diverge_ends_and_gives_the_defaults(tmp_path, key):
    trials = tune(make(), params(6, 4), key, tmp_path, Trainings(lambda values: math.inf))
    assert [trial["objective"] for trial in trials] == [None] * 6
    assert best_trial(trials)["values"] == default_values(make())


def test_the_best_is_the_lowest_and_the_earlier_of_equals():
    trials = [
        {"number": number, "objective": value} for number, value in enumerate([None, 0.5, 0.2, 0.2, None])
    ]
    assert best_trial(trials)["number"] == 2
    assert best_trial(trials[::-1])["number"] == 2
    assert best_trial(trials[:1] + trials[4:])["number"] == 0


OUTSIDE = [
    ("step", {"gamma": 0.9}, "the default gamma = 0.9 lies outside its search space (from 0.05 to 0.8)"),
    ("step", {"step_size": 2.5}, "the default step_size = 2.5 lies outside its search space (a whole number from 1 to 10)"),
    ("cosine", {"min_factor": 0.5}, "the default min_factor = 0.5 lies outside its search space (one of [0.0, 0.01, 0.1])"),
]  # fmt: skip


@pytest.mark.parametrize(("schedule", "changes", "message"), OUTSIDE)
def test_defaults_outside_their_range_are_an_error_before_anything_is_trained(
    tmp_path, key, schedule, changes, message
):
    with pytest.raises(StudyError) as error:
        tune(make(schedule, **changes), params(), key, tmp_path, Trainings(None))
    assert str(error.value) == f"conf: resnet-{schedule}: {message}; the first trial is the defaults, so " + (
        "widen the one or move the other."
    )


def test_an_integer_range_without_a_whole_number_is_an_error(tmp_path, key):
    cell = make(search={"step_size": {"low": 1.2, "high": 1.8, "int": True}}, step_size=1.5)
    with pytest.raises(
        StudyError, match=r"resnet-step: search\.step_size has no whole number from 1\.2 to 1\.8"
    ):
        tune(cell, params(), key, tmp_path, Trainings())


@pytest.mark.parametrize(
    "uri", ["nonsense", "sqlite:////nowhere/at/all/optuna.db", "nodriver://alice:s3cr@host/db"]
)
def test_a_database_that_cannot_be_opened_is_one_clear_error(tmp_path, key, monkeypatch, uri):
    monkeypatch.setenv("LRSTUDY_OPTUNA_STORAGE", uri)
    with pytest.raises(StudyError, match="cannot be opened") as error:
        tune(make(), params(), key, tmp_path, Trainings())
    assert "LRSTUDY_OPTUNA_STORAGE" in str(error.value)
    assert "s3cr" not in str(error.value)
    assert "\n" not in str(error.value)


def test_the_database_is_in_the_workspace_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.delenv("LRSTUDY_OPTUNA_STORAGE")
    assert storage_uri(Path("/work")) == "sqlite:////work/optuna.db"
    monkeypatch.setenv("LRSTUDY_OPTUNA_STORAGE", "sqlite:///mine.db")
    assert storage_uri(Path("/work")) == "sqlite:////work/mine.db"
    monkeypatch.setenv("LRSTUDY_OPTUNA_STORAGE", "postgresql://host/db")
    assert storage_uri(Path("/work")) == "postgresql://host/db"


# --- the objective ---


def outcome(losses: list[float], status: str = "finished", start: float = 100.0) -> dict:
    """What a training leaves; epoch ``e`` ends at ``start + e`` seconds and took half a second."""
    return {
        "status": status,
        "epochs": [
            {
                "epoch": epoch,
                "train/loss": value / 2,
                "validation/loss": value,
                "validation/accuracy": epoch / 10,
                "validation/f1": epoch / 20,
                "lr": 0.1 / epoch,
                "seconds": 0.5,
                "time": start + epoch,
            }
            for epoch, value in enumerate(losses, 1)
        ],
    }


def test_the_objective_is_the_mean_over_seeds_of_the_last_validation_loss():
    # not the lowest: 0.2 and 0.1 on the way do not count
    objective, known = judge([outcome([0.9, 0.2, 0.5]), outcome([0.9, 0.1, 0.75], start=200.25)])
    assert objective == 0.625
    assert known == {"status": "finished", "seconds": 3.0, "ended": 203_250}


def test_one_diverged_seed_makes_the_trial_diverged():
    objective, known = judge([outcome([0.9, 0.2, 0.5]), outcome([0.9, math.nan], "diverged")])
    assert objective == math.inf
    assert known["status"] == "diverged"
    assert known["reason"] == "the loss was not finite in epoch 2"
    assert known["seconds"] == 2.5


def test_a_trials_curves_are_means_over_its_seeds():
    found = mean_curves([outcome([1.0, 0.5]), outcome([2.0, 1.0], start=200.0)], 0.75)
    assert ("validation/loss", 1.5, 1, 201_000) in found
    assert ("validation/loss", 0.75, 2, 202_000) in found
    assert ("train/loss", 0.375, 2, 202_000) in found
    assert ("lr", 0.05, 2, 202_000) in found
    assert ("objective", 0.75, 0, 202_000) in found
    assert len(found) == 2 * 5 + 1


def test_the_curves_of_a_diverged_trial_end_with_its_first_seed_and_have_no_objective():
    found = mean_curves([outcome([1.0, 0.5, 0.4]), outcome([2.0, math.nan], "diverged")], math.inf)
    assert {step for _, _, step, _ in found} == {1, 2}
    assert "objective" not in {name for name, *_ in found}
    assert math.isnan(
        next(value for name, value, step, _ in found if name == "validation/loss" and step == 2)
    )
