"""The search for each cell's base rate and schedule parameters: the only importer of optuna.

Every schedule of a model gets the same number of trials, the same seeds and the same data. The first trial
is the config's defaults. No trial is cut in the middle of its schedule: what decays late looks bad until it
decays. The objective is the validation loss after the last epoch, the mean over ``tune.seeds``.

Trials are suggested ``tune.batch_size`` at a time from the results of the batches before, each by a sampler
seeded with the trial's number. So the search depends neither on the number of workers nor on being killed.
"""

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lrstudy.cells import Cell, default_values
from lrstudy.config import Choices, TuneParams
from lrstudy.errors import StudyError

if TYPE_CHECKING:
    import optuna

Evaluate = Callable[[list[tuple[int, dict]]], list[tuple[float, dict]]]
"""[(trial number, values)] -> [(objective, what is known of the trial)], in the same order."""


def storage_uri(root: Path) -> str:
    """``LRSTUDY_OPTUNA_STORAGE``, else the database ``optuna.db`` in the workspace's root."""
    return os.environ.get("LRSTUDY_OPTUNA_STORAGE") or f"sqlite:///{root / 'optuna.db'}"


def tune(cell: Cell, tune_params: TuneParams, key: str, root: Path, evaluate: Evaluate) -> list[dict]:
    """Run (or go on with) the cell's study until it has ``num_trials`` trials; returns them by number.

    Args:
        cell: what is tuned.
        tune_params: number of trials, batch size, seed of the sampler.
        key: identifies what is searched on what data; names the study together with the cell.
        root: where the default database lies.
        evaluate: trains what it is given and returns objectives; an infinite one marks divergence.

    Returns:
        Per trial: ``number``, ``values``, ``objective`` (None where it diverged) and what ``evaluate`` said.
    """
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage_uri(root), study_name=f"{cell.name}-{key[:16]}", load_if_exists=True
    )
    space = {name: _distribution(name, where) for name, where in cell.search_space().items()}
    while True:
        trials = study.get_trials(deepcopy=False)
        asked = sum(trial.state != TrialState.WAITING for trial in trials)
        # A trial that was under way when an earlier process died has its values: it is simply run again.
        under_way = [trial._trial_id for trial in trials if trial.state == TrialState.RUNNING]
        batch_broken_off = asked % tune_params.batch_size != 0
        if not under_way or batch_broken_off:
            end_of_batch = (asked // tune_params.batch_size + 1) * tune_params.batch_size
            for number in range(asked, min(end_of_batch, tune_params.num_trials)):
                under_way.append(_ask(study, number, space, cell, tune_params))
        if not under_way:
            break
        batch = [optuna.trial.Trial(study, trial_id) for trial_id in under_way]
        found = evaluate([(trial.number, dict(trial.params)) for trial in batch])
        for trial, (objective, known) in zip(batch, found, strict=True):
            for name, value in known.items():
                trial.set_user_attr(name, value)
            study.tell(trial, objective)
    return [
        {
            "number": trial.number,
            "values": dict(trial.params),
            "objective": trial.value if math.isfinite(trial.value) else None,
            **trial.user_attrs,
        }
        for trial in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    ][: tune_params.num_trials]


def best_trial(trials: list[dict]) -> dict:
    """The trial of lowest objective, the earlier one of equals; the first if every trial diverged."""
    return min(trials, key=lambda t: (math.inf if t["objective"] is None else t["objective"], t["number"]))


def _ask(study: "optuna.Study", number: int, space: dict, cell: Cell, tune_params: TuneParams) -> int:
    """Suggest the trial ``number``; returns its id in the storage."""
    import optuna

    seed = hashlib.sha256(f"{tune_params.sampler_seed}:{number}".encode()).digest()
    study.sampler = optuna.samplers.TPESampler(
        seed=int.from_bytes(seed[:4], "big"), n_startup_trials=4, multivariate=True
    )
    if number == 0:
        study.enqueue_trial(_within(default_values(cell), space, cell), skip_if_exists=True)
    return study.ask(space)._trial_id


def _within(values: dict, space: dict, cell: Cell) -> dict:
    for name, value in values.items():
        if not space[name]._contains(space[name].to_internal_repr(value)):
            raise StudyError(
                f"conf: {cell.name}: the default {name} = {value!r} lies outside its search space "
                f"{space[name]}; the first trial is the defaults, so widen the one or move the other."
            )
    return values


def _distribution(name: str, where) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(where, Choices):
        return CategoricalDistribution(where.choices)
    if where.int_:
        return IntDistribution(math.ceil(where.low), math.floor(where.high), log=where.log)
    return FloatDistribution(where.low, where.high, log=where.log)
