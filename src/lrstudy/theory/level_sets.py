"""Are level sets of the loss connected, does modulation help?

Trains the rows of theory.level_sets, tuned alike, joins their solutions by paths and cuts level sets out of a
plane. Writes reports/level_sets.json and figures. Test data are measured here and decide
nothing.
"""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lrstudy.data import read_meta
from lrstudy.ledger.record import SCORES
from lrstudy.process.parallel import run_all
from lrstudy.recipe.cells import Cell, default_values, num_epochs_of
from lrstudy.recipe.config import Params
from lrstudy.search.tuning import best_trial, most_trainings
from lrstudy.study.cell_jobs import searched_jobs
from lrstudy.study.journals import common_tags, finish, log_once
from lrstudy.study.plan import Plan
from lrstudy.study.work import work_on
from lrstudy.study.workspace import data_folder
from lrstudy.theory import figures, measurements
from lrstudy.theory.components import component_counts, levels_of, rises
from lrstudy.theory.connectivity import pairs
from lrstudy.theory.effects import paired, refutation, summary, verdict
from lrstudy.theory.landscape import grid, principal_plane
from lrstudy.theory.paths import outcome_of, path_cell, path_task, train_path, weights_file
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

OUTPUT = FOLDER / "level_sets"
MODULATED, PLAIN = "exponential_modulated", "exponential"


def experiment(params: Params, root: Path) -> None:
    """Run it as params.yaml sizes it; checkpoints and tracking live in ``root``."""
    asked = params.theory.level_sets.models
    missing = [model for model in asked if model not in params.model]
    if missing:
        print(f"level_sets: not among the study's models, left out: {', '.join(missing)}", file=sys.stderr)
    with Sender(root) as sender:
        models = {model: run_model(params, model, root, sender) for model in asked if model not in missing}
    for one in models.values():
        one["run_id"] = sender.run_ids.get(one["key"])  # known when all is sent
    result: dict[str, Any] = {
        "preset": params.preset,
        "seeds": params.theory.seeds,
        "confidence": params.compare.confidence,
        "claims": [
            claim for model, one in models.items() for claim in claims(model, one, params.compare.confidence)
        ],
        "models": models,
        "missing": missing,
    }
    leave("level_sets", result)
    for claim in result["claims"]:
        print(
            f"level_sets: {claim['where']}: {claim['id']}: {claim['verdict']} ({claim['why']})",
            file=sys.stderr,
        )


