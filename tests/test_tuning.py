"""The search: the same trials whoever trains them, whatever is killed, however many there are to be."""

import contextlib
import copy
import itertools
import json
import math
import multiprocessing
import os
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composed import composed_params
from lrstudy import tuning
from lrstudy.cells import Cell, default_values, make_cell
from lrstudy.config import TuneParams, check_params
from lrstudy.errors import StudyError
from lrstudy.stages.tune import judge
from lrstudy.tuning import (
    best_trial,
    differences,
    draw,
    earlier_studies,
    largest_cost,
    rung_sizes,
    storage_uri,
    study_name,
    tune,
)
from tiny_data import record, settings

PARAMS = composed_params()
NUMBERS = itertools.count()
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
    monkeypatch.setattr(tuning, "_POLL_SECONDS", 0.01)
    pause, polls = threading.Event(), itertools.count()

    def sleep(seconds: float) -> None:
        assert next(polls) < 10 * PATIENCE, "a worker waits for what nobody trains"
        pause.wait(seconds)

    monkeypatch.setattr(tuning, "time", SimpleNamespace(sleep=sleep))


@pytest.fixture
def key() -> str:
    """A study that no other test has."""
    return f"{next(NUMBERS):016d}"


def loss(values: dict) -> float:
    """An objective with its minimum at a rate of 0.02; not a number that a short decimal has."""
    found = 0.5 + (math.log10(values["base_lr"]) - math.log10(0.02)) ** 2
    found += (values.get("gamma", 0) - 0.4) ** 2 + abs(values.get("step_size", 7) - 7) / 30
    return found + values.get("min_factor", 0)


def by_loss(number: int, values: dict, share: float) -> float:
    """The objective of a trial: less data, a higher loss."""
    return loss(values) + (1 - share) / 7


@dataclass
class Trainings:
    """Evaluates trials by ``objective`` (number, values, share); keeps what was asked for, call by call."""

    objective: Callable[[int, dict, float], float] = by_loss
    before: Callable[[float, list[int]], None] = lambda share, numbers: None
    calls: list[tuple[float, list[int]]] = field(default_factory=list)
    charged: float = 0.0

    def numbers(self, share: float = 1.0) -> list[int]:
        """All trials that were trained on ``share``, in order."""
        return [number for where, numbers in self.calls if where == share for number in numbers]

    def __call__(self, share, trials):
        numbers = [number for number, _ in trials]
        self.before(share, numbers)
        self.calls.append((share, numbers))
        return [self._train(number, values, share) for number, values in trials]

    def _train(self, number: int, values: dict, share: float) -> tuple[float, dict]:
        objective = self.objective(number, values, share)
        worked = math.isfinite(objective)
        cost = share * (NUM_EPOCHS if worked else 2)
        self.charged += cost
        known = {"status": "finished" if worked else "diverged", "epochs_of_full_data": cost}
        return objective, known if worked else known | {"reason": "the loss was not finite in epoch 2"}


def params(num_trials: int = 6, batch_size: int = 2, sampler_seed: int = 0, rungs=(1.0,)) -> TuneParams:
    return TuneParams(
        num_trials=num_trials,
        rungs=list(rungs),
        seeds=[101],
        batch_size=batch_size,
        sampler_seed=sampler_seed,
    )


