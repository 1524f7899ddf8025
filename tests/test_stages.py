"""The stages' own functions: what they take from the ledger and from weights, and what they write and read."""

import csv
import hashlib
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import known_study
import lrstudy.stages.report as report_stage
import tiny_data
from known_study import THEORY
from lrstudy.analysis.cells import curves
from lrstudy.data import read_meta
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger import Ledger
from lrstudy.ledger.record import WEIGHTS
from lrstudy.recipe.models import make_model
from lrstudy.report.sections import document
from lrstudy.stages import evaluate as evaluate_stage
from lrstudy.stages.compare import theory
from lrstudy.stages.evaluate import evaluated
from lrstudy.stages.publish import Champion, champions
from lrstudy.stages.report import bring_theory
from lrstudy.stages.train import history_rows, place_weights
from lrstudy.study.measuring import measure, measure_run, measuring_task
from lrstudy.study.outputs import HISTORY, SeedRun, Tracked, Training
from lrstudy.study.runs import find_record, metric_values, train_run
from lrstudy.study.tracked import tell_training
from lrstudy.theory.records import leave
from lrstudy.tracking.journal import Journal
from lrstudy.training import evaluation as training_evaluation
from lrstudy.training.batches import make_split
from lrstudy.training.evaluation import NO_SCORES, cross_entropy, predict, test_weights

# --- train: what a cell's outputs have of its records and weights ---


@pytest.fixture
def trained(tmp_path, one_thread) -> dict:
    """The task of a training of two epochs that is done: weights in its folder, a record in the ledger."""
    data = tiny_data.write_dataset("text", tmp_path / "imdb")
    chosen = tiny_data.settings("lstm", num_epochs=2, optimizer={"name": "adamw", "base_lr": 0.01})
    task = tiny_data.task(tmp_path, data, chosen)
    train_run(task)
    return task


def test_weights_are_placed_where_they_are_here_and_those_of_no_seed_removed(trained, tmp_path):
    output = tmp_path / "train/lstm/cosine"
    elsewhere = trained | {
        "identities": ["f" * 64],
        "folder": str(tmp_path / "another"),
    }  # not on this machine
    for old in ("seed-2", "seed-9"):
        (output / old).mkdir(parents=True)
        (output / old / "last.safetensors").write_bytes(b"of an earlier study")
    record = find_record(trained)
    assert place_weights({1: trained, 2: elsewhere}, output, tmp_path) == {1: record, 2: None}
    assert [path.name for path in output.iterdir()] == ["seed-1"]
    for name in ("last", "best"):
        made = Path(trained["folder"]) / f"{name}.safetensors"
        assert (output / f"seed-1/{name}.safetensors").read_bytes() == made.read_bytes()


def test_weights_that_dvcs_cache_brought_stay_where_they_lie(trained, tmp_path):
    """As in a clone that has the ledger: nothing under checkpoints/, and the stage's output from `dvc pull`."""
    output = tmp_path / "train/lstm/cosine"
    shutil.copytree(trained["folder"], output / "seed-1")
    shutil.rmtree(trained["folder"])
    before = (output / "seed-1/last.safetensors").stat().st_mtime_ns
    assert place_weights({1: trained}, output, tmp_path) == {1: find_record(trained)}
    assert (output / "seed-1/last.safetensors").stat().st_mtime_ns == before
    (output / "seed-1/best.safetensors").write_bytes(b"damaged")
    assert place_weights({1: trained}, output, tmp_path) == {1: None}  # rather than half a pair of weights
    assert not (output / "seed-1").exists()


def test_a_history_has_a_row_per_seed_and_epoch_in_full_precision_and_nothing_of_the_clock(tmp_path):
    records = {1: tiny_data.record([0.75, 1 / 3]), 2: tiny_data.record([0.5, math.nan], start=9.0)}
    HISTORY.write(tmp_path / "history.csv", history_rows(records))
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [(row["seed"], row["epoch"]) for row in rows] == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    assert [float(row["validation/loss"]) for row in rows[:3]] == [0.75, 1 / 3, 0.5]
    assert rows[3]["validation/loss"] == "nan"
    assert not {"time", "seconds", "compute_seconds", "interventions"} & rows[0].keys()
    read = HISTORY.read(tmp_path / "history.csv", "train@lstm-cosine")
    assert repr(read) == repr(history_rows(records))


