"""Two lengths of a network through DVC, on the sample: which stages there are, and which an edit makes stale."""

from pathlib import Path

import pytest

from test_end_to_end import Copy

pytestmark = pytest.mark.slow
CHOSEN = [
    "evaluate", "-S", "data=sample", "-S", "preset=smoke", "-S", "model=[lstm,lstm_20_epochs]",
    "-S", "schedule=[static,step,exponential]", "-S", "tune.num_trials=2", "-S", "num_epochs.imdb=2",
]  # fmt: skip
SHORT = ["lstm-static", "lstm-step", "lstm-exponential"]
LONG = ["lstm_20_epochs-static", "lstm_20_epochs-step"]


@pytest.fixture(scope="module")
def lengths(tmp_path_factory) -> Copy:
    """A finished smoke study of an LSTM for two and for four epochs."""
    copy = Copy(tmp_path_factory.mktemp("lengths"))
    copy.printed = copy.run("dvc", "exp", "run", *CHOSEN, "-S", "model.lstm_20_epochs.num_epochs=4")
    return copy


def of_cells(stages: set[str]) -> set[str]:
    return {name for name in stages if name.split("@")[0] in ("tune", "train", "evaluate")}


def test_a_row_with_anothers_values_has_no_search_and_trains_after_that_of_the_other(lengths):
    ran = of_cells(lengths.stages_run(lengths.printed))
    assert ran == {
        *(f"tune@{cell}" for cell in SHORT),
        *(f"{stage}@{cell}" for stage in ("train", "evaluate") for cell in [*SHORT, *LONG]),
    }
    assert set(lengths.run("dvc", "stage", "list", "--name-only").split()) >= ran
    edges = lengths.run("dvc", "dag", "--dot", "train@lstm_20_epochs-step")
    assert '"tune@lstm-step" -> "train@lstm_20_epochs-step"' in edges.replace("'", '"')


def test_the_longer_training_has_the_values_that_the_shorter_ones_search_found(lengths):
    for schedule in ("static", "step"):
        best = lengths.json(f"artifacts/tuned/lstm/{schedule}/best.json")
        short, long = (
            lengths.json(f"artifacts/train/{m}/{schedule}/training.json") for m in ("lstm", "lstm_20_epochs")
        )
        assert (long["tuned_as"], long["tuned"]) == ("lstm", "tuned")
        assert "tuned_as" not in short
        assert long["seeds"]["1"]["values"] == short["seeds"]["1"]["values"] == best["values"]
        assert (short["settings"]["num_epochs"], long["settings"]["num_epochs"]) == (2, 4)
        assert short["settings"]["optimizer"] == long["settings"]["optimizer"]
    steps = [s["settings"]["schedule"]["parameters"] for s in (short, long)]
    assert steps[0]["first_drop"] == steps[1]["first_drop"]
    assert steps[1]["step_size"] == pytest.approx(2 * steps[0]["step_size"], rel=1e-9)
    assert not Path(lengths.folder / "artifacts/tuned/lstm_20_epochs").exists()


def test_a_length_makes_its_own_row_stale_and_no_search(lengths):
    assert of_cells(lengths.stages_run(lengths.run("dvc", "repro", "evaluate"))) == set()
    longer = lengths.run("dvc", "exp", "run", *CHOSEN, "-S", "model.lstm_20_epochs.num_epochs=3")
    assert of_cells(lengths.stages_run(longer)) == {
        f"{stage}@{cell}" for stage in ("train", "evaluate") for cell in LONG
    }
    # and one column alone is what is left of each row
    column = lengths.run(
        "dvc", "exp", "run", *CHOSEN, "-S", "model.lstm_20_epochs.num_epochs=3", "-S", "schedule=exponential"
    )
    assert of_cells(lengths.stages_run(column)) <= {
        f"{s}@lstm-exponential" for s in ("tune", "train", "evaluate")
    }


def test_a_row_without_the_other_is_one_error(lengths):
    said = lengths.run("dvc", "exp", "run", *CHOSEN, "-S", "model=lstm_20_epochs", fails=True)
    assert (
        "error: params.yaml: model.lstm_20_epochs.tuned_as: 'lstm' is not among the models of this study"
        in said
    )
    said = lengths.run(
        "dvc", "exp", "run", *CHOSEN, "-S", "model.lstm_20_epochs.schedules=[static,stp]", fails=True
    )
    assert "model.lstm_20_epochs.schedules: stp is no schedule; choose from " in said
    assert lengths.stages_run(said) == set()
