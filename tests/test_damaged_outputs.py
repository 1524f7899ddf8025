"""Every file that one stage writes and another reads, damaged in every way: one line that says which, and what to do.

The damages to JSON are those that a full disk, a merge, an editor or another version leaves. What is a record
of its own is held to its fields in test_outputs.py, and to damage at any byte in test_fuzz.py.
"""

import copy
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import tiny_data
from composed import composed_params
from known_outputs import ROWS, contents
from lrstudy.analysis.records import Comparison
from lrstudy.checked import Output, read_tensors
from lrstudy.data import read_meta, read_split
from lrstudy.data.preprocessing import _read_source
from lrstudy.data.records import DataMeta, Source
from lrstudy.errors import StudyError
from lrstudy.ledger import Ledger, read_code
from lrstudy.ledger.equivalence import read_equivalence
from lrstudy.ledger.record import encode
from lrstudy.recipe.config import check_params, load_params
from lrstudy.report.document import read_comparison
from lrstudy.report.findings import text_table
from lrstudy.report.render import render_markdown
from lrstudy.stages.code import check_networks
from lrstudy.study.outputs import (
    CURVES,
    HISTORY,
    Best,
    Evaluation,
    FoundRates,
    Reference,
    Theory,
    Timing,
    Training,
)
from lrstudy.study.runs import read_outcome
from lrstudy.theory.records import _measured
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import tracking_uri, waiting

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class File:
    """A file, and how to damage it.

    Attributes:
        path: from the repository's root.
        read: what reads it, given the path.
        does: what the line says to do.
        needed: where in its JSON something stands that must.
        number: where a number stands.
        absent: whether the reader needs it to be there.
    """

    path: str
    read: Callable[[Path], object]
    does: str
    needed: tuple = ()
    number: tuple = ()
    absent: bool = True

    @property
    def name(self) -> str:
        return Path(self.path).name


def output(
    path: str, kind: type[Output], stage: str, needed: tuple, number: tuple, read: Callable | None = None
) -> File:
    return File(path, read or (lambda path: kind.read(path, stage)), f"{stage}` makes it", needed, number)


def split(path: Path) -> dict:
    return read_split(path.parent, path.name.partition(".")[0])


