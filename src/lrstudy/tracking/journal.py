"""The journal of a run: what MLflow is to get of it, written by any process and sent by one.

A training never waits for the tracking server. It appends events to ``journal.jsonl`` in its run's folder.

Events, one JSON object a line: ``create`` (first; name, tags, parameters, parent), ``metrics``
([name, value, step, milliseconds] each), ``tags``, ``artifact`` (a file), ``dataset`` (what it used),
``model`` (a folder in MLflow's format), ``champion`` (another run's model to register), ``end`` (a status),
``resume``.
"""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from lrstudy.errors import StudyError
from lrstudy.files import locked

JOURNAL = "journal.jsonl"


class Journal:
    """The events of one MLflow run, in ``folder``.

    Args:
        folder: the run's own folder; the journal survives there until it is deleted.
        key: identifies the run for ever: the run is created once for a key, whoever sends first.
    """

    def __init__(self, folder: str | Path, key: str):
        self.folder, self.key = Path(folder), key
        self.path = self.folder / JOURNAL

    def create(
        self,
        name: str,
        tags: dict[str, str],
        parameters: dict[str, object] | None = None,
        parent: str | None = None,
        description: str = "",
        began: float | None = None,
    ) -> None:
        """Begin the run, if it has not begun: now, or when it ``began``; ``parent`` is its parent's key.

        Under ``mlflow run``, the run that it made (``MLFLOW_RUN_ID``) is the parent of what has no other.
        """
        self._append(
            "create",
            only_first=True,
            key=self.key,
            name=name,
            tags=tags,
            parameters=flatten(parameters or {}),
            parent=parent,
            outer_run=None if parent else os.environ.get("MLFLOW_RUN_ID"),
            description=description,
            time=milliseconds(began),
        )

    def metrics(self, values: Iterable[tuple[str, float, int, int]]) -> None:
        """Log (name, value, step, milliseconds) each; values that are not finite are kept as they are."""
        self._append("metrics", values=[list(value) for value in values])

    def tags(self, tags: dict[str, str]) -> None:
        """Set tags, unless they were set so."""
        now: dict[str, str] = {}
        for event in self.events():
            now |= event.get("tags", {}) if event["event"] in ("create", "tags") else {}
        if any(now.get(name) != value for name, value in tags.items()):
            self._append("tags", tags=tags)

    def artifact(self, path: str | Path, folder: str = "", *, once: bool = False) -> None:
        """Copy a file to the run's artifacts; with ``once`` not again if that was said, since it is the
        same.
        """
        self._append("artifact", only_once=once, path=str(Path(path).resolve()), folder=folder)

    def dataset(self, split: str, meta: dict) -> None:
        """Name what the run used: ``split`` of the data set that ``meta`` describes."""
        self._append(
            "dataset",
            only_once=True,
            name=f"{meta['dataset']}-{split}",
            digest=meta["fingerprint"][:12],
            context={"train": "training", "test": "testing"}.get(split, split),
            source={"uri": f"data/processed/{meta['dataset']}", "data": meta["label"]},
            profile={"num_examples": meta["num_examples"][split], "fingerprint": meta["fingerprint"]},
        )

    def model(self, folder: str | Path, tags: dict[str, str]) -> None:
        """Log the model in ``folder`` (MLflow's format) as the run's ``model``."""
        self._append("model", only_once=True, path=str(Path(folder).resolve()), tags=tags)

    def champion(self, name: str, key: str, description: str, tags: dict[str, str]) -> None:
        """Register the model of the run with the key ``key`` as a version of ``name``, alias ``champion``.

        ``{run_id}`` and ``{experiment_id}`` in the description become those of this journal's run.
        """
        self._append("champion", only_once=True, name=name, of=key, description=description, tags=tags)

    def end(self, status: str = "FINISHED", ended: float | None = None) -> None:
        """End the run, now or when it ``ended``: FINISHED, FAILED or KILLED."""
        self._append("end", status=status, time=milliseconds(ended))

    def resume(self) -> None:
        """Go on with a run that was ended as FAILED or KILLED."""
        self._append("resume")

    def events(self) -> list[dict]:
        """All whole events so far.

        Raises:
            StudyError: a line is not an event.
        """
        try:
            lines = self.path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StudyError(
                f"{self.path}: cannot be read ({error.strerror}); remove it: what it has not sent is lost."
            ) from None
        events = []
        for number, line in enumerate(lines, 1):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = None
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                raise StudyError(
                    f"{self.path}, line {number}: not an event of a journal; delete it to send the others."
                )
            events.append(event)
        return events

    def _append(
        self, kind: str, only_first: bool = False, only_once: bool = False, **content: object
    ) -> None:
        """Add one event; a torn last line of an earlier process that died is cut off first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"event": kind, **content}) + "\n"
        with locked(self.folder / "journal.lock"), self.path.open("ab+") as file:
            file.seek(0)
            before = file.read()
            whole = before.rfind(b"\n") + 1
            if (only_first and whole) or (only_once and line.encode() in before):
                return
            file.truncate(whole)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


def flatten(settings: dict, prefix: str = "") -> dict[str, object]:
    """Nested settings as ``section.key``: value, as MLflow's parameters want them."""
    flat: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def milliseconds(seconds: float | None = None) -> int:
    """A time in seconds since 1970, by default now, as MLflow takes it."""
    return int((time.time() if seconds is None else seconds) * 1000)
