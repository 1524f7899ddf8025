"""What MLflow is told, and when: a journal on disk that any process writes and one process sends.

A training never waits for the tracking server. It appends events to ``journal.jsonl`` in its run's folder;
the stage's :class:`Sender` reads them in order and sends them. ``sent.json`` remembers how far it came, so
what could not be sent is sent the next time, once. This is the only module that imports mlflow, and only
when something is sent (two seconds).

Events, one JSON object a line: ``create`` (first; name, tags, parameters, parent), ``metrics``
([name, value, step, milliseconds] each), ``tags``, ``artifact`` (a file), ``end`` (a status).
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from lrstudy.files import locked, write_json

EXPERIMENT = "lrstudy"
KEY_TAG = "lrstudy.key"
_METRICS_PER_REQUEST = 1000  # MLflow's limit for one log_batch
_PARAMS_PER_REQUEST = 100


class Journal:
    """The events of one MLflow run, in ``folder``.

    Args:
        folder: the run's own folder; the journal survives there until it is deleted.
        key: identifies the run for ever: the run is created once for a key, whoever sends first.
    """

    def __init__(self, folder: str | Path, key: str):
        self.folder, self.key = Path(folder), key
        self.path = self.folder / "journal.jsonl"

    def create(
        self,
        name: str,
        tags: dict[str, str],
        parameters: dict[str, object] | None = None,
        parent: str | None = None,
        description: str = "",
    ) -> None:
        """Begin the run, if it has not begun; ``parent`` is the parent run's key."""
        if self.events():
            return
        self.append(
            "create",
            key=self.key,
            name=name,
            tags=tags,
            parameters=flatten(parameters or {}),
            parent=parent,
            description=description,
            time=_milliseconds(),
        )

    def metrics(self, values: Iterable[tuple[str, float, int, int]]) -> None:
        """Log (name, value, step, milliseconds) each; values that are not finite are kept as they are."""
        self.append("metrics", values=[list(value) for value in values])

    def tags(self, tags: dict[str, str]) -> None:
        """Set tags."""
        self.append("tags", tags=tags)

    def artifact(self, path: str | Path, folder: str = "") -> None:
        """Copy a file to the run's artifacts."""
        self.append("artifact", path=str(Path(path).resolve()), folder=folder)

    def end(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self.append("end", status=status, time=_milliseconds())

    def append(self, kind: str, **content: object) -> None:
        """Add one event; a torn last line of an earlier process that died is cut off first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"event": kind, **content}) + "\n"
        with locked(self.folder / "journal.lock"), self.path.open("ab+") as file:
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def events(self) -> list[dict]:
        """All whole events so far."""
        try:
            lines = self.path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]


def flatten(settings: dict, prefix: str = "") -> dict[str, object]:
    """Nested settings as ``section.key``: value, as MLflow's parameters want them."""
    flat = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def tracking_uri(root: Path) -> str:
    """``MLFLOW_TRACKING_URI``, else the database ``mlflow.db`` in the workspace's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


class Sender:
    """Sends journals to MLflow from a thread of its own, while trainings run.

        with Sender(root) as sender:
            sender.follow(journal.folder)
            ...

    On leaving, what is there is sent. If the server cannot be reached, one warning says so and where the
    journals wait; nothing is lost and nothing else stops.
    """

    def __init__(self, root: Path, interval: float = 2.0):
        self.root, self.interval = root, interval
        self.folders: list[Path] = []
        self.run_ids: dict[str, str] = {}
        self._wake = threading.Event()
        self._closing = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow-sender", daemon=True)

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join()
        if self._failure:
            print(
                f"warning: MLflow was not reached ({self._failure}). Nothing is lost: the journals wait in "
                f"{self.root / 'checkpoints'}; `make sync` sends them.",
                file=sys.stderr,
            )

    def follow(self, folder: Path) -> None:
        """Send the journal in ``folder`` from now on; parents before their children."""
        if folder not in self.folders:
            self.folders.append(folder)

    def _work(self) -> None:
        store = None
        while True:
            closing = self._closing
            try:
                store = store or _Store(tracking_uri(self.root), self.root)
                for folder in list(self.folders):
                    self.run_ids.update(send(folder, store))
                self._failure = None
            except Exception as error:  # the boundary to a server: whatever it is, training goes on
                self._failure = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                store = None
            if closing:
                return
            self._wake.wait(self.interval)


def send(folder: Path, store: "_Store") -> dict[str, str]:
    """Send what ``folder``'s journal has and ``store`` has not; returns {key: run id}.

    ``sent.json`` is written after each event, so a sender that dies repeats at most one: creating a run looks
    for its key first, and MLflow keeps one of two equal metric values.
    """
    with locked(folder / "send.lock"):
        try:
            events = [json.loads(line) for line in (folder / "journal.jsonl").read_bytes().split(b"\n")[:-1]]
        except FileNotFoundError:
            return {}
        sent = _read_sent(folder / "sent.json")
        if sent.get("uri") != store.name or not store.has_run(sent.get("run_id")):
            sent = {"uri": store.name, "run_id": None, "events": 0}
        for event in events[sent["events"] :]:
            sent["run_id"] = store.apply(event, sent["run_id"])
            sent["events"] += 1
            write_json(folder / "sent.json", sent)
        return {events[0]["key"]: sent["run_id"]} if events else {}


def _read_sent(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


class _Store:
    """The few calls of MLflow's client that events need."""

    def __init__(self, uri: str, root: Path):
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        import logging

        from mlflow import MlflowClient

        # Both report each step of making the database.
        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)
        from mlflow.exceptions import MlflowException

        self.name = _without_password(uri)
        local = uri.startswith("sqlite:")
        # Two processes that make the same database's tables at once break each other.
        with locked(root / ".mlflow.lock"):
            self.client = MlflowClient(uri)
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                location = (root / "mlartifacts").as_uri() if local else None
                try:
                    self.experiment_id = self.client.create_experiment(EXPERIMENT, location)
                except MlflowException:  # another machine was first
                    self.experiment_id = self.client.get_experiment_by_name(EXPERIMENT).experiment_id
            else:
                self.experiment_id = experiment.experiment_id
        self.lock = root / ".mlflow.lock"
        self._known: dict[str, str] = {}

    def has_run(self, run_id: str | None) -> bool:
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return True
        if run_id in self._known.values():
            return True
        try:
            self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def find(self, key: str) -> str | None:
        """The id of the run that was created for ``key``."""
        if key not in self._known:
            found = self.client.search_runs(
                [self.experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1
            )
            if not found:
                return None
            self._known[key] = found[0].info.run_id
        return self._known[key]

    def apply(self, event: dict, run_id: str | None) -> str:
        """Do what ``event`` says to the run; returns the run's id."""
        return getattr(self, f"_{event['event']}")(event, run_id)

    def _create(self, event: dict, run_id: str | None) -> str:
        from mlflow.entities import Param, RunTag

        with locked(self.lock):
            found = self.find(event["key"])
            if found is not None:
                return found
            tags = {KEY_TAG: event["key"], **event["tags"]}
            if event["description"]:
                tags["mlflow.note.content"] = event["description"]
            parent = event["parent"]
            if parent is not None:
                tags["mlflow.parentRunId"] = self.find(parent) or ""
            elif os.environ.get("MLFLOW_RUN_ID"):  # under `mlflow run`
                tags["mlflow.parentRunId"] = os.environ["MLFLOW_RUN_ID"]
            tags = {name: value for name, value in tags.items() if value != ""}
            run = self.client.create_run(
                self.experiment_id, start_time=event["time"], tags=tags, run_name=event["name"]
            )
            self._known[event["key"]] = run.info.run_id
        parameters = [Param(name, str(value)) for name, value in event["parameters"].items()]
        for start in range(0, len(parameters), _PARAMS_PER_REQUEST):
            self.client.log_batch(run.info.run_id, params=parameters[start : start + _PARAMS_PER_REQUEST])
        self.client.log_batch(run.info.run_id, tags=[RunTag(KEY_TAG, event["key"])])
        return run.info.run_id

    def _metrics(self, event: dict, run_id: str) -> str:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, when, step) for name, value, step, when in event["values"]]
        for start in range(0, len(metrics), _METRICS_PER_REQUEST):
            self.client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_REQUEST])
        return run_id

    def _tags(self, event: dict, run_id: str) -> str:
        from mlflow.entities import RunTag

        self.client.log_batch(
            run_id, tags=[RunTag(name, str(value)) for name, value in event["tags"].items()]
        )
        return run_id

    def _artifact(self, event: dict, run_id: str) -> str:
        self.client.log_artifact(run_id, event["path"], event["folder"] or None)
        return run_id

    def _end(self, event: dict, run_id: str) -> str:
        self.client.set_terminated(run_id, event["status"], event["time"])
        return run_id


def _without_password(uri: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return uri.replace(f":{parts.password}@", ":***@", 1)


def _milliseconds() -> int:
    return int(time.time() * 1000)
