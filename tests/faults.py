"""Kill stages that train at random moments, start them again, and compare with a run left alone.

    python tests/faults.py [--kills 20] [--seed 0] [--only train tune trainings outage] [-o results.json]

A moment is one of the stage's file operations (open, write of a part of a checkpoint, rename, remove, mkdir), of
whichever of its processes and threads: the stage runs once while they are counted, and is then killed with -9,
workers and all, at moments drawn from equal parts of that span, a quarter of them while a checkpoint or weights
are half written. It is started again, and its history, weights, predictions, trials, records in the ledger and
MLflow rows are compared with those of the run that was left alone. ``trainings`` has two cells whose trainings
begin alike; after it the stages of one cell collect what it left.

``outage`` trains against a real ``mlflow server`` that is stopped after the second epoch and started again after
the fourth, and counts the rows that are there at the end.

Stages are forked from this process, which has imported what they need: twenty restarts would otherwise mostly
import. Linux only.
"""

import argparse
import contextlib
import importlib
import json
import mmap
import os
import pkgutil
import random
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from composed import composed_params
from tiny_data import MODELS, write_dataset

MODEL, SCHEDULE = "lstm", "step"
SCHEDULES = ["static", SCHEDULE]  # which begin alike
EPOCHS, SEEDS, TRIALS = 6, [1, 2], 2  # three trials would be drawn, which takes longer than the search
WRITING = "write "  # a checkpoint, or weights
_PARTS = 4  # in which a checkpoint is written, so that a kill can come in the midst of it


# ------------------------------------------------------------------------------------------------ workspace


