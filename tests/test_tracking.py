"""The journals and what reaches MLflow: once, whole and in order, whatever dies or cannot be reached."""

import json
import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lrstudy import sync
from lrstudy.errors import StudyError
from lrstudy.process.exits import exit_status
from lrstudy.study.journals import finish, under_way
from lrstudy.tracking.journal import Journal, flatten
from lrstudy.tracking.store import (
    EXPERIMENT,
    KEY_TAG,
    Sender,
    Store,
    describe,
    send,
    server_name,
    tracking_uri,
)

SOURCE = Path(__file__).parents[1] / "src"
BIGGEST = sys.float_info.max  # what MLflow's databases keep of an infinity


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)


def write_cell(root: Path) -> tuple[Journal, Journal]:
    """The journals of a finished cell with one seed, as the stages write them. The child's folder sorts first."""
    cell = Journal(root / "checkpoints" / "m-s" / "cell-1", "cell-1")
    cell.create("m-s", {"kind": "cell", "empty": ""}, {"model": {"depth": 8}}, description="a cell")
    seed = Journal(root / "checkpoints" / "m-s" / "1", "seed-1")
    parameters = {f"p{number}": number for number in range(120)}  # more than MLflow takes at once
    seed.create("m-s seed 1", {"kind": "seed", "seed": "1"}, parameters, parent="cell-1")
    seed.metrics(EPOCH_1)
    seed.metrics(EPOCH_2)
    seed.tags({"status": "finished"})
    seed.end()
    cell.end()
    return cell, seed


EPOCH_1 = [("train/loss", 2.5, 1, 1000), ("lr", 0.1, 1, 1000)] + [
    ("step/train/loss", 3 - step / 1000, step, 1000) for step in range(20)
]
EPOCH_2 = [
    ("train/loss", math.nan, 2, 2000),
    ("validation/loss", math.inf, 2, 2000),
    ("lr", 0.1, 2, 2000),
    ("step/train/loss", -math.inf, 20, 2000),
    ("step/train/loss", math.nan, 21, 2000),
]


