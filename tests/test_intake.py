"""Data sets by their conf files: every kind of place that one comes from, and every way in which it is wrong."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from composed import composed_params
from described import NAMES, shipped
from hub_server import hub_server
from lrstudy import data
from lrstudy.data import raw, sample, sources
from lrstudy.data.preprocessing import preprocess, read_examples
from lrstudy.data.raw import class_numbers
from lrstudy.errors import StudyError
from lrstudy.recipe.config import check_params
from lrstudy.recipe.dataset import Columns, Dataset, Layout, headlines
from lrstudy.training.batches import ImageSplit
from test_data import parquet

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(0)
CLASSES = ["cat", "dog", "owl"]
COUNTS = {"train": {"cat": 9, "dog": 4, "owl": 3}, "test": {"cat": 5, "dog": 2, "owl": 1}}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(raw.ProgressBar, "display", lambda *_, **__: None)


def described(origin: dict, **changes) -> Dataset:
    """A data set of one's own: images of 12 x 10 pixels, or texts."""
    kind = changes.get("kind", "image")
    return Dataset.model_validate(
        {
            "kind": kind,
            "title": "Pets",
            "headline": "f1_macro",
            "classes": CLASSES,
            **({"image_size": [12, 10], "channels": 3} if kind == "image" else {}),
            "num_epochs": 1,
            "batch_size": 4,
            "sample": None,
            "origin": origin,
        }
        | changes
    )


def picture(size: tuple[int, int] = (12, 10), mode: str = "RGB", encoding: str = "PNG") -> bytes:
    import io

    shape = size if mode == "L" else (*size, 3)
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, shape, np.uint8)).save(buffer, encoding)
    return buffer.getvalue()


def write_pictures(folder: Path, counts: dict = COUNTS, **options) -> dict:
    for split, classes in counts.items():
        for name, count in classes.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                (folder / split / name / f"{number}.png").write_bytes(picture(**options))
    return {"type": "images", "folder": str(folder)}


def write_csv(folder: Path, **rows: list[str]) -> dict:
    for split, lines in rows.items():
        (folder / f"{split}.csv").write_text("\n".join(["id,text,label", *lines]) + "\n")
    return {
        "type": "table",
        "folder": str(folder),
        "files": {split: [f"{split}.csv"] for split in ("train", "test")},
        "columns": {"input": "text", "label": "label"},
    }


def brought(tmp_path: Path, spec: Dataset, **options) -> dict:
    return sources.download("pets", spec, tmp_path / "raw", partial=tmp_path / "partial", **options)


def rows_of(tmp_path: Path, split: str) -> tuple:
    import json

    layout = Layout.model_validate(json.loads((tmp_path / "raw/source.json").read_text())["layout"])
    return raw.read_rows(tmp_path / f"raw/{split}.parquet", layout, None, split)


# -------------------------------------------------------------------------------------------------- images


def test_folders_of_images_are_a_data_set_of_any_balance(tmp_path):
    spec = described(write_pictures(tmp_path / "pets"))
    (tmp_path / "pets/train/cat/.DS_Store").write_bytes(b"hidden")
    record = brought(tmp_path, spec)
    assert (record["label"], record["official"], record["source"]) == ("Pets", False, "images")
    images, labels, encoding = rows_of(tmp_path, "train")
    assert (images.shape, encoding) == ((16, 12, 10, 3), "png")
    assert np.bincount(labels).tolist() == [9, 4, 3]
    for row, path in {0: "cat/0.png", 9: "dog/0.png", 15: "owl/2.png"}.items():
        np.testing.assert_array_equal(images[row], np.asarray(Image.open(tmp_path / "pets/train" / path)))
    meta = preprocess(tmp_path / "raw", tmp_path / "out", validation_fraction=0.34)
    assert (meta["image_size"], meta["in_channels"], meta["num_classes"]) == ([12, 10], 3, 3)
    assert meta["class_counts"]["test"] == [5, 2, 1]
    assert data.read_split(tmp_path / "out", "test")["images"].shape == (8, 12, 10, 3)


