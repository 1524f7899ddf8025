"""Data: every way in, every way in which it can be broken, and what preprocessing promises."""

import functools
import hashlib
import io
import itertools
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from described import NAMES, read_rows, shipped
from hub_server import HubServer, hub_server
from lrstudy import data
from lrstudy.data import preprocessing, raw, sample, sources
from lrstudy.errors import StudyError
from lrstudy.recipe.dataset import Archive, Columns, Dataset
from lrstudy.training.batches import take_share

RNG = np.random.default_rng(0)
NUM_CLASSES = 10
ROWS = {"train": 40, "test": 20}


# ------------------------------------------------------------------------------------ tiny official files


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def image_table(rows: int, encoding: str = "PNG", size: tuple[int, int] = (32, 32)) -> pa.Table:
    """Noise images (so that files don't compress to nothing), classes 0 to 9 in turn."""
    cells = []
    for _ in range(rows):
        buffer = io.BytesIO()
        Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(buffer, encoding)
        cells.append({"bytes": buffer.getvalue(), "path": None})
    img = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    return pa.table({"img": img, "label": np.arange(rows) % NUM_CLASSES})


def text_table(texts: list[str]) -> pa.Table:
    return pa.table({"text": texts, "label": np.arange(len(texts)) % 2})


def texts(rows: int) -> list[str]:
    words = np.array(["good", "bad", "film", "plot", "was", "not", "<br />", "THE", "end!"])
    return [" ".join(RNG.choice(words, 12)) for _ in range(rows)]


NAME = {"image": "cifar10", "text": "imdb"}


def spec_for(tables: dict[str, pa.Table], kind: str = "image", **changes) -> tuple[Dataset, dict[str, bytes]]:
    """A description as strict as CIFAR-10's and IMDB's, of tiny files, and the files' bytes."""
    files = {split: parquet(table) for split, table in tables.items()}
    image = kind == "image"
    described = {
        "kind": kind,
        "title": "CIFAR-10" if image else "IMDB",
        "headline": "accuracy",
        "classes": list("abcdefghij") if image else ["neg", "pos"],
        **({"image_size": [32, 32], "channels": 3} if image else {}),
        "rows": {split: len(table) for split, table in tables.items()},
        "balanced": True,
        "num_epochs": 1,
        "batch_size": 8,
        "sample": "digits" if image else "reviews",
        "origin": {
            "type": "hub",
            "repo": "owner/name",
            "revision": "0123456789abcdef0123456789abcdef01234567",
            "columns": {"input": "img" if image else "text", "label": "label"},
            "files": {split: [f"plain_text/{split}-00000-of-00001.parquet"] for split in files},
            "sha256": {split: [hashlib.sha256(content).hexdigest()] for split, content in files.items()},
        },
    }
    return Dataset.model_validate(described | changes), files


def hash_of(spec: Dataset, split: str) -> str:
    return spec.origin.sha256[split][0]


IMAGE_TABLES = {split: image_table(rows) for split, rows in ROWS.items()}
TEXT_TABLES = {split: text_table(texts(rows)) for split, rows in ROWS.items()}


