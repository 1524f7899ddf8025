"""How busy the engine keeps many places, what planning and resuming cost: `python benchmarks/engine.py`.

Places: 48 cells with ten jobs of a second each (four trials, then six seeds) on 64 places of a Ray cluster of
small machines, all of it here: the jobs sleep. Their share of the places over time is what the engine and
Ray leave. Planning: cells with a search and ten seeds each, from an empty ledger and from one that has all.
Resuming: the stage `trainings` of such a study of which all is done, a process of its own.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from lrstudy.process.parallel import Pool
from lrstudy.study.engine import Costs, Job, Jobs, Progress, work

CELLS, TRIALS, SEEDS = 48, 4, 6


def sleep(task: dict) -> float:
    """A training of a second."""
    time.sleep(1.0)
    return time.time()


def cell(name: str) -> Jobs:
    """A cell whose seeds wait for its trials."""
    done: set[str] = set()
    for phase, count, ahead in (("trial", TRIALS, 2.0), ("seed", SEEDS, 1.0)):
        wanted = [f"{name} {phase} {number}" for number in range(count)]
        while missing := [key for key in wanted if key not in done]:
            yield [
                Job(key, sleep, {}, lambda _, key=key: done.add(key), key, "sleep", 1.0, ahead)
                for key in missing
            ]


def places(count: int) -> dict:
    """The engine's share of ``count`` places over time."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(count // 8):
        machines.add_node(num_cpus=8, object_store_memory=80 * 2**20)
    os.environ["RAY_ADDRESS"] = machines.address
    cluster = {"num_cpus": 1, "num_gpus": 0.0, "memory_gib": 0.0, "max_retries": 1}
    ended: list[float] = []

    def show(progress: Progress, job: Job | None) -> None:
        if job is not None:
            ended.append(time.monotonic())

    with contextlib.closing(machines_down(machines)), Pool(1, "cpu", cluster) as pool:
        for _ in range(2):  # Ray starts its processes for the first tasks
            for number in range(pool.room):
                pool.submit(sleep, {"job": str(number)})
            while pool.running:
                pool.next()
        began = time.monotonic()
        work({f"cell{n}": cell(f"cell{n}") for n in range(CELLS)}, pool, Costs(), show)
    took = ended[-1] - began
    jobs = CELLS * (TRIALS + SEEDS)
    tail = sorted(ended)[-(jobs % count or count)] - began  # when the last round begins to end
    busy_before = sum(min(1.0, max(0.0, tail - (end - began - 1.0))) for end in ended)
    return {
        "places": count,
        "jobs": jobs,
        "seconds": round(took, 2),
        "busy": round(jobs / (count * took), 3),
        "busy until the tail": round(busy_before / (count * tail), 3),
        "by second": [
            round(
                sum(max(0.0, min(end - began, s + 1) - max(end - began - 1, s)) for end in ended) / count, 3
            )
            for s in range(int(took) + 1)
        ],
    }


class machines_down:
    """Ends a cluster."""

    def __init__(self, machines):
        self.machines = machines

    def close(self) -> None:
        import ray

        ray.shutdown()
        self.machines.shutdown()


def study_of(cells: int) -> dict:
    """params.yaml of a study of about so many cells."""
    from composed import composed_params

    content = composed_params(
        "model=lstm", "schedule=[static,step,cosine]", "train.device=cpu", "train.precision=float32"
    )
    rows = max(1, cells // 3)
    base = content["model"].pop("lstm")
    # Rows that differ in a number of no consequence are other cells with other trainings.
    content["model"] = {f"lstm_{n}": base | {"dropout": n / (rows + 1) / 2} for n in range(rows)}
    content["cells"] = {
        f"{model}-{schedule}": {
            "model": model, "schedule": schedule, "dataset": "imdb", "tuned": f"{model}/{schedule}",
            "num_epochs": "num_epochs", "batch_size": "batch_size",
        }
        for model in content["model"] for schedule in ("static", "step", "cosine")
    }  # fmt: skip
    return content


def resuming(cells: int) -> dict:
    """Processor seconds of the stage on a study that it has seen whole, and of the time before, when it
    had not.

    MLflow is not told of it: 28 runs a cell would be most of the first time.
    """
    from filled_ledger import DATA, fill
    from lrstudy.files import write_json
    from lrstudy.recipe.config import check_params
    from lrstudy.study.workspace import data_folder
    from lrstudy.tracking.store import server_name

    server = "http://127.0.0.1:9"
    source = Path(__file__).parents[1] / "src"
    environment = os.environ | {"MLFLOW_TRACKING_URI": server, "LRSTUDY_WARM": "0", "PYTHONPATH": str(source)}
    content = study_of(cells)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("params.yaml").write_text(json.dumps(content))
        write_json(
            data_folder("imdb") / "meta.json",
            DATA["imdb"] | {"kind": "text", "num_classes": 2, "vocab_size": 99, "max_length": 9},
        )
        fill(check_params(content), Path(folder))
        found = {"cells": len(content["cells"])}
        for name in ("seen for the first time", "resumed"):
            for journal in Path("checkpoints").rglob("journal.jsonl"):
                events = journal.read_bytes().count(b"\n")
                sent = {"uri": server_name(server), "run_id": "0" * 32, "events": events}
                write_json(
                    journal.with_name("sent.json"), sent | {"events": journal.read_bytes().count(b"\n")}
                )
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                [sys.executable, "-m", "lrstudy.stages.trainings"], env=environment, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(done.stderr)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found[name] = round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2)
        return found


