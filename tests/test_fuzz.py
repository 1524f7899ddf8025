"""Malformed files of every kind that is read: a result that holds, or one message; never a fault, never a hang."""

import gzip
import io
import json
import pickle
import random
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from composed import composed_params
from described import read_rows
from lrstudy.data import raw, read_meta, read_split
from lrstudy.data.preprocessing import _read_source
from lrstudy.errors import StudyError
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import load_params
from lrstudy.study import runs
from lrstudy.study.outputs import CURVES, Best
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import _read_sent
from tiny_data import write_dataset

some = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
few = settings(some, max_examples=15)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
seeds = st.integers(0, 2**32)


def damaged(content: bytes, seed: int) -> bytes:
    """One of: bits flipped, a part cut out, doubled or zeroed, the end gone, another file's bytes."""
    rng = random.Random(seed)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 3, 10))):
        at = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 2, 8, 64, 1000))
        how = rng.randrange(6)
        if how == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            del changed[at : at + length]
        elif how == 2:
            changed[at:at] = changed[at : at + length]
        elif how == 3:
            changed[at : at + length] = bytes(len(changed[at : at + length]))
        elif how == 4:
            changed[at : at + length] = rng.randbytes(length)
        else:
            del changed[at:]
    return bytes(changed)


def result_or_message(function, *arguments):
    """What the function returns; None if it refused with one short message."""
    try:
        return function(*arguments)
    except StudyError as error:
        text = str(error)
        assert 10 < len(text) < 2000
        assert "\n" not in text.strip()
        return None


# --- params.yaml ---

PARAMS = composed_params("preset=smoke")


def leaves(node: object, path: tuple = ()) -> list[tuple]:
    if isinstance(node, dict):
        return [path, *(leaf for key, value in node.items() for leaf in leaves(value, (*path, key)))]
    return [path]


PATHS = [path for path in leaves(PARAMS) if path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def read_params(path: Path) -> None:
    params = load_params(path)
    for listed in params.cells.values():
        make_cell(params, listed.model, listed.schedule).search_space()


@some
@given(
    st.sampled_from(PATHS), json_values, st.sampled_from(["replace", "add", "remove"]), st.text(max_size=30)
)
def test_params_with_a_value_or_a_key_of_any_kind(folder, path, value, how, key):
    content = json.loads(json.dumps(PARAMS))
    node = content
    for step in path[:-1]:
        node = node[step]
    if how == "remove":
        del node[path[-1]]
    else:
        node[path[-1] if how == "replace" else key] = value
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(content), "utf-8")
    result_or_message(read_params, file)


TEXT = yaml.safe_dump(PARAMS).encode()


@few
@given(seeds)
def test_params_damaged_anywhere(folder, seed):
    file = folder / "params.yaml"
    file.write_bytes(damaged(TEXT, seed))
    result_or_message(read_params, file)


@some
@given(st.text(alphabet=st.sampled_from("abc: -[]{}&*!<>|?%@`'\"\n\t0123456789.~#,=eE+_")))
@example("a: 2001-99-99")
@example("!!int x")
@example("!!bool maybe")
@example("!!float x")
@example("!!timestamp x")
@example("!!binary x")
@example("!!map 3")
@example("!!set [1]")
@example("!!omap {a: 1}")
@example("!!python/object/apply:os.system [id]")
@example("? [1, 2]\n: 3")
@example("? {a: 1}\n: 3")
@example("<<: 3")
@example("<<: {a: 1}\na: 2")
@example("a: " + "9" * 5000)
@example("[" * 20_000)
@example("{a: " * 20_000)
@example("a: &x [*x]")
@example("a: &a [1,1]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]")
@example("1: 2")
@example("null: 2")
@example("\x00")
@example("%YAML 9.9\n---\na: 1")
@example("---\na: 1\n---\nb: 2")
@example("k" * 100_000 + ": 1")
def test_params_of_any_text(folder, text):
    file = folder / "params.yaml"
    file.write_text(text, "utf-8")
    result_or_message(read_params, file)


