"""What MLflow is told, and when: journals (:mod:`lrstudy.tracking.journal`) are sent by one process.

The stage's :class:`Sender` reads them in order and sends them. ``sent.json`` remembers how far it came, so
what could not be sent is sent the next time, once. mlflow is imported when something is sent (two seconds).
"""

import contextlib
import json
import math
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lrstudy.files import locked, write_json
from lrstudy.tracking.journal import JOURNAL, Journal

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

EXPERIMENT = "lrstudy"
KEY_TAG = "lrstudy.key"
_EXPERIMENT_TAGS = {
    # The UI opens such experiments with charts of training runs.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "Do dynamic learning-rate schedules generalize better than static ones? A parent "
    "run per model and schedule, a child per seed; tunings with a child per trial. Filter by `tags.kind`: "
    "cell, seed, tuning, trial, report (which has report.html). Select seeds of several schedules and press "
    "Compare.",
}
_METRICS_PER_REQUEST = 1000  # MLflow's limit for one log_batch
_PARAMS_PER_REQUEST = 100


def tracking_uri(root: Path) -> str:
    """``MLFLOW_TRACKING_URI``, else the database ``mlflow.db``; a relative path is one in ``root``."""
    return in_workspace(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db", root)


def in_workspace(uri: str, root: Path) -> str:
    """``uri`` with the relative path of a sqlite database made one in ``root``.

    DVC runs some experiments in a copy of the workspace, where a database would be deleted with the copy.
    """
    relative = re.fullmatch(r"sqlite:///([^/:].*)", uri)
    return f"sqlite:///{root / relative[1]}" if relative else uri


def server_name(uri: str) -> str:
    """``uri`` without user, password and query: what may be shown and written down."""
    return uri if uri.startswith("sqlite:") else re.sub(r"://.*@", "://", uri).partition("?")[0]


def is_gone(uri: str) -> bool:
    """Whether a database is a file that is not there."""
    file = uri.removeprefix("sqlite:///")
    return file != uri and not Path(file).exists()


def describe(error: BaseException, uri: str) -> str:
    """An error of MLflow's in one line, without the user, the password and the query of ``uri``.

    Where a connection or a database is at fault, the operating system's or the database's words: MLflow's own
    take four lines or more.
    """
    innermost: BaseException = error
    while (cause := innermost.__cause__ or innermost.__context__) is not None:
        innermost = cause
    if isinstance(innermost, OSError | sqlite3.Error):
        error = innermost
    text = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0].replace(uri, server_name(uri))
    if not uri.startswith("sqlite:"):
        login = re.search(r"://(.*)@", uri)
        query = uri.partition("?")[2]
        for secret in [login[1], *login[1].split(":", 1)[1:]] if login else []:
            for written in filter(None, (f"{secret}@", secret, unquote(secret))):
                text = text.replace(written, "***")
        text = text.replace(f"?{query}", "") if query else text
    return text


