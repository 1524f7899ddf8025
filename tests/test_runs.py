"""Runs in folders: never trained twice, killed anywhere, resumed exactly, journaled once."""

import contextlib
import copy
import errno
import hashlib
import importlib.util
import io
import json
import math
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lrstudy import runs
from lrstudy.batches import make_split
from lrstudy.errors import StudyError
from lrstudy.evaluation import cross_entropy, predict
from lrstudy.files import locked
from lrstudy.models import make_model
from lrstudy.runs import (
    begun_otherwise,
    fingerprint,
    metric_values,
    progress_line,
    read_outcome,
    run_folder,
    train_run,
)
from lrstudy.stages import exit_status
from lrstudy.tracking import Journal
from test_pipeline import modules_behind
from tiny_data import SIZES, dataset, settings, write_dataset

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory) -> Path:
    return write_dataset("text", tmp_path_factory.mktemp("data") / "imdb")


@pytest.fixture
def task(tmp_path, data_folder) -> dict:
    return {
        "folder": str(tmp_path / "run"),
        "key": "key",
        "label": "lstm-cosine seed 1",
        "settings": settings("lstm", num_epochs=4, optimizer={"name": "adamw", "base_lr": 0.01}),
        "data": str(data_folder),
        "keep_weights": True,
        "journal": True,
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data_folder) -> Path:
    """The folder of the same run, never interrupted."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    chosen = settings("lstm", num_epochs=4, optimizer={"name": "adamw", "base_lr": 0.01})
    train_run(
        {
            "folder": str(folder),
            "key": "key",
            "label": "",
            "settings": chosen,
            "data": str(data_folder),
            "keep_weights": True,
            "journal": True,
        }
    )
    torch.set_flush_denormal(False)
    return folder


def without_clock(outcome: dict) -> dict:
    epochs = [
        {k: v for k, v in e.items() if k not in ("seconds", "compute_seconds", "time")}
        for e in outcome["epochs"]
    ]
    return outcome | {"epochs": epochs}


def test_a_training_that_begins_beside_an_unfinished_one_says_what_differs(tmp_path):
    def begin(name: str, seed: int, checkpoint: bool = False, **settings: object) -> Path:
        journal = Journal(tmp_path / "checkpoints/lstm-cosine" / name, name)
        journal.create("lstm-cosine", {}, {"seed": seed, **settings})
        if checkpoint:
            (journal.folder / "checkpoint.pt").touch()
        return journal.folder

    begin("other-seed", 2, checkpoint=True, num_epochs=9)
    begin("never-an-epoch", 1, num_epochs=7)
    mine = begin("mine", 1, num_epochs=8)
    assert begun_otherwise(mine) is None
    left = begin("left", 1, checkpoint=True, num_epochs=6)
    assert begun_otherwise(mine) == (
        "begins afresh; an unfinished training with num_epochs 6 (here 8) stays in checkpoints/lstm-cosine/left"
    )
    assert begun_otherwise(left) is None  # it goes on
    assert "with other data, code or torch stays" in begun_otherwise(begin("again", 1, num_epochs=6))
    (mine / "outcome.json").touch()
    assert begun_otherwise(mine) is None  # it is done


def assert_same_result(folder: Path, other: Path) -> None:
    assert without_clock(read_outcome(folder)) == without_clock(read_outcome(other))
    for name in ("last.safetensors", "best.safetensors"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


def journaled_epochs(folder: Path) -> list[int]:
    """The epochs whose validation loss stands in the journal, in order."""
    return [
        step
        for event in Journal(folder, "key").events()
        if event["event"] == "metrics"
        for name, _, step, _ in event["values"]
        if name == "validation/loss"
    ]


# ------------------------------------------------------------------------------------------------ a whole run


def test_a_run_leaves_its_outcome_its_weights_and_its_journal(uninterrupted):
    outcome = read_outcome(uninterrupted)
    assert (outcome["status"], len(outcome["epochs"])) == ("finished", 4)
    left = {path.name for path in uninterrupted.iterdir() if path.suffix != ".lock"}
    assert left == {"outcome.json", "last.safetensors", "best.safetensors", "journal.jsonl"}
    assert journaled_epochs(uninterrupted) == [1, 2, 3, 4]


def test_the_weights_reproduce_their_epochs_validation_loss(uninterrupted):
    from safetensors.torch import load_file

    splits, meta = dataset("text")
    outcome = read_outcome(uninterrupted)
    for name, epoch in (("last", 4), ("best", outcome["best_epoch"])):
        model = make_model(settings("lstm")["model"], meta)
        model.load_state_dict(load_file(uninterrupted / f"{name}.safetensors"))
        logits = predict(model, make_split(splits["validation"], meta, CPU), 256, CPU, torch.float32)
        loss, standard_error = cross_entropy(logits, splits["validation"]["labels"])
        assert loss == outcome["epochs"][epoch - 1]["validation/loss"]
        assert standard_error == outcome["epochs"][epoch - 1]["validation/loss_standard_error"]


def test_a_run_on_half_of_the_training_data_is_another_one_with_half_of_the_updates(
    task, uninterrupted, data_folder, monkeypatch
):
    """And the validation split is whole: trials on any share are judged by the same examples."""
    from lrstudy import training

    sizes, train = [], training.train

    def watched(settings, training, validation, *args, **kwargs):
        sizes.append((len(training), len(validation)))
        return train(settings, training, validation, *args, **kwargs)

    monkeypatch.setattr(training, "train", watched)
    whole = task["settings"]
    half = whole | {"training_share": 0.5}
    train_run(task | {"settings": half})
    each_class = round(SIZES["train"] / 2 / 2)
    assert sizes == [(2 * each_class, SIZES["validation"])]
    epochs = read_outcome(Path(task["folder"]))["epochs"]
    assert len(epochs) == whole["num_epochs"]
    assert {len(e["steps"]["lr"]) for e in epochs} == {SIZES["train"] // 2 // whole["batch_size"]}
    of_all = read_outcome(uninterrupted)["epochs"]
    assert {len(e["steps"]["lr"]) for e in of_all} == {SIZES["train"] // whole["batch_size"]}
    # It is the same whole schedule: from the base rate to the rate at the end of the last epoch but one.
    assert epochs[0]["steps"]["lr"][0] == of_all[0]["steps"]["lr"][0]
    assert epochs[3]["steps"]["lr"][0] == pytest.approx(of_all[3]["steps"]["lr"][0])
    assert epochs[0]["validation/loss"] != of_all[0]["validation/loss"]
    assert fingerprint(half, "data") != fingerprint(whole, "data")


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_finished_run_is_not_trained_again(task, monkeypatch):
    assert train_run(task) == task["folder"]
    before = contents(Path(task["folder"]))
    monkeypatch.setattr("lrstudy.training.train", lambda *args, **kwargs: pytest.fail("trained"))
    assert train_run(task) == task["folder"]
    assert contents(Path(task["folder"])) == before


def test_a_run_of_which_nothing_more_was_asked_leaves_its_outcome_alone(task):
    train_run(task | {"keep_weights": False, "journal": False})
    assert {p.name for p in Path(task["folder"]).iterdir() if p.suffix != ".lock"} == {"outcome.json"}


def test_a_run_whose_weights_and_journal_are_asked_for_later_gets_them(task, uninterrupted):
    """Tuning keeps neither; a final run may have the same settings and seed."""
    train_run(task | {"keep_weights": False, "journal": False})
    train_run(task)
    assert_same_result(Path(task["folder"]), uninterrupted)
    assert journaled_epochs(Path(task["folder"])) == [1, 2, 3, 4]


def test_weights_that_were_deleted_are_made_again(task, uninterrupted):
    train_run(task)
    (Path(task["folder"]) / "best.safetensors").unlink()
    train_run(task)
    assert_same_result(Path(task["folder"]), uninterrupted)
    assert journaled_epochs(Path(task["folder"])) == [1, 2, 3, 4]


def test_a_run_that_another_process_trains_is_waited_for(task, uninterrupted, monkeypatch):
    """Queued experiments may share a run: the second waits, then finds the first one's result."""
    folder, said = Path(task["folder"]), []
    other = contextlib.ExitStack()
    other.enter_context(locked(folder / "run.lock"))

    def the_other_finishes(label: str, text: str) -> None:
        said.append(text)
        shutil.copy2(uninterrupted / "outcome.json", folder)
        other.close()

    monkeypatch.setattr(runs, "_say", the_other_finishes)
    monkeypatch.setattr("lrstudy.training.train", lambda *args, **kwargs: pytest.fail("trained"))
    train_run(task | {"keep_weights": False})
    assert said == ["another process trains this; waiting"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_run_that_diverged_is_an_outcome(task, capsys):
    task["settings"] = settings("transformer", optimizer={"name": "sgd", "base_lr": 1e6})
    train_run(task)
    outcome = read_outcome(Path(task["folder"]))
    assert (outcome["status"], outcome["best_epoch"], len(outcome["epochs"])) == ("diverged", 0, 1)
    assert math.isnan(outcome["epochs"][0]["validation/loss"])
    folder = Path(task["folder"])
    assert (folder / "best.safetensors").read_bytes() == (folder / "last.safetensors").read_bytes()
    assert "diverged in epoch 1: the loss is not finite" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- killed


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_a_run_killed_after_an_epoch_ends_like_an_uninterrupted_one(
    task, uninterrupted, monkeypatch, capsys, epoch
):
    def killed(record: dict, num_epochs: int) -> str:
        if record["epoch"] == epoch:
            raise Killed
        return progress_line(record, num_epochs)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "progress_line", killed)
        with pytest.raises(Killed):
            train_run(task)
    folder = Path(task["folder"])
    assert read_outcome(folder) is None
    assert (folder / "checkpoint.pt").exists()
    train_run(task)
    assert f"goes on after epoch {epoch}" in capsys.readouterr().err
    assert_same_result(folder, uninterrupted)
    assert journaled_epochs(folder) == [1, 2, 3, 4]
    assert not (folder / "checkpoint.pt").exists()


