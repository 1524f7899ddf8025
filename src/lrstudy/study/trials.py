"""A cell's searches, trained: every trial with every seed of its phase, on all workers."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lrstudy.errors import StudyError
from lrstudy.ledger import Record
from lrstudy.process.parallel import num_workers, run_all
from lrstudy.recipe.cells import Cell
from lrstudy.recipe.config import Params
from lrstudy.recipe.identity import content_hash
from lrstudy.search.best import judge
from lrstudy.search.tuning import seeds_of, storage_uri, trial_name, tune
from lrstudy.study.runs import is_from_ledger, train_run
from lrstudy.study.tasks import record_of, training_task
from lrstudy.tracking.store import describe, server_name


@dataclass(frozen=True)
class Trial:
    """A trial that was trained with the seeds of one phase.

    Attributes:
        search: of ``tune.searches``, from 0.
        records: one for each of the phase's ``seeds``.
        objective: infinite where one of them diverged.
        known: what :func:`lrstudy.search.best.judge` says of them.
        from_ledger: nothing was trained for it.
    """

    search: int
    phase: str
    number: int
    values: dict
    seeds: list[int]
    records: list[Record]
    objective: float
    known: dict
    from_ledger: bool


def search_identity(cell: Cell, params: Params, meta: dict, root: Path) -> dict[str, str]:
    """What a search depends on, in the words that a later one says it differs in -> SHA-256 of it."""
    settings = params.tune
    defaults = training_task(cell, params, cell.settings(), 0, meta, root, cell.name)
    depends_on = {
        "data": meta["fingerprint"],
        **{f"code of the {part}": meaning for part, meaning in defaults["code"].items()},
        "settings": defaults["settings"],
        "search space": {name: where.model_dump() for name, where in cell.search_space().items()},
        "seeds": settings.seeds,
        "seeds of the confirmation": settings.confirm_seeds,
        "sampler": [settings.sampler_seed, settings.batch_size, settings.num_quasi_random],
    }
    return {name: content_hash(part) for name, part in depends_on.items()}


def run_search(
    cell: Cell,
    params: Params,
    meta: dict,
    root: Path,
    identity: dict[str, str],
    search: int = 0,
    *,
    prefix: str = "",
    tell: Callable[[Trial], None] = lambda trial: None,
) -> list[dict]:
    """Run one of the cell's searches, or go on with it; its trials as :func:`lrstudy.search.tuning.tune`'s.

    Args:
        identity: :func:`search_identity`.
        search: of ``tune.searches``, from 0.
        prefix: begins the names that trainings have in print.
        tell: is called with every trial that was trained, or found in the ledger.

    Raises:
        StudyError: the database of trials failed, or as :func:`lrstudy.search.tuning.tune`.
    """

    def evaluate(phase: str, trials: list[tuple[int, dict]]) -> list[tuple[float, dict]]:
        seeds = seeds_of(params.tune, phase)
        tasks = {
            number: [
                training_task(
                    cell,
                    params,
                    cell.settings(values),
                    seed,
                    meta,
                    root,
                    f"{prefix}{cell.name} {trial_name(search, phase, number)} seed {seed}",
                    role="trial",
                    keep_weights=False,
                    journal=False,
                )
                for seed in seeds
            ]
            for number, values in trials
        }
        every = [task for group in tasks.values() for task in group]
        in_ledger = {task["key"] for task in every if is_from_ledger(task)}
        for _ in run_all(train_run, every, *params.workers):
            pass
        results = []
        for number, values in trials:
            records = [record_of(task) for task in tasks[number]]
            objective, known = judge(records)
            from_ledger = all(task["key"] in in_ledger for task in tasks[number])
            tell(Trial(search, phase, number, values, seeds, records, objective, known, from_ledger))
            results.append((objective, known))
        return results

    at_once = math.ceil(num_workers(*params.workers) / len(params.tune.seeds))
    with _clear_database_errors(root):
        return tune(
            cell,
            params.tune,
            content_hash(identity),
            root,
            evaluate,
            search=search,
            identity=identity,
            at_once=at_once,
        )


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
            f"Optuna's database {server_name(uri)} failed ({describe(error.__cause__ or error, uri)}); mend "
            "it, then run it again: finished trials and epochs are kept."
        ) from error
