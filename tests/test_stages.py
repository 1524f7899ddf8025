"""The stages' own functions: predictions and what is scored from them, the histories that compare reads."""

import hashlib
import io
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

import known_study
import lrstudy.stages.report as report_stage
import tiny_data
from lrstudy.comparison import curves
from lrstudy.data import read_meta
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.report import document
from lrstudy.stages import evaluate as evaluate_stage
from lrstudy.stages.compare import read_history, theory
from lrstudy.stages.evaluate import load_weights, predict_seed, prediction_table, score_saved
from lrstudy.stages.publish import champions
from lrstudy.stages.report import bring_theory

LABELS = np.array([1, 0, 1, 0, 1])
# the probability of class 1: right, right, wrong, wrong, right
LAST = np.array([0.75, 0.25, 0.375, 0.5625, 0.875])
BEST = np.array([0.75, 0.25, 0.625, 0.4375, 0.875])  # all right


def binary(probabilities: np.ndarray) -> np.ndarray:
    return np.stack([1 - probabilities, probabilities], axis=1).astype("float32")


def found(seed: int, last: np.ndarray = LAST, best: np.ndarray = BEST) -> dict:
    """What predicting with one seed's weights returns; the examples are numbers 10 to 14."""
    index = np.arange(10, 15)
    return {"seed": seed, "index": index, "label": LABELS, "last": binary(last), "best": binary(best)}


def saved(*predictions: dict) -> pa.Table:
    """The table as it comes back from predictions.parquet."""
    file = io.BytesIO()
    pa.parquet.write_table(
        pa.concat_tables(prediction_table(one) for one in predictions), file, compression="zstd"
    )
    return pa.parquet.read_table(file)


@pytest.mark.parametrize("same", [True, False])
def test_the_best_epochs_weights_are_predicted_with_only_if_they_are_other_ones(tmp_path, monkeypatch, same):
    from safetensors.torch import save_file

    from lrstudy.evaluation import predict
    from lrstudy.models import make_model

    data = tiny_data.write_dataset("text", tmp_path / "imdb")
    settings = tiny_data.settings("lstm")
    for seed, name in enumerate(("last", "best")):
        torch.manual_seed(0 if same else seed)
        model = make_model(settings["model"], read_meta(data))
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    calls = []
    monkeypatch.setattr(evaluate_stage, "predict", lambda *given: calls.append(given) or predict(*given))
    found = predict_seed(
        {
            "seed": 1, "folder": str(tmp_path), "made_by": "train", "data": str(data), "settings": settings,
            "model": None,
        }
    )  # fmt: skip
    assert len(calls) == (1 if same else 2)
    assert np.array_equal(found["best"], found["last"]) == same
    assert found["best"].shape == (len(found["label"]), 2)


def test_the_table_has_a_row_per_seed_kind_of_weights_and_example():
    table = saved(found(1), found(2))
    assert table.column_names == [
        "seed", "weights", "index", "label", "predicted", "probability_0", "probability_1",
    ]  # fmt: skip
    rows = table.to_pylist()
    assert len(rows) == 2 * 2 * 5
    assert [(row["seed"], row["weights"]) for row in rows[::5]] == [
        (1, "last"),
        (1, "best"),
        (2, "last"),
        (2, "best"),
    ]
    assert rows[3] == {
        "seed": 1, "weights": "last", "index": 13, "label": 0, "predicted": 1,
        "probability_0": 0.4375, "probability_1": 0.5625,
    }  # fmt: skip


def test_two_classes_are_scored_as_worked_by_hand():
    scores = score_saved(saved(found(1)), 1, "last", 2)
    assert scores["accuracy"] == 0.6
    # class 1: two found, one missed, one false: 2 x 2 / (2 x 2 + 1 + 1)
    assert scores["f1"] == pytest.approx(2 / 3, rel=1e-15)
    likelihood = 0.75 * 0.75 * 0.375 * 0.4375 * 0.875
    assert scores["loss"] == pytest.approx(-math.log(likelihood) / 5, rel=1e-12)
    assert scores["confusion"] == [[1, 1], [1, 2]]  # a row per true class


def test_each_seed_and_kind_of_weights_is_scored_from_its_own_rows():
    table = saved(found(1), found(2, last=BEST, best=LAST))
    assert score_saved(table, 1, "last", 2) == score_saved(table, 2, "best", 2)
    assert score_saved(table, 1, "best", 2) == score_saved(table, 2, "last", 2)
    assert score_saved(table, 1, "best", 2)["accuracy"] == 1.0
    assert score_saved(table, 1, "best", 2)["confusion"] == [[2, 0], [0, 3]]