KILL = """
import os, sys
sys.path.insert(0, {tests!r})
from lrstudy import runs
write = runs._write_checkpoint
def killed(folder, state):
    write(folder, state)
    if len(state["epochs"]) == 2:
        os._exit(9)
runs._write_checkpoint = killed
runs.train_run({task!r})
"""


@pytest.mark.slow
def test_a_process_that_dies_between_checkpoint_and_journal_loses_no_epoch(task, uninterrupted):
    code = KILL.format(tests=str(Path(__file__).parent), task=task)
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 9, done.stderr
    folder = Path(task["folder"])
    assert journaled_epochs(folder) == [1]
    train_run(task)
    assert_same_result(folder, uninterrupted)
    assert journaled_epochs(folder) == [1, 2, 3, 4]


def stop_after(monkeypatch, task: dict, epoch: int) -> Path:
    """Leave the run's folder as a kill after ``epoch`` does; returns the checkpoint."""

    def killed(record: dict, num_epochs: int) -> str:
        if record["epoch"] == epoch:
            raise Killed
        return ""

    with monkeypatch.context() as patch:
        patch.setattr(runs, "progress_line", killed)
        with pytest.raises(Killed):
            train_run(task)
    return Path(task["folder"]) / "checkpoint.pt"


def flipped(content: bytes) -> bytes:
    """One bit of a weight is another one: torch would load it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        tensors = [entry for entry in archive.infolist() if "/data/" in entry.filename]
        entry = max(tensors, key=lambda entry: entry.file_size)
    at = content.find(entry.filename.encode()) + len(entry.filename) + 200
    changed = bytearray(content)
    changed[at] ^= 64
    torch.load(io.BytesIO(changed), weights_only=True)
    return bytes(changed)


def compressed(content: bytes) -> bytes:
    """What could unpack to any size."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return packed.getvalue()


