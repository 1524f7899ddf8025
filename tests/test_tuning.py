"""The search: the same trials whoever trains them, whatever is killed, however many there are to be."""

import contextlib
import copy
import itertools
import json
import math
import multiprocessing
import random
import sqlite3
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from composed import composed_params
from lrstudy.errors import StudyError
from lrstudy.recipe.cells import Cell, default_values, make_cell
from lrstudy.recipe.config import TuneParams, check_params
from lrstudy.schedules import make_schedule
from lrstudy.search import tuning
from lrstudy.search.best import cost, judge, together
from lrstudy.search.tuning import (
    CONFIRMATION,
    SEARCH,
    Trials,
    add_result,
    best_trial,
    budget,
    differences,
    draw,
    earlier_studies,
    most_trainings,
    moves,
    search_steps,
    seeds_of,
    storage_uri,
    study_name,
)
from tiny_data import record, settings

PARAMS = composed_params()
NUMBERS = itertools.count()
ORDERS = st.integers(0, 2**32).map(random.Random)
PATIENCE = 120  # seconds; only what is broken waits for so long
NUM_EPOCHS = 10


def make(function: str = "step", name: str | None = None, **changes) -> Cell:
    """A cell of the ResNet with 10 epochs, searching every kind of range; ``changes`` go to the row."""
    content = copy.deepcopy(PARAMS)
    content["num_epochs"]["cifar10"] = NUM_EPOCHS
    content["model"]["resnet"]["optimizer"] = {
        "name": "sgd", "base_lr": 0.1, "search": {"base_lr": {"low": 0.001, "high": 1.0, "log": True}},
    }  # fmt: skip
    rows = {
        "step": {
            "gamma": 0.1, "step_size": 3,
            "search": {"gamma": {"low": 0.05, "high": 0.8}, "step_size": {"low": 1, "high": "num_epochs", "int": True}},
        },
        "cosine": {"min_factor": 0.0, "search": {"min_factor": {"choices": [0.0, 0.01, 0.1]}}},
        "static": {"search": {}},
    }  # fmt: skip
    content["schedule"] = {name or function: {"function": function} | rows[function] | changes}
    return make_cell(check_params(content), "resnet", name or function)


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> str:
    """One Optuna database for all tests: making it takes longer than a search."""
    return f"sqlite:///{tmp_path_factory.mktemp('optuna') / 'optuna.db'}"


