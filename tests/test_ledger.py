"""The ledger: what a record keeps, what is refused, and its command line."""

import contextlib
import errno
import gzip
import hashlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import tracemalloc
import zlib
from base64 import b64encode
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrstudy import ledger as ledger_module
from lrstudy import proof
from lrstudy.data import read_meta
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger import Ledger, read_code
from lrstudy.ledger.__main__ import cell_of, main
from lrstudy.ledger.equivalence import Equivalence, Pair, write_equivalence
from lrstudy.ledger.record import (
    ALWAYS_IN_FINAL,
    FORMAT,
    MAX_BYTES,
    MAX_TEXT,
    WEIGHTS,
    DamagedRecord,
    Data,
    NewerRecord,
    Record,
    encode,
    identity_in,
    pack_bits,
    pack_halves,
    read_record,
    test_of,
    unpack_bits,
    unpack_halves,
)
from lrstudy.process.exits import exit_status
from lrstudy.recipe.identity import content_hash, training_code, training_identity
from lrstudy.study.runs import find_weights, run_folder, train_run
from lrstudy.training.evaluation import measure
from tiny_data import SIZES, record, settings, task, write_dataset

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs/ledger.md"


def measured(seed: int = 0, num_examples: int = SIZES["test"], num_classes: int = 2, boost: float = 1.0):
    """A record's test part, measured on random logits; those of the label are higher by ``boost`` on average."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_examples)
    found = {}
    for name in WEIGHTS:
        logits = rng.normal(size=(num_examples, num_classes))
        logits[np.arange(num_examples), labels] += boost
        found[name] = measure(logits, labels)
    return test_of(found, num_examples)


def training(seed: int = 1, schedule: str = "cosine", losses=(0.7, 0.5, 0.6), **changes) -> Record:
    """A finished training of the LSTM."""
    chosen = settings(seed=seed, schedule={"function": schedule, "parameters": {}})
    labels = {"model": "lstm", "schedule": schedule, "role": "final"}
    return Record.model_validate(
        record(list(losses), chosen=chosen, **changes).model_dump() | {"labels": labels}
    )


def as_trial(found: Record) -> Record:
    """The same training as a search asks for it."""
    return found.model_copy(update={"labels": found.labels.model_copy(update={"role": "trial"})})


def on(found: Record, **origin) -> Record:
    """The same training with another origin."""
    return found.model_copy(update={"origin": found.origin.model_copy(update=origin)})


def place(folder: Path, found: Record) -> Path:
    name, content = encode(found)
    path = folder / name
    path.write_bytes(content)
    return path


def forge(folder: Path, content: dict | bytes, identity: str | None = None) -> Path:
    """A record's file as somebody writes it who knows the format: the name fits whatever the content is."""
    if isinstance(content, dict):
        identity = identity or content.get("identity", "0" * 64)
        if content.get("shared", "") is None:  # as records of format 1 are written
            content = {name: part for name, part in content.items() if name != "shared"}
        content = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
    name = f"{identity or '0' * 64}-{hashlib.sha256(content).hexdigest()[:16]}.json.gz"
    path = folder / name
    path.write_bytes(gzip.compress(content, mtime=0))
    return path


def place_newer(ledger: Ledger, found: Record) -> Path:
    """The training as a later version of the code has recorded it, which this one cannot read."""
    shelf = ledger.trainings / found.identity[:2]
    shelf.mkdir(parents=True, exist_ok=True)
    return forge(shelf, found.model_dump(mode="json") | {"format": FORMAT + 1, "a new field": 1})


def renamed(content: dict) -> dict:
    """The record's content with the identity that its settings, data and code have."""
    known = training_identity(content["settings"], content["data"]["fingerprint"], content["code"])
    return content | {"identity": known}


def run(ledger: Path, *arguments: object) -> int:
    """The command line's exit status."""
    return exit_status(lambda: main(["--ledger", str(ledger), *map(str, arguments)]))


def snapshot(folder: Path) -> dict[str, object]:
    """Every path below the folder with what it is."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


# ---------------------------------------------------------------------------------------------- what a record keeps

numbers = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_/.", max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def records(draw) -> Record:
    """Any finished or diverged training, with or without what test data said."""
    count = draw(st.integers(1, 5))
    losses = draw(st.lists(numbers, min_size=count, max_size=count))
    if draw(st.booleans()):
        losses[-1] = math.nan  # it diverged
    chosen = settings(seed=draw(st.integers(0, 2**63)), model={"anything": draw(plain)})
    found = record(losses, start=draw(st.floats(0, 1e12)), chosen=chosen)
    changes = {
        "interventions": draw(st.lists(plain.map(lambda value: {"epoch": 1, "why": value}), max_size=2))
    }
    if draw(st.booleans()):
        changes["test"] = measured(draw(st.integers(0, 100)), boost=draw(st.floats(-5, 50)))
    if draw(st.booleans()):
        changes["weights"] = {"last": "a" * 64, "best": "b" * 64}
    return found.model_copy(update=changes)


@given(found=records())
def test_what_is_written_is_read_back_in_full_precision(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("records")
    path = place(folder, found)
    assert read_record(path) == found
    assert encode(read_record(path)) == (path.name, path.read_bytes())
    assert identity_in(path.name) == found.identity


@given(st.lists(st.booleans(), max_size=70))
def test_bits_are_unpacked_as_they_were_packed(values):
    np.testing.assert_array_equal(unpack_bits(pack_bits(np.array(values, bool)), len(values)), values)


@given(st.lists(st.floats(width=16, allow_nan=False), max_size=70))
def test_halves_are_unpacked_to_the_bit(values):
    halves = np.array(values, np.float16)
    unpacked = unpack_halves(pack_halves(halves), len(values))
    assert unpacked.dtype == np.float16
    assert unpacked.tobytes() == halves.tobytes()  # -0.0 too


def test_results_by_example_say_which_were_right_and_how_surely():
    """Three reviews: surely right, just right, surely wrong."""
    logits = np.array([[0.0, 8.0], [0.1, 0.0], [5.0, 0.0]])
    found = measure(logits, np.array([1, 0, 1]))
    test = test_of({"last": found, "best": found}, 3)
    assert test.is_right().tolist() == [True, True, False]
    np.testing.assert_allclose(
        test.example_losses(),
        [math.log1p(math.exp(-8)), math.log1p(math.exp(-0.1)), math.log1p(math.exp(5))],
        rtol=1e-3,
    )
    assert test.last.accuracy == pytest.approx(2 / 3)


def history_like_a_training_s(count: int, rng: np.random.Generator) -> dict[str, list]:
    """A history with the quantities of a real one, all digits of each random: no number can be packed further."""
    names = (
        "train/loss", "train/accuracy", "train/f1", "train/f1_macro", "validation/loss",
        "validation/loss_standard_error", "validation/accuracy", "validation/f1", "validation/f1_macro", "lr", "gradient_norm", "weight_norm", "effective_step",
        "controller_factor", "seconds", "compute_seconds",
    )  # fmt: skip
    history = {name: rng.random(count).tolist() for name in names}
    start = 1_790_000_000.0
    return {
        "epoch": list(range(1, count + 1)),
        "time": (start + rng.random(count).cumsum()).tolist(),
    } | history


def large_record(
    num_examples: int, num_classes: int, num_epochs: int, margin: float, spread: float
) -> Record:
    """A training whose label's logit is above the others' by ``margin`` +- ``spread`` (normal) at every example."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, num_examples)
    found = {}
    for name in WEIGHTS:
        logits = rng.normal(size=(num_examples, num_classes))
        logits[np.arange(num_examples), labels] += rng.normal(margin, spread, num_examples)
        found[name] = measure(logits, labels)
    history = history_like_a_training_s(num_epochs, rng)
    losses = history["validation/loss"]
    chosen = settings(num_epochs=num_epochs)
    sizes = SIZES | {"test": num_examples}
    return record(
        losses,
        chosen=chosen,
        history=history,
        data=Data(dataset="imdb", label="IMDB", official=True, fingerprint="f" * 64, num_examples=sizes),
        weights=dict.fromkeys(WEIGHTS, "a" * 64),
        final={name: float(value) for name, value in zip(ALWAYS_IN_FINAL, rng.random(15), strict=True)},
        test=test_of(found, num_examples),
    )