def planning(cells: int) -> dict:
    """Seconds to plan so many cells from an empty ledger, and again when all of their trainings are in it."""
    from filled_ledger import AUTO, DATA, fill
    from lrstudy.ledger import Ledger
    from lrstudy.recipe.cells import make_cell
    from lrstudy.recipe.config import check_params
    from lrstudy.study.plan import plan

    content = study_of(cells)
    params = check_params(content)
    made = [make_cell(params, one.model, one.schedule) for one in params.cells.values()]
    with tempfile.TemporaryDirectory() as folder:
        root, found = Path(folder), {}
        for name in ("from nothing", "again"):
            ledger = Ledger(root / "ledger")
            began = time.perf_counter()
            plans = [plan(one, params, DATA["imdb"], root, ledger.find, AUTO) for one in made]
            found[name] = round(time.perf_counter() - began, 2)
            if name == "from nothing":
                fill(params, root)
        assert not any(one.missing for one in plans)
        return {"cells": len(made), "trainings": sum(len(one.needs) for one in plans), **found}


def sharing(folder: Path) -> list[dict]:
    """By network and length: epochs of the ledger's trainings, those that differ, and their core-hours.

    Two epochs are one where the trainings agree in all settings but schedule and controller, and in every
    rate to the end of the epoch. The seconds of an epoch are the median of its network's.
    """
    from collections import defaultdict
    from statistics import median

    from lrstudy.ledger import Ledger
    from lrstudy.training.measures import num_steps
    from lrstudy.training.prefix import multipliers, trunk_key

    groups: dict[tuple, list] = defaultdict(list)
    for record in Ledger(folder).records():
        groups[(record.labels.model, record.settings["num_epochs"])].append(record)
    found = []
    for (model, num_epochs), records in sorted(groups.items()):
        nodes = set()
        for record in records:
            steps = num_steps(record.data.num_examples["train"], record.settings["batch_size"])
            key = trunk_key(record.settings, record.data.fingerprint) or record.identity
            factors = [1.0, *record.history["controller_factor"][:-1]]
            rates = hash(key)
            for epoch, factor in enumerate(factors):
                rates = hash((rates, multipliers(record.settings, epoch, steps), factor))
                nodes.add(rates)
        epochs = sum(len(record.history["epoch"]) for record in records)
        each = median(median(record.numbers("compute_seconds")) for record in records) / 3600
        found.append(
            {
                "model": model,
                "num_epochs": num_epochs,
                "trainings": len(records),
                "epochs": epochs,
                "epochs that differ": len(nodes),
                "core_hours": round(epochs * each, 2),
                "core_hours_shared": round(len(nodes) * each, 2),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--places", type=int, default=64, help="a multiple of 8; 0: none (64)")
    parser.add_argument(
        "--cells", type=int, nargs="*", default=[12, 100, 1000], help="sizes to plan (12 100 1000)"
    )
    parser.add_argument(
        "--resumed", type=int, nargs="*", default=[12, 60, 240], help="sizes to resume (12 60 240)"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/engine.json"))
    arguments = parser.parse_args()
    from lrstudy.ledger.machine import processor

    found: dict = {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    if arguments.places:
        found["places"] = places(arguments.places)
        print(json.dumps(found["places"]))
    found["sharing"] = sharing(Path("ledger"))
    for row in found["sharing"]:
        print(json.dumps(row))
    found["planning"] = []
    for count in arguments.cells:
        found["planning"].append(planning(count))
        print(json.dumps(found["planning"][-1]))
    found["resuming"] = []
    for count in arguments.resumed:
        found["resuming"].append(resuming(count))
        print(json.dumps(found["resuming"][-1]))
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
