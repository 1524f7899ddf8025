"""How conf/ is read, and OmegaConf resolvers that derive what the DAG runs over from what was chosen.

DVC imports this folder's modules when it composes conf/ (its ``hydra.plugins_path``, by default the
repository's root). A resolver is needed because DVC's templating cannot look up ``model.<item>.dataset``, and
Hydra's defaults lists cannot follow it to the data set's file.

``LRSTUDY_CONF`` names a folder of one's own that is laid out as conf/; its files stand beside those. Hydra
has both from :class:`StudyConf`, which refuses a name without a file and a file that would be merged into
nothing.
"""

import difflib
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from dvc.exceptions import DvcException
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
_ROWS = ("model", "schedule")
OTHERS = "others"
"""Key of num_epochs and batch_size: of all data sets that are not named there."""


class ConfError(DvcException, HydraException):
    """A mistake in conf/ or in a choice of its files: DVC prints its one line and nothing else."""


class ResolvedError(ConfError, InterpolationResolutionError):
    """The same from a resolver: OmegaConf passes it on as it is, where Hydra would make its words none."""

    _initialized = True  # so OmegaConf wraps it in no error of its own

    def __init__(self, message: str):
        InterpolationResolutionError.__init__(self)
        ConfError.__init__(self, message)


def folders(conf: Path | None = None) -> list[Path]:
    """The folders whose files can be chosen: the repository's first, or another one in its place.

    Raises:
        ConfError: ``LRSTUDY_CONF`` is no folder.
    """
    own = os.environ.get("LRSTUDY_CONF")
    if own and not Path(own).expanduser().is_dir():
        raise ConfError(f"LRSTUDY_CONF={own}: no such folder. Correct the path, or unset the variable.")
    return [conf or CONF, *([Path(own).expanduser().resolve()] if own else [])]


def files(group: str, within: list[Path] | None = None) -> dict[str, Path]:
    """The files of a group by name, of the first of these folders that has one; :func:`folders` without."""
    by_name: dict[str, Path] = {}
    for folder in reversed(within or folders()):
        by_name |= {path.stem: path for path in (folder / group).glob("*.yaml")}
    return dict(sorted(by_name.items()))


def _check_section(name: str, within: list[Path]) -> None:
    """Refuse what is neither a folder of conf/ nor a key of conf/config.yaml that is not derived."""
    config = read(within[0] / "config.yaml")
    known = {key for key in map(str, config) if not OmegaConf.is_interpolation(config, key)} - {"defaults"}
    known |= {path.name for folder in within for path in folder.iterdir() if path.is_dir()}
    if name not in known | {"hydra"}:
        raise ConfError(
            f"{name!r} is no section of params.yaml; choose from {', '.join(sorted(known))}."
            f"{_meant(name, sorted(known))}"
        )


def missing(group: str, name: str, within: list[Path]) -> ConfError:
    """The error for a choice that has no file in these folders, with the nearest one that has."""
    _check_section(group, within)
    elsewhere = f"nor in {within[1] / group}" if within[1:] else "nor in LRSTUDY_CONF"
    known = files(group, within)
    what = f"model: the data set {name}" if group == "dataset" else f"{group}: {name!r}"
    return ConfError(
        f"{what} has no file in conf/{group}, {elsewhere}; choose from {', '.join(known)}."
        f"{_meant(name, known)}"
    )


def _meant(name: str, known: Iterable[str]) -> str:
    near = [one for one in known if name and one.startswith(name)]
    near = near or difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def read(path: Path) -> DictConfig:
    """What a file of conf/ says.

    Raises:
        ConfError: it is not readable as YAML, or has no keys.
    """
    try:
        content = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        said = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfError(f"{_shown(path)}{line}: not readable as YAML ({said}).") from None
    if not isinstance(content, DictConfig) or not content:
        holds = "holds no keys" if isinstance(content, DictConfig) else "is no mapping of keys to values"
        page = "docs/data.md" if path.parent.name == "dataset" else "docs/extending.md"
        raise ConfError(
            f"{_shown(path)}: {holds}. Write what {path.stem} is ({page} has an example), or delete the file."
        )
    return content


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