class Sender:
    """Sends journals to MLflow from a thread of its own, while trainings run.

        with Sender(root) as sender:
            sender.follow(journal.folder)
            ...

    On leaving, what is there is sent. If the server cannot be reached, one warning says so and where the
    journals wait; nothing is lost and nothing else stops. ``patience`` is how many seconds the end may wait
    for a server that does not answer.
    """

    def __init__(self, root: Path, interval: float = 2.0, patience: float = 10.0):
        self.root, self.interval, self.patience = root, interval, patience
        self.uri = tracking_uri(root)
        self._journals: dict[Path, int | None] = {}  # how long each was when all of it had been sent
        self.run_ids: dict[str, str] = {}
        self._wake = threading.Event()
        self._closing = False
        self._failure: str | None = None
        self._heard = math.inf  # when the server last answered; a local database is always waited for
        self._deleted: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="mlflow-sender", daemon=True)

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        left = time.monotonic()
        self._closing = True
        self._wake.set()
        while self._thread.is_alive() and time.monotonic() < max(left, self._heard) + self.patience:
            self._thread.join(0.1)
        if self._thread.is_alive():
            self._failure = f"no answer for {self.patience:g} s"
        if self._failure:
            print(
                f"warning: not everything reached MLflow at {server_name(self.uri)} "
                f"({self._failure}). Nothing is lost: the journals wait in {self.root / 'checkpoints'}; "
                "`make sync` sends them.",
                file=sys.stderr,
            )
        if self._deleted:
            print(f"note: {deleted_note(self._deleted)}", file=sys.stderr)

    def follow(self, folder: Path) -> None:
        """Send the journal in ``folder`` from now on; parents before their children."""
        self._journals.setdefault(folder, None)

    def _work(self) -> None:
        store = None
        while True:
            closing = self._closing
            try:
                database_is_gone = is_gone(self.uri)
                for folder, sent in list(self._journals.items()):
                    length = _length(folder)
                    if length == sent and not database_is_gone:
                        continue
                    if (known := all_sent(folder, self.uri)) is not None:
                        self.run_ids.update(known)
                        self._journals[folder] = length
                        continue
                    if store is None:
                        import mlflow  # noqa: F401  seconds that are not the server's

                        self._answered()
                        store = Store(self.uri, self.root)
                    self.run_ids.update(send(folder, store, self._answered))
                    self._journals[folder] = length
                    self._deleted |= store.deleted
                self._failure = None
            except Exception as error:  # the boundary to a server: whatever it is, training goes on
                self._failure = describe(error, self.uri)
                store = None
            if closing:
                return
            self._wake.wait(self.interval)

    def _answered(self) -> None:
        if not self.uri.startswith("sqlite:"):
            self._heard = time.monotonic()


def deleted_note(run_ids: set[str]) -> str:
    """What to say of runs that were deleted in MLflow."""
    return (
        f"{len(run_ids)} run{'s were' if len(run_ids) > 1 else ' was'} deleted in MLflow and left so; "
        f"restore in its UI what is to go on ({', '.join(sorted(run_ids))})"
    )


