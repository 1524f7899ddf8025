"""The search for each cell's base rate and schedule parameters: the only importer of optuna.

Every schedule of a model gets the same number of trials, the same seeds and the same data. The first trial
is the config's defaults. No trial is cut in the middle of its schedule: what decays late looks bad until it
decays. The objective is the validation loss after the last epoch, the mean over ``tune.seeds``.

``tune.rungs`` are growing shares of the training split. All trials train on the first share, the best of them
(and the defaults) again on the next: successive halving over complete schedules. ``[1]`` is plain search.

Trials are suggested ``tune.batch_size`` at a time from the results of the batches before, each by a sampler
seeded with the trial's number, and stored whole. So the search depends neither on the number of workers nor
on being killed and continued, nor on whether ``num_trials`` was raised later. Workers, here or on machines
that share the database, claim single trials in it; a dead worker's trials are trained by the others.
"""

import contextlib
import fcntl
import hashlib
import math
import os
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lrstudy.cells import Cell, default_values
from lrstudy.config import Choices, FloatRange, TuneParams
from lrstudy.errors import StudyError
from lrstudy.files import locked
from lrstudy.tracking import describe, in_workspace, server_name

if TYPE_CHECKING:
    import optuna

Evaluate = Callable[[float, list[tuple[int, dict]]], list[tuple[float, dict]]]
"""(training share, [(trial number, values)]) -> [(objective, what is known of the trial)], in that order."""

_HEARTBEAT_SECONDS = 30  # how often a worker says that it lives, for workers on other machines
_GRACE_SECONDS = 150  # a worker that was silent for so long is dead
_POLL_SECONDS = 1.0  # how often to look whether other workers have finished


def storage_uri(root: Path) -> str:
    """``LRSTUDY_OPTUNA_STORAGE``, else the database ``optuna.db``; a relative path is one in ``root``."""
    return in_workspace(os.environ.get("LRSTUDY_OPTUNA_STORAGE") or "sqlite:///optuna.db", root)


def study_name(cell: str, key: str, rungs: list[float], rung: int = 0) -> str:
    """The Optuna study of one rung: a study's objectives are all measured on the same share of the data."""
    name = f"{cell}-{key[:16]}"
    return name if rungs == [1] else f"{name}-on-{rungs[rung]:g}"


def rung_sizes(num_trials: int, rungs: list[float]) -> list[int]:
    """How many trials each share is given, so that every rung costs about the same: n_i = ceil(n r_0 / r_i).

    The defaults go along to every rung beside them. Source of the rule: successive halving, Jamieson and
    Talwalkar 2016, arXiv 1502.07943, with shares of the data as the resource.
    """
    return [math.ceil(num_trials * rungs[0] / share - 1e-9) for share in rungs]


def largest_cost(num_trials: int, rungs: list[float], num_epochs: int, num_seeds: int) -> float:
    """An upper bound of the search's cost in epochs of the full training split: whoever wins, never more."""
    sizes = rung_sizes(num_trials, rungs)
    trained = [sizes[0], *(min(num_trials, size + 1) for size in sizes[1:])]
    return num_seeds * num_epochs * sum(n * share for n, share in zip(trained, rungs, strict=True))