def values_of(trials: list[dict]) -> list[dict]:
    return [trial["values"] for trial in trials]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, database) -> dict[str, list[dict]]:
    """What one worker finds that nothing disturbs: six trials by batch size, or in rungs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRSTUDY_OPTUNA_STORAGE", database)
        root = tmp_path_factory.mktemp("uninterrupted")
        return {
            name: tune(make(), settings, f"{next(NUMBERS):016d}", root, Trainings())
            for name, settings in {"2": params(6, 2), "4": params(6, 4), "rungs": IN_RUNGS}.items()
        }


RUNGS = (0.25, 1.0)
IN_RUNGS = params(6, 4, rungs=RUNGS)


# --- the trials ---


@pytest.mark.parametrize(
    ("batch_size", "at_once", "calls"),
    [(1, 3, [1] * 6), (4, 3, [3, 1, 2]), (6, 8, [6])],
)
def test_there_are_as_many_trials_as_asked_for_at_most_at_once_together(
    tmp_path, key, batch_size, at_once, calls
):
    """A batch is complete before the next one, which its results decide, begins."""
    trainings = Trainings()
    trials = tune(make(), params(6, batch_size), key, tmp_path, trainings, at_once=at_once)
    assert [trial["number"] for trial in trials] == list(range(6))
    assert trainings.numbers() == list(range(6))
    assert [len(numbers) for _, numbers in trainings.calls] == calls


def test_the_first_trial_is_the_defaults_and_all_lie_within_their_ranges(tmp_path, key):
    trials = tune(make(), params(8, 8), key, tmp_path, Trainings(), at_once=8)
    assert trials[0]["values"] == default_values(make())
    assert trials[0]["values"]["base_lr"] == 0.1
    assert isinstance(trials[0]["values"]["step_size"], int)
    for trial in trials:
        values = trial["values"]
        assert set(trial) == {"number", "values", "rungs"}
        assert set(values) == {"base_lr", "gamma", "step_size"}
        assert 0.001 <= values["base_lr"] <= 1.0
        assert 0.05 <= values["gamma"] <= 0.8
        assert type(values["step_size"]) is int
        assert 1 <= values["step_size"] <= 10
        assert trial["rungs"] == [
            {"share": 1.0, "objective": loss(values), "status": "finished", "epochs_of_full_data": 10.0}
        ]
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


def test_choices_are_chosen_from_and_keep_their_values(tmp_path, key):
    trials = tune(make("cosine"), params(8, 8), key, tmp_path, Trainings(), at_once=8)
    chosen = [values["min_factor"] for values in values_of(trials)]
    assert chosen[0] == 0.0
    assert set(chosen) <= {0.0, 0.01, 0.1}
    assert len(set(chosen)) > 1


def test_the_sampler_seed_decides_the_trials(tmp_path, key, uninterrupted):
    other = tune(make(), params(6, 4, sampler_seed=1), key, tmp_path, Trainings())
    first = uninterrupted["4"]
    assert first[0] == other[0]  # the defaults
    assert all(
        mine != theirs for mine, theirs in zip(values_of(first[1:]), values_of(other[1:]), strict=True)
    )


def test_the_search_learns_from_earlier_batches(tmp_path, key, uninterrupted):
    """From the fifth trial on, other results lead to other suggestions."""

    def opposite(number, values, share):
        return -loss(values)

    away = values_of(tune(make(), params(6, 4), key, tmp_path, Trainings(opposite)))
    towards = values_of(uninterrupted["4"])
    assert towards[:4] == away[:4]
    assert all(mine != theirs for mine, theirs in zip(towards[4:], away[4:], strict=True))


# --- rungs ---

SIZES = [
    (12, [1.0], [12]),
    (16, [0.25, 0.5, 1.0], [16, 8, 4]),
    (10, [0.25, 1.0], [10, 3]),  # 2.5, rounded up
    (27, [1 / 27, 1 / 9, 1 / 3, 1.0], [27, 9, 3, 1]),
    (30, [0.1, 0.3, 1.0], [30, 10, 3]),  # 30 x 0.1 / 0.3 is 10.000000000000002 in floating point
    (1, [0.1, 1.0], [1, 1]),
    (8, [0.5], [8]),
]


@pytest.mark.parametrize(("num_trials", "rungs", "sizes"), SIZES)
def test_every_share_is_given_as_many_trials_as_make_it_cost_the_same(num_trials, rungs, sizes):
    assert rung_sizes(num_trials, rungs) == sizes


shares = st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(
    lambda found: [share / 100 for share in sorted(found)]
)


@given(st.integers(1, 200), shares)
def test_rungs_begin_with_all_trials_and_never_grow(num_trials, rungs):
    sizes = rung_sizes(num_trials, rungs)
    assert sizes[0] == num_trials
    assert all(more >= fewer >= 1 for more, fewer in itertools.pairwise(sizes))
    for size, share in zip(sizes, rungs, strict=True):
        # The cost of a rung is that of the first one, but for less than one trial.
        assert num_trials * rungs[0] - 1e-6 <= size * share < num_trials * rungs[0] + share


# Epochs of the full training split, worked out by hand: the defaults beside each later rung.
COSTS = [
    (12, [1.0], 10, 1, 120),
    (16, [0.25, 0.5, 1.0], 10, 2, 2 * 10 * (16 * 0.25 + 9 * 0.5 + 5)),
    (10, [0.25, 1.0], 4, 1, 4 * (2.5 + 4)),
    (1, [0.5, 1.0], 10, 3, 3 * 10 * 1.5),  # the defaults are all there is
    (2, [0.9, 1.0], 1, 1, 2 * 0.9 + 2),
]


@pytest.mark.parametrize(("num_trials", "rungs", "num_epochs", "num_seeds", "cost"), COSTS)
def test_the_bound_of_the_cost_counts_every_training(num_trials, rungs, num_epochs, num_seeds, cost):
    assert largest_cost(num_trials, rungs, num_epochs, num_seeds) == pytest.approx(cost, rel=1e-12)


@given(st.integers(1, 200), shares)
def test_the_bound_of_the_cost_is_that_of_the_first_rung_and_little_more_for_each_other(num_trials, rungs):
    first = num_trials * rungs[0]
    bound = largest_cost(num_trials, rungs, 1, 1)
    assert first - 1e-6 <= bound <= len(rungs) * first + 2 * sum(rungs[1:]) + 1e-6


def test_studies_of_different_shares_are_different_and_a_plain_search_has_the_plain_name():
    assert study_name("resnet-step", "0123456789abcdef0123", [1.0]) == "resnet-step-0123456789abcdef"
    rungs = [0.25, 0.5, 1.0]
    names = {study_name("resnet-step", "0123456789abcdef", rungs, rung) for rung in range(3)}
    assert names == {f"resnet-step-0123456789abcdef-on-{share}" for share in ("0.25", "0.5", "1")}
    assert study_name("resnet-step", "0123456789abcdef", rungs) == "resnet-step-0123456789abcdef-on-0.25"


BAD = math.inf
# By share the objective of each trial, ``BAD`` where it diverged (None: must not be trained there), and the
# number of the winner; the sizes of the three rungs are 6, 3 and 2.
TABLES = {
    "the best go on and the defaults beside them": (
        [0.9, 0.1, BAD, 0.4, 0.2, 0.3],
        [0.9, 0.6, None, None, 0.3, 0.35],
        [0.45, None, None, None, 0.5, 0.4],
        5,
    ),
    "the defaults among the best take no other's place": (
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        [0.1, 0.4, 0.2, None, None, None],
        [0.1, None, 0.2, None, None, None],
        0,
    ),
    "the defaults win if the others are worse on all data": (
        [0.9, 0.1, 0.2, 0.3, 0.4, 0.5],
        [0.9, 0.1, 0.2, 0.3, None, None],
        [0.5, 0.51, 0.52, None, None, None],
        0,
    ),
    "diverged trials never go on, even if places are left": (
        [0.9, BAD, BAD, 0.3, BAD, 0.2],
        [0.9, None, None, BAD, None, 0.5],
        [0.7, None, None, None, None, 0.6],
        5,
    ),
    "the defaults diverged on the first share": (
        [BAD, 0.1, 0.2, 0.3, 0.4, 0.5],
        [None, 0.4, 0.3, 0.2, None, None],
        [None, None, 0.2, 0.3, None, None],
        2,
    ),
    "the defaults diverged on the second share": (
        [0.9, 0.1, 0.2, 0.3, 0.4, 0.5],
        [BAD, 0.4, 0.3, 0.2, None, None],
        [None, None, 0.3, 0.2, None, None],
        3,
    ),
    "the earlier of equals goes on": (
        [0.5] * 6,
        [0.5, 0.5, 0.5, None, None, None],
        [0.5, 0.5, None, None, None, None],
        0,
    ),
    "all diverged on the first share": ([BAD] * 6, [None] * 6, [None] * 6, 0),
    "all diverged on the last share": (
        [0.9, 0.1, 0.2, 0.3, 0.4, 0.5],
        [0.9, 0.1, 0.2, 0.3, None, None],
        [BAD, BAD, BAD, None, None, None],
        0,
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_which_trials_go_on_to_more_data_and_which_wins(tmp_path, key, name):
    *table, winner = TABLES[name]
    rungs = [0.25, 0.5, 1.0]
    by_share = dict(zip(rungs, table, strict=True))
    trainings = Trainings(lambda number, values, share: by_share[share][number])
    trials = tune(make(), params(6, 6, rungs=rungs), key, tmp_path, trainings, at_once=6)

    going = {share: [n for n, v in enumerate(row) if v is not None] for share, row in by_share.items()}
    # One call for each share, with the trials that belong there: no trial of a share comes after the next.
    assert trainings.calls == [(share, numbers) for share, numbers in going.items() if numbers]
    for trial in trials:
        expected = [(share, row[trial["number"]]) for share, row in by_share.items()]
        assert [(rung["share"], rung["objective"]) for rung in trial["rungs"]] == [
            (share, None if objective == BAD else objective)
            for share, objective in expected
            if objective is not None
        ]
    best = best_trial(trials)
    assert best["number"] == winner
    cost = sum(rung["epochs_of_full_data"] for trial in trials for rung in trial["rungs"])
    assert cost == pytest.approx(trainings.charged, rel=1e-12)
    assert cost <= largest_cost(6, rungs, NUM_EPOCHS, 1)


def test_the_cost_reaches_its_bound_where_the_defaults_are_never_among_the_best(tmp_path, key):
    trainings = Trainings(lambda number, values, share: 1.0 / (number + 1))
    tune(make(), params(5, 5, rungs=RUNGS), key, tmp_path, trainings, at_once=5)
    assert trainings.charged == largest_cost(5, list(RUNGS), NUM_EPOCHS, 1)


losses = st.one_of(st.none(), st.floats(0.1, 2.0))


@given(st.lists(st.tuples(losses, losses), min_size=1, max_size=6))
def test_the_winner_is_never_worse_than_the_defaults_on_the_last_share(found):
    """As ``tune`` leaves them: what diverged on the first share was not trained on the second."""
    trials = [
        {
            "number": number,
            "rungs": [{"share": 0.5, "objective": first}]
            + ([] if first is None else [{"share": 1.0, "objective": last}]),
        }
        for number, (first, last) in enumerate(found)
    ]
    last = {number: second for number, (first, second) in enumerate(found) if first is not None}
    worked = {number: objective for number, objective in last.items() if objective is not None}
    best = best_trial(trials)
    assert best["number"] == (min(worked, key=lambda number: (worked[number], number)) if worked else 0)
    if 0 in worked:
        assert best["rungs"][-1]["objective"] <= worked[0]


def test_the_best_is_the_lowest_on_the_last_share_even_if_another_was_ahead_on_the_first():
    def trial(number: int, *objectives: float | None) -> dict:
        rungs = [{"share": s, "objective": o} for s, o in zip(RUNGS, objectives, strict=False)]
        return {"number": number, "rungs": rungs}

    assert (
        best_trial([trial(0, 0.9, 0.5), trial(1, 0.1, 0.6), trial(2, 0.2, 0.4), trial(3, 0.05)])["number"]
        == 2
    )
    plain = [trial(n, objective) for n, objective in enumerate([None, 0.5, 0.2, 0.2, None])]
    assert best_trial(plain)["number"] == 2
    assert best_trial(plain[::-1])["number"] == 2
    assert best_trial([plain[0], plain[4]])["number"] == 0


# --- killed and continued ---


class Killed(BaseException):
    """The process ends here."""


@contextlib.contextmanager
def connected(database: str):
    with contextlib.closing(sqlite3.connect(database.removeprefix("sqlite:///"), timeout=60)) as connection:
        yield connection
        connection.commit()


def stored_states(database: str, key: str, rungs=(1.0,), rung: int = 0) -> dict[int, list[str]]:
    """By number the states of all trials with it, in the order in which they were stored."""
    with connected(database) as connection:
        rows = connection.execute(
            "SELECT value_json, state FROM trials JOIN studies USING (study_id) JOIN trial_user_attributes "
            "USING (trial_id) WHERE study_name = ? AND key = 'number' ORDER BY trials.number",
            (study_name("resnet-step", key, list(rungs), rung),),
        ).fetchall()
    found: dict[int, list[str]] = {}
    for number, state in rows:
        found.setdefault(int(number), []).append(state)
    return found


def each_complete_once(states: dict[int, list[str]]) -> bool:
    """Of each trial one is complete, and what is stored beside it was given up."""
    return all(sorted(found) == ["COMPLETE"] + ["FAIL"] * (len(found) - 1) for found in states.values())


def let_time_pass(database: str, key: str, only: str = "1") -> None:
    """As if an hour had passed since the heartbeats of the study's trials (those of which ``only`` is true)."""
    with connected(database) as connection:
        connection.execute(
            "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hour') WHERE trial_id IN (SELECT "
            f"trial_id FROM trials JOIN studies USING (study_id) WHERE instr(study_name, ?) > 0 AND {only})",
            (key,),
        )