def without_fsync(connection: sqlite3.Connection, _: object) -> None:
    """Processes are killed here, but the power stays on: nothing need wait for the disk."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(autouse=True, scope="module")
def _fast():
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    event.listen(Engine, "connect", without_fsync)
    yield
    event.remove(Engine, "connect", without_fsync)


@pytest.fixture(autouse=True)
def _storage(database, monkeypatch):
    monkeypatch.setenv("LRSTUDY_OPTUNA_STORAGE", database)


def another_key() -> str:
    """A study that no other test has."""
    return f"{next(NUMBERS):016d}"


@pytest.fixture
def key() -> str:
    return another_key()


def loss(values: dict) -> float:
    """An objective with its minimum at a rate of 0.02; not a number that a short decimal has."""
    found = 0.5 + (math.log10(values["base_lr"]) - math.log10(0.02)) ** 2
    found += (values.get("gamma", 0) - 0.4) ** 2 + abs(values.get("step_size", 7) - 7) / 30
    return found + values.get("min_factor", 0)


def by_loss(number: int, values: dict, seed: int) -> float:
    """The loss of a training: other seeds, other luck, for every trial another."""
    return loss(values) + ((seed + 7 * number) % 5) / 50


@dataclass
class Trainings:
    """Evaluates trials by ``objective`` (number, values, seed); keeps what was asked for, call by call."""

    objective: Callable[[int, dict, int], float] = by_loss
    before: Callable[[str, list[int]], None] = lambda phase, numbers: None
    calls: list[tuple[str, list[int]]] = field(default_factory=list)
    seeds: dict[str, list[int]] = field(default_factory=lambda: {SEARCH: [101], CONFIRMATION: [102, 103]})

    def numbers(self, phase: str = SEARCH) -> list[int]:
        """All trials that were trained in ``phase``, in order."""
        return [number for where, numbers in self.calls if where == phase for number in numbers]

    def __call__(self, phase, trials):
        numbers = [number for number, _ in trials]
        self.before(phase, numbers)
        self.calls.append((phase, numbers))
        return [self._train(number, values, phase) for number, values in trials]

    def _train(self, number: int, values: dict, phase: str) -> tuple[float, dict]:
        found = [self.objective(number, values, seed) for seed in self.seeds[phase]]
        losses = [one if math.isfinite(one) else None for one in found]
        known = {"status": "diverged" if None in losses else "finished", "losses": losses}
        if None in losses:
            return math.inf, known | {"reason": "the loss was not finite in epoch 2"}
        return sum(losses) / len(losses), known


def params(
    num_trials: int = 6,
    batch_size: int = 2,
    sampler_seed: int = 0,
    finalists: int = 2,
    confirm_seeds=(),
    num_quasi_random: int = 4,
    searches: int = 1,
) -> TuneParams:
    return TuneParams(
        num_trials=num_trials,
        num_quasi_random=num_quasi_random,
        seeds=[101],
        finalists=finalists,
        confirm_seeds=list(confirm_seeds),
        searches=searches,
        batch_size=batch_size,
        sampler_seed=sampler_seed,
    )


def tune(
    cell: Cell,
    search: TuneParams,
    trainings: Trainings,
    number: int = 0,
    told: Callable[[dict], dict] = lambda finished: finished,
) -> list[dict]:
    """The trials of a search, each batch trained when the search asks for it; ``told`` what came of it."""
    from optuna.trial import create_trial

    space, results = tuning.distributions(cell), {}
    steps = search_steps(cell, search, number)
    step = next(steps, None)
    while step is not None:
        phase, wanted = step
        finished = {}
        outcomes = trainings(phase, list(wanted.items()))
        for (trial, values), (objective, known) in zip(wanted.items(), outcomes, strict=True):
            add_result(results, phase, trial, values, objective, known)
            value = objective if math.isfinite(objective) else math.inf
            finished[trial] = create_trial(params=values, distributions=dict(space), value=value)
        try:
            step = steps.send(told(finished))
        except StopIteration:
            step = None
    return [results[trial] for trial in sorted(results)]


def values_of(trials: list[dict]) -> list[dict]:
    return [trial["values"] for trial in trials]


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, list[dict]]:
    """What a search finds: six trials by batch size, or confirmed."""
    searches = {"2": params(6, 2), "4": params(6, 4), "confirmed": CONFIRMED}
    return {name: tune(make(), settings, Trainings()) for name, settings in searches.items()}


CONFIRMED = params(6, 4, finalists=3, confirm_seeds=(102, 103))
PHASES = (SEARCH, CONFIRMATION)


# --- the trials ---


@pytest.mark.parametrize(("batch_size", "calls"), [(1, [1] * 6), (4, [4, 2]), (6, [6])])
def test_there_are_as_many_trials_as_asked_for_a_batch_at_a_time(batch_size, calls):
    """A batch is complete before the next one, which its results decide, begins."""
    trainings = Trainings()
    trials = tune(make(), params(6, batch_size), trainings)
    assert [trial["number"] for trial in trials] == list(range(6))
    assert trainings.numbers() == list(range(6))
    assert [len(numbers) for _, numbers in trainings.calls] == calls


def test_the_first_trial_is_the_defaults_and_all_lie_within_their_ranges():
    trials = tune(make(), params(8, 8), Trainings())
    assert trials[0]["values"] == default_values(make())
    assert trials[0]["values"]["base_lr"] == 0.1
    assert isinstance(trials[0]["values"]["step_size"], int)
    for trial in trials:
        values = trial["values"]
        assert set(trial) == {"number", "values", "objective", SEARCH, CONFIRMATION}
        assert set(values) == {"base_lr", "gamma", "step_size"}
        assert 0.001 <= values["base_lr"] <= 1.0
        assert 0.05 <= values["gamma"] <= 0.8
        assert type(values["step_size"]) is int
        assert 1 <= values["step_size"] <= 10
        found = by_loss(trial["number"], values, 101)
        assert trial[SEARCH] == {"objective": found, "status": "finished", "losses": [found]}
        assert (trial["objective"], trial[CONFIRMATION]) == (found, None)
    assert len({json.dumps(values) for values in values_of(trials)}) == 8
    # What is read again from its JSON is the same setting.
    for trial in json.loads(json.dumps(trials)):
        settings = make().settings(trial["values"])
        assert settings["optimizer"]["base_lr"] == trial["values"]["base_lr"]
        assert settings["schedule"]["parameters"]["step_size"] == trial["values"]["step_size"]
        assert trial["values"] == trials[trial["number"]]["values"]
    # A logarithmic range is searched by decades: evenly in the logarithm 4.7 of 7 rates lie below 0.1 on
    # average, evenly in the rate itself 0.7 would.
    assert sum(values["base_lr"] < 0.1 for values in values_of(trials[1:])) >= 3


def test_choices_are_chosen_from_and_keep_their_values():
    trials = tune(make("cosine"), params(8, 8), Trainings())
    chosen = [values["min_factor"] for values in values_of(trials)]
    assert chosen[0] == 0.0
    assert set(chosen) <= {0.0, 0.01, 0.1}
    assert len(set(chosen)) > 1


def test_the_sampler_seed_decides_the_trials(uninterrupted):
    other = tune(make(), params(6, 4, sampler_seed=1), Trainings())
    first = uninterrupted["4"]
    assert first[0] == other[0]  # the defaults
    assert all(
        mine != theirs for mine, theirs in zip(values_of(first[1:]), values_of(other[1:]), strict=True)
    )


def test_the_search_learns_from_earlier_batches(uninterrupted):
    """From the fifth trial on, TPE's first, other results lead to other suggestions; two may agree by chance."""

    def opposite(number, values, seed):
        return -loss(values)

    away = values_of(tune(make(), params(6, 4), Trainings(opposite)))
    towards = values_of(uninterrupted["4"])
    assert towards[:4] == away[:4]
    assert towards[4] != away[4]


# --- which values are tried ---

SCHEDULES = ("step", "cosine", "static")


def test_every_schedule_of_a_model_meets_the_same_base_rates():
    """As many trials of the one as of the other: none wins because it met the better rates."""
    search = params(16, 16, num_quasi_random=16)
    rates = {
        name: [v["base_lr"] for v in values_of(tune(make(name), search, Trainings()))] for name in SCHEDULES
    }
    assert rates["step"] == rates["cosine"] == rates["static"]
    assert len(set(rates["static"])) == 16
    # They come from the sequence and not from what was found.
    opposite = tune(make(), search, Trainings(lambda n, v, s: -loss(v)))
    assert [values["base_lr"] for values in values_of(opposite)] == rates["step"]


