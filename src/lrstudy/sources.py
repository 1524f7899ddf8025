"""Where the raw data comes from, and what it must be: the two official splits of CIFAR-10 and IMDB.

``download`` brings them to ``data/raw/<dataset>/{train,test}.parquet`` (columns as on the Hugging Face hub)
and records in ``source.json`` what they are; ``read_rows`` reads and checks one of them.
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lrstudy.data import DATASETS
from lrstudy.errors import StudyError, unknown
from lrstudy.files import write_atomically, write_json

SOURCES = ("hub", "archive", "sample")
OFFICIAL_SPLITS = ("train", "test")
IMAGE_SIZE = 32  # pixels, height and width

MAX_FILE_BYTES = 1 << 30  # a raw parquet file, packed or unpacked; the largest official one has about 120 MB
_ROWS_AT_ONCE = 256  # so that what unpacks to too much is noticed before it fills the memory
MAX_IMAGE_BYTES = 1 << 16  # one encoded image; 32x32 RGB without compression has 3 KB
MAX_TEXT_BYTES = 1_000_000  # one review; the longest official one has about 14 KB
MAX_MEMBER_BYTES = 1 << 26  # one batch inside the archive; official ones have about 31 MB


@dataclass(frozen=True)
class Archive:
    """A tar archive of pickled batches (``data``: uint8 (n, 3072), channel first; ``labels``: n integers)."""

    url: str
    md5: str
    members: dict[str, tuple[str, ...]]  # official split -> its batches, in order


@dataclass(frozen=True)
class Spec:
    """What a dataset must look like. Classes are balanced: ``rows[split] / len(class_names)`` of each."""

    name: str
    kind: str  # "image" or "text"
    title: str  # as it stands in tables and figures
    class_names: tuple[str, ...]
    rows: dict[str, int]
    repo: str = ""
    revision: str = ""  # commit on the hub
    sha256: dict[str, str] = field(default_factory=dict)
    archive: Archive | None = None

    def file(self, split: str) -> str:
        """Path of a split inside the repository on the hub, and inside a mirror below ``<repo>/``."""
        return f"plain_text/{split}-00000-of-00001.parquet"


OFFICIAL = {
    "cifar10": Spec(
        name="cifar10",
        kind="image",
        title="CIFAR-10",
        class_names=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        rows={"train": 50_000, "test": 10_000},
        repo="uoft-cs/cifar10",
        revision="0b2714987fa478483af9968de7c934580d0bb9a2",
        sha256={
            "train": "8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883",
            "test": "841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de",
        },
        archive=Archive(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            members={
                "train": tuple(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)),
                "test": ("cifar-10-batches-py/test_batch",),
            },
        ),
    ),
    "imdb": Spec(
        name="imdb",
        kind="text",
        title="IMDB",
        class_names=("neg", "pos"),
        rows={"train": 25_000, "test": 25_000},
        repo="stanfordnlp/imdb",
        revision="e6281661ce1c48d982bc483cf8a173c1bbeb5d31",
        sha256={
            "train": "db47d16b5c297cc0dd625e519c81319c24c9149e70e8496de5475f6fa928342c",
            "test": "b52e26e2f872d282ffac460bf9770b25ac6f102cda0e6ca7158df98c94e8b3da",
        },
    ),
}


# ---------------------------------------------------------------------------------------------- download


def download(
    dataset: str,
    folder: Path,
    *,
    source: str = "hub",
    mirror: Path | None = None,
    partial: Path = Path(".downloads"),
    endpoint: str | None = None,
    spec: Spec | None = None,
) -> dict[str, Any]:
    """Bring both official splits of ``dataset`` to ``folder``, checked, and return what ``source.json`` says.

    ``source``: ``hub`` (pinned revision and SHA-256), ``archive`` (CIFAR-10 as its authors publish it; IMDB
    comes from the hub) or ``sample`` (embedded, offline). ``mirror`` is a folder laid out as the hub, used in
    the hub's place. ``partial`` keeps unfinished downloads, so that a later call goes on where one stopped.
    ``spec`` replaces the official description. Nothing in ``folder`` changes before every check has passed.

    Raises StudyError: out of reach, truncated, wrong hash, columns, counts, image or encoding.
    """
    if dataset not in OFFICIAL:
        raise unknown("dataset", dataset, DATASETS, "a dataset")
    if source not in SOURCES:
        raise unknown("data.source", source, SOURCES, "a source of data")
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / ".staged"
    staged = {split: staging / f"{split}.parquet" for split in OFFICIAL_SPLITS}
    shutil.rmtree(staging, ignore_errors=True)  # what a call that was killed left
    try:
        if source == "sample":
            from lrstudy import sample

            spec = spec or sample.SPECS[dataset]
            for split, table in sample.tables(dataset).items():
                _write_parquet(table, staged[split])
            origin, revision = "sample", f"version {sample.VERSION}"
        else:
            spec = spec or OFFICIAL[dataset]
            if source == "archive" and spec.archive:
                origin, revision = "archive", f"md5:{spec.archive.md5}"
                if not _archive_is_here(folder, revision):
                    _stage_archive(spec, staged, partial / dataset)
            elif mirror is not None:
                origin, revision = "mirror", None
                _stage_mirror(spec, staged, mirror)
            else:
                origin, revision = "hub", spec.revision
                _stage_hub(spec, staged, folder, partial / dataset, endpoint)
        paths = {s: staged[s] if staged[s].exists() else folder / f"{s}.parquet" for s in OFFICIAL_SPLITS}
        record = _describe(spec, paths, origin, revision)
        for split, path in staged.items():
            if path.exists():
                os.replace(path, folder / f"{split}.parquet")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    write_json(folder / "source.json", record)
    return record


def _describe(spec: Spec, paths: dict[str, Path], origin: str, revision: str | None) -> dict[str, Any]:
    """Check the content of both splits and return the record for ``source.json``."""
    files, encodings = {}, set()
    for split, path in paths.items():
        where = f"{spec.name} ({origin}), {split}"
        _, _, encoding = read_rows(path, spec.kind, len(spec.class_names), spec.rows[split], where)
        encodings.add(encoding)
        files[split] = {
            "sha256": digest(path, "sha256"),
            "bytes": path.stat().st_size,
            "rows": spec.rows[split],
        }
    encoding = "+".join(sorted(set("+".join(encodings).split("+"))))
    hashes = {split: entry["sha256"] for split, entry in files.items()}
    official = origin == "archive" or (origin != "sample" and hashes == spec.sha256)
    note = "sample" if origin == "sample" else "JPEG copy" if "jpeg" in encoding else "mirror"
    return {
        "dataset": spec.name,
        "kind": spec.kind,
        "class_names": list(spec.class_names),
        "source": origin,
        "official": official,
        "label": spec.title if official else f"{spec.title} ({note})",
        "encoding": encoding,
        "revision": spec.revision if official and origin == "mirror" else revision,
        "files": files,
    }


def _stage_mirror(spec: Spec, staged: dict[str, Path], mirror: Path) -> None:
    for split, target in staged.items():
        path = mirror / spec.repo / spec.file(split)
        if not path.is_file():
            raise StudyError(
                f"LRSTUDY_DATA_MIRROR={mirror}: {path} is not there. A mirror is laid out as the hub: "
                f"<mirror>/{spec.repo}/{spec.file(split)}. Correct the path, or unset the variable."
            )
        _check_size(path, f"{spec.name} (mirror), {split}")
        _copy(path, target)


def _stage_hub(
    spec: Spec, staged: dict[str, Path], folder: Path, partial: Path, endpoint: str | None
) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    for split, target in staged.items():
        expected = spec.sha256[split]
        present = folder / f"{split}.parquet"
        if present.is_file() and digest(present, "sha256") == expected:
            continue
        url = hf_hub_url(
            spec.repo, spec.file(split), repo_type="dataset", revision=spec.revision, endpoint=endpoint
        )
        with fetched(url, partial, f"sha256:{expected}", spec.name, build_hf_headers()) as path:
            _copy(path, target)


def _archive_is_here(folder: Path, revision: str) -> bool:
    """Whether ``folder`` already holds, unchanged, what was made from the archive named by ``revision``."""
    try:
        record = json.loads((folder / "source.json").read_text("utf-8"))
        return record["revision"] == revision and all(
            digest(folder / f"{split}.parquet", "sha256") == record["files"][split]["sha256"]
            for split in OFFICIAL_SPLITS
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _stage_archive(spec: Spec, staged: dict[str, Path], partial: Path) -> None:
    with fetched(spec.archive.url, partial, f"md5:{spec.archive.md5}", spec.name) as path:
        for split, target in staged.items():
            images, labels = read_archive(path, spec.archive.members[split])
            _write_parquet(image_table(images, labels), target)


@contextlib.contextmanager
def fetched(
    url: str, partial: Path, expected: str, dataset: str, headers: dict[str, str] | None = None
) -> Iterator[Path]:
    """Yield a local copy of ``url`` whose digest is ``expected`` (``"sha256:..."`` or ``"md5:..."``).

    What has arrived stays in the folder ``partial`` under the expected digest until the block ends well, so a
    call after a cut or a kill asks only for the rest. (``hf_hub_download`` resumes within one process only.)
    """
    import filelock
    from huggingface_hub.file_download import http_get

    algorithm, value = expected.split(":")
    partial.mkdir(parents=True, exist_ok=True)
    path = partial / value
    with filelock.FileLock(partial / f"{value}.lock"):  # queued experiments share the folder
        if not (path.is_file() and digest(path, algorithm) == value):
            with _clear_network_errors(url, dataset, path), path.open("ab") as file:
                http_get(
                    url,
                    file,
                    resume_size=file.tell(),
                    headers={**(headers or {}), "Accept-Encoding": "identity"},  # the digest is of the file
                    displayed_filename=f"{dataset}: {url.rsplit('/', 1)[-1]}",
                    tqdm_class=_Progress,
                )
            found = digest(path, algorithm)
            if found != value:
                path.unlink()
                raise StudyError(
                    f"{dataset}: {url} has {algorithm} {found}, expected {value}. The file was discarded; "
                    "run the stage again, and if it fails again the publisher changed the file or something "
                    "on the way did."
                )
        yield path
        path.unlink()


@contextlib.contextmanager
def _clear_network_errors(url: str, dataset: str, path: Path) -> Iterator[None]:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    ways_out = (
        "Set LRSTUDY_DATA_MIRROR to a folder laid out as the hub (docs/data.md; with data=hub), "
        "or use the embedded sample: -S data=sample."
    )

    def kept() -> str:
        size = path.stat().st_size if path.exists() else 0
        return f" {size:,} bytes are kept: run the stage again to go on from there." if size else ""

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 416:  # asked to go on behind the end: what was kept is not a part of this file
            path.unlink(missing_ok=True)
            raise StudyError(
                f"{dataset}: {url} is shorter than what was kept of it, now discarded; run the stage again."
            ) from error
        reason = {401: "access refused or not there", 403: "access refused", 404: "not there"}.get(status)
        answer = f"HTTP {status} ({reason or 'server error'})"
        raise StudyError(f"{dataset}: {url} answered {answer}.{kept()} {ways_out}") from error
    except (httpx2.TransportError, httpx2.InvalidURL, OfflineModeIsEnabled) as error:
        state = "broke off" if kept() else "is out of reach"
        raise StudyError(
            f"{dataset}: {url} {state} ({error or type(error).__name__}).{kept()} {ways_out}"
        ) from error
    except OSError as error:
        if error.errno is not None:  # the disk, not the network
            raise StudyError(f"{dataset}: cannot write {path}: {error.strerror}.{kept()}") from error
        raise StudyError(f"{dataset}: {url} was cut short ({error}).{kept()} {ways_out}") from error


class _Progress(tqdm):
    """tqdm in a terminal; a plain line every few seconds in a log, where carriage returns are unreadable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("name", None)  # huggingface_hub's own argument
        super().__init__(*args, **kwargs | {"disable": False, "dynamic_ncols": True})
        if not self.fp.isatty():
            self.mininterval = 5.0  # seconds

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.fp.isatty():
            super().display(msg, pos)
        elif self.n:
            # close() ends the last line
            self.fp.write(f"{self}{'' if self.n == self.total else os.linesep}")