WITHOUT_WORKER = "NOT EXISTS (SELECT 1 FROM trial_user_attributes a WHERE a.trial_id = trials.trial_id AND a.key = 'worker')"


@pytest.mark.parametrize(
    ("settings", "share", "call"),
    [("2", 1.0, 0), ("4", 1.0, 5), ("rungs", 0.25, 4), ("rungs", 1.0, 1)],
)
def test_killed_while_a_trial_trains(tmp_path, key, database, uninterrupted, settings, share, call):
    search = {"2": params(6, 2), "4": params(6, 4), "rungs": IN_RUNGS}[settings]

    def dies(where, numbers):
        if where == share and len(trainings.numbers(share)) == call:
            raise Killed

    trainings = Trainings(before=dies)
    with pytest.raises(Killed):
        tune(make(), search, key, tmp_path, trainings)
    rung = search.rungs.index(share)
    states = stored_states(database, key, search.rungs, rung)
    assert Counter(itertools.chain(*states.values()))["RUNNING"] == 1
    trainings.before = lambda where, numbers: None
    assert tune(make(), search, key, tmp_path, trainings) == uninterrupted[settings]
    # What was finished was not trained again, and what was under way was taken up as it stood.
    for number in range(len(search.rungs)):
        found = trainings.numbers(search.rungs[number])
        assert sorted(found) == sorted(set(found))
        states = stored_states(database, key, search.rungs, number)
        assert set(states) == set(found)
        assert all(state == ["COMPLETE"] for state in states.values())