TRAIN, EVALUATE = "artifacts/train/lstm/step", "artifacts/evaluate/lstm/step"
JSON = [
    output("data/raw/imdb/source.json", Source, "download@imdb", ("layout",), ("files", "train", "rows"),
           lambda path: _read_source(path.parent)),
    output("data/processed/imdb/meta.json", DataMeta, "preprocess@imdb", ("dataset",), ("num_classes",),
           lambda path: read_meta(path.parent)),
    output("data/processed/cifar10/meta.json", DataMeta, "preprocess@cifar10", ("mean",), ("std", 1),
           lambda path: read_meta(path.parent)),
    output("artifacts/tuned/lstm/step/best.json", Best, "tune@lstm-step", ("values",), ("values", "base_lr")),
    output(f"{TRAIN}/training.json", Training, "train@lstm-step", ("seeds", "1", "key"), ("searches",)),
    output(f"{EVALUATE}/metrics.json", Evaluation, "evaluate@lstm-step", ("scores", "1", "last", "loss"),
           ("scores", "1", "last", "loss")),
    output("reports/references/imdb.json", Reference, "references@imdb", ("data",), ("seconds",)),
    output("reports/timing/lstm.json", Timing, "timing@lstm", ("schedules",), ("batch_size",)),
    output("reports/finder/transformer.json", FoundRates, "python -m lrstudy.find transformer --keep",
           ("suggestions",), ("rates", 0)),
    output("reports/late_decay.json", Theory, "late_decay", ("claims", 0, "id"), ("claims", 0, "mean")),
    output("reports/level_sets.json", Theory, "level_sets", ("models",), ("claims", 0, "n")),
    output("reports/comparison.json", None, "compare", ("protocol",), ("protocol", "confidence"), read_comparison),
]  # fmt: skip
NOT_OF_STAGES = [
    File("params.yaml", load_params, "make params"),
    File("checkpoints/lstm-step/run/outcome.json", lambda path: read_outcome(path.parent), "delete it",
         ("status",), ("best_epoch",), absent=False),
    File("checkpoints/theory/measured/one.json", lambda path: _measured(path, "one"), "delete it", ("name",)),
    File(f"ledger/code/{'0f' * 32}.json", read_code, ""),
    File("ledger/equivalences/0123456789abcdef.json", read_equivalence, "remove it"),
]  # fmt: skip
REPORT = File("reports/report.html", Path.read_text, "`dvc repro report` makes it")
TABLES = [
    File(f"{TRAIN}/history.csv", lambda path: HISTORY.read(path, "train@lstm-step"), "train@lstm-step` makes it"),
    File("reports/curves.csv", lambda path: CURVES.read(path, "compare"), "compare` makes it"),
]  # fmt: skip
TENSORS = [
    *(File(f"data/processed/{data}/{name}.safetensors", split, f"preprocess@{data}` makes it")
      for data, name in (("imdb", "train"), ("imdb", "test"), ("cifar10", "validation"))),
    File(f"{TRAIN}/seed-1/last.safetensors", lambda path: read_tensors(path, "train@lstm-step", "torch"),
         "train@lstm-step` makes it"),
]  # fmt: skip
RECORD = File("ledger/trainings", lambda path: Ledger(path.parents[2]).read(path), "", absent=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """All of these files as they should be."""
    root = tmp_path_factory.mktemp("whole")
    known = contents()
    for kind, data in (("text", "imdb"), ("image", "cifar10")):
        tiny_data.write_dataset(kind, root / "data/processed" / data)
    for file in JSON:
        kind = {"comparison.json": "Comparison", "late_decay.json": "Theory", "level_sets.json": "Theory"}
        records = {record.__name__: content for record, content in known.items()}
        content = {
            "source.json": records["Source"], "best.json": records["Best"], "training.json": records["Training"],
            "metrics.json": records["Evaluation"], "imdb.json": records["Reference"], "lstm.json": records["Timing"],
            "transformer.json": records["FoundRates"],
        }.get(file.name) or records.get(kind.get(file.name))  # fmt: skip
        if content is not None:
            put(root / file.path, json.dumps(content).encode())
    put(root / "params.yaml", json.dumps(composed_params("preset=smoke")).encode())  # JSON is YAML
    outcome = {
        "status": "finished",
        "best_epoch": 1,
        "num_parameters": 9,
        "final": {},
        "epochs": [{"validation/loss": 0.5}],
    }
    put(root / REPORT.path, b"<html></html>")
    put(root / NOT_OF_STAGES[1].path, json.dumps(outcome).encode())
    put(root / NOT_OF_STAGES[2].path, b'{"name": "one", "loss": 0.5}')
    put(root / NOT_OF_STAGES[3].path, b'{"lrstudy.training.loop.train": "0123456789abcdef"}')
    put(root / NOT_OF_STAGES[4].path, b'{"equal": 1}')  # a whole one is in test_prove_equal.py
    HISTORY.write(root / TABLES[0].path, ROWS)
    rows = [{"model": "lstm", "schedule": "step"} | row for row in ROWS if row["seed"] == 1]
    CURVES.write(root / TABLES[1].path, [{k: v for k, v in row.items() if k != "seed"} for row in rows])
    (root / TENSORS[-1].path).parent.mkdir(parents=True)
    shutil.copyfile(root / TENSORS[0].path, root / TENSORS[-1].path)
    return root


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def place(whole, tmp_path) -> Callable[[File], Path]:
    """Put the file's folder as it should be into a folder of the test's; returns the file."""

    def copy_of(file: File) -> Path:
        path = tmp_path / file.path
        shutil.copytree((whole / file.path).parent, path.parent, dirs_exist_ok=True)
        return path

    return copy_of


def refusal(file: File, path: Path) -> str:
    with pytest.raises(StudyError) as refused:
        file.read(path)
    said = str(refused.value)
    assert str(path) in said
    assert file.does in said
    assert "\n" not in said
    assert len(said) < 1000
    return said


# --- ways to damage ---


def is_gone(path: Path) -> None:
    path.unlink()


def is_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def points_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def is_empty(path: Path) -> None:
    path.write_bytes(b"")


def is_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def is_binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


ANY = (is_gone, is_a_folder, points_nowhere, is_empty, is_half, is_binary)


def has_no_utf8(path: Path) -> None:
    content = path.read_bytes()
    where = content.index(b"l")  # in a text or a name, wherever it stands first
    path.write_bytes(content[:where] + b"\xff" + content[where:])


OTHER_JSON = {
    "a list": b"[]", "a number": b"3", "null": b"null", "a text": b'"x"', "an object without anything": b"{}",
    "a list of them": b'[{"model": "lstm"}]', "nested": b"[" * 100_000, "nested and closed": b"[" * 900 + b"]" * 900,
    "an endless number": b"1" * 5000, "nested objects": b'{"a":' * 100_000,
}  # fmt: skip


def changed(path: Path, at: tuple, put: Callable[[dict | list, object], None]) -> None:
    """Change the JSON in a file at one place."""
    content = json.loads(path.read_bytes())
    part = content
    for key in at[:-1]:
        part = part[key]
    put(part, at[-1])
    text = json.dumps(content)  # NaN and Infinity as Python writes them
    path.write_text(text.replace('"HUGE"', "1" + "0" * 400).replace('"NESTED"', "[" * 900 + "]" * 900))


def remove(part, key) -> None:
    del part[key]


def replaced(value: object) -> Callable:
    return lambda part, key: part.__setitem__(key, copy.deepcopy(value))


NUMBERS = {
    "NaN": float("nan"), "Infinity": float("inf"), "huge": "HUGE", "a word": "many", "nested": "NESTED", "a list": [],
    "an object": {}, "negative infinity": float("-inf"),
}  # fmt: skip


def case_of(file: File) -> str:
    return file.path


# --- every file, every way ---

FILES = [*JSON, *NOT_OF_STAGES, *TABLES, *TENSORS]
DAMAGES = [
    (file, damage)
    for file in FILES
    for damage in ANY
    if file.absent or damage not in (is_gone, points_nowhere)
]
SHAPES = [(file, shape) for file in (*JSON, *NOT_OF_STAGES, *TABLES, *TENSORS) for shape in OTHER_JSON]
VALUES = [(file, value) for file in JSON for value in NUMBERS]


def test_what_is_whole_is_read(place):
    for file in (*JSON, *NOT_OF_STAGES[:-1], *TABLES, *TENSORS):
        if file.name != "source.json":  # which needs the parquet files beside it, too
            assert file.read(place(file))


def test_there_are_many():
    assert len({file.path for file in FILES}) == len(FILES) >= 20
    assert len(DAMAGES) + len(SHAPES) + len(VALUES) >= 170


@pytest.mark.parametrize(
    ("file", "damage"), DAMAGES, ids=[f"{file.path}-{damage.__name__}" for file, damage in DAMAGES]
)
def test_a_damaged_file_is_one_line(place, file, damage):
    path = place(file)
    damage(path)
    refusal(file, path)


@pytest.mark.parametrize(("file", "shape"), SHAPES, ids=[f"{file.path}-{shape}" for file, shape in SHAPES])
def test_a_file_of_another_shape_is_one_line(place, file, shape):
    path = place(file)
    path.write_bytes(OTHER_JSON[shape])
    if (file.name, shape) == (f"{'0f' * 32}.json", "an object without anything"):
        assert file.read(path) == {}  # the listing of a part of the code that has no definition
    else:
        refusal(file, path)


@pytest.mark.parametrize("file", [*JSON, *NOT_OF_STAGES, TABLES[0], TABLES[1]], ids=case_of)
def test_a_file_that_is_no_utf8_is_one_line(place, file):
    path = place(file)
    has_no_utf8(path)
    refusal(file, path)


@pytest.mark.parametrize("file", [*JSON, *NOT_OF_STAGES[1:3]], ids=case_of)
def test_a_key_that_is_not_there_is_one_line(place, file):
    path = place(file)
    changed(path, file.needed, remove)
    said = refusal(file, path)
    assert file not in JSON or file.needed[-1] in said


@pytest.mark.parametrize("file", [*JSON, *NOT_OF_STAGES[1:3]], ids=case_of)
@pytest.mark.parametrize("value", [[], 3, True, None], ids=repr)
def test_a_value_of_another_type_is_one_line(place, file, value):
    path = place(file)
    changed(path, file.needed, replaced(value))
    if file.name == "metrics.json" and value in (3, None):  # a loss may be 3
        value = "three"
        changed(path, file.needed, replaced(value))
    refusal(file, path)


@pytest.mark.parametrize(("file", "value"), VALUES, ids=[f"{file.path}-{value}" for file, value in VALUES])
def test_what_is_no_number_where_one_stands_is_one_line(place, file, value):
    path = place(file)
    changed(path, file.number, replaced(NUMBERS[value]))
    refusal(file, path)


@pytest.mark.parametrize(
    ("file", "at"),
    [
        (JSON[0], ("files", "train")), (JSON[0], ("files", "test")), (JSON[1], ("num_examples", "train")),
        (JSON[1], ("num_examples", "test")), (JSON[2], ("num_examples", "validation")), (JSON[4], ("seeds", "1")),
    ],
)  # fmt: skip
def test_one_of_several_that_belong_together_is_missed(place, file, at):
    path = place(file)
    changed(path, at, remove)
    assert at[0] in refusal(file, path)


CLAIM, CELL = ("claims", 1), ("cells", "resnet", "cosine")


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        ((*CLAIM, "verdict"), "perhaps", r"claims\.1\.verdict is 'perhaps'"),
        ((*CLAIM, "parts", 0, "decides"), None, r"claims\.1\.parts\.0\.decides is None"),
        ((*CLAIM, "parts", 0, "rows"), [], r"claims\.1\.parts\.0\.rows is \[\]"),
        ((*CLAIM, "parts"), [], "claims of the id dynamic_generalizes say nothing of resnet"),
        ((*CLAIM, "by_schedule", "cosine", "why"), 3, r"claims\.1\.by_schedule\.cosine\.why is 3"),
        ((*CELL, "metrics", "test/accuracy", "difference", "interval"), [0.1], r"difference\.interval\.1 is missing"),
        ((*CELL, "metrics", "test/accuracy", "difference", "mixed"), {"1": {"dtype": ["bfloat16"]}}, r"mixed\.1\.dtype"),
        ((*CELL, "tuning", "cost", "epochs"), "many", r"tuning\.cost\.epochs is 'many'"),
        ((*CELL, "tuning", "terms", 0, "parameter"), "gamma", r"by_search\.1 has no gamma, which was searched"),
        ((*CELL, "tuning", "sensitivity", "parameters", "base_lr", "half"), [], "half is "),
        ((*CELL, "origins", "dtype"), {}, r"origins\.dtype is \{\}"),
        (("gaps", 3, "values", 0, "unit"), None, r"gaps\.3\.values\.0\.unit is None"),
        (("progress", "lstm-cosine", "searches", 0, "trials"), -1, r"progress\.lstm-cosine\.searches\.0\.trials is -1"),
        (("time_to_target", "profiles", "epochs", "factors"), [], r"shares\.\w+ has \d of 0 factors"),
        (("protocol", "looks"), [12, 9], "looks do not grow"),
    ],
)  # fmt: skip
def test_a_damaged_part_of_the_comparison_is_named(place, at, value, said):
    file = JSON[-1]
    path = place(file)
    changed(path, at, replaced(value))
    assert re.search(said, refusal(file, path))