@pytest.mark.parametrize(
    ("num_examples", "num_classes", "num_epochs", "margin", "spread", "accuracy"),
    [(25_000, 2, 10, 3.0, 2.3, 0.87), (10_000, 10, 200, 6.0, 2.5, 0.95)],
    ids=["25,000 reviews", "10,000 images and 200 epochs"],
)
def test_a_record_with_results_by_example_stays_under_60_kb(
    tmp_path, num_examples, num_classes, num_epochs, margin, spread, accuracy
):
    found = large_record(num_examples, num_classes, num_epochs, margin, spread)
    assert found.test.last.accuracy == pytest.approx(accuracy, abs=0.03)  # losses of a model that has learned
    path = place(tmp_path, found)
    assert read_record(path) == found
    assert path.stat().st_size < 60_000


# -------------------------------------------------------------------------------------------------- what is refused


def assert_damaged_or_equal(path: Path, content: bytes, found: Record) -> None:
    path.write_bytes(content)
    with contextlib.suppress(DamagedRecord):
        assert read_record(path) == found


def test_no_changed_byte_and_no_missing_end_goes_unnoticed(tmp_path):
    found = training(test=measured())
    path = place(tmp_path, found)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= rng.integers(1, 256)
        assert_damaged_or_equal(path, bytes(changed), found)
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(DamagedRecord):
            read_record(path)


@given(content=st.binary(max_size=300), end=st.booleans())
def test_other_bytes_are_no_record(tmp_path_factory, content, end):
    path = place(tmp_path_factory.mktemp("bytes"), found := training())
    assert_damaged_or_equal(path, path.read_bytes() + content if end else gzip.compress(content), found)


def nested(depth: int) -> dict:
    return {"deeper": nested(depth - 1)} if depth else {}


def long_list(content: dict) -> dict:
    return content | {"interventions": [{"epoch": 1, "text": "x" * MAX_TEXT}]}


def with_settings(**changes):
    return lambda content: renamed(content | {"settings": content["settings"] | changes})


def with_part(part: str, **changes):
    return lambda content: renamed(content | {part: content[part] | changes})


def with_scores(weights: str = "last", **changes):
    return lambda content: (
        content
        | {
            "test": content["test"] | {weights: content["test"][weights] | changes},
        }
    )


