"""The branching experiment: one trunk at a constant rate, branches that leave it at several epochs and decay.

Every branch ends with the trunk, after the same number of updates: what differs is when it decayed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from lrstudy.recipe.cells import Cell
from lrstudy.recipe.config import LateDecayParams, Params, ScheduleRow
from lrstudy.theory.effects import paired
from lrstudy.theory.paths import path_cell, path_task


@dataclass(frozen=True)
class Branching:
    """The trainings of one model: per seed the trunk's task, and the branches' by branching epoch."""

    cells: dict[str, Cell]
    trunks: dict[int, dict]
    branches: dict[int, dict[int, dict]]

    def paths(self) -> list[tuple[int, int | None, dict]]:
        """Every path as (seed, branching epoch or None for the trunk, task)."""
        return [(seed, None, task) for seed, task in self.trunks.items()] + [
            (seed, epoch, task) for seed, tasks in self.branches.items() for epoch, task in tasks.items()
        ]


def branching(params: Params, model: str, meta: dict, root: Path) -> Branching:
    """The trunk and branches of ``model`` with every seed, as ``params.theory.late_decay`` says.

    Raises:
        StudyError: something in the configuration does not fit.
    """
    asked: LateDecayParams = params.theory.late_decay
    dataset = params.model[model].dataset
    num_epochs, epochs = asked.num_epochs[dataset], asked.branch_epochs[dataset]
    trunk = path_cell(params, model, "trunk", ScheduleRow(function="static"), num_epochs)
    cells = {
        epoch: path_cell(
            params,
            model,
            f"branch_{epoch}",
            ScheduleRow.model_validate(
                {
                    "function": "late_decay",
                    "start": epoch / num_epochs,
                    "shape": asked.shape,
                    "min_factor": asked.min_factor,
                }
            ),
            num_epochs,
        )
        for epoch in epochs
    }
    trunks, branches = {}, {}
    for seed in params.theory.seeds:
        label = f"late_decay {model} seed {seed}"
        trunks[seed] = path_task(
            trunk, params, trunk.settings(), seed, meta, root, f"{label} trunk", branches=epochs
        )
        branches[seed] = {
            epoch: path_task(
                cell,
                params,
                cell.settings(),
                seed,
                meta,
                root,
                f"{label} from {epoch}",
                start={"task": trunks[seed], "epoch": epoch},
            )
            for epoch, cell in cells.items()
        }
    return Branching({"trunk": trunk} | {str(epoch): cell for epoch, cell in cells.items()}, trunks, branches)


def cost(num_epochs: int, branch_epochs: Sequence[int], num_seeds: int) -> dict:
    """Epochs trained with a shared trunk, without one, and the share that was saved.

    With a trunk of T epochs T + sum (T - e), without T (1 + number of branches), per seed.
    """
    shared = num_seeds * (num_epochs + sum(num_epochs - epoch for epoch in branch_epochs))
    alone = num_seeds * num_epochs * (1 + len(branch_epochs))
    return {"epochs": shared, "epochs_without_sharing": alone, "share_saved": 1 - shared / alone}


def trend(values: ArrayLike) -> dict:
    """Whether a metric grows with the order of its columns, seed by seed: Page's test, two-sided and exact.

    Args:
        values: (num_seeds, num_columns), columns in the order of the branching epochs; 3 or more, else there
        is no
            p.

    Returns:
        ``p`` (twice the smaller of the two one-sided p, at most 1; None for fewer than 3 columns or 2 seeds)
        and
        ``rho``, the mean over seeds of Spearman's correlation with the order (0 where a seed has one value
        only).

    Source: Page 1963; scipy.
    """
    from scipy.stats import page_trend_test, rankdata

    values = np.asarray(values, dtype=np.float64)
    order = np.arange(values.shape[1], dtype=np.float64)
    ranks = rankdata(np.round(values, 12), axis=1)
    centred, places = ranks - ranks.mean(axis=1, keepdims=True), order - order.mean()
    lengths = np.sqrt((centred**2).sum(axis=1) * (places**2).sum())
    rho = float(np.divide(centred @ places, lengths, out=np.zeros(len(ranks)), where=lengths > 0).mean())
    if values.shape[0] < 2 or values.shape[1] < 3:
        return {"p": None, "rho": rho}
    up = page_trend_test(np.round(values, 12), method="exact").pvalue
    down = page_trend_test(-np.round(values, 12), method="exact").pvalue
    return {"p": float(min(1.0, 2 * min(up, down))), "rho": rho}


def late_minus_early(values: ArrayLike, confidence: float, num_resamples: int) -> dict:
    """The later half of the columns against the earlier half (a middle one left out), seed by seed.

    Args:
        values: (num_seeds, num_columns), columns in the order of the branching epochs, at least 2.

    Returns:
        ``values`` per seed, ``mean``, ``interval`` (bootstrap over seeds, None for one seed), ``p`` (exact
        signed-rank) and the ``smallest_p`` that so few seeds can reach.
    """
    values = np.asarray(values, dtype=np.float64)
    half = values.shape[1] // 2
    differences = values[:, -half:].mean(axis=1) - values[:, :half].mean(axis=1)
    return paired(differences, confidence, num_resamples)