def write_mirror(folder: Path, spec: Dataset, files: dict[str, bytes]) -> Path:
    for split, content in files.items():
        path = folder / spec.origin.repo / spec.origin.files[split][0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def raw_from(folder: Path, tables: dict[str, pa.Table], kind: str = "image") -> Path:
    spec, files = spec_for(tables, kind)
    mirror = write_mirror(folder / "mirror", spec, files)
    sources.download(NAME[kind], spec, folder / "raw", mirror=mirror)
    return folder / "raw"


# ------------------------------------------------------------------------------------------------ the hub


@pytest.fixture
def server(monkeypatch):
    import huggingface_hub.constants

    # blocks of 1 kB, so that tiny files can be cut in the middle; retries without their pauses
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with hub_server() as running:
        yield running


class Place:
    """A folder with an earlier, different download in it, and the call that fetches into it."""

    def __init__(self, path: Path, spec: Dataset, server: HubServer | None = None):
        self.folder, self.partial, self.spec = path / "raw", path / "partial", spec
        self.endpoint = server.url if server else "http://127.0.0.1:9"
        self.folder.mkdir()
        for name in ("train.parquet", "test.parquet", "source.json"):
            (self.folder / name).write_bytes(b"what was here before")

    def download(self, **options) -> dict:
        options = {"endpoint": self.endpoint, "partial": self.partial} | options
        return sources.download(NAME[self.spec.kind], self.spec, self.folder, **options)

    def content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def refuses(self, message: str, **options) -> str:
        """The download fails with ``message``, and what was there before is there, and nothing else."""
        before = self.content()
        with pytest.raises(StudyError, match=message) as caught:
            self.download(**options)
        assert self.content() == before
        return str(caught.value)


@pytest.fixture
def hub(tmp_path, server):
    """A place, and a server that holds the right files for it."""
    spec, files = spec_for(IMAGE_TABLES)
    for split, content in files.items():
        server.add(spec.origin.repo, spec.origin.revision, spec.origin.files[split][0], content)
    return SimpleNamespace(server=server, place=Place(tmp_path, spec, server), files=files, spec=spec)


def serve(hub, split: str, content: bytes) -> None:
    origin = hub.spec.origin
    hub.server.add(origin.repo, origin.revision, origin.files[split][0], content)


def test_the_server_speaks_the_hubs_protocol(hub, tmp_path):
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(
        hub.spec.origin.repo,
        hub.spec.origin.files["train"][0],
        repo_type="dataset",
        revision=hub.spec.origin.revision,
        endpoint=hub.server.url,
        local_dir=tmp_path / "reference",
    )
    assert Path(path).read_bytes() == hub.files["train"]


def test_hub_download_is_official_and_recorded(hub):
    record = hub.place.download()
    content = hub.place.content()
    assert content.keys() == {"train.parquet", "test.parquet", "source.json"}
    assert json.loads(content["source.json"]) == record
    for split in ("train", "test"):
        assert content[f"{split}.parquet"] == hub.files[split]
        assert record["files"][split] == {
            "sha256": hash_of(hub.spec, split),
            "bytes": len(hub.files[split]),
            "rows": ROWS[split],
        }
    assert (record["source"], record["official"], record["label"]) == ("hub", True, "CIFAR-10")
    assert (record["encoding"], record["revision"]) == ("png", hub.spec.origin.revision)
    assert not [path for path in hub.place.partial.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_the_token_goes_to_the_hub_and_not_where_it_redirects(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.place.download()
    at_hub = [path.startswith("/datasets/") for _, path, _ in hub.server.requests]
    assert hub.server.tokens == ["Bearer hf_secret" if first else None for first in at_hub]
    assert at_hub == [True, False] * 2


def test_what_is_there_with_the_right_hash_is_not_downloaded_again(hub):
    hub.place.download()
    hub.server.requests.clear()
    hub.server.status = 500
    assert hub.place.download()["official"]
    assert hub.server.requests == []


def test_a_connection_cut_in_the_middle_is_resumed_where_it_broke(hub):
    hub.server.cuts = [25_500]
    hub.place.download()
    assert hub.place.content()["train.parquet"] == hub.files["train"]
    # whole blocks of 1000 bytes count; the test split follows in one piece
    assert hub.server.content_requests() == [None, "bytes=25000-", None]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(hub):
    hub.server.cuts = [25_000] + [0] * 5
    message = hub.place.refuses(r"broke off .*25,000 bytes are kept: run the stage again")
    assert "LRSTUDY_DATA_MIRROR" in message
    hub.server.requests.clear()
    hub.place.download()
    assert hub.server.content_requests() == ["bytes=25000-", None]
    assert hub.place.content()["train.parquet"] == hub.files["train"]


def test_a_finished_download_that_was_not_yet_moved_is_used(hub):
    kept = hub.place.partial / "cifar10" / hash_of(hub.spec, "train")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(hub.files["train"])
    hub.place.download()
    assert hub.server.content_requests() == [None]  # the test split alone


def test_what_a_killed_call_left_behind_is_cleared(hub):
    left = hub.place.folder / ".staged" / "train.parquet"
    left.parent.mkdir()
    left.write_bytes(b"half a file")
    hub.place.download()
    assert hub.place.content().keys() == {"train.parquet", "test.parquet", "source.json"}
    assert hub.place.content()["train.parquet"] == hub.files["train"]


def test_what_was_kept_but_is_too_long_is_discarded(hub):
    kept = hub.place.partial / "cifar10" / hash_of(hub.spec, "train")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(hub.files["train"] + b"more")
    hub.place.refuses("now discarded; run the stage again")
    assert hub.place.download()["official"]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("content", [b"PAR1 something else", b""], ids=["other", "empty"])
def test_a_wrong_hash_is_refused_and_the_file_discarded(hub, split, content):
    serve(hub, split, content)
    found = hashlib.sha256(content).hexdigest()
    hub.place.refuses(f"sha256 {found}, expected {hash_of(hub.spec, split)}")
    assert not (hub.place.partial / "cifar10" / hash_of(hub.spec, split)).exists()


def test_a_file_truncated_at_the_hub_is_a_wrong_hash(hub):
    serve(hub, "train", hub.files["train"][:-100])
    hub.place.refuses("expected " + hash_of(hub.spec, "train"))


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_an_http_error_names_its_status_and_both_ways_out(hub, status):
    hub.server.status = status
    message = hub.place.refuses(f"HTTP {status}")
    assert "LRSTUDY_DATA_MIRROR" in message
    assert "data=sample" in message


def test_a_file_that_the_hub_does_not_have(hub):
    hub.server.files.clear()
    hub.place.refuses(r"HTTP 404 \(not there\)")


def test_a_refused_connection_names_both_ways_out(tmp_path, server):
    place = Place(tmp_path, spec_for(IMAGE_TABLES)[0])
    place.endpoint = server.url
    server.server_close()
    message = place.refuses("out of reach")
    assert "LRSTUDY_DATA_MIRROR" in message
    assert "data=sample" in message


def test_the_librarys_offline_mode_is_out_of_reach(hub, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.place.refuses("out of reach .*offline mode")


# ------------------------------------------------------------------------------- content, whatever the source


def replaced(table: pa.Table, **columns) -> pa.Table:
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, [values])
    return table


def with_image(content: bytes) -> pa.Table:
    cells = IMAGE_TABLES["train"]["img"].to_pylist()
    cells[7] = {"bytes": content, "path": None}
    return replaced(IMAGE_TABLES["train"], img=pa.array(cells, IMAGE_TABLES["train"]["img"].type))


def encoded(size: tuple[int, int], encoding: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, encoding)
    return buffer.getvalue()


def not_utf8() -> pa.Table:
    values = [text.encode() for text in TEXT_TABLES["train"]["text"].to_pylist()]
    values[3] = b"caf\xe9"  # Latin-1
    return replaced(TEXT_TABLES["train"], text=pa.array(values, pa.binary()).view(pa.string()))


LABELS = np.arange(ROWS["train"]) % NUM_CLASSES
BROKEN_IMAGES = {
    "no such column": (
        IMAGE_TABLES["train"].rename_columns(["image", "label"]),
        "columns are image: .*label",
    ),
    "no label": (IMAGE_TABLES["train"].select(["img"]), "expected img: struct<.*>, label: integer or string"),
    "label is no class": (
        replaced(IMAGE_TABLES["train"], label=pa.array(["k"] * 40)),
        "label: 'k' is not one of",
    ),
    "image is text": (replaced(IMAGE_TABLES["train"], img=pa.array(["x"] * 40)), "columns are img: string"),
    "a row too few": (IMAGE_TABLES["train"].slice(1), "39 rows, expected 40"),
    "no rows": (IMAGE_TABLES["train"].slice(0, 0), "0 rows, expected 40"),
    "unbalanced": (
        replaced(IMAGE_TABLES["train"], label=pa.array(np.where(LABELS == 9, 0, LABELS))),
        "per class",
    ),
    "class out of range": (
        replaced(IMAGE_TABLES["train"], label=pa.array(LABELS + 1)),
        "labels go from 1 to 10",
    ),
    "label missing": (
        replaced(IMAGE_TABLES["train"], label=pa.array([None, *LABELS.tolist()[1:]], pa.int64())),
        "1 row without a label, the first in row ",
    ),
    "not an image": (
        with_image(b"\x89PNG no"),
        r"image 7 is no 32x32 image in PNG, JPEG, BMP, WEBP \(cannot identify image file\)\.",
    ),
    "no bytes": (with_image(b""), "image 7 is no 32x32 image"),
    "cut PNG": (with_image(encoded((32, 32), "PNG")[:-30]), "image 7 is no 32x32 image"),
    "cut JPEG": (with_image(encoded((32, 32), "JPEG")[:-80]), "image 7 is no 32x32 image"),
    "another format": (with_image(encoded((32, 32), "TIFF")), "image 7 is no 32x32 image"),
    "another size": (with_image(encoded((32, 33), "PNG")), "image 7 .*33x32 pixels"),
    "far too many pixels": (with_image(encoded((6000, 6000), "PNG")), "image 7 is no"),
    "far too many bytes": (with_image(bytes(20_000_000)), "image 7 .*20,000,000 bytes"),
}
BROKEN_TEXTS = {
    "not UTF-8": (not_utf8(), "text 3 is not UTF-8"),
    "no text": (
        replaced(TEXT_TABLES["train"], text=pa.array([None] * 2 + ["a"] * 38)),
        "2 rows without a text, the first in row ",
    ),
    "endless": (
        replaced(TEXT_TABLES["train"], text=pa.array(["a" * 1_000_001] + ["a"] * 39)),
        "1,000,001 bytes",
    ),
    "no such column": (TEXT_TABLES["train"].rename_columns(["review", "label"]), "expected text: string"),
}


@pytest.mark.parametrize(
    ("kind", "table", "message"),
    [("image", *case) for case in BROKEN_IMAGES.values()]
    + [("text", *case) for case in BROKEN_TEXTS.values()],
    ids=[*BROKEN_IMAGES, *(f"text: {name}" for name in BROKEN_TEXTS)],
)
def test_wrong_content_is_one_clear_error(tmp_path, kind, table, message):
    spec, files = spec_for(IMAGE_TABLES if kind == "image" else TEXT_TABLES, kind)
    mirror = write_mirror(tmp_path / "mirror", spec, files | {"train": parquet(table)})
    Place(tmp_path, spec).refuses(rf"^{NAME[kind]} \(mirror\), train[:,] .*{message}", mirror=mirror)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text", parquet(IMAGE_TABLES["train"])[:-200]])
def test_what_is_no_parquet_file(tmp_path, content):
    spec, files = spec_for(IMAGE_TABLES)
    mirror = write_mirror(tmp_path / "mirror", spec, files | {"test": content})
    Place(tmp_path, spec).refuses("test: not a readable parquet file", mirror=mirror)


def test_a_file_of_absurd_size_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    spec, files = spec_for(IMAGE_TABLES)
    mirror = write_mirror(tmp_path / "mirror", spec, files)
    monkeypatch.setattr(raw, "MAX_FILE_BYTES", 1000)
    Place(tmp_path, spec).refuses("bytes, at most 1,000 allowed", mirror=mirror)


# -------------------------------------------------------------------------------------------------- mirror


def test_a_mirror_with_the_official_hashes_is_official(tmp_path):
    spec, files = spec_for(IMAGE_TABLES)
    record = Place(tmp_path, spec).download(mirror=write_mirror(tmp_path / "mirror", spec, files))
    assert (record["source"], record["official"], record["label"]) == ("mirror", True, "CIFAR-10")
    assert record["revision"] == spec.origin.revision


@pytest.mark.parametrize(
    ("kind", "tables", "label", "encoding"),
    [
        ("image", {s: image_table(n, "JPEG") for s, n in ROWS.items()}, "CIFAR-10 (JPEG copy)", "jpeg"),
        (
            "image",
            {"train": image_table(40, "PNG"), "test": image_table(20, "JPEG")},
            "CIFAR-10 (JPEG copy)",
            "jpeg+png",
        ),
        ("image", {s: image_table(n) for s, n in ROWS.items()}, "CIFAR-10 (mirror)", "png"),
        ("text", {s: text_table(texts(n)) for s, n in ROWS.items()}, "IMDB (mirror)", "utf-8"),
    ],
    ids=["jpeg", "mixed", "png", "text"],
)
def test_a_mirror_with_other_hashes_says_so_in_its_label(tmp_path, kind, tables, label, encoding):
    spec, _ = spec_for(IMAGE_TABLES if kind == "image" else TEXT_TABLES, kind)
    mirror = write_mirror(tmp_path / "mirror", spec, {s: parquet(t) for s, t in tables.items()})
    record = Place(tmp_path, spec).download(mirror=mirror)
    assert (record["official"], record["label"], record["encoding"]) == (False, label, encoding)
    assert record["revision"] is None


def test_a_mirror_that_lacks_a_file(tmp_path):
    spec, files = spec_for(IMAGE_TABLES)
    mirror = write_mirror(tmp_path / "mirror", spec, {"train": files["train"]})
    message = Place(tmp_path, spec).refuses("LRSTUDY_DATA_MIRROR=.* is not there", mirror=mirror)
    assert "owner/name/plain_text/test-00000-of-00001.parquet" in message


def test_unknown_names():
    with pytest.raises(StudyError, match=r"data\.source: 'hup' is not a source"):
        sources.download("imdb", spec_for(TEXT_TABLES, "text")[0], Path("never"), source="hup")


# ------------------------------------------------------------------------------------------------- archive


def python2_batch(images: np.ndarray, labels: np.ndarray) -> bytes:
    """A batch pickled as Python 2 pickled the official ones: protocol 2, byte strings, NumPy's old paths."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return b"".join(
        [
            b"\x80\x02}(",
            text(b"batch_label") + text(b"training batch 1 of 5"),
            text(b"labels") + b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e",
            text(b"data"),
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR",
            b"(K\x01M" + struct.pack("<H", rows.shape[0]) + b"M" + struct.pack("<H", rows.shape[1]) + b"\x86",
            b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R",
            b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + struct.pack("<i", rows.size) + rows.tobytes() + b"tb",
            b"u.",
        ]
    )


def tar(members: dict[str, bytes | str]) -> bytes:
    """A gzipped tar; a str is a symbolic link's target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


IMAGES = {split: RNG.integers(0, 256, (rows, 32, 32, 3), np.uint8) for split, rows in ROWS.items()}
BATCHES = {
    "batches/one": python2_batch(IMAGES["train"][:20], LABELS[:20]),
    "batches/two": python2_batch(IMAGES["train"][20:], LABELS[20:]),
    "batches/test": python2_batch(IMAGES["test"], LABELS[:20]),
}


def archive_place(tmp_path, server, members: dict[str, bytes | str], md5: str | None = None) -> Place:
    content = tar(members)
    server.files["/archive.tar.gz"] = content
    archive = Archive(
        url=f"{server.url}/archive.tar.gz",
        md5=md5 or hashlib.md5(content).hexdigest(),
        members={"train": ["batches/one", "batches/two"], "test": ["batches/test"]},
    )
    return Place(tmp_path, spec_for(IMAGE_TABLES, archive=archive)[0], server)


def test_archive_holds_the_same_pixels(tmp_path, server):
    place = archive_place(tmp_path, server, BATCHES)
    record = place.download(source="archive")
    assert (record["source"], record["official"], record["label"]) == ("archive", True, "CIFAR-10")
    for split in ("train", "test"):
        images, labels, _ = read_rows(place.folder / f"{split}.parquet", "image", 10, ROWS[split])
        np.testing.assert_array_equal(images, IMAGES[split])
        np.testing.assert_array_equal(labels, LABELS[: ROWS[split]])
    server.requests.clear()
    assert place.download(source="archive") == record
    assert server.requests == []  # what is there was made from this very archive


def test_archive_with_a_wrong_md5_is_never_opened(tmp_path, server, monkeypatch):
    place = archive_place(tmp_path, server, BATCHES, md5="0" * 32)
    monkeypatch.setattr(tarfile, "open", lambda *args: pytest.fail("opened"))
    place.refuses("md5 .*, expected 0{32}", source="archive")


class Evil:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, server):
    target = tmp_path / "ran"
    evil = pickle.dumps({b"data": Evil(target), b"labels": [0]})
    pickle.loads(evil)
    assert target.exists()  # it does run code where nothing stops it
    target.unlink()
    archive_place(tmp_path, server, BATCHES | {"batches/two": evil}).refuses(
        "which is not allowed", source="archive"
    )
    assert not target.exists()


def test_archive_members_that_point_elsewhere_touch_nothing(tmp_path, server):
    members = {"../outside": b"x", "/absolute": b"x", "batches/link": "/etc/passwd"} | BATCHES
    place = archive_place(tmp_path, server, members)
    place.download(source="archive")
    assert not list(tmp_path.rglob("outside"))
    assert not Path("/absolute").exists()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"batches/one": "/etc/passwd"}, "batches/one is no"),
        ({"batches/one": b"no pickle"}, "not a CIFAR-10 Python archive"),
        ({"batches/one": pickle.dumps([1, 2])}, "not a CIFAR-10 Python archive"),
        (
            {"batches/one": pickle.dumps({"data": 1})},
            "not a CIFAR-10 Python archive",
        ),
        ({"batches/one": python2_batch(IMAGES["train"][:20], LABELS[:19])}, "20, 3072.* for 19 labels"),
    ],
    ids=["link", "no pickle", "no dict", "no arrays", "a label too few"],
)
def test_archive_with_other_content(tmp_path, server, members, message):
    archive_place(tmp_path, server, BATCHES | members).refuses(message, source="archive")