def test_images_of_another_size_are_refused_or_resized_and_that_is_said(tmp_path):
    origin = write_pictures(tmp_path / "pets", size=(30, 40))
    with pytest.raises(
        StudyError, match=r"^pets \(images\), train: image 0 \(cat/0\.png\) is no 12x10 image .*30x40 pixels"
    ):
        brought(tmp_path, described(origin))
    record = brought(tmp_path, described(origin, resize=True))
    assert record["label"] == "Pets, resized to 12x10"
    images, _, _ = rows_of(tmp_path, "train")
    with Image.open(tmp_path / "pets/train/cat/0.png") as image:
        expected = np.asarray(image.resize((10, 12), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(images[0], expected)


def test_folders_in_a_classs_folder_and_links_are_read(tmp_path):
    spec = described(write_pictures(tmp_path / "pets"))
    dogs = tmp_path / "pets/train/dog"
    (dogs / "small").mkdir()
    (dogs / "small/9.png").write_bytes(picture())
    (dogs / "8.png").symlink_to("small/9.png")
    (tmp_path / "pets/train/owl").rename(tmp_path / "elsewhere")
    (tmp_path / "pets/train/owl").symlink_to(tmp_path / "elsewhere")
    brought(tmp_path, spec)
    assert np.bincount(rows_of(tmp_path, "train")[1]).tolist() == [9, 4 + 2, 3]


def test_a_path_with_the_characters_of_a_pattern_is_a_path(tmp_path):
    spec = described(write_pictures(tmp_path / "pets [1] *?"))
    brought(tmp_path, spec)
    assert np.bincount(rows_of(tmp_path, "train")[1]).tolist() == [9, 4, 3]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (1, "RGB"), (3, "L")])
def test_images_are_made_grey_or_coloured_as_conf_says(tmp_path, channels, mode):
    brought(tmp_path, described(write_pictures(tmp_path / "pets", mode=mode), channels=channels))
    meta = preprocess(tmp_path / "raw", tmp_path / "out", validation_fraction=0.34)
    assert len(meta["mean"]) == len(meta["std"]) == meta["in_channels"] == channels
    arrays = data.read_split(tmp_path / "out", "train")
    split = ImageSplit(arrays, meta, torch.device("cpu"), "crop_flip")
    (images,), labels, _ = next(split.training_batches(4, torch.Generator().manual_seed(0)))
    assert (tuple(images.shape), len(labels)) == ((4, channels, 12, 10), 4)
    (images,), _, _ = next(split.evaluation_batches(1000))
    np.testing.assert_allclose(images.mean((0, 2, 3)), np.zeros(channels), atol=1e-5)
    np.testing.assert_allclose(images.std((0, 2, 3), correction=0), np.ones(channels), atol=1e-4)


def test_oblong_images_are_served_and_have_a_linear_reference(tmp_path):
    from lrstudy.data.references import measure_reference
    from lrstudy.training.serving import make_classifier, some_examples

    brought(tmp_path, described(write_pictures(tmp_path / "pets")))
    meta = preprocess(tmp_path / "raw", tmp_path / "out", validation_fraction=0.34)
    settings = {"architecture": "resnet", "depth": 8, "width": 8}
    from lrstudy.recipe.models import make_model

    classifier = make_classifier(settings, meta, make_model(settings, meta).state_dict())
    examples = some_examples(data.read_split(tmp_path / "out", "test"), meta)
    assert examples.shape == (2, 12, 10, 3)
    probabilities = classifier(torch.from_numpy(examples))
    assert probabilities.shape == (2, 3)
    train, test = (read_examples(tmp_path / "raw", tmp_path / "out", split) for split in ("train", "test"))
    found = measure_reference("image", train, test, "balanced_accuracy")
    assert found["num_features"] == 12 * 10 * 3
    from sklearn.metrics import balanced_accuracy_score

    from lrstudy.data.references import make_reference

    predicted = make_reference("image").fit(*train).predict(test[0])
    assert found["metrics"]["test/balanced_accuracy"] == balanced_accuracy_score(test[1], predicted)