@pytest.mark.parametrize("trained_here", [0, 1, 2])
def test_mlflow_is_told_of_a_training_once_wherever_it_took_place(tmp_path, trained_here):
    """None of its epochs, the first alone (it was killed, and another machine did all), or both."""
    came_from_the_ledger = trained_here < 2
    did = [{"epoch": 2, "step": 7, "factor": 0.5, "reason": "the loss rose"}]
    known = tiny_data.record([0.75, 0.5], interventions=did)
    journal = Journal(tmp_path, "key")
    journal.create("lstm-cosine seed 1", {})
    for epoch in known.outcome()["epochs"][:trained_here]:  # a training tells them itself, update by update
        journal.metrics([*metric_values(epoch), ("step/lr", 0.1, 0, 0)])
    for _ in range(2):  # and the stage may run again
        tell_training(journal, known)
    told = journal.events()
    losses = [
        (epoch, value)
        for event in told
        if event["event"] == "metrics"
        for name, value, epoch, _ in event["values"]
        if name == "validation/loss"
    ]
    assert losses == [(1, 0.75), (2, 0.5)]
    values = [tuple(value) for event in told if event["event"] == "metrics" for value in event["values"]]
    for name, value in known.final.items():
        assert [found for found in values if found[0] == name] == [(name, value, 2, 102_000)]
    tags = {name: value for event in told for name, value in event.get("tags", {}).items()}
    assert tags.get("from_ledger") == ("true" if came_from_the_ledger else None)
    assert tags.get("trained") == (
        "trained 1970-01-01 on machine 0123abcd (a processor), float32" if came_from_the_ledger else None
    )
    (end,) = [event for event in told if event["event"] == "end"]
    assert (end["status"], end["time"]) == ("FINISHED", 102_000)  # when it ended, not when it was told
    assert json.loads((tmp_path / "interventions.json").read_text()) == did
    assert len([event for event in told if event["event"] == "artifact"]) == 1


# --- evaluate: from the ledger, or from weights ---


def evaluation(task: dict, folder: Path | str | None = None, weights=WEIGHTS) -> dict:
    """The task that measures a training's weights on test data."""
    return {
        "folder": str(folder or task["folder"]), "made_by": "train@lstm-cosine",
        "data": task["data"], "settings": task["settings"], "weights": weights,
    }  # fmt: skip


@pytest.mark.parametrize("same", [True, False])
def test_the_best_epochs_weights_are_predicted_with_only_if_they_are_other_ones(tmp_path, monkeypatch, same):
    from safetensors.torch import save_file

    data = tiny_data.write_dataset("text", tmp_path / "imdb")
    task = tiny_data.task(tmp_path, data, tiny_data.settings("lstm"))
    for seed, name in enumerate(("last", "best")):
        torch.manual_seed(0 if same else seed)
        model = make_model(task["settings"]["model"], read_meta(data))
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    calls = []
    monkeypatch.setattr(
        training_evaluation, "test_weights", lambda *given: calls.append(given) or test_weights(*given)
    )
    found = measure(evaluation(task, tmp_path, weights=("last", "best")))
    assert len(calls) == (1 if same else 2)
    assert (found.best.loss == found.last.loss) == same
    assert found.num_examples == tiny_data.SIZES["test"]


def test_what_is_recorded_of_test_data_is_what_the_weights_say_example_by_example(trained):
    found = measure(evaluation(trained))
    splits, meta = tiny_data.dataset("text")
    labels = splits["test"]["labels"]
    cpu = torch.device("cpu")
    for name in WEIGHTS:
        model = make_model(trained["settings"]["model"], meta)
        model.load_state_dict(load_file(Path(trained["folder"]) / f"{name}.safetensors"))
        logits = predict(model, make_split(splits["test"], meta, cpu), 64, cpu, torch.float32)
        assert getattr(found, name).loss == pytest.approx(cross_entropy(logits, labels)[0], rel=1e-12)
        assert getattr(found, name).accuracy == (logits.argmax(axis=1) == labels).mean()
        if name == "tail_average":
            assert (found.is_right("tail_average") == (logits.argmax(axis=1) == labels)).all()
        if name == "last":
            assert (found.is_right() == (logits.argmax(axis=1) == labels)).all()
            each = [
                cross_entropy(one[None], label[None])[0] for one, label in zip(logits, labels, strict=True)
            ]
            np.testing.assert_array_equal(found.example_losses(), np.array(each, np.float16))