@pytest.mark.parametrize(("seed", "dimensions"), [(0, 8), (2**32 - 1, 12)])
def test_the_points_are_those_of_optunas_sampler(seed, dimensions):
    import optuna

    unit = {f"u{i:02d}": optuna.distributions.FloatDistribution(0.0, 1.0) for i in range(dimensions)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(sampler=optuna.samplers.QMCSampler(scramble=True, seed=seed))
        # The sampler takes its space from a study's first trial.
        first = {"params": dict.fromkeys(unit, 0.0), "distributions": unit, "value": 0.0}
        study.add_trial(optuna.trial.create_trial(**first))
        expected = [tuple(study.ask(unit).params.values()) for _ in range(5)]
    assert [tuning._point(seed, index, dimensions) for index in range(5)] == expected


def test_the_points_are_spread_evenly():
    """Of the first 8 points of the sequence each eighth of every range has one, which chance would not do."""
    trials = values_of(tune(make(), params(9, 9, num_quasi_random=9), Trainings()))[1:]
    # base_lr: 3 decades, by its logarithm; gamma: from 0.05 to 0.8
    rates = sorted(int(8 * (math.log10(values["base_lr"]) + 3) / 3) for values in trials)
    factors = sorted(int(8 * (values["gamma"] - 0.05) / 0.75) for values in trials)
    assert rates == factors == list(range(8))


def test_after_the_quasi_random_trials_tpe_suggests():
    """Before, the base rates are those of every schedule; after, what was found leads each its own way."""

    def other_base_rates(num_quasi_random: int) -> list[int]:
        found = []
        for name in ("step", "static"):
            search = params(8, 4, num_quasi_random=num_quasi_random)
            trials = tune(make(name), search, Trainings())
            found.append([values["base_lr"] for values in values_of(trials)])
        return [number for number, (a, b) in enumerate(zip(*found, strict=True)) if a != b]

    assert other_base_rates(8) == []
    assert other_base_rates(4) == [4, 5, 6, 7]


def cosine_with(base_rates: list[float], factors: list[float]) -> Cell:
    """A cell whose search space is finite."""
    content = copy.deepcopy(PARAMS)
    content["num_epochs"]["cifar10"] = NUM_EPOCHS
    content["model"]["resnet"]["optimizer"] = {
        "name": "sgd", "base_lr": base_rates[0], "search": {"base_lr": {"choices": base_rates}},
    }  # fmt: skip
    row = {"min_factor": factors[0], "search": {"min_factor": {"choices": factors}}}
    content["schedule"] = {"cosine": row}
    return make_cell(check_params(content), "resnet", "cosine")


@pytest.mark.parametrize(("num_quasi_random", "batch_size"), [(1, 4), (2, 1), (16, 1), (16, 4)])
def test_what_was_tried_is_not_a_trial_and_where_nothing_is_left_the_search_ends(
    num_quasi_random, batch_size
):
    """2 x 2 choices and six trials: four of them there are, and no fifth is paid for."""
    cell = cosine_with([0.1, 0.01], [0.0, 0.1])
    trainings = Trainings()
    search = params(6, batch_size, num_quasi_random=num_quasi_random)
    trials = tune(cell, search, trainings)
    assert values_of(trials)[0] == {"base_lr": 0.1, "min_factor": 0.0}
    tried = {(values["base_lr"], values["min_factor"]) for values in values_of(trials)}
    assert tried == {(rate, factor) for rate in (0.1, 0.01) for factor in (0.0, 0.1)}
    assert trainings.numbers() == [0, 1, 2, 3]
    # With more trials asked for, too.
    assert tune(cell, search.model_copy(update={"num_trials": 9}), Trainings()) == trials


@hypothesis.settings(max_examples=30)  # each goes through a whole space
@given(
    st.lists(st.sampled_from([1.0, 0.5, 0.1, 0.05, 0.01]), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.3]), min_size=1, max_size=4, unique=True),
    st.integers(0, 20),
)
def test_a_finite_space_is_gone_through_without_repetition(base_rates, factors, seed):
    cell = cosine_with(base_rates, factors)
    space, tried = tuning.distributions(cell), [default_values(cell)]
    for number in range(1, len(base_rates) * len(factors)):
        values = tuning._quasi_random(tried, number, space, seed, cell)
        assert values not in tried
        tried.append(values)
    assert tuning._quasi_random(tried, len(tried), space, seed, cell) is None


