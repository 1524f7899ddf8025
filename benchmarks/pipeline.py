"""What does the pipeline cost beside the training? Seconds per stage of one `dvc repro` from nothing.

    python benchmarks/pipeline.py                       # what `make smoke` runs
    python benchmarks/pipeline.py -S data=sample        # preset smoke with all models and schedules
    python benchmarks/pipeline.py --preset cpu -S data=hub
    python benchmarks/pipeline.py --preset cpu -S data=hub --keep ../measured
    python benchmarks/pipeline.py --preset cpu -S data=hub --trained .    # hours less: see below

The last commit is cloned without the trainings in its ledger, its params.yaml composed, and `dvc repro` run
there. What a stage costs is the time
of its process, start to end; training is the time in which at least one training of it was in an epoch (from
the trainings' own clocks); DVC is the time in which none of the stages' processes ran: its start, hashing,
writing dvc.lock. All that is not training is the pipeline's cost.

The clone is deleted at the end; with --keep it is the folder named, and stays whatever happens.

With --trained the finished trainings of another folder's checkpoints/ are there from the start, so that all
that runs is what is not training, the same stages with the same journals to send. What the training took is
then reckoned: of every training its cheapest epoch times its epochs (others may have been held up by other
work), divided by the cores.

Measured beside it: the peak memory of the study's largest process and of all together (looked at every
second; pages that processes share count once), starting Python, importing each stage's script, `dvc repro`
with nothing to do, sending the whole study's journals to an empty MLflow database. On Linux. Results:
benchmarks/results/pipeline.json and .md, an entry per choice of overrides.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from statistics import median

from lrstudy.files import write_json
from lrstudy.study.workspace import git_revision

ROOT = Path(__file__).parents[1]
STAGES = sorted(path.stem for path in (ROOT / "src/lrstudy/stages").glob("[a-z]*.py"))
SMOKE = ["data=sample", "model=[resnet,lstm]", "schedule=[static,cosine]"]
GOALS = {"smoke": ("seconds", 45.0), "cpu": ("share", 0.10)}  # of what is not training
NOTHING_TO_DO_GOAL = 3.0  # seconds
REPEATS = 3  # of what is short

Interval = tuple[float, float]


def union(intervals: list[Interval]) -> float:
    """The length of the intervals' union: what several do at a time counts once.

    >>> union([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def clone(folder: Path, overrides: list[str]) -> dict[str, str]:
    """The last commit in ``folder``, composed, no training done; returns the environment to run it in."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    shutil.rmtree(folder / "ledger/trainings", ignore_errors=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "GIT_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str((folder / "src").resolve()),
        "DVC_NO_ANALYTICS": "1",
    }
    (folder / "dvc.lock").unlink(missing_ok=True)
    subprocess.run(
        [sys.executable, "-m", "lrstudy.compose", *overrides], cwd=folder, env=environment, check=True
    )
    return environment


def with_clock(environment: dict[str, str], folder: Path) -> tuple[dict[str, str], Path]:
    """An environment whose ``python`` writes begin, end and arguments of a process to the file returned."""
    log = folder / "processes"
    script = folder / "python"
    script.write_text(
        "#!/bin/sh\n"
        "begin=$(date +%s.%N)\n"
        f'{shlex.quote(sys.executable)} "$@"\n'
        "status=$?\n"
        f'echo "$begin $(date +%s.%N) $*" >>{shlex.quote(str(log))}\n'
        "exit $status\n"
    )
    script.chmod(0o755)
    return environment | {"PATH": f"{folder}{os.pathsep}{environment['PATH']}"}, log


def read_processes(log: Path) -> list[tuple[str, Interval]]:
    """(stage, (begin, end)) of every stage's process, in order."""
    found = []
    for line in log.read_text().splitlines():
        begin, end, *arguments = line.split()
        if arguments[:1] == ["-m"] and arguments[1].startswith("lrstudy.stages."):
            found.append((arguments[1].rpartition(".")[2], (float(begin), float(end))))
    return found


def epochs(root: Path) -> list[Interval]:
    """(begin, end) of every epoch that was trained under ``root``."""
    return [
        (epoch["time"] - epoch["seconds"], epoch["time"])
        for path in (root / "checkpoints").glob("*/*/outcome.json")
        for epoch in json.loads(path.read_text())["epochs"]
    ]


def bring_trainings(source: Path, root: Path) -> float:
    """Copy the trainings in ``source``, not yet sent to MLflow; the seconds that they took, on one core."""
    seconds = 0.0
    for path in (source / "checkpoints").glob("*/*/outcome.json"):
        folder = root / path.parent.relative_to(source)
        shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns("sent.json"))
        trained = json.loads(path.read_text())["epochs"]
        seconds += len(trained) * min(epoch["compute_seconds"] for epoch in trained)
    if not seconds:
        raise SystemExit(f"{source / 'checkpoints'}: no finished trainings; give a folder where a study ran.")
    return seconds


@contextmanager
def memory_of(root: Path, every: float = 1.0) -> Iterator[dict[str, int]]:
    """Watch the processes whose folder is ``root``; the dict has their peaks in bytes once it is left."""
    peaks = {"process": 0, "together": 0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every):
            together = 0
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError, KeyError):  # it has ended, or is somebody else's
                    if (process / "cwd").readlink() == root:
                        highest = _kilobytes(process / "status")["VmHWM"]
                        peaks["process"] = max(peaks["process"], 1024 * highest)
                        together += 1024 * _kilobytes(process / "smaps_rollup")["Pss"]
            peaks["together"] = max(peaks["together"], together)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()


