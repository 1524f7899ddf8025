"""Does a long phase at a large rate generalize better?

The toy model's sweep, and for every model a trunk at a constant rate with branches that decay. Writes
reports/late_decay.json and figures. Test data are measured here and decide nothing.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from lrstudy.data import read_meta
from lrstudy.ledger.record import SCORES
from lrstudy.process.parallel import run_all
from lrstudy.recipe.config import Params
from lrstudy.study.journals import common_tags, finish, log_once
from lrstudy.study.outputs import Outcome
from lrstudy.study.workspace import data_folder
from lrstudy.theory import figures, measurements, toy
from lrstudy.theory.branching import Branching, branching, cost, late_minus_early, trend
from lrstudy.theory.effects import summary, verdict
from lrstudy.theory.landscape import Plane, grid, principal_plane
from lrstudy.theory.paths import outcome_of, train_path, weights_file
from lrstudy.theory.records import (
    FOLDER,
    follow,
    leave,
    measure_all,
    measuring,
    parent_journal,
    publish,
    surfaces,
)
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import Sender

OUTPUT = FOLDER / "late_decay"


def experiment(params: Params, root: Path) -> None:
    """Run it as params.yaml sizes it; checkpoints and tracking live in ``root``."""
    asked = params.theory.late_decay.models
    missing = [model for model in asked if model not in params.model]
    if missing:
        print(f"late_decay: not among the study's models, left out: {', '.join(missing)}", file=sys.stderr)
    with Sender(root) as sender:
        found: dict[str, Any] = {"toy": run_toy(params, root, sender), "models": {}, "missing": missing}
        for model in asked:
            if model not in missing:
                found["models"][model] = run_model(params, model, root, sender)
    for one in (found["toy"], *found["models"].values()):
        one["run_id"] = sender.run_ids.get(one["key"])  # known when all is sent
    result = {
        "preset": params.preset,
        "seeds": params.theory.seeds,
        "confidence": params.compare.confidence,
        "claims": claims(found, params.compare.confidence),
        **found,
    }
    leave("late_decay", result)
    for claim in result["claims"]:
        print(f"late_decay: {claim['where']}: {claim['verdict']} ({claim['why']})", file=sys.stderr)


def run_toy(params: Params, root: Path, sender: Sender) -> dict:
    """The toy model's sweep, its figures and its run."""
    settings, compare = params.theory.toy, params.compare
    found = toy.sweep(settings, compare.confidence, compare.num_resamples)
    journal = parent_journal(
        root,
        "late_decay toy",
        {"toy": settings.model_dump()},
        "",
        {"model": "toy", "preset": params.preset},
        "Toy model of late decay: f(w; x) = |w|^g (w . x) under label noise; steps are those of the decay.",
    )
    follow(sender, journal)
    values = {
        f"{name}/power_{g}": [
            (step, s["mean"])
            for step, s in zip(found["decay_steps"], by_power[name], strict=True)
            if s["mean"] is not None
        ]
        for g, by_power in found["powers"].items()
        for name in ("test_loss", "norm", "trace")
    }
    log_once(journal, values)
    titles = {
        "test_loss": "test loss",
        "norm": "norm / smallest norm",
        "trace": "trace / smallest norm's",
    }
    drawn = {
        "toy": figures.toy_figure(
            found["decay_steps"],
            {
                title: {f"g = {g}": by_power[name] for g, by_power in found["powers"].items()}
                for name, title in titles.items()
            },
        ),
        "toy_drift": figures.lines_figure(
            {
                f"g = {g}": {
                    label: (by_power["drift"]["steps"], by_power["drift"][label])
                    for label in ("measured", "predicted")
                }
                for g, by_power in found["powers"].items()
            },
            "update",
            "norm of the weights",
            columns=4,
        ),
    }
    files = [
        file
        for name, figure in drawn.items()
        for file in figures.save(figure, journal.folder / "figures", name)
    ]
    return found | {"figures": publish(journal, files, OUTPUT), "key": journal.key}