def test_a_rate_that_does_not_move_is_not_drawn():
    """A step at the last epoch's end or of a factor near 1: constant, and nothing that one may call dynamic."""
    still = {
        "gamma": {"low": 0.05, "high": 1.0},
        "step_size": {"low": 1, "high": "num_epochs", "int": True},
    }
    cell = make(search=still, step_size=5)
    search = params(24, 12, num_quasi_random=12)
    trials = values_of(tune(cell, search, Trainings()))
    for values in trials:
        assert values["step_size"] < NUM_EPOCHS
        # its last update comes after (10 - 1) // step_size drops
        assert values["gamma"] ** ((NUM_EPOCHS - 1) // values["step_size"]) <= 0.9
    assert len(trials) == 24
    # The base rates are still the model's.
    rates = values_of(tune(make("static"), search, Trainings()))[:12]
    assert [v["base_lr"] for v in trials[:12]] == [v["base_lr"] for v in rates]


@pytest.mark.parametrize(
    ("gamma", "step_size", "moving"),
    [(0.1, 10, False), (0.1, 9, True), (0.9, 9, True), (0.91, 9, False), (0.95, 4, False), (0.94, 4, True)],
)
def test_a_multiplier_moves_if_it_moves_by_a_tenth(gamma, step_size, moving):
    """0.95^2 is 0.9025, 0.94^2 is 0.8836; at the end of 10 epochs of 10 no update comes any more."""
    assert moves(make(), {"base_lr": 0.1, "gamma": gamma, "step_size": step_size}) is moving


def test_the_committed_rows_step_of_three_epochs_in_three_does_not_move():
    """transformer-step of the first study: gamma 0.1359, step_size 3 of 3 epochs; static must not."""
    content = copy.deepcopy(PARAMS)
    content["num_epochs"]["cifar10"] = 3
    row = {"gamma": 0.1, "step_size": 1, "search": {"gamma": {"low": 0.05, "high": 0.8}}}
    content["schedule"] = {"step": row, "static": {"search": {}}}
    cells = [make_cell(check_params(content), "resnet", name) for name in ("step", "static")]
    assert not moves(cells[0], {"base_lr": 0.1, "gamma": 0.1359, "step_size": 3})
    assert moves(cells[0], {"base_lr": 0.1, "gamma": 0.1359, "step_size": 2})
    assert moves(cells[1], {"base_lr": 0.1})
    assert make_schedule("step", 3, gamma=0.1359, step_size=3)(2.999) == 1.0


def test_a_search_of_its_own_has_its_own_values_and_the_same_defaults():
    first, second = (tune(make(), params(6, 4), Trainings(), number) for number in (0, 1))
    assert first[0] == second[0]
    assert all(a != b for a, b in zip(values_of(first[1:]), values_of(second[1:]), strict=True))
    assert tune(make(), params(6, 4, sampler_seed=1), Trainings()) == second


# --- confirmation ---

BAD = math.inf
# By seed the loss of each trial, ``BAD`` where it diverged (None: must not be trained there), and the number of
# the winner; 101 is the search's seed, 102 and 103 confirm the best three.
TABLES = {
    "the mean over all seeds decides and not the search's": (
        [0.9, 0.1, 0.8, 0.4, 0.2, 0.3],
        [None, 0.9, None, None, 0.4, 0.3],
        [None, 0.8, None, None, 0.3, 0.2],  # 0.6, 0.3, 0.2667
        5,
    ),
    "the lowest of the search stays if it is": (
        [0.9, 0.1, 0.8, 0.4, 0.2, 0.3],
        [None, 0.3, None, None, 0.4, 0.3],
        [None, 0.2, None, None, 0.3, 0.3],  # 0.2, 0.3, 0.3
        1,
    ),
    "the defaults have no place of their own": (
        [0.4, 0.3, 0.2, 0.1, 0.5, 0.6],
        [None, 0.3, 0.2, 0.1, None, None],
        [None, 0.3, 0.2, 0.1, None, None],
        3,
    ),
    "the defaults among the best": (
        [0.2, 0.1, 0.3, 0.4, 0.5, 0.6],
        [0.2, 0.9, 0.3, None, None, None],
        [0.2, 0.9, 0.3, None, None, None],
        0,
    ),
    "one diverged training among several is worse than any loss": (
        [0.9, 0.1, 0.8, 0.4, 0.2, 0.3],
        [None, 0.1, None, None, 0.9, 0.8],
        [None, BAD, None, None, 0.9, 0.8],
        5,
    ),
    "what diverged in the search is not confirmed even if places are left": (
        [0.9, BAD, BAD, BAD, BAD, 0.2],
        [0.1, None, None, None, None, 0.7],
        [0.1, None, None, None, None, 0.7],  # 0.3667, 0.5333
        0,
    ),
    "all finalists diverge: the best of the others": (
        [0.9, 0.1, 0.8, 0.4, 0.2, 0.3],
        [None, BAD, None, None, BAD, BAD],
        [None, 0.1, None, None, 0.2, 0.3],
        3,
    ),
    "an unconfirmed loss is not compared with a mean over seeds": (
        [0.31, 0.1, 0.8, 0.4, 0.2, 0.3],
        [None, 0.9, None, None, 0.8, 0.7],
        [None, 0.9, None, None, 0.8, 0.7],
        5,
    ),
    "the earlier of equals": ([0.5] * 6, [0.5] * 3 + [None] * 3, [0.5] * 3 + [None] * 3, 0),
    "all diverge": ([BAD] * 6, [None] * 6, [None] * 6, 0),
}


@pytest.mark.parametrize("name", TABLES)
def test_which_trials_are_confirmed_and_which_wins(name):
    *table, winner = TABLES[name]
    by_seed = dict(zip([101, 102, 103], table, strict=True))
    trainings = Trainings(lambda number, values, seed: by_seed[seed][number])
    search = params(6, 6, finalists=3, confirm_seeds=(102, 103))
    trials = tune(make(), search, trainings)

    going = [number for number, found in enumerate(by_seed[102]) if found is not None]
    assert trainings.calls == [(SEARCH, list(range(6)))] + ([(CONFIRMATION, going)] if going else [])
    for trial in trials:
        number = trial["number"]
        seeds = (101, 102, 103) if number in going else (101,)
        losses = [by_seed[seed][number] for seed in seeds]
        assert (trial[CONFIRMATION] is not None) == (number in going)
        assert trial["objective"] == (None if BAD in losses else pytest.approx(sum(losses) / len(losses)))
    best = best_trial(trials)
    assert best["number"] == winner
    if None not in (best["objective"], trials[0][CONFIRMATION]) and trials[0]["objective"] is not None:
        assert best["objective"] <= trials[0]["objective"]


def test_one_lucky_seed_does_not_win():
    """transformer-step of the first study: another rate was better by 0.0024 with the one tuning seed.

    The losses of two other seeds are its own, and for the defaults those of the constant rate.
    """
    found = {
        0: {101: 0.37067, 102: 0.37019, 103: 0.33010},
        1: {101: 0.36829, 102: 0.39628, 103: 0.41220},
    }
    trainings = Trainings(lambda number, values, seed: found[number][seed])
    assert best_trial(tune(make(), params(2), trainings))["number"] == 1
    confirmed = params(2, finalists=2, confirm_seeds=(102, 103))
    assert best_trial(tune(make(), confirmed, trainings))["number"] == 0


def test_the_phases_have_their_seeds():
    assert seeds_of(CONFIRMED, SEARCH) == [101]
    assert seeds_of(CONFIRMED, CONFIRMATION) == [102, 103]


def test_studies_of_different_phases_and_searches_are_different():
    key = "0123456789abcdef0123"
    names = [study_name("resnet-step", key, phase, search) for search in (0, 1) for phase in PHASES]
    assert names == [
        "resnet-step-0123456789abcdef",
        "resnet-step-0123456789abcdef-confirmation",
        "resnet-step-0123456789abcdef-search-2",
        "resnet-step-0123456789abcdef-search-2-confirmation",
    ]


# --- what it costs ---


@pytest.mark.parametrize(
    ("num_trials", "finalists", "confirm_seeds", "searches", "trainings"),
    [(6, 3, (), 1, 6), (2, 3, (102,), 1, 2 + 2), (6, 3, (102, 103), 2, 2 * (6 + 6))],
)
def test_every_schedule_costs_the_same_in_trainings(
    num_trials, finalists, confirm_seeds, searches, trainings
):
    search = params(
        num_trials, 6, finalists=finalists, confirm_seeds=confirm_seeds, searches=searches, num_quasi_random=4
    )
    assert most_trainings(search) == trainings
    for name in SCHEDULES:
        done = Trainings(seeds={SEARCH: [101], CONFIRMATION: list(confirm_seeds)})
        for number in range(searches):
            tune(make(name), search, done, number)
        assert len(done.numbers()) + len(confirm_seeds) * len(done.numbers(CONFIRMATION)) == trainings


def trial_of(number: int, rate: float, first: list[str], further: list[str] | None = None) -> dict:
    """A trial whose trainings have these identities, three epochs of half a second each."""

    def part(identities: list[str]) -> dict:
        return {"identities": identities, "epochs": 3 * len(identities), "seconds": 1.5 * len(identities)}

    return {
        "number": number,
        "values": {"base_lr": rate},
        SEARCH: part(first),
        CONFIRMATION: further and part(further),
    }


def test_what_two_searches_share_is_paid_for_once():
    first = [trial_of(0, 0.1, ["a"]), trial_of(1, 0.2, ["b"], ["c", "d"])]
    second = [trial_of(0, 0.1, ["a"], ["e", "f"]), trial_of(1, 0.3, ["g"])]
    assert cost([first]) == {"trainings": 4, "epochs": 12, "seconds": 6.0}
    assert cost([first, second]) == {"trainings": 7, "epochs": 21, "seconds": 10.5}
    # Of the same values the trial that was confirmed says more.
    assert together([first, second]) == [second[0], first[1], second[1]]


# --- what a budget buys ---


def measured(*losses: float | None, **metrics: list[float]) -> list[dict]:
    """Trials with these objectives, None where they diverged, and further validation metrics."""
    return [
        {
            "number": number,
            SEARCH: {"objective": loss}
            | ({} if loss is None else {"validation": {name: v[number] for name, v in metrics.items()}}),
        }
        for number, loss in enumerate(losses)
    ]


def test_what_a_budget_buys_by_hand():
    """The defaults 0.5; others 0.4, 0.6, 0.2. With one of them: (0.4 + 0.5 + 0.2) / 3; with two: 0.4, 0.2, 0.2."""
    trials = measured(0.5, 0.4, 0.6, 0.2, accuracy=[0.70, 0.75, 0.60, 0.72])
    assert budget(trials, 16) == [
        {"num_trials": 1, "loss": 0.5, "accuracy": 0.70},
        # the accuracy is that of the trial which the loss chose, not the highest
        {
            "num_trials": 2,
            "loss": pytest.approx(1.1 / 3),
            "accuracy": pytest.approx((0.75 + 0.70 + 0.72) / 3),
        },
        {
            "num_trials": 3,
            "loss": pytest.approx(0.8 / 3),
            "accuracy": pytest.approx((0.75 + 0.72 + 0.72) / 3),
        },
        {"num_trials": 4, "loss": pytest.approx(0.2), "accuracy": pytest.approx(0.72)},
    ]


@given(st.lists(st.floats(0.1, 2.0), min_size=1, max_size=7))
def test_what_a_budget_buys_is_the_mean_over_all_choices(losses):
    """Every choice of k - 1 others, gone through one by one; more trials never buy less."""
    rows = budget(measured(*losses), 16)
    for row in rows:
        chosen = itertools.combinations(losses[1:], row["num_trials"] - 1)
        lowest = [min(losses[0], *others) if others else losses[0] for others in chosen]
        assert row["loss"] == pytest.approx(sum(lowest) / len(lowest), rel=1e-12)
    assert rows[0]["loss"] == losses[0]
    assert rows[-1]["loss"] == pytest.approx(min(losses))
    assert all(more["loss"] <= less["loss"] + 1e-12 for less, more in itertools.pairwise(rows))


def test_a_budget_of_trials_that_may_all_diverge_has_no_expectation():
    rows = budget(measured(None, None, 0.4, 0.2), 16)
    assert [row["loss"] for row in rows] == [None, None, pytest.approx(0.8 / 3), pytest.approx(0.2)]
    # With defaults that work there always is one.
    assert [row["loss"] for row in budget(measured(0.5, None), 16)] == [0.5, 0.5]
    assert [row["loss"] for row in budget(measured(None, None), 16)] == [None, None]


def test_what_tpe_suggested_is_no_free_draw():
    """Its trials depend on those before: any order of them would be another search."""
    assert budget(measured(0.5, 0.4, 0.1, 0.1), 2) == budget(measured(0.5, 0.4), 2)


# --- gone through again ---


@pytest.mark.parametrize("settings", ["4", "confirmed"])
def test_raising_the_number_of_trials_continues_as_if_it_had_been_so_from_the_start(uninterrupted, settings):
    """Whoever knows what came of the first trials asks for the same ones and for those that are new."""
    final = {"4": params(6, 4), "confirmed": CONFIRMED}[settings]
    for num_trials in (1, 2, 5, 6):
        trials = tune(make(), final.model_copy(update={"num_trials": num_trials}), Trainings())
        assert values_of(trials) == values_of(uninterrupted[settings][:num_trials])
    assert trials == uninterrupted[settings]


@given(ORDERS)
@hypothesis.settings(max_examples=10)
def test_the_order_in_which_trials_end_changes_nothing(uninterrupted, order):
    def shuffled(finished: dict) -> dict:
        numbers = list(finished)
        order.shuffle(numbers)
        return {number: finished[number] for number in numbers}

    assert tune(make(), CONFIRMED, Trainings(), told=shuffled) == uninterrupted["confirmed"]


# --- Optuna's database ---


@contextlib.contextmanager
def connected(database: str):
    with contextlib.closing(sqlite3.connect(database.removeprefix("sqlite:///"), timeout=60)) as connection:
        yield connection
        connection.commit()


def stored(database: str, study: str) -> dict[int, list[tuple[str, float]]]:
    """By number the states and values of all trials with it."""
    with connected(database) as connection:
        rows = connection.execute(
            "SELECT value_json, state, COALESCE(value, 'inf') FROM trials JOIN studies USING (study_id) "
            "JOIN trial_user_attributes USING (trial_id) LEFT JOIN trial_values USING (trial_id) "
            "WHERE study_name = ? AND key = 'number' ORDER BY trials.number",
            (study,),
        ).fetchall()
    found: dict[int, list[tuple[str, float]]] = {}
    for number, state, value in rows:
        found.setdefault(int(number), []).append((state, float(value)))
    return found


def store(
    trials: list[dict],
    root: Path,
    key: str,
    cell: Cell | None = None,
    identity: dict | None = None,
    folder: str | None = None,
) -> None:
    folder = root / (folder or str(next(NUMBERS)))  # another workspace, unless it is named
    database = Trials(cell or make(), key, root, identity or {}, folder)
    for trial in trials:
        for phase in PHASES:
            if trial[phase] is not None:
                known = {name: value for name, value in trial[phase].items() if name != "objective"}
                objective = trial[phase]["objective"]
                objective = math.inf if objective is None else objective
                database.add(0, phase, trial["number"], trial["values"], objective, known)


def test_the_database_has_every_trial_once_however_often_it_is_told(tmp_path, key, database):
    objectives = {2: math.inf}
    trials = tune(make(), CONFIRMED, Trainings(lambda n, v, seed: objectives.get(n, by_loss(n, v, seed))))
    store(trials[:3], tmp_path, key)
    for _ in range(2):
        store(trials, tmp_path, key)
    for phase in PHASES:
        expected = {
            trial["number"]: [
                ("COMPLETE", math.inf if trial[phase]["objective"] is None else trial[phase]["objective"])
            ]
            for trial in trials
            if trial[phase] is not None
        }
        assert stored(database, study_name("resnet-step", key, phase)) == expected


def test_two_processes_in_one_search_have_each_trial_in_the_database_once(tmp_path, key, database):
    values = tune(make(), params(2, 2), Trainings())[0]["values"]
    both = [Trials(make(), key, tmp_path, {}, tmp_path) for _ in range(2)]
    for number in range(2):
        for one in both:  # each has opened the study before the other one has told it the second trial
            one.add(0, SEARCH, number, values, 0.5, {})
    assert stored(database, study_name("resnet-step", key)) == {n: [("COMPLETE", 0.5)] for n in range(2)}


def test_who_has_nothing_new_does_not_open_the_database_and_one_that_is_gone_is_told_again(
    tmp_path, key, monkeypatch
):
    database = tmp_path / "mine.db"
    monkeypatch.setenv("LRSTUDY_OPTUNA_STORAGE", f"sqlite:///{database}")
    trials = tune(make(), params(3, 3), Trainings())
    store(trials[:2], tmp_path, key, folder="here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "_open_storage", None)
        store(trials[:2], tmp_path, key, folder="here")
        with pytest.raises(TypeError):  # the third is new
            store(trials, tmp_path, key, folder="here")
    database.unlink()
    store(trials, tmp_path, key, folder="here")
    assert set(stored(f"sqlite:///{database}", study_name("resnet-step", key))) == {0, 1, 2}
    (tmp_path / "here" / "in-optuna.json").write_text("[]")
    store(trials, tmp_path, key, folder="here")
    assert all(
        len(found) == 1 for found in stored(f"sqlite:///{database}", study_name("resnet-step", key)).values()
    )


def test_optuna_reads_what_was_stored(tmp_path, key, database):
    import optuna

    trials = tune(make(), params(6, 2), Trainings())
    store(trials, tmp_path, key)
    study = optuna.load_study(study_name=study_name("resnet-step", key), storage=database)
    assert [trial.params for trial in study.trials] == values_of(trials)
    assert study.best_trial.user_attrs["number"] == best_trial(trials)["number"]
    assert set(study.trials[0].distributions) == {"base_lr", "gamma", "step_size"}


def store_in_a_process(folder: str, key: str, begin) -> None:
    begin.wait(PATIENCE)
    store(tune(make(), params(6, 2), Trainings()), Path(folder), key)


def test_two_processes_may_make_the_database_at_once(tmp_path, key, monkeypatch):
    """Two that make the same tables at once broke each other."""
    database = f"sqlite:///{tmp_path / 'new.db'}"
    monkeypatch.setenv("LRSTUDY_OPTUNA_STORAGE", database)
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(2)
    processes = [
        context.Process(target=store_in_a_process, args=(str(tmp_path), f"{key[:-1]}{n}", begin))
        for n in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    for n in (0, 1):
        assert len(stored(database, study_name("resnet-step", f"{key[:-1]}{n}"))) == 6


# --- divergence, other studies, mistakes ---


def test_a_diverged_trial_is_kept_with_its_reason_and_is_never_the_best():
    bad = {1: math.inf, 3: math.nan, 4: -math.inf}
    trainings = Trainings(lambda number, values, seed: bad.get(number, loss(values)))
    trials = tune(make(), params(6, 2), trainings)
    assert len(trials) == 6
    for number in bad:
        assert trials[number]["objective"] is None
        assert trials[number][SEARCH] == {
            "objective": None,
            "status": "diverged",
            "losses": [None],
            "reason": "the loss was not finite in epoch 2",
        }
    worked = {number: loss(trials[number]["values"]) for number in (0, 2, 5)}
    assert best_trial(trials)["number"] == min(worked, key=worked.get)
    assert trainings.numbers() == list(range(6))  # none in their place


def test_a_search_in_which_all_diverge_ends_and_gives_the_defaults():
    trainings = Trainings(lambda *_: math.inf)
    trials = tune(make(), CONFIRMED, trainings)
    assert [trial["objective"] for trial in trials] == [None] * 6
    assert trainings.numbers(CONFIRMATION) == []  # nothing to confirm
    assert best_trial(trials)["values"] == default_values(make())


IDENTITY = {"data": "11", "training.py": "22", "search space": "33", "seeds": "44"}


@pytest.mark.parametrize(
    ("confirm_seeds", "changes", "named"),
    [
        ((), {"data": "0"}, "data"),
        ((), {"training.py": "0", "seeds": "0"}, "training.py and seeds"),
        ((102, 103), {"torch": "0"}, "torch"),
    ],
)
def test_a_study_of_something_else_is_one_error_that_says_what_and_how_to_start_afresh(
    tmp_path, key, database, confirm_seeds, changes, named
):
    import optuna

    trials = tune(make(), params(1, confirm_seeds=confirm_seeds), Trainings())
    store(trials, tmp_path, key, identity=IDENTITY)
    with pytest.raises(StudyError) as error:
        store(trials, tmp_path, key, identity=IDENTITY | changes)
    study = study_name("resnet-step", key)
    assert str(error.value) == (
        f"Optuna's study {study} belongs to other {named}; to start afresh, delete it: optuna delete-study "
        f'--study-name {study} --storage "$LRSTUDY_OPTUNA_STORAGE" (unset: sqlite:///optuna.db).'
    )
    for phase in PHASES if confirm_seeds else (SEARCH,):
        optuna.delete_study(study_name=study_name("resnet-step", key, phase), storage=database)
    store(trials, tmp_path, key, identity=IDENTITY | changes)
    assert set(stored(database, study)) == {0}


def test_differences_are_the_names_of_what_is_not_alike():
    assert differences(IDENTITY, dict(IDENTITY)) == []
    assert differences(IDENTITY, IDENTITY | {"more": "55"}) == []
    assert differences(IDENTITY, IDENTITY | {"data": "0"}) == ["data"]
    assert differences(IDENTITY, {}) == list(IDENTITY)


def test_a_new_search_says_in_what_it_differs_from_the_latest_one(tmp_path, database):
    """Of this cell alone: another's, even one whose name begins alike, is no earlier search of it."""
    cell, similar = make(name="late"), make(name="late_and_more")
    first, second, third = "a" * 64, "b" * 64, "c" * 64
    assert earlier_studies(cell, first, tmp_path, IDENTITY) is None
    store(tune(similar, params(1), Trainings()), tmp_path, first, similar)
    assert earlier_studies(cell, first, tmp_path, IDENTITY) is None

    store(tune(cell, params(1), Trainings()), tmp_path, first, cell, IDENTITY)
    assert earlier_studies(cell, first, tmp_path, IDENTITY) is None  # it is the same one
    changed = IDENTITY | {"data": "0", "seeds": "0"}
    said = earlier_studies(cell, second, tmp_path, changed)
    assert said == (
        "a new search begins, since its data and seeds differ from those of the study resnet-late-"
        f"{'a' * 16}, whose trials stay in {database}"
    )

    confirmed = params(1, confirm_seeds=[102, 103])
    store(tune(cell, confirmed, Trainings()), tmp_path, second, cell, changed)
    assert earlier_studies(cell, first, tmp_path, IDENTITY) is None
    assert earlier_studies(cell, second, tmp_path, changed) is None
    # The latest: only the seeds are others than there.
    said = earlier_studies(cell, third, tmp_path, changed | {"seeds": "1"})
    assert said.startswith(
        f"a new search begins, since its seeds differ from those of the study resnet-late-{'b' * 16}"
    )


OUTSIDE = [
    ("step", {"gamma": 0.9}, "the default gamma = 0.9 lies outside its search space (from 0.05 to 0.8)"),
    ("step", {"step_size": 2.5}, "the default step_size = 2.5 lies outside its search space (a whole number from 1 to 10)"),
    ("cosine", {"min_factor": 0.5}, "the default min_factor = 0.5 lies outside its search space (one of [0.0, 0.01, 0.1])"),
]  # fmt: skip


@pytest.mark.parametrize(("schedule", "changes", "message"), OUTSIDE)
def test_defaults_outside_their_range_are_an_error_before_anything_is_trained(schedule, changes, message):
    with pytest.raises(StudyError) as error:
        tune(make(schedule, **changes), params(), Trainings(None))
    assert str(error.value) == f"conf: resnet-{schedule}: {message}; the first trial is the defaults, so " + (
        "widen the one or move the other."
    )


def test_an_integer_range_without_a_whole_number_is_an_error():
    cell = make(search={"step_size": {"low": 1.2, "high": 1.8, "int": True}}, step_size=1.5)
    with pytest.raises(
        StudyError, match=r"resnet-step: search\.step_size has no whole number from 1\.2 to 1\.8"
    ):
        tune(cell, params(), Trainings())


@pytest.mark.parametrize(
    "uri", ["nonsense", "sqlite:////nowhere/at/all/optuna.db", "nodriver://alice:s3cr@host/db"]
)
def test_a_database_that_cannot_be_opened_is_one_clear_error(tmp_path, key, monkeypatch, uri):
    monkeypatch.setenv("LRSTUDY_OPTUNA_STORAGE", uri)
    for opens in (
        lambda: store(tune(make(), params(1), Trainings()), tmp_path, key),
        lambda: earlier_studies(make(), key, tmp_path, {}),
    ):
        with pytest.raises(StudyError, match="cannot be opened") as error:
            opens()
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


# --- figures ---


def trials_with(objectives: list[float | None], cell: Cell) -> list[dict]:
    """Trials with distinct values and these objectives."""
    defaults = default_values(cell)
    return [
        {
            "number": number,
            "values": {
                name: number + 1 if name == "step_size" else value * 0.9**number
                for name, value in defaults.items()
            },
            SEARCH: {"objective": objective},
        }
        for number, objective in enumerate(objectives)
    ]


@pytest.mark.parametrize(
    ("schedule", "objectives", "names"),
    [
        ("step", [0.9, None, 0.5, 0.7, 0.6], ["optimization_history", "slice", "param_importances"]),
        (
            "static",
            [0.9, 0.5, 0.6],
            ["optimization_history", "slice"],
        ),  # one parameter has no share to be told
    ],
)
def test_what_was_searched_is_drawn(tmp_path, schedule, objectives, names):
    from matplotlib.image import imread

    cell = make(schedule)
    paths = draw(trials_with(objectives, cell), cell, tmp_path / "figures")
    assert paths == [tmp_path / "figures" / f"{name}.png" for name in names]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        pixels = imread(path)
        assert min(pixels.shape[:2]) > 200
        assert pixels[..., :3].std() > 0.01  # something is on it
    assert sorted(paths) == sorted((tmp_path / "figures").iterdir())


@pytest.mark.parametrize("objectives", [[0.5, 0.4], [None, 0.5, None, 0.4], [None, None]])
def test_fewer_than_three_trials_that_worked_are_not_drawn(tmp_path, objectives):
    assert draw(trials_with(objectives, make()), make(), tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()


# --- the objective ---


def test_the_objective_is_the_mean_over_seeds_of_the_last_validation_loss():
    # not the lowest: 0.2 and 0.1 on the way do not count
    records = [record([0.9, 0.2, 0.5]), record([0.9, 0.1, 0.75], start=200.25, chosen=settings(seed=2))]
    objective, known = judge(records)
    assert objective == 0.625
    validation = known.pop("validation")
    assert known == {
        "status": "finished",
        "losses": [0.5, 0.75],
        "epochs": 6,
        "seconds": 3.0,
        "ended": 203_250,
        "identities": [one.identity for one in records],  # which trainings it is of
    }
    assert set(validation) == {"accuracy", "f1", "f1_macro"}
    for name, mean in validation.items():
        assert mean == pytest.approx(sum(r.history[f"validation/{name}"][-1] for r in records) / 2)


def test_one_diverged_seed_makes_the_trial_diverged():
    records = [record([0.9, 0.2, 0.5]), record([0.9, math.nan])]
    objective, known = judge(records)
    assert objective == math.inf
    assert known == {
        "status": "diverged",
        "losses": [0.5, None],
        "epochs": 5,  # what was trained was paid for
        "seconds": 2.5,
        "ended": 103_000,
        "identities": [one.identity for one in records],
        "reason": "the loss was not finite in epoch 2",
    }