def make_template(folder: Path) -> Path:
    """A workspace with a tiny processed data set, params.yaml, tuned values and databases without rows."""
    write_dataset("text", folder / "data/processed/imdb")
    params = composed_params(
        "data=sample", "preset=smoke", f"model={MODEL}", f"schedule={SCHEDULES}",
        f"num_epochs.imdb={EPOCHS}", "batch_size.imdb=16", f"train.seeds={SEEDS}", f"tune.num_trials={TRIALS}",
        "train.device=cpu",
    )  # fmt: skip
    params["model"][MODEL] |= {k: v for k, v in MODELS[MODEL].items() if k != "architecture"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    tuned = folder / f"artifacts/tuned/{MODEL}/{SCHEDULE}/best.json"
    tuned.parent.mkdir(parents=True)
    values = {"base_lr": 0.01, "gamma": 0.1, "first_drop": 0.5}
    tuned.write_text(
        json.dumps({"model": MODEL, "schedule": SCHEDULE, "source": "defaults", "values": values})
    )

    def make_databases() -> None:
        from lrstudy.search.tuning import _open_storage
        from lrstudy.tracking.store import Store

        Store(f"sqlite:///{folder / 'mlflow.db'}", folder)
        _open_storage(folder)

    assert Stage(folder, make_databases).run() == 0
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("DELETE FROM experiment_tags")
        database.execute("DELETE FROM experiments WHERE name = 'lrstudy'")
    return folder


class Stage:
    """A stage as a process in ``folder``, with a group of its own, forked from this one."""

    def __init__(self, folder: Path, main: Callable[[], None], **environment: str):
        self.folder, self.main, self.environment = folder, main, environment

    def run(self, kill_at: int | None = None, moments: "Moments | None" = None, named: str = "") -> int:
        """Run it to its end, or kill it with all that it started at the moment ``kill_at``; its exit status.

        Moments are counted whose name begins with ``named``.
        """
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setsid()
                os.chdir(self.folder)
                with (self.folder / "log").open("a") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
                for name in [n for n in os.environ if n.startswith(("MLFLOW_", "LRSTUDY_", "DVC_"))]:
                    del os.environ[name]
                os.environ.update({"LRSTUDY_WORKERS": "2", **self.environment})
                if moments is not None:
                    moments.watch(kill_at, named)
                from lrstudy.process.exits import exit_status

                status = exit_status(self.main)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train_stage() -> None:
    """``python -m lrstudy.stages.train``."""
    from lrstudy.stages import train

    sys.argv = ["train", MODEL, SCHEDULE]
    _with_forked_workers(train.main)


def tune_stage() -> None:
    """``python -m lrstudy.stages.tune``."""
    from lrstudy.stages import tune

    sys.argv = ["tune", MODEL, SCHEDULE]
    _with_forked_workers(tune.main)


def trainings_stage() -> None:
    """``python -m lrstudy.stages.trainings``."""
    from lrstudy.stages import trainings

    sys.argv = ["trainings"]
    _with_forked_workers(trainings.main)


def cell_stages() -> None:
    """The stages of the cell, one after the other."""
    from lrstudy.stages import evaluate

    tune_stage()
    train_stage()
    sys.argv = ["evaluate", MODEL, SCHEDULE]
    _with_forked_workers(evaluate.main)


def _with_forked_workers(main: Callable[[], None]) -> None:
    """As a warm process runs a stage; workers that start afresh would not be watched."""
    from lrstudy.process.parallel import workers_ready
    from lrstudy.recipe.config import load_params

    with workers_ready(*load_params().workers):
        main()


class Moments:
    """Counts the file operations of a stage's processes, and kills them all at one of them."""

    def __init__(self, workspace: Path):
        self.workspace = f"{workspace}{os.sep}"
        self.counter = mmap.mmap(-1, 8)  # shared with what is forked
        self.names = workspace / "moments"

    @property
    def count(self) -> int:
        return struct.unpack("q", self.counter[:8])[0]

    def watch(self, kill_at: int | None, named: str) -> None:
        """From now on, in this process and those that it forks."""
        from lrstudy.study import runs

        self.counter[:8] = struct.pack("q", 0)
        names = os.open(self.names, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)

        def moment(name: str) -> None:
            if not name.startswith(named):
                return
            number = self.count + 1
            self.counter[:8] = struct.pack("q", number)
            os.write(names, f"{name}\n".encode())
            if number == kill_at:
                os.killpg(0, signal.SIGKILL)

        def watched(event: str, arguments: tuple) -> None:
            if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate"):
                return
            path = os.path.abspath(str(arguments[1] if event == "os.rename" else arguments[0]))
            if path.startswith(self.workspace) and not path.endswith("/moments"):
                name = re.sub(r"^[.](.*)[.][0-9]+[.]part$", "part of \\1", Path(path).name)
                moment(f"{event} {name}")

        sys.addaudithook(watched)
        write = runs.write_atomically

        def in_parts(path: Path, content: bytes) -> None:
            size = len(content) // _PARTS + 1

            def parts(file) -> None:
                for start in range(0, len(content), size):
                    moment(f"write {Path(path).name}")
                    file.write(content[start : start + size])
                    file.flush()

            write(path, parts)

        runs.write_atomically = in_parts


# --------------------------------------------------------------------------------------------------- results


def found_after_train(folder: Path) -> dict:
    """What the train stage left, without what a clock decides."""
    output = folder / f"artifacts/train/{MODEL}/{SCHEDULE}"
    training = json.loads((output / "training.json").read_text())
    for seed in training["seeds"].values():
        del seed["compute_seconds"], seed["run_id"], seed["origin"]["ended"]
    del training["cell"]["run_id"]
    weights = {str(p.relative_to(output)): p.read_bytes() for p in sorted(output.rglob("*.safetensors"))}
    return {
        "history": (output / "history.csv").read_text(),
        "weights": weights,
        "predictions": {name: predictions(folder, output / name) for name in weights},
        "training.json": training,
        "ledger": recorded(folder),
    } | mlflow_rows(folder / "mlflow.db")


def predictions(folder: Path, weights: Path) -> bytes:
    """The logits of the test split."""
    import torch
    from safetensors.torch import load_file

    from lrstudy.data import read_meta, read_split
    from lrstudy.recipe.models import make_model
    from lrstudy.training.batches import make_split
    from lrstudy.training.evaluation import predict

    data, cpu = folder / "data/processed/imdb", torch.device("cpu")
    meta = read_meta(data)
    model = make_model(MODELS[MODEL], meta)
    model.load_state_dict(load_file(weights))
    return predict(model, make_split(read_split(data, "test"), meta, cpu), 256, cpu, torch.float32).tobytes()


def found_after_tune(folder: Path) -> dict:
    """What the tune stage left, without what a clock decides."""
    best = json.loads((folder / f"artifacts/tuned/{MODEL}/{SCHEDULE}/best.json").read_text())
    with contextlib.closing(sqlite3.connect(folder / "optuna.db")) as database:
        trials = database.execute(
            "SELECT a.value_json, v.value, t.state FROM trials t "
            "JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'number' "
            "LEFT JOIN trial_values v ON v.trial_id = t.trial_id ORDER BY 1, 2"
        ).fetchall()
    return {
        "best.json": without_clock(best),
        "optuna trials": trials,
        "ledger": recorded(folder),
    } | mlflow_rows(folder / "mlflow.db")


def found_after_trainings(folder: Path) -> dict:
    """What the stage trainings left, and what the stages of the cell, which begin now, make of it."""
    trainings = json.loads((folder / "artifacts/trainings.json").read_text())
    records, kept = recorded(folder), folder / "checkpoints"
    assert Stage(folder, cell_stages).run() == 0, (folder / "log").read_text()
    evaluation = json.loads((folder / f"artifacts/evaluate/{MODEL}/{SCHEDULE}/metrics.json").read_text())
    return (
        found_after_tune(folder)
        | found_after_train(folder)
        | {
            "trainings.json": trainings,
            "ledger": records,
            "nothing is added to the ledger": recorded(folder) == records,
            "nothing is kept for others": not [*kept.rglob("after-*.pt"), *kept.rglob(".after-*.part")],
            "scores": evaluation["scores"],
        }
    )


def recorded(folder: Path) -> list[dict]:
    """What the ledger has, file by file: each training once, none that cannot be read.

    Of two trainings that begin alike the clock decides which is done first and which has epochs from it.
    """
    from lrstudy.ledger import Ledger

    ledger = Ledger(folder / "ledger")
    found, records = [], [ledger.read(path) for path in ledger.paths()]
    for one in records:
        if any(other != one and other.says_all_of(one) for other in records):
            continue  # killed when the fuller one was there, and before this one was removed
        record = one.model_dump()
        del record["origin"]["ended"], record["shared"], record["format"]
        for name in ("seconds", "compute_seconds", "time"):
            del record["history"][name]
        found.append(record)
    return found + [{"set aside": path.name} for path in (folder / "ledger").glob("set-aside/*")]


def without_clock(found: object) -> object:
    if isinstance(found, dict):
        return {k: without_clock(v) for k, v in found.items() if k not in ("seconds", "ended")}
    return [without_clock(value) for value in found] if isinstance(found, list) else found


def mlflow_rows(path: Path) -> dict:
    """What MLflow's database has, by the runs' keys: each row once or as often as it is there."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        runs = "SELECT r.run_uuid, t.value, r.status, r.name FROM runs r JOIN tags t USING (run_uuid) "
        rows = database.execute(f"{runs} WHERE t.key = 'lrstudy.key'").fetchall()
        key_of = {run: key for run, key, _, _ in rows}
        metrics = database.execute("SELECT run_uuid, key, step, value, is_nan FROM metrics").fetchall()
        params = database.execute("SELECT run_uuid, key, value FROM params").fetchall()
        tags = database.execute("SELECT run_uuid, key, value FROM tags").fetchall()
    clock = ("seconds", "compute_seconds")
    named = {"mlflow.parentRunId": lambda value: key_of.get(value, value)}
    return {
        "MLflow runs": sorted((key, status, name) for _, key, status, name in rows),
        "MLflow metrics": sorted(
            (key_of[r], k, s, None if k in clock else v, n) for r, k, s, v, n in metrics
        ),
        "MLflow parameters": sorted((key_of[run], *rest) for run, *rest in params),
        "MLflow tags": sorted((key_of[r], k, named.get(k, str)(v)) for r, k, v in tags),
    }


def duplicates(path: Path) -> int:
    """Metric rows that stand for the same run, name and step as another one, and runs of the same key."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        again = "SELECT COUNT(*) - COUNT(DISTINCT {}) FROM {}"
        rows = database.execute(again.format("run_uuid || '|' || key || '|' || step", "metrics")).fetchone()
        runs = database.execute(again.format("value", "tags WHERE key = 'lrstudy.key'")).fetchone()
    return rows[0] + runs[0]


# --------------------------------------------------------------------------------------------------- faults


STAGES = {
    "train": (train_stage, found_after_train),
    "tune": (tune_stage, found_after_tune),
    "trainings": (trainings_stage, found_after_trainings),
}


def kill_and_compare(name: str, kills: int, rng: random.Random, template: Path, scratch: Path) -> dict:
    """Kill the stage ``name`` at ``kills`` moments, each in a workspace of its own; how many results differ."""
    main, read = STAGES[name]

    def workspace(number: int) -> Path:
        return Path(shutil.copytree(template, scratch / f"{name}-{number}"))

    alone = workspace(0)
    moments = Moments(alone)
    assert Stage(alone, main).run(moments=moments) == 0, (alone / "log").read_text()
    expected, total = read(alone), moments.count
    assert all(expected[part] for part in expected), (alone / "log").read_text()
    assert WRITING in moments.names.read_text(), "the workers are not watched"
    assert {status for _, status, _ in expected["MLflow runs"]} == {"FINISHED"}
    total_writing = moments.names.read_text().count(WRITING)
    killed_at, different, restarts = Counter(), [], 0
    for number in range(1, kills + 1):
        folder = workspace(number)
        moments = Moments(folder)
        # A moment of each part of the span, and every fourth time of those in which a checkpoint is half written;
        # senders and workers never interleave in the same way twice.
        named, span = (WRITING, total_writing) if number % 4 == 0 else ("", total)
        moment = rng.randint(1 + (number - 1) * span // kills, max(1, number * span // kills))
        status = Stage(folder, main).run(moment, moments, named)
        while status == 0 and moment > 1:  # it was over before
            shutil.rmtree(folder)
            folder, moment = workspace(number), moment - max(1, span // kills)
            moments = Moments(folder)
            status = Stage(folder, main).run(moment, moments, named)
        assert status == -signal.SIGKILL, (folder / "log").read_text()
        killed_at[moments.names.read_text().splitlines()[moment - 1]] += 1
        ended = Stage(folder, main).run()
        restarts += 1
        found = read(folder) if ended == 0 else {"exit status": ended}
        for part in sorted(expected.keys() | found.keys()):
            if found.get(part) != expected.get(part):
                different.append({"kill": number, "moment": moment, "part": part})
        if not any(entry["kill"] == number for entry in different):
            shutil.rmtree(folder)
    return {
        "moments": total,
        "kills": kills,
        "in_half_written_checkpoints": sum(n for at, n in killed_at.items() if at.startswith(WRITING)),
        "killed_at": dict(sorted(killed_at.items())),
        "restarts": restarts,
        "differences": len(different),
        "different": different,
    }


# --------------------------------------------------------------------------------------------------- outage


class Server:
    """A real ``mlflow server`` on a database of ``folder``."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
            "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", "--workers", "1",
            "--default-artifact-root", str(self.folder / "mlartifacts"),
        ]  # fmt: skip
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        while True:
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "server.log").read_text())
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return
            time.sleep(0.2)

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def gated(say: Callable[[str, str], None], epochs: dict[int, tuple[int, int]]) -> Callable[[str, str], None]:
    """``runs._say`` that, after the first seed's epochs in ``epochs``, tells a pipe and waits for another."""

    def said(label: str, text: str) -> None:
        say(label, text)
        for epoch, (tell, wait) in epochs.items():
            if label.endswith(f"seed {SEEDS[0]}") and text.startswith(f"epoch {epoch:>2}/"):
                os.write(tell, b"x")
                os.read(wait, 1)

    return said


@contextlib.contextmanager
def pipes() -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Two pipes: from the stage, to the stage."""
    ends = (os.pipe(), os.pipe())
    try:
        yield ends
    finally:
        for end in (*ends[0], *ends[1]):
            os.close(end)


def outage(template: Path, scratch: Path) -> dict:
    """Train while the server goes and comes back; rows that were journaled, rows that are there, duplicates."""
    folder = Path(shutil.copytree(template, scratch / "outage"))
    server = Server(folder)
    with pipes() as (there, back):

        def stage() -> None:
            from lrstudy.study import runs

            runs._say = gated(runs._say, dict.fromkeys((2, 4), (there[1], back[0])))
            train_stage()

        def come_and_go() -> None:
            os.read(there[0], 1)  # two epochs are over
            server.stop()
            os.write(back[1], b"x")
            os.read(there[0], 1)  # four epochs are over: training went on without
            server.start()
            os.write(back[1], b"x")

        server.start()
        other = threading.Thread(target=come_and_go, daemon=True)
        other.start()
        try:
            began = time.monotonic()
            status = Stage(folder, stage, MLFLOW_TRACKING_URI=server.uri, LRSTUDY_WORKERS="1").run()
            seconds = time.monotonic() - began
            said = [line for line in (folder / "log").read_text().splitlines() if "warning" in line.lower()]

            def sync_stage() -> None:
                from lrstudy import sync

                sync.main()

            synced = Stage(folder, sync_stage, MLFLOW_TRACKING_URI=server.uri).run()
        finally:
            server.stop()
    expected, found = journaled_rows(folder), mlflow_rows(folder / "mlflow.db")
    metrics = Counter((key, name, step) for key, name, step, _, _ in found["MLflow metrics"])
    return {
        "exit_status": [status, synced],
        "seconds": round(seconds, 1),
        "warnings": said,
        "rows_expected": len(expected),
        "rows_found": sum(metrics.values()),
        "missing": len(expected - metrics.keys()),
        "duplicates": duplicates(folder / "mlflow.db"),
        "runs": dict(Counter(status for _, status, _ in found["MLflow runs"])),
    }


def journaled_rows(folder: Path) -> set[tuple[str, str, int]]:
    """Every value that was journaled, by the run's key, its name and its step."""
    from lrstudy.tracking.journal import Journal

    rows = set()
    for path in (folder / "checkpoints").rglob("journal.jsonl"):
        events = Journal(path.parent, "").events()
        key = events[0]["key"]
        rows |= {(key, n, s) for e in events if e["event"] == "metrics" for n, _, s, _ in e["values"]}
    return rows


# ------------------------------------------------------------------------------------------------------ main


def preload() -> None:
    """Import what stages need, with one thread: threads do not survive a fork.

    The study's own modules too: all stages run the same code, even if somebody edits it meanwhile.
    """
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracking  # noqa: F401
    import optuna  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch
    import torch._dynamo

    import lrstudy

    for module in pkgutil.walk_packages(lrstudy.__path__, "lrstudy."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    torch.set_num_threads(1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/faults.py", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each stage (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--only", nargs="+", choices=(*STAGES, "outage"), help="some of these")
    parser.add_argument("-o", "--output", type=Path, help="write the results there as JSON")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    preload()
    rng = random.Random(options.seed)
    results: dict[str, object] = {"seed": options.seed}
    scratch = Path(tempfile.mkdtemp(prefix="lrstudy-faults-"))
    template = make_template(scratch / "template")
    for name in STAGES:
        if not options.only or name in options.only:
            results[name] = kill_and_compare(name, options.kills, rng, template, scratch)
            shown = {k: v for k, v in results[name].items() if k not in ("killed_at", "different")}
            print(f"{name}: {json.dumps(shown)}", flush=True)
    if not options.only or "outage" in options.only:
        results["outage"] = outage(template, scratch)
        print(f"outage: {json.dumps(results['outage'])}", flush=True)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    away = results.get("outage", {"missing": 0, "duplicates": 0})
    wrong = sum(results[name]["differences"] for name in STAGES if name in results)
    wrong += away["missing"] + away["duplicates"]
    if wrong:
        print(f"{wrong} differences; the workspaces are kept in {scratch}")
        return 1
    shutil.rmtree(scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
