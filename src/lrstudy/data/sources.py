"""Where the raw data comes from, and what it must be: the two official splits of a data set.

``download`` brings them to ``data/raw/<dataset>/{train,test}.parquet`` (of the hub: its own files) and
records in ``source.json`` what they are; ``read_rows`` reads and checks one of them.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lrstudy.data.intake import names_of_classes, write_images, write_table, written_columns
from lrstudy.data.raw import (
    OFFICIAL_SPLITS,
    ProgressBar,
    check_size,
    content_digests,
    digest,
    image_table,
    one_line,
    read_archive,
    read_rows,
    write_parquet,
)
from lrstudy.data.records import Source
from lrstudy.errors import StudyError, unknown
from lrstudy.files import write_atomically
from lrstudy.recipe.dataset import (
    Archive,
    Columns,
    Dataset,
    Hub,
    Images,
    Layout,
    Split,
    Table,
    Torchvision,
    image_shape,
)

SOURCES = ("hub", "archive", "sample")


# ---------------------------------------------------------------------------------------------- download


def download(
    name: str,
    spec: Dataset,
    folder: Path,
    *,
    source: str = "hub",
    mirror: Path | None = None,
    partial: Path = Path(".downloads"),
    endpoint: str | None = None,
) -> dict[str, Any]:
    """Bring both official splits of a data set to ``folder``, checked, and return what ``source.json`` says.

    Args:
        name: the data set's.
        spec: what its conf file says.
        folder: where the splits go. Nothing in it changes before every check has passed.
        source: ``hub``: where its ``origin`` says; ``archive``: where its ``archive`` says, if it has one;
            ``sample``: the embedded stand-in, offline.
        mirror: a folder laid out as the hub, used in the hub's place.
        partial: keeps unfinished downloads, so that a later call goes on where one stopped.
        endpoint: of the hub; None: the library's.

    Raises:
        StudyError: out of reach, truncated, wrong hash, columns, counts, classes, image or encoding; train
            and test are the same.
    """
    if source not in SOURCES:
        raise unknown("data.source", source, SOURCES, "a source of data")
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / ".staged"
    staged = {split: staging / f"{split}.parquet" for split in OFFICIAL_SPLITS}
    shutil.rmtree(staging, ignore_errors=True)  # what a call that was killed left
    try:
        if source == "sample":
            brought = _stage_sample(name, spec, staged)
        elif source == "archive" and spec.archive:
            brought = _stage_archive(name, spec, spec.archive, staged, folder, partial / name)
        elif isinstance(spec.origin, Hub) and mirror is not None:
            brought = _stage_mirror(name, spec, spec.origin, staged, mirror)
        elif isinstance(spec.origin, Hub):
            brought = _stage_hub(name, spec, spec.origin, staged, folder, partial / name, endpoint)
        elif isinstance(spec.origin, Torchvision):
            brought = _stage_torchvision(name, spec, spec.origin, staged, partial / name)
        else:
            brought = _stage_own(name, spec, spec.origin, staged)
        paths = {s: staged[s] if staged[s].exists() else folder / f"{s}.parquet" for s in OFFICIAL_SPLITS}
        record = _describe(name, spec, paths, brought)
        if isinstance(spec.origin, Hub) and brought.origin in ("hub", "mirror"):
            _check_class_names(name, spec, brought, paths)
        for split, path in staged.items():
            if path.exists():
                os.replace(path, folder / f"{split}.parquet")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    Source.write_values(folder / "source.json", record)
    return record


@dataclass(frozen=True)
class _Brought:
    """Where the staged files are from and how they are to be read."""

    origin: str
    revision: str | None
    layout: Layout
    rows: dict[Split, int] | None
    official: bool | None = None  # None: as the hashes say
    title: str = ""


def layout_of(spec: Dataset, columns: Columns) -> Layout:
    """How the rows of a data set's raw splits are read, where they have these columns."""
    return Layout(
        kind=spec.kind,
        columns=columns,
        class_names=spec.classes,
        image_size=spec.image_size,
        channels=spec.channels,
        resize=spec.resize,
        balanced=spec.balanced,
    )