class OwnConf(SearchPathPlugin):
    """Has Hydra read conf/ through :class:`StudyConf`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for element in search_path.get_path():
            if element.provider == "main":
                element.path = f"{StudyConf.scheme()}://{element.path.removeprefix('file://')}"


class StudyConf(ConfigSource):
    """conf/ and the folder of ``LRSTUDY_CONF`` as one source, the repository's files first.

    There is no other one of the study's, so what has no file here has none.

    Raises:
        ConfError: a file has no keys, or not the first line that says where they lie; a name has no file.
    """

    @staticmethod
    def scheme() -> str:
        return "study"

    @property
    def folders(self) -> list[Path]:
        return folders(Path(self.path))

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        # Hydra asks this of the key of every -S, to tell a choice of files from a value.
        if config_path == "dataset":
            raise ConfError(
                "dataset: a model's row names its data set, as in -S model.resnet.dataset=cifar10."
            )
        _check_section(re.split("[./]", config_path)[0], self.folders)
        return any((folder / config_path).is_dir() for folder in self.folders)

    def is_config(self, config_path: str) -> bool:
        if self._file(config_path) is not None:
            return True
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        if group.partition("/")[0] == "hydra":  # its own, which it has elsewhere
            return False
        raise missing(group, name, self.folders)

    def _file(self, config_path: str) -> Path | None:
        paths = (folder / self._normalize_file_name(config_path) for folder in self.folders)
        return next((path for path in paths if path.is_file()), None)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return list(files(config_path, self.folders))

    def load_config(self, config_path: str) -> ConfigResult:
        path = self._file(config_path)
        if path is None:
            raise FileNotFoundError(config_path)  # is_config() was asked before
        content, text = read(path), path.read_text("utf-8")
        try:
            header = self._get_header_dict(text)
        except ValueError:  # more or less than a key and a value
            header = {"package": None}
        group = config_path.rpartition("/")[0]
        _check_package(path, group, header["package"], text)
        return ConfigResult(provider=self.provider, path=self.full_path(), config=content, header=header)


def _check_package(path: Path, group: str, package: str | None, text: str) -> None:
    """Refuse a file whose first line does not say where its keys lie, which without one is the group."""
    wanted = f"{group}.{path.stem}" if group in _ROWS else "_global_" if group == "preset" else group
    if package in ([wanted] if wanted != group else [wanted, None]):
        return
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if "@package" in line]
    found = f"found {lines[0][1]!r} in line {lines[0][0]}" if lines else "found no such line"
    raise ConfError(
        f"{_shown(path)}: {found}. The first line must be '# @package {wanted}', which is where params.yaml "
        "has its keys."
    )


def study_known_datasets(_root_: DictConfig) -> ListConfig:
    """All data sets that have a conf file: what num_epochs and batch_size may name.

    The first key that is resolved, so it also refuses a ``${...}`` that leads nowhere, wherever it stands.

    Raises:
        ConfError: there is one.
    """
    for key, value in _texts(OmegaConf.to_container(_root_, resolve=False)):
        if "${" in value and not value.startswith("${study_"):
            try:
                OmegaConf.select(_root_, key, throw_on_resolution_failure=True)
            except (OmegaConfBaseException, RecursionError) as error:
                said = str(error).partition("\n")[0]
                raise ConfError(
                    f"{key}: found {value}, which leads nowhere ({said}); write a value."
                ) from None
    return OmegaConf.create(list(files("dataset")))


def study_cells(_root_: DictConfig) -> DictConfig:
    """Map ``<model>-<schedule>`` to what the stages need to know of it, for every cell of the study.

    A model has the columns that its ``schedules`` names, of those that were chosen; without it all of them.

    Returns:
        By cell ``model``, ``schedule`` and ``dataset``; ``tuned``: the folder in artifacts/tuned whose values
        it takes; ``num_epochs``, ``batch_size``: the keys of params.yaml that have its length and its batch
        size.

    Raises:
        ConfError: no model or no schedule was chosen, a model has no data set, or ``schedules`` names what is
            no row of conf/schedule and none of the study.
    """
    for group in _ROWS:
        if not _root_.get(group):
            raise ConfError(
                f"{group}: no row is chosen; name one or more files of conf/{group}, as in "
                f"-S '{group}=[{','.join([*files(group)][:2])}]'."
            )
    model, schedule = _root_.model, _root_.schedule
    num_epochs, batch_size = _root_.num_epochs, _root_.batch_size
    cells = {}
    rows = files("schedule")
    for model_name, settings in _rows(model):
        if not isinstance(settings, DictConfig):
            raise ConfError(
                f"model.{model_name}: found {settings!r}, no row; name files as in -S 'model=[resnet]'."
            )
        columns = settings.get("schedules")
        known = {*schedule, *rows}
        if unknown := sorted(set(columns or ()) - known):
            raise ConfError(
                f"model.{model_name}.schedules: {', '.join(unknown)} is no schedule; choose from "
                f"{', '.join(sorted(known))}."
            )
        if not isinstance(settings.get("dataset"), str):
            near = difflib.get_close_matches("dataset", settings, n=1)
            raise ConfError(
                f"model.{model_name}: found no dataset; it names one of {', '.join(files('dataset'))}."
                + (f" Did you mean 'dataset' by {near[0]!r}?" if near else "")
                + (f" See {_shown(path)}." if (path := files("model").get(model_name)) else "")
            )
        length = f"model.{model_name}.num_epochs"
        if settings.get("num_epochs") is None:
            length = _key("num_epochs", num_epochs, settings.dataset)
        for schedule_name, _ in _rows(schedule):
            if columns is None or schedule_name in columns:
                cells[f"{model_name}-{schedule_name}"] = {
                    "model": model_name,
                    "schedule": schedule_name,
                    "dataset": settings.dataset,
                    "tuned": f"{settings.get('tuned_as') or model_name}/{schedule_name}",
                    "num_epochs": length,
                    "batch_size": _key("batch_size", batch_size, settings.dataset),
                }
    return OmegaConf.create(cells)


def _rows(section: DictConfig) -> Iterator[tuple[str, Any]]:
    """The rows of a section by their names."""
    return ((str(name), row) for name, row in section.items())


def _key(section: str, values: DictConfig, dataset: str) -> str:
    """The key of params.yaml that has a data set's value: named there, of all others, or its own default."""
    for name in (dataset, OTHERS):
        if name in values:
            return f"{section}.{name}"
    return f"dataset.{dataset}.{section}"


