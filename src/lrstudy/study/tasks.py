"""What the stages share: where things are, and the runs of a cell with their journals."""

import json
import time
from pathlib import Path

from lrstudy.ledger import Ledger, Record
from lrstudy.ledger.machine import multiplies_bfloat16
from lrstudy.process.parallel import has_accelerator, run_all
from lrstudy.recipe.cells import Cell
from lrstudy.recipe.config import Params
from lrstudy.recipe.identity import training_code
from lrstudy.study.runs import find_record, run_folder
from lrstudy.study.workspace import data_folder, git_revision, ledger_folder


def training_task(
    cell: Cell,
    params: Params,
    settings: dict,
    seed: int,
    meta: dict,
    root: Path,
    label: str,
    *,
    training_share: float = 1.0,
    role: str = "final",
    auto: tuple[str, str] | None = None,
    **options: bool,
) -> dict:
    """One training as :func:`lrstudy.study.runs.train_run` takes it: ``settings`` and what all share.

    ``training_share`` of the training split is used, all of the validation split. ``auto`` becomes what it
    means where the training will run, so that the same words on two kinds of machine are two trainings; or
    the device and the dtype ``auto``, for who asks what others have trained.
    """
    settings = whole_settings(params, settings, seed, training_share, auto)
    ledger, code = Ledger(ledger_folder(root)), training_code(settings)
    identities = ledger.identities(settings, meta["fingerprint"], code)
    return {
        "folder": str(run_folder(root, cell.name, identities[0])),
        "key": identities[0],
        "identities": identities,
        "label": label,
        "settings": settings,
        "code": ledger.canonical(code),
        "data": str(data_folder(cell.dataset).resolve()),
        "described": {key: meta[key] for key in DESCRIBED},
        "labels": {"model": cell.model_name, "schedule": cell.schedule_name, "role": role},
        "ledger": str(ledger.folder),
        "revision": git_revision(),
        **options,
    }


def whole_settings(
    params: Params,
    settings: dict,
    seed: int,
    training_share: float = 1.0,
    auto: tuple[str, str] | None = None,
) -> dict:
    """A cell's settings with what all trainings share, as :func:`lrstudy.training.loop.train` takes them.

    ``auto`` becomes what it means where the training will run, or the device and the dtype that are given.
    """
    train = params.train
    if auto is None:
        device, precision = _resolved(params, settings["precision"])
    else:
        asked = (train.device, settings["precision"])
        device, precision = (
            meaning if word == "auto" else word for word, meaning in zip(asked, auto, strict=True)
        )
    settings = settings | {
        "precision": precision,
        "training_share": training_share,
        "seed": seed,
        "threads": train.threads,
        "device": device,
        "augment": train.augment,
        "gradient_clip": train.gradient_clip,
        "compile": train.compile,
    }
    return json.loads(json.dumps(settings))  # as a record will have them


DESCRIBED = ("dataset", "label", "official", "fingerprint", "num_examples")
"""What results say of the data that they are of, from meta.json."""


def _resolved(params: Params, precision: str) -> tuple[str, str]:
    """The kind of device and the dtype that a training gets: here, or where the cluster runs it."""
    if params.parallel.cluster is None and (known := _known_without_torch(params.train.device, precision)):
        return known
    from lrstudy.training.devices import resolve

    asked = {"device": params.train.device, "precision": precision}
    if params.parallel.cluster is None:
        return resolve(asked)
    key = json.dumps([asked, params.parallel.model_dump()])
    if key not in _on_cluster:
        [_on_cluster[key]] = run_all(resolve, [asked], *params.workers)
    return _on_cluster[key]


_on_cluster: dict[str, tuple[str, str]] = {}


def _known_without_torch(device: str, precision: str) -> tuple[str, str] | None:
    """What :func:`lrstudy.training.devices.resolve` says, where that is known without importing torch."""
    if device != "cpu" and (device != "auto" or has_accelerator()):
        return None
    if precision != "auto":
        return "cpu", precision
    native = multiplies_bfloat16()
    return None if native is None else ("cpu", "bfloat16" if native else "float32")


def record_of(task: dict) -> Record:
    """The record of the task's training, which has ended."""
    record = find_record(task)
    if record is None:
        raise RuntimeError(f"{task['label']}: the training ended without a record")
    return record


def told(record: Record) -> str:
    """Where and when the recorded training took place, in words."""
    when = time.strftime("%Y-%m-%d", time.gmtime(record.origin.ended))
    on = record.origin.accelerator or record.origin.processor
    return f"trained {when} on machine {record.origin.machine} ({on}), {record.dtype}"