def _describe(name: str, spec: Dataset, paths: dict[Split, Path], brought: _Brought) -> dict[str, Any]:
    """Check the content of both splits and return the record for ``source.json``."""
    files: dict[Split, dict[str, Any]] = {}
    encodings: set[str] = set()
    contents: dict[Split, set[bytes]] = {}
    for split, path in paths.items():
        where = f"{name} ({brought.origin}), {split}"
        rows = brought.rows[split] if brought.rows else None
        values, labels, encoding = read_rows(path, brought.layout, rows, where)
        encodings.update(encoding.split("+"))
        contents[split] = set(content_digests(values))
        files[split] = {"sha256": digest(path, "sha256"), "bytes": path.stat().st_size, "rows": len(labels)}
    if contents["test"] <= contents["train"]:
        raise StudyError(
            f"{name} ({brought.origin}): every test example stands in train, so test would measure memory; "
            "give the two splits files of their own."
        )
    official = brought.official
    if official is None:
        hashes = {split: [entry["sha256"]] for split, entry in files.items()}
        official = isinstance(spec.origin, Hub) and hashes == spec.origin.sha256
    note = "sample" if brought.origin == "sample" else "JPEG copy" if "jpeg" in encodings else "mirror"
    noted = not official and brought.origin in ("sample", "mirror", "hub")
    resized = ", resized to {}x{}".format(*image_shape(spec)) if spec.resize else ""
    revision = brought.revision
    if isinstance(spec.origin, Hub) and official and brought.origin == "mirror":
        revision = spec.origin.revision
    return {
        "dataset": name,
        "source": brought.origin,
        "official": official,
        "label": (brought.title or spec.title) + (f" ({note})" if noted else "") + resized,
        "encoding": "+".join(sorted(encodings)),
        "revision": revision,
        "layout": brought.layout.model_dump(),
        "files": files,
    }


def _check_class_names(name: str, spec: Dataset, brought: _Brought, paths: dict[Split, Path]) -> None:
    """Where files name their classes themselves, the names must be those of the conf, in their order."""
    for split, path in paths.items():
        where = f"{name} ({brought.origin}), {split}"
        names = names_of_classes(path, brought.layout.columns.label, path.parent, where)
        if names is not None and names != spec.classes:
            raise StudyError(
                f"{where}: the file's classes are {', '.join(names)}; conf says {', '.join(spec.classes)}. "
                "Correct `classes`, or `origin.columns.label`."
            )


def _stage_sample(name: str, spec: Dataset, staged: dict[Split, Path]) -> _Brought:
    from lrstudy.data import sample

    if spec.sample is None:
        raise StudyError(
            f"{name}: has no stand-in (`sample: null` in its conf file), so data=sample is not for it; name "
            f"one of {', '.join(sample.SAMPLES)} there, or take another source."
        )
    made = sample.make(spec)
    for split, table in made.tables.items():
        write_parquet(table, staged[split])
    layout = layout_of(spec, made.columns)
    layout = layout.model_copy(update={"class_names": made.class_names, "balanced": True, "resize": False})
    rows = {split: table.num_rows for split, table in made.tables.items()}
    return _Brought("sample", f"version {sample.VERSION}", layout, rows, official=False, title=made.title)


def _stage_mirror(name: str, spec: Dataset, origin: Hub, staged: dict[Split, Path], mirror: Path) -> _Brought:
    by_split: dict[Split, list[Path]] = {}
    for split in staged:
        by_split[split] = [mirror / origin.repo / file for file in origin.files[split]]
        for path in by_split[split]:
            if not path.is_file():
                raise StudyError(
                    f"LRSTUDY_DATA_MIRROR={mirror}: {path} is not there. A mirror is laid out as the hub: "
                    f"<mirror>/{path.relative_to(mirror)}. Correct the path, or unset the variable."
                )
            check_size(path, f"{name} (mirror), {split}")
    official = None if _as_it_is(origin) else _hashes_agree(by_split, origin)
    return _Brought("mirror", None, _stage_files(name, spec, origin, by_split, staged), spec.rows, official)