def _searching(cells: Mapping[Any, Any]) -> dict[str, Any]:
    """The cells that search for their own values."""
    return {str(name): cell for name, cell in cells.items() if cell.tuned == f"{cell.model}/{cell.schedule}"}


MOST_STAGED = 60
"""Cells that have stages of their own where ``stage_per`` is auto: DVC writes and reads all of its lock for
every stage that it runs, so its own cost grows with their square."""


def study_stages(cells: DictConfig, stage_per: str) -> DictConfig:
    """What DVC's stages of the cells are over: one for each cell, or one for all cells of a model.

    Returns:
        ``cells``, and ``searches`` of the cells that search for their own values. By the stages' item: the
        ``arguments`` of the stages' scripts; the ``folder`` in artifacts/ and the one where the values are
        from, ``tuned``; ``model`` and ``dataset``; keys of params.yaml: of its ``schedule`` or schedules,
        its ``num_epochs`` and ``batch_size``.
    """
    per = ("cell" if len(cells) <= MOST_STAGED else "model") if stage_per == "auto" else stage_per

    def staged(chosen: Mapping[Any, Any]) -> dict[str, dict[str, str]]:
        items = {}
        for name, cell in chosen.items():
            alone = per == "cell"
            items[str(name) if alone else cell.model] = {
                "arguments": f"{cell.model} {cell.schedule}" if alone else cell.model,
                "folder": f"{cell.model}/{cell.schedule}" if alone else cell.model,
                "tuned": cell.tuned if alone else cell.tuned.partition("/")[0],
                "model": cell.model,
                "dataset": cell.dataset,
                "schedule": f"schedule.{cell.schedule}" if alone else "schedule",
                "num_epochs": cell.num_epochs,
                "batch_size": cell.batch_size,
            }
        return items

    return OmegaConf.create({"cells": staged(cells), "searches": staged(_searching(cells))})


def study_timed(cells: DictConfig) -> DictConfig:
    """Of each model that searches for its own values a cell: an update costs the same at all lengths."""
    return OmegaConf.create({cell.model: cell for cell in _searching(cells).values()})


def study_datasets(cells: DictConfig) -> ListConfig:
    """The data sets that the cells read, sorted, each once."""
    return OmegaConf.create(sorted({cell.dataset for cell in cells.values()}))


def study_outside(_root_: DictConfig) -> ListConfig:
    """The packages in the repository's root whose code is named as ``package.module:name``, sorted."""
    chosen = {
        group: _root_.get(group)
        for group in ("model", "schedule", "optimizer", "controller", "timing", "theory")
    }
    named = {
        value.partition(":")[0].partition(".")[0]
        for _, value in _texts(OmegaConf.to_container(OmegaConf.create(chosen)))
        if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value)
    }
    paths = [path for name in named for path in (name, f"{name}.py") if (ROOT / path).exists()]
    return OmegaConf.create(sorted(paths))


def _texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """The texts in a tree of mappings and lists, each with the key that leads there."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(inner, f"{key}.{name}" if key else str(name))


def study_described(cells: DictConfig) -> DictConfig:
    """What the conf files of the cells' data sets say, by data set.

    ``watched`` is added: the path whose change makes the download stale. That is one's own folder, or, where
    there is none, a file that ``download`` follows anyway: DVC's stages cannot have a dependency or not.

    Raises:
        ConfError: a data set has no file in conf/dataset.
    """
    known, descriptions = files("dataset"), {}
    for name in study_datasets(cells):
        if name not in known:
            raise missing("dataset", name, folders())
        described = cast(dict[str, Any], OmegaConf.to_container(read(known[name]), resolve=True))
        own = (described.get("origin") or {}).get("folder")
        own = str(Path(own).expanduser()) if own else "artifacts/code/preprocess.json"
        descriptions[name] = {**described, "watched": own}
    return OmegaConf.create(descriptions)


def _passed_on(resolver: Callable[..., Container]) -> Callable[..., Container]:
    @functools.wraps(resolver)
    def resolved(*args: Any, **kwargs: Any) -> Container:
        try:
            return resolver(*args, **kwargs)
        except ConfError as error:
            raise ResolvedError(str(error)) from None

    return resolved


for _resolver in (
    study_known_datasets,
    study_cells,
    study_stages,
    study_timed,
    study_datasets,
    study_described,
    study_outside,
):
    OmegaConf.register_new_resolver(_resolver.__name__, _passed_on(_resolver), replace=True)