def send(folder: Path, store: "Store", sent_one: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Send what ``folder``'s journal has and ``store`` has not; returns {key: run id}.

    ``sent.json`` is written after each event, so a sender that dies repeats at most one: creating a run looks
    for its key first, and MLflow's databases keep one of two equal metric values. A run that was deleted in
    MLflow is left alone. ``sent_one`` is called after each event.
    """
    with locked(folder / "send.lock"):
        events = Journal(folder, "").events()
        if not events:
            return {}
        sent = _read_sent(folder / "sent.json")
        if (
            sent.get("uri") != store.name
            or not 0 < sent["events"] <= len(events)
            or not store.has_run(sent["run_id"])
        ):
            sent = {"uri": store.name, "run_id": None, "events": 0}
        for event in events[sent["events"] :]:
            if sent["run_id"] in store.deleted:
                break
            sent["run_id"] = store.apply(event, sent["run_id"])
            sent["events"] += 1
            write_json(folder / "sent.json", sent)
            sent_one()
        return {events[0]["key"]: sent["run_id"]}


def all_sent(folder: Path, uri: str) -> dict[str, str] | None:
    """{key: run id} of a journal that was sent whole to the server at ``uri``; None where that is in doubt.

    A database that is gone has nothing of it; what else a server may have lost, ``make sync`` asks.
    """
    if is_gone(uri):
        return None
    sent, events = _read_sent(folder / "sent.json"), Journal(folder, "").events()
    if not events or sent.get("uri") != server_name(uri) or sent["events"] != len(events):
        return None
    return {events[0]["key"]: sent["run_id"]}


def _length(folder: Path) -> int:
    """Of a folder's journal, to which is only ever added, in bytes; -1 where there is none."""
    try:
        return (folder / JOURNAL).stat().st_size
    except OSError:
        return -1


def num_sent(folder: Path, uri: str) -> int:
    """How many events of a journal the server at ``uri`` was sent, as far as is noted beside it."""
    sent = _read_sent(folder / "sent.json")
    return sent["events"] if sent.get("uri") == server_name(uri) else 0


def waiting(folder: Path, uri: str) -> int:
    """How many events of ``folder``'s journal the server at ``uri`` was not sent yet."""
    return len(Journal(folder, "").events()) - num_sent(folder, uri)


def _read_sent(path: Path) -> dict:
    """How far the sending came; nothing where that was lost, so that all is sent again."""
    try:
        sent = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    whole = isinstance(sent, dict) and type(sent.get("events")) is int and isinstance(sent.get("run_id"), str)
    return sent if whole else {}


class Store:
    """The few calls of MLflow's client that events need.

    ``deleted`` are the runs, of those that were looked at, that somebody deleted in MLflow.
    """

    def __init__(self, uri: str, root: Path):
        # The sender tries again by itself; MLflow's own seven attempts take minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        import logging

        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        # They report each step of making the database, each attempt to reach a server, and each attempt to
        # write to a database, with all that was to be written.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

        self.uri, self.name = uri, server_name(uri)
        self.lock = root / ".mlflow.lock"
        self.deleted: set[str] = set()
        self._seen: set[str] = set()
        database = uri.split(":")[0].split("+")[0] in ("sqlite", "postgresql", "mysql", "mssql")
        # Two processes that make the same database's tables at once break each other.
        with locked(self.lock):
            self.client = MlflowClient(uri)
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                location = (root / "mlartifacts").as_uri() if database else None
                try:
                    self.experiment_id = self.client.create_experiment(EXPERIMENT, location, _EXPERIMENT_TAGS)
                except MlflowException:  # another machine was first
                    experiment = self.client.get_experiment_by_name(EXPERIMENT)
                    if experiment is None:
                        raise
                    self.experiment_id = experiment.experiment_id
            else:
                self.experiment_id = experiment.experiment_id

    def has_run(self, run_id: str) -> bool:
        """Whether the run is there, deleted or not."""
        from mlflow.exceptions import MlflowException

        if run_id not in self._seen:
            try:
                self._note(self.client.get_run(run_id))
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise
        return True

    def find(self, key: str) -> "Run | None":
        """The run that was created for ``key``, or None; rather one that was not deleted."""
        from mlflow.entities import ViewType

        for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY):
            found = self.client.search_runs([self.experiment_id], f"tags.`{KEY_TAG}` = '{key}'", view, 1)
            if found:
                self._note(found[0])
                return found[0]
        return None

    def apply(self, event: dict, run_id: str | None) -> str:
        """Do what ``event`` says to the run; returns the run's id."""
        return getattr(self, f"_{event['event']}")(event, run_id)

    def _note(self, run: "Run") -> None:
        self._seen.add(run.info.run_id)
        if run.info.lifecycle_stage == "deleted":
            self.deleted.add(run.info.run_id)

    def _create(self, event: dict, run_id: str | None) -> str:
        from mlflow.entities import Param

        with locked(self.lock):
            run = self.find(event["key"])
            if run is None:
                tags = {KEY_TAG: event["key"], **event["tags"], "mlflow.note.content": event["description"]}
                parent = self.find(event["parent"]) if event["parent"] else None
                tags["mlflow.parentRunId"] = parent.info.run_id if parent else event.get("outer_run")
                tags = {name: str(value) for name, value in tags.items() if value not in ("", None)}
                run = self.client.create_run(
                    self.experiment_id, start_time=event["time"], tags=tags, run_name=event["name"]
                )
                self._note(run)
        run_id = run.info.run_id
        if run_id not in self.deleted:
            # A sender that died may have created the run and not yet its parameters.
            parameters = [
                Param(name, str(value))
                for name, value in event["parameters"].items()
                if name not in run.data.params
            ]
            for start in range(0, len(parameters), _PARAMS_PER_REQUEST):
                self.client.log_batch(run_id, params=parameters[start : start + _PARAMS_PER_REQUEST])
        return run_id

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
        if not Path(event["path"]).exists():
            # It would be tried for ever, and nothing after it would be sent.
            print(f"warning: {event['path']} is gone; MLflow's run {run_id} lacks it", file=sys.stderr)
            return run_id
        self.client.log_artifact(run_id, event["path"], event["folder"] or None)
        return run_id

    def _dataset(self, event: dict, run_id: str) -> str:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self.client.log_inputs(
            run_id,
            [
                DatasetInput(
                    Dataset(
                        event["name"],
                        event["digest"],
                        source_type="local",
                        source=json.dumps(event["source"]),
                        profile=json.dumps(event["profile"]),
                    ),
                    [InputTag("mlflow.data.context", event["context"])],
                )
            ],
        )
        return run_id

    def _model(self, event: dict, run_id: str) -> str:
        """Three steps, of which a sender that died may have done some: each is done unless it was."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.models import Model

        source = Path(event["path"])
        if not source.exists():
            print(f"warning: {source} is gone; MLflow's run {run_id} lacks its model", file=sys.stderr)
            return run_id
        model = self.logged_model(run_id)
        if model is None:
            model = self.client.create_logged_model(
                self.experiment_id, "model", run_id, event["tags"], model_type="classifier"
            )
        if model.status != LoggedModelStatus.READY:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / "model"
                shutil.copytree(source, folder)
                described = Model.load(folder)
                described.model_id = described.model_uuid = model.model_id
                described.run_id = run_id
                described.artifact_path = model.artifact_location
                described.save(folder / "MLmodel")
                self.client.log_model_artifacts(model.model_id, str(folder))
            run = self.client.get_run(run_id)
            outputs = run.outputs.model_outputs if run.outputs else []
            if not any(output.model_id == model.model_id for output in outputs):
                self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
            self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return run_id

    def logged_model(self, run_id: str) -> "LoggedModel | None":
        """The model that the run logged, or None."""
        found = self.client.search_logged_models(
            [self.experiment_id], f"source_run_id = '{run_id}'", max_results=1
        )
        return found[0] if found else None

    def _champion(self, event: dict, run_id: str) -> str:
        from mlflow.exceptions import MlflowException

        run = self.find(event["of"])
        model = self.logged_model(run.info.run_id) if run else None
        if run is None or model is None:
            print(
                f"warning: MLflow has no model of the run with the key {event['of']}; "
                f"{event['name']} gets no new champion",
                file=sys.stderr,
            )
            return run_id
        try:
            self.client.create_registered_model(event["name"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = self.client.search_model_versions(f"name = '{event['name']}'")
        version = next((v for v in versions if v.run_id == run.info.run_id), None)
        if version is None:
            with _as_global_store(self.uri):
                version = self.client.create_model_version(
                    event["name"], f"models:/{model.model_id}", run.info.run_id, model_id=model.model_id
                )
        for name, value in event["tags"].items():
            self.client.set_model_version_tag(event["name"], version.version, name, value)
        description = event["description"].replace("{run_id}", run_id)
        description = description.replace("{experiment_id}", self.experiment_id)
        self.client.update_model_version(event["name"], version.version, description)
        self.client.set_registered_model_alias(event["name"], "champion", version.version)
        return run_id

    def _resume(self, event: dict, run_id: str) -> str:
        self.client.update_run(run_id, "RUNNING")
        return run_id

    def _end(self, event: dict, run_id: str) -> str:
        self.client.set_terminated(run_id, event["status"], event["time"])
        return run_id


@contextlib.contextmanager
def _as_global_store(uri: str) -> Iterator[None]:
    """Make ``uri`` MLflow's own: its registry looks models up there, whatever its client was made for."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # None is its own default again
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