FORGED = {
    "an older format": (lambda c: c | {"format": 0}, "format 0; this version reads 1 to 2."),
    "true for a format": (lambda c: c | {"format": True}, "format True; this version reads 1 to 2."),
    "half a number for a format": (lambda c: c | {"format": 1.5}, "format 1.5; this version reads 1 to 2."),
    "no format": (lambda c: {k: v for k, v in c.items() if k != "format"}, "format None"),
    "a field too many": (lambda c: c | {"__class__": "os.system"}, "__class__: Extra inputs are not permitted"),
    "a field too few": (lambda c: {k: v for k, v in c.items() if k != "labels"}, "labels: Field required"),
    "a text for a number": (lambda c: c | {"best_epoch": "2"}, "best_epoch: Input should be a valid integer"),
    "an edited setting": (
        lambda c: c | {"settings": c["settings"] | {"batch_size": 64}},
        "settings, data and code have the identity",
    ),
    "no seed": (with_settings(seed=None), "settings has no seed that is a whole number"),
    "a model that is a text": (with_settings(model="resnet"), "settings has no model that is an object"),
    "a path for a model": (with_part("labels", model="../../x"), "labels.model: String should match"),
    "a path for a data set": (with_part("data", dataset="../raw"), "data.dataset: String should match"),
    "a path for weights": (lambda c: c | {"weights": {"../last": "a" * 64}}, "weights"),
    "NaN": (with_part("origin", ended=math.nan), "NaN is no number of JSON's"),
    "infinity": (lambda c: c | {"history": c["history"] | {"lr": [1e999, 1, 1]}}, "Infinity is no number"),
    "no JSON": (b'{"format": 1', "not JSON"),
    "a list": (b"[1]", "a list, not a record"),
    "not UTF-8": (b'{"format": "\xff"}', "not UTF-8"),
    "nested without end": (b'{"a":' * 100_000, "not JSON"),
    "deeply nested": (with_settings(extra=nested(900)), ""),
    "half a character": (with_settings(extra="\ud800"), "not UTF-8"),
    "escaped half a character": (b"surrogate", "has what no record can have"),
    "a number beyond all": (b"1e999", "not written as records are: infinite numbers"),
    "too long": (long_list, "unpacks to more than"),
    "an epoch too few": (
        lambda c: c | {"history": c["history"] | {"lr": [0.1]}},
        "history has 3 epochs and 1 of lr",
    ),
    "not all epochs": (with_settings(num_epochs=9), "it finished after 3 of 9 epochs"),
    "no loss": (lambda c: c | {"history": {"epoch": [1, 2, 3]}}, "history has no train/loss"),
    "no number though finished": (
        lambda c: c | {"history": c["history"] | {"lr": [None, 1.0, 1.0]}},
        "it finished with lr that is no finite number",
    ),
    "another best epoch": (lambda c: c | {"best_epoch": 3}, "best_epoch 3 has not the lowest validation/loss"),
    "an intervention without an epoch": (lambda c: c | {"interventions": [{}]}, "interventions has one in no epoch"),
    "another accuracy": (with_scores(accuracy=0.999), "confusion has"),
    "a score without the others": (with_scores(f1=None), "must stand together"),
    "a confusion of fewer examples": (
        with_scores("best", accuracy=0.5, f1_macro=1 / 3, confusion=[[1, 0], [1, 0]]),
        "confusion is of 2 examples, not 20",
    ),
    "a confusion that is no square": (with_scores(confusion=[[20], [0]]), "confusion is not square"),
    "more test examples": (
        lambda c: c | {"test": c["test"] | {"num_examples": 10**12}},
        "test.num_examples: Input should be less than",
    ),
    "other test examples": (with_part("data", num_examples={"test": 21}), "test is of 20 examples, the data have 21"),
    "losses that unpack without end": (
        lambda c: c | {"test": c["test"] | {"losses": b64encode(zlib.compress(bytes(10**7))).decode()}},
        "losses are",
    ),
    "losses that are no base64": (lambda c: c | {"test": c["test"] | {"losses": "!"}}, "not base64"),
    "other losses": (
        lambda c: c | {"test": c["test"] | {"losses": pack_halves(np.full(20, 9, np.float16))}},
        "losses have a mean of 9.0000",
    ),
    "another macro F1": (with_scores("ema", f1_macro=0.25), "confusion has a macro F1 of"),
    "bits of no average": (
        lambda c: c | {"test": c["test"] | {"right_tail_average": None}},
        "right_tail_average and the scores of tail_average must stand together",
    ),
    "an average's bits turned": (
        lambda c: c | {"test": c["test"] | {"right_tail_average": pack_bits(np.zeros(20, bool))}},
        "right says an accuracy of 0.000000, tail_average",
    ),
    "no end though finished": (lambda c: c | {"final": {}}, "it finished and final has no train_evaluated/loss"),
    "an end though diverged": (
        lambda c: c | {"status": "diverged"}, "it diverged, and final says what only a training that finished has"
    ),
    "bits turned": (
        lambda c: c | {"test": c["test"] | {"right": pack_bits(~unpack_bits(c["test"]["right"], 20))}},
        "right says an accuracy of",
    ),
    "too few bits": (lambda c: c | {"test": c["test"] | {"right": "AAA="}}, "right has 16 bits, not 20"),
    "spaces between": (b"spaces", "not written as records are"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGED)
def test_a_record_that_does_not_hold_together_is_refused_though_its_name_fits(tmp_path, kind):
    change, message = FORGED[kind]
    content = training(test=measured()).model_dump(mode="json")
    if callable(change):
        path = forge(tmp_path, change(content))
    elif change == b"surrogate":
        text = json.dumps(with_settings(extra="\ud800")(content)).encode()
        path = forge(tmp_path, text, json.loads(text)["identity"])
    elif change == b"1e999":
        content = renamed(content | {"settings": content["settings"] | {"extra": math.inf}})
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        text = text.replace("Infinity", "1e999").encode()
        path = forge(tmp_path, text, content["identity"])
    elif change == b"spaces":
        path = forge(tmp_path, json.dumps(content).encode(), content["identity"])
    else:
        path = forge(tmp_path, change)
    with pytest.raises(DamagedRecord) as caught:
        read_record(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_forged_records_differ_from_a_good_one_in_what_is_said_alone(tmp_path):
    """Else the refusals above would say nothing."""
    good = training(test=measured())
    path = forge(tmp_path, renamed(good.model_dump(mode="json")))
    assert read_record(path) == good


@pytest.mark.parametrize("its_format", [FORMAT + 1, 10**400])
def test_a_record_of_a_newer_format_is_not_called_damaged(tmp_path, its_format):
    path = forge(tmp_path, training().model_dump(mode="json") | {"format": its_format})
    with pytest.raises(NewerRecord) as caught:
        read_record(path)
    assert not isinstance(caught.value, DamagedRecord)
    assert str(caught.value).startswith(
        f"{path}: not readable by this version: format {str(its_format)[:17]}"
    )
    assert "update lrstudy" in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 200


def test_a_record_that_was_edited_to_be_of_a_newer_format_is_damaged(tmp_path):
    path = place(tmp_path, training())
    content = training().model_dump(mode="json") | {"format": 3}
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    with pytest.raises(DamagedRecord, match=r"format 3; this version reads 1 to 2\.$"):
        read_record(path)


def test_what_a_record_says_cannot_steer_a_terminal(tmp_path):
    content = training().model_dump(mode="json") | {"\x1b[2J": 1}
    with pytest.raises(DamagedRecord) as caught:
        read_record(forge(tmp_path, content))
    assert str(caught.value).isprintable()


def test_links_and_folders_are_no_records(tmp_path):
    path = place(tmp_path, training())
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / path.name)
    path.symlink_to(moved)
    with pytest.raises(DamagedRecord, match="a link, not the file of a record"):
        read_record(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedRecord, match="a folder, not the file of a record"):
        read_record(path)


def test_a_bomb_is_not_unpacked(tmp_path):
    """A hundred kilobytes that unpack to a hundred megabytes."""
    path = tmp_path / f"{'0' * 64}-{'0' * 16}.json.gz"
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, packed) as file:
        for _ in range(100):
            file.write(bytes(1_000_000))
    path.write_bytes(packed.getvalue())
    tracemalloc.start()
    try:
        with pytest.raises(DamagedRecord, match="unpacks to more than 16,000,000 bytes"):
            read_record(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 3 * MAX_TEXT


# ------------------------------------------------------------------------------------------------------- the folder


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    """One without trainings."""
    (tmp_path / "ledger/trainings").mkdir(parents=True)
    return Ledger(tmp_path / "ledger")


def test_what_is_added_is_found(ledger):
    found = training()
    path = ledger.add(found)
    assert path == ledger.trainings / found.identity[:2] / encode(found)[0]
    assert ledger.find(found.identity) == found
    assert ledger.find(training(seed=2).identity) is None
    assert list(ledger.records()) == [found]


@pytest.mark.parametrize("fuller", [{"test": measured()}, {"weights": {"last": "a" * 64, "best": "b" * 64}}])
def test_a_fuller_record_takes_the_place_of_the_same_that_says_less_whichever_comes_first(ledger, fuller):
    less = training()
    more = less.model_copy(update=fuller)
    ledger.add(less)
    path = ledger.add(more)
    assert list(ledger.paths()) == [path]
    assert ledger.add(less) == path
    assert list(ledger.records()) == [more]


def test_two_trainings_of_the_same_are_both_kept_and_the_fullest_then_the_oldest_counts(ledger):
    late, early = on(training(), ended=200.0, machine="b"), on(training(), ended=100.0, machine="a")
    for one in (late, early):
        ledger.add(one)
    assert ledger.all_of(early.identity) == [early, late]
    fuller = late.with_test(measured())
    ledger.add(fuller)
    assert ledger.all_of(early.identity) == [fuller, early]
    assert list(ledger.records()) == [fuller]


def test_a_final_s_record_takes_the_place_of_the_same_that_a_search_asked_for_whichever_comes_first(ledger):
    final = training(weights={"last": "a" * 64, "best": "b" * 64})
    trial = as_trial(training())
    trial = trial.model_copy(update={"labels": trial.labels.model_copy(update={"schedule": "as_searched"})})
    ledger.add(trial)
    path = ledger.add(final)
    assert list(ledger.paths()) == [path]
    assert ledger.add(trial) == path
    assert list(ledger.records()) == [final]
    assert final.labels.schedule == "cosine"  # the study's words, not the search's


def test_a_trial_says_not_all_of_a_final_and_other_trainings_stay_apart():
    final, trial = training(), as_trial(training())
    assert final.says_all_of(trial)
    assert not trial.says_all_of(final)
    assert not final.says_all_of(on(trial, machine="another"))
    renamed_final = final.model_copy(update={"labels": final.labels.model_copy(update={"schedule": "other"})})
    assert not final.says_all_of(renamed_final)


def test_of_several_records_the_measured_then_the_final_then_the_oldest_is_preferred(ledger):
    measured_trial = as_trial(on(training(), ended=400.0)).with_test(measured())
    final_late, final_early = on(training(), ended=300.0), on(training(), ended=200.0)
    oldest_trial = as_trial(on(training(), ended=100.0))
    wanted = [measured_trial, final_early, final_late, oldest_trial]
    for one in reversed(wanted):
        ledger.add(one)
    assert ledger.all_of(training().identity) == wanted
    assert ledger.find(training().identity) == measured_trial


def test_a_record_of_a_newer_version_is_neither_used_nor_moved_nor_trained_over(ledger, capsys):
    """An older checkout must not drop what somebody has trained, nor train it again."""
    ledger.add(training())
    path = place_newer(ledger, training())
    before = snapshot(ledger.folder)
    for use in (ledger.find, ledger.all_of, lambda identity: ledger.add(training(test=measured()))):
        with pytest.raises(NewerRecord, match="update lrstudy"):
            use(training().identity)
    assert snapshot(ledger.folder) == before
    other = training(seed=2)
    ledger.add(other)
    assert ledger.find(other.identity) == other  # other trainings are found as ever
    assert {found.identity for found in ledger.records()} == {training().identity, other.identity}
    assert f"ledger: left out: {path}: not readable by this version" in capsys.readouterr().err


def test_a_damaged_record_is_named_set_aside_and_not_used(ledger, capsys):
    path = ledger.add(training())
    for count in range(3):  # what was set aside earlier stays
        path.write_bytes(b"%d" % count)
        assert ledger.find(training().identity) is None
        assert f"ledger: {path}: cannot be unpacked" in capsys.readouterr().err
        assert not path.exists()
    aside = ledger.folder / "set-aside"
    assert sorted(file.read_bytes() for file in aside.iterdir()) == [b"0", b"1", b"2"]


def test_adding_puts_a_whole_record_in_a_damaged_one_s_place(ledger):
    path = ledger.add(training())
    path.write_bytes(path.read_bytes()[:-9])
    assert ledger.add(training()) == path
    assert ledger.find(training().identity) == training()
    assert len(list((ledger.folder / "set-aside").iterdir())) == 1


def test_what_the_system_refuses_to_read_is_not_taken_for_damage(ledger, monkeypatch):
    """A full table of open files must not empty the ledger."""
    path = ledger.add(training())

    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("gzip.open", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            ledger.find(training().identity)
    assert path.exists()


def test_a_record_that_another_process_replaces_meanwhile_is_found_in_its_fuller_form(ledger, monkeypatch):
    ledger.add(training())
    more = training().with_test(measured())

    def read(path: Path) -> Record:
        monkeypatch.undo()
        Ledger(ledger.folder).add(more)  # by another process, after this one has listed the folder
        return read_record(path)

    monkeypatch.setattr(ledger_module, "read_record", read)
    assert ledger.find(more.identity) == more


def test_a_link_in_place_of_a_folder_of_records_is_refused(ledger, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (ledger.trainings / training().identity[:2]).symlink_to(tmp_path / "elsewhere")
    for use in (lambda: ledger.find(training().identity), lambda: ledger.add(training())):
        with pytest.raises(StudyError, match=r"a link, not a folder of the ledger; remove it"):
            use()
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"cosine": 1}', '{"cosine": "no digest"}', "\x00", '{"a":' * 9999, "9" * 1_000_001],
)
def test_a_listing_of_code_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / f"{'a' * 64}.json"
    path.write_text('{"cosine": "0123456789abcdef 0123456789abcdef"}')
    assert list(read_code(path)) == ["cosine"]
    path.write_text(content)
    with pytest.raises(StudyError):
        read_code(path)


# ------------------------------------------------------------------------------------------------------------ list


@pytest.fixture
def study(ledger) -> Ledger:
    """Two schedules with three seeds, of which one has no test results, and a trial."""
    for schedule in ("static", "cosine"):
        for seed in (1, 2, 3):
            found = training(seed, schedule, losses=(0.7, 0.5 + seed / 100))
            if (schedule, seed) != ("cosine", 3):
                found = found.with_test(measured(seed + 10 * (schedule == "cosine")))
            ledger.add(found)
    ledger.add(as_trial(training(101, "cosine")))
    return ledger


def test_list_has_a_line_per_training_and_says_how_many_there_are(study, capsys):
    assert run(study.folder, "list") == 0
    header, *lines, last = capsys.readouterr().out.splitlines()
    assert header.split()[:5] == ["identity", "model", "schedule", "role", "seed"]
    assert [line.split()[1:5] for line in lines] == [
        ["lstm", "cosine", "final", "1"],
        ["lstm", "cosine", "final", "2"],
        ["lstm", "cosine", "final", "3"],
        ["lstm", "cosine", "trial", "101"],
        ["lstm", "static", "final", "1"],
        ["lstm", "static", "final", "2"],
        ["lstm", "static", "final", "3"],
    ]
    first = training(1, "cosine").with_test(measured(11))
    assert f"{first.test.last.accuracy:.4f}" in lines[0]
    assert "0.5100" in lines[0]  # the last epoch's validation loss
    assert "1970-01-01" in lines[0]
    size = sum(path.stat().st_size for path in study.paths())
    assert last == f"7 trainings; {size / 1e3:.1f} kB in {study.folder}"


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (["--schedule", "static"], 3),
        (["--role", "trial"], 1),
        (["--seed", "2"], 2),
        (["--untested"], 2),
        (["--untested", "--role", "final"], 1),
        (["--model", "lstm", "--dataset", "imdb", "--dtype", "float32", "--device", "cpu"], 7),
        (["--machine", "0123abcd", "--status", "finished"], 7),
        (["--schedule", "static", "--role", "trial"], 0),
    ],
)
def test_list_shows_what_the_filters_let_pass(study, capsys, filters, count):
    assert run(study.folder, "list", *filters) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"{count} trainings;" if count == 7 else f"{count} of 7 trainings;")
    assert run(study.folder, "list", "--json", *filters) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == count


