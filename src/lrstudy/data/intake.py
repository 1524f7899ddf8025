"""Files of many kinds through the library ``datasets``, made into one: a parquet file of rows for each split.

``datasets`` knows the formats, the features and the class names, and streams, so that nothing is copied into
its cache. What it lacks is here: one clear error, bounds on what is read, and labels that must be classes.
"""

import csv
import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lrstudy.data.raw import (
    IMAGE_TYPE,
    MAX_IMAGE_BYTES,
    ROWS_AT_ONCE,
    check_no_gap,
    class_numbers,
    is_string,
    one_line,
)
from lrstudy.errors import StudyError, unknown
from lrstudy.recipe.dataset import Columns, Split

MAX_BYTES = 1 << 32  # of a split, unpacked
INPUT = {"image": "image", "text": "text"}
"""Kind of data -> the column of the inputs in the files that are written here."""


def written_columns(kind: str) -> Columns:
    """The columns of what :func:`write_table` and :func:`write_images` write."""
    return Columns(input=INPUT[kind], label="label")


def write_table(
    files: Mapping[Split, list[Path]],
    targets: Mapping[Split, Path],
    *,
    kind: str,
    columns: Columns,
    classes: list[str],
    cache: Path,
    where: str,
) -> None:
    """Write the rows of CSV or parquet files, in their order, as one parquet file for each split.

    Args:
        files: by split, all CSV or all parquet.
        targets: by split, what is written.
        kind: ``text``: the input column has strings. ``image``: it has encoded images, or paths to them,
            relative to the folder of the file that names them.
        columns: which are read; the label is a class's number or its name.
        classes: the names, in the order of their numbers.
        cache: a folder for the library's locks.
        where: begins every error.

    Raises:
        StudyError: a file is missing or not readable, a column is missing or of another type, a label is no
            class, an image is not there.
    """
    for split, paths in files.items():
        at = f"{where}, {split}"
        with _Writer(targets[split], kind, at) as writer:
            for path in paths:
                if not path.is_file():
                    raise StudyError(f"{at}: {path} is not there; correct origin.folder or origin.files.")
                before = 0
                for inputs, labels in _rows_of(path, kind, columns, cache, at):
                    place = functools.partial(_place, path, before)
                    numbers = class_numbers(labels, classes, f"{at}: {path.name}", place)
                    if kind == "image":
                        names = inputs.to_pylist() if is_string(inputs.type) else None
                        writer.add(_images_of(inputs, path.parent, at), numbers, names)
                    else:
                        check_no_gap(inputs, "text", f"{at}: {path.name}", place)
                        writer.add(inputs, numbers)
                    before += len(labels)


def _place(path: Path, before: int, row: int) -> str:
    """Where a row stands in its file: of a CSV file the line in which it begins."""
    if path.suffix != ".csv":
        return f"row {before + row}"
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        begins, rows = 1, -2  # the header is none
        for fields in reader:
            rows += bool(fields)  # an empty line is none
            if rows == before + row:
                return f"line {begins}"
            begins = reader.line_num + 1
    return f"row {before + row}"


