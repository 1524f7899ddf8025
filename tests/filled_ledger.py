"""Ledgers of studies that nobody trained: every training that the params ask for, with an outcome that is given."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

import tiny_data
from lrstudy.ledger import Ledger
from lrstudy.ledger.record import WEIGHTS, Data, Labels, test_of
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import Params
from lrstudy.study.plan import Need, plan
from lrstudy.training.evaluation import measure

AUTO = ("cpu", "float32")
NUM_TEST = 200
DATA = {
    "cifar10": {
        "dataset": "cifar10", "label": "made-up images", "official": False, "fingerprint": "images",
        "num_examples": {"train": 70, "validation": 30, "test": NUM_TEST},
    },
    "imdb": {
        "dataset": "imdb", "label": "made-up texts", "official": False, "fingerprint": "texts",
        "num_examples": {"train": 70, "validation": 30, "test": NUM_TEST},
    },
}  # fmt: skip

Outcome = Callable[[Need], tuple[float, float]]
"""A training that is needed -> its validation loss after the last epoch, and its test accuracy."""


def outcome(need: Need) -> tuple[float, float]:
    """Losses and accuracies that differ by schedule, base rate and seed, the same whenever they are asked for."""
    settings = need.task["settings"]
    schedule = settings["schedule"]["function"]
    noise = np.random.default_rng([settings["seed"], len(schedule)]).normal()
    away = abs(np.log(settings["optimizer"]["base_lr"] / 0.003))
    better = {"static": 0.0, "cosine": 0.03, "step": 0.01}[schedule]
    return 0.5 - better + 0.05 * away + 0.01 * noise, 0.8 + better - 0.02 * away + 0.01 * noise


def fill(
    params: Params,
    root: Path,
    of: Outcome = outcome,
    wanted: Callable[[Need], bool] = lambda need: True,
    measured: Callable[[Need], bool] = lambda need: True,
) -> Ledger:
    """Put into ``root``/ledger what the study of ``params`` needs, as far as it is ``wanted`` and follows from it.

    The study's own trainings have test results where they are ``measured``; their averages have the same.
    """
    ledger = Ledger(root / "ledger")
    for listed in params.cells.values():
        cell = make_cell(params, listed.model, listed.schedule)
        while True:  # what a search asks for next depends on what it was told
            found = plan(cell, params, DATA[cell.dataset], root, ledger.find, AUTO)
            new = [need for need in found.missing if wanted(need)]
            for need in new:
                ledger.add(record_of(need, *of(need), measured(need)))
            if not new:
                break
    return ledger


def record_of(need: Need, loss: float, accuracy: float, measured: bool = True):
    """The record of a training that ended with these."""
    task = need.task
    num_epochs = task["settings"]["num_epochs"]
    losses = [loss + 0.1 * (num_epochs - epoch) for epoch in range(1, num_epochs + 1)]
    known = tiny_data.record(
        losses,
        chosen=task["settings"],
        data=Data(**task["described"]),
        code=task["code"],
        labels=Labels(**task["labels"]),
    )
    if task["labels"]["role"] == "final" and measured:
        labels = np.arange(NUM_TEST) % 2
        right = np.arange(NUM_TEST) // 2 < round(accuracy * NUM_TEST / 2)  # as many of both classes
        logits = np.eye(2)[np.where(right, labels, 1 - labels)] * 2.0
        known = known.with_test(test_of(dict.fromkeys(WEIGHTS, measure(logits, labels)), NUM_TEST))
    return known
