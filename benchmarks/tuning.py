"""Is it better to train few candidates on all the data, or more of them on growing shares of it?

    python benchmarks/tuning.py lstm-exponential resnet-step [--candidates 12] [--shares 0.0625 0.25 1]

For every cell named, candidates (the defaults, then random ones of its search space) are trained to the end
of their schedule on every share of the training split. From this pool searches are replayed many times,
each with candidates drawn anew (the defaults always among them), and charged what they would have trained,
in epochs of the full training split:

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

from lrstudy.cells import Cell, default_values, make_cell
from lrstudy.config import Params, load_params, workspace_root
from lrstudy.data import read_meta
from lrstudy.files import write_json
from lrstudy.parallel import run_all
from lrstudy.runs import train_run
from lrstudy.study import data_folder, outcome_of, run_task
from lrstudy.tuning import distributions, rung_sizes

NUM_REPLAYS = 10_000


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
        (share, number): run_task(
            cell,
            params,
            cell.settings(found),
            params.tune.seeds[0],
            meta,
            root,
            f"{cell.name} candidate {number} of {share:g}",
            training_share=share,
            keep_weights=False,
            journal=False,
        )
        for share in shares
        for number, found in enumerate(values)
    }
    for _ in run_all(train_run, tasks.values(), params.train.threads, params.train.device):
        pass
    losses = {share: [] for share in shares}
    for (share, _), task in tasks.items():
        outcome = outcome_of(task["folder"])
        loss = outcome["epochs"][-1]["validation/loss"]
        losses[share].append(loss if outcome["status"] == "finished" else math.inf)
    return losses, meta["label"]


def candidates(cell: Cell, count: int) -> list[dict]:
    """The defaults, then ``count - 1`` random ones, each depending on its number alone."""
    space = distributions(cell)
    found = [default_values(cell)]
    for number in range(1, count):
        seed = int.from_bytes(hashlib.sha256(f"{cell.name}:{number}".encode()).digest()[:4], "big")
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        found.append(dict(study.ask(space).params))
    return found


def judge(losses: dict[float, list[float]]) -> dict:
    """Rank agreement between the shares, and replays of searches at like cost."""
    shares = list(losses)
    count = len(losses[1.0])
    agreement = {
        f"{a:g} and {b:g}": float(spearmanr(losses[a], losses[b]).statistic)
        for a, b in itertools.combinations(shares, 2)
    }
    plans = [[1.0] for _ in range(count)]
    sizes = list(range(1, count + 1))
    for length in range(2, len(shares) + 1):
        for chosen in itertools.combinations(shares, length):
            plans += [list(chosen)] * (count - 1)
            sizes += range(2, count + 1)
    for share in shares[:-1]:
        plans += [[share]] * (count - 1)
        sizes += range(2, count + 1)
    searches = [replay(losses, plan, size) for plan, size in zip(plans, sizes, strict=True)]
    return {"losses": {f"{s:g}": v for s, v in losses.items()}, "agreement": agreement, "searches": searches}


def replay(losses: dict[float, list[float]], rungs: list[float], size: int) -> dict:
    """Searches of ``size`` candidates through ``rungs``, repeated with other draws from the pool."""
    generator = np.random.default_rng(0)
    pool = len(losses[1.0])
    regrets, costs = [], []
    best = min(losses[1.0])
    for _ in range(NUM_REPLAYS):
        going = [0, *(1 + generator.permutation(pool - 1)[: size - 1])]
        cost = 0.0
        for rung, (share, keep) in enumerate(zip(rungs, rung_sizes(size, rungs), strict=True)):
            if rung > 0:
                going = sorted(going, key=lambda c: losses[rungs[rung - 1]][c])[:keep]
                going += [0] if 0 not in going else []
            cost += share * len(going)
        winner = min(going, key=lambda c: losses[rungs[-1]][c])
        regrets.append(losses[1.0][winner] - best)
        costs.append(cost)
    regrets = np.array(regrets)
    return {
        "rungs": rungs,
        "candidates": size,
        "cost": float(np.mean(costs)),
        "regret": float(np.mean(regrets)),
        "regret_90": float(np.quantile(regrets, 0.9)),
    }


def table(name: str, found: dict) -> str:
    """Markdown: for every kind of search what it costs and how far its winner is from the pool's best."""
    lines = [
        f"### {name}, {found['num_epochs']} epochs, {found['data']}",
        "",
        "rank agreement (Spearman) of the candidates' validation losses: "
        + ", ".join(f"{pair}: {value:.2f}" for pair, value in found["agreement"].items()),
        "",
        "| search | candidates | cost (full trainings) | winner's loss above the pool's best: mean | 90% |",
        "|---|---|---|---|---|",
    ]
    for search in sorted(found["searches"], key=lambda s: s["cost"]):
        rungs = " → ".join(f"{share:g}" for share in search["rungs"])
        lines.append(
            f"| {rungs} | {search['candidates']} | {search['cost']:.2f} | {search['regret']:.4f} "
            f"| {search['regret_90']:.4f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
