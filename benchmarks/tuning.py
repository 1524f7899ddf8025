"""Is it better to train few candidates on all the data, or more of them on growing shares of it?

    python benchmarks/tuning.py lstm-exponential resnet-step [--candidates 12] [--shares 0.0625 0.25 1]

For every cell named, candidates (the defaults, then random ones of its search space) are trained to the end
of their schedule on every share of the training split. From this pool searches are replayed many times,
each with candidates drawn anew, and charged what they would have trained, in trainings on all the data:

* plain: so many candidates on all the data, the best one wins;
* rungs: more candidates on a small share, the best go on to the next share, the best of the last share wins.

What counts is the validation loss that the winner has when trained on all the data. The trainings are those
of ``params.yaml`` and ``data/processed``; they are kept in checkpoints/, so an interrupted benchmark goes
on.
"""

import argparse
import hashlib
import itertools
import math
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import optuna
from scipy.stats import spearmanr

from lrstudy.data import read_meta
from lrstudy.files import write_json
from lrstudy.process.parallel import run_all
from lrstudy.recipe.cells import Cell, default_values, make_cell
from lrstudy.recipe.config import Params, load_params, workspace_root
from lrstudy.search.tuning import distributions
from lrstudy.study.runs import train_run
from lrstudy.study.tasks import record_of, training_task
from lrstudy.study.workspace import data_folder

NUM_REPLAYS = 2_000
SHOWN_COST = 4.5  # of searches in the printed table, in trainings on all the data; the JSON has all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", nargs="+", help="<model>-<schedule> of params.yaml")
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0625, 0.25, 1.0])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/tuning.json"))
    arguments = parser.parse_args()
    params = load_params()
    found = {}
    for name in arguments.cells:
        if name not in params.cells:
            parser.error(f"{name} is no cell of params.yaml; choose from {', '.join(params.cells)}")
        listed = params.cells[name]
        cell = make_cell(params, listed.model, listed.schedule)
        losses, label = train_pool(cell, params, arguments.candidates, sorted(arguments.shares))
        found[name] = {"data": label, "num_epochs": cell.num_epochs} | judge(losses)
        print(table(name, found[name]))
    write_json(
        arguments.output,
        {
            "torch": version("torch"),
            "seed": params.tune.seeds[0],
            "threads": params.train.threads,
            "cells": found,
        },
    )
    arguments.output.with_suffix(".md").write_text("\n\n".join(table(*item) for item in found.items()) + "\n")


def train_pool(cell: Cell, params: Params, count: int, shares: list[float]) -> tuple[dict, str]:
    """Validation losses after the last epoch, infinite where it diverged: share -> one per candidate."""
    meta, root = read_meta(data_folder(cell.dataset)), workspace_root()
    values = candidates(cell, count)
    tasks = {
        (share, number): training_task(
            cell,
            params,
            cell.settings(found),
            params.tune.seeds[0],
            meta,
            root,
            f"{cell.name} candidate {number} of {share:g}",
            training_share=share,
            role="trial",
            keep_weights=False,
            journal=False,
        )
        for share in shares
        for number, found in enumerate(values)
    }
    for _ in run_all(train_run, tasks.values(), *params.workers):
        pass
    losses = {share: [] for share in shares}
    for (share, _), task in tasks.items():
        record = record_of(task)
        finished = record.status == "finished"
        losses[share].append(record.history["validation/loss"][-1] if finished else math.inf)
    return losses, meta["label"]


def candidates(cell: Cell, count: int) -> list[dict]:
    """The defaults, then ``count - 1`` random ones, each depending on its number alone."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = distributions(cell)
    found = [default_values(cell)]
    for number in range(1, count):
        seed = int.from_bytes(hashlib.sha256(f"{cell.name}:{number}".encode()).digest()[:4], "big")
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        found.append(dict(study.ask(space).params))
    return found


def rung_sizes(num_candidates: int, rungs: list[float]) -> list[int]:
    """How many candidates each share is given, so that every rung costs about the same.

    n_i = ceil(n r_0 / r_i). Source of the rule: successive halving, Jamieson and Talwalkar 2016, arXiv
    1502.07943, with shares of the data as the resource.
    """
    return [math.ceil(num_candidates * rungs[0] / share - 1e-9) for share in rungs]


def judge(losses: dict[float, list[float]]) -> dict:
    """Rank agreement between the shares, and replays of searches of every kind and size."""
    shares = list(losses)
    agreement = {
        f"{a:g} and {b:g}": float(spearmanr(losses[a], losses[b]).statistic)
        for a, b in itertools.combinations(shares, 2)
    }
    kinds = [list(k) for n in range(1, len(shares) + 1) for k in itertools.combinations(shares, n)]
    searches = []
    for rungs in kinds:
        for size in range(1 if rungs == [1.0] else 2, len(losses[1.0])):
            search = {"rungs": rungs, "candidates": size}
            for name, with_defaults in (("with_defaults", True), ("without_defaults", False)):
                cost, above = replay(losses, rungs, size, with_defaults)
                search[name] = {
                    "cost": float(cost.mean()),
                    "above_best": float(above.mean()),
                    "above_best_90": float(np.quantile(above, 0.9)),
                }
            searches.append(search)
    return {"losses": {f"{s:g}": v for s, v in losses.items()}, "agreement": agreement, "searches": searches}


def replay(
    losses: dict[float, list[float]], rungs: list[float], size: int, with_defaults: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Costs and the winners' losses above the pool's best, (NUM_REPLAYS,), of searches with other draws.

    With the defaults as the study has it: they are the first candidate and go along to every rung. Without
    them: all candidates are random and equal, as where nobody knows good defaults.
    """
    generator = np.random.default_rng(0)
    pool = range(0 if with_defaults else 1, len(losses[1.0]))
    best = min(losses[1.0][candidate] for candidate in pool)
    costs, above = np.zeros(NUM_REPLAYS), np.zeros(NUM_REPLAYS)
    for replayed in range(NUM_REPLAYS):
        drawn = 1 + generator.permutation(len(losses[1.0]) - 1)
        going = [0, *drawn[: size - 1]] if with_defaults else list(drawn[:size])
        for rung, (share, keep) in enumerate(zip(rungs, rung_sizes(size, rungs), strict=True)):
            if rung > 0:
                before = losses[rungs[rung - 1]]
                going = sorted(going, key=before.__getitem__)[:keep]
                going += [0] if with_defaults and 0 not in going else []
            costs[replayed] += share * len(going)
        above[replayed] = losses[1.0][min(going, key=losses[rungs[-1]].__getitem__)] - best
    return costs, above


def table(name: str, found: dict) -> str:
    """Markdown: for every kind of search what it costs and how far its winner is from the pool's best."""
    agreement = ", ".join(f"{pair}: {value:+.2f}" for pair, value in found["agreement"].items())
    lines = [
        f"### {name}, {found['num_epochs']} epochs, {found['data']}",
        "",
        f"Rank agreement (Spearman) of the candidates' validation losses on shares of the data: {agreement}.",
        "",
        "| shares | candidates | cost | winner above the best | in 90% at most | cost, no defaults known "
        "| winner above the best | in 90% at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for search in sorted(found["searches"], key=lambda s: s["with_defaults"]["cost"]):
        if search["with_defaults"]["cost"] > SHOWN_COST:
            continue
        cells = [" → ".join(f"{share:g}" for share in search["rungs"]), str(search["candidates"])]
        for known in (search["with_defaults"], search["without_defaults"]):
            cells += [f"{known['cost']:.2f}", f"{known['above_best']:.4f}", f"{known['above_best_90']:.4f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