def test_a_channel_of_one_value_is_refused(tmp_path):
    origin = write_pictures(tmp_path / "pets")
    for number, path in enumerate(sorted((tmp_path / "pets").rglob("*.png"))):
        pixels = np.asarray(Image.open(path)).copy()
        pixels[..., 2] = 7
        pixels[0, 0, 0] = number
        Image.fromarray(pixels).save(path)
    brought(tmp_path, described(origin))
    with pytest.raises(StudyError, match="channel 2 has one value in all pixels"):
        preprocess(tmp_path / "raw", tmp_path / "out", validation_fraction=0.34)


def break_pictures(folder: Path, how: str) -> None:
    if how == "no folder":
        folder.rename(folder.with_name("elsewhere"))
    elif how == "no split":
        (folder / "test").rename(folder / "tests")
    elif how == "a folder too many":
        (folder / "train/dogs").mkdir()
    elif how == "no class in test":
        for path in (folder / "test/owl").iterdir():
            path.unlink()
        (folder / "test/owl").rmdir()
    elif how == "an empty class":
        for path in (folder / "train/owl").iterdir():
            path.unlink()
    elif how == "no image":
        (folder / "train/dog/1.png").write_bytes(b"\x89PNG no")
    elif how == "no image by its name":
        (folder / "train/dog/notes.txt").write_text("owls are not dogs")
    elif how == "a dangling link":
        (folder / "train/dog/9.png").symlink_to("gone.png")
    elif how == "a linked folder":
        (folder / "train/dog/linked").symlink_to(folder / "test/dog")
    elif how == "an empty folder among them":
        (folder / "train/dog/more").mkdir()
    elif how == "a file beside the classes":
        (folder / "train/9.png").write_bytes(picture())
    elif how == "a link beside the classes":
        (folder / "train/lynx").symlink_to("gone")
    elif how == "the same splits":
        for path in folder.glob("test/*/*"):
            path.write_bytes((folder / "train" / path.relative_to(folder / "test")).read_bytes())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no folder", r"^pets \(images\): origin\.folder: .*pets is no folder; correct it"),
        ("no split", r"^pets \(images\), test: .*pets/test is no folder"),
        ("a folder too many", r"^pets \(images\), train: .*'dogs' is not one of .*Did you mean 'dog'"),
        (
            "no class in test",
            r"^pets \(images\), test: the class 'owl' has no folder in .*found \['cat', 'dog'\]",
        ),
        ("an empty class", r"^pets \(images\), train: the class 'owl' has no example"),
        ("no image", r"^pets \(images\), train: image 10 \(dog/1\.png\) is no 12x10 image"),
        ("no image by its name", r"^pets \(images\), train: .*dog/notes\.txt is no image by its name"),
        (
            "a dangling link",
            r"^pets \(images\), train: .*dog/9\.png is a link to gone\.png, which is not there",
        ),
        ("a linked folder", r"train: .*dog/linked is a link to a folder, which is not followed"),
        (
            "an empty folder among them",
            r"^pets \(images\), train: .*dog/more is an empty folder, where an image is",
        ),
        (
            "a file beside the classes",
            r"^pets \(images\), train: .*train/9\.png is in no class's folder; move it",
        ),
        (
            "a link beside the classes",
            r"^pets \(images\), train: .*train/lynx is in no class's folder; move it",
        ),
        ("the same splits", r"^pets \(images\): every test example stands in train"),
    ],
)
def test_what_is_wrong_with_folders_of_images_is_one_clear_error(tmp_path, how, message):
    spec = described(write_pictures(tmp_path / "pets"))
    break_pictures(tmp_path / "pets", how)
    with pytest.raises(StudyError, match=message) as caught:
        brought(tmp_path, spec)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "raw/source.json").exists()