def test_many_classes_are_scored_by_the_mean_over_classes():
    probabilities = np.array(
        [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [0.125, 0.125, 0.75]], "float32"
    )
    predictions = {"seed": 1, "index": np.arange(4), "label": np.array([0, 1, 1, 2])}
    scores = score_saved(saved(predictions | {"last": probabilities, "best": probabilities}), 1, "last", 3)
    assert scores["accuracy"] == 0.75
    assert scores["f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3, rel=1e-15)
    assert scores["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert scores["loss"] == pytest.approx(-math.log(0.5 * 0.5 * 0.25 * 0.75) / 4, rel=1e-12)


def test_a_class_that_never_occurs_is_no_error():
    probabilities = binary(np.array([0.75] * 5))
    predictions = found(1) | {"label": np.ones(5, int), "last": probabilities, "best": probabilities}
    scores = score_saved(saved(predictions), 1, "last", 2)
    assert (scores["accuracy"], scores["f1"]) == (1.0, 1.0)
    assert scores["confusion"] == [[0, 0], [0, 5]]


def test_the_rounding_of_saved_probabilities_does_not_show_in_the_loss(recwarn):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), size=50).astype("float32")
    predictions = {"seed": 1, "index": np.arange(50), "label": np.arange(50) % 10}
    scores = score_saved(saved(predictions | {"last": probabilities, "best": probabilities}), 1, "last", 10)
    rounded = probabilities.astype(np.float64)
    rounded /= rounded.sum(axis=1, keepdims=True)
    assert scores["loss"] == pytest.approx(
        -np.log(rounded[np.arange(50), np.arange(50) % 10]).mean(), rel=1e-12
    )
    assert not recwarn.list


def test_predictions_that_are_not_numbers_have_no_metrics():
    last = LAST.copy()
    last[3] = math.nan
    table = saved(found(1, last=last))
    assert score_saved(table, 1, "last", 2) == {"accuracy": None, "f1": None, "loss": None, "confusion": None}
    assert score_saved(table, 1, "best", 2)["accuracy"] == 1.0


# --- compare reads the histories ---


def test_a_history_is_read_as_numbers(tmp_path):
    path = tmp_path / "history.csv"
    names = ["seed", "epoch", "train/loss", "validation/loss", "validation/accuracy", "validation/f1", "lr"]
    path.write_text(f"{','.join(names)}\n1,1,0.1,0.2,0.3,0.4,0.5\n1,2,nan,0.2,0.3,0.4,0.5\n")
    first, second = read_history(path, "resnet-step")
    assert first == dict(zip(names, [1, 1, 0.1, 0.2, 0.3, 0.4, 0.5], strict=True))
    assert math.isnan(second["train/loss"])


BROKEN = [
    ("words", "seed,epoch\n1,one\n", "could not convert"),
    ("a short row", "seed,epoch,lr\n1,1\n", "NoneType"),
    ("a long row", "seed,epoch\n1,1,1\n", "list"),
    ("no rows", "seed,epoch\n", "it has no rows"),
    ("columns missing", "seed,epoch,lr\n1,1,0.1\n", "it has no train/loss, validation/loss, "),
    ("nothing", "", "it has no rows"),
]