def changed(**content: object):
    """The checkpoint with other content, whole in itself."""

    def change(checkpoint: bytes) -> bytes:
        state = torch.load(io.BytesIO(checkpoint), weights_only=True) | content
        state = {key: value for key, value in state.items() if value is not None}
        written = io.BytesIO()
        torch.save(state, written)
        return written.getvalue()

    return change


BROKEN = {
    "empty": lambda content: b"",
    "text": lambda content: b"this is no checkpoint",
    "zeros": lambda content: bytes(len(content)),
    "first half": lambda content: content[: len(content) // 2],
    "a byte short": lambda content: content[:-1],
    "second half": lambda content: content[len(content) // 2 :],
    "a bit of a weight": flipped,
    "compressed": compressed,
    "of another training": changed(key="another"),
    "without the optimizer": changed(optimizer=None),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_broken_checkpoint_is_set_aside_and_the_one_before_it_used(
    task, uninterrupted, monkeypatch, capsys, damage
):
    checkpoint = stop_after(monkeypatch, task, 3)
    broken = damage(checkpoint.read_bytes())
    checkpoint.write_bytes(broken)
    train_run(task)
    folder = checkpoint.parent
    assert (folder / "checkpoint.unreadable").read_bytes() == broken
    said = capsys.readouterr().err
    assert "checkpoint unreadable" in said
    assert str(folder / "checkpoint.unreadable") in said
    assert "goes on after epoch 2" in said
    assert_same_result(folder, uninterrupted)
    assert journaled_epochs(folder) == [1, 2, 3, 4]
    assert not list(folder.glob("*.pt"))


def test_without_a_readable_checkpoint_the_run_starts_afresh(task, uninterrupted, monkeypatch, capsys):
    checkpoint = stop_after(monkeypatch, task, 2)
    for path in (checkpoint, checkpoint.with_name("checkpoint.previous.pt")):
        path.write_bytes(b"")
    train_run(task)
    said = capsys.readouterr().err
    assert said.count("checkpoint unreadable") == 2
    assert "goes on after" not in said
    assert_same_result(checkpoint.parent, uninterrupted)
    assert journaled_epochs(checkpoint.parent) == [1, 2, 3, 4]


@pytest.mark.parametrize("rename", [0, 1, 2])
def test_a_kill_between_the_renames_of_a_checkpoint_leaves_a_whole_one(
    task, uninterrupted, monkeypatch, capsys, rename
):
    """Of epoch 2's checkpoint: before it has its own name, before the older one gives way, before it is there."""
    renames = iter(range(100))
    replace = os.replace

    def killed(source, target) -> None:
        if "checkpoint" in str(target) and next(renames) == 2 + rename:  # epoch 1 takes two
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(Killed):
            train_run(task)
    train_run(task)
    assert "goes on after epoch 1" in capsys.readouterr().err
    assert_same_result(Path(task["folder"]), uninterrupted)


def test_what_a_kill_left_half_written_is_removed_and_what_others_write_is_not(task):
    folder = Path(task["folder"])
    folder.mkdir()
    for name in (
        ".checkpoint.next.1.part",
        ".outcome.json.1.part",
        ".last.safetensors.1.part",
        ".sent.json.1.part",
    ):
        (folder / name).write_bytes(b"half")
    train_run(task)
    assert [path.name for path in folder.glob(".*.part")] == [".sent.json.1.part"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"status": "finished"}',
        '{"status": "done", "best_epoch": 1, "epochs": []}',
    ],
)
def test_a_damaged_outcome_is_set_aside_and_the_training_done_again(task, uninterrupted, capsys, content):
    train_run(task)
    folder = Path(task["folder"])
    (folder / "outcome.json").write_text(content)
    with pytest.raises(StudyError, match=r"outcome\.json: not the outcome of a training"):
        read_outcome(folder)
    train_run(task)
    assert "not the outcome of a training, set aside as" in capsys.readouterr().err
    assert (folder / "outcome.unreadable").read_text() == content
    assert_same_result(folder, uninterrupted)


def test_damaged_weights_are_set_aside_and_made_again(task, uninterrupted, capsys):
    train_run(task)
    path = Path(task["folder"]) / "last.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    train_run(task)
    assert "not what the training wrote, set aside as" in capsys.readouterr().err
    assert_same_result(Path(task["folder"]), uninterrupted)


def test_a_full_disk_names_the_file_and_the_run_goes_on_later(task, uninterrupted, monkeypatch, capsys):
    """A device without space, as the operating system reports it, while the third checkpoint is written."""
    written = iter(range(100))
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".part") and next(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert exit_status(lambda: train_run(task)) == 2
    folder = Path(task["folder"])
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {folder / 'checkpoint.next'}: No space left on device; free some space, then run it again: what "
        "was finished is kept."
    )
    train_run(task)
    assert "goes on after epoch 2" in capsys.readouterr().err
    assert_same_result(folder, uninterrupted)
    assert journaled_epochs(folder) == [1, 2, 3, 4]


