"""The search for each cell's base rate and schedule parameters: the only importer of optuna.

Every schedule of a model gets the same number of trials, the same seeds and the same data. The first trial
is the config's defaults. No trial is cut in the middle of its schedule: what decays late looks bad until it
decays. The objective is the validation loss after the last epoch, the mean over ``tune.seeds``.

Trials are suggested ``tune.batch_size`` at a time from the results of the batches before, each by a sampler
seeded with the trial's number, and stored whole. So the search depends neither on the number of workers nor
on being killed and continued, nor on whether ``num_trials`` was raised later.
"""

import hashlib
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lrstudy.cells import Cell, default_values
from lrstudy.config import Choices, FloatRange, TuneParams
from lrstudy.errors import StudyError
from lrstudy.files import locked
from lrstudy.tracking import describe, in_workspace, server_name

if TYPE_CHECKING:
    import optuna

Evaluate = Callable[[list[tuple[int, dict]]], list[tuple[float, dict]]]
"""[(trial number, values)] -> [(objective, what is known of the trial)], in the same order."""


def storage_uri(root: Path) -> str:
    """``LRSTUDY_OPTUNA_STORAGE``, else the database ``optuna.db``; a relative path is one in ``root``."""
    return in_workspace(os.environ.get("LRSTUDY_OPTUNA_STORAGE") or "sqlite:///optuna.db", root)


def tune(cell: Cell, tune_params: TuneParams, key: str, root: Path, evaluate: Evaluate) -> list[dict]:
    """Run (or go on with) the cell's study until it has ``num_trials`` trials; returns them by number.

    Args:
        cell: what is tuned.
        tune_params: number of trials, batch size, seed of the sampler.
        key: identifies what is searched on what data; names the study together with the cell.
        root: where the default database lies.
        evaluate: trains what it is given and returns objectives; one that is not finite marks divergence.

    Returns:
        Per trial: ``number``, ``values``, ``objective`` (None where it diverged) and what ``evaluate`` said.

    Raises:
        StudyError: the defaults lie outside of the search space, or the database cannot be opened.
    """
    import optuna
    from optuna.trial import Trial, TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where = cell.search_space()
    space = {name: _distribution(name, found, cell) for name, found in where.items()}
    defaults = default_values(cell)
    for name, value in defaults.items():
        check_inside(name, value, where[name], cell)

    def waiting() -> None:
        print(f"{cell.name}: another process tunes this; waiting", file=sys.stderr)

    name = f"{cell.name}-{key[:16]}"
    with locked(root / "checkpoints" / cell.name / f"tuning-{key[:16]}" / "study.lock", waiting):
        study = _open_study(name, root)
        for start in range(0, tune_params.num_trials, tune_params.batch_size):
            end = min(start + tune_params.batch_size, tune_params.num_trials)
            trials = study.get_trials(deepcopy=False)
            for number in range(len(trials), end):
                values = defaults
                if number > 0:
                    batch = study.get_trials(deepcopy=False)[start:]
                    values = _suggest(trials[:start], batch, number, space, tune_params.sampler_seed)
                # Stored in one transaction: a trial is there with all its values or not at all.
                study.add_trial(create_trial(state=TrialState.RUNNING, params=values, distributions=space))
            # One that was under way when an earlier process died is simply run again.
            under_way = [
                Trial(study, trial._trial_id)
                for trial in study.get_trials(deepcopy=False)[start:end]
                if trial.state == TrialState.RUNNING
            ]
            if not under_way:
                continue
            found = evaluate([(trial.number, dict(trial.params)) for trial in under_way])
            for trial, (objective, known) in zip(under_way, found, strict=True):
                for attribute, value in known.items():
                    trial.set_user_attr(attribute, value)
                study.tell(trial, objective if math.isfinite(objective) else math.inf)
        return [
            {
                "number": trial.number,
                "values": dict(trial.params),
                "objective": trial.value if math.isfinite(trial.value) else None,
                **trial.user_attrs,
            }
            for trial in study.get_trials(deepcopy=False)[: tune_params.num_trials]
        ]


def best_trial(trials: list[dict]) -> dict:
    """The trial of lowest objective, the earlier one of equals; the first if every trial diverged."""
    return min(trials, key=lambda t: (math.inf if t["objective"] is None else t["objective"], t["number"]))


def _open_study(name: str, root: Path) -> "optuna.Study":
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    uri = storage_uri(root)
    # Several cells may be tuned at once: their writes wait for each other, sqlite's own patience is 5 s.
    options = {"connect_args": {"timeout": 60}} if uri.startswith("sqlite:") else {}
    try:
        # Two processes that make the same database's tables at once break each other.
        with locked(root / "optuna.db.lock"):
            storage = optuna.storages.RDBStorage(uri, engine_kwargs=options)
            return optuna.create_study(
                storage=storage,
                study_name=name,
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(),  # asks nothing: see _suggest
            )
    except (SQLAlchemyError, ImportError, RuntimeError, optuna.exceptions.StorageInternalError) as error:
        raise StudyError(
            f"Optuna's database {server_name(uri)} cannot be opened ({describe(error, uri)}); "
            "LRSTUDY_OPTUNA_STORAGE names another, unset it is optuna.db in the workspace."
        ) from None


def _suggest(
    before: list["optuna.trial.FrozenTrial"],
    beside: list["optuna.trial.FrozenTrial"],
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
        create_trial(state=TrialState.RUNNING, params=trial.params, distributions=space) for trial in beside
    )
    return study.ask(space).params


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