def test_list_names_what_there_is_where_a_filter_has_no_training(study, capsys):
    assert run(study.folder, "list", "--schedule", "cosin") == 2
    assert capsys.readouterr().err == (
        f"error: list --schedule: 'cosin' is not a schedule of {study.folder}; choose one of cosine, static. Did "
        "you mean 'cosine'?\n"
    )
    assert run(study.folder, "list", "--seed", 7) == 2
    assert "choose one of 1, 101, 2, 3" in capsys.readouterr().err


def test_an_empty_ledger_has_no_trainings_and_one_training_is_no_plural(ledger, capsys):
    assert run(ledger.folder, "list") == 0
    assert capsys.readouterr().out == f"0 trainings; 0.0 kB in {ledger.folder}\n"
    ledger.add(training())
    assert run(ledger.folder, "list") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 training; ")


@pytest.fixture
def mixed(ledger) -> tuple[Ledger, Record, Record]:
    """A ledger, and in it a training on a sample and one on other data."""
    real = training()
    data = real.data.model_copy(
        update={"label": "generated reviews (sample), 200 per split", "fingerprint": "s"}
    )
    sample = Record.model_validate(renamed(real.model_dump() | {"data": data.model_dump()}))
    for one in (real, sample):
        ledger.add(one)
    return ledger, sample, real


@pytest.mark.parametrize("option", ["--sample", "--no-sample"])
def test_list_tells_trainings_on_the_sample_from_others(mixed, capsys, option):
    ledger, sample, real = mixed
    assert run(ledger.folder, "list", "--json", option) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["identity"] == {"--sample": sample, "--no-sample": real}[option].identity


def test_list_names_files_so_that_those_of_the_sample_can_be_left_out(mixed, capsys):
    ledger, sample, real = mixed
    ledger.add(on(sample, machine="another"))  # all records of a training, not the preferred alone
    assert run(ledger.folder, "list", "--sample", "--files") == 0
    files = capsys.readouterr().out.splitlines()
    assert len(files) == 2
    for file in files:
        Path(file).unlink()
    assert list(ledger.records()) == [real]