# -------------------------------------------------------------------------------------------------- tables

TRAIN = ['1,"one, two",cat', "2,NA,dog", "3,0123,owl", '4,"said ""no""",cat']
TEST = ["5,five,cat", "6,six,dog", "7,null,owl"]


def test_texts_of_a_csv_file_are_taken_as_they_stand(tmp_path):
    brought(tmp_path, described(write_csv(tmp_path, train=TRAIN, test=TEST), kind="text"))
    texts, labels, encoding = rows_of(tmp_path, "train")
    assert (texts, encoding) == (["one, two", "NA", "0123", 'said "no"'], "utf-8")
    assert labels.tolist() == [0, 1, 2, 0]
    assert rows_of(tmp_path, "test")[0] == ["five", "six", "null"]


def test_several_files_are_one_split_in_their_order(tmp_path):
    origin = write_csv(tmp_path, train=TRAIN, more=["8,eight,2"], test=TEST)
    origin["files"]["train"] = ["more.csv", "train.csv"]
    brought(tmp_path, described(origin, kind="text"))
    assert rows_of(tmp_path, "train")[0][:2] == ["eight", "one, two"]
    assert rows_of(tmp_path, "train")[1].tolist() == [2, 0, 1, 2, 0]


@pytest.mark.parametrize("column", ["path", "image"])
def test_images_of_a_table_stand_in_it_or_beside_it(tmp_path, column):
    write_pictures(tmp_path / "pets")
    for split, counts in COUNTS.items():
        paths = [f"{split}/{name}/{number}.png" for name, count in counts.items() for number in range(count)]
        labels = [name for name, count in counts.items() for _ in range(count)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        cells = [{"bytes": (tmp_path / "pets" / path).read_bytes(), "path": None} for path in paths]
        table = pa.table({"path": paths, "image": pa.array(cells, kind), "label": labels})
        pq.write_table(table, tmp_path / "pets" / f"{split}.parquet")
    origin = {
        "type": "table",
        "folder": str(tmp_path / "pets"),
        "files": {split: [f"{split}.parquet"] for split in COUNTS},
        "columns": {"input": column, "label": "label"},
    }
    brought(tmp_path, described(origin))
    images, labels, _ = rows_of(tmp_path, "train")
    assert np.bincount(labels).tolist() == [9, 4, 3]
    np.testing.assert_array_equal(images[9], np.asarray(Image.open(tmp_path / "pets/train/dog/0.png")))
    if column == "path":
        (tmp_path / "pets/train/dog/0.png").unlink()
        with pytest.raises(StudyError, match=r"train: the image .*dog/0\.png is not there"):
            brought(tmp_path, described(origin))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train": ["1,one,cat", "2,two,dgo"]},
            r"train: train\.csv, line 3: label: 'dgo' is not one of.*Did you mean 'dog'",
        ),
        ({"train": ["1,one,cat", "2,two,dog"]}, r"train: the class 'owl' has no example"),
        ({"train": ["1,one,", *TRAIN]}, r"train: train\.csv, line 2: label: '' is not one of"),
        ({"test": [*TEST, "1,2,3,4,5"]}, r"test: test\.csv: not readable \(.*fields in line 5"),
        (
            {"train": ['1,"one,\n\ntwo",cat', "", "2,two", *TRAIN]},
            r"train: train\.csv, line 6: label: '' is not one of",
        ),
        (
            {"columns": {"input": "texts", "label": "label"}},
            r"columns: 'texts' is not a column.*Did you mean 'text'",
        ),
        ({"files": {"train": ["train.csv"], "test": ["tset.csv"]}}, r"test: .*tset\.csv is not there"),
        (
            {"test": ["1,one,cat", "2,NA,dog", "3,0123,owl"], "train": ["1,one,cat", *TRAIN]},
            "every test example",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_one_clear_error(tmp_path, change, message):
    lines = {name: change.get(name, rows) for name, rows in {"train": TRAIN, "test": TEST}.items()}
    origin = write_csv(tmp_path, **lines) | {k: v for k, v in change.items() if k in ("columns", "files")}
    with pytest.raises(StudyError, match=message) as caught:
        brought(tmp_path, described(origin, kind="text"))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("pets (table)")


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_csv_file_with_another_separator_is_told_which(tmp_path, separator):
    origin = write_csv(tmp_path, train=TRAIN, test=TEST)
    (tmp_path / "test.csv").write_text(separator.join(["text", "label"]) + "\n")
    with pytest.raises(StudyError) as refused:
        brought(tmp_path, described(origin, kind="text"))
    assert str(refused.value) == (
        f"pets (table), test: test.csv, line 1: found one column, {f'text{separator}label'!r}, and {separator!r} "
        "in it; commas separate columns: save it so, or as parquet."
    )


def test_a_csv_file_that_is_no_utf_8(tmp_path):
    origin = write_csv(tmp_path, train=TRAIN, test=TEST)
    (tmp_path / "train.csv").write_bytes("id,text,label\n1,café,cat\n".encode("latin-1"))
    with pytest.raises(StudyError, match=r"^pets \(table\), train: train\.csv.* .*utf-8"):
        brought(tmp_path, described(origin, kind="text"))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.booleans())
