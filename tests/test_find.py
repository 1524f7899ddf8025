"""The finder's command: range tests of what the study trains, told, drawn, kept and in MLflow."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from composed import composed_params
from lrstudy.errors import StudyError
from lrstudy.find import line_of, main, range_test
from lrstudy.lr_finder import RangeTest
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import load_params
from lrstudy.recipe.models import make_model
from lrstudy.recipe.optimizers import make_optimizer
from lrstudy.study.outputs import FoundRates
from lrstudy.study.tasks import whole_settings
from lrstudy.training.loop import prepare
from tiny_data import write_dataset

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(tmp_path, monkeypatch, one_thread):
    """A folder with a small LSTM in params.yaml and tiny data for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    params = composed_params(
        "model=[lstm]", "schedule=[static,cosine]", "batch_size.imdb=16", "train.precision=float32",
        "train.device=cpu", "train.gradient_clip=1.0", "model.lstm.embedding_size=8", "model.lstm.hidden_size=8",
    )  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    write_dataset("text", tmp_path / "data/processed/imdb")
    return tmp_path


def find(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["find", *arguments])
    main()


def test_run_k_trains_what_the_study_trains_with_seed_k(study):
    """By hand: the same network, optimizer, clipping, batches and dropout, at geometric rates."""
    params = load_params()
    settings = whole_settings(params, make_cell(params, "lstm", "static").settings(), seed=1)
    folder = study / "data/processed/imdb"
    test = range_test(settings, folder, runs=2, num_updates=10, lowest=1e-4, highest=1e-1)

    training, _, meta = prepare(settings, str(folder))
    torch.manual_seed(2)
    model = make_model(settings["model"], meta)
    optimizer = make_optimizer(settings["optimizer"]["name"], model, base_lr=1.0, weight_decay=0.01)
    torch.manual_seed(2)
    order, losses = torch.Generator().manual_seed(2), []
    while len(losses) < 10:
        for inputs, labels, _ in training.training_batches(16, order):
            if len(losses) < 10:
                for group in optimizer.param_groups:
                    group["lr"] = test.rates[len(losses)]
                loss = nn.functional.cross_entropy(model(*inputs), labels)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                losses.append(loss.item())
    assert test.losses[1] == tuple(losses)
    assert test.rates == pytest.approx([1e-4 * 10 ** (i / 3) for i in range(10)])


@pytest.mark.slow
def test_the_command_tells_draws_keeps_and_tracks_once(study, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    arguments = ("lstm", "--runs", "3", "--updates", "40", "--lowest", "1e-4", "--keep", "-o", "mine.svg")
    find(monkeypatch, *arguments)
    told = capsys.readouterr().out
    assert "lstm on " in told
    assert ", adamw, batches of 16: 3 runs of 40 updates, " in told
    kept = json.loads((study / "reports/finder/lstm.json").read_text())
    assert len(kept["losses"]) == 3
    for name, one in kept["suggestions"].items():
        said = (
            "none" if one["lr"] is None else f"{one['lr']:.3g}  runs: {one['low']:.3g} to {one['high']:.3g}"
        )
        assert f"  {name:<10}{said}\n" in told
    assert (study / "mine.svg").read_text().lstrip().startswith("<?xml")
    [picture] = study.glob("checkpoints/lstm/find-*/range_test.png")
    assert picture.read_bytes().startswith(b"\x89PNG")

    find(monkeypatch, *arguments)  # again: the same numbers, and the run that is there
    again = json.loads((study / "reports/finder/lstm.json").read_text())
    assert {name: again[name] for name in ("rates", "losses", "suggestions")} == {
        name: kept[name] for name in ("rates", "losses", "suggestions")
    }
    from mlflow import MlflowClient

    client = MlflowClient("sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("lrstudy")
    [run] = client.search_runs([experiment.experiment_id], "tags.kind = 'find'")
    assert run.info.status == "FINISHED"
    assert (run.data.tags["model"], run.data.params["updates"], run.data.params["runs"]) == (
        "lstm",
        "40",
        "3",
    )
    curve = client.get_metric_history(run.info.run_id, "range_test/lr")
    assert [metric.value for metric in curve] == pytest.approx(kept["rates"], rel=1e-5)
    suggested = {name: one["lr"] for name, one in kept["suggestions"].items() if one["lr"] is not None}
    assert {name: run.data.metrics[f"suggestion/{name}"] for name in suggested} == suggested
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["range_test.png"]


@pytest.mark.parametrize("path", sorted((ROOT / "reports/finder").glob("*.json")), ids=lambda path: path.stem)
def test_committed_suggestions_are_what_the_rules_say_of_the_committed_losses(path):
    found = FoundRates.read(path, "python -m lrstudy.find")
    test = RangeTest(tuple(found.rates), tuple(map(tuple, found.losses)), found.smoothing)
    assert found.model == path.stem
    assert found.suggestions.keys() == test.suggestions().keys()
    for name, one in test.suggestions().items():
        kept = found.suggestions[name]
        for a, b in zip(
            [one.lr, one.low, one.high, *one.runs], [kept.lr, kept.low, kept.high, *kept.runs], strict=True
        ):
            assert (a is None) == (b is None)
            assert a is None or a == pytest.approx(b, rel=1e-4)  # rates have six digits in the file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lstmm",), "'lstmm' is not a model of this study; choose one of lstm. Did you mean 'lstm'?"),
        (("lstm", "--schedule", "cosin"), "'cosin' is not a schedule of this study; choose one of "),
        (("lstm", "--runs", "0"), "--runs is 0; allowed: 1 or more."),
        (("lstm", "--updates", "3"), "find_lr: num_updates is 3; allowed: "),
        (
            ("lstm", "--highest", "1e-6"),
            "find_lr: lowest is 1e-05 and highest 1e-06; allowed: lowest < highest.",
        ),
        (("lstm", "--data", "elsewhere"), "elsewhere"),
        (("lstm", "--data", "images"), "--data: images has data of the kind image, and lstm takes text; "),
        (
            ("lstm", "-o", "picture.gif"),
            "picture.gif: not a figure's ending; choose one of .png, .pdf, .svg.",
        ),
    ],
)
def test_a_mistake_is_one_clear_error_before_anything_is_trained(study, monkeypatch, arguments, message):
    write_dataset("image", study / "images")
    monkeypatch.setattr("lrstudy.training.loop.prepare", None)
    with pytest.raises(StudyError) as found:
        find(monkeypatch, *arguments)
    assert message in str(found.value)


@pytest.mark.parametrize("count", [1, 2, 7, 59, 60, 61, 200])
def test_a_line_shows_the_lowest_and_the_highest(count):
    line = line_of([float(i % 50) for i in range(count)])
    assert len(line) == min(count, 60)
    assert "▁" in line
    assert count == 1 or "█" in line


def test_a_flat_line_is_low():
    assert line_of([2.0] * 5) == "▁▁▁▁▁"