def test_archive_without_a_member(tmp_path, server):
    members = {name: content for name, content in BATCHES.items() if name != "batches/test"}
    archive_place(tmp_path, server, members).refuses("batches/test", source="archive")


# -------------------------------------------------------------------------------------------------- splits


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_stratified_choice_keeps_every_class_in_proportion(counts, share, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    size = round(share * len(labels))
    chosen = preprocessing.stratified_choice(labels, size, seed)
    assert len(chosen) == size
    assert np.all(np.diff(chosen) > 0)
    drawn = np.bincount(labels[chosen], minlength=len(counts))
    assert np.all(np.abs(drawn - size * np.array(counts) / len(labels)) < 1)
    np.testing.assert_array_equal(chosen, preprocessing.stratified_choice(labels, size, seed))


def test_another_seed_chooses_others():
    labels = np.repeat([0, 1], 100)
    assert not np.array_equal(
        preprocessing.stratified_choice(labels, 20, 0), preprocessing.stratified_choice(labels, 20, 1)
    )


@pytest.mark.parametrize("name", ["cifar10", "imdb"])
def test_official_validation_sizes(name):
    spec = shipped(name)
    labels = np.arange(spec.rows["train"]) % len(spec.classes)
    chosen = preprocessing.stratified_choice(labels, round(0.1 * len(labels)), 0)
    assert len(chosen) == {"cifar10": 5_000, "imdb": 2_500}[name]
    assert len(set(np.bincount(labels[chosen]).tolist())) == 1


@given(
    contents=st.lists(st.integers(0, 30), min_size=1, max_size=120),
    num_classes=st.integers(1, 4),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_all_copies_of_an_example_are_on_one_side_of_the_cut(contents, num_classes, share, seed):
    contents = np.array(contents)
    labels = contents % num_classes
    size = round(share * len(contents))
    chosen = preprocessing.validation_choice(labels, contents, size, seed)
    assert np.all(np.diff(chosen) > 0)
    assert not set(contents[chosen]) & set(np.delete(contents, chosen))
    drawn = np.bincount(labels[chosen], minlength=num_classes)
    assert np.all(drawn <= size * np.bincount(labels, minlength=num_classes) / len(labels) + 1)
    np.testing.assert_array_equal(chosen, preprocessing.validation_choice(labels, contents, size, seed))


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=80),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_without_copies_the_cut_is_the_stratified_choice(labels, share, seed):
    labels, size = np.array(labels), round(share * len(labels))
    np.testing.assert_array_equal(
        preprocessing.validation_choice(labels, np.arange(len(labels)), size, seed),
        preprocessing.stratified_choice(labels, size, seed),
    )


def test_pairs_and_single_examples_fill_the_validation_split_to_its_size():
    contents = np.concatenate([np.repeat(np.arange(20), 2), np.arange(100, 260)])
    labels = np.arange(200) // 2 % 2  # both of a pair have one label
    chosen = preprocessing.validation_choice(labels, contents, 20, 0)
    assert np.bincount(labels[chosen]).tolist() == [10, 10]


def test_copies_that_are_labelled_both_ways_stay_in_train():
    contents, labels = np.array([7, 7, 1, 2, 3, 4]), np.array([0, 1, 0, 0, 1, 1])
    assert all(
        not {0, 1} & set(preprocessing.validation_choice(labels, contents, 4, seed)) for seed in range(20)
    )


def test_duplicates_are_counted_within_and_between_splits():
    found = preprocessing.duplicates(np.array(list("aabc")), np.array(list("dd")), np.array(list("abbdxx")))
    assert found == {
        "train": 1, "validation": 1, "test": 2,
        "validation_in_train": 0, "test_in_train": 3, "test_in_validation": 1,
    }  # fmt: skip


def test_a_digest_is_of_the_whole_content():
    texts = preprocessing.content_digests(["a", "a ", "a", "a\0"])
    assert [texts[0] == other for other in texts] == [True, False, True, False]
    images = np.zeros((3, 2, 2, 3), np.uint8)
    images[1, 1, 1, 2] = 1
    digests = preprocessing.content_digests(images)
    assert [digests[0] == other for other in digests] == [True, False, True]


@pytest.mark.parametrize("kind", ["image", "text"])
def test_no_copy_of_a_validation_example_is_trained_on_and_the_tests_copies_are_counted(tmp_path, kind):
    """Of IMDB's 2,500 validation reviews 15 stood word for word in the training split."""
    rows = {split: [f"{split} review {i}" for i in range(n)] for split, n in ROWS.items()}
    for row in range(0, 40, 4):  # rows 0 and 20 have the same label, and so on
        rows["train"][row] = f"train review {row % 20}"
    rows["test"][:3] = rows["train"][:3]
    if kind == "text":
        tables = {split: text_table(texts) for split, texts in rows.items()}
    else:
        tables = {}
        for split, texts in rows.items():
            seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
            images = np.stack(
                [np.random.default_rng(s).integers(0, 256, (32, 32, 3), np.uint8) for s in seeds]
            )
            tables[split] = raw.image_table(
                images, np.arange(len(texts)) % NUM_CLASSES, Columns(input="img", label="label")
            )
    folder = raw_from(tmp_path, tables, kind)
    for seed in range(5):
        meta = preprocessing.preprocess(folder, tmp_path / "out", validation_fraction=0.5, split_seed=seed)
        index = {split: data.read_split(tmp_path / "out", split)["index"] for split in data.SPLITS}
        contents = {split: {rows["train"][i] for i in index[split]} for split in ("train", "validation")}
        assert not contents["train"] & contents["validation"]
        assert meta["duplicates"]["validation_in_train"] == 0
        assert meta["duplicates"]["test_in_train"] + meta["duplicates"]["test_in_validation"] == 3
        assert meta["duplicates"]["train"] + meta["duplicates"]["validation"] == 5
        assert meta["num_examples"]["test"] == 20  # the official split stays as it is


def test_the_whole_texts_of_a_split_are_found_by_their_rows(tmp_path):
    rows = {split: [f"{split} Review {i} <br />" for i in range(n)] for split, n in ROWS.items()}
    raw = raw_from(tmp_path, {split: text_table(texts) for split, texts in rows.items()}, "text")
    preprocessing.preprocess(raw, tmp_path / "out", validation_fraction=0.25, max_length=1)
    for split in data.SPLITS:
        texts, labels = preprocessing.read_examples(raw, tmp_path / "out", split)
        part = data.read_split(tmp_path / "out", split)
        assert texts == [rows["test" if split == "test" else "train"][row] for row in part["index"]]
        np.testing.assert_array_equal(labels, part["labels"])
    other = raw_from(tmp_path / "other", TEXT_TABLES, "text")
    with pytest.raises(StudyError, match=r"out: made from other files than those in .*preprocess@out"):
        preprocessing.read_examples(other, tmp_path / "out", "train")


def test_the_images_of_a_split_are_those_that_networks_see(tmp_path):
    raw = raw_from(tmp_path, IMAGE_TABLES)
    preprocessing.preprocess(raw, tmp_path / "out", validation_fraction=0.25)
    images, labels = preprocessing.read_examples(raw, tmp_path / "out", "validation")
    np.testing.assert_array_equal(images, data.read_split(tmp_path / "out", "validation")["images"])
    assert len(labels) == 10


def test_splits_are_disjoint_complete_and_point_back_to_the_official_rows(tmp_path):
    raw = raw_from(tmp_path, IMAGE_TABLES)
    preprocessing.preprocess(raw, tmp_path / "out", validation_fraction=0.25)
    splits = {split: data.read_split(tmp_path / "out", split) for split in data.SPLITS}
    train, validation = splits["train"]["index"], splits["validation"]["index"]
    assert sorted([*train, *validation]) == list(range(40))
    assert len(validation) == 10
    assert list(splits["test"]["index"]) == list(range(20))
    for split, official in {"train": "train", "validation": "train", "test": "test"}.items():
        images, labels, _ = read_rows(raw / f"{official}.parquet", "image", 10, ROWS[official])
        np.testing.assert_array_equal(splits[split]["images"], images[splits[split]["index"]])
        np.testing.assert_array_equal(splits[split]["labels"], labels[splits[split]["index"]])
        assert splits[split]["images"].dtype == np.uint8
        assert splits[split]["labels"].dtype == splits[split]["index"].dtype == np.int64


def test_limit_keeps_a_stratified_part_and_says_so(tmp_path):
    raw = raw_from(tmp_path, IMAGE_TABLES)
    meta = preprocessing.preprocess(raw, tmp_path / "out", validation_fraction=0.5, limit=20)
    assert meta["num_examples"] == {"train": 10, "validation": 10, "test": 20}
    assert meta["class_counts"]["train"] == [1] * 10
    assert meta["label"] == "CIFAR-10, 20 per split"
    assert (
        preprocessing.preprocess(raw, tmp_path / "out", validation_fraction=0.5, limit=40)["label"]
        == "CIFAR-10"
    )


def test_a_class_without_validation_examples_is_an_error(tmp_path):
    raw = raw_from(tmp_path, IMAGE_TABLES)
    with pytest.raises(StudyError, match=r"no example in validation.*data\.limit \(20\)"):
        preprocessing.preprocess(raw, tmp_path / "out", limit=20)


# ----------------------------------------------------------------------------------- learned from train alone


def test_mean_and_std_are_those_of_train_alone(tmp_path):
    raw = raw_from(tmp_path, IMAGE_TABLES)
    meta = preprocessing.preprocess(raw, tmp_path / "out", validation_fraction=0.25)
    images = data.read_split(tmp_path / "out", "train")["images"].astype(np.float64) / 255
    np.testing.assert_allclose(meta["mean"], images.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(meta["std"], images.std((0, 1, 2)), rtol=1e-12)
    every = read_rows(raw / "train.parquet", "image", 10, 40)[0] / 255
    assert not np.allclose(meta["mean"], every.mean((0, 1, 2)), rtol=1e-6)


def vocabulary(folder: Path) -> dict[str, int]:
    return json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]


def test_the_vocabulary_knows_train_alone(tmp_path):
    # each review says its own row twice, so that only the rarity of other rows' words keeps them out
    own = {split: [f"{split}word{i} {split}word{i} common" for i in range(n)] for split, n in ROWS.items()}
    raw = raw_from(tmp_path, {split: text_table(rows) for split, rows in own.items()}, "text")
    meta = preprocessing.preprocess(raw, tmp_path / "out", validation_fraction=0.25)
    train = data.read_split(tmp_path / "out", "train")
    words = vocabulary(tmp_path / "out")
    assert (words.pop("[PAD]"), words.pop("[UNK]")) == (0, 1)
    assert words.keys() == {"common", *(f"trainword{i}" for i in train["index"])}
    assert meta["vocab_size"] == len(words) + 2
    assert meta["share_unknown_validation"] == pytest.approx(2 / 3)
    assert not np.any(train["tokens"] == 1)


def decoded(folder: Path, split: str) -> list[str]:
    words = {number: word for word, number in vocabulary(folder).items()}
    part = data.read_split(folder, split)
    ends = itertools.pairwise(part["offsets"])
    return [" ".join(words[token] for token in part["tokens"][a:b]) for a, b in ends]


def test_tokens_are_the_cleaned_text_cut_at_max_length(tmp_path):
    rows = [
        "A film.<br /><br />NOT good, not bad!",
        "",
        "<br />",
        "a film film film film film film film film",
    ]
    table = text_table([row + " " * time for time in range(10) for row in rows])  # no two are copies
    raw = raw_from(tmp_path, {"train": table, "test": text_table([*rows[:3], rows[3] + " film"] * 5)}, "text")
    meta = preprocessing.preprocess(raw, tmp_path / "out", max_length=6)
    part = data.read_split(tmp_path / "out", "test")
    assert decoded(tmp_path / "out", "test")[:4] == [
        "a film . not good ,",
        "[UNK]",
        "[UNK]",
        "a film film film film film",
    ]
    assert part["offsets"][0] == 0
    assert part["offsets"][-1] == len(part["tokens"])
    assert (part["tokens"].dtype, part["offsets"].dtype) == (np.int32, np.int64)
    assert meta["length_quantiles"]["1"] == 9  # before the cut
    assert meta["share_truncated"] == pytest.approx(0.5, abs=0.03)


def test_vocab_size_caps_the_vocabulary_at_the_most_frequent_words():
    tokenizer = preprocessing.train_tokenizer(["b b b a a a a c c rare"], 4)
    assert tokenizer.get_vocab() == {"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}


# --------------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_same_input_gives_the_same_bytes(tmp_path, kind):
    raw = raw_from(tmp_path, IMAGE_TABLES if kind == "image" else TEXT_TABLES, kind)
    written = []
    for name in ("first", "second"):
        preprocessing.preprocess(raw, tmp_path / name, validation_fraction=0.25)
        written.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert written[0] == written[1]
    expected = {"train.safetensors", "validation.safetensors", "test.safetensors", "meta.json"}
    assert written[0].keys() == expected | ({"tokenizer.json"} if kind == "text" else set())


@pytest.mark.parametrize("split", data.SPLITS)
@pytest.mark.parametrize("name", ["labels", "images", "index"])
def test_the_fingerprint_sees_every_value(split, name):
    tensors = {
        s: {"labels": np.arange(3), "index": np.arange(3), "images": np.zeros((3, 2, 2, 3), np.uint8)}
        for s in data.SPLITS
    }
    before = preprocessing.fingerprint(tensors)
    assert preprocessing.fingerprint(tensors) == before
    tensors[split][name].reshape(-1)[-1] ^= 1
    assert preprocessing.fingerprint(tensors) != before
    assert preprocessing.fingerprint(tensors, "tokenizer") != preprocessing.fingerprint(tensors)
    # Images are normalized by these: the same pixels are other data.
    known = {preprocessing.fingerprint(tensors, None, {"mean": [mean], "std": [0.2]}) for mean in (0.4, 0.5)}
    assert len(known | {preprocessing.fingerprint(tensors)}) == 3


def test_the_fingerprint_follows_a_swapped_pair_of_labels(tmp_path):
    labels = LABELS.copy()
    labels[[0, 1]] = labels[[1, 0]]
    changed = IMAGE_TABLES | {"train": replaced(IMAGE_TABLES["train"], label=pa.array(labels))}
    metas = [
        preprocessing.preprocess(
            raw_from(tmp_path / str(i), tables), tmp_path / str(i) / "out", validation_fraction=0.25
        )
        for i, tables in enumerate([IMAGE_TABLES, changed])
    ]
    assert metas[0]["class_counts"] == metas[1]["class_counts"]
    assert metas[0]["fingerprint"] != metas[1]["fingerprint"]


def test_meta_says_where_the_data_came_from(tmp_path):
    raw = raw_from(tmp_path, IMAGE_TABLES)
    source = json.loads((raw / "source.json").read_text())
    meta = preprocessing.preprocess(raw, tmp_path / "out", validation_fraction=0.25, split_seed=3)
    assert data.read_meta(tmp_path / "out") == meta
    for key in ("dataset", "label", "source", "official"):
        assert meta[key] == source[key]
    assert meta["raw"] == {split: entry["sha256"] for split, entry in source["files"].items()}
    assert (meta["split_seed"], meta["validation_fraction"], meta["limit"]) == (3, 0.25, None)


def test_a_kill_while_writing_leaves_no_folder_that_counts_as_complete(tmp_path, monkeypatch):
    raw = raw_from(tmp_path, IMAGE_TABLES)
    preprocessing.preprocess(raw, tmp_path / "out", validation_fraction=0.25)
    write = preprocessing.write_atomically

    def killed(path: Path, content: bytes) -> None:
        if path.name == "test.safetensors":
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(preprocessing, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        preprocessing.preprocess(raw, tmp_path / "out", validation_fraction=0.5)
    with pytest.raises(StudyError, match="dvc repro preprocess@out"):
        data.read_split(tmp_path / "out", "train")


def test_raw_files_that_are_not_those_of_source_json(tmp_path):
    raw = raw_from(tmp_path, IMAGE_TABLES)
    (raw / "test.parquet").write_bytes(parquet(image_table(20)))
    with pytest.raises(StudyError, match=r"test\.parquet: found .*dvc repro --force -s download@raw"):
        preprocessing.preprocess(raw, tmp_path / "out")
    (raw / "source.json").unlink()
    with pytest.raises(StudyError, match=r"source\.json: not found; `dvc repro download@raw`"):
        preprocessing.preprocess(raw, tmp_path / "out")


def test_reading_what_is_missing_or_broken_says_what_to_run(tmp_path):
    with pytest.raises(StudyError, match="dvc repro preprocess@cifar10"):
        data.read_meta(tmp_path / "cifar10")
    out = tmp_path / "cifar10"
    preprocessing.preprocess(raw_from(tmp_path, IMAGE_TABLES), out, validation_fraction=0.25)
    with pytest.raises(StudyError, match=r"'valid' is not a split.*Did you mean 'validation'"):
        data.read_split(out, "valid")
    (out / "test.safetensors").write_bytes((out / "test.safetensors").read_bytes()[:-1])
    with pytest.raises(StudyError, match="dvc repro --force -s preprocess@cifar10"):
        data.read_split(out, "test")
    (out / "test.safetensors").unlink()
    with pytest.raises(StudyError, match="dvc repro preprocess@cifar10"):
        data.read_split(out, "test")


# ------------------------------------------------------------------------------- a share of the examples


@st.composite
def a_split(draw) -> dict[str, np.ndarray]:
    """Images or reviews of 1 to 5 classes in any order; each example's content tells which one it is."""
    counts = draw(st.lists(st.integers(1, 30), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    rows = np.arange(len(labels))
    if draw(st.booleans()):
        images = np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (len(rows), 2, 2, 3))
        return {"images": images, "labels": labels, "index": rows}
    lengths = rng.integers(1, 9, len(labels))
    offsets = np.concatenate([[0], lengths.cumsum()])
    tokens = rows.repeat(lengths) * 10 + np.concatenate([np.arange(n) for n in lengths])
    return {"tokens": tokens.astype(np.int32), "offsets": offsets, "labels": labels, "index": rows}


def rows_of(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Which examples of :func:`a_split` these are."""
    if "images" in arrays:
        return arrays["images"][:, 0, 0, 0].astype(int)
    return arrays["tokens"][arrays["offsets"][:-1]] // 10


shares = st.floats(0, 1, exclude_min=True)


@given(a_split(), shares)
def test_a_share_keeps_every_class_in_proportion_and_at_least_one_of_each(arrays, share):
    taken = take_share(arrays, share)
    classes, counts = np.unique(arrays["labels"], return_counts=True)
    drawn = np.array([np.sum(taken["labels"] == label) for label in classes])
    assert drawn.sum() == len(taken["labels"])
    assert np.all(drawn >= 1)
    exact = share * counts
    assert np.all((np.abs(drawn - exact) <= 0.5) | ((drawn == 1) & (exact < 1)))


@given(a_split(), shares, shares)
def test_a_smaller_shares_examples_are_among_a_larger_ones(arrays, one, other):
    small, large = (rows_of(take_share(arrays, share)) for share in sorted((one, other)))
    assert set(small) <= set(large) <= set(rows_of(arrays))


@given(a_split(), shares)
def test_a_share_holds_the_very_examples_with_their_labels_in_the_splits_order(arrays, share):
    taken = take_share(arrays, share)
    rows = rows_of(taken)
    assert np.all(np.diff(rows) > 0)  # none twice
    np.testing.assert_array_equal(taken["labels"], arrays["labels"][rows])
    if "images" in arrays:
        np.testing.assert_array_equal(taken["images"], arrays["images"][rows])
        return
    bounds, old = taken["offsets"], arrays["offsets"]
    assert (bounds[0], bounds[-1], len(bounds)) == (0, len(taken["tokens"]), len(rows) + 1)
    for number, row in enumerate(rows):
        np.testing.assert_array_equal(
            taken["tokens"][bounds[number] : bounds[number + 1]], arrays["tokens"][old[row] : old[row + 1]]
        )
    assert (taken["tokens"].dtype, bounds.dtype) == (arrays["tokens"].dtype, old.dtype)


@given(a_split(), shares)
def test_the_same_share_is_always_the_same(arrays, share):
    first = take_share(arrays, share)
    np.random.default_rng().random()  # whatever the process drew before
    second = take_share({name: array.copy() for name, array in arrays.items()}, share)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


@given(a_split())
def test_a_share_of_1_is_the_split(arrays):
    taken = take_share(arrays, 1.0)
    assert taken.keys() == arrays.keys()
    assert all(taken[name] is arrays[name] for name in arrays)


def test_a_share_is_not_the_head_of_the_split():
    """Official files may be sorted by anything: a head would be a biased sample."""
    arrays = {"images": np.zeros((400, 1, 1, 3), np.uint8), "labels": np.repeat([0, 1], 200)}
    arrays["images"][:, 0, 0, 0] = np.arange(400) % 200
    within = rows_of(take_share(arrays, 0.25))
    for places in (within[:50], within[50:]):  # of 50 of 0 .. 199: 99.5, standard error 7
        assert 70 < places.mean() < 130
        assert places.max() > 150


# -------------------------------------------------------------------------------------------------- sample


@functools.cache
def stand_in(dataset: str) -> dict:
    """The tables of the sample's stand-in, for who only reads them."""
    return sample.make(shipped(dataset)).tables


@pytest.mark.parametrize("dataset", NAMES)
def test_the_sample_goes_through_both_stages(tmp_path, monkeypatch, capsys, dataset):
    from lrstudy.stages import download, preprocess

    params = SimpleNamespace(
        dataset_named=shipped,
        data=SimpleNamespace(
            source="sample", validation_fraction=0.1, split_seed=0, limit=None, vocab_size=1000, max_length=64
        ),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LRSTUDY_DATA_MIRROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["stage", dataset])
    for stage in (download, preprocess):
        monkeypatch.setattr(stage, "load_params", lambda: params)
        stage.main()
    assert "(sample)" in capsys.readouterr().out
    meta = data.read_meta(Path("data/processed") / dataset)
    rows = {split: table.num_rows for split, table in stand_in(dataset).items()}
    assert meta["num_examples"]["train"] + meta["num_examples"]["validation"] == rows["train"]
    assert meta["num_examples"]["test"] == rows["test"]
    assert (meta["source"], meta["official"]) == ("sample", False)
    assert meta["num_classes"] == len(shipped(dataset).classes)
    for split, counts in meta["class_counts"].items():
        assert max(counts) - min(counts) <= (split != "test")  # 130 of 1,300 are no multiple of 100 classes
    if meta["kind"] == "image":
        assert (meta["image_size"], meta["in_channels"]) == (
            shipped(dataset).image_size,
            shipped(dataset).channels,
        )


def test_the_sample_is_always_the_same():
    for dataset in NAMES:
        first, second = stand_in(dataset), sample.make(shipped(dataset)).tables
        assert all(first[split].equals(second[split]) for split in raw.OFFICIAL_SPLITS)


def test_a_changed_sample_gets_another_version():
    """Results name the sample by its version: when this fails, raise ``sample.VERSION`` with the hash."""
    table = stand_in("imdb")["train"]
    content = "\n".join(table["text"].to_pylist()).encode() + bytes(table["label"].to_pylist())
    known = {1: "d4db32a2daba7cc408f329e91bcd5cda4edb2d8abd5b8130acbf6f5c88a1c235"}
    assert known[sample.VERSION] == hashlib.sha256(content).hexdigest()


def test_the_samples_reviews_need_their_negations():
    """Counting good and bad words gets some reviews right; minding negation gets clearly more."""
    table = stand_in("imdb")["train"]
    negations = ("not", "never", "nobody")
    right = {"words": 0, "negation": 0}
    for text, label in zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True):
        score = {"words": 0, "negation": 0}
        for sentence in text.lower().split("."):
            words = sentence.split()
            value = sum(w in sample.WORDS[1] for w in words) - sum(w in sample.WORDS[0] for w in words)
            score["words"] += value
            score["negation"] += -value if any(w in negations for w in words) else value
        for rule, total in score.items():
            right[rule] += (total > 0) == label
    shares = {rule: count / len(table) for rule, count in right.items()}
    assert 0.6 < shares["words"] < 0.8
    assert 0.85 < shares["negation"] < 0.95
    lengths = [len(text.split()) for text in table["text"].to_pylist()]
    assert min(lengths) >= 12
    assert max(lengths) <= 45


def test_sample_splits_share_no_image():
    tables = stand_in("cifar10")
    cells = [cell["bytes"] for table in tables.values() for cell in table["img"].to_pylist()]
    assert len(set(cells)) == len(cells)


def test_light_imports():
    """Stages start often: what reads and writes data must not load the heavy libraries."""
    code = (
        "import sys, lrstudy.data, lrstudy.data.sample, lrstudy.stages.download, lrstudy.stages.preprocess; "
        "print(sorted({'torch', 'mlflow', 'sklearn', 'pandas', 'datasets'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
