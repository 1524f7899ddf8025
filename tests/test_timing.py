"""What an update costs: the order of the rounds, the real loop behind a block, and what the seconds say."""

import json
import math
import sys

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import known_study
from composed import composed_params
from lrstudy.analysis.timing import log_ratios, orders, time_rows, timed_cells, with_ratios
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger.record import Data
from lrstudy.recipe.config import check_params
from lrstudy.stages import compare
from lrstudy.stages.timing import main
from lrstudy.study.outputs import Timing
from lrstudy.training import loop
from tiny_data import settings, write_dataset

# The order of the rows


@given(st.integers(1, 20), st.integers(1, 20))
def test_every_round_has_every_row_once_and_every_other_one_is_the_reverse(count, num_pairs):
    rows = [f"row {number}" for number in range(count)]
    found = orders(rows, 2 * num_pairs)
    assert len(found) == 2 * num_pairs
    assert all(sorted(order) == sorted(rows) for order in found)
    assert all(found[place + 1] == found[place][::-1] for place in range(0, len(found), 2))
    assert orders(rows, 2 * num_pairs) == found


@given(
    st.lists(st.floats(-2, 2), min_size=2, max_size=6),
    st.integers(1, 6),
    st.floats(-0.1, 0.1),
)
def test_a_steady_drift_of_the_machine_leaves_every_ratio_as_it_is(costs, num_pairs, drift):
    """In log seconds a row is its cost and what the drift has come to at its place."""
    rows = [f"row {number}" for number in range(len(costs))]
    seconds = {row: [] for row in rows}
    blocks = [row for order in orders(rows, 2 * num_pairs) for row in order]
    for place, row in enumerate(blocks):
        seconds[row].append(math.exp(costs[rows.index(row)] + drift * place))
    found = log_ratios(seconds, ["row 1"], ["row 0"])
    assert found == pytest.approx(np.full(num_pairs, costs[1] - costs[0]), abs=1e-9)


# What the seconds say


def test_a_pair_of_rounds_gives_one_ratio_and_several_rows_their_geometric_mean():
    seconds = {"a": [2.0, 8.0, 3.0, 3.0], "b": [1.0, 1.0, 4.0, 1.0], "c": [1.0, 1.0, 1.0, 1.0]}
    # pairs: a 4, 3; b 1, 2; c 1, 1
    assert log_ratios(seconds, ["a"], ["b"]) == pytest.approx(np.log([4, 1.5]))
    assert log_ratios(seconds, ["a"], ["b", "c"]) == pytest.approx(np.log([4, 3 / math.sqrt(2)]))


def row(seconds: list[float]) -> dict:
    return {"optimizer": "sgd", "controller": "none", "moves": False, "diverged": 0, "seconds": seconds}


def timed(schedules: dict, optimizers: dict | None = None) -> Timing:
    rows = {"schedules": schedules, "optimizers": optimizers or {}}
    return Timing.model_validate(known_study.timing("resnet") | rows)


def test_a_row_has_the_median_of_its_seconds_and_of_its_ratios_with_their_exact_interval():
    ratios = [1.1, 1.2, 1.0, 1.3, 0.9, 1.4]
    static = [0.5] * 12
    cosine = [0.5 * ratio for ratio in ratios for _ in range(2)]
    timing = timed({"static": row(static), "cosine": row(cosine)}, {"adam": row(cosine)})
    found = with_ratios(timing, "static", 0.95)
    assert found.schedules["static"].seconds_per_update == 0.5
    assert (found.schedules["static"].ratio, found.schedules["static"].interval) == (None, None)
    for other in (found.schedules["cosine"], found.optimizers["adam"]):
        assert other.ratio == pytest.approx(math.sqrt(1.1 * 1.2))  # between the two in the middle
        assert other.interval == pytest.approx((0.9, 1.4))  # six values: their range
        assert other.seconds_per_update == pytest.approx(0.5 * 1.15)
        assert other.seconds == cosine
    assert timing.schedules["cosine"].model_dump(exclude_unset=True) == row(cosine)
    alone = with_ratios(timed({"cosine": row(cosine)}), "static", 0.95)
    assert alone.schedules["cosine"].ratio is None
    few = with_ratios(timed({"static": row(static[:10]), "cosine": row(cosine[:10])}), "static", 0.95)
    assert few.schedules["cosine"].interval is None


# A block is an epoch of the real loop


@pytest.fixture
def watched(monkeypatch, one_thread):
    """The trainings that were run, an epoch each: settings, epochs done before, examples, validation examples."""
    seen, real = [], loop.train

    def train(chosen, train_split, validation, meta, *, state=None, on_epoch):
        done = len(state["epochs"]) if state else 0
        seen.append((chosen, done, len(train_split), len(validation)))
        return real(chosen, train_split, validation, meta, state=state, on_epoch=on_epoch)

    monkeypatch.setattr(loop, "train", train)
    return seen


def task(tmp_path, rows: dict, kind: str = "text", **changes) -> dict:
    data = write_dataset(kind, tmp_path / "data")
    return {
        "label": "timing", "settings": rows, "data": str(data), "rounds": 4, "updates": 2, "revision": "",
    } | changes  # fmt: skip


