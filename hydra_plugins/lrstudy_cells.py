"""OmegaConf resolvers that derive the DAG's cells from the chosen models and schedules.

DVC imports this folder's modules when it composes conf/ (its ``hydra.plugins_path``, by default the
repository's root). A resolver is needed because DVC's templating cannot look up ``model.<item>.dataset``.
"""

from omegaconf import DictConfig, ListConfig, OmegaConf


def study_cells(model: DictConfig, schedule: DictConfig) -> DictConfig:
    """Map ``<model>-<schedule>`` to {model, schedule, dataset} for every combination."""
    return OmegaConf.create(
        {
            f"{model_name}-{schedule_name}": {
                "model": model_name,
                "schedule": schedule_name,
                "dataset": model[model_name].dataset,
            }
            for model_name in model
            for schedule_name in schedule
        }
    )


def study_datasets(model: DictConfig) -> ListConfig:
    """The data sets that the chosen models read, sorted, each once."""
    return OmegaConf.create(sorted({settings.dataset for settings in model.values()}))


OmegaConf.register_new_resolver("study_cells", study_cells, replace=True)
OmegaConf.register_new_resolver("study_datasets", study_datasets, replace=True)