WRITES = [
    "create_new_study",
    "set_study_user_attr",
    "_create_new_trial",
    "record_heartbeat",
    "set_trial_state_values",
    "set_trial_user_attr",
]


@contextlib.contextmanager
def killed_before_write(position: int):
    """The process ends before it writes to Optuna's database for the ``position``-th time; yields the writes."""
    from optuna.storages import RDBStorage

    written: list[str] = []
    main = threading.current_thread()
    with pytest.MonkeyPatch.context() as patch:
        for name in WRITES:
            original = getattr(RDBStorage, name)

            def write(self, *arguments, name=name, original=original, **options):
                if threading.current_thread() is main:  # not the heartbeats that come when they come
                    if len(written) == position:
                        raise Killed
                    written.append(name)
                return original(self, *arguments, **options)

            patch.setattr(RDBStorage, name, write)
        yield written


def test_killed_between_any_two_writes_to_the_database(tmp_path, database):
    expected, seen = None, set()
    for position in itertools.count():
        key, trainings = f"{next(NUMBERS):016d}", Trainings()
        try:
            with killed_before_write(position) as written:
                found = tune(make(), params(1), key, tmp_path, trainings)
        except Killed:
            seen |= set(written)
            finished = stored_states(database, key).get(0) == ["COMPLETE"]
            calls = len(trainings.calls)
            # Died between claiming a trial and signing it: nobody can tell whose it is but by its silence.
            let_time_pass(database, key, WITHOUT_WORKER)
            found = tune(make(), params(1), key, tmp_path, trainings)
            assert len(trainings.calls) == calls + (not finished), position
            assert each_complete_once(stored_states(database, key)), position
            expected = expected or found
            assert found == expected, position
        else:
            assert found == expected
            break
    assert seen == set(WRITES)
    # The study, its identity; then store, heartbeat, claim, sign, two attributes, tell.
    assert position == 9


@pytest.mark.parametrize(("name", "time"), [("create_new_study", 1), ("_create_new_trial", 7)])
def test_killed_where_the_next_rung_begins(tmp_path, key, uninterrupted, name, time):
    from optuna.storages import RDBStorage

    calls, original = itertools.count(), getattr(RDBStorage, name)

    def dying(self, *arguments, **options):
        if next(calls) == time:
            raise Killed
        return original(self, *arguments, **options)

    trainings = Trainings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RDBStorage, name, dying)
        with pytest.raises(Killed):
            tune(make(), IN_RUNGS, key, tmp_path, trainings)
    assert trainings.numbers(1.0) == []
    assert tune(make(), IN_RUNGS, key, tmp_path, trainings) == uninterrupted["rungs"]
    assert trainings.numbers(0.25) == list(range(6))
    assert len(trainings.numbers(1.0)) == len(set(trainings.numbers(1.0)))