def run_model(params: Params, model: str, root: Path, sender: Sender) -> dict:
    """Train one model's trunk and branches, measure them, draw them."""
    asked, compare = params.theory.late_decay, params.compare
    dataset = params.model[model].dataset
    meta = read_meta(data_folder(dataset))
    num_epochs, epochs = asked.num_epochs[dataset], asked.branch_epochs[dataset]
    experiment = branching(params, model, meta, root)
    trunk_cell = experiment.cells["trunk"]
    tags = common_tags(trunk_cell, params, meta)
    identity = trunk_cell.settings() | {
        "late_decay": asked.model_dump(exclude={"models", "num_epochs", "branch_epochs"}),
        "branch_epochs": epochs,
        "seeds": params.theory.seeds,
    }
    parent = parent_journal(
        root,
        f"late_decay {model}",
        identity,
        meta["fingerprint"],
        tags,
        f"Late decay: `{model}` on {meta['label']} at a constant rate, and branches that leave it and decay.",
    )
    follow(sender, parent)
    train_all(params, experiment, parent, tags, sender)

    outcomes = {place(seed, epoch): known_outcome(task) for seed, epoch, task in experiment.paths()}
    finished = [path for path in experiment.paths() if is_finished(outcomes[place(path[0], path[1])])]
    tests = measure_all(
        f"late_decay {model} test metrics",
        measurements.test_metrics,
        [
            measuring(task, place(seed, epoch), asked.num_examples)
            | {"file": str(weights_file(task["folder"], num_epochs))}
            for seed, epoch, task in finished
        ],
        params,
        root,
    )
    for seed, epoch, task in finished:
        found = tests[place(seed, epoch)]
        journal = Journal(task["folder"], task["key"])
        log_once(journal, {f"test/{name}": [(0, found[name])] for name in SCORES})
        finish(journal, "finished")
    along = sharpness(params, model, root, finished, epochs, num_epochs)

    def metric(name: str, epoch: int | None) -> list[float | None]:
        return [tests.get(place(seed, epoch), {}).get(name) for seed in params.theory.seeds]

    def last(name: str, epoch: int | None) -> list[float | None]:
        ends = [outcomes[place(seed, epoch)] for seed in params.theory.seeds]
        return [end.epochs[-1][name] if end and is_finished(end) else None for end in ends]

    ends = {(path["seed"], path["branch_epoch"]): path["epochs"][-1] for path in along}

    def gap(epoch: int | None) -> list[float | None]:
        found = [ends.get((seed, epoch)) for seed in params.theory.seeds]
        return [end and end["test/loss"] - end["train/loss"] for end in found]

    def summaries(epoch: int | None) -> dict:
        measured = {f"test/{name}": metric(name, epoch) for name in SCORES}
        measured |= {name: last(name, epoch) for name in ("train/loss", "validation/loss", "weight_norm")}
        measured["gap"] = gap(epoch)
        return {
            name: summary(np.array(values, dtype=float), compare.confidence, compare.num_resamples)
            for name, values in measured.items()
        }

    headline = params.dataset[dataset].metric
    branches = {str(epoch): summaries(epoch) for epoch in epochs}

    def against_the_epoch(name: str) -> dict:
        table = np.array([branches[str(epoch)][name]["values"] for epoch in epochs], dtype=float).T
        whole = table[np.isfinite(table).all(axis=1)]
        return {
            "trend": trend(whole) if len(whole) else None,
            "late_minus_early": late_minus_early(whole, compare.confidence, compare.num_resamples)
            if len(whole) and len(epochs) > 1
            else None,
        }

    result = {
        "data": {key: meta[key] for key in ("dataset", "label", "official", "fingerprint", "num_examples")},
        "metric": headline,
        "settings": trunk_cell.settings(),
        "num_epochs": num_epochs,
        "branch_epochs": epochs,
        "shape": asked.shape,
        "min_factor": asked.min_factor,
        "cost": cost(num_epochs, epochs, len(params.theory.seeds))
        | {"seconds": seconds(experiment, outcomes)},
        "trunk": summaries(None),
        "branches": branches,
        "not_finished": [name for name, outcome in outcomes.items() if not is_finished(outcome)],
        **against_the_epoch(headline),
        "gap": against_the_epoch("gap"),
        "along": along,
        "landscape": None,
    }
    drawn = {f"branches_{model}": draw_branches(result)}
    if panels := sharpness_panels(along):
        drawn[f"sharpness_{model}"] = figures.lines_figure(panels, "epoch")
    if landscape := survey(params, model, finished, epochs, num_epochs):
        plane, x, y, losses, paths, seed = landscape
        result["landscape"] = {
            "seed": seed,
            "x": x.tolist(),
            "y": y.tolist(),
            "losses": {name: values.tolist() for name, values in losses.items()},
            "explained": plane.explained.tolist(),
            "paths": {name: points.tolist() for name, points in paths.items()},
        }
        drawn[f"landscape_{model}"] = figures.plane_figure(
            x,
            y,
            {"training loss": losses["train"], "test loss": losses["test"]},
            paths,
            [f"principal direction {n} ({100 * s:.1f}%)" for n, s in enumerate(plane.explained, 1)],
        )
    files = [
        file
        for name, figure in drawn.items()
        for file in figures.save(figure, parent.folder / "figures", name)
    ]
    log_once(
        parent,
        {
            f"branch/{name}": [
                (epoch, branches[str(epoch)][name]["mean"])
                for epoch in epochs
                if branches[str(epoch)][name]["mean"] is not None
            ]
            for name in ("test/accuracy", "test/f1", "test/f1_macro", "test/loss", "train/loss")
        },
    )
    result["figures"] = publish(parent, files, OUTPUT, "diverged" if result["not_finished"] else "finished")
    result["key"] = parent.key
    return result