def test_labels_are_numbers_or_names_of_classes(numbers, by_name):
    labels = pa.array([CLASSES[n] for n in numbers] if by_name else numbers)
    assert class_numbers(labels, CLASSES, "").tolist() == numbers


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array([0, 3]), "labels go from 0 to 3; expected 0 to 2, for cat, dog, owl"),
        (pa.array([-1, 2]), "labels go from -1 to 2"),
        (pa.array([0.0, 1.0]), "labels are double; expected whole numbers"),
        (pa.array([0, None]), r"1 row without a label, the first in row 1\."),
        (pa.array(["cat", "dog", "dgo"]), "row 2: label: 'dgo' is not one of the data set's classes"),
    ],
)
def test_labels_that_are_no_classes(labels, message):
    with pytest.raises(StudyError, match=f"^here(: |, ){message}"):
        class_numbers(labels, CLASSES, "here")


# ------------------------------------------------------------------------------------- the hub and torchvision


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with hub_server() as running:
        yield running


def tiny(name: str, server, tables: dict[str, pa.Table], **changes) -> Dataset:
    """The description of a data set of the hub that is shipped, of tiny files that the server has."""
    spec = shipped(name)
    origin = spec.origin.model_dump()
    for split, table in tables.items():
        content = parquet(table)
        server.add(origin["repo"], origin["revision"], origin["files"][split][0], content)
        origin["sha256"][split] = [hashlib.sha256(content).hexdigest()]
    rows = {split: table.num_rows for split, table in tables.items()}
    return shipped(name, **{"origin": origin, "rows": rows} | changes)


def test_ag_news_comes_from_the_hub(tmp_path, server):
    tables = {
        split: pa.table({"text": [f"{split} {n}" for n in range(rows)], "label": np.arange(rows) % 4})
        for split, rows in {"train": 40, "test": 8}.items()
    }
    spec = tiny("ag_news", server, tables)
    record = brought(tmp_path, spec, endpoint=server.url)
    assert (record["label"], record["official"], record["source"]) == ("AG News", True, "hub")
    assert rows_of(tmp_path, "test")[0] == tables["test"]["text"].to_pylist()
    server.requests.clear()
    assert brought(tmp_path, spec, endpoint=server.url) == record
    assert server.requests == []


