"""What test data say of trained weights: measured once a training, when it is final."""

from collections.abc import Iterable
from pathlib import Path

from lrstudy.checked import read_tensors, refused
from lrstudy.data import read_meta
from lrstudy.ledger import Ledger
from lrstudy.ledger.record import WEIGHTS, Test, test_of
from lrstudy.study.runs import find_weights


def measuring_task(task: dict, data: Path | str, made_by: str, folders: Iterable[Path]) -> dict | None:
    """What :func:`measure_run` takes, for a training that has ended; None where its weights are in no folder.

    Args:
        task: the training's, or of it ``identities``, ``ledger``, ``settings`` and ``label``.
        data: the processed data set's folder.
        made_by: the stage that makes the weights.
        folders: where they may lie.
    """
    found = find_weights(task, *folders)
    if found is None:
        return None
    folder, record = found
    return {
        "label": task["label"],
        "folder": str(folder),
        "made_by": made_by,
        "data": str(data),
        "settings": task["settings"],
        "ledger": task["ledger"],
        "identities": task["identities"],
        # A run that diverged is a result; it has no averages.
        "weights": WEIGHTS if record.status == "finished" else ("last", "best"),
    }


def measure_run(task: dict) -> str:
    """Measure a training and add what was found to its record; returns the folder of its weights."""
    test = measure(task)
    weights = find_weights(task, Path(task["folder"]))
    if weights is None:
        raise RuntimeError(f"{task['label']}: its weights changed while they were measured")
    Ledger(task["ledger"]).add(weights[1].with_test(test))
    return task["folder"]


def measure(task: dict) -> Test:
    """What the test split says of all weights of a training.

    Args:
        task: as :func:`measuring_task` makes it.

    Raises:
        StudyError: a file of weights is damaged or another network's.
    """
    from lrstudy.data import read_split
    from lrstudy.training.evaluation import test_weights

    settings, folder = task["settings"], Path(task["folder"])
    meta = read_meta(task["data"])
    arrays = read_split(task["data"], "test")
    found: dict[str, dict] = {}
    files = {weights: folder / f"{weights}.safetensors" for weights in task["weights"]}
    for weights in task["weights"]:
        values = read_tensors(files[weights], task["made_by"], "torch")
        if weights == "best" and files["best"].read_bytes() == files["last"].read_bytes():
            found["best"] = found["last"]  # the last epoch was the best one
            continue
        try:
            found[weights] = test_weights(settings, meta, arrays, values)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            what = f"the weights of another model ({reason:.200})"
            raise refused(files[weights], task["made_by"], what) from None
    return test_of(found, len(arrays["labels"]))