def train_all(params: Params, experiment: Branching, parent: Journal, tags: dict, sender: Sender) -> None:
    """The trunks first, then every branch whose trunk came as far as its branching epoch."""
    trunks = [path for path in experiment.paths() if path[1] is None]
    branches = [path for path in experiment.paths() if path[1] is not None]
    for group in (trunks, branches):
        ready = [
            (seed, epoch, task)
            for seed, epoch, task in group
            if task["start"] is None or Path(task["start"]["file"]).exists()
        ]
        for seed, epoch, task in ready:
            journal = Journal(task["folder"], task["key"])
            name = "trunk" if epoch is None else f"branch from {epoch}"
            journal.create(
                f"{parent.events()[0]['name']} seed {seed} {name}",
                tags
                | {
                    "kind": "path",
                    "seed": str(seed),
                    "branch_epoch": "" if epoch is None else str(epoch),
                    "schedule": task["settings"]["schedule"]["function"],
                },
                task["settings"],
                parent=parent.key,
            )
            follow(sender, journal)
        for _ in run_all(train_path, [task for *_, task in ready], *params.workers):
            pass
        for *_, task in ready:
            outcome = outcome_of(task["folder"])
            if outcome.status == "diverged":
                finish(Journal(task["folder"], task["key"]), "diverged")


def sharpness(
    params: Params, model: str, root: Path, finished: list, epochs: list[int], num_epochs: int
) -> list[dict]:
    """Norm, losses and sharpness of every trunk at its branching epochs and end, and of every branch's
    end."""
    asked = params.theory.late_decay
    tasks = [
        measuring(task, place(seed, epoch), asked.num_examples)
        | {
            "files": {
                at: str(weights_file(task["folder"], at))
                for at in ([*epochs, num_epochs] if epoch is None else [num_epochs])
            },
            "hessian": {
                "num_examples": asked.hessian_examples,
                "num_iterations": asked.num_iterations,
                "num_samples": asked.num_samples,
            },
        }
        for seed, epoch, task in finished
    ]
    found = measure_all(f"late_decay {model} norm and sharpness", measurements.at_epochs, tasks, params, root)
    return [
        {"seed": seed, "branch_epoch": epoch, "epochs": found[place(seed, epoch)]["epochs"]}
        for seed, epoch, _ in finished
    ]


def survey(
    params: Params, model: str, finished: list, epochs: list[int], num_epochs: int
) -> tuple[Plane, np.ndarray, np.ndarray, dict, dict, int] | None:
    """The landscape around the first seed's trajectories; None where its trunk did not finish."""
    asked, seed = params.theory.late_decay, params.theory.seeds[0]
    mine = {epoch: task for other, epoch, task in finished if other == seed}
    if None not in mine:
        return None
    # A branch begins where it leaves the trunk.
    files = {
        "trunk": [weights_file(mine[None]["folder"], at) for at in range(1, num_epochs + 1)],
        **{
            f"from epoch {epoch}": [
                weights_file(mine[None]["folder"], epoch),
                *(weights_file(mine[epoch]["folder"], at) for at in range(epoch + 1, num_epochs + 1)),
            ]
            for epoch in epochs
            if epoch in mine
        },
    }
    order = list(dict.fromkeys(str(file) for path in files.values() for file in path))
    task = measuring(mine[None], f"late_decay {model} landscape", asked.num_examples)
    (points,) = run_all(measurements.weight_vectors, [task | {"files": order}], *params.workers)
    plane = principal_plane(points)
    x, y = grid(plane.coordinates, asked.resolution, asked.margin)
    losses = surfaces(params, task, plane, x, y)
    paths = {
        name: plane.coordinates[[order.index(str(file)) for file in path]] for name, path in files.items()
    }
    return plane, x, y, losses, paths, seed


def place(seed: int, epoch: int | None) -> str:
    """A path's name: its seed and where it left the trunk."""
    return f"seed {seed} trunk" if epoch is None else f"seed {seed} from {epoch}"


def known_outcome(task: dict) -> Outcome | None:
    """The path's outcome; None where it never began, because its trunk diverged before."""
    return outcome_of(task["folder"]) if (Path(task["folder"]) / "outcome.json").exists() else None


def is_finished(outcome: Outcome | None) -> bool:
    """Whether the path came to its end."""
    return outcome is not None and outcome.status == "finished"


