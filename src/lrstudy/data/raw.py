"""Raw splits: reading them with every check, and writing them."""

import contextlib
import hashlib
import io
import os
import pickle
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lrstudy.errors import StudyError, unknown
from lrstudy.files import write_atomically
from lrstudy.recipe.dataset import Columns, Layout, Split, image_shape
from lrstudy.words import counted

OFFICIAL_SPLITS: tuple[Split, ...] = ("train", "test")
ARCHIVE_SIZE = 32  # pixels, height and width, of the images in CIFAR's archive
MAX_FILE_BYTES = 1 << 32  # a raw parquet file, packed or unpacked; the largest official one has about 120 MB
MAX_PIXEL_BYTES = 1 << 33  # of a split's decoded images: it is held in memory
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
MAX_PIXELS = 1 << 24  # of one image before it is resized
MAX_TEXT_BYTES = 1_000_000  # one text; the longest official one has about 14 KB
MAX_MEMBER_BYTES = 1 << 26  # one batch inside the archive; official ones have about 31 MB
ROWS_AT_ONCE = 256  # so that what unpacks to too much is noticed before it fills the memory
MAX_IMAGE_BYTES = 1 << 24  # one encoded image
IMAGE_TYPE = "struct<bytes: binary, path: string>"


def read_rows(
    path: Path, layout: Layout, rows: int | None, where: str
) -> tuple[np.ndarray | list[str], np.ndarray, str]:
    """Read and check a raw split.

    Args:
        path: a parquet file.
        layout: its columns, and what images and classes must be.
        rows: how many there must be; None: any number.
        where: begins every error.

    Returns:
        Images uint8 (rows, height, width, channels) or texts; labels int64 (rows,); and the encoding: of
        images ``png``, ``jpeg``, ..., several with a ``+`` between, of texts ``utf-8``.

    Raises:
        StudyError: columns, types, counts, classes, or any single value is wrong.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_size(path, where)
    column, label, classes = layout.columns.input, layout.columns.label, layout.class_names
    with _readable_parquet(where), pq.ParquetFile(path) as file:
        schema, metadata = file.schema_arrow, file.metadata
        input_type, labelled = _type(schema, column), _type(schema, label)
        if layout.kind == "image":
            wanted = IMAGE_TYPE
            right = (
                pa.types.is_struct(input_type)
                and input_type.get_field_index("bytes") >= 0
                and pa.types.is_binary(input_type.field("bytes").type)
            )
        else:
            wanted = "string"
            right = pa.types.is_string(input_type) or pa.types.is_large_string(input_type)
        if not right or not (pa.types.is_integer(labelled) or pa.types.is_string(labelled)):
            columns = ", ".join(f"{f.name}: {f.type}" for f in schema) or "none"
            raise StudyError(
                f"{where}: columns are {columns}; expected {column}: {wanted}, {label}: integer or string."
            )
        if rows is not None and metadata.num_rows != rows:
            raise StudyError(f"{where}: {counted(metadata.num_rows, 'row')}, expected {rows:,}.")
        batches, unpacked = [], 0
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=[column, label]):
            unpacked += batch.nbytes
            if unpacked > MAX_FILE_BYTES:
                raise StudyError(f"{where}: at most {MAX_FILE_BYTES:,} bytes are allowed, unpacked.")
            batches.append(batch)
        table = pa.Table.from_batches(batches) if batches else schema.empty_table()
        table = table.combine_chunks()
        if rows is not None and table.num_rows != rows:
            raise StudyError(f"{where}: {counted(table.num_rows, 'row')}, expected {rows:,}.")

    labels = class_numbers(table[label].combine_chunks(), classes, where)
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    if layout.balanced and len(set(counts)) > 1:
        raise StudyError(
            f"{where}: examples per class 0 to {len(classes) - 1} are {counts}, "
            f"expected {len(labels) // len(classes):,} of each."
        )
    if 0 in counts:
        raise StudyError(f"{where}: the class {classes[counts.index(0)]!r} has no example.")
    values = table[column].chunk(0) if table[column].num_chunks else table[column].combine_chunks()
    if layout.kind == "image":
        index = values.type.get_field_index("path")
        paths = values.field("path").to_pylist() if index >= 0 else [None] * len(values)
        images, encoding = _decode_images(values.field("bytes"), paths, layout, where)
        return images, labels, encoding
    return _decode_texts(values, where), labels, "utf-8"


@contextlib.contextmanager
def _readable_parquet(where: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise StudyError(
            f"{where}: not a readable parquet file ({one_line(error)}). Fetch it again."
        ) from error


def parquet_schema(path: Path, where: str) -> Any:
    """The Arrow schema of a parquet file."""
    import pyarrow.parquet as pq

    check_size(path, where)
    with _readable_parquet(where):
        return pq.read_schema(path)


def _type(schema: Any, name: str) -> Any:
    import pyarrow as pa

    index = schema.get_field_index(name)
    return schema.field(index).type if index >= 0 else pa.null()


def _decode_images(values: Any, paths: list, layout: Layout, where: str) -> tuple[np.ndarray, str]:
    from PIL import Image

    height, width, channels = image_shape(layout)
    total = len(values) * height * width * channels
    if total > MAX_PIXEL_BYTES:
        raise StudyError(
            f"{where}: {len(values):,} images of {height}x{width}x{channels} take {total:,} bytes, at most "
            f"{MAX_PIXEL_BYTES:,} allowed; choose a smaller image_size."
        )
    images = np.empty((len(values), height, width, channels), np.uint8)
    encodings = set()
    for row, value in enumerate(ProgressBar(values, desc=f"{where}: decode", unit=" images")):
        data = value.as_py() or b""
        try:
            if len(data) > MAX_IMAGE_BYTES:
                raise ValueError(f"{len(data):,} bytes, at most {MAX_IMAGE_BYTES:,} allowed")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                # known before any pixel is decoded
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(
                        f"{image.height}x{image.width} pixels, at most {MAX_PIXELS:,} pixels allowed"
                    )
                if not layout.resize and image.size != (width, height):
                    raise ValueError(f"{image.height}x{image.width} pixels")
                encodings.add(str(image.format).lower())
                decoded = image.convert("RGB" if channels == 3 else "L")
                if decoded.size != (width, height):
                    decoded = decoded.resize((width, height), Image.Resampling.BILINEAR)
                images[row] = np.asarray(decoded).reshape(height, width, channels)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            wanted = "" if layout.resize else f"{height}x{width} "
            reason = re.sub(r" <_io\.BytesIO[^>]*>", "", one_line(error))  # another address every time
            named = f"image {row} ({paths[row]})" if paths[row] else f"image {row}"
            raise StudyError(
                f"{where}: {named} is no {wanted}image in {', '.join(FORMATS)} ({reason})."
            ) from error
    return images, "+".join(sorted(encodings))


def _decode_texts(values: Any, where: str) -> list[str]:
    import pyarrow.compute as pc

    check_no_gap(values, "text", where, "row {}".format)
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
                if (
                    not member.isreg()
                    or member.size > MAX_MEMBER_BYTES
                    or (file := archive.extractfile(member)) is None
                ):
                    raise StudyError(
                        f"{path.name}: {name} is no plain file of at most {MAX_MEMBER_BYTES:,} bytes."
                    )
                batch = _ArrayUnpickler(file, encoding="bytes").load()
                data, numbers = batch[b"data"], np.asarray(batch[b"labels"], np.int64)
                if data.dtype != np.uint8 or data.shape != (len(numbers), 3 * ARCHIVE_SIZE**2):
                    raise StudyError(
                        f"{path.name}: {name} holds {data.dtype} {data.shape} for {len(numbers)} labels; "
                        f"expected uint8 ({len(numbers)}, {3 * ARCHIVE_SIZE**2})."
                    )
                images.append(data.reshape(-1, 3, ARCHIVE_SIZE, ARCHIVE_SIZE).transpose(0, 2, 3, 1))
                labels.append(numbers)
    except StudyError:
        raise
    except Exception as error:  # what a damaged archive or pickle makes its reader raise is not documented
        raise StudyError(f"{path.name}: not a CIFAR-10 Python archive ({one_line(error)}).") from error
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


def image_table(images: np.ndarray, labels: np.ndarray, columns: Columns) -> Any:
    """Images uint8 (n, height, width) or (n, height, width, 1 or 3) as PNG, and labels (n,)."""
    import pyarrow as pa
    from PIL import Image

    if images.shape[-1] == 1:
        images = images[..., 0]
    cells = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)  # lossless at any level; 1 is fastest
        cells.append({"bytes": buffer.getvalue(), "path": None})
    img = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    return pa.table({columns.input: img, columns.label: pa.array(labels, pa.int64())})


def content_digests(examples: Iterable[str | np.ndarray]) -> np.ndarray:
    """SHA-256 of each text's characters or image's pixels, bytes (N,): copies have the same one."""
    contents = (one.encode() if isinstance(one, str) else one.tobytes() for one in examples)
    # as objects: NumPy's own byte strings lose zeros at their end
    return np.array([hashlib.sha256(content).digest() for content in contents], dtype=object)


def digest(path: Path, algorithm: str) -> str:
    """Hexadecimal digest (``sha256``, ``md5``) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write_parquet(table: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    write_atomically(path, lambda file: pq.write_table(table, file))


def check_size(path: Path, where: str) -> None:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise StudyError(f"{where}: {path} has {size:,} bytes, at most {MAX_FILE_BYTES:,} allowed.")


def check_no_gap(values: Any, what: str, at: str, place: Callable[[int], str]) -> None:
    """Raise StudyError if an Arrow array has nothing in a row: no ``what``, in ``place(row)``."""
    if values.null_count:
        first = place(values.is_null().index(True).as_py())
        raise StudyError(f"{at}: {counted(values.null_count, 'row')} without a {what}, the first in {first}.")


def class_numbers(
    labels: Any, classes: list[str], at: str, place: Callable[[int], str] = "row {}".format
) -> np.ndarray:
    """Labels of an Arrow array, numbers or names of classes, as int64 (N,).

    ``place`` says in errors where a row stands.

    Raises:
        StudyError: one is missing, or no class.
    """
    import pyarrow as pa

    check_no_gap(labels, "label", at, place)
    if pa.types.is_integer(labels.type):
        numbers = labels.to_numpy(zero_copy_only=False)
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= len(classes)):
            raise StudyError(
                f"{at}: labels go from {numbers.min()} to {numbers.max()}; expected 0 to {len(classes) - 1}, "
                f"for {', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}."
            )
        return numbers.astype(np.int64)
    if not is_string(labels.type):
        raise StudyError(f"{at}: labels are {labels.type}; expected whole numbers, or names of classes.")
    by_name = {str(number): number for number in range(len(classes))}
    by_name |= {name: number for number, name in enumerate(classes)}
    for name in labels.unique().to_pylist():
        if name not in by_name:
            first = place(labels.index(name).as_py())
            raise unknown(f"{at}, {first}: label", name, classes, "one of the data set's classes")
    return np.array([by_name[name] for name in labels.to_pylist()], np.int64)


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def is_string(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


class ProgressBar(tqdm):
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