def run_model(params: Params, model: str, root: Path, sender: Sender) -> dict:
    """Tune, train and join one model's solutions."""
    asked, compare = params.theory.level_sets, params.compare
    meta = read_meta(data_folder(params.model[model].dataset))
    num_epochs = num_epochs_of(params, model)
    cells = {name: path_cell(params, model, name, row, num_epochs) for name, row in asked.rows.items()}
    identity = {name: cell.settings() for name, cell in cells.items()} | {
        "level_sets": asked.model_dump(exclude={"models", "rows"}),
        "seeds": params.theory.seeds,
        "num_trials": params.tune.num_trials,
    }
    first = next(iter(cells.values()))
    tags = {key: value for key, value in common_tags(first, params, meta).items() if key != "schedule"}
    parent = parent_journal(
        root,
        f"level_sets {model}",
        identity,
        meta["fingerprint"],
        tags,
        f"Level sets: solutions of `{model}` on {meta['label']} under several schedules, and paths "
        "between them.",
    )
    follow(sender, parent)
    tuned = {name: search(cell, params, meta, root) for name, cell in cells.items()}
    tasks = {
        (name, seed): path_task(
            cell,
            params,
            cell.settings(tuned[name]["values"]),
            seed,
            meta,
            root,
            f"level_sets {cell.name} seed {seed}",
        )
        for name, cell in cells.items()
        for seed in params.theory.seeds
    }
    for (name, seed), task in tasks.items():
        journal = Journal(task["folder"], task["key"])
        journal.create(
            f"level_sets {model} {name} seed {seed}",
            common_tags(cells[name], params, meta) | {"kind": "path", "seed": str(seed)},
            task["settings"],
            parent=parent.key,
        )
        follow(sender, journal)
    for _ in run_all(train_path, tasks.values(), *params.workers):
        pass
    outcomes = {at: outcome_of(task["folder"]) for at, task in tasks.items()}
    solved = {at: task for at, task in tasks.items() if outcomes[at].status == "finished"}
    tests = measure_all(
        f"level_sets {model} test metrics",
        measurements.test_metrics,
        [
            measuring(task, named(*at), asked.num_examples)
            | {"file": str(weights_file(task["folder"], num_epochs))}
            for at, task in solved.items()
        ],
        params,
        root,
    )
    for at, task in tasks.items():
        journal = Journal(task["folder"], task["key"])
        if at in solved:
            found = tests[named(*at)]
            log_once(
                journal,
                {f"test/{name}": [(0, found[name])] for name in SCORES},
            )
        finish(journal, outcomes[at].status)
    measured = measure_all(
        f"level_sets {model} losses by epoch",
        measurements.at_epochs,
        [
            measuring(task, named(*at), asked.num_examples)
            | {
                "files": {e: str(weights_file(task["folder"], e)) for e in range(1, num_epochs + 1)},
                "hessian": None,
            }
            for at, task in solved.items()
        ],
        params,
        root,
    )
    along = {name: found["epochs"] for name, found in measured.items()}
    metric = params.dataset[params.model[model].dataset].metric
    schedules = {
        name: {
            "tuned": tuned[name],
            "diverged": [seed for seed in params.theory.seeds if (name, seed) not in solved],
            **{
                f"test/{key}": summary(
                    [tests.get(named(name, seed), {}).get(key, math.nan) for seed in params.theory.seeds],
                    compare.confidence,
                    compare.num_resamples,
                )
                for key in SCORES
            },
            "lyapunov": lyapunov(
                {seed: along.get(named(name, seed)) for seed in params.theory.seeds}, params
            ),
        }
        for name in cells
    }
    joined = join_all(params, model, root, list(cells), solved, num_epochs)
    result: dict[str, Any] = {
        "data": {key: meta[key] for key in ("dataset", "label", "official", "fingerprint", "num_examples")},
        "metric": metric,
        "num_epochs": num_epochs,
        "schedules": schedules,
        "modulation": modulation(schedules, metric, params),
        "lyapunov": compare_rises(schedules, params),
        "pairs": joined,
        "plane": None,
    }
    drawn = {}
    if joined:
        drawn[f"paths_{model}"] = draw_paths(joined, asked.num_batches)
    if along:
        drawn[f"epochs_{model}"] = figures.lines_figure(
            {
                f"training loss, seed {seed}": {
                    name: (
                        [at["epoch"] for at in along[named(name, seed)]],
                        [at["train/loss"] for at in along[named(name, seed)]],
                    )
                    for name in cells
                    if named(name, seed) in along
                }
                for seed in params.theory.seeds
            },
            "epoch",
        )
    if slices := cut(params, model, solved, num_epochs):
        x, y, losses, paths, result["plane"] = slices
        drawn[f"plane_{model}"] = figures.plane_figure(
            x,
            y,
            {"training loss": losses["train"], "test loss": losses["test"]},
            paths,
            [
                f"principal direction {n} ({100 * s:.1f}%)"
                for n, s in enumerate(result["plane"]["explained"], 1)
            ],
        )
        drawn[f"components_{model}"] = figures.lines_figure(
            {
                f"{split}: components": {
                    kind: ([c["level"] for c in counts], [c[kind] for c in counts])
                    for kind in ("superlevel", "sublevel")
                }
                for split, counts in result["plane"]["components"].items()
            },
            "level c of the loss",
        )
    log_once(
        parent,
        {
            f"{path}/{what}": [
                (step, pair[path][what]["train"])
                for step, pair in enumerate(joined)
                if math.isfinite(pair[path][what]["train"])
            ]
            for path in ("line", "curve", "over_the_top")
            for what in ("barrier", "dip")
        },
    )
    files = [
        file
        for name, figure in drawn.items()
        for file in figures.save(figure, parent.folder / "figures", name)
    ]
    status = "finished" if len(solved) == len(tasks) else "diverged"
    result["figures"] = publish(parent, files, OUTPUT, status)
    result["key"] = parent.key
    return result


def search(cell: Cell, params: Params, meta: dict, root: Path) -> dict:
    """The row's values by the study's own search: as many trials, seeds and data for every row.

    It is the search of the tune stage where the settings are the same: then nothing is trained again.
    """
    if params.tune.num_trials == 0:
        return {"source": "defaults", "values": default_values(cell), "trials": []}
    one = params.model_copy(update={"tune": params.tune.model_copy(update={"searches": 1})})
    plan = Plan(cell, params.dataset[cell.dataset].metric)
    jobs = {cell.name: lambda study: searched_jobs(study, plan, meta)}
    work_on(jobs, one, root, most_trainings(one.tune))
    [trials] = plan.searches
    return {"source": "tuned", "values": best_trial(trials)["values"], "trials": trials}