def tune(
    cell: Cell,
    tune_params: TuneParams,
    key: str,
    root: Path,
    evaluate: Evaluate,
    *,
    identity: dict[str, str] | None = None,
    at_once: int = 1,
) -> list[dict]:
    """Run (or go on with) the cell's search until it has ``num_trials`` trials; returns them by number.

    Args:
        cell: what is tuned.
        tune_params: number of trials, rungs, batch size, seed of the sampler.
        key: identifies what is searched on what data; names the studies together with the cell.
        root: where the default database and the locks of this machine's workers lie.
        evaluate: trains what it is given and returns objectives; one that is not finite marks divergence.
        identity: what ``key`` was made of, in words; kept with the study to tell later ones what differs.
        at_once: how many trials this process claims at a time.

    Returns:
        Per trial ``number``, ``values`` and ``rungs``: for every share that it was trained on ``share``,
        ``objective`` (None where it diverged) and what ``evaluate`` said.

    Raises:
        StudyError: the defaults lie outside of the search space, the database cannot be opened, or the study
            there is another one.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = distributions(cell)
    rungs = tune_params.rungs
    storage = _open_storage(root)
    studies: dict[int, optuna.Study] = {}

    def study_of(rung: int) -> "optuna.Study":
        if rung not in studies:
            name = study_name(cell.name, key, rungs, rung)
            studies[rung] = _open_study(name, storage, root, identity or {})
        return studies[rung]

    def stored() -> dict[int, dict]:
        return {number: dict(trial.params) for number, trial in _by_number(study_of(0)).items()}

    results: dict[int, list[dict]] = {number: [] for number in range(tune_params.num_trials)}
    with _Worker(cell.name, root / "checkpoints" / cell.name / f"tuning-{key[:16]}", storage, at_once) as me:
        steps = search(cell, tune_params, stored)
        finished = None
        with contextlib.suppress(StopIteration):
            while True:
                rung, wanted = steps.send(finished)
                share = rungs[rung]

                def train(trials: list[tuple[int, dict]], share: float = share) -> list[tuple[float, dict]]:
                    return evaluate(share, trials)

                finished = me.complete(study_of(rung), wanted, space, train)
                for number, trial in finished.items():
                    objective = trial.value if math.isfinite(trial.value) else None
                    known = {k: v for k, v in trial.user_attrs.items() if k not in ("number", "worker")}
                    results[number].append({"share": share, "objective": objective, **known})
        values = stored()
    return [{"number": number, "values": values[number], "rungs": found} for number, found in results.items()]


Steps = Generator[tuple[int, dict[int, dict]], "dict[int, optuna.trial.FrozenTrial]", None]


def search(cell: Cell, tune_params: TuneParams, stored: Callable[[], dict[int, dict]] = dict) -> Steps:
    """The search as a dialogue, whoever trains: it says what is to be trained and is sent what came of it.

    Yields (rung, trial number -> values), and is sent these trials, finished, by number.

    Args:
        stored: the values of the trials that were suggested before, by number.
    """
    space, defaults = distributions(cell), default_values(cell)
    rungs, num_trials = tune_params.rungs, tune_params.num_trials
    finished: dict[int, optuna.trial.FrozenTrial] = {}
    for start in range(0, num_trials, tune_params.batch_size):
        known = stored()
        batch: dict[int, dict] = {0: defaults} if start == 0 else {}
        for number in range(start, min(start + tune_params.batch_size, num_trials)):
            if number in known:
                batch[number] = known[number]
            elif number > 0:
                before = [finished[n] for n in range(start)]
                beside = list(batch.values())
                batch[number] = _suggest(before, beside, number, space, tune_params.sampler_seed)
        finished |= yield 0, batch
    for rung in range(1, len(rungs)):
        ranked = sorted((t.value, n) for n, t in finished.items() if math.isfinite(t.value))
        kept = {number for _, number in ranked[: rung_sizes(num_trials, rungs)[rung]]}
        if 0 in finished and math.isfinite(finished[0].value):
            kept.add(0)
        if not kept:
            return  # all diverged: nothing to choose from
        finished = yield rung, {number: dict(finished[number].params) for number in sorted(kept)}


def best_trial(trials: list[dict]) -> dict:
    """Of the trials on the last share the one of lowest objective, the earlier of equals.

    The first, which is the defaults, if every one diverged.
    """

    def order(trial: dict) -> tuple:
        last = trial["rungs"][-1]
        return (-len(trial["rungs"]), math.inf if last["objective"] is None else last["objective"])

    best = min(trials, key=lambda trial: (*order(trial), trial["number"]))
    return trials[0] if best["rungs"][-1]["objective"] is None else best


class _Worker:
    """This process among those that search the same cell: which trials it holds, and which ones are orphans.

    Workers of this machine hold a lock on a file named after them, which ends with them; on other machines,
    or with another workspace, a heartbeat in the database says that they live.
    """

    def __init__(self, cell: str, folder: Path, storage: "optuna.storages.RDBStorage", at_once: int):
        self.cell, self.folder, self.storage, self.at_once = cell, folder, storage, at_once
        self.name = uuid.uuid4().hex

    def __enter__(self) -> "_Worker":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._life = self._file(self.name).open("a")
        fcntl.flock(self._life, fcntl.LOCK_EX)
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._file(self.name).unlink(missing_ok=True)
        self._life.close()

    def complete(
        self,
        study: "optuna.Study",
        wanted: dict[int, dict],
        space: dict[str, "optuna.distributions.BaseDistribution"],
        train: Callable[[list[tuple[int, dict]]], list[tuple[float, dict]]],
    ) -> dict[int, "optuna.trial.FrozenTrial"]:
        """Have every wanted trial (number -> values) finished, by this worker or by others; returns them."""
        from optuna.trial import TrialState, create_trial

        waits = False
        while True:
            # One at a time on this machine. Workers of two machines may both store a trial: the first counts.
            with locked(self.folder / "study.lock"):
                _fail_silent(study)
                stored = _by_number(study)
                for number, values in wanted.items():
                    if number not in stored:
                        study.add_trial(
                            create_trial(
                                state=TrialState.WAITING,
                                params=values,
                                distributions=space,
                                user_attrs={"number": number},
                            )
                        )
                stored = _by_number(study)
                # Another machine may have given a silent worker's trial up since: it is stored again.
                mine = self._claim([stored[number] for number in wanted if number in stored])
            if mine:
                with self._alive(mine):
                    found = train([(trial.user_attrs["number"], dict(trial.params)) for trial in mine])
                for trial, (objective, known) in zip(mine, found, strict=True):
                    self._tell(study, trial, objective, known)
                continue
            if all(number in stored and stored[number].state == TrialState.COMPLETE for number in wanted):
                return {number: stored[number] for number in wanted}
            if not waits:
                print(f"{self.cell}: waits for trials that other workers train", file=sys.stderr)
                waits = True
            time.sleep(_POLL_SECONDS)

    def _claim(self, trials: list["optuna.trial.FrozenTrial"]) -> list["optuna.trial.FrozenTrial"]:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        mine = []
        for trial in trials:
            if len(mine) == self.at_once:
                break
            # Another machine may have finished it since it was read, or given it up: then it is not for us.
            with contextlib.suppress(UpdateFinishedTrialError):
                if trial.state == TrialState.WAITING:
                    # Before the claim: a worker that dies right after it leaves a heartbeat to be missed.
                    self.storage.record_heartbeat(trial._trial_id)
                    taken = self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
                else:
                    taken = trial.state == TrialState.RUNNING and self._is_orphan(trial)
                if taken:
                    self.storage.set_trial_user_attr(trial._trial_id, "worker", self.name)
                    mine.append(trial)
        return mine

    def _is_orphan(self, trial: "optuna.trial.FrozenTrial") -> bool:
        """Whether it was under way in a process of this machine that is gone (or has forgotten it)."""
        worker = trial.user_attrs.get("worker")
        if worker is None or worker == self.name:
            return worker == self.name
        try:
            with self._file(worker).open("a+b" if self._file(worker).exists() else "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            return False  # elsewhere, or alive
        return True

    def _tell(
        self, study: "optuna.Study", trial: "optuna.trial.FrozenTrial", objective: float, known: dict
    ) -> None:
        import optuna

        value = objective if math.isfinite(objective) else math.inf
        # Another worker finishes it instead if it took this one for dead; then it says the same.
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            for attribute, found in known.items():
                self.storage.set_trial_user_attr(trial._trial_id, attribute, found)
            study.tell(trial.number, value, skip_if_finished=True)

    @contextlib.contextmanager
    def _alive(self, trials: list["optuna.trial.FrozenTrial"]) -> Iterator[None]:
        """Tell the database again and again that these trials are being trained."""
        over = threading.Event()

        def beat() -> None:
            from optuna.exceptions import StorageInternalError
            from sqlalchemy.exc import SQLAlchemyError

            failed = False
            while True:
                try:
                    for trial in trials:
                        self.storage.record_heartbeat(trial._trial_id)
                except (SQLAlchemyError, StorageInternalError) as error:
                    if not failed:
                        text = describe(error.__cause__ or error, self.storage.url)
                        print(f"{self.cell}: Optuna's database does not answer ({text})", file=sys.stderr)
                    failed = True
                if over.wait(_HEARTBEAT_SECONDS):
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _file(self, worker: str) -> Path:
        return self.folder / f"worker-{worker}.lock"


def _by_number(study: "optuna.Study") -> dict[int, "optuna.trial.FrozenTrial"]:
    """The trials by our number: of several with the same, the first that has not failed."""
    from optuna.trial import TrialState

    found: dict[int, optuna.trial.FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        if trial.state != TrialState.FAIL and "number" in trial.user_attrs:
            found.setdefault(trial.user_attrs["number"], trial)
    return found


def _fail_silent(study: "optuna.Study") -> None:
    """Mark trials failed whose worker was silent too long, and those that another machine stored as well."""
    import optuna
    from optuna.trial import TrialState

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    first = {trial.number for trial in _by_number(study).values()}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if trial.number not in first:
            # Not study.tell(), which takes only trials under way. Another machine may be quicker.
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def _open_storage(root: Path) -> "optuna.storages.RDBStorage":
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

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
                heartbeat_interval=_HEARTBEAT_SECONDS,
                grace_period=_GRACE_SECONDS,
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
            sampler=optuna.samplers.RandomSampler(),  # asks nothing: see _suggest
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


def _suggest(
    before: list["optuna.trial.FrozenTrial"],
    beside: list[dict],
    number: int,
    space: dict[str, "optuna.distributions.BaseDistribution"],
    sampler_seed: int,
) -> dict:
    """The values of trial ``number``, from those finished ``before`` its batch and those ``beside`` it.

    Whether those beside it have finished meanwhile makes no difference: they only keep the sampler away.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    seed = hashlib.sha256(f"{sampler_seed}:{number}".encode()).digest()
    sampler = optuna.samplers.TPESampler(
        seed=int.from_bytes(seed[:4], "big"), n_startup_trials=4, multivariate=True, constant_liar=True
    )
    study = optuna.create_study(sampler=sampler)
    study.add_trials(before)
    study.add_trials(
        create_trial(state=TrialState.RUNNING, params=values, distributions=space) for values in beside
    )
    return {name: _rounded(value, space[name]) for name, value in study.ask(space).params.items()}