def test_a_checkpoint_may_not_run_code(task, monkeypatch, tmp_path):
    checkpoint = stop_after(monkeypatch, task, 1)
    torch.save({"epochs": [], "evil": _Evil(tmp_path / "ran")}, checkpoint)
    train_run(task)
    assert not (tmp_path / "ran").exists()
    assert (checkpoint.parent / "checkpoint.unreadable").exists()


class _Evil:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_a_worker_whose_stage_is_gone_stops_after_its_checkpoint(task, uninterrupted, monkeypatch):
    parents = iter([100, 100, 1])  # asked once before and after each epoch
    with monkeypatch.context() as patch:
        patch.setattr(os, "getppid", lambda: next(parents))
        with pytest.raises(SystemExit):
            train_run(task)
    folder = Path(task["folder"])
    assert len(torch.load(folder / "checkpoint.pt", weights_only=True)["epochs"]) == 2
    train_run(task)
    assert_same_result(folder, uninterrupted)


# ----------------------------------------------------------------------------------------------- fingerprint


def leaves(node: dict, path: tuple = ()) -> list[tuple]:
    return [
        leaf
        for key, value in node.items()
        for leaf in (leaves(value, (*path, key)) if isinstance(value, dict) else [(*path, key)])
    ]


@pytest.mark.parametrize("model", ["resnet", "lstm", "transformer"])
def test_the_fingerprint_follows_every_setting(model):
    chosen = settings(model, optimizer={"name": "adamw", "base_lr": 0.1, "weight_decay": 0.0})
    keys = {fingerprint(chosen, "data")}
    for path in leaves(chosen):
        changed = copy.deepcopy(chosen)
        node = changed
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = "changed"
        keys.add(fingerprint(changed, "data"))
    assert len(keys) == 1 + len(leaves(chosen))
    assert (
        fingerprint(json.loads(json.dumps(dict(reversed(chosen.items())))), "data") in keys
    )  # not the order
    assert fingerprint(chosen, "other data") not in keys