def seconds(experiment: Branching, outcomes: dict[str, Outcome | None]) -> dict:
    """Seconds of computing: as it was done, and what it would have been had no path shared the trunk's
    epochs."""
    shared = alone = 0.0
    for seed, epoch, _ in experiment.paths():
        if outcome := outcomes[place(seed, epoch)]:
            every = [record["compute_seconds"] for record in outcome.epochs]
            alone += sum(every)
            shared += sum(every[epoch or 0 :])
    return {"trained": shared, "without_sharing": alone}


def draw_branches(result: dict) -> "figures.Figure":
    """The branches' ends against the epoch at which they left."""
    metric = result["metric"]
    names = {
        metric: {"test/accuracy": "test accuracy", "test/f1_macro": "test macro F1"}[metric],
        "test/loss": "test loss",
        "train/loss": "training loss",
        "gap": "test less training loss",
    }
    shown: dict[str, figures.Branches] = {}
    for name, label in names.items():
        cells = [result["branches"][str(epoch)][name] for epoch in result["branch_epochs"]]
        shown[label] = {
            "values": np.array([cell["values"] for cell in cells], dtype=float).T,
            "mean": [np.nan if cell["mean"] is None else cell["mean"] for cell in cells],
            "intervals": [cell["interval"] for cell in cells],
        }
    trunk = {
        label: [np.nan if value is None else value for value in result["trunk"][name]["values"]]
        for name, label in names.items()
    }
    return figures.branching_figure(result["branch_epochs"], shown, trunk)


def sharpness_panels(along: list[dict]) -> dict:
    """Norm, largest eigenvalue and trace: means over seeds along the trunks, and of the branches' ends."""
    titles = {"norm": "weight norm", "eigenvalue": "largest Hessian eigenvalue", "trace": "Hessian trace"}
    trunk, ends = "trunk, at the epoch", "end of the branch that left at the epoch"
    panels: dict[str, dict] = {}
    for name, title in titles.items():
        values: dict[str, dict[int, list[float]]] = {}
        for path in along:
            if path["branch_epoch"] is None:
                for at in path["epochs"]:
                    values.setdefault(trunk, {}).setdefault(at["epoch"], []).append(at[name])
            else:
                by_epoch = values.setdefault(ends, {})
                by_epoch.setdefault(path["branch_epoch"], []).append(path["epochs"][-1][name])
        if values:
            panels[title] = {
                line: (list(found), [float(np.mean(seeds)) for seeds in found.values()])
                for line, found in values.items()
            }
    return panels


def claims(result: dict, confidence: float) -> list[dict]:
    """Per model and power: does a later decay generalize better? With effect, interval, n and verdict."""
    found = []
    for g, by_power in result["toy"]["powers"].items():
        effect = by_power["late_minus_early"]
        p = effect["p"] if effect else None
        judged = verdict(effect, p, confidence, better=-1) if effect else "undecided"
        found.append(
            {
                "id": "late_decay_toy",
                "where": f"toy model, g = {g}",
                "claim": "The test loss after a late decay is below that after an early one.",
                "effect": "test loss of the last decay minus that of the first",
                "verdict": judged,
                "p": p,
                **{key: effect[key] if effect else None for key in ("mean", "interval", "n", "smallest_p")},
                "why": _why(effect, p),
            }
        )
    for model, one in result["models"].items():
        statements = (
            (
                "late_decay_network",
                one,
                1,
                "The later a branch decays, the better it ends on test data.",
                one["metric"],
            ),
            (
                "late_decay_gap",
                one["gap"],
                -1,
                "The later a branch decays, the less its test loss exceeds its training loss.",
                "test loss less training loss (theory.late_decay.num_examples examples of either, in "
                "evaluation mode)",
            ),
        )
        for name, measured, better, claim, what in statements:
            effect = measured["late_minus_early"]
            p = measured["trend"]["p"] if measured["trend"] else None
            judged = verdict(effect, p, confidence, better=better) if effect else "undecided"
            found.append(
                {
                    "id": name,
                    "where": f"{model}, {one['data']['label']}",
                    "claim": claim,
                    "effect": f"{what} of the later branching epochs minus that of the earlier ones; the p "
                    "is that of Page's test of a trend over all of them",
                    "verdict": judged,
                    "p": p,
                    **{key: effect[key] if effect else None for key in ("mean", "interval", "n")},
                    "rho": measured["trend"]["rho"] if measured["trend"] else None,
                    "why": _why(effect, p),
                }
            )
    return found


def _why(effect: dict | None, p: float | None) -> str:
    if effect is None:
        return "too few runs finished"
    between = "no interval from one seed"
    if effect["interval"]:
        between = f"interval {effect['interval'][0]:+.4g} to {effect['interval'][1]:+.4g}"
    chance = "no p" if p is None else f"p = {p:.2g}"
    return f"{effect['mean']:+.4g}, {between}, n = {effect['n']}, {chance}"