# --- raw files: parquet, images, the archive ---


def png(seed: int, encoding: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, encoding)
    return file.getvalue()


def parquet(table: pa.Table, **options) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


LABELS = pa.array([0, 1] * 10, pa.int64())
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGES = [{"bytes": png(n, ("PNG", "JPEG")[n % 2]), "path": None} for n in range(20)]
TABLES = {
    "image": pa.table({"img": pa.array(IMAGES, IMAGE_TYPE), "label": LABELS}),
    "text": pa.table({"text": [f"a review, number {n}" for n in range(20)], "label": LABELS}),
}
FILES = {kind: parquet(table) for kind, table in TABLES.items()}
COLUMN = {"image": "img", "text": "text"}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(raw.ProgressBar, "display", lambda *_, **__: None)


def read_raw(path: Path, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
        values, labels, _ = read_rows(path, kind, 2, 20, "a file")
    assert len(values) == len(labels) == 20
    assert labels.dtype == np.int64
    if kind == "image":
        assert (values.shape, values.dtype) == ((20, 32, 32, 3), np.uint8)
    else:
        assert all(isinstance(value, str) for value in values)


@pytest.mark.parametrize("kind", FILES)
@some
@given(seed=seeds)
def test_parquet_damaged_anywhere(folder, kind, seed):
    path = folder / f"{kind}.parquet"
    path.write_bytes(damaged(FILES[kind], seed))
    result_or_message(read_raw, path, kind)


@pytest.mark.parametrize("encoding", ["PNG", "JPEG"])
@some
@given(seed=seeds)
def test_an_image_damaged_anywhere(folder, encoding, seed):
    cells = [*IMAGES[:3], {"bytes": damaged(png(3, encoding), seed), "path": None}, *IMAGES[4:]]
    path = folder / "image.parquet"
    path.write_bytes(parquet(pa.table({"img": pa.array(cells, IMAGE_TYPE), "label": LABELS})))
    result_or_message(read_raw, path, "image")


WRONG_TYPES = [
    pa.table({"text": [["a"]] * 20, "label": LABELS}),
    pa.table({"text": TABLES["text"]["text"], "label": pa.array([2**63] * 20, pa.uint64())}),
    pa.table({"text": TABLES["text"]["text"], "label": pa.array([-(2**63)] * 20)}),
    pa.table({"label": LABELS, "text": TABLES["text"]["text"]}),  # another order: allowed
    pa.table({"text": pa.array(["a"] * 20).dictionary_encode(), "label": LABELS}),
    pa.table({"text": pa.array(["a"] * 20, pa.large_string()), "label": LABELS}),
    pa.Table.from_arrays([TABLES["text"]["text"], TABLES["text"]["text"], LABELS], ["text", "text", "label"]),
    pa.table({"img": pa.array([{"bytes": "x"}] * 20), "label": LABELS}),
    pa.table({"img": pa.array([None] * 20, IMAGE_TYPE), "label": LABELS}),
    pa.table({"img": pa.array([{"path": b""}] * 20), "label": LABELS}),
]


@pytest.mark.parametrize("number", range(len(WRONG_TYPES)))
@pytest.mark.parametrize("kind", FILES)
def test_parquet_of_other_types(folder, kind, number):
    path = folder / "types.parquet"
    path.write_bytes(parquet(WRONG_TYPES[number], row_group_size=7))
    result_or_message(read_raw, path, kind)


def test_a_small_file_that_unpacks_to_too_much_fills_no_memory(folder, monkeypatch):
    """4,000 references to one text of 100 KB: 400 MB of texts in a file of a few KB."""
    text = "a" * 100_000
    table = pa.table({"text": [text] * 4000, "label": [0, 1] * 2000})
    path = folder / "bomb.parquet"
    path.write_bytes(parquet(table, compression="zstd", use_dictionary=True))
    del table
    assert path.stat().st_size < 500_000
    monkeypatch.setattr(raw, "MAX_FILE_BYTES", 1 << 25)
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(StudyError, match="at most 33,554,432 bytes are allowed, unpacked"):
            read_rows(path, "text", 2, 4000, "a file")
    finally:
        pa.set_memory_pool(before)
    assert pool.max_memory() < 200_000_000


def archive(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo("batch")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return gzip.compress(file.getvalue(), 1)


BATCH = {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 3], b"batch_label": b"a batch"}
PICKLE = pickle.dumps(BATCH, protocol=2)


@some
@given(seed=seeds)
def test_a_pickle_damaged_anywhere(folder, seed):
    path = folder / "archive.tar.gz"
    path.write_bytes(archive(damaged(PICKLE, seed)))
    found = result_or_message(raw.read_archive, path, ["batch"])
    if found:
        images, labels = found
        assert images.shape == (len(labels), 32, 32, 3)


@few
@given(seed=seeds)
def test_an_archive_damaged_anywhere(folder, seed):
    path = folder / "archive.tar.gz"
    path.write_bytes(damaged(archive(PICKLE), seed))
    result_or_message(raw.read_archive, path, ["batch"])


@given(st.sampled_from(["dataset", "layout", "files", "label", "source"]), json_values)
@few
def test_source_json_with_a_value_of_any_kind(folder, key, value):
    raw = folder / "raw/imdb"
    raw.mkdir(parents=True, exist_ok=True)
    entry = {"sha256": "0" * 64, "bytes": 9, "rows": 20}
    source = {
        "dataset": "imdb", "label": "x", "source": "hub", "official": True, "encoding": "utf-8", "revision": "x",
        "layout": {"kind": "text", "columns": {"input": "text", "label": "label"}, "class_names": ["neg", "pos"]},
        "files": {"train": entry, "test": entry},
    }  # fmt: skip
    (raw / "source.json").write_text(json.dumps(source | {key: value}))
    assert result_or_message(_read_source, raw) is None  # there are no files


# --- processed data ---


@pytest.fixture(scope="module")
def processed(tmp_path_factory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("processed")
    return {kind: write_dataset(kind, made / kind) for kind in ("image", "text")}


@pytest.mark.parametrize("kind", ["image", "text"])
@some
@given(seed=seeds)
def test_a_split_damaged_anywhere_is_refused_or_fits_together(folder, processed, kind, seed):
    target = folder / f"processed-{kind}"
    target.mkdir(exist_ok=True)
    (target / "meta.json").write_bytes((processed[kind] / "meta.json").read_bytes())
    content = (processed[kind] / "test.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    # The header's few bytes are damaged as often as the tensors'.
    where = damaged(content[:header], seed) + content[header:] if seed % 2 else damaged(content, seed)
    (target / "test.safetensors").write_bytes(where)
    arrays = result_or_message(read_split, target, "test")
    if arrays is not None:
        meta = read_meta(target)
        assert len(arrays["labels"]) == len(arrays["index"]) > 0
        assert 0 <= arrays["labels"].min() <= arrays["labels"].max() < meta["num_classes"]
        if kind == "text":
            assert arrays["offsets"][-1] == len(arrays["tokens"])
            assert arrays["tokens"].max() < meta["vocab_size"]
        else:
            assert arrays["images"].shape == (len(arrays["labels"]), 32, 32, 3)


@few
@given(value=json_values, seed=seeds)
@example(value={"kind": "image", "num_classes": "4", "fingerprint": ""}, seed=0)
def test_meta_json_of_any_kind(folder, processed, value, seed):
    target = folder / "meta"
    target.mkdir(exist_ok=True)
    for content in (
        json.dumps(value).encode(),
        damaged((processed["text"] / "meta.json").read_bytes(), seed),
    ):
        (target / "meta.json").write_bytes(content)
        result_or_message(read_meta, target)


# --- what stages leave for each other ---


def checkpoint() -> bytes:
    import torch

    tensor = torch.arange(2000.0)
    state = {name: {"w": tensor} for name in ("model", "optimizer", "controller", "rng")}
    state |= {"order": tensor, "status": "running", "epochs": [{"epoch": 1}], "best_epoch": 1, "key": "k"}
    state |= {"best_weights": {"w": tensor}, "last_weights": None}
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@some
@given(seed=seeds)
def test_a_checkpoint_damaged_anywhere_is_set_aside_or_says_the_same(folder, seed):
    import torch

    good = checkpoint()
    path = folder / "checkpoint.pt"
    path.write_bytes(damaged(good, seed))
    state = runs._load_checkpoint(folder, "k", "a run")
    assert path.exists() == (state is not None)
    if state is not None:  # the damage was where nothing is
        expected = torch.load(io.BytesIO(good), weights_only=True)
        assert torch.equal(state.pop("order"), expected.pop("order"))
        assert repr(state) == repr(expected)


OUTCOME = {
    "status": "finished",
    "best_epoch": 1,
    "num_parameters": 1,
    "epochs": [{"epoch": 1, "validation/loss": 1}],
}


@few
@given(value=json_values, key=st.sampled_from(list(OUTCOME)), seed=seeds)
def test_outcome_json_of_any_kind(folder, value, key, seed):
    whole = json.dumps(OUTCOME).encode()
    for content in (
        json.dumps(value).encode(),
        json.dumps(OUTCOME | {key: value}).encode(),
        damaged(whole, seed),
    ):
        (folder / "outcome.json").write_bytes(content)
        found = result_or_message(runs.read_outcome, folder)
        if found is not None:
            assert found["status"] in ("finished", "diverged")
            assert found["epochs"][-1]["validation/loss"] is not ...


@few
@given(value=json_values, seed=seeds)
def test_what_a_stage_reads_of_another_is_of_any_kind(folder, value, seed):
    path = folder / "best.json"
    whole = json.dumps(
        {"model": "a", "schedule": "b", "values": {"base_lr": 0.1}, "source": "tuned"}
    ).encode()
    for content in (json.dumps(value).encode(), damaged(whole, seed)):
        path.write_bytes(content)
        found = result_or_message(Best.read, path, "tune@a-b")
        assert found is None or found.values_for(1) == (found.values, 1)


HISTORY = (
    "seed,epoch,train/loss,validation/loss,validation/accuracy,validation/f1,lr\n"
    + "1,1,0.5,0.5,0.5,0.5,0.1\n" * 3
)


@some
@given(seed=seeds, text=st.text(max_size=200))
@example(seed=0, text='"' + "a" * 200_000)
@example(seed=0, text="a\x00b\n1")
@example(seed=0, text="a,a\n1,2")
def test_curves_damaged_anywhere(folder, seed, text):
    path = folder / "curves.csv"
    for content in (damaged(HISTORY.encode(), seed), text.encode("utf-8", "replace")):
        path.write_bytes(content)
        rows = result_or_message(CURVES.read, path, "compare")
        named = ("model", "schedule")
        assert rows is None or all(
            isinstance(v, int | float) for row in rows for name, v in row.items() if name not in named
        )


EVENTS = b"".join(
    json.dumps(event).encode() + b"\n"
    for event in (
        {"event": "create", "key": "k", "name": "n", "tags": {}, "parameters": {}, "parent": None},
        {"event": "metrics", "values": [["lr", 0.1, 1, 2]]},
        {"event": "end", "status": "FINISHED"},
    )
)


@few
@given(seed=seeds, value=json_values)
def test_a_journal_and_a_note_of_what_was_sent_damaged_anywhere(folder, seed, value):
    journal = Journal(folder / "run", "k")
    journal.folder.mkdir(exist_ok=True)
    for content in (damaged(EVENTS, seed), json.dumps(value).encode() + b"\n"):
        journal.path.write_bytes(content)
        events = result_or_message(journal.events)
        assert events is None or all(isinstance(event["event"], str) for event in events)
    for content in (json.dumps(value).encode(), damaged(b'{"uri": "x", "run_id": "r", "events": 3}', seed)):
        (folder / "sent.json").write_bytes(content)
        sent = _read_sent(folder / "sent.json")
        assert sent == {} or isinstance(sent["events"], int)
