"""Runs in folders: never trained twice, killed anywhere, resumed exactly, journaled once."""

import contextlib
import errno
import importlib.metadata
import io
import json
import math
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from lrstudy.errors import StudyError
from lrstudy.files import locked
from lrstudy.ledger import Ledger, Record, machine
from lrstudy.ledger.record import WEIGHTS
from lrstudy.process.exits import exit_status
from lrstudy.recipe.identity import training_identity
from lrstudy.recipe.models import make_model
from lrstudy.study import runs
from lrstudy.study.outputs import Outcome
from lrstudy.study.runs import (
    begun_otherwise,
    find_record,
    find_weights,
    is_from_ledger,
    metric_values,
    progress_line,
    read_outcome,
    run_folder,
    train_run,
)
from lrstudy.tracking.journal import Journal
from lrstudy.training.batches import make_split
from lrstudy.training.evaluation import cross_entropy, predict
from lrstudy.training.measures import AVERAGES
from tiny_data import SIZES, dataset, settings, write_dataset
from tiny_data import task as tiny_task

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory) -> Path:
    return write_dataset("text", tmp_path_factory.mktemp("data") / "imdb")


SETTINGS = settings("lstm", num_epochs=4, optimizer={"name": "adamw", "base_lr": 0.01})


@pytest.fixture
def task(tmp_path, data_folder) -> dict:
    return tiny_task(tmp_path, data_folder, SETTINGS)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data_folder) -> Path:
    """The folder of the same run, never interrupted; its ledger lies beside it."""
    task = tiny_task(tmp_path_factory.mktemp("uninterrupted"), data_folder, SETTINGS)
    train_run(task)
    torch.set_flush_denormal(False)
    return Path(task["folder"])


def records(folder: Path) -> list[Record]:
    """What the ledger beside a run's folder has."""
    return list(Ledger(folder.parent / "ledger").records())


def files(folder: Path) -> list[Path]:
    """The files of that ledger's records."""
    return list(Ledger(folder.parent / "ledger").paths())


@pytest.fixture
def no_training(monkeypatch):
    """Whatever trains from here on fails the test."""
    monkeypatch.setattr("lrstudy.training.loop.train", lambda *args, **kwargs: pytest.fail("trained"))


def without_clock(outcome: Outcome) -> dict:
    epochs = [
        {k: v for k, v in e.items() if k not in ("seconds", "compute_seconds", "time")}
        for e in outcome.epochs
    ]
    return outcome.model_dump() | {"epochs": epochs}


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
    assert "with other data or code stays" in begun_otherwise(begin("again", 1, num_epochs=6))
    (mine / "outcome.json").touch()
    assert begun_otherwise(mine) is None  # it is done


def by_epoch(record: Record) -> dict:
    clock = ("seconds", "compute_seconds", "time")
    return {name: series for name, series in record.history.items() if name not in clock}


def assert_same_result(folder: Path, other: Path) -> None:
    """To the bit, and recorded once."""
    assert without_clock(read_outcome(folder)) == without_clock(read_outcome(other))
    for name in WEIGHTS:
        name = f"{name}.safetensors"
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    (mine,), (theirs,) = records(folder), records(other)
    assert len(files(folder)) == 1
    assert by_epoch(mine) == by_epoch(theirs)
    for field in ("identity", "weights", "status", "final"):
        assert getattr(mine, field) == getattr(theirs, field)


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


def test_a_run_leaves_its_outcome_its_weights_its_journal_and_its_record(uninterrupted):
    outcome = read_outcome(uninterrupted)
    assert (outcome.status, len(outcome.epochs)) == ("finished", 4)
    left = {path.name for path in uninterrupted.iterdir() if path.suffix != ".lock"}
    assert left == {"outcome.json", "journal.jsonl", *(f"{name}.safetensors" for name in WEIGHTS)}
    assert journaled_epochs(uninterrupted) == [1, 2, 3, 4]
    (record,) = records(uninterrupted)
    assert record.weights == outcome.weights
    assert record.settings == SETTINGS
    # The whole of the outcome but for the single updates, in full precision.
    epochs = [{k: v for k, v in epoch.items() if k != "steps"} for epoch in outcome.epochs]
    assert record.outcome() == {
        key: getattr(outcome, key) for key in ("status", "best_epoch", "num_parameters", "final")
    } | {"epochs": epochs}