def _rows_of(path: Path, kind: str, columns: Columns, cache: Path, at: str) -> Iterator[tuple[Any, Any]]:
    """The two columns of a file as Arrow arrays, some rows at a time."""
    import pyarrow as pa

    options: dict[str, Any] = {}
    if path.suffix == ".csv":
        from datasets import Features, Value

        with path.open(encoding="utf-8-sig", newline="") as file:
            try:
                header = next(csv.reader(file), [])
            except (UnicodeDecodeError, csv.Error) as error:
                raise StudyError(f"{at}: {path.name} is no CSV file in UTF-8 ({error}).") from error
        # All strings: a text of digits alone is no number, and "NA" is a text.
        options = {
            "features": Features({name: Value("string") for name in header}),
            "keep_default_na": False,
            "encoding": "utf-8-sig",
        }
        names = header
        if len(header) == 1 and (other := re.search("[;\t|]", header[0])):
            raise StudyError(
                f"{at}: {path.name}, line 1: found one column, {header[0]!r}, and {other[0]!r} in it; "
                "commas separate columns: save it so, or as parquet."
            )
    else:
        from lrstudy.data.raw import parquet_schema

        names = [field.name for field in parquet_schema(path, at)]
    for name in (columns.input, columns.label):
        if name not in names:
            raise unknown(f"{at}: {path.name}: origin.columns", name, names, "a column")
    rows = stream(path.suffix[1:], {"rows": [str(path)]}, cache, f"{at}: {path.name}", **options)["rows"]
    for table in rows:
        inputs, labels = (table[name].combine_chunks() for name in (columns.input, columns.label))
        if not (is_string(inputs.type) or (kind == "image" and pa.types.is_struct(inputs.type))):
            wanted = f"{IMAGE_TYPE} or string, of paths" if kind == "image" else "string"
            raise StudyError(
                f"{at}: {path.name}: column {columns.input} is {inputs.type}; expected {wanted}."
            )
        yield inputs, labels


def _images_of(inputs: Any, folder: Path, at: str) -> list[bytes]:
    """Encoded images: as they stand in a column, or of the files that it names."""
    if not is_string(inputs.type):
        return [(value or {}).get("bytes") or b"" for value in inputs.to_pylist()]
    return [_read_image(folder / (name or ""), at) for name in inputs.to_pylist()]


def _read_image(path: Path, at: str) -> bytes:
    if not path.is_file():
        raise StudyError(f"{at}: the image {path} {_no_file(path)}.")
    if path.stat().st_size > MAX_IMAGE_BYTES:
        raise StudyError(
            f"{at}: {path} has {path.stat().st_size:,} bytes, at most {MAX_IMAGE_BYTES:,} allowed."
        )
    return path.read_bytes()


def _no_file(path: Path) -> str:
    """Why there is nothing to read."""
    if path.is_dir() and path.is_symlink():
        return "is a link to a folder, which is not followed"
    if path.is_dir():
        return "is a folder" if any(path.iterdir()) else "is an empty folder"
    return f"is a link to {path.readlink()}, which is not there" if path.is_symlink() else "is not there"


def write_images(
    folders: Mapping[Split, Path],
    targets: Mapping[Split, Path],
    *,
    classes: list[str],
    cache: Path,
    where: str,
) -> None:
    """Write the images of folders with a folder for each class as one parquet file for each split.

    Images are in the order of their paths. Other arguments as of :func:`write_table`.

    Raises:
        StudyError: a folder is missing or has no images, one in it is no class, or a class has none.
    """
    for split, folder in folders.items():
        at = f"{where}, {split}"
        if not folder.is_dir():
            raise StudyError(f"{at}: {folder} is no folder; correct origin.folder or origin.splits.")
        inside = sorted(path for path in folder.iterdir() if path.name[:1] != ".")
        for path in inside:
            if not path.is_dir():
                raise StudyError(f"{at}: {path} is in no class's folder; move it into one, or away.")
        names = [path.name for path in inside]
        for name in names:
            if name not in classes:
                raise unknown(f"{at}: {folder}: a folder", name, classes, "one of the data set's classes")
        for name in classes:
            if name not in names:
                raise StudyError(f"{at}: the class {name!r} has no folder in {folder}; found {names}.")
        left = set()
        for path in (path for name in names for path in (folder / name).rglob("[!.]*")):
            if path.is_file():
                left.add(path)
            elif not path.is_dir() or path.is_symlink() or not any(path.iterdir()):
                raise StudyError(f"{at}: {path} {_no_file(path)}, where an image is expected; move it away.")
        # Its glob knows no escapes, and a bracket in a path is seldom meant as a pattern.
        pattern = {"rows": [re.sub(r"[\[\]?*]", "?", str(folder / name)) + "/**" for name in names]}
        streamed = stream("imagefolder", pattern, cache, at, images=True, drop_labels=False)
        with _Writer(targets[split], "image", at) as writer:
            for table in streamed["rows"]:
                paths = [Path(value["path"]) for value in table["image"].to_pylist()]
                left.difference_update(paths)
                numbers = [classes.index(path.relative_to(folder).parts[0]) for path in paths]
                named = [str(path.relative_to(folder)) for path in paths]
                writer.add([_read_image(path, at) for path in paths], np.array(numbers), named)
        if left:
            raise StudyError(
                f"{at}: {min(left)} is no image by its name, so {len(left)} files of the folder would be "
                "left out; move them away, or save them as PNG, JPEG, BMP or WEBP."
            )