def test_cifar100_comes_from_the_hub_with_its_fine_labels(tmp_path, server):
    tables = {}
    for split, rows in {"train": 200, "test": 100}.items():
        images = RNG.integers(0, 256, (rows, 32, 32, 3), np.uint8)
        columns = Columns(input="img", label="fine_label")
        table = raw.image_table(images, np.arange(rows) % 100, columns)
        tables[split] = table.append_column("coarse_label", pa.array(np.arange(rows) % 20))
    record = brought(tmp_path, tiny("cifar100", server, tables), endpoint=server.url)
    assert record["label"] == "CIFAR-100"
    assert rows_of(tmp_path, "test")[1].tolist() == list(range(100))


def test_names_of_classes_that_are_not_those_of_the_file_are_refused(tmp_path, server):
    from datasets import ClassLabel, Features, Value
    from datasets import Dataset as Rows

    tables = {}
    for split, rows in {"train": 8, "test": 4}.items():
        names = ["World", "Business", "Sports", "Sci/Tech"]
        features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
        made = Rows.from_dict(
            {"text": [f"{split} {n}" for n in range(rows)], "label": [n % 4 for n in range(rows)]}, features
        )
        made.to_parquet(str(tmp_path / f"{split}.parquet"))
        tables[split] = pq.read_table(tmp_path / f"{split}.parquet")
    with pytest.raises(
        StudyError, match="the file's classes are World, Business, Sports, Sci/Tech; conf says World, Sp"
    ):
        brought(tmp_path, tiny("ag_news", server, tables), endpoint=server.url)


def hub_of_csv(server, sha256: dict | None) -> Dataset:
    origin = {
        "type": "hub",
        "repo": "someone/pets",
        "revision": "0" * 40,
        "columns": {"input": "text", "label": "label"},
        "files": {"train": ["a.csv", "b.csv"], "test": ["test.csv"]},
        "sha256": sha256,
    }
    for name, lines in {"a.csv": TRAIN[:2], "b.csv": TRAIN[2:], "test.csv": TEST}.items():
        content = "\n".join(["id,text,label", *lines]).encode()
        server.add("someone/pets", "0" * 40, name, content)
    return described(origin, kind="text")


def test_files_of_the_hub_that_conf_has_no_hash_of_have_the_hubs_own(tmp_path, server):
    spec = hub_of_csv(server, None)
    record = brought(tmp_path, spec, endpoint=server.url)
    assert (record["label"], record["revision"]) == ("Pets", "0" * 40)
    assert rows_of(tmp_path, "train")[0] == ["one, two", "NA", "0123", 'said "no"']
    server.requests.clear()
    assert brought(tmp_path, spec, endpoint=server.url) == record
    assert server.requests == []


def test_files_of_the_hub_with_another_hash_are_refused(tmp_path, server):
    wrong = {"train": ["0" * 64, "1" * 64], "test": ["2" * 64]}
    with pytest.raises(StudyError, match=f"expected {'0' * 64}"):
        brought(tmp_path, hub_of_csv(server, wrong), endpoint=server.url)


def test_a_mirror_of_several_files_is_read_like_the_hub(tmp_path, server):
    spec = hub_of_csv(server, None)
    for path, content in server.files.items():
        target = tmp_path / "mirror/someone/pets" / path.rpartition("/")[2]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    record = brought(tmp_path, spec, mirror=tmp_path / "mirror")
    assert (record["label"], record["official"]) == ("Pets (mirror)", False)
    assert rows_of(tmp_path, "train")[1].tolist() == [0, 1, 2, 0]


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(">HBB", 0, 8, array.ndim) + b"".join(struct.pack(">I", n) for n in array.shape)
    return gzip.compress(head + array.tobytes())