@pytest.mark.slow
def test_no_key_of_the_comparison_is_missed_by_the_report_without_a_word(tmp_path):
    """Without any one key, down to the fifth level: it is told, or the report does without."""
    whole, path = contents()[Comparison], tmp_path / "comparison.json"
    told = 0
    for at in keys(whole, 5):
        path.write_text(json.dumps(whole))
        changed(path, at, remove)
        try:
            found = read_comparison(path)
        except StudyError:
            refusal(JSON[-1], path)
            told += 1
        else:
            assert render_markdown(found)
            assert text_table(found)
    assert told > 350


def keys(content: object, depth: int, at: tuple = ()) -> list[tuple]:
    """Where keys stand: of a list in its first item, of cells and models in the first."""
    if depth == 0 or not isinstance(content, dict | list):
        return []
    items = list(content.items()) if isinstance(content, dict) else list(enumerate(content))[:1]
    of_one = len(at) == 1 and at[0] in ("cells", "views", "models", "timing", "progress")
    if of_one or (len(at) == 2 and at[0] in ("cells", "views")):
        items = items[:1]
    own = [(*at, key) for key, _ in items] if isinstance(content, dict) else []
    return own + [inner for key, value in items for inner in keys(value, depth - 1, (*at, key))]


# --- tables ---


