"""The search for each cell's base rate and schedule parameters, with Optuna.

Every schedule of a model gets the same number of trials, the same seeds and the same data. The first trial
is the config's defaults. The next ones, ``tune.num_quasi_random`` in all with the defaults, are points of a
quasi-random sequence (scrambled Sobol): evenly spread, and with the same base rate in trial n of every
schedule of a model, so that no schedule wins because it met the better rates. Those after them come from
TPE. What was tried before is not a trial, nor is a candidate whose rate hardly moves; where nothing else is
left, the search ends.

No trial is cut in the middle of its schedule: what decays late looks bad until it decays. The objective is
the validation loss after the last epoch, the mean over ``tune.seeds``. The best ``tune.finalists`` are
trained again with ``tune.confirm_seeds``, and the mean over all tuning seeds decides: one seed's lowest
loss is as much luck as merit.

Trials are suggested ``tune.batch_size`` at a time from the results of the batches before, each by a sampler
seeded with the trial's number. So the search depends neither on the number of workers and the order in which
they end, nor on being killed and continued, nor on whether ``num_trials`` was raised later: whoever knows
what came of its trainings goes through it again and comes to the same.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrstudy.errors import StudyError
from lrstudy.files import locked, write_json
from lrstudy.recipe.cells import Cell, default_values
from lrstudy.recipe.config import Choices, FloatRange, TuneParams
from lrstudy.tracking.store import describe, in_workspace, is_gone, server_name

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    Distribution = CategoricalDistribution | FloatDistribution | IntDistribution

FIGURES = ("optimization_history", "slice", "param_importances")
"""What :func:`draw` draws, in this order."""

SEARCH, CONFIRMATION = "search", "confirmation"
"""The phases: all trials with ``tune.seeds``, then the finalists with ``tune.confirm_seeds``."""

_ATTEMPTS = 32  # candidates drawn for one trial before the search looks for what is left
_DIMENSIONS = 16  # of the quasi-random points, whatever a schedule needs, so that all share the first


def storage_uri(root: Path) -> str:
    """``LRSTUDY_OPTUNA_STORAGE``, else the database ``optuna.db``; a relative path is one in ``root``."""
    return in_workspace(os.environ.get("LRSTUDY_OPTUNA_STORAGE") or "sqlite:///optuna.db", root)


def study_name(cell: str, key: str, phase: str = SEARCH, search: int = 0) -> str:
    """The Optuna study of one phase of one search: its objectives are all of the same seeds."""
    name = f"{cell}-{key[:16]}" + (f"-search-{search + 1}" if search else "")
    return name if phase == SEARCH else f"{name}-{phase}"


def trial_name(search: int, phase: str, number: int) -> str:
    """A trial's name: ``trial 3``, ``search 2 trial 3 confirmation``; ``search`` is from 0."""
    of = f"search {search + 1} " if search else ""
    return f"{of}trial {number}" + (f" {phase}" if phase == CONFIRMATION else "")


def seeds_of(tune_params: TuneParams, phase: str) -> list[int]:
    """The seeds that a trial is trained with in this phase."""
    return tune_params.seeds if phase == SEARCH else tune_params.confirm_seeds


def most_trainings(tune_params: TuneParams) -> int:
    """The largest number of trainings that a cell's searches take; fewer only if trials diverge or run out.

    searches x (num_trials x seeds + finalists x confirm_seeds), with no more finalists than trials.
    """
    finalists = min(tune_params.finalists, tune_params.num_trials)
    once = tune_params.num_trials * len(tune_params.seeds) + finalists * len(tune_params.confirm_seeds)
    return tune_params.searches * once


