"""What the theory stages share: where their files go, what MLflow is told, and tasks of measurements."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lrstudy.entries.meaning import digest
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger import Ledger
from lrstudy.process.parallel import num_workers, run_all
from lrstudy.recipe.config import Params
from lrstudy.recipe.identity import LOOP, code_behind, content_hash
from lrstudy.study.journals import finish
from lrstudy.study.outputs import Theory
from lrstudy.study.workspace import REPORTS, ledger_folder
from lrstudy.theory import measurements
from lrstudy.theory.landscape import Plane
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import Sender

FOLDER = Path("artifacts/theory")


def parent_journal(
    root: Path, name: str, identity: dict, data: str, tags: dict[str, str], description: str
) -> Journal:
    """The run of an experiment, the same one whenever the same experiment runs again.

    Args:
        name: of the run.
        identity: all that the experiment depends on besides the data and the code that trains.
        data: the data's fingerprint, or "" where there is none.
    """
    # The loop under the name of the oldest code that was proven equal to it.
    code = Ledger(ledger_folder(root)).canonical({"loop": digest(code_behind(*LOOP))})
    key = f"theory-{content_hash([identity, data, code])}"
    folder = root / "checkpoints" / "theory" / f"{name.replace(' ', '-')}-{key.removeprefix('theory-')[:16]}"
    journal = Journal(folder, key)
    journal.create(name, tags | {"kind": "theory"}, identity, description=description)
    return journal


def publish(journal: Journal, files: list[Path], folder: Path, status: str = "finished") -> list[str]:
    """Give the run its files, copy them to the stage's output ``folder``, end the run; returns the copies'
    names.

    DVC removes a stage's output before it runs again; MLflow may be told of these files only then.
    """
    known = {event["path"] for event in journal.events() if event["event"] == "artifact"}
    copies = []
    for file in files:
        if str(file.resolve()) not in known:
            journal.artifact(file, "figures")
        folder.mkdir(parents=True, exist_ok=True)
        copies.append(shutil.copyfile(file, folder / file.name).name)
    finish(journal, status)
    return copies


def leave(name: str, result: dict) -> None:
    """Write an experiment's numbers to reports/, where the repository keeps them, and beside its figures."""
    for folder in (FOLDER / name, REPORTS):
        Theory.write_values(folder / f"{name}.json", result)


def follow(sender: Sender, *journals: Journal) -> None:
    """Send these journals, parents first."""
    for journal in journals:
        sender.follow(journal.folder)


def measure_all(
    what: str, function: Callable[[dict], dict], tasks: list[dict], params: Params, root: Path
) -> dict[str, dict]:
    """What ``function`` of :mod:`lrstudy.theory.measurements` finds for every task, by the task's name.

    Each is kept as it comes, by its task and the code that measures, so a stage that was killed goes on; how
    far it is goes to stderr.
    """
    folder = root / "checkpoints" / "theory" / "measured"
    code = digest(code_behind(f"{function.__module__}.{function.__name__}", without=LOOP))
    files = {task["name"]: folder / f"{content_hash({'task': task, 'code': code})}.json" for task in tasks}
    found = {name: _measured(file, name) for name, file in files.items() if file.exists()}
    for one in run_all(function, [task for task in tasks if task["name"] not in found], *params.workers):
        write_json(files[one["name"]], one)
        found[one["name"]] = one
        print(f"{what}: {len(found)} of {len(tasks)}", file=sys.stderr, flush=True)
    return found


def _measured(file: Path, name: str) -> dict:
    """What :func:`measure_all` kept of the task ``name``.

    Raises:
        StudyError: the file is not that.
    """
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("name") != name:
        raise StudyError(f"{file}: not a measurement of {name}; delete it, and the stage measures it anew.")
    return found


def surfaces(params: Params, task: dict, plane: Plane, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Losses on the grid, its rows shared out over the workers."""
    size = f"{len(x)} x {len(y)} points"
    print(f"{task['name']}: training and test loss at {size}", file=sys.stderr, flush=True)
    parts = [part for part in np.array_split(y, min(len(y), num_workers(*params.workers))) if len(part)]
    tasks = [task | {"plane": plane, "x": x, "y": part, "part": n} for n, part in enumerate(parts)]
    found = {one["part"]: one["losses"] for one in run_all(measurements.surface, tasks, *params.workers)}
    return {name: np.concatenate([found[n][name] for n in range(len(parts))]) for name in found[0]}


def measuring(task: dict, name: str, num_examples: int) -> dict:
    """The task of a measurement on what a training left."""
    return {
        "name": name,
        "settings": task["settings"],
        "code": task["code"],
        "data": task["data"],
        "num_examples": num_examples,
    }