def test_each_kind_of_weights_is_scored_from_its_own_file(tmp_path, one_thread):
    from safetensors.torch import save_file

    data = tiny_data.write_dataset("image", tmp_path / "cifar10")
    task = tiny_data.task(tmp_path, data, tiny_data.settings("resnet"))
    for folder, order in (("a", WEIGHTS), ("b", WEIGHTS[::-1])):
        (tmp_path / folder).mkdir()
        for seed, name in enumerate(order):
            torch.manual_seed(seed)
            model = make_model(task["settings"]["model"], read_meta(data))
            save_file(model.state_dict(), tmp_path / folder / f"{name}.safetensors")
    a, b = (measure(evaluation(task, tmp_path / folder)) for folder in ("a", "b"))
    assert [getattr(a, name) for name in WEIGHTS] == [getattr(b, name) for name in WEIGHTS[::-1]]
    assert len({getattr(a, name).loss for name in WEIGHTS}) == len(WEIGHTS)
    assert not np.array_equal(a.example_losses(), b.example_losses())


def test_weights_that_are_no_numbers_have_no_scores(trained):
    from safetensors.torch import save_file

    for name in ("last", "best"):
        path = Path(trained["folder"]) / f"{name}.safetensors"
        weights = load_file(path)
        if name == "last":
            weights = {key: torch.full_like(value, math.nan) for key, value in weights.items()}
        save_file(weights, path)
    found = measure(evaluation(trained))
    assert found.last.model_dump() == NO_SCORES
    assert (found.right, found.losses) == (None, None)
    assert found.best.accuracy is not None


def seed_run(identity: str, weights: bool = True) -> SeedRun:
    """What training.json says of a seed."""
    return SeedRun(
        identity=identity,
        key=identity,
        search=1,
        values={"base_lr": 0.1},
        status="finished",
        weights=weights,
        run_id=None,
    )


def test_what_the_ledger_knows_of_test_data_is_taken_and_the_rest_is_to_be_measured(trained):
    ledger, run = Ledger(trained["ledger"]), seed_run(trained["key"])
    assert evaluated(ledger, "1", run) is None
    record = find_record(trained)
    test = measure(evaluation(trained))
    ledger.add(record.with_test(test))
    assert evaluated(ledger, "1", run) == record.with_test(test)
    assert len(list(ledger.paths())) == 1  # in place of the one that said less
    with pytest.raises(StudyError, match=r"has no record of the training f{16}\.\.\. \(seed 1\).*`dvc repro"):
        evaluated(ledger, "1", seed_run("f" * 64))


def test_test_results_go_to_the_record_that_the_weights_are_of(trained, tmp_path):
    """Another machine's record of the same training, older and thus preferred, says nothing of these weights."""
    ledger = Ledger(trained["ledger"])
    mine = find_record(trained)
    origin = mine.origin.model_copy(update={"machine": "0123abcd", "ended": 1.0})
    other = mine.model_copy(update={"origin": origin, "weights": {"last": "1" * 64, "best": "2" * 64}})
    ledger.add(other)
    assert find_record(trained) == other
    folders = [tmp_path / "nowhere", Path(trained["folder"])]
    task = measuring_task(trained, trained["data"], "train@lstm-cosine", folders)
    assert measure_run(task) == trained["folder"]
    measured, unmeasured = ledger.all_of(*trained["identities"])
    assert (measured.weights, measured.test) == (mine.weights, measure(task))
    assert unmeasured == other
    assert measuring_task(trained, trained["data"], "train@lstm-cosine", folders[:1]) is None