def _stage_hub(
    name: str,
    spec: Dataset,
    origin: Hub,
    staged: dict[Split, Path],
    folder: Path,
    partial: Path,
    endpoint: str | None,
) -> _Brought:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    as_it_is = _as_it_is(origin)
    layout = layout_of(spec, origin.columns if as_it_is else written_columns(spec.kind))
    brought = _Brought("hub", origin.revision, layout, spec.rows, official=True)
    if _is_here(folder, origin.revision, layout):
        return brought
    with contextlib.ExitStack() as kept:
        by_split: dict[Split, list[Path]] = {}
        for split in staged:
            by_split[split] = []
            present = folder / f"{split}.parquet"
            for number, file in enumerate(origin.files[split]):
                expected = origin.sha256 and origin.sha256[split][number]
                if as_it_is and expected and present.is_file() and digest(present, "sha256") == expected:
                    continue
                url = hf_hub_url(
                    origin.repo, file, repo_type="dataset", revision=origin.revision, endpoint=endpoint
                )
                expected = expected or _hash_at_the_hub(url, name, partial)
                getting = fetched(url, partial, f"sha256:{expected}", name, build_hf_headers())
                by_split[split].append(kept.enter_context(getting))
        _stage_files(name, spec, origin, by_split, staged)
    return brought


def _hash_at_the_hub(url: str, dataset: str, partial: Path) -> str:
    """The SHA-256 that the hub has for a file at the pinned revision, where conf has none."""
    from huggingface_hub import get_hf_file_metadata

    with _clear_network_errors(url, dataset, partial / "unknown"):
        sha256 = get_hf_file_metadata(url).etag or ""
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise StudyError(
            f"{dataset}: the hub has no SHA-256 for {url} (a small file outside of its large file storage); "
            "give it as origin.sha256."
        )
    return sha256


def _as_it_is(origin: Hub) -> bool:
    """Whether the hub's files are placed as they are: one parquet file for each split."""
    return all(len(paths) == 1 and paths[0].endswith(".parquet") for paths in origin.files.values())


def _hashes_agree(files: dict[Split, list[Path]], origin: Hub) -> bool:
    hashes = {split: [digest(path, "sha256") for path in paths] for split, paths in files.items()}
    return hashes == origin.sha256


def _stage_files(
    name: str, spec: Dataset, origin: Hub, files: dict[Split, list[Path]], staged: dict[Split, Path]
) -> Layout:
    """Copy the hub's or a mirror's files, or make one file for each split of them."""
    if _as_it_is(origin):
        for split, paths in files.items():
            for path in paths:
                _copy(path, staged[split])
        return layout_of(spec, origin.columns)
    # What was fetched is named by its hash; its format is told by the name it has at the hub.
    with tempfile.TemporaryDirectory(dir=_made(staged["train"].parent)) as scratch:
        named: dict[Split, list[Path]] = {}
        for split, paths in files.items():
            named[split] = []
            for number, (path, file) in enumerate(zip(paths, origin.files[split], strict=True)):
                link = Path(scratch) / f"{split}-{number}{Path(file).suffix}"
                link.symlink_to(path.resolve())
                named[split].append(link)
        write_table(
            named,
            staged,
            kind=spec.kind,
            columns=origin.columns,
            classes=spec.classes,
            cache=Path(scratch) / "cache",
            where=name,
        )
    return layout_of(spec, written_columns(spec.kind))