def join_all(
    params: Params, model: str, root: Path, schedules: list[str], solved: dict, num_epochs: int
) -> list[dict]:
    """Every pair of solutions with its paths, in the order of :func:`lrstudy.theory.connectivity.pairs`."""
    asked = params.theory.level_sets
    wanted = [
        pair
        for pair in pairs(schedules, params.theory.seeds)
        if all(tuple(end) in solved for end in pair["ends"])
    ]
    tasks = []
    for pair in wanted:
        a, b = (solved[tuple(end)] for end in pair["ends"])
        files = {e: [str(weights_file(t["folder"], e)) for t in (a, b)] for e in range(1, num_epochs + 1)}
        name = " and ".join(named(*end) for end in pair["ends"])
        tasks.append(
            measuring(a, name, asked.num_examples)
            | {
                "ends": files[num_epochs],
                "epochs": files,
                "num_batches": asked.num_batches,
                "num_points": asked.num_points,
                "num_curve_steps": asked.num_curve_steps,
                "curve_lr": asked.curve_lr,
                "curve_batch_size": asked.curve_batch_size,
                "seed": 0,
            }
        )
    found = measure_all(f"level_sets {model} paths between solutions", measurements.join, tasks, params, root)
    return [
        pair | found[task["name"]] | {"ends": [list(end) for end in pair["ends"]]}
        for pair, task in zip(wanted, tasks, strict=True)
    ]


def cut(params: Params, model: str, solved: dict, num_epochs: int) -> tuple | None:
    """The plane through the first seed's trajectories and the level sets in it; None without three
    points."""
    asked, seed = params.theory.level_sets, params.theory.seeds[0]
    mine = {name: task for (name, other), task in solved.items() if other == seed}
    if not mine:
        return None
    order = [str(weights_file(task["folder"], e)) for task in mine.values() for e in range(1, num_epochs + 1)]
    task = measuring(next(iter(mine.values())), f"level_sets {model} plane", asked.num_examples)
    (points,) = run_all(measurements.weight_vectors, [task | {"files": order}], *params.workers)
    if len(np.unique(points, axis=0)) < 3:  # schedules that agree, as in a training of one epoch
        print("level_sets: fewer than three different weights: no plane through them", file=sys.stderr)
        return None
    plane = principal_plane(points)
    x, y = grid(plane.coordinates, asked.resolution, asked.margin)
    losses = surfaces(params, task, plane, x, y)
    paths = {name: plane.coordinates[n * num_epochs : (n + 1) * num_epochs] for n, name in enumerate(mine)}
    components = {
        split: component_counts(values, levels_of(values, asked.num_levels))
        for split, values in losses.items()
    }
    content = {
        "seed": seed,
        "x": x.tolist(),
        "y": y.tolist(),
        "losses": {split: values.tolist() for split, values in losses.items()},
        "explained": plane.explained.tolist(),
        "paths": {name: path.tolist() for name, path in paths.items()},
        "components": components,
        "most": {
            split: {kind: max(c[kind] for c in counts) for kind in ("superlevel", "sublevel")}
            for split, counts in components.items()
        },
    }
    return x, y, losses, paths, content


def lyapunov(by_seed: dict[int, list | None], params: Params) -> dict:
    """Per seed how often and how far the training loss at the ends of epochs rose, and means over seeds."""
    found = {seed: rises([at["train/loss"] for at in epochs]) for seed, epochs in by_seed.items() if epochs}
    return {"seeds": {str(seed): one for seed, one in found.items()}} | {
        key: summary(
            [one[key] for one in found.values() if one[key] is not None],
            params.compare.confidence,
            params.compare.num_resamples,
        )
        for key in ("share", "largest")
    }


def compare_rises(schedules: dict, params: Params) -> dict:
    """Per row but the first: the share of epochs with a rise minus the first row's, seed by seed."""
    reference, *others = schedules
    return {
        name: difference(
            {s: one["share"] for s, one in schedules[name]["lyapunov"]["seeds"].items()},
            {s: one["share"] for s, one in schedules[reference]["lyapunov"]["seeds"].items()},
            params,
        )
        for name in others
    }


def modulation(schedules: dict, metric: str, params: Params) -> dict:
    """The modulated row minus every other one on the test metric, seed by seed."""
    if MODULATED not in schedules:
        return {}
    values = {
        name: dict(zip(params.theory.seeds, one[metric]["values"], strict=True))
        for name, one in schedules.items()
    }
    return {
        name: difference(values[MODULATED], values[name], params) for name in schedules if name != MODULATED
    }


def difference(mine: dict, others: dict, params: Params) -> dict | None:
    """``mine`` minus ``others`` over the keys where both have a value; None where there is none."""
    both = [key for key in mine if mine[key] is not None and others.get(key) is not None]
    if not both:
        return None
    differences = [mine[key] - others[key] for key in both]
    return paired(differences, params.compare.confidence, params.compare.num_resamples)