def add_result(
    results: dict[int, dict], phase: str, number: int, values: dict, objective: float, known: dict
) -> None:
    """Note in ``results``, trials by number, what a phase said of a trial.

    A trial has ``number``, ``values``, ``objective`` (the mean over all seeds that it was trained with, None
    where one diverged), and by phase, ``search`` and ``confirmation`` (None if it is no finalist), its
    ``objective`` there and what is ``known`` of it: at least ``losses``, one per seed of the phase, None
    where it diverged.
    """
    trial = results.setdefault(
        number, {"number": number, "values": values, "objective": None, SEARCH: None, CONFIRMATION: None}
    )
    trial[phase] = {"objective": objective if math.isfinite(objective) else None, **known}
    found = [trial[part] for part in (SEARCH, CONFIRMATION) if trial[part] is not None]
    trial["objective"] = None
    if all(part["objective"] is not None for part in found):
        losses = [loss for part in found for loss in part["losses"]]
        trial["objective"] = sum(losses) / len(losses)


def _objective(trial: "optuna.trial.FrozenTrial") -> float:
    """What a finished trial came to."""
    if trial.value is None:
        raise ValueError(f"trial {trial.number} has not finished")
    return trial.value


Steps = Generator[tuple[str, dict[int, dict]], "dict[int, optuna.trial.FrozenTrial]", None]


def search_steps(cell: Cell, tune_params: TuneParams, search: int = 0) -> Steps:
    """The search as a dialogue, whoever trains: it says what is to be trained and is sent what came of it.

    Yields (phase, trial number -> values), and is sent these trials, finished, by number. An objective that
    is not finite marks divergence. There are fewer than ``num_trials`` if the space has no more.

    Args:
        cell: what is tuned.
        tune_params: number of trials, finalists, seeds, batch size, seed of the sampler.
        search: which of ``tune.searches``, from 0: each has a sampler's seed of its own.

    Raises:
        StudyError: the defaults lie outside of the search space.
    """
    space, defaults = distributions(cell), default_values(cell)
    num_trials, sampler_seed = tune_params.num_trials, tune_params.sampler_seed + search
    finished: dict[int, optuna.trial.FrozenTrial] = {}
    exhausted = False
    for start in range(0, num_trials, tune_params.batch_size):
        batch: dict[int, dict] = {0: defaults} if start == 0 else {}
        before = [finished[number] for number in range(start)]
        for number in range(max(start, 1), min(start + tune_params.batch_size, num_trials)):
            beside = list(batch.values())
            tried = [dict(trial.params) for trial in before] + beside
            values = None
            if number >= tune_params.num_quasi_random:
                values = _by_tpe(before, beside, tried, number, space, sampler_seed, cell)
            if values is None:
                values = _quasi_random(tried, number, space, sampler_seed, cell)
            if values is None:
                exhausted = True
                break
            batch[number] = values
        if batch:
            finished |= yield SEARCH, batch
        if exhausted:
            break
    ranked = sorted((_objective(t), number) for number, t in finished.items() if math.isfinite(_objective(t)))
    finalists = sorted(number for _, number in ranked[: tune_params.finalists])
    if finalists and tune_params.confirm_seeds:
        yield CONFIRMATION, {number: dict(finished[number].params) for number in finalists}


def best_trial(trials: list[dict]) -> dict:
    """Of the finalists the one of lowest mean over all tuning seeds, the earlier of equals.

    If every finalist diverged with a further seed, the best of the other trials; the first, which is the
    defaults, if all diverged.
    """
    worked = [trial for trial in trials if trial["objective"] is not None]
    if not worked:
        return trials[0]
    return min(worked, key=lambda t: (t[CONFIRMATION] is None, t["objective"], t["number"]))