def test_what_is_no_ledger_is_not_taken_for_an_empty_one(study, tmp_path, monkeypatch, capsys):
    """`verify` would say that nothing is wrong with it."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/readme.txt").write_text("")
    for folder, message in {
        tmp_path / "nothing": "no such folder; --ledger names the folder of a ledger.",
        tmp_path / "notes/readme.txt": "no such folder",
        tmp_path / "notes": "no ledger (a folder with trainings/ or equivalences/).",
        tmp_path: f"There is one in it: --ledger {study.folder}.",
        "": "--ledger: nothing is given; name the folder of a ledger.",
    }.items():
        for command in (["list"], ["verify"], ["show", "00"], ["export", str(tmp_path / "all.csv")]):
            assert run(folder, *command) == 2
            assert message in capsys.readouterr().err
    for folder in ("notes", "nothing/deeper"):
        assert run(tmp_path / folder, "merge", study.folder) == 2
        assert not (tmp_path / folder / "trainings").exists()
    workspace = tmp_path / "workspace"
    (workspace / "ledger").mkdir(parents=True)
    monkeypatch.chdir(workspace)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    capsys.readouterr()
    assert exit_status(lambda: main(["verify"])) == 0  # a workspace that has trained nothing yet
    assert exit_status(lambda: main(["verify", "--ledger", "ledger"])) == 0


def test_the_ledger_may_be_named_before_the_command_or_after_it(study, tmp_path, capsys):
    Ledger(tmp_path / "other").add(training())
    said = []
    for arguments in (
        ["--ledger", str(study.folder), "list"],
        ["list", "--ledger", str(study.folder)],
        ["--ledger", str(tmp_path / "other"), "list", "--ledger", str(study.folder)],
    ):
        assert exit_status(lambda arguments=arguments: main(arguments)) == 0
        said.append(capsys.readouterr().out)
    assert said[0].splitlines()[-1].startswith("7 trainings")
    assert len(set(said)) == 1


def test_list_leaves_out_what_is_damaged_and_says_so(study, capsys):
    path = next(study.paths())
    path.write_bytes(b"")
    before = snapshot(study.folder)
    assert run(study.folder, "list") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("6 trainings")
    assert err.startswith(f"ledger: left out: {path}: ")
    assert snapshot(study.folder) == before


# ------------------------------------------------------------------------------------------------------------ show


def test_show_says_all_that_is_known_of_a_training(study, capsys):
    found = training(1, "cosine", losses=(0.7, 0.51)).with_test(measured(11))
    assert run(study.folder, "show", found.identity[:10]) == 0
    shown = capsys.readouterr().out
    for part in (
        found.identity, "lstm-cosine seed 1 (final)", "finished after 2 epochs", "1970-01-01T00:01:42Z",
        "optimizer.base_lr", "tiny text", "a processor", "2.9.0", f"{found.test.last.f1:.4f}",
    ):  # fmt: skip
        assert part in shown
    assert re.search(r"^ +2 +0\.05 .* 0\.51 ", shown, re.MULTILINE)  # the second epoch: rate, validation loss
    assert run(study.folder, "show", "--json", found.identity) == 0
    assert Record.model_validate(json.loads(capsys.readouterr().out)) == found
    assert run(study.folder, "show", "--csv", found.identity) == 0
    assert pd.read_csv(io.StringIO(capsys.readouterr().out))["validation/loss"].tolist() == [0.7, 0.51]


def test_show_of_a_long_training_has_its_first_its_best_and_its_last_epoch(ledger, capsys):
    losses = [1.0 + abs(epoch - 77) for epoch in range(1, 201)]
    ledger.add(found := training(losses=losses))
    assert run(ledger.folder, "show", found.identity) == 0
    shown = capsys.readouterr().out
    epochs = [int(line.split()[0]) for line in shown.split("history")[1].splitlines()[2:] if line]
    assert {1, 77, 200} <= set(epochs)
    assert len(epochs) <= 20


def test_show_of_a_training_that_diverged_at_once(ledger, capsys):
    ledger.add(found := training(losses=[math.nan]))
    assert run(ledger.folder, "show", found.identity) == 0
    assert "diverged after 1 epoch," in capsys.readouterr().out


def test_show_asks_for_digits_that_name_one_training(study, capsys):
    for prefix, message in {
        "": "not the first digits of an identity",
        "cosine": "not the first digits of an identity",
        "../x": "not the first digits of an identity",
        "0" * 20: "no training whose identity begins with 00000000000000000000",
    }.items():
        assert run(study.folder, "show", prefix) == 2
        assert message in capsys.readouterr().err
    seed = 4
    while (other := training(seed)).identity[0] not in {path.name[0] for path in study.paths()}:
        seed += 1
    study.add(other)
    assert run(study.folder, "show", other.identity[0]) == 2
    assert re.search(r"\d trainings begin with \w: .*; give more digits\.", capsys.readouterr().err)


def test_show_of_a_record_of_a_newer_version_asks_for_an_update(ledger, capsys):
    path = place_newer(ledger, training())
    assert run(ledger.folder, "show", training().identity[:8]) == 2
    assert f"error: {path}: not readable by this version" in capsys.readouterr().err
    assert path.exists()


def test_show_of_a_damaged_record_says_what_is_wrong_and_leaves_it(ledger, capsys):
    path = ledger.add(training())
    path.write_bytes(b"")
    assert run(ledger.folder, "show", training().identity[:8]) == 2
    assert f"error: {path}: empty. There is no other record of this training." in capsys.readouterr().err
    assert path.exists()


# ---------------------------------------------------------------------------------------------------------- verify


def equivalence(revision: str = "b") -> Equivalence:
    return Equivalence(
        format=1,
        pairs=[Pair(part="loop", name="loop", old="a" * 64, new="c" * 64)],
        base="a",
        revision=revision,
        compared={"trainings": 3},
        origin=training().origin,
    )


def complete(ledger: Ledger) -> None:
    """Add what lies beside the trainings."""
    write_json(ledger.folder / "code" / f"{'a' * 64}.json", {"cosine": "0123456789abcdef"})
    write_equivalence(ledger.folder / "equivalences", equivalence())


def damage_in_ten_ways(ledger: Ledger) -> dict[str, Path]:
    """Ten trainings and an eleventh that stays whole; ten files that are damaged, by kind."""
    found = [training(seed, test=measured(seed)) for seed in range(12)]
    paths = [ledger.add(one) for one in found]
    contents = [one.model_dump(mode="json") for one in found]
    damaged = {}

    def replace(kind: str, index: int, content: bytes) -> None:
        paths[index].write_bytes(content)
        damaged[kind] = paths[index]

    def text(content: object) -> bytes:
        return gzip.compress(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())

    replace("truncated", 0, paths[0].read_bytes()[:-20])
    edited = json.loads(json.dumps(contents[1]))
    edited["history"]["train/loss"][0] -= 0.01
    replace("edited number", 1, text(edited))
    replace("swapped identity", 2, text(contents[2] | {"identity": contents[3]["identity"]}))
    paths[3].unlink()
    damaged["wrong version"] = place_newer(ledger, found[3])
    replace("NaN", 4, text(contents[4] | {"history": contents[4]["history"] | {"lr": [math.nan] * 3}}))
    replace("huge", 5, bytes(MAX_BYTES + 1))
    replace("not UTF-8", 6, gzip.compress(b'{"format": "\xe9"}'))
    moved = paths[7].rename(ledger.folder.parent / "elsewhere")
    paths[7].symlink_to(moved)
    damaged["symlink"] = paths[7]
    paths[8].unlink()
    paths[8].mkdir()
    damaged["folder"] = paths[8]
    other = paths[9].with_name(f"{found[9].identity}-{'0' * 16}.json.gz")
    shutil.copyfile(paths[9], other)
    damaged["two names"] = other
    return damaged


SAID = {
    "truncated": "cannot be unpacked (Compressed file ended before the end-of-stream marker was reached).",
    "edited number": "not the content that its name is made of: it was changed by hand.",
    "swapped identity": "settings, data and code have the identity",
    "wrong version": "not readable by this version: format 3, and it reads up to 2; update lrstudy",
    "NaN": "not JSON (NaN is no number of JSON's).",
    "huge": "1,000,001 bytes; a record has at most 1,000,000.",
    "not UTF-8": "not UTF-8.",
    "symlink": "a link, not the file of a record.",
    "folder": "a folder, not the file of a record.",
    "two names": "the same record as",
}


def test_verify_tells_ten_kinds_of_damage_apart_and_changes_nothing(ledger, capsys):
    damaged = damage_in_ten_ways(ledger)
    before = snapshot(ledger.folder)
    assert run(ledger.folder, "verify") == 1
    *lines, summary = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    for kind, path in damaged.items():
        [line] = [line for line in lines if line.startswith(f"{path}: ")]
        assert SAID[kind] in line
    assert summary.startswith(f"{ledger.folder}: in good order: 3 records of 3 trainings")
    assert summary.endswith("10 problems")
    assert snapshot(ledger.folder) == before


def test_verify_of_a_whole_ledger_finds_nothing(ledger, capsys):
    ledger.add(training().with_test(measured()))
    complete(ledger)
    assert run(ledger.folder, "verify") == 0
    assert capsys.readouterr().out == (
        f"{ledger.folder}: in good order: 1 record of 1 training, 1 code listing and 1 equivalence; no problems\n"
    )


def notes(ledger: Ledger, capsys) -> list[str]:
    """What verify says of a ledger in which nothing is damaged, without its last line."""
    assert run(ledger.folder, "verify") == 0
    *found, _ = capsys.readouterr().out.splitlines()
    return found


def test_verify_notes_final_trainings_without_test_results_and_names_the_command_that_lists_them(
    study, capsys
):
    command = "python -m lrstudy.ledger list --untested --role final"
    assert notes(study, capsys) == [f"note: 1 final training has no test results: `{command}`"]
    assert run(study.folder, *command.split()[3:]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 of 7 trainings")
    study.add(training(9))
    study.add(
        on(training(1, "static", losses=(0.7, 0.51)), machine="another")
    )  # measured on the first machine
    [untested] = [note for note in notes(study, capsys) if "test results" in note]
    assert untested.startswith("note: 2 final trainings have no test results")


def test_verify_notes_parts_of_the_code_that_have_no_listing(ledger, capsys):
    code = {"loop": "a" * 64, "schedule": "b" * 64, "network": "c" * 64}
    ledger.add(training(code=code, test=measured()))
    complete(ledger)  # it lists what a is
    [note] = notes(ledger, capsys)
    assert note.startswith(
        f"note: {ledger.folder / 'code'}: no listing of 2 parts of the code that records name;"
    )


def test_verify_notes_half_files_of_a_process_that_was_killed_and_nothing_reads_them(ledger, capsys):
    path = ledger.add(training().with_test(measured()))
    halves = [
        path.with_name(f".{path.name}.123.part"),
        ledger.folder / "code" / f".{'a' * 64}.json.123.part",
        ledger.folder / "equivalences" / ".0123.json.123.part",
    ]
    for half in halves:
        half.parent.mkdir(exist_ok=True)
        half.write_bytes(b"half")
    assert [note.split(": half a file")[0] for note in notes(ledger, capsys)] == [
        f"note: {half}" for half in sorted(halves)
    ]
    assert ledger.find(training().identity).test is not None


def test_git_ignores_half_files_and_nothing_else_of_the_ledger(ledger, tmp_path):
    path = ledger.add(training())
    half = path.with_name(f".{path.name}.123.part")
    half.write_bytes(b"half")
    complete(ledger)
    shutil.copyfile(ROOT / ".gitignore", tmp_path / ".gitignore")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    listed = subprocess.run(
        ["git", "-C", tmp_path, "ls-files", "-z", "--others", "--exclude-standard", "ledger"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    every = {str(file.relative_to(tmp_path)) for file in ledger.folder.rglob("*") if file.is_file()}
    assert set(listed) - {""} == every - {str(half.relative_to(tmp_path))}


def test_verify_counts_files_that_were_set_aside(ledger, capsys):
    path = ledger.add(training())
    path.write_bytes(b"")
    ledger.find(training().identity)
    [note] = notes(ledger, capsys)
    assert "1 file that was set aside earlier" in note


def test_verify_names_what_lies_beside_the_trainings_and_is_damaged(study, capsys):
    complete(study)
    [listing] = (study.folder / "code").iterdir()
    listing.write_text("{}[")
    [proof] = (study.folder / "equivalences").iterdir()
    proof.write_text(proof.read_text().replace('"b"', '"d"'))
    (study.trainings / "notes.txt").write_text("")
    misplaced = study.trainings / "zz"
    misplaced.mkdir()
    assert run(study.folder, "verify") == 1
    *lines, summary = capsys.readouterr().out.splitlines()
    assert sorted(line.split(": ")[0] for line in lines if not line.startswith("note: ")) == sorted(
        map(str, (listing, proof, study.trainings / "notes.txt", misplaced))
    )
    assert "it was changed by hand" in next(line for line in lines if str(proof) in line)
    assert summary.endswith("; 4 problems")


def test_a_record_that_lies_where_nobody_looks_is_a_problem_and_not_counted(ledger, capsys):
    path = ledger.add(training())
    other = ledger.trainings / ("00" if path.parent.name != "00" else "11")
    other.mkdir()
    moved = path.rename(other / path.name)
    assert run(ledger.folder, "verify") == 1
    assert (
        f"{moved}: not in the folder {path.parent.name}, where it is looked for." in capsys.readouterr().out
    )
    assert list(ledger.records()) == []


def test_a_training_of_two_machines_is_noted_and_no_damage(ledger, capsys):
    ledger.add(on(training(losses=(0.7, 0.5, 0.6)), machine="aaaa0000").with_test(measured()))
    ledger.add(on(training(losses=(0.7, 0.5, 0.6025)), machine="bbbb0000").with_test(measured()))
    [note] = notes(ledger, capsys)
    assert note == (
        f"note: {training().identity[:12]} lstm-cosine seed 1: trained twice, on aaaa0000, bbbb0000; validation "
        "losses differ by up to 0.0025"
    )


def test_a_training_that_was_measured_twice_was_not_trained_twice(ledger, capsys):
    """Two clones took one training from a third and measured it, each on its own machine."""
    tests = [measured(seed) for seed in (1, 2)]
    for test in tests:
        ledger.add(training().with_test(test))
    [note] = notes(ledger, capsys)
    apart = abs(tests[0].last.loss - tests[1].last.loss)
    assert note == (
        f"note: {training().identity[:12]} lstm-cosine seed 1: measured twice; test losses differ by up to {apart:.2g}"
    )
    ledger.add(on(training(), machine="another", ended=1e9).with_test(measured(1)))
    trained, measured_twice = notes(ledger, capsys)
    assert "trained twice, on 0123abcd, another" in trained
    assert "measured twice" in measured_twice


def test_records_that_were_copied_beside_fuller_ones_are_noted(ledger, capsys):
    ledger.add(training().with_test(measured()))
    name, content = encode(training())
    (ledger.trainings / name[:2] / name).write_bytes(content)
    assert run(ledger.folder, "verify") == 0
    assert "says less than" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------------------- merge


@pytest.fixture
def theirs(tmp_path) -> Ledger:
    """Somebody's clone: an older form of one of the study's trainings, one that is the same, two that are new."""
    other = Ledger(tmp_path / "clone/ledger")
    other.add(training(1, "static", losses=(0.7, 0.51)))
    other.add(training(2, "static", losses=(0.7, 0.52)).with_test(measured(2)))
    other.add(training(4, "static").with_test(measured(4)))
    other.add(training(3, "cosine", losses=(0.7, 0.53)).with_test(measured(5)))
    complete(other)
    return other


def test_merge_takes_what_is_missing_and_what_is_fuller_and_overwrites_nothing(study, theirs, capsys):
    before = snapshot(study.folder)
    said = (
        f"from {theirs.folder}: 1 record, 1 fuller record, 1 code listing, 1 equivalence; nothing left there"
    )
    assert run(study.folder, "merge", theirs.folder.parent, "--dry-run") == 0
    assert f"would be taken {said}" in capsys.readouterr().out
    assert snapshot(study.folder) == before
    assert run(study.folder, "merge", theirs.folder.parent) == 0
    assert f"taken {said}" in capsys.readouterr().out
    after = snapshot(study.folder)
    [replaced] = before.keys() - after.keys()
    assert identity_in(Path(replaced).name) == training(3, "cosine", losses=(0.7, 0.53)).identity
    assert {name: after[name] for name in before if name != replaced} == {
        name: content for name, content in before.items() if name != replaced
    }
    assert len(list(study.records())) == 8
    assert study.find(training(3, "cosine", losses=(0.7, 0.53)).identity).test == measured(5)
    assert run(study.folder, "merge", theirs.folder) == 0  # the folder itself will do
    assert "taken from" in (out := capsys.readouterr().out)
    assert "0 records, 0 fuller records, 0 code listings, 0 equivalences" in out
    assert snapshot(study.folder) == after
    assert run(study.folder, "verify") == 0


def test_merging_both_ways_makes_both_ledgers_the_same(study, theirs):
    complete(study)
    assert run(study.folder, "merge", theirs.folder) == run(theirs.folder, "merge", study.folder) == 0
    assert snapshot(study.folder) == snapshot(theirs.folder)


def test_merge_takes_what_is_whole_from_a_damaged_ledger_and_names_the_rest(study, tmp_path, capsys):
    other = Ledger(tmp_path / "theirs")
    damaged = damage_in_ten_ways(other)
    write_json(other.folder / "code" / "evil.json", {})
    before = snapshot(other.folder)
    assert run(study.folder, "merge", other.folder) == 1
    out = capsys.readouterr().out
    for path in damaged.values():
        assert f"not taken: {path}: " in out
    assert f"not taken: {other.folder / 'code/evil.json'}: " in out
    # Of twelve seeds nine are damaged, and the duplicate's own is not.
    assert "3 records, 0 fuller records, 0 code listings" in out
    assert out.splitlines()[-1].endswith("; 11 files left there")
    assert snapshot(other.folder) == before
    assert run(study.folder, "verify") == 0


def test_merge_does_not_take_what_this_version_cannot_check(study, theirs, capsys):
    path = place_newer(theirs, training(8))
    assert run(study.folder, "merge", theirs.folder) == 1
    out = capsys.readouterr().out
    assert f"not taken: {path}: not readable by this version" in out
    assert out.splitlines()[-1].endswith(
        "1 record, 1 fuller record, 1 code listing, 1 equivalence; 1 file left there"
    )
    assert study.files(training(8).identity) == []


def test_merge_leaves_alone_what_is_here_in_a_newer_format(study, theirs, capsys):
    mine = place_newer(study, training(8))
    other = theirs.add(training(8))
    assert run(study.folder, "merge", theirs.folder) == 1
    assert f"not taken: {other}: this ledger has a newer record of it: {mine}: " in capsys.readouterr().out
    assert study.files(training(8).identity) == [mine]


def test_merge_takes_a_final_s_record_for_a_trial_s_and_not_the_other_way(ledger, tmp_path, capsys):
    other = Ledger(tmp_path / "other")
    ledger.add(as_trial(training()))
    other.add(training())
    assert run(ledger.folder, "merge", other.folder) == 0
    assert "0 records, 1 fuller record," in capsys.readouterr().out
    assert list(ledger.records()) == [training()]
    other = Ledger(tmp_path / "third")
    other.add(as_trial(training()))
    assert run(ledger.folder, "merge", other.folder) == 0
    assert "0 records, 0 fuller records," in capsys.readouterr().out
    assert list(ledger.records()) == [training()]


def test_merge_mends_a_damaged_record_and_loses_nothing(study, theirs, capsys):
    path = next(path for path in study.paths() if path.name in {p.name for p in theirs.paths()})
    whole = path.read_bytes()
    path.write_bytes(b"damaged")
    assert run(study.folder, "merge", theirs.folder) == 0
    assert path.read_bytes() == whole
    assert (study.folder / "set-aside" / path.name).read_bytes() == b"damaged"


def test_merge_into_a_ledger_that_does_not_exist_yet(tmp_path, theirs, capsys):
    assert run(tmp_path / "new", "merge", theirs.folder) == 0
    assert snapshot(tmp_path / "new") == snapshot(theirs.folder)


def test_merge_says_what_is_no_other_ledger(study, tmp_path, capsys):
    assert run(study.folder, "merge", tmp_path / "nothing") == 2
    assert (
        "no ledger (a folder with trainings/ or equivalences/), and no ledger/ in it"
        in capsys.readouterr().err
    )
    assert run(study.folder, "merge", study.folder.parent) == 2
    assert "this is the ledger to merge into; give another one." in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- export


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_export_has_a_row_per_training(study, tmp_path, capsys, kind):
    file = tmp_path / f"trainings.{kind}"
    assert run(study.folder, "export", file) == 0
    table = pd.read_parquet(file) if kind == "parquet" else pd.read_csv(file)
    assert capsys.readouterr().out == f"wrote {file}: 7 rows, {len(table.columns)} columns\n"
    row = table.set_index("identity").loc[training(2, "static", losses=(0.7, 0.52)).identity]
    expected = measured(2)
    assert row["model"] == "lstm"
    assert (row["schedule"], row["seed"], row["role"], row["status"]) == ("static", 2, "final", "finished")
    assert (row["epochs"], row["best_epoch"], row["ended"]) == (2, 2, "1970-01-01T00:01:42Z")
    assert row["settings.optimizer.base_lr"] == 0.1
    assert (row["data.label"], row["data.fingerprint"]) == ("tiny text", "tiny text")
    assert (row["origin.machine"], row["origin.versions.torch"]) == ("0123abcd", "2.9.0")
    assert row["compute_seconds"] == 1.0  # of both epochs
    assert row["validation/loss"] == 0.52
    assert row["test/accuracy"] == expected.last.accuracy
    assert row["test_best/loss"] == expected.best.loss
    untested = table[(table.schedule == "cosine") & (table.seed == 3)]
    assert untested["test/accuracy"].isna().all()


def test_a_cell_is_what_differs_in_the_seed_alone_or_in_dtype_and_device():
    same = {cell_of(training(seed)) for seed in (1, 2)}
    chosen = settings(
        seed=9, precision="bfloat16", device="cuda", schedule={"function": "cosine", "parameters": {}}
    )
    same.add(cell_of(record([0.7, 0.5, 0.6], chosen=chosen)))
    assert len(same) == 1
    assert cell_of(training(1, "static")) not in same


def test_export_of_histories_has_a_row_per_epoch(study, tmp_path):
    study.add(training(5, "static", losses=(0.9, math.nan)))
    assert run(study.folder, "export", "--history", tmp_path / "epochs.parquet") == 0
    table = pd.read_parquet(tmp_path / "epochs.parquet")
    assert len(table) == 6 * 2 + 3 + 2
    one = table[(table.seed == 2) & (table.schedule == "static")]
    assert one["epoch"].tolist() == [1, 2]
    assert one["validation/loss"].tolist() == [0.7, 0.52]
    assert table[table.seed == 5]["validation/loss"].isna().tolist() == [False, True]


def test_export_holds_settings_that_differ_in_kind(ledger, tmp_path):
    """A parameter that is a list here, a number there and beyond 64 bits elsewhere is one column of text."""
    values = [[2, 3], 0.5, "often", 2**70, True, None]
    for seed, value in enumerate(values):
        ledger.add(record([0.5], chosen=settings(seed=seed, schedule={"parameters": {"when": value}})))
    for kind, read in {"parquet": pd.read_parquet, "csv": pd.read_csv}.items():
        assert run(ledger.folder, "export", tmp_path / f"all.{kind}") == 0
        column = read(tmp_path / f"all.{kind}").sort_values("seed")["settings.schedule.parameters.when"]
        assert column.tolist()[:5] == ["[2, 3]", "0.5", "often", str(2**70), "True"]
        assert column.isna().tolist()[5]


def test_export_cannot_put_a_formula_into_a_spreadsheet(ledger, tmp_path):
    ledger.add(on(training(), system='=HYPERLINK("http://example.com")'))
    assert run(ledger.folder, "export", tmp_path / "all.csv") == 0
    assert pd.read_csv(tmp_path / "all.csv")["origin.system"][0].startswith("'=HYPERLINK")


def test_a_record_cannot_pass_a_history_off_as_test_results(ledger, tmp_path):
    found = training()
    ledger.add(
        found.model_copy(update={"history": found.history | {"test/accuracy": [1.0] * 3, "seed": [7] * 3}})
    )
    for options in ([], ["--history"]):
        assert run(ledger.folder, "export", *options, tmp_path / "all.parquet") == 0
        table = pd.read_parquet(tmp_path / "all.parquet")
        assert set(table["seed"]) == {1}
    assert run(ledger.folder, "export", tmp_path / "all.parquet") == 0
    assert pd.read_parquet(tmp_path / "all.parquet")["test/accuracy"].isna().all()


def test_export_names_the_endings_that_it_knows(study, ledger, tmp_path, capsys):
    for name, found in {"all.xlsx": ".xlsx", "all": "nothing"}.items():
        assert run(study.folder, "export", tmp_path / name) == 2
        assert capsys.readouterr().err == (
            f"error: {tmp_path / name}: ends with {found}; choose a name that ends with .parquet or .csv.\n"
        )
        assert not (tmp_path / name).exists()


def test_export_to_where_no_file_can_be_is_one_clear_line_and_makes_no_folder(study, tmp_path, capsys):
    folder = tmp_path / "tables.csv"
    folder.mkdir()
    for file, message in {
        folder: f"{folder}: a folder; name a file in it, such as {folder / 'trainings.parquet'}.",
        tmp_path
        / "no/such/all.csv": f"there is no folder {tmp_path / 'no/such'}; make it, or name another file.",
        tmp_path
        / f"{'a' * 300}.csv": "cannot be written (File name too long); fix that, or name another file.",
        next(study.paths()) / "all.csv": "there is no folder",  # a file stands in a folder's place
    }.items():
        assert run(study.folder, "export", file) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert message in said
        assert len(said.splitlines()) == 1
    assert not (tmp_path / "no").exists()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_export_says_that_a_place_may_not_be_written_to(study, tmp_path, capsys, monkeypatch, kind):
    file = tmp_path / f"all.{kind}"

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr("os.replace", refuse)
    assert run(study.folder, "export", file) == 2
    assert capsys.readouterr().err == (
        f"error: {file}: cannot be written (Permission denied); fix that, or name another file.\n"
    )


def test_export_of_an_empty_ledger_says_so(ledger, tmp_path, capsys):
    assert run(ledger.folder, "export", tmp_path / "all.csv") == 2
    assert "no trainings to export" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- documentation


def test_the_documentation_names_every_field_of_the_format():
    text = DOCS.read_text()
    for name in [*Record.model_fields, *Data.model_fields, "right", "losses", "confusion", "ended"]:
        assert f"`{name}`" in text, name


# --------------------------------------------------------------------------------------------------------- retrain


@pytest.fixture
def workspace(tmp_path, monkeypatch, one_thread) -> Path:
    """A workspace with the tiny texts prepared, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("LRSTUDY_WORKERS", "1")
    write_dataset("text", tmp_path / "data/processed/imdb")
    return tmp_path