@pytest.mark.parametrize("settings", ["4", "rungs"])
def test_raising_the_number_of_trials_continues_as_if_it_had_been_so_from_the_start(
    tmp_path, key, uninterrupted, settings
):
    rungs = {"4": (1.0,), "rungs": RUNGS}[settings]
    trainings = Trainings()
    for num_trials in (2, 5, 6):
        trials = tune(make(), params(num_trials, 4, rungs=rungs), key, tmp_path, trainings)
        assert values_of(trials) == values_of(uninterrupted[settings][:num_trials])
    assert trials == uninterrupted[settings]
    for share in rungs:
        assert len(trainings.numbers(share)) == len(set(trainings.numbers(share)))
    # Fewer again: the first ones, nothing is trained.
    trained = list(trainings.calls)
    fewer = tune(make(), params(2, 4, rungs=rungs), key, tmp_path, trainings)
    assert values_of(fewer) == values_of(uninterrupted[settings][:2])
    assert trainings.calls == trained


# --- several workers ---


def in_threads(*targets: Callable[[], None]) -> None:
    """Run all at once; flock tells two open files of one process apart like two processes'."""
    failures = []

    def run(target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads)


def test_two_workers_of_one_cell_share_its_trials(tmp_path, key, database, uninterrupted):
    """Each is held in its first training until the other has one too: both must be at work at once."""
    both, found = threading.Barrier(2), {}
    trainings = {}

    def worker(name: str) -> None:
        def meet(share, numbers):
            assert len(numbers) <= 2
            if not trainings[name].calls:
                both.wait(PATIENCE)

        trainings[name] = Trainings(before=meet)
        found[name] = tune(make(), IN_RUNGS, key, tmp_path, trainings[name], at_once=2)

    in_threads(lambda: worker("first"), lambda: worker("second"))
    assert found["first"] == found["second"] == uninterrupted["rungs"]
    for rung, share in enumerate(RUNGS):
        states = stored_states(database, key, RUNGS, rung)
        assert all(state == ["COMPLETE"] for state in states.values())
        both_trained = trainings["first"].numbers(share) + trainings["second"].numbers(share)
        assert sorted(both_trained) == sorted(states)


def test_two_cells_may_make_the_database_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("LRSTUDY_OPTUNA_STORAGE")
    both, found = threading.Barrier(2), {}

    def search(schedule: str) -> None:
        both.wait(PATIENCE)
        found[schedule] = tune(make(schedule), params(2), "0" * 16, tmp_path, Trainings())

    in_threads(lambda: search("step"), lambda: search("cosine"))
    assert {name: len(trials) for name, trials in found.items()} == {"step": 2, "cosine": 2}
    assert (tmp_path / "optuna.db").exists()


def work(uri: str, key: str, root: Path, folder: Path, name: str, search: dict, meet, dies_in=0) -> None:
    """A worker that is a process of its own: leaves what it trained and found in ``folder``.

    ``meet`` is a barrier that its first training waits at; in its ``dies_in``-th training it kills itself.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    os.environ["LRSTUDY_OPTUNA_STORAGE"] = uri
    event.listen(Engine, "connect", without_fsync)
    tuning._POLL_SECONDS = 0.01
    trained = folder / f"{name}.trained"

    def log(share, numbers):
        if meet is not None and not trained.exists():
            meet.wait(PATIENCE)
        with trained.open("a") as file:
            file.writelines(f"{share} {number}\n" for number in numbers)
        if len(trained.read_text().splitlines()) == dies_in:
            os.kill(os.getpid(), signal.SIGKILL)

    trials = tune(make(), TuneParams(**search), key, root, Trainings(before=log))
    (folder / f"{name}.json").write_text(json.dumps(trials))


@pytest.fixture(scope="module")
def processes():
    """Starts workers side by side: each a fresh process, with none of this one's connections or locks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["optuna.storages", "lrstudy.tuning", "lrstudy.compose", "hypothesis"])

    def run(*workers: dict, meet: bool = True) -> list[int]:
        barrier = context.Barrier(len(workers)) if meet else None
        started = [context.Process(target=work, kwargs=worker | {"meet": barrier}) for worker in workers]
        for process in started:
            process.start()
        for process in started:
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
        return [process.exitcode for process in started]

    return run


