"""Trainings on a Ray cluster: the same numbers as here, also when a machine dies in the middle of one."""

import contextlib
import json
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import yaml

from composed import composed_params
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger import Ledger
from lrstudy.ledger.record import OF_THE_CLOCK
from lrstudy.process import parallel
from lrstudy.process.parallel import num_workers, run_all
from lrstudy.stages import trainings
from lrstudy.study import cell_jobs, runs
from tiny_data import write_dataset

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed: pip install .[ray]")

TASK = {"num_cpus": 1.0, "num_gpus": 0.0, "memory_gib": 0.0, "max_retries": 2}


# ----------------------------------------------------------------------------------------- without a cluster


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.delenv("LRSTUDY_WORKERS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not ray.is_initialized()


def test_no_address_is_one_clear_error(alone):
    with pytest.raises(StudyError, match=r"RAY_ADDRESS names no cluster; `ray start --head` prints"):
        list(run_all(print, [{}], 1, "cpu", TASK))


def test_ray_that_is_not_installed_is_one_clear_error(alone, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StudyError, match=r"ray is not installed; `pip install \.\[ray\]` on every machine"):
        num_workers(1, "cpu", TASK)


def test_a_cluster_that_cannot_be_joined_is_one_clear_error(alone, monkeypatch):
    def refuse(address, **options):
        raise ConnectionError("Could not connect to 127.0.0.1:6379\nand a page more")

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(
        StudyError, match=r"RAY_ADDRESS: no cluster can be joined at '127\.0\.0\.1:6379'"
    ) as error:
        num_workers(1, "cpu", TASK)
    assert "\n" not in str(error.value)


class Machines:
    """What of Ray counts room: the machines that it lists."""

    def __init__(self, *machines: dict[str, float], dead: int = 0):
        self.listed = [{"Alive": True, "Resources": machine} for machine in machines]
        self.listed += [{"Alive": False, "Resources": machines[0]}] * dead

    def nodes(self) -> list[dict]:
        return self.listed


GIB = 2.0**30
BIG = {"CPU": 16.0, "GPU": 2.0, "memory": 64 * GIB}
SMALL = {"CPU": 4.0, "memory": 5 * GIB}


@pytest.mark.parametrize(
    ("changes", "threads", "room"),
    [
        ({}, 1, 20),
        ({"num_cpus": None}, 2, 8 + 2),
        ({"num_cpus": 0.1}, 1, 160 + 40),
        ({"num_cpus": 8.0}, 1, 2),
        ({"memory_gib": 1.5}, 1, 16 + 3),
        ({"num_gpus": 1.0}, 1, 2),
        ({"num_gpus": 0.25}, 1, 8),
        ({"num_gpus": 0.1, "num_cpus": 2.0}, 1, 8),
        ({"num_gpus": 2.0}, 1, 1),
    ],
)
def test_tasks_at_a_time_are_what_the_machines_have_room_for(alone, monkeypatch, changes, threads, room):
    """Whole tasks a machine, by what runs out first; a machine that has gone has none."""
    monkeypatch.setattr(parallel, "_connect", lambda: Machines(BIG, SMALL, dead=1))
    assert num_workers(threads, "cpu", TASK | changes) == room


@pytest.mark.parametrize("changes", [{"num_cpus": 17.0}, {"num_gpus": 3.0}, {"memory_gib": 65.0}])
def test_a_task_that_fits_no_machine_says_what_there_is(alone, monkeypatch, changes):
    monkeypatch.setattr(parallel, "_connect", lambda: Machines(BIG, SMALL))
    with pytest.raises(
        StudyError, match=r"no machine of the cluster has that; found 16 CPUs, 2 GPUs, 64\.0 GiB; 4 "
    ):
        num_workers(1, "cpu", TASK | changes)


@pytest.fixture
def here(tmp_path):
    """What the stage's machine is like, as the others are told."""
    (tmp_path / "marker").touch()
    return {"folder": str(tmp_path), "marker": str(tmp_path / "marker"), "torch": "1"}


def test_a_machine_without_the_shared_folder_is_named(here):
    problem, result = parallel._make_worker()(b"not even read", here | {"marker": "/elsewhere/marker"})
    assert f"does not see {here['folder']} of the machine that runs the stage; mount it there" in problem
    assert result is None


@pytest.mark.parametrize("package", ["torch", "no-such-package"])
def test_a_machine_with_another_version_is_named(here, package):
    problem, result = parallel._make_worker()(b"not even read", here | {package: "0.0"})
    assert f"has {package} " in problem
    assert "the one that runs the stage 0.0; install requirements.lock on both" in problem
    assert result is None


# --------------------------------------------------------------------------------------------- with a cluster

STUDY = [
    "model=lstm", "schedule=[static,step]", "num_epochs.imdb=4", "train.seeds=[1,2]", "tune.num_trials=2",
    "tune.seeds=[101]", "tune.confirm_seeds=[]", "tune.searches=1",
]  # fmt: skip


def add_machine(cluster, session: Path, **options) -> None:
    """Add a small machine to a cluster, with as few of Ray's own processes as it does with.

    Ray gives the agent of a machine 15 seconds to say its port, too few where all cores are busy
    (ray-project/ray#65983). No test needs that agent: what it says when it serves nothing is said for it.
    """
    identity = ray.NodeID.from_random().hex()
    (session / f"dashboard_agent_listen_port_{identity}").write_text("-1")
    with contextlib.ExitStack() as open_ports:
        ports = [open_ports.enter_context(socket.create_server(("", 0))).getsockname()[1] for _ in range(3)]
    names = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port")
    cluster.add_node(
        object_store_memory=80 * 2**20,
        include_log_monitor=False,
        env_vars={"RAY_OVERRIDE_NODE_ID_FOR_TESTING": identity},
        **dict(zip(names, ports, strict=True)),
        **options,
    )


@pytest.fixture(scope="module")
def cluster():
    """A head that runs no tasks and two machines with a processor each, with the study's tests in reach."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as temporary:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        reach = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(reach))
        patch.delenv("LRSTUDY_WORKERS", raising=False)
        # Ray notes its newest cluster there: not in the folder of one that this machine may really run.
        patch.setenv("RAY_TMPDIR", temporary)
        (Path(temporary) / "ray").mkdir()
        made, folder = Cluster(), Path(temporary) / "session"  # a short path: sockets lie in it
        folder.mkdir()
        try:
            head = {
                "include_dashboard": False,
                "no_monitor": True,
                "temp_dir": temporary,
                "session_name": folder.name,
            }
            add_machine(made, folder, num_cpus=0, **head)
            for _ in range(2):
                add_machine(made, folder, num_cpus=1)
            patch.setenv("RAY_ADDRESS", made.address)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


def make_study(folder: Path, *overrides: str) -> Path:
    """Two cells with their data, in a folder of its own."""
    params = composed_params(*STUDY, *overrides)
    if overrides:
        params["parallel"]["memory_gib"] = 0.0
    params["model"]["lstm"] |= {"embedding_size": 8, "hidden_size": 8}
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    data = write_dataset("text", folder / "data/processed/imdb")
    meta = json.loads((data / "meta.json").read_text())
    write_json(data / "meta.json", meta | {"dataset": "imdb", "label": "tiny reviews", "official": False})
    return folder


def run_trainings(folder: Path, monkeypatch) -> dict[str, dict]:
    """Run the stage in ``folder``; returns its ledger by identity, without what clocks and machines decide."""
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_ROOT", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(sys, "argv", ["trainings"])
        trainings.main()
    found = {}
    for record in Ledger(folder / "ledger").records():
        content = record.model_dump(exclude={"origin", "shared", "format"})
        for name in OF_THE_CLOCK:
            del content["history"][name]
        found[record.identity] = content
    return found


def train_on_a_machine_that_dies(task: dict) -> str:
    """Train; but static's seed 1 stops for ever after its second epoch, where it first runs, and tells the
    pipe beside the study where that is.

    In ``epochs`` of the training's folder stand the epochs that were trained, by whomever.
    """
    folder, line = Path(task["folder"]), runs.progress_line
    folder.mkdir(parents=True, exist_ok=True)
    chosen = task["settings"]["seed"] == 1 and task["labels"]["schedule"] == "static"
    doomed = chosen and not (folder / "epochs").exists()

    def progress_line(record: dict, num_epochs: int) -> str:
        with (folder / "epochs").open("a") as file:
            file.write(f"{record['epoch']} ")
        if doomed and record["epoch"] == 2:
            (Path.cwd().parent / "pipe").write_text(ray.get_runtime_context().get_node_id())
            threading.Event().wait()
        return line(record, num_epochs)

    runs.progress_line = progress_line
    try:
        return runs.train_run(task)
    finally:
        runs.progress_line = line


@contextlib.contextmanager
def kill_the_machine_that_says(pipe: Path, cluster):
    """kill -9 the whole machine whose id comes through the pipe."""
    os.mkfifo(pipe)
    killed = []

    def wait_and_kill():
        identity = pipe.read_text()
        for machine in [m for m in cluster.worker_nodes if m.node_id == identity]:
            cluster.remove_node(machine, allow_graceful=False)
            killed.append(identity)

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    yield killed
    thread.join(10)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_machine_that_dies_in_mid_training_changes_no_number(cluster, tmp_path, monkeypatch):
    """All cells on two machines at once, one of which dies: the ledger is that of one process here."""
    monkeypatch.setenv("LRSTUDY_WORKERS", "1")
    expected = run_trainings(make_study(tmp_path / "here"), monkeypatch)
    assert len(expected) == 2 * (2 + 2)
    assert all(record["test"] for record in expected.values() if record["labels"]["role"] == "final")

    monkeypatch.delenv("LRSTUDY_WORKERS")
    monkeypatch.setattr(cell_jobs, "train_run", train_on_a_machine_that_dies)
    folder = make_study(tmp_path / "there", "parallel=ray")
    with kill_the_machine_that_says(tmp_path / "pipe", cluster) as killed:
        found = run_trainings(folder, monkeypatch)
    assert len(killed) == 1
    assert found == expected
    # The one that was killed went on where its checkpoint was; no other was trained twice.
    trained = [path.read_text().split() for path in folder.glob("checkpoints/lstm-*/*/epochs")]
    assert all(epochs == sorted(set(epochs)) for epochs in trained)
    assert ["1", "2", "3", "4"] in trained


def fail(task: dict) -> None:
    raise {"study": StudyError, "code": ZeroDivisionError}[task["kind"]](f"wrong in {Path.cwd().name}")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "error"), [("study", StudyError), ("code", ZeroDivisionError)])
def test_a_task_that_fails_there_tells_the_caller_as_it_would_here(
    cluster, tmp_path, monkeypatch, kind, error
):
    """The error itself and its message alone; the task ran in the caller's folder, and nothing is left there."""
    (tmp_path / "study").mkdir()
    monkeypatch.chdir(tmp_path / "study")
    with pytest.raises(error) as raised:
        list(run_all(fail, [{"kind": kind}], 1, "cpu", TASK))
    assert str(raised.value) == "wrong in study"
    assert list((tmp_path / "study").iterdir()) == []