def test_a_training_without_test_results_or_weights_is_not_done_again_unasked(tmp_path):
    """One line says which, and what brings them."""
    records = {
        seed: tiny_data.record([0.5], chosen=tiny_data.settings(seed=int(seed))) for seed in ("1", "2", "3")
    }
    ledger = Ledger(tmp_path / "ledger")
    for record in records.values():
        ledger.add(record)
    training = Training(
        model="lstm", schedule="cosine", dataset="imdb", tuned="tuned", searches=1, settings={},
        cell=Tracked(key="cell-" + "c" * 64, run_id=None),
        seeds={seed: seed_run(one.identity, weights=seed == "1") for seed, one in records.items()},
    )  # fmt: skip
    with pytest.raises(StudyError) as error:
        evaluate_stage._task(ledger, training, "2", tmp_path, "train@lstm-cosine")
    said = str(error.value)
    assert said.startswith(
        "lstm-cosine: trained and not measured on test data yet, and without weights here: seed 2, 3."
    )
    without = " ".join(records[seed].identity[:16] for seed in ("2", "3"))
    assert f"`python -m lrstudy.ledger retrain {without}`" in said
    assert "`dvc pull`" in said
    with pytest.raises(
        StudyError, match=r"seed-1: not the weights of the training .* `dvc repro --force -s`"
    ):
        evaluate_stage._task(ledger, training, "1", tmp_path, "train@lstm-cosine")


# --- the theory ---


def test_compare_takes_what_the_theory_stages_left_and_says_what_has_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    toy = {"figures": ["toy.svg", "toy.png"]}
    a, b, c = (THEORY[0] | {"id": name} for name in "abc")
    for claim in (a, b, c):
        del claim["experiment"]  # compare adds it
    write_json(
        "reports/late_decay.json",
        {"claims": [a, b], "toy": toy, "models": {"lstm": {"figures": ["b_lstm.svg"]}}},
    )
    assert theory().missing == ["level_sets"]
    assert "level_sets.json: not there; `dvc repro level_sets` makes it" in capsys.readouterr().err
    write_json("reports/level_sets.json", {"claims": [c], "models": {}})
    assert theory().model_dump(exclude_unset=True) == {
        "claims": [
            {"experiment": "late_decay", **a},
            {"experiment": "late_decay", **b},
            {"experiment": "level_sets", **c},
        ],
        "figures": {"late_decay": ["toy.svg", "b_lstm.svg"], "level_sets": []},
        "sha256": {
            name: hashlib.sha256(Path(f"reports/{name}.json").read_bytes()).hexdigest()
            for name in ("late_decay", "level_sets")
        },
        "missing": [],
    }


def test_a_report_takes_the_theorys_figures_of_the_numbers_that_were_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    leave("level_sets", {"claims": [], "models": {}})
    toy = {"figures": ["toy.svg"]}
    leave("late_decay", {"claims": [], "toy": toy, "models": {}})
    numbers = Path("reports/late_decay.json").read_text()
    Path("artifacts/theory/late_decay/toy.svg").write_text("<svg/>")
    left = theory()
    (drawn,) = bring_theory(left)
    assert (drawn, drawn.read_text()) == (Path("reports/figures/late_decay_toy.svg"), "<svg/>")

    # A run of something else, and the study's reports/ brought back: its figures are not the study's.
    leave("late_decay", {"claims": [THEORY[0]], "toy": toy, "models": {}})
    Path("artifacts/theory/late_decay/toy.svg").write_text("<svg>another</svg>")
    with pytest.raises(StudyError, match=r"late_decay\.json: not what .*comparison\.json was made from"):
        bring_theory(left)
    Path("reports/late_decay.json").write_text(numbers)
    assert bring_theory(left) == [drawn]
    assert drawn.read_text() == "<svg/>"

    shutil.rmtree("artifacts")  # a fresh clone
    assert bring_theory(left) == [drawn]
    drawn.unlink()
    with pytest.raises(
        StudyError, match=r"late_decay_toy\.svg: not there, nor in .* `git restore reports/figures`"
    ):
        bring_theory(left)


def test_weights_that_cannot_be_used_name_their_file_and_the_stage_that_makes_it(trained, tmp_path):
    from safetensors.torch import save_file

    folder = tmp_path / "weights"
    shutil.copytree(trained["folder"], folder)
    path = folder / "last.safetensors"
    whole = path.read_bytes()

    def refused(why: str) -> None:
        with pytest.raises(StudyError) as error:
            measure(evaluation(trained, folder))
        assert str(error.value).startswith(f"{path}: {why}")
        assert re.search("`dvc repro (--force -s )?train@lstm-cosine` makes it", str(error.value))

    path.unlink()
    refused("not found")
    path.write_bytes(b"not weights at all")
    refused("not a file of tensors (")
    save_file(torch.nn.Linear(3, 1).state_dict(), path)
    refused("the weights of another model (")
    path.write_bytes(whole)
    assert measure(evaluation(trained, folder)).num_examples == tiny_data.SIZES["test"]