def test_fashion_mnist_comes_through_torchvision_which_checks_its_md5(tmp_path, server, monkeypatch):
    from torchvision.datasets import FashionMNIST

    images = {s: RNG.integers(0, 256, (n, 28, 28), np.uint8) for s, n in {"train": 40, "t10k": 20}.items()}
    files = {}
    for split, pixels in images.items():
        files[f"{split}-images-idx3-ubyte.gz"] = idx(pixels)
        files[f"{split}-labels-idx1-ubyte.gz"] = idx((np.arange(len(pixels)) % 10).astype(np.uint8))
    for name, content in files.items():
        server.files[f"/{name}"] = content
    hashes = [(name, hashlib.md5(files[name]).hexdigest()) for name, _ in FashionMNIST.resources]
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"{server.url}/"])
    monkeypatch.setattr(FashionMNIST, "resources", hashes)
    spec = shipped("fashion_mnist", rows={"train": 40, "test": 20})
    record = brought(tmp_path, spec)
    assert (record["label"], record["source"], record["official"]) == ("Fashion-MNIST", "torchvision", True)
    found, labels, _ = rows_of(tmp_path, "test")
    np.testing.assert_array_equal(found[..., 0], images["t10k"])
    assert labels.tolist() == list(range(10)) * 2
    wrong = [(name, "0" * 32) for name, _ in hashes]
    monkeypatch.setattr(FashionMNIST, "resources", wrong)
    with pytest.raises(
        StudyError, match=r"^pets \(torchvision\), train: torchvision cannot bring FashionMNIST"
    ):
        sources.download("pets", spec, tmp_path / "other", partial=tmp_path / "other-partial")


def test_a_name_that_torchvision_has_not(tmp_path):
    spec = shipped("fashion_mnist", origin={"type": "torchvision", "name": "FashionMINST"})
    with pytest.raises(StudyError, match=r"'FashionMINST' is not a data set of torchvision.*'FashionMNIST'"):
        brought(tmp_path, spec)


# ---------------------------------------------------------------------------------------------------- sample


@pytest.mark.parametrize("name", NAMES)
def test_the_stand_in_has_the_layout_of_what_it_stands_for(tmp_path, name):
    spec = shipped(name)
    record = sources.download(name, spec, tmp_path / "raw", source="sample")
    assert record["label"].endswith(" (sample)")
    assert len(record["layout"]["class_names"]) == len(spec.classes)
    values, labels, _ = rows_of(tmp_path, "train")
    assert set(labels.tolist()) == set(range(len(spec.classes)))
    if spec.kind == "image":
        assert values.shape[1:] == (*spec.image_size, spec.channels)