def trained_by(folder: Path, *names: str) -> list[str]:
    """The lines of what the workers began to train."""
    return [line for name in names for line in (folder / f"{name}.trained").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("roots", [("here", "here"), ("here", "there")], ids=["one machine", "two machines"])
def test_two_processes_find_what_one_finds(tmp_path, key, database, uninterrupted, processes, roots):
    """Another root is another machine: no lock is shared, only the database."""
    search = IN_RUNGS.model_dump()
    same = {"uri": database, "key": key, "folder": tmp_path, "search": search}
    names = ("first", "second")
    workers = [
        same | {"name": name, "root": tmp_path / root} for name, root in zip(names, roots, strict=True)
    ]
    assert processes(*workers) == [0, 0]
    for name in names:
        assert json.loads((tmp_path / f"{name}.json").read_text()) == uninterrupted["rungs"]
    for rung, share in enumerate(RUNGS):
        states = stored_states(database, key, RUNGS, rung)
        assert each_complete_once(states)
        lines = [line for line in trained_by(tmp_path, *names) if line.startswith(f"{share} ")]
        assert set(lines) == {f"{share} {number}" for number in states}  # none is lost
        if roots[0] == roots[1]:
            assert len(lines) == len(set(lines))  # none is trained twice
            assert all(state == ["COMPLETE"] for state in states.values())
    assert all(trained_by(tmp_path, name) for name in names)  # both had a part in it


@pytest.mark.slow
def test_a_process_killed_in_mid_training_is_replaced_by_the_next(
    tmp_path, key, database, uninterrupted, processes
):
    worker = {
        "uri": database,
        "key": key,
        "root": tmp_path,
        "folder": tmp_path,
        "search": params(6, 2).model_dump(),
    }
    assert processes(worker | {"name": "killed", "dies_in": 4}, meet=False) == [-signal.SIGKILL]
    assert trained_by(tmp_path, "killed") == ["1.0 0", "1.0 1", "1.0 2", "1.0 3"]
    assert stored_states(database, key) == {0: ["COMPLETE"], 1: ["COMPLETE"], 2: ["COMPLETE"], 3: ["RUNNING"]}
    trainings = Trainings()
    assert tune(make(), params(6, 2), key, tmp_path, trainings) == uninterrupted["2"]
    assert trainings.numbers() == [3, 4, 5]  # the one under way again, and no finished one
    assert stored_states(database, key) == {number: ["COMPLETE"] for number in range(6)}


@pytest.mark.slow
def test_the_trials_of_a_worker_killed_beside_another_are_trained_by_the_other(
    tmp_path, key, database, uninterrupted, processes
):
    """Both are at work when one is killed; the other waits for none of its heartbeats."""
    same = {
        "uri": database,
        "key": key,
        "root": tmp_path,
        "folder": tmp_path,
        "search": params(6, 2).model_dump(),
    }
    codes = processes(same | {"name": "killed", "dies_in": 1}, same | {"name": "survivor"})
    assert codes == [-signal.SIGKILL, 0]
    assert json.loads((tmp_path / "survivor.json").read_text()) == uninterrupted["2"]
    assert all(state == ["COMPLETE"] for state in stored_states(database, key).values())
    # The survivor trained all, that of the other among them.
    assert sorted(trained_by(tmp_path, "survivor")) == [f"1.0 {number}" for number in range(6)]
    assert len(trained_by(tmp_path, "killed")) == 1


def killed_in_training(key: str, root: Path, search: TuneParams, number: int) -> None:
    """A worker of the machine ``root`` dies while it trains ``number``."""

    def dies(share, numbers):
        if number in numbers:
            raise Killed

    with pytest.raises(Killed):
        tune(make(), search, key, root, Trainings(before=dies))


def test_a_worker_of_another_machine_that_fell_silent_is_replaced(tmp_path, key, database, uninterrupted):
    killed_in_training(key, tmp_path / "there", params(6, 2), 3)
    let_time_pass(database, key)
    trainings = Trainings()
    assert tune(make(), params(6, 2), key, tmp_path / "here", trainings) == uninterrupted["2"]
    assert trainings.numbers() == [3, 4, 5]
    states = stored_states(database, key)
    assert states.pop(3) == ["FAIL", "COMPLETE"]
    assert states == {number: ["COMPLETE"] for number in (0, 1, 2, 4, 5)}


def test_a_worker_of_another_machine_that_lives_is_waited_for(
    tmp_path, key, database, uninterrupted, monkeypatch, capsys
):
    """It holds trial 1 while the worker here has nothing else to do and looks for it again and again."""
    begun, go_on, found = threading.Event(), threading.Event(), {}
    polls = itertools.count(1)
    here, there = Trainings(), Trainings()

    def sleep(seconds: float) -> None:
        if next(polls) == 3:
            assert stored_states(database, key)[1] == ["RUNNING"]
            go_on.set()
        threading.Event().wait(seconds)

    def long(share, numbers):
        if numbers == [1]:
            begun.set()
            assert go_on.wait(PATIENCE)

    there.before = long
    monkeypatch.setattr(tuning, "time", SimpleNamespace(sleep=sleep))

    def other() -> None:
        found["there"] = tune(make(), params(6, 2), key, tmp_path / "there", there)

    def this() -> None:
        assert begun.wait(PATIENCE)
        found["here"] = tune(make(), params(6, 2), key, tmp_path / "here", here)

    in_threads(other, this)
    assert found["here"] == found["there"] == uninterrupted["2"]
    assert {0, 1} <= set(there.numbers())
    assert not {0, 1} & set(here.numbers())
    assert each_complete_once(stored_states(database, key))
    assert "resnet-step: waits for trials that other workers train" in capsys.readouterr().err


def test_a_worker_says_that_it_lives_as_long_as_it_trains(tmp_path, key, database, monkeypatch):
    """Each heartbeat that was made old is followed by a new one, or others would take the trial away."""
    monkeypatch.setattr(tuning, "_HEARTBEAT_SECONDS", 0.01)

    def long(share, numbers):
        for _ in range(2):
            let_time_pass(database, key)
            assert becomes(lambda: not silent(database, key))

    trainings = Trainings(before=long)
    trials = tune(make(), params(1), key, tmp_path, trainings)
    assert trials[0]["rungs"][0]["objective"] == loss(default_values(make()))
    assert not [thread for thread in threading.enumerate() if "beat" in thread.name]  # ended with it


def becomes(condition: Callable[[], bool]) -> bool:
    """Look until it is so."""
    pause = threading.Event()
    return any(condition() or pause.wait(0.01) for _ in range(100 * PATIENCE))


def silent(database: str, key: str) -> bool:
    """Whether the last heartbeat of any trial of the study is old."""
    with connected(database) as connection:
        return connection.execute(
            "SELECT min(heartbeat) < datetime('now', '-1 minute') FROM trial_heartbeats JOIN trials USING "
            "(trial_id) JOIN studies USING (study_id) WHERE instr(study_name, ?) > 0",
            (key,),
        ).fetchone()[0]


def test_a_database_that_does_not_answer_for_a_while_ends_neither_training_nor_heartbeats(
    tmp_path, key, monkeypatch, capsys
):
    import optuna
    from sqlalchemy.exc import OperationalError

    monkeypatch.setattr(tuning, "_HEARTBEAT_SECONDS", 0.01)
    original, main = optuna.storages.RDBStorage.record_heartbeat, threading.current_thread()
    beats, again = itertools.count(), threading.Event()

    def record(self, trial_id):
        if threading.current_thread() is not main:
            if next(beats) < 3:
                cause = OperationalError(
                    "UPDATE trial_heartbeats", {}, Exception("server closed the connection")
                )
                raise optuna.exceptions.StorageInternalError("An exception is raised.") from cause
            again.set()
        original(self, trial_id)

    monkeypatch.setattr(optuna.storages.RDBStorage, "record_heartbeat", record)

    def long(share, numbers):
        assert again.wait(PATIENCE)

    assert len(tune(make(), params(1), key, tmp_path, Trainings(before=long))) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "does not answer" in line]
    assert len(said) == 1
    assert said[0].startswith("resnet-step: Optuna's database")
    assert "server closed the connection" in said[0]