def test_the_fingerprint_follows_the_smallest_change_of_base_lr():
    rates = (0.1, math.nextafter(0.1, 1))
    keys = {fingerprint(settings(optimizer={"name": "sgd", "base_lr": rate}), "") for rate in rates}
    assert len(keys) == 2


def test_the_fingerprint_follows_the_code_that_trains_and_torch(monkeypatch, tmp_path):
    find_spec = importlib.util.find_spec
    before = fingerprint(settings(), "data")
    assert fingerprint(settings(), "data") == before
    keys = {before}
    for module in runs._CODE:
        copied = tmp_path / f"{module}.py"
        copied.write_bytes(Path(find_spec(f"lrstudy.{module}").origin).read_bytes() + b"\n")

        def edited(name: str, module=module, copied=copied):
            return SimpleNamespace(origin=str(copied)) if name == f"lrstudy.{module}" else find_spec(name)

        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", edited)
            keys.add(fingerprint(settings(), "data"))
            hashes = runs.code_hashes()
        assert [m for m, found in runs.code_hashes().items() if found != hashes[m]] == [module]
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    keys.add(fingerprint(settings(), "data"))
    assert len(keys) == 1 + len(runs._CODE) + 1


def test_the_fingerprint_reads_every_module_that_training_reaches():
    """But for the errors' wording and the scheduler for other people's loops, which change no number."""
    reached = {Path(path).stem for path in modules_behind(Path(runs.__file__).parent / "training.py")}
    assert set(runs._CODE) == reached - {"errors", "torch_schedule", "__init__"}


def test_the_code_is_known_by_the_hash_of_each_file():
    hashes = runs.code_hashes()
    assert set(hashes) == set(runs._CODE)
    for module, found in hashes.items():
        source = Path(runs.__file__).parent / f"{module}.py"
        assert found == hashlib.sha256(source.read_bytes()).hexdigest()


def test_a_runs_folder_depends_on_its_cell_and_key_alone():
    key = fingerprint(settings(), "data")
    assert run_folder(Path("/root"), "lstm-cosine", key) == Path("/root/checkpoints/lstm-cosine") / key[:16]


# ----------------------------------------------------------------------------------------- metrics, progress


def test_updates_are_counted_through_and_the_rest_by_epoch(uninterrupted):
    epochs = read_outcome(uninterrupted)["epochs"]
    values = [value for record in epochs for value in metric_values(record)]
    for name in ("lr", "train/loss", "gradient_norm"):
        series = [(value, step) for found, value, step, _ in values if found == f"step/{name}"]
        assert series == [(v, s) for s, v in enumerate(v for e in epochs for v in e["steps"][name])]
    for name in (
        "train/loss",
        "validation/loss",
        "validation/loss_standard_error",
        "validation/accuracy",
        "validation/f1",
        "lr",
        "seconds",
        "compute_seconds",
    ):
        series = [(value, step) for found, value, step, _ in values if found == name]
        assert series == [(record[name], record["epoch"]) for record in epochs]
    assert [s for n, _, s, _ in values if n == "controller_interventions"] == [1, 2, 3, 4]
    assert {when for *_, when in metric_values(epochs[0])} == {int(epochs[0]["time"] * 1000)}
    assert all(isinstance(value, int | float) for _, value, _, _ in values)


def test_the_progress_line_says_what_is_left():
    record = {
        "epoch": 3,
        "train/loss": 0.5,
        "validation/loss": 0.25,
        "validation/accuracy": 0.875,
        "lr": 0.01,
        "seconds": 20.0,
    }
    line = progress_line(record, 10)
    assert line == (
        "epoch  3/10  train 0.5000  validation 0.2500  accuracy 0.8750  lr 1.00e-02  20.0 s  2:20 left"
    )