def budget(trials: list[dict], num_quasi_random: int) -> list[dict]:
    """What the best of k trials is expected to have, for every k that the trials can tell of.

    The first trial is the defaults and the others are drawn, so the best of k is that of the defaults and
    m = k - 1 of the n others, every choice of them equally likely: without replacement, which is unbiased
    for trials drawn alike. With the losses of the others in order, y_1 <= ... <= y_n, the lowest of m is y_i
    with the chance C(n - i, m - 1) / C(n, m). The trial is chosen by its objective on ``tune.seeds``; its
    other validation metrics are those of the same trainings. TPE's trials depend on those before them, so
    their order is not free, and they are left out.

    Returns:
        For k = 1, ..., n + 1: ``num_trials`` k, and the expected ``loss`` and further metrics; None where
        all k may have diverged. It is what the search sees: the lowest of noisy losses is lower than what
        new seeds would have.

    Source: Sivaprasad et al. 2020, arXiv 1910.11758, section 3, and Dodge et al. 2019, arXiv 1909.03004 (with
    replacement there).
    """

    def metrics(trial: dict) -> dict[str, Any]:
        known = trial[SEARCH]
        return {"loss": known["objective"], **(known.get("validation") or {})}

    def order(trial: dict) -> tuple:
        objective = trial[SEARCH]["objective"]
        return math.inf if objective is None else objective, trial["number"]

    defaults, *others = [trial for trial in trials if trial["number"] < max(1, num_quasi_random)]
    others.sort(key=order)
    count = len(others)
    rows = []
    for size in range(1, count + 2):
        drawn = size - 1
        chances = [(1.0, defaults)]
        if drawn:
            found = zip(chances_of_best(count, drawn), others, strict=False)
            chances = [(chance, min(defaults, trial, key=order)) for chance, trial in found]
        row: dict = {"num_trials": size}
        for name in metrics(defaults) | (metrics(others[0]) if others else {}):
            diverged = any(trial[SEARCH]["objective"] is None for _, trial in chances)
            row[name] = (
                None if diverged else math.fsum(chance * metrics(trial)[name] for chance, trial in chances)
            )
        rows.append(row)
    return rows


def chances_of_best(count: int, drawn: int) -> list[float]:
    """The chance that the i-th best of ``count`` is the best of ``drawn``, all choices equally likely.

    C(n - i, m - 1) / C(n, m) for i = 1, ..., n - m + 1, with n = count and m = drawn, at least 1; 0 beyond.
    """
    ways = math.comb(count, drawn)
    return [math.comb(count - i, drawn - 1) / ways for i in range(1, count - drawn + 2)]


class Trials:
    """Optuna's database of a cell's searches, which its dashboard reads; the study itself does not.

    Args:
        key: what the searches are of; names the studies together with the cell.
        identity: what ``key`` was made of, in words; kept with a study to tell later ones what differs.
        folder: where is written down what the database was told, so that who has nothing new need not open
        it.

    Raises:
        StudyError: the database cannot be opened or written, or the study there is another one.
    """

    def __init__(self, cell: Cell, key: str, root: Path, identity: dict[str, str], folder: Path):
        self.cell, self.key, self.root, self.identity = cell, key, root, identity
        self._note, self._lock = folder / "in-optuna.json", folder / "in-optuna.lock"
        self._told = self._read_note()
        self._space: dict[str, Distribution] = {}
        self._studies: dict[str, optuna.Study] = {}

    @property
    def is_new(self) -> bool:
        """Whether the database was told of no trial of these searches yet."""
        return not self._told

    def add(self, search: int, phase: str, number: int, values: dict, objective: float, known: dict) -> None:
        """Have a trial that has ended in the database, unless it is there."""
        from optuna.trial import TrialState, create_trial

        name = study_name(self.cell.name, self.key, phase, search)
        if number in self._told.get(name, ()):
            return
        # Another process may go through the same search: who has the lock looks and adds.
        with _clear_database_errors(self.root), locked(self._lock):
            if name not in self._studies:
                self._space = distributions(self.cell)
                self._studies[name] = _open_study(name, _open_storage(self.root), self.root, self.identity)
            there = self._studies[name].get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if all(trial.user_attrs.get("number") != number for trial in there):
                self._studies[name].add_trial(
                    create_trial(
                        params=values,
                        distributions=dict(self._space),
                        value=objective if math.isfinite(objective) else math.inf,
                        user_attrs={"number": number, **known},
                    )
                )
        self._told.setdefault(name, []).append(number)
        write_json(self._note, {"database": server_name(storage_uri(self.root)), "trials": self._told})

    def _read_note(self) -> dict[str, list[int]]:
        """By study the trials that the database has; nothing where that is in doubt, so that it is asked."""
        uri = storage_uri(self.root)
        try:
            note = json.loads(self._note.read_text("utf-8"))
            if note["database"] != server_name(uri) or is_gone(uri):
                return {}
            return {
                str(name): [int(number) for number in numbers] for name, numbers in note["trials"].items()
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}