def _rounded(value: object, where: "optuna.distributions.BaseDistribution") -> object:
    """A float to six digits, inside of its range.

    Processors differ in the last bit of a logarithm, and a training is known by its settings to the last bit.
    """
    from optuna.distributions import FloatDistribution

    if not isinstance(where, FloatDistribution):
        return value
    return min(max(float(f"{value:.6g}"), where.low), where.high)


def draw(trials: list[dict], cell: Cell, folder: Path) -> list[Path]:
    """Optuna's figures of the trials on the first share, as PNG in ``folder``; returns what was drawn.

    The history of the objective, a slice for each parameter and, for several parameters, their importances
    (PED-ANOVA; Watanabe et al. 2023, arXiv 2304.10255). Nothing from fewer than three trials that worked.
    """
    import optuna
    from optuna.trial import create_trial

    space = distributions(cell)
    study = optuna.create_study()
    for trial in trials:
        if (objective := trial["rungs"][0]["objective"]) is not None:
            study.add_trial(create_trial(params=trial["values"], distributions=space, value=objective))
    if len(study.trials) < 3:
        return []
    from optuna.visualization import matplotlib as plots  # a second

    share = trials[0]["rungs"][0]["share"]
    of = "validation loss" if share == 1 else f"validation loss, on {share:g} of the training data"
    drawn = {"optimization_history": plots.plot_optimization_history, "slice": plots.plot_slice}
    if len(space) > 1:
        drawn["param_importances"] = plots.plot_param_importances
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for name, plot in drawn.items():
            axes = plot(study, target_name=of)
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