def test_a_record_says_where_and_with_what_the_training_took_place(task):
    train_run(task | {"revision": "abc"})
    (record,) = records(Path(task["folder"]))
    origin = record.origin
    assert (origin.processor, origin.system) == (machine.processor(), machine.system())
    assert origin.versions["torch"] == importlib.metadata.version("torch")
    assert (origin.accelerator, origin.revision) == (None, "abc")
    assert origin.ended == record.history["time"][-1]
    assert (record.device, record.dtype) == ("cpu", "float32")
    assert record.labels.model_dump() == {"model": "lstm", "schedule": "cosine", "role": "final"}
    # What each part of the code consisted of is kept beside it: a later one can be distinguished from it.
    ledger = Ledger(task["ledger"])
    assert "train" in ledger.noted_code(record.code["loop"])
    assert "cosine" in ledger.noted_code(record.code["schedule"])
    assert set(record.code) == {"loop", "schedule", "controller", "optimizer", "network"}


def test_the_weights_reproduce_their_epochs_validation_loss(uninterrupted):
    from safetensors.torch import load_file

    splits, meta = dataset("text")
    outcome = read_outcome(uninterrupted)
    found = {"last": "validation", "best": "validation"} | {name: f"validation_{name}" for name in AVERAGES}
    epochs = {"last": 4, "best": outcome.best_epoch}
    assert found.keys() == set(WEIGHTS)
    for name, split in found.items():
        model = make_model(settings("lstm")["model"], meta)
        model.load_state_dict(load_file(uninterrupted / f"{name}.safetensors"))
        logits = predict(model, make_split(splits["validation"], meta, CPU), 256, CPU, torch.float32)
        loss, standard_error = cross_entropy(logits, splits["validation"]["labels"])
        recorded = outcome.epochs[epochs[name] - 1] if name in epochs else outcome.final
        assert loss == recorded[f"{split}/loss"]
        assert standard_error == recorded[f"{split}/loss_standard_error"]