# -------------------------------------------------------------------------------------------- raw content


def read_rows(
    path: Path, kind: str, num_classes: int, rows: int, where: str
) -> tuple[np.ndarray | list[str], np.ndarray, str]:
    """Read and check a raw split: (images uint8 (rows, 32, 32, 3) or texts, labels int64 (rows,), encoding).

    ``encoding`` is ``png``, ``jpeg`` or ``jpeg+png`` for images and ``utf-8`` for texts. Raises StudyError
    that begins with ``where`` when columns, types, counts, class balance or any single value is wrong.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_size(path, where)
    try:
        with pq.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            if kind == "image":
                column, wanted = "img", "struct<bytes: binary, path: string>"
                found = _type(schema, column)
                right = (
                    pa.types.is_struct(found)
                    and found.get_field_index("bytes") >= 0
                    and pa.types.is_binary(found.field("bytes").type)
                )
            else:
                column, wanted = "text", "string"
                found = _type(schema, column)
                right = pa.types.is_string(found)
            if not right or not pa.types.is_integer(_type(schema, "label")):
                columns = ", ".join(f"{f.name}: {f.type}" for f in schema) or "none"
                raise StudyError(
                    f"{where}: columns are {columns}; expected {column}: {wanted}, label: integer."
                )
            if metadata.num_rows != rows:
                raise StudyError(f"{where}: {metadata.num_rows:,} rows, expected {rows:,}.")
            batches, unpacked = [], 0
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[column, "label"]):
                unpacked += batch.nbytes
                if unpacked > MAX_FILE_BYTES:
                    raise StudyError(f"{where}: at most {MAX_FILE_BYTES:,} bytes are allowed, unpacked.")
                batches.append(batch)
            table = pa.Table.from_batches(batches) if batches else schema.empty_table()
            table = table.combine_chunks()
            if table.num_rows != rows:
                raise StudyError(f"{where}: {table.num_rows:,} rows, expected {rows:,}.")
    except (pa.ArrowException, OSError) as error:
        raise StudyError(
            f"{where}: not a readable parquet file ({_one_line(error)}). Fetch it again."
        ) from error

    if table["label"].null_count:
        raise StudyError(f"{where}: {table['label'].null_count:,} rows have no label.")
    labels = table["label"].to_numpy().astype(np.int64)
    counts = np.bincount(labels[(labels >= 0) & (labels < num_classes)], minlength=num_classes).tolist()
    if counts != [rows // num_classes] * num_classes:
        raise StudyError(
            f"{where}: examples per class 0 to {num_classes - 1} are {counts}, "
            f"expected {rows // num_classes:,} of each."
        )
    values = table[column].chunk(0) if table[column].num_chunks else table[column].combine_chunks()
    if kind == "image":
        images, encoding = _decode_images(values.field("bytes"), where)
        return images, labels, encoding
    return _decode_texts(values, where), labels, "utf-8"


def _type(schema: Any, name: str) -> Any:
    import pyarrow as pa

    index = schema.get_field_index(name)
    return schema.field(index).type if index >= 0 else pa.null()


def _decode_images(values: Any, where: str) -> tuple[np.ndarray, str]:
    from PIL import Image

    images = np.empty((len(values), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    encodings = set()
    for row, value in enumerate(_Progress(values, desc=f"{where}: decode", unit=" images")):
        data = value.as_py() or b""
        try:
            if len(data) > MAX_IMAGE_BYTES:
                raise ValueError(f"{len(data):,} bytes, at most {MAX_IMAGE_BYTES:,} allowed")
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                if image.size != (IMAGE_SIZE, IMAGE_SIZE):  # known before any pixel is decoded
                    raise ValueError(f"{image.width}x{image.height} pixels")
                encodings.add(image.format.lower())
                images[row] = image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            size = f"{IMAGE_SIZE}x{IMAGE_SIZE}"
            raise StudyError(
                f"{where}: image {row} is no {size} PNG or JPEG image ({_one_line(error)})."
            ) from error
    return images, "+".join(sorted(encodings))


def _decode_texts(values: Any, where: str) -> list[str]:
    import pyarrow.compute as pc

    if values.null_count:
        raise StudyError(f"{where}: {values.null_count:,} rows have no text.")
    longest = pc.max(pc.binary_length(values)).as_py() or 0
    if longest > MAX_TEXT_BYTES:
        raise StudyError(f"{where}: a text has {longest:,} bytes, at most {MAX_TEXT_BYTES:,} allowed.")
    texts: list[str] = []
    try:
        for value in values:
            texts.append(value.as_py())
    except UnicodeDecodeError as error:
        raise StudyError(f"{where}: text {len(texts)} is not UTF-8 ({error.reason}).") from error
    return texts


def read_archive(path: Path, members: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 32, 32, 3) and labels int64 (n,) of the named members of a CIFAR-10 Python archive.

    Nothing is extracted to disk, other members are ignored, and the pickles may build arrays, dicts, lists,
    bytes and strings only. Raises StudyError when a member is missing or is anything else.
    """
    images, labels = [], []
    try:
        with tarfile.open(path, "r:gz") as archive:
            for name in members:
                member = archive.getmember(name)
                if not member.isreg() or member.size > MAX_MEMBER_BYTES:
                    raise StudyError(
                        f"{path.name}: {name} is no plain file of at most {MAX_MEMBER_BYTES:,} bytes."
                    )
                batch = _ArrayUnpickler(archive.extractfile(member), encoding="bytes").load()
                data, numbers = batch[b"data"], np.asarray(batch[b"labels"], np.int64)
                if data.dtype != np.uint8 or data.shape != (len(numbers), 3 * IMAGE_SIZE**2):
                    raise StudyError(
                        f"{path.name}: {name} holds {data.dtype} {data.shape} for {len(numbers)} labels; "
                        f"expected uint8 ({len(numbers)}, {3 * IMAGE_SIZE**2})."
                    )
                images.append(data.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE).transpose(0, 2, 3, 1))
                labels.append(numbers)
    except StudyError:
        raise
    except Exception as error:  # what a damaged archive or pickle makes its reader raise is not documented
        raise StudyError(f"{path.name}: not a CIFAR-10 Python archive ({_one_line(error)}).") from error
    return np.concatenate(images), np.concatenate(labels)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain containers; any other global is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        }:
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"a pickle asks for {module}.{name}, which is not allowed")


def image_table(images: np.ndarray, labels: np.ndarray) -> Any:
    """Images uint8 (n, 32, 32, 3) and labels (n,) as the hub's columns ``img`` (PNG) and ``label``."""
    import pyarrow as pa
    from PIL import Image

    cells = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)  # lossless at any level; 1 is fastest
        cells.append({"bytes": buffer.getvalue(), "path": None})
    img = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    return pa.table({"img": img, "label": pa.array(labels, pa.int64())})


# ---------------------------------------------------------------------------------------------- files


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def digest(path: Path, algorithm: str) -> str:
    """Hexadecimal digest (``sha256``, ``md5``) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _write_parquet(table: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    write_atomically(path, lambda file: pq.write_table(table, file))


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader:
        write_atomically(target, lambda writer: shutil.copyfileobj(reader, writer, 1 << 20))


def _check_size(path: Path, where: str) -> None:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise StudyError(f"{where}: {path} has {size:,} bytes, at most {MAX_FILE_BYTES:,} allowed.")