def _kilobytes(file: Path) -> dict[str, int]:
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return {name: int(value.split()[0]) for name, _, value in lines if value.endswith(" kB")}


def by_stage(processes: list[tuple[str, Interval]], trained: list[Interval], ended: float) -> dict[str, dict]:
    """Per stage: processes, their seconds, those of them in training, and DVC's until the next one began."""
    found: dict[str, dict] = {}
    nexts = [begin for _, (begin, _) in processes[1:]] + [ended]
    for (stage, (begin, end)), following in zip(processes, nexts, strict=True):
        row = found.setdefault(stage, {"count": 0, "seconds": 0.0, "training": 0.0, "dvc_after": 0.0})
        inside = [(max(a, begin), min(b, end)) for a, b in trained if a < end and b > begin]
        row["count"] += 1
        row["seconds"] += end - begin
        row["training"] += union(inside)
        row["dvc_after"] += max(0.0, following - end)
    return found


def seconds_of(command: list[str], repeats: int = REPEATS, **options) -> float:
    """The median time of a command that must succeed."""
    took = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
        took.append(time.perf_counter() - started)
    return median(took)


def start_up(folder: Path, environment: dict[str, str]) -> dict[str, dict]:
    """Seconds to start Python, and to start it and import each stage's script; whether that imports torch."""
    found = {"python": {"seconds": seconds_of([sys.executable, "-c", "pass"], env=environment)}}
    for stage in STAGES:
        module = f"lrstudy.stages.{stage}"
        command = [sys.executable, "-c", f"import sys, {module}; print('torch' in sys.modules)"]
        said = subprocess.run(
            command, cwd=folder, env=environment, check=True, capture_output=True, text=True
        )
        took = seconds_of(command, cwd=folder, env=environment)
        found[stage] = {"seconds": took, "torch": said.stdout.strip() == "True"}
    return found


def send_again(root: Path, folder: Path, environment: dict[str, str]) -> dict:
    """Send all journals of ``root`` to an empty database: events and seconds, starting Python included."""
    events = 0
    for journal in (root / "checkpoints").rglob("journal.jsonl"):
        copy = folder / journal.relative_to(root)
        copy.parent.mkdir(parents=True)
        shutil.copyfile(journal, copy)
        events += len(journal.read_bytes().splitlines())
    took = seconds_of(
        [sys.executable, "-m", "lrstudy.sync"], 1, cwd=root, env=environment | {"DVC_ROOT": str(folder)}
    )
    return {"events": events, "seconds": took}


def measure(overrides: list[str], trained_in: Path | None, keep: Path | None) -> dict:
    """Run the study once from nothing, or with the trainings of another folder, and take its time apart."""
    with tempfile.TemporaryDirectory(prefix="lrstudy-pipeline-") as temporary:
        folder = Path(temporary).resolve()
        root, beside = keep or folder / "study", folder / "clock"
        beside.mkdir()
        environment = clone(root, overrides)
        cores = len(os.sched_getaffinity(0))
        before = bring_trainings(trained_in, root) / cores if trained_in else 0.0
        clocked, log = with_clock(environment, beside)
        load, began, commit = os.getloadavg()[0], time.time(), git_revision()
        with memory_of(root) as peaks:
            subprocess.run(["dvc", "repro"], cwd=root, env=clocked, check=True, stdout=sys.stderr)
            ended = time.time()
        processes, trained = read_processes(log), epochs(root)
        stages = by_stage(processes, trained, ended)
        training = sum(row["training"] for row in stages.values())
        if trained_in and training:
            raise SystemExit(
                f"{trained_in}: has not all trainings of this study ({training:.0f} s of training were "
                "left): its code, data or parameters differ, or it is not done."
            )
        not_training = ended - began - training
        return {
            "overrides": overrides,
            "trained_before": before,
            "seconds": ended - began + before,
            "training": training + before,
            "not_training": not_training,
            "share_not_training": not_training / (ended - began + before),
            "dvc_before_the_first_stage": processes[0][1][0] - began,
            "stages": stages,
            "peak_bytes": peaks,
            "nothing_to_do": seconds_of(["dvc", "repro"], cwd=root, env=environment),
            "start_up": start_up(root, environment),
            "mlflow": send_again(root, folder / "again", environment),
            "machine": {
                "cores": cores,
                "load_before": load,
                "system": platform.platform(),
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "dvc", "mlflow")},
                "commit": commit,
            },
        }