@contextlib.contextmanager
def _clear_database_errors(root: Path) -> Iterator[None]:
    """One message for a database of trials that is full, locked for too long or gone."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        uri = storage_uri(root)
        raise StudyError(
            f"Optuna's database {server_name(uri)} failed ({describe(error.__cause__ or error, uri)}); fix "
            "it, then run it again: finished trials and epochs are kept."
        ) from error


def _open_storage(root: Path) -> "optuna.storages.RDBStorage":
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    uri = storage_uri(root)
    # Several cells may be tuned at once: their writes wait for each other, sqlite's own patience is 5 s.
    options = {"connect_args": {"timeout": 60}} if uri.startswith("sqlite:") else {}
    try:
        # Two processes that make the same database's tables at once break each other.
        with locked(root / "optuna.db.lock"), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.RDBStorage(
                uri,
                engine_kwargs=options,
            )
    except (SQLAlchemyError, ImportError, RuntimeError, optuna.exceptions.StorageInternalError) as error:
        raise StudyError(
            f"Optuna's database {server_name(uri)} cannot be opened ({describe(error, uri)}); "
            "LRSTUDY_OPTUNA_STORAGE names another, unset it is optuna.db in the workspace."
        ) from None


def _open_study(
    name: str, storage: "optuna.storages.RDBStorage", root: Path, identity: dict[str, str]
) -> "optuna.Study":
    """The study ``name``, made if it is not there.

    Raises:
        StudyError: the study of that name was made of something else.
    """
    import optuna

    with locked(root / "optuna.db.lock"):
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(),  # it is asked nothing: see search_steps
        )
        stored = study.user_attrs.get("identity")
        if stored is None and not study.get_trials(deepcopy=False):
            study.set_user_attr("identity", identity)
            stored = identity
    if differing := differences(identity, stored or {}):
        raise StudyError(
            f"Optuna's study {name} belongs to other {' and '.join(differing)}; to start afresh, delete it: "
            f'optuna delete-study --study-name {name} --storage "$LRSTUDY_OPTUNA_STORAGE" '
            "(unset: sqlite:///optuna.db)."
        )
    return study


def earlier_studies(cell: Cell, key: str, root: Path, identity: dict[str, str]) -> str | None:
    """What differs from the latest earlier search of this cell, in a sentence; None if this one is there.

    A search on other data, with other code or settings has a study of its own: nothing is mixed.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = _open_storage(root)
    studies = [s for s in storage.get_all_studies() if s.study_name.startswith(f"{cell.name}-")]
    if not studies or any(s.study_name.startswith(f"{cell.name}-{key[:16]}") for s in studies):
        return None
    latest = max(studies, key=lambda study: study._study_id)
    differing = differences(identity, latest.user_attrs.get("identity", {}))
    what = " and ".join(differing) or "version"
    return (
        f"a new search begins, since its {what} differ from those of the study {latest.study_name}, whose "
        f"trials stay in {server_name(storage_uri(root))}"
    )


def differences(mine: dict[str, str], stored: dict[str, str]) -> list[str]:
    """The names in ``mine`` whose values ``stored`` does not have alike."""
    return [name for name, value in mine.items() if stored.get(name) != value]


def moves(cell: Cell, values: dict) -> bool:
    """Whether the schedule moves the rate (:meth:`~lrstudy.recipe.cells.Cell.moves`), or is static."""
    return cell.function == "static" or cell.moves(values)