@pytest.mark.parametrize(("content", "why"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_history_that_is_no_table_of_numbers_is_one_clear_error(tmp_path, content, why):
    path = tmp_path / "history.csv"
    path.write_text(content)
    with pytest.raises(StudyError) as error:
        read_history(path, "resnet-step")
    assert str(error.value).startswith(f"{path}: not a table of numbers (")
    assert why in str(error.value)
    assert "`dvc repro --force -s train@resnet-step` makes it anew" in str(error.value)


def test_a_missing_history_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(StudyError, match=r"history\.csv: not found; `dvc repro train@resnet-step` makes it"):
        read_history(tmp_path / "history.csv", "resnet-step")


def test_compare_takes_what_the_theory_stages_wrote(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy = {"figures": ["toy.svg", "toy.png"]}
    write_json(
        "artifacts/theory/late_decay.json",
        {"claims": [{"id": "a"}, {"id": "b"}], "toy": toy, "models": {"lstm": {"figures": ["b_lstm.svg"]}}},
    )
    with pytest.raises(StudyError, match=r"level_sets\.json: not found; `dvc repro level_sets` makes it"):
        theory()
    write_json("artifacts/theory/level_sets.json", {"claims": [{"id": "c"}], "models": {}})
    assert theory() == {
        "claims": [
            {"experiment": "late_decay", "id": "a"},
            {"experiment": "late_decay", "id": "b"},
            {"experiment": "level_sets", "id": "c"},
        ],
        "figures": {"late_decay": ["toy.svg", "b_lstm.svg"], "level_sets": []},
        "sha256": {
            name: hashlib.sha256(Path(f"artifacts/theory/{name}.json").read_bytes()).hexdigest()
            for name in ("late_decay", "level_sets")
        },
    }


def test_a_report_takes_the_theorys_results_that_were_compared_wherever_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json("artifacts/theory/level_sets.json", {"claims": [], "models": {}})
    toy = {"figures": ["toy.svg"]}
    write_json("artifacts/theory/late_decay.json", {"claims": [], "toy": toy, "models": {}})
    Path("artifacts/theory/late_decay").mkdir()
    Path("artifacts/theory/late_decay/toy.svg").write_text("<svg/>")
    comparison = {"theory": theory()}
    (drawn,) = bring_theory(comparison)
    assert drawn == Path("reports/figures/late_decay_toy.svg")
    numbers = Path("reports/late_decay.json").read_text()

    # A run of something else: its numbers are not the study's.
    write_json("artifacts/theory/late_decay.json", {"claims": [{"id": "another"}], "toy": toy, "models": {}})
    Path("artifacts/theory/late_decay/toy.svg").write_text("<svg>another</svg>")
    assert bring_theory(comparison) == [drawn]
    assert (drawn.read_text(), Path("reports/late_decay.json").read_text()) == ("<svg/>", numbers)

    shutil.rmtree("artifacts")  # a fresh clone
    assert bring_theory(comparison) == [drawn]
    drawn.unlink()
    with pytest.raises(
        StudyError, match=r"late_decay\.json: not there, or not what .* `dvc repro late_decay"
    ):
        bring_theory(comparison)


def test_weights_that_cannot_be_used_name_their_file_and_the_stage_that_makes_it(tmp_path):
    import torch
    from safetensors.torch import save_file

    model, path = torch.nn.Linear(2, 1), tmp_path / "last.safetensors"

    def refused(why: str) -> None:
        with pytest.raises(StudyError) as error:
            load_weights(model, path, "cpu", "train@lstm-step")
        assert str(error.value).startswith(f"{path}: {why}")
        assert "`dvc repro --force -s train@lstm-step` makes it anew" in str(error.value)

    refused("not found")
    path.write_bytes(b"not weights at all")
    refused("not a file of weights (")
    save_file(torch.nn.Linear(3, 1).state_dict(), path)
    refused("the weights of another model (")
    other = torch.nn.Linear(2, 1)
    save_file(other.state_dict(), path)
    assert load_weights(model, path, "cpu", "train@lstm-step").keys() == {"weight", "bias"}
    assert torch.equal(model.weight, other.weight)


@pytest.mark.parametrize(("num_epochs", "beginnings"), [(10, False), (20, True)])
def test_the_papers_figures_are_drawn_at_ten_epochs_too_where_the_study_has_more(
    tmp_path, monkeypatch, num_epochs, beginnings
):
    monkeypatch.chdir(tmp_path)
    study = known_study.comparison(known_study.cells())
    study["cells"]["resnet"]["static"]["num_epochs"] = num_epochs
    seen = []

    def spy(rows, titles, *args, **options):
        seen.append((list(titles), {row["schedule"] for row in rows}, max(row["epoch"] for row in rows)))
        return drawn(rows, titles, *args, **options)

    drawn = report_stage.loss_figure
    monkeypatch.setattr(report_stage, "loss_figure", spy)
    rows = [
        row | {"epoch": float(epoch)}
        for row in curves(known_study.cells())
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
    def cell(dataset: str, *losses: float | None) -> dict:
        values = {str(seed): loss for seed, loss in enumerate(losses, 1)}
        return {"dataset": dataset, "metrics": {"validation/loss": {"values": values}}}

    found = champions(
        {
            "cells": {
                "resnet": {"static": cell("cifar10", 0.9, 0.7), "cosine": cell("cifar10", None, 0.8)},
                "lstm": {"static": cell("imdb", 0.5, 0.4)},
                "transformer": {"static": cell("imdb", None, 0.3)},
            }
        }
    )
    assert found == {
        "cifar10": {"model": "resnet", "schedule": "static", "seed": "2", "validation/loss": 0.7},
        "imdb": {"model": "transformer", "schedule": "static", "seed": "2", "validation/loss": 0.3},
    }
    assert champions({"cells": {"resnet": {"static": cell("cifar10", None)}}}) == {}