@contextlib.contextmanager
def meanwhile(owner: type, name: str, happens: Callable[[], object]):
    """Just before ``owner.name`` is called for the first time, something else happens, once."""
    original, done = getattr(owner, name), []

    def call(self, *arguments, **options):
        if not done:
            done.append(True)
            happens()
        return original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call)
        yield
    assert done


def test_another_machine_finished_the_trial_between_looking_and_claiming(
    tmp_path, key, database, uninterrupted
):
    from optuna.storages import RDBStorage

    here, there = Trainings(), Trainings()

    def other() -> None:
        assert tune(make(), params(4, 2), key, tmp_path / "there", there) == uninterrupted["2"][:4]

    with meanwhile(RDBStorage, "record_heartbeat", other):
        assert tune(make(), params(4, 2), key, tmp_path / "here", here) == uninterrupted["2"][:4]
    assert here.numbers() == []
    assert all(state == ["COMPLETE"] for state in stored_states(database, key).values())


def test_another_machine_stored_the_same_trial_meanwhile(tmp_path, key, database, uninterrupted):
    """The first counts; what was stored as well is given up and never trained."""
    from optuna.storages import RDBStorage

    here, there = Trainings(), Trainings()

    def other() -> None:
        tune(make(), params(1, 2), key, tmp_path / "there", there)

    with meanwhile(RDBStorage, "_create_new_trial", other):
        assert tune(make(), params(4, 2), key, tmp_path / "here", here) == uninterrupted["2"][:4]
    assert there.numbers() == [0]
    assert here.numbers() == [1, 2, 3]
    states = stored_states(database, key)
    assert states.pop(0) == ["COMPLETE", "FAIL"]
    assert states == {number: ["COMPLETE"] for number in (1, 2, 3)}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_another_machine_gave_a_silent_worker_up_meanwhile(tmp_path, key, database, uninterrupted):
    import optuna

    killed_in_training(key, tmp_path / "there", params(1, 2), 0)

    def other() -> None:
        let_time_pass(database, key)
        name = study_name("resnet-step", key, [1.0])
        storage = tuning._open_storage(tmp_path)
        optuna.storages.fail_stale_trials(optuna.load_study(study_name=name, storage=storage))

    trainings = Trainings()
    with meanwhile(optuna.storages.RDBStorage, "_create_new_trial", other):
        assert tune(make(), params(4, 2), key, tmp_path / "here", trainings) == uninterrupted["2"][:4]
    assert sorted(trainings.numbers()) == [0, 1, 2, 3]
    assert each_complete_once(stored_states(database, key))


@pytest.mark.parametrize("when", ["while it trained", "while it told its result"])
def test_a_worker_that_was_taken_for_dead_and_comes_back_changes_nothing(
    tmp_path, key, database, uninterrupted, monkeypatch, when
):
    """A machine that slept: another one has trained its trial and finished the search before it wakes."""
    import optuna

    here, there = Trainings(), Trainings()

    def other(*_: object) -> None:
        let_time_pass(database, key)
        assert tune(make(), params(4, 2), key, tmp_path / "there", there) == uninterrupted["2"][:4]

    monkeypatch.setattr(tuning._Worker, "_alive", lambda self, trials: contextlib.nullcontext())
    owner, name = {
        "while it trained": (Trainings, "_train"),
        "while it told its result": (optuna.samplers.RandomSampler, "after_trial"),
    }[when]
    with meanwhile(owner, name, other):
        assert tune(make(), params(4, 2), key, tmp_path / "here", here) == uninterrupted["2"][:4]
    assert here.numbers() == [0]
    assert there.numbers() == [0, 1, 2, 3]
    states = stored_states(database, key)
    assert states.pop(0) == ["FAIL", "COMPLETE"]
    assert states == {number: ["COMPLETE"] for number in (1, 2, 3)}


# --- divergence, other studies, mistakes ---