def _quasi_random(
    tried: list[dict],
    number: int,
    space: dict[str, "Distribution"],
    sampler_seed: int,
    cell: Cell,
) -> dict | None:
    """The values of trial ``number`` > 0 from a quasi-random point; None if none is left.

    The first coordinate is the base rate. Where the values were ``tried`` or don't move, the schedule's
    parameters are drawn again from another sequence, and the base rate, which the model's other schedules
    have too, stays. If that finds nothing, a search space that is finite is looked through for what is
    left.
    """
    dimensions = max(_DIMENSIONS, len(space))
    shared = _point(sampler_seed, number - 1, dimensions)
    for attempt in range(_ATTEMPTS):
        point = shared
        if attempt:
            point = (shared[0], *_point(_seed(sampler_seed, number, attempt), 0, dimensions)[1:])
        values = {name: _at(share, where) for share, (name, where) in zip(point, space.items(), strict=False)}
        if values not in tried and moves(cell, values):
            return values
    listed = [some for where in space.values() if (some := _all_of(where)) is not None]
    if len(listed) < len(space):
        return None
    base_lr = _at(shared[0], space["base_lr"])
    left = [
        values
        for values in (dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*listed))
        if values not in tried and moves(cell, values)
    ]
    return min(left, key=lambda values: values["base_lr"] != base_lr, default=None)


def _point(seed: int, index: int, dimensions: int) -> tuple[float, ...]:
    """Point ``index``, from 0, of the scrambled Sobol sequence of this seed, in [0, 1)^dimensions."""
    return _points(seed, 1 << index.bit_length(), dimensions)[index]


@functools.lru_cache(maxsize=64)
def _points(seed: int, count: int, dimensions: int) -> list[tuple[float, ...]]:
    """The first ``count`` points of :func:`_point`'s sequence, which is that of Optuna's ``QMCSampler``.

    All at once: that sampler scrambles the sequence anew for every point that it is asked for.
    """
    from scipy.stats import qmc

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The balance properties of Sobol' points")
        return list(map(tuple, qmc.Sobol(dimensions, scramble=True, seed=seed).random(count).tolist()))


def _at(share: float, where: "Distribution") -> object:
    """The value at this share, 0 <= share < 1, of a range (of its logarithm with ``log``) or of a list."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(where, CategoricalDistribution):
        return where.choices[int(share * len(where.choices))]
    whole = not isinstance(where, FloatDistribution)
    # A whole number has from half below it to half above it, as in Optuna.
    low, high = (where.low - 0.5, where.high + 0.5) if whole else (where.low, where.high)
    if where.log:
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        value = low + share * (high - low)
    return min(max(math.floor(value + 0.5), where.low), where.high) if whole else _rounded(value, where)


def _all_of(where: "Distribution") -> list | None:
    """All values of a list or of whole numbers; None where there are infinitely many."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(where, CategoricalDistribution):
        return list(where.choices)
    if isinstance(where, FloatDistribution):
        return [where.low] if where.low == where.high else None
    return list(range(where.low, where.high + 1))


def _seed(*parts: int) -> int:
    """A seed for a random generator that differs with every part."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _by_tpe(
    before: list["optuna.trial.FrozenTrial"],
    beside: list[dict],
    tried: list[dict],
    number: int,
    space: dict[str, "Distribution"],
    sampler_seed: int,
    cell: Cell,
) -> dict | None:
    """The values of trial ``number``, from those finished ``before`` its batch and those ``beside`` it.

    Whether those beside it have finished meanwhile makes no difference: they only keep the sampler away. None
    where everything that it draws was tried or does not move.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    for attempt in range(_ATTEMPTS):
        sampler = optuna.samplers.TPESampler(
            seed=_seed(sampler_seed, number, attempt),
            n_startup_trials=4,
            multivariate=True,
            constant_liar=True,
        )
        study = optuna.create_study(sampler=sampler)
        study.add_trials(before)
        study.add_trials(
            create_trial(state=TrialState.RUNNING, params=values, distributions=dict(space))
            for values in beside
        )
        values = {name: _rounded(value, space[name]) for name, value in study.ask(dict(space)).params.items()}
        if values not in tried and moves(cell, values):
            return values
    return None