@pytest.fixture
def trained(workspace) -> Record:
    """A training that was done elsewhere: in the ledger, with no weights here."""
    train_run(task(workspace, workspace / "data/processed/imdb", settings("lstm", num_epochs=2)))
    shutil.rmtree(workspace / "run")
    [found] = Ledger(workspace / "ledger").records()
    return found


def test_retrain_makes_the_weights_that_the_record_names(workspace, trained, capsys):
    assert exit_status(lambda: main(["retrain", trained.identity[:9]])) == 0
    out, err = capsys.readouterr()
    folder = run_folder(workspace, "lstm-cosine", trained.identity)
    assert f"weights: {folder}" in out
    assert "`dvc repro --force -s train@lstm-cosine`" in out
    assert "trained again: the same to the bit as its record" in err
    where, whose = find_weights(
        {"ledger": str(workspace / "ledger"), "identities": [trained.identity]}, folder
    )
    assert (where, whose) == (folder, trained)
    assert [path for path in folder.iterdir() if path.name == "journal.jsonl"] == []
    assert list(Ledger(workspace / "ledger").records()) == [trained]


def test_retrain_does_nothing_where_the_weights_are_here(workspace, trained, capsys, monkeypatch):
    assert exit_status(lambda: main(["retrain", trained.identity])) == 0
    capsys.readouterr()
    monkeypatch.setattr("lrstudy.training.loop.train", lambda *args, **kwargs: pytest.fail("trained"))
    assert exit_status(lambda: main(["retrain", trained.identity])) == 0
    out, err = capsys.readouterr()
    assert (
        out
        == f"lstm-cosine seed 1: its weights are in {run_folder(workspace, 'lstm-cosine', trained.identity)}\n"
    )
    assert err == ""