def cells(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def write(path: Path, rows: list[list[str]]) -> None:
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")


@pytest.mark.parametrize("file", TABLES, ids=case_of)
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("lr", "fast"), ("lr", ""), ("lr", "inf"), ("lr", "-Infinity"), ("lr", "1e999"), ("lr", "x" * 200_000),
        ("epoch", "1.5"), ("epoch", "nan"), ("epoch", "-1"), ("epoch", "9" * 400), ("epoch", ""), ("lr", "1\x000"),
    ],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_a_table_with_what_is_no_number_is_one_line(place, file, column, value):
    path = place(file)
    rows = cells(path)
    rows[2][rows[0].index(column)] = value
    write(path, rows)
    said = refusal(file, path)
    assert "row 3" in said or "not a table of numbers" in said


@pytest.mark.parametrize("file", TABLES, ids=case_of)
def test_a_table_without_a_column_or_with_one_twice_is_one_line(place, file):
    path = place(file)
    rows = cells(path)
    column = rows[0].index("validation/loss")
    write(path, [[cell for n, cell in enumerate(row) if n != column] for row in rows])
    assert "has no column validation/loss" in refusal(file, path)
    write(path, [[*row, row[column]] for row in rows])
    assert "has a column twice" in refusal(file, path)
    write(path, [row[:-1] if n == 2 else row for n, row in enumerate(rows)])
    assert "row 3 has 11 of 12" in refusal(file, path) or "row 3 has 12 of 13" in refusal(file, path)
    write(path, rows[:1])
    assert "has no rows" in refusal(file, path)


