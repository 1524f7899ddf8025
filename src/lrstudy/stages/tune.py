"""Find a cell's base rate and schedule parameters: python -m lrstudy.stages.tune MODEL SCHEDULE."""

import hashlib
import json
import math
import sys

from lrstudy.cells import default_values, make_cell
from lrstudy.config import load_params, workspace_root
from lrstudy.data import read_meta
from lrstudy.files import write_json
from lrstudy.parallel import run_all
from lrstudy.runs import train_run
from lrstudy.stages import cell_arguments, run_stage
from lrstudy.study import common_tags, data_folder, finish, outcome_of, run_task, tuned_file
from lrstudy.tracking import Journal, Sender
from lrstudy.tuning import best_trial, tune


def main() -> None:
    model, schedule = cell_arguments()
    params, root = load_params(), workspace_root()
    cell = make_cell(params, model, schedule)
    meta = read_meta(data_folder(cell.dataset))
    output = tuned_file(model, schedule)
    summary = {"model": model, "schedule": schedule, "num_trials": params.tune.num_trials}
    if params.tune.num_trials == 0:
        write_json(output, summary | {"source": "defaults", "values": default_values(cell), "trials": []})
        print(f"{cell.name}: tune.num_trials is 0: the defaults of conf/ are used", file=sys.stderr)
        return

    def task(number: int, values: dict, seed: int) -> dict:
        label = f"{cell.name} trial {number} seed {seed}"
        settings = cell.settings(values)
        return run_task(cell, params, settings, seed, meta, root, label, keep_weights=False, journal=False)

    # The study is that of these settings on these data: the key of the default trial says which.
    space = {name: where.model_dump() for name, where in cell.search_space().items()}
    identity = [task(0, {}, seed)["key"] for seed in params.tune.seeds]
    identity += [space, params.tune.sampler_seed, params.tune.batch_size]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    tags = common_tags(cell, params, meta)
    journal = Journal(root / "checkpoints" / cell.name / f"tuning-{key[:16]}", f"tuning-{key}")
    journal.create(
        f"{cell.name} tuning",
        tags | {"kind": "tuning"},
        {"num_trials": params.tune.num_trials, "seeds": params.tune.seeds, "search": space},
        description=f"Search for the base rate and the parameters of `{schedule}` with {model} on "
        f"{meta['label']}: one run per trial; the objective is the last epoch's validation loss.",
    )

    with Sender(root) as sender:
        sender.follow(journal.folder)

        def evaluate(trials: list[tuple[int, dict]]) -> list[tuple[float, dict]]:
            tasks = {n: [task(n, values, seed) for seed in params.tune.seeds] for n, values in trials}
            every = [run for group in tasks.values() for run in group]
            for _ in run_all(train_run, every, params.train.threads, params.train.device):
                pass
            found = []
            for number, values in trials:
                outcomes = [outcome_of(t["folder"]) for t in tasks[number]]
                objective, known = judge(outcomes)
                trial = Journal(journal.folder / f"trial-{number}", f"tuning-{key}-trial-{number}")
                trial.create(
                    f"{cell.name} trial {number}", tags | {"kind": "trial"}, values, parent=journal.key
                )
                sender.follow(trial.folder)
                if not any(event["event"] == "end" for event in trial.events()):
                    trial.metrics(mean_curves(outcomes, objective))
                    finish(trial, known["status"])
                found.append((objective, known))
            return found

        trials = tune(cell, params.tune, key, root, evaluate)
        best = best_trial(trials)
        journal.metrics(
            [
                ("objective", t["objective"], t["number"], t["ended"])
                for t in trials
                if t["objective"] is not None
            ]
        )
        for number in range(len(trials)):
            trial = Journal(journal.folder / f"trial-{number}", f"tuning-{key}-trial-{number}")
            said = [event["tags"]["best"] for event in trial.events() if "best" in event.get("tags", {})]
            # With more trials than the last time, another one may be the best.
            if (is_best := str(number == best["number"]).lower()) != (said or ["false"])[-1]:
                trial.tags({"best": is_best})
        journal.tags(
            {"best.trial": str(best["number"])} | {f"best.{k}": str(v) for k, v in best["values"].items()}
        )
        finish(journal, "finished")
    write_json(
        output,
        summary
        | {
            "source": "tuned",
            "values": best["values"],
            "objective": best["objective"],
            "best_trial": best["number"],
            "seeds": params.tune.seeds,
            "study": f"{cell.name}-{key[:16]}",
            "search_space": space,
            "trials": trials,
        },
    )
    values = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in best["values"].items()
    )
    print(f"{cell.name}: best of {len(trials)} trials: {values}", file=sys.stderr)


def judge(outcomes: list[dict]) -> tuple[float, dict]:
    """The objective of a trial: the mean over its seeds of the last epoch's validation loss."""
    diverged = [outcome for outcome in outcomes if outcome["status"] == "diverged"]
    losses = [outcome["epochs"][-1]["validation/loss"] for outcome in outcomes]
    known = {
        "status": "diverged" if diverged else "finished",
        "seconds": sum(epoch["seconds"] for outcome in outcomes for epoch in outcome["epochs"]),
        "ended": int(max(outcome["epochs"][-1]["time"] for outcome in outcomes) * 1000),
    }
    if diverged:
        known["reason"] = f"the loss was not finite in epoch {len(diverged[0]['epochs'])}"
        return math.inf, known
    return sum(losses) / len(losses), known


def mean_curves(outcomes: list[dict], objective: float) -> list[tuple[str, float, int, int]]:
    """The trial's curves by epoch, each the mean over its seeds, and the objective."""
    values = []
    for records in zip(*(outcome["epochs"] for outcome in outcomes), strict=False):
        when = int(max(record["time"] for record in records) * 1000)
        for name in ("train/loss", "validation/loss", "validation/accuracy", "validation/f1", "lr"):
            mean = sum(record[name] for record in records) / len(records)
            values.append((name, mean, records[0]["epoch"], when))
    if math.isfinite(objective):
        values.append(("objective", objective, 0, values[-1][3]))
    return values


if __name__ == "__main__":
    run_stage(main, heavy=True)
