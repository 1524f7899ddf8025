"""Find a cell's base rate and schedule parameters: python -m lrstudy.stages.tune MODEL SCHEDULE."""

import contextlib
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import stdev

from lrstudy.cells import default_values, make_cell
from lrstudy.config import load_params, workspace_root
from lrstudy.data import read_meta
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.identity import content_hash
from lrstudy.ledger import Record
from lrstudy.parallel import num_workers, run_all
from lrstudy.runs import is_from_ledger, train_run
from lrstudy.sensitivity import in_the_papers_terms, sensitivity, within_one_standard_error
from lrstudy.stages import cell_arguments, run_stage
from lrstudy.study import (
    common_tags,
    data_folder,
    finish,
    mean_curves,
    record_of,
    told,
    training_task,
    tuned_file,
    under_way,
)
from lrstudy.tracking import Journal, Sender, describe, server_name
from lrstudy.tuning import best_trial, draw, earlier_studies, largest_cost, storage_uri, study_name, tune


def main() -> None:
    model, schedule = cell_arguments()
    params, root = load_params(), workspace_root()
    cell = make_cell(params, model, schedule)
    meta = read_meta(data_folder(cell.dataset))
    output = tuned_file(model, schedule)
    settings = params.tune
    summary = {"model": model, "schedule": schedule, "num_trials": settings.num_trials}
    if settings.num_trials == 0:
        values = default_values(cell)
        nothing = {"values": {}}
        terms = in_the_papers_terms(values, nothing, cell.search_space(), cell.parameters)
        write_json(output, summary | {"source": "defaults", "values": values, "terms": terms, "trials": []})
        print(f"{cell.name}: tune.num_trials is 0: the defaults of conf/ are used", file=sys.stderr)
        return

    def task(number: int, values: dict, share: float, seed: int) -> dict:
        label = f"{cell.name} trial {number}" + (f" on {share:g}" if share < 1 else "") + f" seed {seed}"
        return training_task(
            cell,
            params,
            cell.settings(values),
            seed,
            meta,
            root,
            label,
            training_share=share,
            role="trial",
            keep_weights=False,
            journal=False,
        )

    # What the search depends on, in the words that a later search says it differs in.
    space = cell.search_space()
    defaults = task(0, {}, 1.0, 0)
    identity = {
        "data": meta["fingerprint"],
        **{f"code of the {part}": meaning for part, meaning in defaults["code"].items()},
        "settings": defaults["settings"],
        "search space": {name: where.model_dump() for name, where in space.items()},
        "seeds": settings.seeds,
        "rungs": settings.rungs,
        "sampler": [settings.sampler_seed, settings.batch_size],
    }
    identity = {name: content_hash(part) for name, part in identity.items()}
    key = content_hash(identity)
    if said := earlier_studies(cell, key, root, identity):
        print(f"{cell.name}: {said}", file=sys.stderr)
    tags = common_tags(cell, params, meta)
    folder = root / "checkpoints" / cell.name / f"tuning-{key[:16]}"
    journal = Journal(folder, f"tuning-{key}")
    journal.create(
        f"{cell.name} tuning",
        tags | {"kind": "tuning"},
        {
            "num_trials": settings.num_trials,
            "rungs": settings.rungs,
            "seeds": settings.seeds,
            "search": {name: where.model_dump() for name, where in space.items()},
        },
        description=f"Search for the base rate and the parameters of `{schedule}` with {model} on "
        f"{meta['label']}: one run per trial and share of the training data; the objective is the last "
        "epoch's validation loss.",
    )

    def trial_journal(number: int, share: float) -> Journal:
        name = f"trial-{number}" + (f"-on-{share:g}" if share < 1 else "")
        return Journal(folder / name, f"tuning-{key}-{name}")

    with Sender(root) as sender, under_way(journal):
        sender.follow(folder)

        def evaluate(share: float, trials: list[tuple[int, dict]]) -> list[tuple[float, dict]]:
            tasks = {n: [task(n, values, share, seed) for seed in settings.seeds] for n, values in trials}
            every = [run for group in tasks.values() for run in group]
            taken = {run["key"] for run in every if is_from_ledger(run)}
            for _ in run_all(train_run, every, *params.workers):
                pass
            found = []
            for number, values in trials:
                records = [record_of(task) for task in tasks[number]]
                objective, known = judge(records, share)
                trial = trial_journal(number, share)
                trial.create(
                    f"{cell.name} trial {number}" + (f" on {share:g} of the data" if share < 1 else ""),
                    tags | {"kind": "trial", "trial": str(number), "training_share": f"{share:g}"},
                    values | {"training_share": share},
                    parent=journal.key,
                )
                sender.follow(trial.folder)
                if not any(event["event"] == "end" for event in trial.events()):
                    curves = mean_curves([record.outcome()["epochs"] for record in records])
                    trial.metrics(curves)
                    if math.isfinite(objective):
                        trial.metrics([("objective", objective, 0, curves[-1][3])])
                    if "reason" in known:
                        trial.tags({"reason": known["reason"]})
                    if all(run["key"] in taken for run in tasks[number]):
                        trial.tags({"from_ledger": "true", "trained": told(records[0])})
                    finish(trial, known["status"])
                found.append((objective, known))
            return found

        workers = num_workers(*params.workers)
        at_once = math.ceil(workers / len(settings.seeds))
        with _clear_database_errors(root):
            trials = tune(cell, settings, key, root, evaluate, identity=identity, at_once=at_once)
        best = best_trial(trials)
        journal.metrics(
            [
                (
                    "objective" if rung["share"] == 1 else f"objective_on_{rung['share']:g}",
                    rung["objective"],
                    t["number"],
                    rung["ended"],
                )
                for t in trials
                for rung in t["rungs"]
                if rung["objective"] is not None
            ]
        )
        for trial in trials:
            for rung in trial["rungs"]:
                run = trial_journal(trial["number"], rung["share"])
                if not run.events():
                    continue  # another machine trained it and has told MLflow
                sender.follow(run.folder)  # a process that was killed may not have sent it all
                said = [event["tags"]["best"] for event in run.events() if "best" in event.get("tags", {})]
                # With more trials than the last time, another one may be the best.
                is_best = trial["number"] == best["number"] and rung == trial["rungs"][-1]
                if str(is_best).lower() != (said or ["false"])[-1]:
                    run.tags({"best": str(is_best).lower()})
        journal.tags(
            {"best.trial": str(best["number"])} | {f"best.{k}": str(v) for k, v in best["values"].items()}
        )
        # DVC removes the output before the next run; MLflow may be told of these files only then.
        figures = draw(trials, cell, folder / f"figures-{len(trials)}")
        for figure in figures:
            journal.artifact(figure, "figures")
        finish(journal, "finished")

    as_good = within_one_standard_error(trials, space, best)
    output.parent.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        shutil.copyfile(figure, output.parent / figure.name)
    spent = sum(rung["epochs_of_full_data"] for trial in trials for rung in trial["rungs"])
    last = best["rungs"][-1]
    write_json(
        output,
        summary
        | {
            "source": "tuned",
            "values": best["values"],
            "terms": in_the_papers_terms(best["values"], as_good, space, cell.parameters),
            "objective": last["objective"],
            "best_trial": best["number"],
            "defaults_objective": next(
                (r["objective"] for r in trials[0]["rungs"] if r["share"] == last["share"]), None
            ),
            "rungs": settings.rungs,
            "seeds": settings.seeds,
            "cost": {
                "epochs_of_full_data": spent,
                "at_most": largest_cost(
                    settings.num_trials, settings.rungs, cell.num_epochs, len(settings.seeds)
                ),
                "seconds": sum(rung["seconds"] for trial in trials for rung in trial["rungs"]),
            },
            "study": study_name(cell.name, key, settings.rungs),
            "within_one_standard_error": as_good,
            "sensitivity": sensitivity(trials, space, best),
            "search_space": {name: where.model_dump() for name, where in space.items()},
            "trials": trials,
        },
    )
    values = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in best["values"].items()
    )
    print(
        f"{cell.name}: best of {len(trials)} trials: {values} "
        f"({spent:.3g} epochs of the full training data in all)",
        file=sys.stderr,
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


def judge(records: list[Record], share: float) -> tuple[float, dict]:
    """The objective of a trial on one share: the mean over its seeds of the last epoch's validation loss.

    And what is known of it: ``status`` and perhaps the ``reason``, cost, end, the ``identities`` of its
    trainings, and the ``standard_error`` of the objective, over the seeds or, for a single one, over the
    validation examples.
    """
    diverged = [record for record in records if record.status == "diverged"]
    histories = [record.history for record in records]
    losses = [history["validation/loss"][-1] for history in histories]
    known = {
        "status": "diverged" if diverged else "finished",
        "epochs_of_full_data": share * sum(len(history["epoch"]) for history in histories),
        "seconds": sum(sum(history["compute_seconds"]) for history in histories),
        "ended": int(max(history["time"][-1] for history in histories) * 1000),
        "identities": [record.identity for record in records],
    }
    if diverged:
        known["reason"] = f"the loss was not finite in epoch {len(diverged[0].history['epoch'])}"
        return math.inf, known
    if len(losses) > 1:
        known["standard_error"] = stdev(losses) / math.sqrt(len(losses))
    else:
        known["standard_error"] = histories[0]["validation/loss_standard_error"][-1]
    return sum(losses) / len(losses), known


if __name__ == "__main__":
    run_stage(main, warm="start")