def test_nan_stands_in_a_table_where_a_training_diverged(place):
    path = place(TABLES[1])
    rows = cells(path)
    rows[1][rows[0].index("train/loss")] = "nan"
    write(path, rows)
    assert repr(TABLES[1].read(path)[0]["train/loss"]) == "nan"


def test_names_in_a_table_lead_nowhere(place):
    path = place(TABLES[1])
    rows = cells(path)
    rows[1][0] = "../up"
    write(path, rows)
    assert "row 2: model is '../up'" in refusal(TABLES[1], path)


# --- tensors ---


@pytest.mark.parametrize(
    "change", ["no labels", "other dtype", "other shape", "labels beyond", "tokens beyond"]
)
def test_a_split_whose_tensors_are_others_is_one_line(place, change):
    import numpy as np
    from safetensors.numpy import load_file, save_file

    path = place(TENSORS[0])
    arrays = load_file(path)
    arrays |= {
        "no labels": {},
        "other dtype": {"labels": arrays["labels"].astype(np.float32)},
        "other shape": {"labels": arrays["labels"].reshape(2, -1)},
        "labels beyond": {"labels": arrays["labels"] + 1},
        "tokens beyond": {"tokens": arrays["tokens"] + 1000},
    }[change]
    if change == "no labels":
        del arrays["labels"]
    save_file(arrays, path)
    refusal(TENSORS[0], path)


# --- the ledger's records: set aside by whoever needs them, named by whoever looks them over ---


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


