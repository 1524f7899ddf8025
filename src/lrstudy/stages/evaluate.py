"""Measure a trained cell on the test split: python -m lrstudy.stages.evaluate MODEL SCHEDULE.

The only stage that opens test data. Metrics are computed from the predictions as they were saved, so anyone
can compute them again from predictions.parquet.
"""

import time
from pathlib import Path

from lrstudy.config import load_params, workspace_root
from lrstudy.data import read_meta
from lrstudy.errors import StudyError
from lrstudy.evaluation import BATCH_SIZES, predict, score, softmax
from lrstudy.files import write_atomically, write_json
from lrstudy.parallel import run_all
from lrstudy.stages import cell_arguments, run_stage
from lrstudy.study import data_folder, evaluate_folder, read_json, train_folder
from lrstudy.tracking import Journal, Sender

WEIGHTS = ("last", "best")  # after the last epoch: the headline; of the lowest validation loss: beside it


def main() -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    model, schedule = cell_arguments()
    params, root = load_params(), workspace_root()
    trained = train_folder(model, schedule)
    training = read_json(trained / "training.json", f"train@{model}-{schedule}")
    folder = data_folder(training["dataset"])
    meta = read_meta(folder)
    settings = training["settings"] | {"threads": params.train.threads, "device": params.train.device}
    cell, *journals = _journals(training, root)
    tasks = [
        {
            "seed": int(seed),
            "folder": str(trained / f"seed-{seed}"),
            "made_by": f"train@{model}-{schedule}",
            "data": str(folder),
            "settings": settings,
            # A run that diverged is a result; its weights are no model that anyone would load.
            "model": str(journal.folder / "model") if run["status"] == "finished" else None,
        }
        for (seed, run), journal in zip(training["seeds"].items(), journals, strict=True)
    ]
    with Sender(root) as sender:
        for journal in (cell, *journals):
            sender.follow(journal.folder)
        predictions = sorted(
            run_all(predict_seed, tasks, *params.workers),
            key=lambda found: found["seed"],
        )
        table = pa.concat_tables(prediction_table(found) for found in predictions)
        output = evaluate_folder(model, schedule)
        write_atomically(
            output / "predictions.parquet",
            lambda file: pa.parquet.write_table(table, file, compression="zstd"),
        )

        saved = pa.parquet.read_table(output / "predictions.parquet")
        scores = {
            seed: {
                weights: score_saved(saved, int(seed), weights, meta["num_classes"]) for weights in WEIGHTS
            }
            for seed in training["seeds"]
        }
        report_to_tracker(cell, journals, scores, np)
        tags = {"model": model, "schedule": schedule, "dataset": meta["dataset"], "data": meta["label"]}
        for task, journal in zip(tasks, journals, strict=True):
            journal.dataset("test", meta)
            if task["model"]:
                journal.model(task["model"], tags | {"seed": str(task["seed"])})
    write_json(
        output / "metrics.json",
        {
            "model": model,
            "schedule": schedule,
            "data": {
                key: meta[key] for key in ("dataset", "label", "official", "fingerprint", "num_examples")
            },
            "training": {key: value for key, value in training.items() if key not in ("model", "schedule")},
            "scores": scores,
        },
    )


def predict_seed(task: dict) -> dict:
    """Class probabilities of one seed's last and best weights on the test split; the last become a model."""
    import torch

    from lrstudy.batches import make_split
    from lrstudy.data import read_split
    from lrstudy.devices import choose_device, choose_dtype
    from lrstudy.models import make_model
    from lrstudy.serving import make_classifier, save_model, some_examples

    settings = task["settings"]
    torch.set_num_threads(settings["threads"])
    device = choose_device(settings["device"])
    dtype = choose_dtype(settings["precision"], device)
    meta = read_meta(task["data"])
    arrays = read_split(task["data"], "test")
    split = make_split(arrays, meta, device)
    model = make_model(settings["model"], meta).to(device)
    if meta["kind"] == "image":
        model = model.to(memory_format=torch.channels_last)
    found = {"seed": task["seed"], "index": arrays["index"], "label": arrays["labels"]}
    files = {weights: Path(task["folder"]) / f"{weights}.safetensors" for weights in WEIGHTS}
    for weights in WEIGHTS:
        values = load_weights(model, files[weights], str(device), task["made_by"])
        if weights == "best" and files["best"].read_bytes() == files["last"].read_bytes():
            found["best"] = found["last"]  # the last epoch was the best one
            continue
        logits = predict(model, split, BATCH_SIZES[meta["kind"]], device, dtype)
        found[weights] = softmax(logits).astype("float32")
        if weights == "last" and task["model"]:
            on_cpu = {name: value.cpu() for name, value in values.items()}
            save_model(
                Path(task["model"]),
                make_classifier(settings["model"], meta, on_cpu),
                some_examples(arrays, meta),
                meta["num_classes"],
            )
    return found