def test_the_blocks_of_a_row_walk_its_training_from_start_to_end_and_begin_anew(watched, tmp_path):
    rows = {name: settings() for name in ("one", "other")}
    found = time_rows(task(tmp_path, rows))
    assert found["updates"] == 2
    assert {name: len(seconds) for name, seconds in found["seconds"].items()} == {"one": 4, "other": 4}
    assert all(value > 0 for seconds in found["seconds"].values() for value in seconds)
    assert found["diverged"] == {"one": 0, "other": 0}
    assert found["origin"]["versions"]["torch"]
    assert {(examples, validated) for _, _, examples, validated in watched} == {(2 * 16, 2)}
    # One block each before the rounds; three epochs a training, then the next seed's.
    assert [done for _, done, _, _ in watched[:2]] == [0, 0]
    rounds = [watched[2 + 2 * number : 4 + 2 * number] for number in range(4)]
    assert [[done for _, done, _, _ in one] for one in rounds] == [[number % 3] * 2 for number in range(4)]
    seeds = [[chosen["seed"] for chosen, *_ in one] for one in rounds]
    assert seeds == [[1 + number // 3] * 2 for number in range(4)]


def test_a_training_that_diverges_begins_anew_and_is_counted(watched, tmp_path):
    wild = settings("resnet", optimizer={"name": "sgd", "base_lr": 1e30})
    found = time_rows(task(tmp_path, {"static": settings("resnet"), "wild": wild}, "image"))
    assert found["diverged"]["static"] == 0
    assert found["diverged"]["wild"] >= 2
    assert all(math.isfinite(value) for value in found["seconds"]["wild"])


def test_a_block_has_as_many_updates_as_the_split_allows(tmp_path, one_thread):
    found = time_rows(task(tmp_path, {"static": settings()}, updates=100, rounds=2))
    assert found["updates"] == 70 // 16


# What is timed


def small(*overrides: str):
    return check_params(composed_params("model=[lstm]", "schedule=[static,static_monitored]", *overrides))


def test_a_models_cells_and_the_optimizers_at_a_constant_rate_are_timed():
    params = small("optimizer=adagrad", "controller=sparsity")
    cells = timed_cells(params, "lstm")
    assert list(cells["schedules"]) == ["static", "static_monitored"]
    assert {cell.optimizer.name for cell in cells["schedules"].values()} == {"adagrad"}
    assert [cell.controller.name for cell in cells["schedules"].values()] == [
        "sparsity",
        "validation_monitor",
    ]
    assert set(cells["optimizers"]) == set(params.timing.optimizers)
    for name, cell in cells["optimizers"].items():
        chosen = cell.settings()
        assert chosen["optimizer"]["name"] == name
        assert chosen["schedule"]["function"] == "static"
        assert chosen["controller"] == {"name": "none"}
        assert "search" not in chosen["optimizer"]


def test_what_cannot_be_timed_gets_one_clear_error():
    with pytest.raises(StudyError, match=r"params\.yaml: model: 'lsmt' is not a model of this study"):
        timed_cells(small(), "lsmt")
    with pytest.raises(
        StudyError, match=r"params\.yaml: timing\.optimizers\.adam: optimizer adam: 'beta3' is not"
    ):
        timed_cells(small("+timing.optimizers.adam.beta3=0.9"), "lstm")


def test_the_stage_writes_what_it_timed_and_compare_reads_it(tmp_path, monkeypatch, one_thread, capsys):
    monkeypatch.chdir(tmp_path)
    params = composed_params(
        "model=[lstm]", "schedule=[static,cosine]", "timing=seconds", "batch_size.imdb=16",
        "model.lstm.embedding_size=8", "model.lstm.hidden_size=8",
    )  # fmt: skip
    keep = {"sgd", "adam"}
    params["timing"]["optimizers"] = {
        name: one for name, one in params["timing"]["optimizers"].items() if name in keep
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    write_dataset("text", tmp_path / "data/processed/imdb")
    monkeypatch.setattr(sys, "argv", ["timing", "lstm"])
    main()
    written = json.loads((tmp_path / "reports/timing/lstm.json").read_text())
    assert {kind: set(written[kind]) for kind in ("schedules", "optimizers")} == {
        "schedules": {"static", "cosine"}, "optimizers": keep,
    }  # fmt: skip
    assert [written["schedules"][name]["moves"] for name in ("static", "cosine")] == [False, True]
    assert (written["rounds"], written["updates"], written["batch_size"], written["device"]) == (
        2,
        1,
        16,
        "cpu",
    )
    assert written["precision"] in ("float32", "bfloat16")
    assert all(
        len(one["seconds"]) == 2 for kind in ("schedules", "optimizers") for one in written[kind].values()
    )
    assert "round 2 of 2" in capsys.readouterr().err

    # A study of fewer rows finds them there; one of a new row, or of more rounds, times all of its rows.
    fewer = params | {"cells": {name: one for name, one in params["cells"].items() if name == "lstm-cosine"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(fewer))
    main()
    assert "has all 3 rows; nothing is timed" in capsys.readouterr().err
    assert json.loads((tmp_path / "reports/timing/lstm.json").read_text()) == written
    assert set(compare.timings(check_params(fewer), {})["lstm"].schedules) == {"cosine"}
    for changed in (
        params | {"timing": params["timing"] | {"rounds": 4}},
        params | {"train": params["train"] | {"gradient_clip": 5.0}},
    ):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed))
        main()
        assert "round 2 of" in capsys.readouterr().err
    (tmp_path / "reports/timing/lstm.json").write_text('{"schedules": [], "optimizers": {}}')
    main()  # what is no timing is made again
    assert "round 2 of" in capsys.readouterr().err
    write_json(tmp_path / "reports/timing/lstm.json", written)

    params = check_params(params)
    data = {"imdb": Data(**written["data"])}
    assert compare.timings(params, data) == {"lstm": with_ratios(Timing(**written), "static", 0.95)}
    assert compare.timings(params, {"imdb": Data(**written["data"] | {"fingerprint": "another"})}) == {}
    assert "lstm.json: left out, for it was timed on other data" in capsys.readouterr().err
    (tmp_path / "reports/timing/lstm.json").unlink()
    assert compare.timings(params, data) == {}
    assert "reports/timing/lstm.json: not there; `dvc repro timing@lstm` makes it" in capsys.readouterr().err