def test_a_run_on_half_of_the_training_data_is_another_one_with_half_of_the_updates(
    task, uninterrupted, data_folder, monkeypatch
):
    """And the validation split is whole: trials on any share are judged by the same examples."""
    from lrstudy.training import loop

    sizes, train = [], loop.train

    def watched(settings, training, validation, *args, **kwargs):
        sizes.append((len(training), len(validation)))
        return train(settings, training, validation, *args, **kwargs)

    monkeypatch.setattr(loop, "train", watched)
    whole = task["settings"]
    half = whole | {"training_share": 0.5}
    root = Path(task["folder"]).parent
    train_run(tiny_task(root, data_folder, half))
    each_class = round(SIZES["train"] / 2 / 2)
    assert sizes == [(2 * each_class, SIZES["validation"])]
    epochs = read_outcome(Path(task["folder"])).epochs
    assert len(epochs) == whole["num_epochs"]
    assert {len(e["steps"]["lr"]) for e in epochs} == {SIZES["train"] // 2 // whole["batch_size"]}
    of_all = read_outcome(uninterrupted).epochs
    assert {len(e["steps"]["lr"]) for e in of_all} == {SIZES["train"] // whole["batch_size"]}
    # It is the same whole schedule: from the base rate to the rate at the end of the last epoch but one.
    assert epochs[0]["steps"]["lr"][0] == of_all[0]["steps"]["lr"][0]
    assert epochs[3]["steps"]["lr"][0] == pytest.approx(of_all[3]["steps"]["lr"][0])
    assert epochs[0]["validation/loss"] != of_all[0]["validation/loss"]
    assert [record.settings for record in records(Path(task["folder"]))] == [half]
    assert find_record(task) is None  # the whole one is to be done


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_finished_run_is_not_trained_again(task, monkeypatch, request):
    assert train_run(task) == task["folder"]
    folder = Path(task["folder"])
    before, recorded = contents(folder), [contents(file.parent) for file in files(folder)]
    request.getfixturevalue("no_training")
    assert train_run(task) == task["folder"]
    assert contents(folder) == before
    assert [contents(file.parent) for file in files(folder)] == recorded


def test_a_run_of_which_nothing_more_was_asked_leaves_its_outcome_alone(task):
    train_run(task | {"keep_weights": False, "journal": False})
    assert {p.name for p in Path(task["folder"]).iterdir() if p.suffix != ".lock"} == {"outcome.json"}
    (record,) = records(Path(task["folder"]))
    assert record.weights == {}


def test_a_run_whose_weights_and_journal_are_asked_for_later_gets_them(task, uninterrupted, capsys):
    """Tuning keeps neither; a final run may have the same settings and seed. Only ``again`` trains for them."""
    quiet = task | {"keep_weights": False, "journal": False}
    train_run(quiet)
    train_run(task)
    assert find_weights(task, Path(task["folder"])) is None
    train_run(task | {"again": True})
    assert "trained again: the same to the bit as its record" in capsys.readouterr().err
    folder = Path(task["folder"])
    assert without_clock(read_outcome(folder)) == without_clock(read_outcome(uninterrupted))
    assert journaled_epochs(folder) == [1, 2, 3, 4]
    found, record = find_weights(task, folder)
    assert (found, record.weights) == (folder, read_outcome(uninterrupted).weights)


# -------------------------------------------------------------------------------------------- the ledger has it


def test_a_record_without_the_folder_is_enough(task, no_training, uninterrupted):
    """On another machine, or after a cleaning up: neither weights nor checkpoints are needed."""
    assert not is_from_ledger(task)
    shutil.copytree(uninterrupted.parent / "ledger", task["ledger"])
    assert is_from_ledger(task)
    before = contents(files(Path(task["folder"]))[0].parent)
    assert train_run(task) == task["folder"]
    assert [path.name for path in Path(task["folder"]).iterdir()] == ["run.lock"]
    assert contents(files(Path(task["folder"]))[0].parent) == before


def test_another_version_of_torch_finds_the_record(task, monkeypatch, uninterrupted, request):
    """A published study outlives an upgrade: versions are told and are no part of what a training is."""
    monkeypatch.setattr(machine, "version", lambda package: "0.0")
    train_run(task)
    (record,), (other,) = records(Path(task["folder"])), records(uninterrupted)
    assert record.origin.versions["torch"] == "0.0" != other.origin.versions["torch"]
    assert record.identity == other.identity
    monkeypatch.undo()
    request.getfixturevalue("no_training")
    train_run(task)


@pytest.mark.parametrize("what", ["seed", "data", "code"])
def test_a_record_of_another_training_is_not_taken(task, uninterrupted, monkeypatch, what):
    """Of another seed, other data or other code."""
    shutil.copytree(uninterrupted.parent / "ledger", task["ledger"])
    chosen, data, code = task["settings"], task["described"]["fingerprint"], task["code"]
    if what == "seed":
        chosen = chosen | {"seed": 2}
    elif what == "data":
        data = "other data"
    else:
        code = code | {"schedule": "0" * 64}
    assert find_record(task | {"identities": [training_identity(chosen, data, code)]}) is None
    assert find_record(task) is not None


def test_a_run_killed_after_its_outcome_and_before_its_record_is_recorded_without_training(
    task, uninterrupted, monkeypatch, request
):
    def killed(folder: Path, task: dict):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_record", killed)
        with pytest.raises(Killed):
            train_run(task)
    folder = Path(task["folder"])
    assert (read_outcome(folder).status, files(folder)) == ("finished", [])
    request.getfixturevalue("no_training")
    train_run(task)
    assert not is_from_ledger(task)  # it was done here, whatever wrote the record
    assert_same_result(folder, uninterrupted)


def test_a_record_made_later_says_with_what_the_training_was_done(task, monkeypatch):
    """Not with what it was recorded: an upgrade may lie between, or another commit."""
    with monkeypatch.context() as patch:
        patch.setattr(machine, "version", lambda package: "0.0")
        train_run(task | {"revision": "before"})
    shutil.rmtree(task["ledger"])
    train_run(task | {"revision": "after"})
    (record,) = records(Path(task["folder"]))
    assert (record.origin.versions["torch"], record.origin.revision) == ("0.0", "before")


def damage(folder: Path) -> Path:
    """Edit a number in the record beside the run's folder; returns the record's file."""
    import gzip

    (path,) = files(folder)
    text = gzip.decompress(path.read_bytes()).decode()
    known = json.loads(text)["history"]["validation/loss"][0]
    path.write_bytes(gzip.compress(text.replace(repr(known), repr(known / 2)).encode()))
    return path


def test_a_damaged_record_is_set_aside_and_made_from_the_outcome_without_training(
    task, uninterrupted, capsys, request
):
    train_run(task)
    folder = Path(task["folder"])
    damaged = damage(folder)
    content = damaged.read_bytes()
    capsys.readouterr()
    request.getfixturevalue("no_training")
    train_run(task)
    aside = Path(task["ledger"]) / "set-aside" / damaged.name
    assert capsys.readouterr().err.startswith(f"ledger: {damaged}: ")
    assert aside.read_bytes() == content  # nothing is lost
    assert_same_result(folder, uninterrupted)


def test_a_trial_that_a_study_asks_for_as_its_own_is_trained_for_its_weights_and_recorded_as_final(
    task, capsys
):
    """A seed that was one of the search's: a trial keeps no weights that could be measured on test data."""
    trial = task | {"keep_weights": False, "journal": False, "labels": task["labels"] | {"role": "trial"}}
    train_run(trial)
    assert find_record(task).weights == {}
    train_run(task)
    assert "trained again: the same to the bit as its record" in capsys.readouterr().err
    (found,) = Ledger(task["ledger"]).records()
    assert found.labels.role == "final"
    assert set(found.weights) == {"last", "best", "ema", "tail_average"}
    train_run(trial)  # and the search takes it from there
    assert list(Ledger(task["ledger"]).records()) == [found]


def test_a_damaged_record_without_an_outcome_is_set_aside_and_the_training_done_again(
    task, uninterrupted, capsys
):
    train_run(task)
    folder = Path(task["folder"])
    damaged = damage(folder)
    shutil.rmtree(folder)
    train_run(task)
    assert f"Set aside as {Path(task['ledger']) / 'set-aside' / damaged.name}." in capsys.readouterr().err
    assert_same_result(folder, uninterrupted)


def test_weights_that_were_deleted_are_made_again_only_where_that_is_asked_for(
    task, uninterrupted, monkeypatch, capsys
):
    train_run(task)
    folder = Path(task["folder"])
    (folder / "best.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("lrstudy.training.loop.train", lambda *args, **kwargs: pytest.fail("trained"))
        train_run(task)
    assert not (folder / "best.safetensors").exists()
    assert find_weights(task, folder) is None
    train_run(task | {"again": True})
    assert "trained again: the same to the bit as its record" in capsys.readouterr().err
    assert_same_result(folder, uninterrupted)
    assert journaled_epochs(folder) == [1, 2, 3, 4]


def test_again_trains_nothing_whose_weights_are_here(task, capsys, request):
    train_run(task)
    capsys.readouterr()
    before = contents(Path(task["folder"]))
    request.getfixturevalue("no_training")
    train_run(task | {"again": True})
    assert contents(Path(task["folder"])) == before
    assert capsys.readouterr().err == ""


def elsewhere(task: dict, uninterrupted: Path) -> Record:
    """Into the task's ledger the record of the same training on a processor that rounds otherwise."""
    (known,) = records(uninterrupted)
    losses = known.history["validation/loss"]
    history = known.history | {"validation/loss": [math.nextafter(loss, 1) for loss in losses]}
    other = known.model_copy(
        update={
            "history": history,
            "weights": {"last": "1" * 64, "best": "2" * 64},
            "origin": known.origin.model_copy(update={"machine": "00000000", "ended": 1.0}),
        }
    )
    Ledger(task["ledger"]).add(other)
    return other


def test_again_keeps_both_records_where_they_differ(task, uninterrupted, capsys):
    """The numbers of a machine that rounds otherwise stay; the weights that are here have a record of their own."""
    other = elsewhere(task, uninterrupted)
    train_run(task | {"again": True})
    said = capsys.readouterr().err
    assert "trained again: not the same to the bit as its record (validation loss " in said
    assert "Both are kept" in said
    (mine,) = records(uninterrupted)
    kept = Ledger(task["ledger"]).all_of(task["key"])
    assert [(one.origin.machine, by_epoch(one)) for one in kept] == [
        (other.origin.machine, by_epoch(other)),
        (machine.machine_name(), by_epoch(mine)),
    ]
    assert find_record(task) == other  # the one that the study's numbers are of, as before


def test_again_takes_weights_that_no_record_names_before_it_trains(task, uninterrupted, capsys, request):
    """Such as those of a training whose own record was damaged while another machine's is there."""
    elsewhere(task, uninterrupted)
    shutil.copytree(uninterrupted, task["folder"])
    request.getfixturevalue("no_training")
    train_run(task | {"again": True})
    folder = Path(task["folder"])
    assert find_weights(task, folder)[1].weights == read_outcome(folder).weights
    assert len(files(folder)) == 2


def test_weights_belong_to_the_record_that_names_them(task, uninterrupted, tmp_path):
    """Of one training there may be several records; the numbers of one are not those of another's weights."""
    other = elsewhere(task, uninterrupted)
    nowhere = tmp_path / "nowhere"
    assert (
        find_weights(task, nowhere, uninterrupted) is None
    )  # these are of a training that is not recorded here
    (mine,) = records(uninterrupted)
    Ledger(task["ledger"]).add(mine)
    assert find_record(task) == other
    assert find_weights(task, nowhere, uninterrupted) == (uninterrupted, mine)
    # One of the two files is another one: these are nobody's.
    shutil.copytree(uninterrupted, nowhere)
    (nowhere / "best.safetensors").write_bytes(b"another")
    assert find_weights(task, nowhere) is None
    assert find_weights(task, nowhere, uninterrupted) == (uninterrupted, mine)


def test_a_run_that_another_process_trains_is_waited_for(task, uninterrupted, monkeypatch, no_training):
    """Queued experiments may share a run: the second waits, then finds the first one's record."""
    folder, said = Path(task["folder"]), []
    other = contextlib.ExitStack()
    other.enter_context(locked(folder / "run.lock"))

    def the_other_finishes(label: str, text: str) -> None:
        said.append(text)
        shutil.copytree(uninterrupted.parent / "ledger", task["ledger"])
        other.close()

    monkeypatch.setattr(runs, "_say", the_other_finishes)
    train_run(task)
    assert said == ["another process trains this; waiting"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_run_that_diverged_is_an_outcome(tmp_path, data_folder, capsys):
    chosen = settings("transformer", optimizer={"name": "sgd", "base_lr": 1e6})
    task = tiny_task(tmp_path, data_folder, chosen)
    train_run(task)
    outcome = read_outcome(Path(task["folder"]))
    assert (outcome.status, outcome.best_epoch, len(outcome.epochs)) == ("diverged", 0, 1)
    assert math.isnan(outcome.epochs[0]["validation/loss"])
    folder = Path(task["folder"])
    assert (folder / "best.safetensors").read_bytes() == (folder / "last.safetensors").read_bytes()
    assert "diverged in epoch 1: the loss is not finite" in capsys.readouterr().err
    (record,) = records(folder)
    assert (record.final, set(record.weights)) == ({}, {"last", "best"})  # of averages there is nothing
    assert (record.status, record.history["validation/loss"]) == ("diverged", [None])
    assert math.isnan(record.outcome()["epochs"][0]["validation/loss"])


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
from lrstudy.study import runs
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
    "without the averages": changed(averages=None),
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
        ".after-3.pt.1.part",
        ".progress.json.1.part",
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
def test_a_damaged_outcome_of_a_run_without_a_record_is_set_aside_and_the_training_done_again(
    task, uninterrupted, capsys, content
):
    train_run(task)
    shutil.rmtree(task["ledger"])
    folder = Path(task["folder"])
    (folder / "outcome.json").write_text(content)
    with pytest.raises(StudyError, match=r"outcome\.json: not the outcome of a training"):
        read_outcome(folder)
    train_run(task)
    assert "not the outcome of this training, set aside as" in capsys.readouterr().err
    assert (folder / "outcome.unreadable").read_text() == content
    assert_same_result(folder, uninterrupted)


@pytest.mark.parametrize(
    "damage",
    [
        lambda outcome: outcome.pop("num_parameters"),
        lambda outcome: outcome["epochs"].pop(),
        lambda outcome: outcome["epochs"][1].pop("time"),
        lambda outcome: outcome["epochs"][1].update({"validation/loss": "0.5"}),
        lambda outcome: outcome["epochs"][-1].update({"time": None}),
        lambda outcome: outcome.update(best_epoch=9),
        lambda outcome: outcome.update(weights={"last": "", "best": ""}),
        lambda outcome: outcome.update(weights=[]),
        lambda outcome: outcome["final"].pop("validation_ema/loss"),
        lambda outcome: outcome.update(epochs=[{"validation/loss": 1}]),
    ],
)
def test_an_outcome_that_cannot_be_of_this_training_is_no_record(task, uninterrupted, capsys, damage):
    """It reads like an outcome, but it is not one of as many epochs, or lacks what a record says."""
    train_run(task)
    shutil.rmtree(task["ledger"])
    folder = Path(task["folder"])
    outcome = json.loads((folder / "outcome.json").read_text())
    damage(outcome)
    (folder / "outcome.json").write_text(json.dumps(outcome))
    train_run(task)
    assert "not the outcome of this training, set aside as" in capsys.readouterr().err
    assert_same_result(folder, uninterrupted)


@pytest.mark.parametrize("recorded", [True, False])
def test_damaged_weights_are_set_aside_and_made_again(task, uninterrupted, capsys, recorded):
    """Where the training is recorded, when they are asked for; where it is not, its outcome alone is none."""
    train_run(task)
    path = Path(task["folder"]) / "last.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    if recorded:
        train_run(task)
        assert path.read_bytes() == content  # nobody asked for them
        train_run(task | {"again": True})
    else:
        shutil.rmtree(task["ledger"])
        train_run(task)
    assert "not what the training wrote, set aside as" in capsys.readouterr().err
    assert path.with_suffix(".unreadable").read_bytes() == content
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


# -------------------------------------------------------------------------------------------------- identity


def test_the_identity_follows_the_smallest_change_of_base_lr():
    rates = (0.1, math.nextafter(0.1, 1))
    keys = {training_identity(settings(optimizer={"name": "sgd", "base_lr": rate}), "", {}) for rate in rates}
    assert len(keys) == 2


def test_a_runs_folder_depends_on_its_cell_and_identity_alone():
    key = training_identity(settings(), "data", {})
    assert run_folder(Path("/root"), "lstm-cosine", key) == Path("/root/checkpoints/lstm-cosine") / key[:16]


# ----------------------------------------------------------------------------------------- metrics, progress


def test_updates_are_counted_through_and_the_rest_by_epoch(uninterrupted):
    epochs = read_outcome(uninterrupted).epochs
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