def claims(model: str, result: dict, confidence: float) -> list[dict]:
    """Every statement with its verdict, effect, interval and n."""
    where = f"{model}, {result['data']['label']}"
    found = []
    joined = result["pairs"]

    def statement(
        name: str, text: str, bearing: str, effect: str, values: list[float], limits: list[float]
    ) -> None:
        found.append(
            {"id": name, "where": where, "claim": text, "bearing": bearing, "effect": effect}
            | refutation(values, limits, confidence)
        )

    limits = [2 * pair["standard_error"] for pair in joined]
    other_way = "A refuted path parts nothing: another one may connect the solutions."
    statement(
        "line_superlevel",
        "The straight line between two solutions stays in the superlevel set of the training loss of its "
        "better end.",
        other_way,
        "dip of the training loss, nats",
        [pair["line"]["dip"]["train"] for pair in joined],
        limits,
    )
    for path, text in (("line", "straight line"), ("curve", "trained quadratic Bezier curve")):
        statement(
            f"{path}_sublevel",
            f"The {text} between two solutions stays in the sublevel set of the training loss of its "
            "worse end.",
            other_way,
            "barrier of the training loss, nats",
            [pair[path]["barrier"]["train"] for pair in joined],
            limits,
        )
    statement(
        "over_the_top_superlevel",
        "Any two solutions are connected in the superlevel set of the training loss of the better one: "
        "the path over the top stays in it.",
        "It must hold for every network with a linear last layer, under every schedule (docs/theory.md): "
        "connected superlevel sets say nothing of a schedule.",
        "dip of the training loss, nats",
        [pair["over_the_top"]["dip"]["train"] for pair in joined],
        [1e-4 for _ in joined],  # the losses are float32 networks'
    )
    for kind, path, what in (("superlevel", "over_the_top", "dip"), ("sublevel", "curve", "barrier")):
        statement(
            f"equiconnected_{kind}",
            f"One path serves the {kind} sets of a whole family of losses: train, test and several batches "
            f"({path.replace('_', ' ')}).",
            "The paper's equiconnectedness asks for such a path; another one may serve where this fails.",
            f"largest {what} over the family, nats",
            [pair[path]["worst"][what] for pair in joined],
            limits,
        )
    for kind, what in (("superlevel", "dip"), ("sublevel", "barrier")):
        statement(
            f"epochs_{kind}",
            f"At every epoch the straight line between two trainings stays in the {kind} set of the training "
            "loss.",
            other_way,
            f"largest {what} over the epochs, nats",
            [max(at[what] for at in pair["by_epoch"]) for pair in joined],
            limits,
        )
    if plane := result["plane"]:
        for kind in ("superlevel", "sublevel"):
            statement(
                f"plane_{kind}",
                f"Every {kind} set of the training loss is connected within the plane of the first seed's "
                "trajectories.",
                "Parts that are separate in the plane, or cut by its window, may be connected outside of it.",
                "largest number of components beyond the first",
                [float(plane["most"]["train"][kind] - 1)],
                [0.0],
            )
    largest = [
        one["largest"]
        for schedule in result["schedules"].values()
        for one in schedule["lyapunov"]["seeds"].values()
        if one["largest"] is not None
    ]
    statement(
        "lyapunov",
        "The training loss, as a Lyapunov function of the training, never rises from one epoch's end to "
        "the next.",
        "Under gradient flow the loss never rises, whatever the positive rate (docs/theory.md); this is what "
        "remains of that with noise and finite steps.",
        "largest rise in a training, nats",
        largest,
        [0.0 for _ in largest],
    )
    for other, effect in result["modulation"].items():
        p = effect["p"] if effect else None
        found.append(
            {
                "id": f"modulation_over_{other}",
                "where": where,
                "claim": f"Gradient modulation of the exponential schedule (our reconstruction) ends better "
                f"on test data than {other}, tuned alike.",
                "effect": f"{result['metric']}, modulated minus {other}",
                "verdict": verdict(effect, p, confidence) if effect else "undecided",
                **{
                    key: effect[key] if effect else None
                    for key in ("mean", "interval", "n", "p", "smallest_p")
                },
                "why": f"{effect['mean']:+.4g}, n = {effect['n']}, p = {p:.2g}, no p below "
                f"{effect['smallest_p']:.2g} is possible"
                if effect
                else "no seed finished under both",
            }
        )
    return found


def named(schedule: str, seed: int) -> str:
    """A solution's name."""
    return f"{schedule} seed {seed}"


def draw_paths(joined: list[dict], num_batches: int) -> "figures.Figure":
    """The first pair of either kind: the family of losses along each path."""
    panels = {}
    for kind in ("seeds", "schedules"):
        for pair in [pair for pair in joined if pair["kind"] == kind][:1]:
            for path, text in (("line", "line"), ("curve", "curve"), ("over_the_top", "over the top")):
                along = pair[path]["along"]
                t = np.linspace(0, 1, len(along["train"]))
                panels[f"{text}, other {kind}"] = {name: (t, values) for name, values in along.items()}
    return figures.lines_figure(panels, "t", logarithmic=True)