@pytest.fixture(scope="session")
def two_senders(tmp_path_factory) -> tuple[Path, int, subprocess.CompletedProcess]:
    """A workspace whose journals two processes sent at once to a database that was not there.

    One is this process; with the events that it sent, and what the other said.
    """
    root = tmp_path_factory.mktemp("two_senders")
    write_cell(root)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    environment["PYTHONPATH"] = str(SOURCE)
    command = [sys.executable, "-m", "lrstudy.sync"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    sent = []
    with subprocess.Popen(command, cwd=root, env=environment, **pipes) as other:
        store = Store(f"sqlite:///{root / 'mlflow.db'}", root)
        for folder in sync.journal_folders(root):
            send(folder, store, lambda: sent.append(1))
        output = other.communicate(timeout=240)
    return root, len(sent), subprocess.CompletedProcess(command, other.returncode, *output)


@pytest.fixture
def root(two_senders, tmp_path) -> Path:
    """A workspace with a database that has tables, an experiment and no runs."""
    import sqlite3

    shutil.copy2(two_senders[0] / "mlflow.db", tmp_path / "mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"DELETE FROM {table}")
    return tmp_path


@pytest.fixture
def store(root) -> Store:
    return Store(tracking_uri(root), root)


def everything(store: Store) -> dict[str, dict]:
    """All that MLflow shows, by the run's name."""
    client = store.client
    runs = client.search_runs([store.experiment_id], run_view_type=3, max_results=1000)
    found = {}
    for run in runs:
        assert run.info.run_name not in found, "a run is there twice"
        found[run.info.run_name] = {
            "id": run.info.run_id,
            "status": run.info.status,
            "time": (run.info.start_time, run.info.end_time),
            "parameters": run.data.params,
            "tags": run.data.tags,
            "metrics": {
                name: [
                    (m.step, m.timestamp, repr(m.value))
                    for m in client.get_metric_history(run.info.run_id, name)
                ]
                for name in run.data.metrics
            },
        }
    return found


def send_all(root: Path, store: Store) -> dict[str, str]:
    """Send as ``make sync`` does; returns {key: run id}."""
    run_ids = {}
    for folder in sync.journal_folders(root):
        run_ids |= send(folder, store)
    return run_ids


def wait_until(sender: Sender, is_so: Callable[[], bool]) -> None:
    """Let the sender's thread work until ``is_so``; two minutes at most, on however busy a machine."""
    for _ in range(12_000):
        if is_so():
            return
        sender._thread.join(0.01)
    pytest.fail("the sender's thread does nothing")


# --- the journal ---


def test_a_journal_keeps_its_events_in_order(tmp_path):
    journal = Journal(tmp_path / "run", "key")
    assert journal.events() == []
    journal.create(
        "name", {"a": "b"}, {"model": {"depth": 8}, "seeds": [1, 2]}, parent="other", description="why"
    )
    journal.metrics([("loss", math.nan, 1, 5), ("loss", math.inf, 2, 6), ("accuracy", 0.1, 1, 5)])
    journal.tags({"status": "diverged"})
    journal.end("FAILED")
    created, metrics, tags, end = journal.events()
    assert created["event"] == "create"
    assert (created["key"], created["name"], created["parent"]) == ("key", "name", "other")
    assert created["parameters"] == {"model.depth": 8, "seeds": [1, 2]}
    assert math.isnan(metrics["values"][0][1])
    assert metrics["values"][1:] == [["loss", math.inf, 2, 6], ["accuracy", 0.1, 1, 5]]
    assert tags == {"event": "tags", "tags": {"status": "diverged"}}
    assert (end["event"], end["status"]) == ("end", "FAILED")
    assert created["time"] <= end["time"]


def test_a_run_begins_once_even_when_two_threads_begin_it_together(tmp_path):
    Journal(tmp_path, "key").create("first", {})
    Journal(tmp_path, "key").create("second", {})
    assert [event["name"] for event in Journal(tmp_path, "key").events()] == ["first"]

    folder, barrier = tmp_path / "other", threading.Barrier(4)

    def begin(name: str) -> None:
        barrier.wait()
        Journal(folder, "key").create(name, {})

    threads = [threading.Thread(target=begin, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Journal(folder, "key").events()) == 1


@pytest.mark.parametrize("torn", [b'{"event": "metr', b"{", b'{"event": "tags", "tags": {}}', b"\xff\x00"])
def test_a_line_that_a_dead_process_left_torn_is_cut(tmp_path, torn):
    journal = Journal(tmp_path, "key")
    journal.create("name", {})
    with journal.path.open("ab") as file:
        file.write(torn)
    assert [event["event"] for event in journal.events()] == ["create"]
    journal.tags({"a": "b"})
    assert [event["event"] for event in journal.events()] == ["create", "tags"]


def test_a_torn_first_line_does_not_count_as_a_beginning(tmp_path):
    journal = Journal(tmp_path, "key")
    journal.path.write_bytes(b'{"event": "create", "na')
    journal.create("name", {})
    assert [event["name"] for event in journal.events()] == ["name"]


def test_a_damaged_journal_is_named_with_its_line(tmp_path):
    journal = Journal(tmp_path, "key")
    journal.create("name", {})
    with journal.path.open("ab") as file:
        file.write(b"\x00\x00\n")
    with pytest.raises(StudyError, match=r"journal\.jsonl, line 2: not an event"):
        journal.events()


@pytest.mark.parametrize("line", ["3", "{}", '{"event": 5}', "[" * 100_000])
def test_a_line_that_is_no_event_is_named_too(tmp_path, line):
    journal = Journal(tmp_path, "key")
    journal.path.write_text(f"{line}\n")
    with pytest.raises(StudyError, match=r"journal\.jsonl, line 1: not an event"):
        journal.events()


def test_nested_settings_become_dotted_names():
    nested = {"a": 1, "b": {"c": {"d": None}, "e": [1, 2]}}
    assert flatten(nested) == {"a": 1, "b.c.d": None, "b.e": [1, 2]}


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (None, "sqlite:////work/mlflow.db"),
        ("", "sqlite:////work/mlflow.db"),
        ("sqlite:///runs/my.db", "sqlite:////work/runs/my.db"),
        ("sqlite:////elsewhere/my.db", "sqlite:////elsewhere/my.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_the_database_is_in_the_workspace_unless_the_environment_says_otherwise(monkeypatch, given, used):
    if given is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert tracking_uri(Path("/work")) == used


# --- sending to a database ---


@pytest.mark.slow
def test_two_processes_sending_to_a_new_database_make_one_of_everything(two_senders):
    root, sent, other = two_senders
    assert (other.returncode, other.stderr) == (0, "")
    assert sent + int(other.stdout.split()[1]) == 7  # each event by one of the two
    store = Store(tracking_uri(root), root)
    assert [e.name for e in store.client.search_experiments()].count(EXPERIMENT) == 1
    shown = everything(store)
    assert set(shown) == {"m-s", "m-s seed 1"}
    assert len(shown["m-s seed 1"]["metrics"]["step/train/loss"]) == 22


def test_mlflow_shows_what_was_journaled(root, store):
    _, seed = write_cell(root)
    run_ids = send_all(root, store)
    shown = everything(store)
    assert run_ids == {"cell-1": shown["m-s"]["id"], "seed-1": shown["m-s seed 1"]["id"]}

    parent, child = shown["m-s"], shown["m-s seed 1"]
    assert parent["parameters"] == {"model.depth": "8"}
    assert parent["metrics"] == {}
    assert {k: v for k, v in parent["tags"].items() if k != "mlflow.runName"} == {
        KEY_TAG: "cell-1",
        "kind": "cell",
        "mlflow.note.content": "a cell",
    }
    assert child["parameters"] == {f"p{number}": str(number) for number in range(120)}
    assert {k: v for k, v in child["tags"].items() if k != "mlflow.runName"} == {
        KEY_TAG: "seed-1",
        "kind": "seed",
        "seed": "1",
        "status": "finished",
        "mlflow.parentRunId": parent["id"],
    }
    assert child["status"] == "FINISHED"
    assert child["time"] == (seed.events()[0]["time"], seed.events()[-1]["time"])

    expected: dict[str, list] = {}
    for name, value, step, when in EPOCH_1 + EPOCH_2:
        kept = math.copysign(BIGGEST, value) if math.isinf(value) else value
        expected.setdefault(name, []).append((step, when, repr(kept)))
    assert {name: sorted(history) for name, history in child["metrics"].items()} == {
        name: sorted(history) for name, history in expected.items()
    }


def test_a_training_that_took_place_elsewhere_began_and_ended_then(root, store):
    """The ledger has trainings of other days and machines: the UI sorts and times them by their own clock."""
    journal = Journal(root / "checkpoints" / "run", "run")
    journal.create("run", {}, began=1_000.25)
    journal.metrics([("validation/loss", 0.5, 1, 1_030_000)])
    journal.end(ended=1_030.5)
    send_all(root, store)
    shown = everything(store)["run"]
    assert (shown["status"], shown["time"]) == ("FINISHED", (1_000_250, 1_030_500))


def test_more_metrics_than_mlflow_takes_at_once_arrive_whole(root, store):
    journal = Journal(root / "checkpoints" / "run", "run")
    journal.create("run", {})
    journal.metrics([("step/lr", step / 7, step, 1000) for step in range(1100)])
    send_all(root, store)
    history = everything(store)["run"]["metrics"]["step/lr"]
    assert sorted(history) == [(step, 1000, repr(step / 7)) for step in range(1100)]


def test_sending_again_adds_nothing(root, store):
    write_cell(root)
    send_all(root, store)
    before = everything(store)
    assert send_all(root, store) == {run["tags"][KEY_TAG]: run["id"] for run in before.values()}
    assert everything(store) == before
    assert send_all(root, Store(tracking_uri(root), root)).keys() == {"cell-1", "seed-1"}
    assert everything(store) == before


def test_later_events_are_added(root, store):
    _, seed = write_cell(root)
    send_all(root, store)
    seed.metrics([("test/accuracy", 0.9, 0, 3000)])
    send_all(root, store)
    shown = everything(store)["m-s seed 1"]
    assert shown["metrics"]["test/accuracy"] == [(0, 3000, "0.9")]
    assert shown["status"] == "FINISHED"


def test_a_sender_that_died_after_any_event_repeats_nothing(root, store):
    _, seed = write_cell(root)
    send_all(root, store)
    before = everything(store)
    sent = json.loads((seed.folder / "sent.json").read_text())
    assert sent["events"] == len(seed.events())
    for done in range(sent["events"]):
        (seed.folder / "sent.json").write_text(json.dumps(sent | {"events": done}))
        send_all(root, store)
        assert json.loads((seed.folder / "sent.json").read_text()) == sent
    for lost in ("", "{", "[]", "[" * 100_000, json.dumps(sent | {"events": 99}), '{"events": "1"}'):
        (seed.folder / "sent.json").write_text(lost)
        send_all(root, store)
    (seed.folder / "sent.json").unlink()
    send_all(root, store)
    assert everything(store) == before


class Killed(BaseException):
    """A sender's end in the middle of its work."""


def die_in_call(call: int, store: Store, monkeypatch, *names: str) -> None:
    """End the sender after the ``call``-th call (from 0) of MLflow's: it is done there."""
    calls = iter(range(1000))

    def dying(function):
        def call_or_die(*args, **options):
            number = next(calls)
            found = function(*args, **options)
            if number == call:
                raise Killed
            return found

        return call_or_die

    for name in names:
        monkeypatch.setattr(store.client, name, dying(getattr(store.client, name)))


@pytest.mark.parametrize("call", range(9))
def test_a_sender_that_dies_in_any_call_of_mlflow_is_made_up_for(root, store, monkeypatch, call):
    write_cell(root)
    die_in_call(call, store, monkeypatch, "create_run", "log_batch", "set_terminated")
    with pytest.raises(Killed):
        send_all(root, store)
    again = Store(tracking_uri(root), root)
    send_all(root, again)
    shown = everything(again)
    assert set(shown) == {"m-s", "m-s seed 1"}
    assert len(shown["m-s seed 1"]["parameters"]) == 120
    assert len(shown["m-s seed 1"]["metrics"]["step/train/loss"]) == 22
    assert shown["m-s seed 1"]["tags"]["mlflow.parentRunId"] == shown["m-s"]["id"]
    assert [run["status"] for run in shown.values()] == ["FINISHED", "FINISHED"]


def test_all_is_sent_again_when_the_database_was_deleted(root, store):
    write_cell(root)
    shutil.copy2(root / "mlflow.db", root / "before.db")
    first = send_all(root, store)
    shown = everything(store)
    store.client._tracking_client.store.engine.dispose()
    shutil.move(root / "before.db", root / "mlflow.db")
    anew = Store(tracking_uri(root), root)
    second = send_all(root, anew)
    assert second.keys() == first.keys()
    assert not set(second.values()) & set(first.values())

    def content(runs: dict) -> dict:
        return {
            name: (run["parameters"], run["metrics"], run["status"], run["time"])
            for name, run in runs.items()
        }

    assert content(everything(anew)) == content(shown)


def test_another_database_gets_everything_and_the_first_stays_as_it_is(root, store, tmp_path):
    write_cell(root)
    shutil.copy2(root / "mlflow.db", root / "other.db")
    send_all(root, store)
    before = everything(store)
    other = Store(f"sqlite:///{root / 'other.db'}", root)
    send_all(root, other)
    assert set(everything(other)) == {"m-s", "m-s seed 1"}
    send_all(root, store)  # and back
    assert everything(store) == before


def test_a_run_deleted_in_mlflow_stays_deleted_until_it_is_restored(root, store, capsys, monkeypatch):
    _, seed = write_cell(root)
    run_id = send_all(root, store)["seed-1"]
    store.client.delete_run(run_id)
    seed.metrics([("test/accuracy", 0.9, 0, 3000)])
    fresh = Store(tracking_uri(root), root)
    send_all(root, fresh)
    assert fresh.deleted == {run_id}
    (seed.folder / "sent.json").unlink()  # also a sender that knows nothing finds it
    with Sender(root) as sender:
        sender.follow(seed.folder)
    assert (
        f"note: 1 run was deleted in MLflow and left so; restore in its UI what is to go on ({run_id})"
        in (capsys.readouterr().err)
    )
    assert set(everything(store)) == {"m-s", "m-s seed 1"}
    assert "test/accuracy" not in everything(store)["m-s seed 1"]["metrics"]

    store.client.restore_run(run_id)
    send_all(root, Store(tracking_uri(root), root))
    assert "test/accuracy" in everything(store)["m-s seed 1"]["metrics"]


def test_artifacts_are_copied_and_a_file_that_is_gone_stops_nothing(root, store, capsys):
    journal = Journal(root / "checkpoints" / "run", "run")
    journal.create("run", {})
    (root / "here.txt").write_text("content")
    journal.artifact(root / "here.txt", "notes")
    journal.artifact(root / "gone.txt")
    journal.tags({"after": "true"})
    send_all(root, store)
    run = everything(store)["run"]
    assert run["tags"]["after"] == "true"
    assert [file.path for file in store.client.list_artifacts(run["id"], "notes")] == ["notes/here.txt"]
    assert "gone.txt is gone" in capsys.readouterr().err


def test_the_run_of_mlflow_run_becomes_the_parent_and_is_not_touched(root, store, monkeypatch):
    outer = store.client.create_run(store.experiment_id, run_name="outer").info.run_id
    untouched = everything(store)["outer"]
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    write_cell(root)
    monkeypatch.delenv("MLFLOW_RUN_ID")  # another process may send it
    send_all(root, store)
    shown = everything(store)
    assert shown["outer"] == untouched
    assert shown["m-s"]["tags"]["mlflow.parentRunId"] == outer
    assert shown["m-s seed 1"]["tags"]["mlflow.parentRunId"] == shown["m-s"]["id"]


def test_the_sender_sends_while_it_is_open_and_what_is_left_at_the_end(root, store, capsys):
    journal = Journal(root / "checkpoints" / "run", "run")
    journal.create("run", {})
    with Sender(root, interval=0.01) as sender:
        sender.follow(journal.folder)
        sender.follow(journal.folder)
        wait_until(sender, lambda: "run" in sender.run_ids)  # the thread sends it without being told
        journal.metrics([("loss", 1.0, 1, 5)])
        journal.end()
    assert everything(store)["run"]["status"] == "FINISHED"
    assert everything(store)["run"]["metrics"] == {"loss": [(1, 5, "1.0")]}
    assert sender.run_ids == {"run": everything(store)["run"]["id"]}
    assert not sender._thread.is_alive()
    assert capsys.readouterr() == ("", "")


# --- a server that is not there, does not answer, or wants a password ---


class TrackingServer(ThreadingHTTPServer):
    """The calls of MLflow's REST interface that a sender makes; keeps what it was told, refuses ``refuse`` times."""

    daemon_threads = True

    def __init__(self, refuse: int = 0):
        super().__init__(("127.0.0.1", 0), _Calls)
        self.told: list[tuple[str, dict]] = []
        self.logins: set[str | None] = set()
        self.refuse = refuse

    def uri(self, login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.server_port}"


class _Calls(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({})

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, body: dict) -> None:
        call = self.path.partition("?")[0].partition("/mlflow/")[2]
        self.server.told.append((call, body))
        self.server.logins.add(self.headers["Authorization"])
        if self.server.refuse:
            self.server.refuse -= 1
            return self.reply(503, {"error_code": "TEMPORARILY_UNAVAILABLE"})
        experiment = {"experiment_id": "7", "name": EXPERIMENT, "lifecycle_stage": "active"}
        info = {"run_id": "r1", "experiment_id": "7", "lifecycle_stage": "active", "status": "RUNNING"}
        answers = {
            "experiments/get-by-name": {"experiment": experiment},
            "runs/search": {"runs": []},
            "runs/create": {"run": {"info": info, "data": {}}},
            "runs/get": {"run": {"info": info, "data": {}}},
            "runs/log-batch": {},
            "runs/update": {"run_info": info},
        }
        if call not in answers:
            return self.reply(404, {"error_code": "ENDPOINT_NOT_FOUND"})
        return self.reply(200, answers[call])

    def reply(self, status: int, content: dict) -> None:
        encoded = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with TrackingServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


LOGIN = "alice:s3cr%40t@"
SECRETS = ("alice", "s3cr", "s3cr%40t", "s3cr@t")


def test_a_password_is_used_and_goes_nowhere_else(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri(LOGIN))
    cell, _ = write_cell(tmp_path)
    with Sender(tmp_path) as sender:
        sender.follow(cell.folder)
    assert any(login and login.startswith("Basic ") for login in server.logins)
    assert json.loads((cell.folder / "sent.json").read_text()) == {
        "uri": server.uri(),
        "run_id": "r1",
        "events": 2,
    }
    written = json.dumps(server.told) + "".join(
        path.read_text() for path in cell.folder.iterdir() if path.is_file()
    )
    written += "".join(capsys.readouterr())
    assert not [secret for secret in SECRETS if secret in written]
    created = [body for call, body in server.told if call == "runs/create"]
    assert [body["run_name"] for body in created] == ["m-s"]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("sqlite:////home/me@x/mlflow.db?mode=rw", "sqlite:////home/me@x/mlflow.db?mode=rw"),
        ("http://host:5000/path", "http://host:5000/path"),
        ("http://alice:s3cr%40t@host:5000/path", "http://host:5000/path"),
        ("https://token@host", "https://host"),
        ("postgresql+psycopg2://alice:s3/cr@t@host/db?password=s3cr", "postgresql+psycopg2://host/db"),
        ("databricks", "databricks"),
    ],
)
def test_a_servers_name_has_no_secrets(uri, name):
    assert server_name(uri) == name
    told = describe(ValueError(f"cannot open {uri} as 'alice' with s3cr@t\nsecond line"), uri)
    assert told.startswith(f"ValueError: cannot open {name}")
    assert "second line" not in told
    if uri != name:
        assert "s3/cr" not in told
        assert "s3cr%40t" not in told
        assert "password=" not in told


def test_a_server_out_of_reach_costs_one_warning_and_nothing_is_lost(
    root, closed_port, monkeypatch, capfd, caplog
):
    cell, seed = write_cell(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{LOGIN}127.0.0.1:{closed_port}")
    with Sender(root, interval=0.01) as sender:
        for journal in (cell, seed):
            sender.follow(journal.folder)
        wait_until(sender, lambda: sender._failure is not None)
    assert not sender._thread.is_alive()
    assert sender.run_ids == {}
    output, errors = capfd.readouterr()
    assert output == ""
    assert errors == (
        f"warning: not everything reached MLflow at http://127.0.0.1:{closed_port} (ConnectionRefusedError: "
        f"[Errno 111] Connection refused). Nothing is lost: the journals wait in {root / 'checkpoints'}; "
        "`make sync` sends them.\n"
    ) or ("ConnectionRefusedError" in errors and errors.count("\n") == 1)
    assert not [secret for secret in SECRETS if secret in errors]
    assert [
        record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")
    ] == []

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with Sender(root) as later:
        for journal in (cell, seed):
            later.follow(journal.folder)
    assert later.run_ids.keys() == {"cell-1", "seed-1"}
    assert set(everything(Store(tracking_uri(root), root))) == {"m-s", "m-s seed 1"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["locked", "full"])
def test_a_database_that_cannot_be_written_costs_one_warning_and_nothing_is_lost(
    root, store, monkeypatch, capfd, trouble
):
    """Another program holds mlflow.db for good, or the disk has no room for it."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    cell, _ = write_cell(root)
    database = sqlite3.connect(root / "mlflow.db")

    def without_patience_or_room(connection, _):
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 0")
        if trouble == "full":
            cursor.execute(f"PRAGMA max_page_count = {pages}")
        cursor.close()

    pages = database.execute("PRAGMA page_count").fetchone()[0]
    if trouble == "locked":
        database.execute("BEGIN EXCLUSIVE")
    else:
        cell.metrics(("m", float(value), value, 0) for value in range(3_000))
    event.listen(Engine, "connect", without_patience_or_room)
    try:
        with Sender(root, interval=0.01) as sender:
            sender.follow(cell.folder)
            wait_until(sender, lambda: sender._failure is not None)
    finally:
        event.remove(Engine, "connect", without_patience_or_room)
        database.close()
    errors = capfd.readouterr().err
    assert errors.count("warning: not everything reached MLflow") == 1
    assert errors.count("\n") == 1
    assert {"locked": "database is locked", "full": "database or disk is full"}[trouble] in errors

    # In another process: MLflow keeps this one's connections.
    subprocess.run([sys.executable, "-m", "lrstudy.sync"], cwd=root, check=True)
    runs = {run.info.run_name: run for run in store.client.search_runs([store.experiment_id])}
    assert runs.keys() == {"m-s", "m-s seed 1"}
    if trouble == "full":
        rows = store.client.get_metric_history(runs["m-s"].info.run_id, "m")
        assert [row.step for row in rows] == list(range(3_000))


def test_a_server_that_never_answers_does_not_hold_up_the_end(tmp_path, monkeypatch, capsys):
    cell, _ = write_cell(tmp_path)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with Sender(tmp_path, patience=0.2) as sender:
            sender.follow(cell.folder)
        assert sender._thread.is_alive()  # it waits for the answer; the stage does not
    assert "(no answer for 0.2 s). Nothing is lost" in capsys.readouterr().err
    assert not (cell.folder / "sent.json").exists()
    sender._thread.join(60)
    assert not sender._thread.is_alive()


def test_a_server_that_fails_is_asked_twice_and_not_for_minutes(tmp_path, monkeypatch, server):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    server.refuse = 100
    with pytest.raises(Exception, match="503"):
        Store(server.uri(), tmp_path)
    assert len(server.told) == 2
    server.refuse, server.told = 1, []
    assert Store(server.uri(), tmp_path).experiment_id == "7"


# --- python -m lrstudy.sync ---


def run_sync(monkeypatch, root: Path) -> int:
    monkeypatch.setenv("DVC_ROOT", str(root))
    return exit_status(sync.main)


def test_sync_sends_every_journal_parents_first_and_says_how_many(root, store, monkeypatch, capsys):
    write_cell(root)
    trial = Journal(root / "checkpoints" / "m-s" / "tuning-1" / "trial-0", "trial-0")
    trial.create("trial 0", {}, parent="tuning-1")
    tuning = Journal(root / "checkpoints" / "m-s" / "tuning-1", "tuning-1")
    tuning.create("tuning", {})
    with under_way(tuning, trial):
        run_sync(monkeypatch, root)
    where = f"sqlite:///{root / 'mlflow.db'}"
    assert capsys.readouterr() == (
        f"sync: 9 events of 4 runs sent to MLflow at {where}; 0 runs had nothing new\n",
        "",
    )
    shown = everything(store)
    assert shown["m-s seed 1"]["tags"]["mlflow.parentRunId"] == shown["m-s"]["id"]
    assert shown["trial 0"]["tags"]["mlflow.parentRunId"] == shown["tuning"]["id"]

    trial.end()
    tuning.end()
    assert run_sync(monkeypatch, root) == 0
    assert capsys.readouterr().out.startswith("sync: 2 events of 2 runs sent to MLflow at ")
    run_sync(monkeypatch, root)
    assert capsys.readouterr().out.endswith(
        "0 events of 0 runs sent to MLflow at " + where + "; 4 runs had nothing new\n"
    )


def test_sync_ends_runs_whose_stage_was_killed_and_the_stage_goes_on_with_them(
    root, store, monkeypatch, capsys
):
    killed = Journal(root / "checkpoints" / "m-s" / "2", "seed-2")
    killed.create("m-s seed 2", {"kind": "seed"})
    killed.metrics([("lr", 0.1, 1, 1000)])
    with under_way(killed):
        run_sync(monkeypatch, root)
        assert everything(store)["m-s seed 2"]["status"] == "RUNNING"
    assert run_sync(monkeypatch, root) == 0
    assert everything(store)["m-s seed 2"]["status"] == "KILLED"
    assert "1 runs of stages that are gone were ended as KILLED; `dvc repro` goes on with them" in (
        capsys.readouterr().out
    )
    with under_way(killed):
        run_sync(monkeypatch, root)
        assert everything(store)["m-s seed 2"]["status"] == "RUNNING"
        finish(killed, "finished")
    run_sync(monkeypatch, root)
    shown = everything(store)["m-s seed 2"]
    assert shown["status"] == "FINISHED"
    assert shown["metrics"]["lr"] == [(1, 1000, "0.1")]


def test_sync_says_that_there_is_nothing_to_send(tmp_path, monkeypatch, capsys):
    assert run_sync(monkeypatch, tmp_path) == 0
    assert capsys.readouterr().out == f"sync: no journals in {tmp_path / 'checkpoints'}\n"
    assert not (tmp_path / "mlflow.db").exists()


def test_sync_names_runs_deleted_in_mlflow(root, store, monkeypatch, capsys):
    write_cell(root)
    run_id = send_all(root, store)["seed-1"]
    store.client.delete_run(run_id)
    run_sync(monkeypatch, root)
    assert (
        f"sync: 1 run was deleted in MLflow and left so; restore in its UI what is to go on ({run_id})\n"
        in (capsys.readouterr().out)
    )


def test_sync_fails_with_one_message_if_mlflow_cannot_be_reached(tmp_path, closed_port, monkeypatch, capsys):
    write_cell(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{LOGIN}127.0.0.1:{closed_port}")
    assert run_sync(monkeypatch, tmp_path) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"error: sync: MLflow at http://127.0.0.1:{closed_port} did not take ")
    assert "0 events were sent, the others wait in their journals" in errors
    assert errors.count("\n") == 1
    assert not [secret for secret in SECRETS if secret in errors]


META = {
    "dataset": "imdb",
    "label": "reviews",
    "fingerprint": "0123456789abcdef",
    "num_examples": {"train": 6, "validation": 3, "test": 2},
}


def write_model(root: Path) -> tuple[Journal, Journal]:
    """The journals of a seed that logged its data and its model, and of the report that makes it champion."""
    from mlflow.models import Model

    model = Model(flavors={"python_function": {"loader_module": "none"}})
    (root / "checkpoints" / "m" / "model").mkdir(parents=True)
    model.save(root / "checkpoints" / "m" / "model" / "MLmodel")
    seed = Journal(root / "checkpoints" / "m", "seed-1")
    seed.create("m seed 1", {"kind": "seed"})
    for split in ("train", "validation", "test", "test"):  # a stage that runs again says it again
        seed.dataset(split, META)
    for _ in range(2):
        seed.model(seed.folder / "model", {"seed": "1"})
    report = Journal(root / "checkpoints" / "report", "report-1")
    report.create("report", {"kind": "report"})
    report.champion("best", "seed-1", "see run {run_id}", {"data": "reviews"})
    return seed, report


def check_model(store: Store) -> None:
    """MLflow has the seed's data, one model, and one version of it with the alias."""
    seed, report = store.find("seed-1"), store.find("report-1")
    assert sorted(
        (found.dataset.name, found.dataset.digest, found.tags[0].key, found.tags[0].value)
        for found in seed.inputs.dataset_inputs
    ) == [
        ("imdb-test", "0123456789ab", "mlflow.data.context", "testing"),
        ("imdb-train", "0123456789ab", "mlflow.data.context", "training"),
        ("imdb-validation", "0123456789ab", "mlflow.data.context", "validation"),
    ]
    (output,) = seed.outputs.model_outputs
    (model,) = store.client.search_logged_models([store.experiment_id])
    assert (model.model_id, model.name, model.status) == (output.model_id, "model", "READY")
    assert (model.source_run_id, model.tags["seed"]) == (seed.info.run_id, "1")
    described = Path(model.artifact_location.removeprefix("file://")) / "MLmodel"
    assert f"model_id: {model.model_id}" in described.read_text()
    (version,) = store.client.search_model_versions("name = 'best'")
    assert (version.run_id, version.source) == (seed.info.run_id, f"models:/{model.model_id}")
    assert version.description == f"see run {report.info.run_id}"
    assert version.tags == {"data": "reviews"}
    assert store.client.get_model_version_by_alias("best", "champion").version == version.version


def test_data_models_and_champions_reach_mlflow_once(root, store):
    write_model(root)
    for folder in sync.journal_folders(root):
        send(folder, store)
        (folder / "sent.json").unlink()  # and all over again
    send_all(root, store)
    check_model(store)


@pytest.mark.parametrize("call", range(9))
def test_a_sender_that_dies_while_it_logs_a_model_is_made_up_for(root, store, monkeypatch, call):
    write_model(root)
    names = (
        "create_logged_model", "log_model_artifacts", "log_outputs", "finalize_logged_model",
        "create_registered_model", "create_model_version", "set_model_version_tag", "update_model_version",
        "set_registered_model_alias",
    )  # fmt: skip
    die_in_call(call, store, monkeypatch, *names)
    with pytest.raises(Killed):
        send_all(root, store)
    again = Store(tracking_uri(root), root)
    send_all(root, again)
    check_model(again)


def test_a_champion_without_a_model_here_is_named_and_stops_nothing(root, store, capsys):
    report = Journal(root / "checkpoints" / "report", "report-1")
    report.create("report", {"kind": "report"})
    report.champion("best", "seed-of-another-machine", "", {})
    report.end()
    send_all(root, store)
    assert "seed-of-another-machine; best gets no new champion" in capsys.readouterr().err
    assert store.find("report-1").info.status == "FINISHED"
    assert store.client.search_registered_models() == []