def distributions(cell: Cell) -> dict[str, "optuna.distributions.BaseDistribution"]:
    """The cell's search space as Optuna has it.

    Raises:
        StudyError: it holds no value, or not the defaults, which are the first trial.
    """
    where = cell.search_space()
    found = {name: _distribution(name, searched, cell) for name, searched in where.items()}
    for name, value in default_values(cell).items():
        check_inside(name, value, where[name], cell)
    return found


def check_inside(name: str, value: object, where: FloatRange | Choices, cell: Cell) -> None:
    """Refuse a default outside of where it is searched."""
    if isinstance(where, Choices):
        inside, allowed = value in where.choices, f"one of {where.choices}"
    else:
        whole = not where.int_ or value == int(value)
        inside = whole and where.low <= value <= where.high
        allowed = f"{'a whole number ' if where.int_ else ''}from {where.low:g} to {where.high:g}"
    if not inside:
        raise StudyError(
            f"conf: {cell.name}: the default {name} = {value!r} lies outside its search space ({allowed}); "
            "the first trial is the defaults, so widen the one or move the other."
        )


def _distribution(
    name: str, where: FloatRange | Choices, cell: Cell
) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(where, Choices):
        return CategoricalDistribution(where.choices)
    if not where.int_:
        return FloatDistribution(where.low, where.high, log=where.log)
    low, high = math.ceil(where.low), math.floor(where.high)
    if low > high or (where.log and low < 1):
        raise StudyError(
            f"conf: {cell.name}: search.{name} has no whole number{' above 0' if where.log else ''} from "
            f"{where.low:g} to {where.high:g}; widen it."
        )
    return IntDistribution(low, high, log=where.log)