def stream(
    builder: str, files: dict[str, list[str]], cache: Path, at: str, images: bool = False, **options: Any
) -> dict[str, Iterator[Any]]:
    """By split an iterator over Arrow tables of some rows each, read by ``datasets``.

    Args:
        builder: ``parquet``, ``csv`` or ``imagefolder``.
        images: leave the column ``image`` encoded.

    Raises:
        StudyError: from the iterators, too, where a file is not readable.
    """
    import datasets

    with _readable(at):
        loaded = datasets.load_dataset(
            builder, data_files=files, streaming=True, cache_dir=str(cache), **options
        )
        if images:
            loaded = loaded.cast_column("image", datasets.Image(decode=False))
    return {split: _tables(loaded[split], at) for split in files}


def _tables(rows: Any, at: str) -> Iterator[Any]:
    batches = rows.with_format("arrow").iter(batch_size=ROWS_AT_ONCE)
    while True:
        with _readable(at):
            table = next(batches, None)
        if table is None:
            return
        yield table


class _readable:
    """What a damaged file makes ``datasets`` and its readers raise is not documented: one clear error."""

    def __init__(self, at: str):
        self.at = at

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, StudyError):
            cause = error.__cause__ or error
            raise StudyError(f"{self.at}: not readable ({one_line(cause)}).") from error


def names_of_classes(path: Path, column: str, cache: Path, at: str) -> list[str] | None:
    """The names of the classes that a parquet file itself has for its labels; None if it has none."""
    import datasets

    with _readable(at):
        loaded = datasets.load_dataset(
            "parquet", data_files={"rows": [str(path)]}, streaming=True, cache_dir=str(cache)
        )
        feature = (loaded["rows"].features or {}).get(column)
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None


class _Writer:
    """Writes rows to a parquet file, within bounds."""

    def __init__(self, path: Path, kind: str, at: str):
        import pyarrow as pa

        self.path, self.kind, self.at, self.size = path, kind, at, 0
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        self.type = image if kind == "image" else pa.string()
        self.schema = pa.schema([(INPUT[kind], self.type), ("label", pa.int64())])

    def __enter__(self) -> "_Writer":
        import pyarrow.parquet as pq

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.writer = pq.ParquetWriter(self.path, self.schema)
        return self

    def add(self, inputs: Any, labels: np.ndarray, paths: list[str] | None = None) -> None:
        """Write some rows: encoded images, with their paths if they have some, or an Arrow array of texts."""
        import pyarrow as pa

        if self.kind == "image":
            of_files = paths or itertools.repeat(None)
            rows = [{"bytes": value, "path": path} for value, path in zip(inputs, of_files, strict=False)]
            inputs = pa.array(rows, self.type)
        else:
            inputs = inputs.cast(self.type)
        self.size += inputs.nbytes
        if self.size > MAX_BYTES:
            raise StudyError(f"{self.at}: at most {MAX_BYTES:,} bytes are allowed, unpacked.")
        self.writer.write_table(pa.table([inputs, pa.array(labels, pa.int64())], schema=self.schema))

    def __exit__(self, *_: Any) -> None:
        self.writer.close()
