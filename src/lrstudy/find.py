"""Suggest a base rate for a model of the study by range tests: python -m lrstudy.find MODEL.

python -m lrstudy.find resnet                      # suggestions, a curve, a picture, a run in MLflow
python -m lrstudy.find lstm --runs 9 -o lstm.png
python -m lrstudy.find lstm --keep                 # also reports/finder/lstm.json, for `make docs`

Run k has the initial weights, the batches and the dropout of seed k, on training data alone. The model, its
optimizer, the batch size and the precision are those of params.yaml; no schedule and no controller.
"""

import argparse
import itertools
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrstudy.data import read_meta
from lrstudy.errors import StudyError
from lrstudy.process.command import run_stage
from lrstudy.recipe.cells import Cell, make_cell
from lrstudy.recipe.config import Params, load_params, workspace_root
from lrstudy.recipe.identity import content_hash
from lrstudy.report.figures import check_format, range_test_figure, save_figure
from lrstudy.study.journals import common_tags, finish, log_once, under_way
from lrstudy.study.outputs import FoundRates
from lrstudy.study.tasks import DESCRIBED, whole_settings
from lrstudy.study.workspace import data_folder, finder_file, git_revision
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import Sender
from lrstudy.words import counted

if TYPE_CHECKING:
    from lrstudy.lr_finder import RangeTest

_BARS = "▁▂▃▄▅▆▇█"
_USED = ("dataset", "model", "batch_size", "precision", "optimizer", "device", "threads", "augment",
         "gradient_clip", "training_share")  # fmt: skip