def test_inks_and_topics_can_be_distinguished():
    """A linear model learns them: classes are no noise."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    topics = sample.make(shipped("ag_news")).tables
    words = CountVectorizer().fit(topics["train"]["text"].to_pylist())
    features = {split: words.transform(table["text"].to_pylist()) for split, table in topics.items()}
    model = LogisticRegression(max_iter=500).fit(features["train"], topics["train"]["label"].to_pylist())
    assert 0.85 < model.score(features["test"], topics["test"]["label"].to_pylist()) < 0.98


def test_a_data_set_without_a_stand_in_says_so(tmp_path):
    spec = described(write_pictures(tmp_path / "pets"))
    with pytest.raises(StudyError, match=r"^pets: has no stand-in .*digits, reviews, topics"):
        brought(tmp_path, spec, source="sample")


# ------------------------------------------------------------------------------------------------ conf files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"headline": "acuracy"}, r"dataset\.cifar10\.headline: found 'acuracy'"),
        ({"image_size": None}, "image_size is for kind image, which needs it; found kind image"),
        ({"kind": "text"}, "image_size is for kind image"),
        ({"classes": ["a", "a"]}, "classes has 'a' twice"),
        ({"clases": ["a"]}, r"dataset\.cifar10: 'clases' is not a known key.*Did you mean 'classes'"),
        ({"rows": {"train": 10}}, "rows has train; give train and test"),
        ({"sample": "reviews"}, "sample reviews is of kind text; kind is image"),
        (
            {"origin": {"type": "images", "foldre": "x"}},
            r"dataset\.cifar10\.origin\.folder is missing|'foldre'",
        ),
        (
            {"origin": {"type": "torchvision", "name": "X", "nmae": 1}},
            r"dataset\.cifar10\.origin: 'nmae'.*'name'",
        ),
    ],
)
def test_what_a_conf_file_cannot_say_is_one_clear_error(change, message):
    content = PARAMS | {"dataset": PARAMS["dataset"] | {"cifar10": PARAMS["dataset"]["cifar10"] | change}}
    with pytest.raises(StudyError, match=message):
        check_params(content)


PARAMS = composed_params("model=[resnet]", "schedule=[static]")


def test_all_conf_files_say_what_decides():
    found = headlines(ROOT)
    assert found.keys() == set(NAMES)
    assert (found["cifar10"], found["imdb"]) == ("test/accuracy", "test/f1_macro")


def test_a_folder_of_ones_own_is_laid_out_as_conf(tmp_path, monkeypatch):
    for group, name, content in (
        (
            "dataset",
            "pets",
            f"{(ROOT / 'conf/dataset/cifar10.yaml').read_text()}".replace("num_epochs: 10", "num_epochs: 7"),
        ),
        (
            "model",
            "pets_resnet",
            "# @package model.pets_resnet\ndefaults: [resnet@_here_, _self_]\ndataset: pets\n",
        ),
    ):
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{name}.yaml").write_text(content)
    monkeypatch.setenv("LRSTUDY_CONF", str(tmp_path))
    params = check_params(composed_params("model=[pets_resnet,lstm]", "schedule=[static]"))
    assert params.dataset.keys() == {"pets", "imdb"}
    assert params.cells["pets_resnet-static"].num_epochs == "dataset.pets.num_epochs"
    assert params.of_dataset("num_epochs", "pets") == 7
    assert headlines(ROOT).keys() == {*NAMES, "pets"}
    smoke = check_params(composed_params("model=[pets_resnet]", "preset=smoke"))
    assert smoke.cells["pets_resnet-static"].num_epochs == "num_epochs.others"
    assert smoke.of_dataset("num_epochs", "pets") == 1


def test_a_folder_of_ones_own_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("LRSTUDY_CONF", str(tmp_path / "conf"))
    with pytest.raises(StudyError, match=r"LRSTUDY_CONF=.*conf: no such folder\. Correct the path"):
        composed_params("schedule=[static]")


def test_a_data_set_that_no_file_describes_is_named_with_those_that_there_are():
    with pytest.raises(StudyError, match=r"mnist has no file in conf/dataset.* cifar10, "):
        composed_params("model.resnet.dataset=mnist")


@pytest.mark.parametrize("section", ["num_epochs", "batch_size", "theory.late_decay.num_epochs"])
def test_a_length_for_what_is_no_data_set_is_refused(section):
    with pytest.raises(StudyError, match=f"{section}: 'cifar' is not a data set.*Did you mean 'cifar10'"):
        composed_params(f"+{section}.cifar=3", "theory=seconds")


@pytest.mark.parametrize(
    "overrides", [[], ["preset=smoke"], ["preset=quick"], ["model.lstm.dataset=ag_news"]]
)
def test_the_keys_that_cells_name_have_the_values_that_are_used(overrides):
    content = composed_params("schedule=[static]", *overrides)
    params = check_params(content)
    for cell in params.cells.values():
        for section in ("num_epochs", "batch_size"):
            found = content
            for part in getattr(cell, section).split("."):
                found = found[part]
            assert found == params.of_dataset(section, cell.dataset)


def test_the_theory_refuses_what_it_has_no_lengths_for():
    with pytest.raises(
        StudyError, match=r"late_decay\.num_epochs and branch_epochs have nothing for cifar100"
    ):
        composed_params("model=[resnet]", "model.resnet.dataset=cifar100", "preset=smoke")
