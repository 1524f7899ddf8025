"""OmegaConf resolvers that derive what the DAG runs over from the chosen models and schedules.

DVC imports this folder's modules when it composes conf/ (its ``hydra.plugins_path``, by default the
repository's root). A resolver is needed because DVC's templating cannot look up ``model.<item>.dataset``.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "conf/schedule"


def study_cells(model: DictConfig, schedule: DictConfig) -> DictConfig:
    """Map ``<model>-<schedule>`` to what the stages need to know of it, for every cell of the study.

    A model has the columns that its ``schedules`` names, of those that were chosen; without it all of them.

    Returns:
        By cell ``model``, ``schedule`` and ``dataset``; ``tuned``: the folder in artifacts/tuned whose values
        it takes; ``num_epochs``: the key of params.yaml that has its length.

    Raises:
        ValueError: ``schedules`` names what is no row of conf/schedule and none of the study.
    """
    cells = {}
    for model_name, settings in model.items():
        columns = settings.get("schedules")
        known = {*schedule, *(path.stem for path in ROWS.glob("*.yaml"))}
        if unknown := sorted(set(columns or ()) - known):
            raise ValueError(
                f"model.{model_name}.schedules: {', '.join(unknown)} is no schedule; choose from "
                f"{', '.join(sorted(known))}."
            )
        length = f"model.{model_name}.num_epochs"
        if settings.get("num_epochs") is None:
            length = f"num_epochs.{settings.dataset}"
        for schedule_name in schedule:
            if columns is None or schedule_name in columns:
                cells[f"{model_name}-{schedule_name}"] = {
                    "model": model_name,
                    "schedule": schedule_name,
                    "dataset": settings.dataset,
                    "tuned": f"{settings.get('tuned_as') or model_name}/{schedule_name}",
                    "num_epochs": length,
                }
    return OmegaConf.create(cells)


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


for _resolver in (study_cells, study_searches, study_timed, study_datasets, study_outside):
    OmegaConf.register_new_resolver(_resolver.__name__, _resolver, replace=True)