RECORDS = {
    "a folder": is_a_folder, "a link": points_nowhere, "empty": is_empty, "half": is_half, "binary": is_binary,
    **{
        f"packed: {shape}": lambda path, content=content: path.write_bytes(packed(content))
        for shape, content in OTHER_JSON.items()
    },
    "packed: no UTF-8": lambda path: path.write_bytes(packed(b'{"a": "\xff"}')),
    "packed: NaN": lambda path: path.write_bytes(packed(gzip.decompress(path.read_bytes()).replace(b"0.5", b"NaN"))),
    "packed: a key less": lambda path: path.write_bytes(
        packed(gzip.decompress(path.read_bytes()).replace(b'"status"', b'"state"'))
    ),
    "packed: huge": lambda path: path.write_bytes(
        packed(gzip.decompress(path.read_bytes()).replace(b'"cores":2', b'"cores":1' + b"0" * 400))
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", RECORDS)
def test_a_damaged_record_of_the_ledger_is_one_line(tmp_path, damage, capsys):
    record = tiny_data.record([0.75, 0.5])
    ledger = Ledger(tmp_path / "ledger")
    path = ledger.add(record)
    assert encode(record)[0] == path.name
    RECORDS[damage](path)
    refusal(RECORD, path)
    assert ledger.find(record.identity) is None  # the training is done anew, and it is said so
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "Set aside as" in said[0]


# --- what a machine keeps for itself ---


@pytest.mark.parametrize("damage", [is_a_folder, is_half, is_binary])
def test_a_damaged_journal_is_one_line_and_a_damaged_note_of_what_was_sent_sends_all_again(tmp_path, damage):
    journal = Journal(tmp_path / "run", "k")
    journal.create("a run", {}, {})
    journal.tags({"a": "b"})
    uri = tracking_uri(tmp_path)
    put(tmp_path / "run/sent.json", json.dumps({"uri": uri, "run_id": "r", "events": 1}).encode())
    damage(tmp_path / "run/sent.json")
    assert waiting(tmp_path / "run", uri) == 2
    if damage is not is_half:  # whose last line is cut off as a killed process leaves it
        damage(journal.path)
        with pytest.raises(StudyError, match=r"journal\.jsonl.*(remove|delete) it") as refused:
            journal.events()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("damage", ANY[1:], ids=lambda damage: damage.__name__)
def test_networks_are_made_again_where_it_is_not_known_that_they_can_be(tmp_path, monkeypatch, damage):
    made = []
    monkeypatch.setattr("lrstudy.stages.code._make", lambda name, settings: made.append(name))
    params = check_params(composed_params("model=[lstm,resnet]", "preset=smoke"))
    path = tmp_path / "networks.json"
    path.write_text(json.dumps(check_networks(params, path)))
    check_networks(params, path)
    assert made == ["lstm", "resnet"]
    damage(path)
    check_networks(params, path)
    assert made == ["lstm", "resnet"] * 2


# --- command lines ---


def lrstudy(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("LRSTUDY_", "DVC_"))
    }
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment | {"LRSTUDY_WARM": "0", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )


COMMANDS = [
    (JSON[3], is_a_folder, ("lrstudy.stages.train", "lstm", "step"), "cannot be read (Is a directory)"),
    (JSON[4], is_binary, ("lrstudy.stages.evaluate", "lstm", "step"), "not JSON"),
    (TABLES[1], is_empty, ("lrstudy.stages.report",), "not a table of numbers"),
    (JSON[0], points_nowhere, ("lrstudy.stages.preprocess", "imdb"), "not found"),
    (REPORT, is_gone, ("lrstudy.stages.publish",), "not found"),
]


@pytest.mark.parametrize(
    ("file", "damage", "command", "why"), COMMANDS, ids=[command[0] for *_, command, _ in COMMANDS]
)
def test_a_command_says_it_in_one_line(whole, tmp_path, file, damage, command, why):
    folder = tmp_path / "study"
    shutil.copytree(whole, folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(composed_params("preset=smoke")))
    damage(folder / file.path)
    done = lrstudy(folder, *command)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {file.path}: {why}")
    assert file.does in line


def test_a_folder_in_the_way_of_what_is_written_is_one_line(whole, tmp_path, capfd):
    from lrstudy.files import write_atomically
    from lrstudy.process.exits import exit_status

    path = tmp_path / "reports/curves.csv"
    (path / "inner").mkdir(parents=True)
    assert exit_status(lambda: write_atomically(path, "text")) == 2
    assert capfd.readouterr().err == (
        f"error: {path}: Is a directory; move it away, then run it again: what was finished is kept.\n"
    )
    assert [found.name for found in path.parent.iterdir()] == ["curves.csv"]