def _stage_own(name: str, spec: Dataset, origin: Images | Table, staged: dict[Split, Path]) -> _Brought:
    folder, cache = Path(origin.folder).expanduser(), _made(staged["train"].parent) / "cache"
    where = f"{name} ({origin.type})"
    if not folder.is_dir():
        raise StudyError(f"{where}: origin.folder: {folder.absolute()} is no folder; correct it.")
    if isinstance(origin, Images):
        folders = {split: folder / part for split, part in origin.splits.items()}
        write_images(folders, staged, classes=spec.classes, cache=cache, where=where)
    else:
        files = {split: [folder / path for path in paths] for split, paths in origin.files.items()}
        write_table(
            files,
            staged,
            kind=spec.kind,
            columns=origin.columns,
            classes=spec.classes,
            cache=cache,
            where=where,
        )
    layout = layout_of(spec, written_columns(spec.kind))
    return _Brought(origin.type, None, layout, spec.rows, official=False)


def _stage_torchvision(
    name: str, spec: Dataset, origin: Torchvision, staged: dict[Split, Path], partial: Path
) -> _Brought:
    import inspect

    import torchvision

    known = {
        one: inspect.signature(getattr(torchvision.datasets, one).__init__).parameters
        for one in torchvision.datasets.__all__
    }
    named = origin.name
    usable = [one for one, takes in known.items() if "download" in takes and {"train", "split"} & set(takes)]
    if named not in usable:
        raise unknown(f"{name}: origin.name", named, usable, "a data set of torchvision that is downloaded")
    for split, target in staged.items():
        part = {"train": split == "train"} if "train" in known[named] else {"split": split}
        where = f"{name} (torchvision), {split}"
        try:
            examples = getattr(torchvision.datasets, named)(root=partial, download=True, **part)
        except Exception as error:  # of the network, the archive, the hash: each data set has its own
            raise StudyError(
                f"{where}: torchvision cannot bring {named} ({one_line(error)}). Where its publisher is out "
                f"of reach, lay its files out in {partial} as torchvision does, or use the embedded sample: "
                "-S data=sample."
            ) from error
        images, labels = [], []
        for image, label in examples:
            images.append(np.asarray(image))
            labels.append(int(label))
        if len({image.shape for image in images}) > 1:
            raise StudyError(f"{where}: images differ in size; use another origin, with resize: true.")
        columns = written_columns("image")
        write_parquet(image_table(np.stack(images), np.array(labels), columns), target)
    layout = layout_of(spec, written_columns("image"))
    return _Brought("torchvision", f"torchvision {torchvision.__version__}", layout, spec.rows, official=True)


def _is_here(folder: Path, revision: str | None, layout: Layout) -> bool:
    """Whether ``folder`` already holds, unchanged, what a revision is, to be read in this way.

    Whatever else lies there is brought anew.
    """
    try:
        source = Source.read(folder / "source.json", f"download@{folder.name}")
        return (source.revision, source.layout) == (revision, layout) and all(
            digest(folder / f"{split}.parquet", "sha256") == source.files[split].sha256
            for split in OFFICIAL_SPLITS
        )
    except (OSError, StudyError):
        return False


def _stage_archive(
    name: str, spec: Dataset, archive: Archive, staged: dict[Split, Path], folder: Path, partial: Path
) -> _Brought:
    columns = Columns(input="img", label="label")
    layout = layout_of(spec, columns)
    brought = _Brought("archive", f"md5:{archive.md5}", layout, spec.rows, official=True)
    if not _is_here(folder, brought.revision, layout):
        with fetched(archive.url, partial, f"md5:{archive.md5}", name) as path:
            for split, target in staged.items():
                images, labels = read_archive(path, archive.members[split])
                write_parquet(image_table(images, labels, columns), target)
    return brought


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
                    tqdm_class=ProgressBar,
                )
            actual = digest(path, algorithm)
            if actual != value:
                path.unlink()
                raise StudyError(
                    f"{dataset}: {url} has {algorithm} {actual}, expected {value}. The file was discarded; "
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


# ---------------------------------------------------------------------------------------------- files


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader:
        write_atomically(target, lambda writer: shutil.copyfileobj(reader, writer, 1 << 20))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