def refused(record: Record, capsys) -> str:
    assert exit_status(lambda: main(["retrain", record.identity])) == 2
    return capsys.readouterr().err


def test_retrain_refuses_other_data_other_code_and_a_device_that_is_not_here(
    workspace, trained, capsys, monkeypatch
):
    ledger = Ledger(workspace / "ledger")
    meta = workspace / "data/processed/imdb/meta.json"
    content = read_meta(meta.parent)
    write_json(meta, content | {"fingerprint": "others"})
    assert "fingerprint others; " in refused(trained, capsys)
    write_json(meta, content)

    old_code = training_code(trained.settings) | {"loop": "0" * 64}
    before = record([0.7, 0.5], chosen=trained.settings, code=old_code)
    ledger.add(on(before, revision="0abc"))
    said = refused(on(before, revision="0abc"), capsys)
    assert "the code that it used has changed since (loop)" in said
    assert "check out the revision 0abc" in said

    for device in ("mps", "tpu"):
        chosen = trained.settings | {"device": device}
        elsewhere = record([0.7, 0.5], chosen=chosen, code=training_code(chosen))
        ledger.add(elsewhere)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
        assert f"trained on {device}, which is not here" in refused(elsewhere, capsys)

    chosen = trained.settings | {"optimizer": {"name": "of_tomorrow"}}
    ledger.add(of_tomorrow := record([0.7, 0.5], chosen=chosen, code=old_code))
    assert "lacks something that it used" in refused(of_tomorrow, capsys)

    shutil.rmtree(meta.parent)
    assert str(meta) in refused(trained, capsys)
    assert not (workspace / "checkpoints").exists()


# --------------------------------------------------------------------------------------- the repository's own ledger


def test_the_repository_s_own_ledger_is_whole(capsys):
    assert run(ROOT / "ledger", "verify") == 0, capsys.readouterr().out


def test_an_equivalence_s_name_follows_from_its_content(tmp_path):
    path = write_equivalence(tmp_path, equivalence())
    assert path.stem == content_hash(json.loads(path.read_text()))[:16]


# --------------------------------------------------------------------------------------------------------- the proof


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "zzz"], "--only: 'zzz' is the name of none of the "),
        (["--except", "foo"], "--except: 'foo' is no entry; write <part>.<entry>, such as schedule.cosine"),
        (["--except", "schedule."], "--except: 'schedule.' is no entry"),
        (["--except", "loss.l2"], "with a part of schedule, controller, optimizer, network."),
    ],
)
def test_a_proof_of_nothing_is_refused(tmp_path, capsys, arguments, message):
    """An empty proof would agree with any other."""
    assert proof.main([str(tmp_path / "out.json"), "--list", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_a_proof_may_do_without_an_entry_that_the_other_tree_alone_has(tmp_path):
    assert proof.main([str(tmp_path / "out.json"), "--list", "--except", "schedule.of_tomorrow"]) == 0