def table(found: dict) -> str:
    """One study's figures in Markdown."""
    about = found["machine"]
    preset = found["overrides"][0].removeprefix("preset=")
    reckoned = (
        f" The trainings were done before: {found['trained_before']:,.0f} s of {about['cores']} cores, "
        "reckoned from their fastest epochs."
        if found.get("trained_before")
        else ""
    )
    lines = [
        f"### {' '.join(found['overrides'])}",
        "",
        f"{found['seconds']:.1f} s in all, {found['training']:.1f} s of it training, "
        f"{found['not_training']:.1f} s not ({found['share_not_training']:.0%}); {about['cores']} cores, "
        f"load average at the start {about['load_before']:.1f}, Python {about['python']}, "
        f"torch {about['torch']}, DVC {about['dvc']}, commit {about['commit'][:10]}.{reckoned}",
        "",
        "| stage | times | seconds | of them training | not | DVC until the next stage "
        "| Python and imports alone |",
        "|---|---|---|---|---|---|---|",
        f"| (DVC's start) | | | | | {found['dvc_before_the_first_stage']:.1f} | |",
    ]
    for stage, row in found["stages"].items():
        importing = found["start_up"][stage]
        lines.append(
            f"| {stage} | {row['count']} | {row['seconds']:.1f} | {row['training']:.1f} "
            f"| {row['seconds'] - row['training']:.1f} | {row['dvc_after']:.1f} "
            f"| {importing['seconds']:.2f} each{', torch' if importing['torch'] else ''} |"
        )
    lines += [
        "",
        f"`dvc repro` with nothing to do: {found['nothing_to_do']:.1f} s (goal: under "
        f"{NOTHING_TO_DO_GOAL:g}). Starting Python: {found['start_up']['python']['seconds']:.2f} s. Sending "
        f"the study's {found['mlflow']['events']} events to an empty MLflow database: "
        f"{found['mlflow']['seconds']:.1f} s.",
    ]
    if peaks := found.get("peak_bytes"):
        lines[-1] += (
            f" Peak memory: {peaks['process'] / 1e9:.2f} GB of a process, {peaks['together'] / 1e9:.2f} GB "
            "of all together."
        )
    if preset in GOALS:
        unit, goal = GOALS[preset]
        value = found["not_training"] if unit == "seconds" else found["share_not_training"]
        shown = f"under {goal:g} s" if unit == "seconds" else f"under {goal:.0%}"
        lines.append(
            f"Goal for what is not training: {shown}: {'reached' if value < goal else 'not reached'}."
        )
    # The load average is of the minute before, which is nothing to hours.
    if about["load_before"] > about["cores"] / 4 and found["seconds"] < 3600:
        lines.append("The machine had other work: these figures are not to be quoted.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="smoke", help="smoke (default), quick, cpu or paper")
    parser.add_argument(
        "-S",
        dest="overrides",
        action="append",
        metavar="KEY=VALUE",
        help="as for dvc exp run; those of make smoke",
    )
    parser.add_argument("--trained", type=Path, metavar="FOLDER", help="where the same study ran before")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder to run in, left as it is")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/pipeline.json")
    arguments = parser.parse_args()
    overrides = [f"preset={arguments.preset}", *(arguments.overrides or SMOKE)]
    every = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    trained_in, keep = (path and path.resolve() for path in (arguments.trained, arguments.keep))
    if keep and keep.exists():
        parser.error(f"--keep {keep}: is there already; name a folder to make.")
    found = every[" ".join(overrides)] = measure(overrides, trained_in, keep)
    write_json(arguments.output, every)
    arguments.output.with_suffix(".md").write_text("\n".join(table(one) for one in every.values()))
    print(table(found))


if __name__ == "__main__":
    main()
