"""What an update costs under each schedule and each optimizer, timed in turn on one machine.

A row is a cell, or an optimizer with a constant rate. A *block* is one epoch of the row's training, by the
real loop (:func:`lrstudy.training.loop.train`), on so few examples that it has some dozen updates. In a
*round* every row has one block; the next block of a row goes on where the last one ended, so that the
schedule is walked from its start to its end and begins anew. Two rounds, one in random order and one in its
reverse, are a *pair*: what slows the machine down or up steadily adds as much to one row as to the other. A
pair gives one ratio of two rows, and pairs are what a test counts (docs/protocol.md).

An epoch's seconds hold its end, too: a validation on a few examples, the copy of the best weights, the
controller's decision.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy.analysis.records import ComparedRow, ComparedTiming
from lrstudy.analysis.statistics import median_interval
from lrstudy.errors import StudyError
from lrstudy.recipe.cells import Cell, make_cell
from lrstudy.recipe.config import ControllerParams, Params, ScheduleRow
from lrstudy.recipe.optimizers import check_options
from lrstudy.study.outputs import TimedRow, Timing

NUM_VALIDATION = 2
"""Examples of the validation at a block's end: few, since it is not what is timed."""

Seconds = Mapping[str, Sequence[float]]
"""Row -> seconds of computing per update, round by round."""


def timed_cells(params: Params, model: str) -> dict[str, dict[str, Cell]]:
    """What is timed of a model.

    Returns:
        ``schedules``: the model's cells by row; ``optimizers``: by name those of ``timing.optimizers`` with a
        constant rate and no controller. All at the values of conf: a cost hardly depends on them, and so not
        on a search.

    Raises:
        StudyError: the study has no such model or no cell of it, or an optimizer's options don't fit it.
    """
    rows = [cell.schedule for cell in params.cells.values() if cell.model == model]
    if not rows:
        make_cell(params, model, next(iter(params.schedule)))  # an unknown model
        raise StudyError(f"params.yaml: cells: none is of the model {model}; `make params` writes them anew.")
    schedules = {row: make_cell(params, model, row) for row in rows}
    constant = dataclasses.replace(
        schedules[rows[0]],
        schedule_name="static",
        row=ScheduleRow(),
        controller=ControllerParams(name="none"),
    )
    optimizers = {}
    for name, optimizer in params.timing.optimizers.items():
        try:
            check_options(optimizer.name, optimizer.options)
        except StudyError as error:
            raise StudyError(f"params.yaml: timing.optimizers.{name}: {error}") from None
        optimizers[name] = dataclasses.replace(constant, optimizer=optimizer)
    return {"schedules": schedules, "optimizers": optimizers}