def _rounded(value: object, where: "optuna.distributions.BaseDistribution") -> object:
    """A float to six digits, inside of its range.

    Processors differ in the last bit of a logarithm, and a training is known by its settings to the last bit.
    """
    from optuna.distributions import FloatDistribution

    if not isinstance(where, FloatDistribution):
        return value
    return min(max(float(f"{value:.6g}"), where.low), where.high)


def draw(trials: list[dict], cell: Cell, folder: Path) -> list[Path]:
    """Optuna's figures of all trials with the search's seeds, as PNG in ``folder``; returns what was drawn.

    The history of the objective, a slice for each parameter and, for several parameters, their importances
    (PED-ANOVA; Watanabe et al. 2023, arXiv 2304.10255). Nothing from fewer than three trials that worked.
    """
    import optuna
    from optuna.trial import create_trial

    space = distributions(cell)
    study = optuna.create_study()
    for trial in trials:
        if (objective := trial[SEARCH]["objective"]) is not None:
            study.add_trial(create_trial(params=trial["values"], distributions=dict(space), value=objective))
    if len(study.trials) < 3:
        return []
    from optuna.visualization import matplotlib as plots  # a second

    drawn: dict[str, Callable[..., Any]] = {
        "optimization_history": plots.plot_optimization_history,
        "slice": plots.plot_slice,
    }
    if len(space) > 1:
        drawn["param_importances"] = plots.plot_param_importances
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for name, plot in drawn.items():
            axes = plot(study, target_name="validation loss")
            figure = getattr(axes, "figure", None) or axes[0].figure
            figure.set_size_inches(6.4, 3.6)
            for axis in figure.axes:
                axis.tick_params(axis="x", which="minor", labelbottom=False)  # they overlap
                if name == "optimization_history":
                    axis.legend(loc="best")  # Optuna's, beside the plot, leaves it no room
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=120, bbox_inches="tight", metadata={"Software": None})
            figure.clear()
    return paths


def distributions(cell: Cell) -> dict[str, "Distribution"]:
    """The cell's search space as Optuna has it.

    Raises:
        StudyError: it holds no value, or not the defaults, which are the first trial.
    """
    where = cell.search_space()
    found = {name: _distribution(name, searched, cell) for name, searched in where.items()}
    for name, value in default_values(cell).items():
        check_inside(name, value, where[name], cell)
    return found


def check_inside(name: str, value: Any, where: FloatRange | Choices, cell: Cell) -> None:
    """Refuse a default outside of where it is searched."""
    if isinstance(where, Choices):
        inside, allowed = value in where.choices, f"one of {where.choices}"
    else:
        whole = not where.int_ or value == int(value)
        low, high = where.bounds
        inside = whole and low <= value <= high
        allowed = f"{'a whole number ' if where.int_ else ''}from {low:g} to {high:g}"
    if not inside:
        raise StudyError(
            f"conf: {cell.name}: the default {name} = {value!r} lies outside its search space ({allowed}); "
            "the first trial is the defaults, so widen the one or move the other."
        )


def _distribution(name: str, where: FloatRange | Choices, cell: Cell) -> "Distribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(where, Choices):
        return CategoricalDistribution(where.choices)
    lowest, highest = where.bounds
    if not where.int_:
        return FloatDistribution(lowest, highest, log=where.log)
    low, high = math.ceil(lowest), math.floor(highest)
    if low > high or (where.log and low < 1):
        raise StudyError(
            f"conf: {cell.name}: search.{name} has no whole number{' above 0' if where.log else ''} from "
            f"{lowest:g} to {highest:g}; widen it."
        )
    return IntDistribution(low, high, log=where.log)