"""The settings of a training that a range test has, too."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lrstudy.find",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", help="a model of params.yaml")
    add("--data", type=Path, help="the folder of processed data (default: data/processed/<its data set>)")
    add("--schedule", help="a row whose optimizer is taken, where it has its own (default: the first row)")
    add("--runs", type=int, default=5, help="range tests, each with a seed of its own (default: 5)")
    add("--updates", type=int, default=200, help="updates of a test (default: 200)")
    add("--lowest", type=float, default=1e-5, help="rate of the first update (default: 1e-5)")
    add("--highest", type=float, default=10.0, help="rate of the last update (default: 10)")
    add("-o", "--output", type=Path, help="also write the picture there (.png, .pdf, .svg)")
    add("--keep", action="store_true", help="also write reports/finder/<model>.json")
    options = parser.parse_args()
    from lrstudy.lr_finder import geometric_rates

    geometric_rates(
        options.lowest, options.highest, options.updates
    )  # what is wrong is said before data are read
    if options.runs < 1:
        raise StudyError(f"--runs is {options.runs}; allowed: 1 or more.")
    if options.output:
        check_format(options.output)
    params, root = load_params(), workspace_root()
    cell = make_cell(params, options.model, options.schedule or _first_row(params, options.model))
    folder = options.data or data_folder(cell.dataset)
    meta = read_meta(folder)
    if meta["kind"] != params.dataset_named(cell.dataset).kind:
        raise StudyError(
            f"--data: {folder} has data of the kind {meta['kind']}, and {options.model} takes "
            f"{params.dataset_named(cell.dataset).kind}; name another folder or model."
        )
    settings = whole_settings(params, cell.settings(), seed=1)
    began = time.perf_counter()
    test = range_test(
        settings,
        folder,
        runs=options.runs,
        num_updates=options.updates,
        lowest=options.lowest,
        highest=options.highest,
    )
    took = time.perf_counter() - began
    found = _record(cell, settings, meta, test, took)
    print(told(found, test))
    key = content_hash(
        [{name: settings[name] for name in _USED}, meta["fingerprint"], test.rates, len(test.losses)]
    )
    picture = root / "checkpoints" / cell.model_name / f"find-{key[:16]}" / "range_test.png"
    save_figure(range_test_figure(test, title=_title(found, "\n")), picture)
    print(f"wrote {picture.relative_to(root)}")
    if options.output:
        if options.output.suffix.lower() == ".png":
            options.output.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, options.output)
        else:
            save_figure(range_test_figure(test, title=_title(found, "\n")), options.output)
        print(f"wrote {options.output}")
    if options.keep:
        found.write(finder_file(cell.model_name))
        print(f"wrote {finder_file(cell.model_name)}")
    _track(Journal(picture.parent, f"find-{key}"), cell, params, meta, settings, found, test, root)


def range_test(settings: dict, data: Path, *, runs: int, **options: Any) -> "RangeTest":
    """Range tests of what a training with these settings trains, with its loss and its batches.

    Args:
        settings: as :func:`lrstudy.training.loop.train` takes them.
        data: the processed data set's folder.
        runs: run k has the initial weights, the batches and the dropout of seed k, from 1 on.
        options: ``num_updates``, ``lowest`` and ``highest`` as :func:`lrstudy.lr_finder.find_lr` takes them.
    """
    import torch
    from torch import Tensor, nn

    from lrstudy.lr_finder import RangeTest, find_lr
    from lrstudy.recipe.models import make_model
    from lrstudy.recipe.optimizers import make_optimizer
    from lrstudy.training.devices import autocast, choose_device, choose_dtype
    from lrstudy.training.loop import prepare

    training, _, meta = prepare(settings, str(data))
    device = choose_device(settings["device"])
    dtype = choose_dtype(settings["precision"], device)
    optimizer = dict(settings["optimizer"])
    name = optimizer.pop("name")
    batches = _Batches(training, settings["batch_size"], torch.Generator())

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, labels, _ = batch
        with autocast(device, dtype):
            return nn.functional.cross_entropy(model(*inputs), labels)

    tests = []
    for seed in range(1, runs + 1):
        torch.manual_seed(seed)
        model = make_model(settings["model"], meta).to(device)
        if meta["kind"] == "image":
            model = model.to(memory_format=torch.channels_last)
        one = find_lr(
            model,
            loss,
            batches,
            make_optimizer(name, model, **optimizer),
            runs=1,
            seed=seed,
            gradient_clip=settings["gradient_clip"],
            **options,
        )
        tests.append(one)
        print(f"run {seed} of {runs}: {counted(len(one.losses[0]), 'update')}", file=sys.stderr, flush=True)
    return RangeTest(tests[0].rates, tuple(one.losses[0] for one in tests), tests[0].smoothing)


class _Batches:
    """The training batches of a split, in the order that ``generator`` draws."""

    def __init__(self, split: Any, size: int, generator: Any):
        self.split, self.size, self.generator = split, size, generator

    def __iter__(self) -> Iterator[Any]:
        return self.split.training_batches(self.size, self.generator)


def _first_row(params: Params, model: str) -> str:
    cells = [cell.schedule for cell in params.cells.values() if cell.model == model]
    return cells[0] if cells else next(iter(params.schedule))  # of no cell: make_cell says what is wrong


def _record(cell: Cell, settings: dict, meta: dict, test: "RangeTest", took: float) -> FoundRates:
    from lrstudy.ledger.machine import origin_here

    return FoundRates.model_validate(
        {
            "model": cell.model_name,
            "dataset": cell.dataset,
            "data": {name: meta[name] for name in DESCRIBED},
            "optimizer": settings["optimizer"]["name"],
            "batch_size": settings["batch_size"],
            "device": settings["device"],
            "precision": settings["precision"],
            "threads": settings["threads"],
            "took": took,
            "origin": origin_here(settings["device"], git_revision(), time.time()).model_dump(),
            "rates": [float(f"{rate:.6g}") for rate in test.rates],
            "losses": [[round(loss, 5) for loss in losses] for losses in test.losses],
            "smoothing": test.smoothing,
            "suggestions": {
                name: {"lr": one.lr, "low": one.low, "high": one.high, "runs": list(one.runs)}
                for name, one in test.suggestions().items()
            },
        }
    )


def _title(found: FoundRates, between: str = ", ") -> str:
    return f"{found.model} on {found.data.label}{between}{found.optimizer}, batches of {found.batch_size}"


def told(found: FoundRates, test: "RangeTest") -> str:
    """What the tests came to: the curve in one line, and what each rule suggests."""
    curve, rates = test.curve(), test.rates
    runs = len(test.losses)
    # A loss that explodes at the end would flatten all else.
    shown = max(curve[: len(curve) // 2])
    lines = [
        f"{_title(found)}: {counted(runs, 'run')} of {counted(len(rates), 'update')}, {found.took:.0f} s",
        f"  {line_of([min(loss, shown) for loss in curve])}  loss {curve[0]:.3g}, lowest {min(curve):.3g}; "
        f"rate {rates[0]:.3g} to {rates[len(curve) - 1]:.3g}",
    ]
    for name, one in found.suggestions.items():
        between = "" if one.lr is None or runs == 1 else f"  runs: {one.low:.3g} to {one.high:.3g}"
        lines.append(f"  {name:<10}{'none' if one.lr is None else f'{one.lr:.3g}'}{between}")
    if runs > 1:
        lines.append(f"  (medians over the runs; their ranges are intervals with {test.confidence:.1%})")
    return "\n".join([*lines, *(f"note: {note}" for note in test.notes())])


def line_of(values: Sequence[float], width: int = 60) -> str:
    """Values as a line of bars, the means of ``width`` equal parts, or one each where there are fewer.

    >>> line_of([0, 1, 2, 3, 2, 1, 0])
    '▁▃▆█▆▃▁'
    """
    width = min(width, len(values))
    cuts = [round(part * len(values) / width) for part in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def _track(
    journal: Journal,
    cell: Cell,
    params: Params,
    meta: dict,
    settings: dict,
    found: FoundRates,
    test: "RangeTest",
    root: Path,
) -> None:
    """Tell MLflow: a run of the kind ``find``, known by what was tested and on which data."""
    tags = {name: tag for name, tag in common_tags(cell, params, meta).items() if name not in _OF_A_ROW}
    journal.create(
        f"{cell.model_name} range test",
        tags | {"kind": "find"},
        {name: settings[name] for name in _USED}
        | {"lowest": test.rates[0], "highest": test.rates[-1], "updates": len(test.rates)}
        | {"runs": len(test.losses)},
        description=f"Learning-rate range tests of `{cell.model_name}` on {meta['label']}: `loss` is the "
        "median over the runs, by update; `range_test.png` among the artifacts.",
    )
    with Sender(root) as sender, under_way(journal):
        sender.follow(journal.folder)
        log_once(
            journal,
            {
                "range_test/loss": list(enumerate(test.curve())),
                "range_test/lr": list(enumerate(test.rates)),
                **{
                    f"suggestion/{name}": [(0, one.lr)]
                    for name, one in found.suggestions.items()
                    if one.lr is not None
                },
            },
        )
        journal.dataset("train", meta)
        journal.artifact(journal.folder / "range_test.png", once=True)
        finish(journal, "finished")


_OF_A_ROW = ("schedule", "controller")


if __name__ == "__main__":
    run_stage(main)