def orders(rows: Sequence[Hashable], num_rounds: int) -> list[list[Hashable]]:
    """The order of the rows in each round: a random one, its reverse, another random one, its reverse, ...

    From a fixed seed; ``num_rounds`` is even.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(num_rounds // 2):
        order = [rows[place] for place in rng.permutation(len(rows))]
        found += [order, order[::-1]]
    return found


def time_rows(task: dict) -> dict[str, Any]:
    """Time the rows of one model, here.

    Args:
        task: ``settings``: row -> the settings of its training, with ``device`` and ``precision`` resolved;
            ``data``: the processed data set's folder; ``rounds``; ``updates``: of a block; ``label``: for the
            terminal; ``revision`` of the code.

    Returns:
        ``seconds``: row -> seconds of computing per update (:func:`lrstudy.training.devices.compute_clock`),
        round by round; ``diverged``: row -> how many of its blocks ended with a loss that is not finite; the
        row's training then began anew; ``updates``: of a block, fewer than asked for where the training split
        has no more; ``took``: seconds by the clock; ``origin``: where and when
        (:func:`lrstudy.ledger.machine.origin_here`).
    """
    import gc

    from lrstudy.ledger.machine import origin_here
    from lrstudy.training.batches import fixed_sample
    from lrstudy.training.loop import prepare
    from lrstudy.training.measures import num_steps

    settings = task["settings"]
    one = next(iter(settings.values()))
    training, validation, meta = prepare(one, task["data"])
    training = fixed_sample(training, task["updates"] * one["batch_size"])
    validation = fixed_sample(validation, NUM_VALIDATION)
    updates = num_steps(len(training), one["batch_size"])
    began = time.perf_counter()
    blocks = {row: _Blocks(of, training, validation, meta) for row, of in settings.items()}
    for block in blocks.values():  # a first one each: kernels are chosen or made, memory is taken
        block.next()
        block.begin_anew()
    seconds: dict[Hashable, list[float]] = {row: [] for row in settings}
    in_order = orders(list(settings), task["rounds"])
    gc.collect()
    gc.freeze()
    gc.disable()  # as timeit does: a collection would be charged to the row at which it happens
    try:
        for number, order in enumerate(in_order, 1):
            for row in order:
                seconds[row].append(blocks[row].next() / updates)
                gc.collect()
            print(
                f"{task['label']}: round {number} of {len(in_order)}, {time.perf_counter() - began:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    finally:
        gc.enable()
        gc.unfreeze()
    return {
        "updates": updates,
        "seconds": seconds,
        "diverged": {row: block.num_diverged for row, block in blocks.items()},
        "took": time.perf_counter() - began,
        "origin": origin_here(one["device"], task["revision"], time.time()).model_dump(),
    }


class _BlockEnded(Exception):
    """Ends the training after one epoch: its record and its checkpoint."""


class _Blocks:
    """The epochs of one row's training, one at a time."""

    def __init__(self, settings: dict, training: Any, validation: Any, meta: dict):
        self._settings, self._splits, self._meta = settings, (training, validation), meta
        self.num_diverged = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Let the next block be the training's first epoch."""
        self._state: dict | None = None
        self._seed = self._settings["seed"]

    def next(self) -> float:
        """Train the next epoch, of another seed's training where the last one has ended; its seconds."""
        from lrstudy.training.loop import train

        def end(record: dict, checkpoint: Callable[[], dict]) -> None:
            raise _BlockEnded(record, checkpoint())

        settings = self._settings | {"seed": self._seed}
        try:
            train(settings, *self._splits, self._meta, state=self._state, on_epoch=end)
        except _BlockEnded as ended:
            record, state = ended.args
        self._state = state
        if state["status"] != "running":
            self.num_diverged += state["status"] == "diverged"
            self._state, self._seed = None, self._seed + 1
        return record["compute_seconds"]


# What the seconds say.


def log_ratios(seconds: Seconds, treated: Sequence[str], control: Sequence[str]) -> NDArray[np.float64]:
    """(num_pairs,): the logarithm of what ``treated`` cost over ``control``, pair by pair of rounds.

    Of several rows their geometric mean; of a pair's two rounds, too.
    """
    one, other = (np.mean([_of_pairs(seconds[row]) for row in rows], axis=0) for rows in (treated, control))
    return one - other


def _of_pairs(seconds: Sequence[float]) -> NDArray[np.float64]:
    return np.log(np.reshape(np.asarray(seconds, dtype=np.float64), (-1, 2))).mean(axis=1)


def with_ratios(timing: Timing, baseline: str, confidence: float) -> ComparedTiming:
    """A timing with what every row costs.

    Each row gets ``seconds_per_update``, the median over the rounds; ``ratio``, the median over the pairs of
    rounds of what it cost over the schedule row ``baseline``; and the ratio's exact ``interval``
    (:func:`lrstudy.analysis.statistics.median_interval`). ``ratio`` and ``interval`` are None for the
    baseline itself and where it was not timed; the interval with fewer than six pairs, too.
    """
    base = timing.schedules.get(baseline)

    def compared(row: TimedRow) -> ComparedRow:
        ratio = interval = None
        if base is not None and row is not base:
            values = log_ratios({"row": row.seconds, "base": base.seconds}, ["row"], ["base"])
            ratio = math.exp(np.median(values))
            interval = median_interval(values, confidence)
        return ComparedRow(
            **row.told(),
            seconds_per_update=float(np.median(row.seconds)),
            ratio=ratio,
            interval=interval and (math.exp(interval[0]), math.exp(interval[1])),
        )

    rows = {
        kind: {name: compared(row) for name, row in timed.items()}
        for kind, timed in (("schedules", timing.schedules), ("optimizers", timing.optimizers))
    }
    return ComparedTiming(**timing.told() | rows)