def test_the_weights_of_a_training_that_another_row_asked_for_first_are_found(trained, tmp_path):
    """Rows with the same settings, as triangular and cyclical have, are one training."""
    other = tmp_path / "checkpoints/lstm-triangular" / trained["key"][:16]
    shutil.copytree(trained["folder"], other)
    shutil.rmtree(trained["folder"])
    mine = trained | {"folder": str(tmp_path / "checkpoints/lstm-cyclical" / trained["key"][:16])}
    assert place_weights({1: mine}, tmp_path / "out", tmp_path) == {1: find_record(trained)}
    assert (tmp_path / "out/seed-1/last.safetensors").read_bytes() == (
        other / "last.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(("num_epochs", "beginnings"), [(10, False), (20, True)])
def test_the_papers_figures_are_drawn_at_ten_epochs_too_where_the_study_has_more(
    tmp_path, monkeypatch, num_epochs, beginnings
):
    monkeypatch.chdir(tmp_path)
    study = known_study.written(known_study.comparison(known_study.cells()))
    study["cells"]["resnet"]["static"]["num_epochs"] = num_epochs
    study = known_study.read(study)
    seen = []

    def spy(rows, titles, *args, **options):
        seen.append((list(titles), {row["schedule"] for row in rows}, max(row["epoch"] for row in rows)))
        return drawn(rows, titles, *args, **options)

    drawn = report_stage.loss_figure
    monkeypatch.setattr(report_stage, "loss_figure", spy)
    monkeypatch.setattr(report_stage, "save_figure", lambda figure, path, **_: path)  # takes longest
    rows = [
        row | {"epoch": float(epoch)}
        for row in curves(known_study.measured(known_study.cells()))
        if row["epoch"] == 1
        for epoch in range(1, num_epochs + 1)
    ]
    names = {path.name for path in report_stage.draw(study, rows)}
    (section,) = (section for section in document(study).sections if section.title == "Curves")
    assert {figure.name for figure in section.figures} <= names  # each figure that the report shows is there
    ten = {"losses_10.svg", "train_accuracy_10.svg", "validation_accuracy_10.svg"}
    assert {name for name in names if "_10" in name} == (ten if beginnings else set())
    assert ten <= {figure.name for figure in section.figures} or not beginnings
    assert seen[1:] == ([(["resnet"], {"static"}, 10.0)] if beginnings else [])


def test_the_champion_of_a_data_set_is_the_run_of_lowest_validation_loss_that_did_not_diverge():
    study = known_study.written(known_study.comparison(known_study.cells()))
    losses = {
        ("resnet", "static"): [0.9, 0.7, None], ("resnet", "exponential"): [0.9, None, 0.9],
        ("resnet", "cosine"): [None, 0.8, 0.8],
        ("lstm", "static"): [0.5, 0.4, 0.5], ("lstm", "exponential"): [None, None, 0.3],
        ("lstm", "cosine"): [0.6, 0.6, 0.6],
    }  # fmt: skip

    def put(model: str, schedule: str, found: list[float | None]) -> None:
        metric = study["cells"][model][schedule]["metrics"]["validation/loss"]
        metric["values"] = dict(zip("123", found, strict=True))

    for (model, schedule), found in losses.items():
        put(model, schedule, found)
    best = champions(known_study.read(study))
    assert best == {
        "cifar10": Champion("resnet", "static", "2", 0.7),
        "imdb": Champion("lstm", "exponential", "3", 0.3),
    }
    assert best["imdb"].told() == {
        "model": "lstm", "schedule": "exponential", "seed": "3", "validation/loss": 0.3,
    }  # fmt: skip
    for schedule in ("static", "exponential", "cosine"):
        put("resnet", schedule, [None] * 3)
    assert list(champions(known_study.read(study))) == ["imdb"]