def load_weights(model, path: Path, device: str, made_by: str) -> dict:
    """Give ``model`` the weights in ``path``, a file of the stage ``made_by``, and return them.

    Raises:
        StudyError: there is no such file, it is damaged, or it is of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    again = f"`dvc repro --force -s {made_by}` makes it anew; trainings that are done are not repeated."
    try:
        values = load_file(path, device=device)
    except FileNotFoundError:
        raise StudyError(f"{path}: not found; {again}") from None
    except SafetensorError as error:
        raise StudyError(f"{path}: not a file of weights ({error}); {again}") from None
    try:
        model.load_state_dict(values)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"{path}: the weights of another model ({reason:.200}); {again}") from None
    return values


def prediction_table(found: dict):
    """A row per example and kind of weights: seed, weights, index, label, predicted, probability_0 ..."""
    import pyarrow as pa

    tables = []
    for weights in WEIGHTS:
        probabilities = found[weights]
        count = len(probabilities)
        columns = {
            "seed": pa.array([found["seed"]] * count, pa.int64()),
            "weights": pa.array([weights] * count, pa.string()).dictionary_encode(),
            "index": pa.array(found["index"], pa.int64()),
            "label": pa.array(found["label"], pa.int16()),
            "predicted": pa.array(probabilities.argmax(axis=1), pa.int16()),
        }
        for number in range(probabilities.shape[1]):
            columns[f"probability_{number}"] = pa.array(probabilities[:, number], pa.float32())
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def score_saved(table, seed: int, weights: str, num_classes: int) -> dict:
    """The metrics of one seed and kind of weights, from the rows of predictions.parquet.

    Probabilities that are not numbers, of a run that diverged, have no loss: their metrics are None.
    """
    import numpy as np
    import pyarrow.compute as pc

    rows = table.filter((pc.field("seed") == seed) & (pc.field("weights") == weights))
    probabilities = np.stack(
        [rows[f"probability_{number}"].to_numpy() for number in range(num_classes)], axis=1
    ).astype(np.float64)
    if not np.isfinite(probabilities).all():
        return {"accuracy": None, "f1": None, "loss": None, "confusion": None}
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return score(rows["label"].to_numpy(), probabilities)


def report_to_tracker(cell: Journal, seeds: list[Journal], scores: dict, np) -> None:
    """Add the test metrics to each seed's run, and their means to the cell's."""
    when = int(time.time() * 1000)
    sums: dict[str, list[float]] = {}
    for journal, found in zip(seeds, scores.values(), strict=True):
        values = []
        for weights, prefix in (("last", "test"), ("best", "test_best")):
            for name in ("accuracy", "f1", "loss"):
                if found[weights][name] is not None:
                    values.append((f"{prefix}/{name}", found[weights][name], 0, when))
                    sums.setdefault(f"{prefix}/{name}", []).append(found[weights][name])
        _once(journal, values)
    _once(cell, [(name, float(np.mean(values)), 0, when) for name, values in sums.items()])


def _journals(training: dict, root: Path) -> list[Journal]:
    name = f"{training['model']}-{training['schedule']}"
    base = root / "checkpoints" / name
    cell_key = training["cell"]["key"]
    journals = [Journal(base / f"cell-{cell_key.removeprefix('cell-')[:16]}", cell_key)]
    for seed, run in training["seeds"].items():
        journals.append(Journal(base / run["key"][:16], run["key"]))
        # Where the journal is gone (another machine, a cleaned folder), its run is found again by its key.
        journals[-1].create(f"{name} seed {seed}", {"kind": "seed", "seed": seed}, parent=cell_key)
    journals[0].create(name, {"kind": "cell"})
    return journals


def _once(journal: Journal, values: list[tuple[str, float, int, int]]) -> None:
    """Log test metrics unless the same ones are there already (the stage ran again)."""
    logged = [event["values"] for event in journal.events() if event["event"] == "metrics"]
    new = [[name, value] for name, value, *_ in values]
    if not any([[name, value] for name, value, *_ in event] == new for event in logged):
        journal.metrics(values)


if __name__ == "__main__":
    run_stage(main, warm="start")