def test_a_diverged_trial_is_kept_with_its_reason_and_is_never_the_best(tmp_path, key):
    bad = {1: math.inf, 3: math.nan, 4: -math.inf}
    trainings = Trainings(lambda number, values, share: bad.get(number, loss(values)))
    trials = tune(make(), params(6, 2), key, tmp_path, trainings)
    assert len(trials) == 6
    for number in bad:
        assert trials[number]["rungs"] == [
            {
                "share": 1.0,
                "objective": None,
                "status": "diverged",
                "epochs_of_full_data": 2.0,
                "reason": "the loss was not finite in epoch 2",
            }
        ]
    worked = {number: loss(trials[number]["values"]) for number in (0, 2, 5)}
    assert best_trial(trials)["number"] == min(worked, key=worked.get)
    # They are known to Optuna too, as bad ones: it is not asked for more in their place.
    assert tune(make(), params(6, 2), key, tmp_path, trainings) == trials
    assert trainings.numbers() == list(range(6))


def test_a_search_in_which_all_diverge_ends_and_gives_the_defaults(tmp_path, key):
    trials = tune(make(), params(6, 4), key, tmp_path, Trainings(lambda *_: math.inf))
    assert [trial["rungs"][0]["objective"] for trial in trials] == [None] * 6
    assert best_trial(trials)["values"] == default_values(make())


IDENTITY = {"data": "11", "training.py": "22", "search space": "33", "seeds": "44"}


@pytest.mark.parametrize(
    ("rungs", "changes", "named"),
    [
        ((1.0,), {"data": "0"}, "data"),
        ((1.0,), {"training.py": "0", "seeds": "0"}, "training.py and seeds"),
        (RUNGS, {"torch": "0"}, "torch"),
    ],
)
def test_a_study_of_something_else_is_one_error_that_says_what_and_how_to_start_afresh(
    tmp_path, key, database, rungs, changes, named
):
    import optuna

    search = params(1, rungs=rungs)
    tune(make(), search, key, tmp_path, Trainings(), identity=IDENTITY)
    with pytest.raises(StudyError) as error:
        tune(make(), search, key, tmp_path, Trainings(None), identity=IDENTITY | changes)
    study = study_name("resnet-step", key, list(rungs))
    assert str(error.value) == (
        f"Optuna's study {study} belongs to other {named}; to start afresh, delete it: optuna delete-study "
        f'--study-name {study} --storage "$LRSTUDY_OPTUNA_STORAGE" (unset: sqlite:///optuna.db).'
    )
    for rung in range(len(rungs)):
        optuna.delete_study(study_name=study_name("resnet-step", key, list(rungs), rung), storage=database)
    trainings = Trainings()
    tune(make(), search, key, tmp_path, trainings, identity=IDENTITY | changes)
    assert trainings.numbers() == [0]


def test_the_same_identity_goes_on_with_its_study(tmp_path, key, uninterrupted):
    trainings = Trainings()
    for num_trials in (1, 4):
        trials = tune(make(), params(num_trials), key, tmp_path, trainings, identity=dict(IDENTITY))
    assert trials == uninterrupted["2"][:4]
    assert trainings.numbers() == list(range(4))


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
    tune(similar, params(1), first, tmp_path, Trainings(), identity={})
    assert earlier_studies(cell, first, tmp_path, IDENTITY) is None

    tune(cell, params(1), first, tmp_path, Trainings(), identity=IDENTITY)
    assert earlier_studies(cell, first, tmp_path, IDENTITY) is None  # it is the same one
    changed = IDENTITY | {"data": "0", "seeds": "0"}
    said = earlier_studies(cell, second, tmp_path, changed)
    assert said == (
        "a new search begins, since its data and seeds differ from those of the study resnet-late-"
        f"{'a' * 16}, whose trials stay in {database}"
    )

    tune(cell, params(1, rungs=RUNGS), second, tmp_path, Trainings(), identity=changed)
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
    for opens in (
        lambda: tune(make(), params(), key, tmp_path, Trainings()),
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


def trials_with(objectives: list[float | None], cell: Cell, share: float = 1.0) -> list[dict]:
    """Trials with distinct values and these objectives on the first share."""
    defaults = default_values(cell)
    return [
        {
            "number": number,
            "values": {
                name: number + 1 if name == "step_size" else value * 0.9**number
                for name, value in defaults.items()
            },
            "rungs": [{"share": share, "objective": objective}],
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
    paths = draw(trials_with(objectives, cell, 0.25), cell, tmp_path / "figures")
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
    objective, known = judge(records, 0.25)
    assert objective == 0.625
    assert known == {
        "status": "finished",
        "epochs_of_full_data": 1.5,  # six epochs, each on a quarter of the data
        "seconds": 3.0,
        "ended": 203_250,
        "identities": [one.identity for one in records],  # which trainings it is of
        # of the mean of 0.5 and 0.75: half their difference, sqrt(((1/8)^2 + (1/8)^2) / 1) / sqrt(2)
        "standard_error": pytest.approx(0.125, rel=1e-12),
    }


def test_the_standard_error_of_a_single_seeds_objective_is_that_over_the_validation_examples():
    objective, known = judge([record([0.9, 0.2, 0.5])], 1.0)
    assert (objective, known["standard_error"]) == (0.5, 0.0625)
    assert known["epochs_of_full_data"] == 3


def test_one_diverged_seed_makes_the_trial_diverged():
    records = [record([0.9, 0.2, 0.5]), record([0.9, math.nan])]
    objective, known = judge(records, 0.5)
    assert objective == math.inf
    assert known == {
        "status": "diverged",
        "epochs_of_full_data": 2.5,  # what was trained was paid for
        "seconds": 2.5,
        "ended": 103_000,
        "identities": [one.identity for one in records],
        "reason": "the loss was not finite in epoch 2",
    }
