"""OmegaConf resolvers that derive what the DAG runs over from the chosen models and schedules.

DVC imports this folder's modules when it composes conf/ (its ``hydra.plugins_path``, by default the
repository's root). A resolver is needed because DVC's templating cannot look up ``model.<item>.dataset``, and
Hydra's defaults lists cannot follow it to the data set's file.

``LRSTUDY_CONF`` names a folder of one's own that is laid out as conf/; its files stand beside those.
"""

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from hydra.core.config_search_path import ConfigSearchPath
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
OTHERS = "others"
"""Key of num_epochs and batch_size: of all data sets that are not named there."""


class ConfError(DvcException, InterpolationResolutionError, HydraException):
    """A mistake in conf/: OmegaConf passes it on as it is, and DVC prints its one line and nothing else."""

    _initialized = True  # so OmegaConf wraps it in no error of its own

    def __init__(self, message: str):
        InterpolationResolutionError.__init__(self)
        DvcException.__init__(self, message)


def folders() -> list[Path]:
    """The folders whose files can be chosen: the repository's first.

    Raises:
        ConfError: ``LRSTUDY_CONF`` is no folder.
    """
    own = os.environ.get("LRSTUDY_CONF")
    if own and not Path(own).expanduser().is_dir():
        raise ConfError(f"LRSTUDY_CONF={own}: no such folder. Correct the path, or unset the variable.")
    return [CONF, *([Path(own).expanduser().resolve()] if own else [])]


def files(group: str) -> dict[str, Path]:
    """The files of a group by name."""
    found: dict[str, Path] = {}
    for folder in reversed(folders()):
        found |= {path.stem: path for path in (folder / group).glob("*.yaml")}
    return dict(sorted(found.items()))


class OwnConf(SearchPathPlugin):
    """Lets Hydra find the files of ``LRSTUDY_CONF`` after those of the repository."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in folders()[1:]:
            search_path.append("lrstudy", f"file://{folder}")


def study_cells(
    model: DictConfig, schedule: DictConfig, num_epochs: DictConfig, batch_size: DictConfig
) -> DictConfig:
    """Map ``<model>-<schedule>`` to what the stages need to know of it, for every cell of the study.

    A model has the columns that its ``schedules`` names, of those that were chosen; without it all of them.

    Returns:
        By cell ``model``, ``schedule`` and ``dataset``; ``tuned``: the folder in artifacts/tuned whose values
        it takes; ``num_epochs``, ``batch_size``: the keys of params.yaml that have its length and its batch
        size.

    Raises:
        ConfError: a model has no data set, or ``schedules`` names what is no row of conf/schedule and none of
            the study.
    """
    cells = {}
    rows = files("schedule")
    for model_name, settings in _rows(model):
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


def study_searches(cells: DictConfig) -> DictConfig:
    """The cells that search for their own values."""
    return OmegaConf.create(
        {name: cell for name, cell in cells.items() if cell.tuned == f"{cell.model}/{cell.schedule}"}
    )


def study_timed(cells: DictConfig) -> DictConfig:
    """Of each model that searches for its own values a cell: an update costs the same at all lengths."""
    return OmegaConf.create({cell.model: cell for cell in study_searches(cells).values()})


def study_datasets(cells: DictConfig) -> ListConfig:
    """The data sets that the cells read, sorted, each once."""
    return OmegaConf.create(sorted({cell.dataset for cell in cells.values()}))


def study_outside(*sections: DictConfig) -> ListConfig:
    """The packages in the repository's root whose code is named as ``package.module:name``, sorted."""
    named = {
        value.partition(":")[0].partition(".")[0]
        for section in sections
        for value in _texts(OmegaConf.to_container(section))
        if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value)
    }
    paths = [path for name in named for path in (name, f"{name}.py") if (ROOT / path).exists()]
    return OmegaConf.create(sorted(paths))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def study_described(cells: DictConfig) -> DictConfig:
    """What the conf files of the cells' data sets say, by data set.

    ``watched`` is added: the path whose change makes the download stale. That is one's own folder, or, where
    there is none, a file that ``download`` follows anyway: DVC's stages cannot have a dependency or not.

    Raises:
        ConfError: a data set has no file in conf/dataset.
    """
    known, found = files("dataset"), {}
    for name in study_datasets(cells):
        if name not in known:
            raise ConfError(
                f"model: the data set {name} has no file in conf/dataset, nor in LRSTUDY_CONF; choose from "
                f"{', '.join(known)}."
            )
        described = OmegaConf.to_container(OmegaConf.load(known[name]), resolve=True)
        if not isinstance(described, dict):
            raise ValueError(f"{known[name]}: holds no keys; docs/extending.md has those of a data set.")
        own = (described.get("origin") or {}).get("folder")
        own = str(Path(own).expanduser()) if own else "artifacts/code/preprocess.json"
        found[name] = {**described, "watched": own}
    return OmegaConf.create(found)


def study_known_datasets() -> ListConfig:
    """All data sets that have a conf file: what num_epochs and batch_size may name."""
    return OmegaConf.create(list(files("dataset")))


for _resolver in (
    study_cells,
    study_searches,
    study_timed,
    study_datasets,
    study_described,
    study_known_datasets,
    study_outside,
):
    OmegaConf.register_new_resolver(_resolver.__name__, _resolver, replace=True)
