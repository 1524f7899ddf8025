"""A cell is one model x schedule: what config says of it, joined, checked and ready to train or search."""

from dataclasses import dataclass

from lrstudy.config import (
    Choices,
    ControllerParams,
    FloatRange,
    ModelParams,
    OptimizerParams,
    Params,
    PerModel,
    ScheduleRow,
)
from lrstudy.controllers import make_controller
from lrstudy.errors import StudyError, unknown
from lrstudy.optimizers import check_options
from lrstudy.schedules import make_schedule, parameters_of, resolve_parameters


@dataclass(frozen=True)
class Cell:
    """Everything that one model x schedule is made of, after the config's defaults and choices are joined."""

    model_name: str
    schedule_name: str
    model: ModelParams
    row: ScheduleRow
    optimizer: OptimizerParams
    controller: ControllerParams
    num_epochs: int
    batch_size: int

    @property
    def name(self) -> str:
        """``<model>-<schedule>``, as in DVC's stage names."""
        return f"{self.model_name}-{self.schedule_name}"

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return self.model.dataset

    @property
    def function(self) -> str:
        """The schedule function's name: the row's own name unless it says otherwise."""
        return self.row.function or self.schedule_name

    def settings(self, tuned: dict | None = None) -> dict:
        """The numbers that a training needs, as plain JSON-able values.

        ``tuned`` maps ``base_lr`` and schedule parameters to found values; the rest keeps the defaults.
        """
        tuned = dict(tuned or {})
        base_lr = tuned.pop("base_lr", self.optimizer.base_lr)
        model = self.model.model_dump(exclude={"optimizer", "dataset", "precision"})
        parameters = {**self.row.options, **tuned}
        return {
            "dataset": self.dataset,
            "model": model,
            "batch_size": self.batch_size,
            "precision": self.model.precision,
            "num_epochs": self.num_epochs,
            "optimizer": {"name": self.optimizer.name, "base_lr": base_lr, **self.optimizer.options},
            "schedule": {
                "function": self.function,
                "warmup_epochs": self.row.warmup_epochs,
                "granularity": self.row.granularity,
                "parameters": resolve_parameters(
                    self.function, self.num_epochs - self.row.warmup_epochs, **parameters
                ),
            },
            "controller": {"name": self.controller.name, **self.controller.options},
        }

    def search_space(self) -> dict[str, FloatRange | Choices]:
        """``base_lr`` and the schedule's own parameters, with their ranges; ``num_epochs`` made a number."""
        space = {"base_lr": self.optimizer.search["base_lr"], **self.row.search}
        return {name: self._with_numbers(name, where) for name, where in space.items()}

    def _with_numbers(self, name: str, where: FloatRange | Choices) -> FloatRange | Choices:
        if isinstance(where, Choices):
            return where
        available = self.num_epochs - self.row.warmup_epochs
        low, high = (available if v == "num_epochs" else v for v in (where.low, where.high))
        if low > high:
            epochs = " (num_epochs less the warmup)" if self.row.warmup_epochs else " (num_epochs)"
            of_low, of_high = (epochs if v == "num_epochs" else "" for v in (where.low, where.high))
            raise StudyError(
                f"search.{name}: low {low:g}{of_low} is above high {high:g}{of_high}; "
                "change the bounds or the number of epochs."
            )
        return where.model_copy(update={"low": float(low), "high": float(high)})


def make_cell(params: Params, model: str, schedule: str) -> Cell:
    """Join and check what the sections of ``params`` say of one model x schedule.

    Raises:
        StudyError: an unknown model or schedule, or parameters that don't fit the schedule's function, the
            optimizer or the controller.
    """
    if model not in params.model:
        raise unknown("params.yaml: model", model, params.model, "a model of this study")
    if schedule not in params.schedule:
        raise unknown("params.yaml: schedule", schedule, params.schedule, "a schedule of this study")
    settings, row = params.model[model], params.schedule[schedule]
    optimizer = settings.optimizer if isinstance(params.optimizer, PerModel) else params.optimizer
    controller = row.controller or params.controller
    if isinstance(controller, str):
        controller = ControllerParams(name=controller)
    num_epochs, batch_size = (
        _for_dataset(params, section, settings.dataset, model) for section in ("num_epochs", "batch_size")
    )
    cell = Cell(model, schedule, settings, row, optimizer, controller, num_epochs, batch_size)
    _check_row(schedule, row, "params.yaml")
    _check_cell(cell, "params.yaml")
    return cell


def _for_dataset(params: Params, section: str, dataset: str, model: str) -> int:
    values = getattr(params, section)
    if dataset not in values:
        found = ", ".join(f"{name} {value}" for name, value in values.items()) or "nothing"
        raise StudyError(
            f"params.yaml: {section}: found {found}; the model '{model}' trains on {dataset}, so add "
            f"`{dataset}: ...` (>= 1) to it, in conf/preset/ if `dvc exp run` is to keep it."
        )
    return values[dataset]


def default_values(cell: Cell) -> dict:
    """What the config says of each searched value, unset ones resolved to numbers."""
    settings = cell.settings()
    known = {"base_lr": settings["optimizer"]["base_lr"], **settings["schedule"]["parameters"]}
    return {name: known[name] for name in cell.search_space()}


def _check_row(name: str, row: ScheduleRow, where: str) -> None:
    function = row.function or name
    at = f"{where}: schedule.{name}"
    try:
        allowed = parameters_of(function)
    except StudyError as error:
        raise StudyError(f"{at}: {error}") from None
    reserved = list(ScheduleRow.model_fields)
    for key in row.options:
        if key not in allowed:
            raise unknown(f"{at}", key, [*allowed, *reserved], f"a parameter of '{function}'")
    for key, search in row.search.items():
        if key not in allowed:
            raise unknown(f"{at}.search", key, allowed, f"a parameter of '{function}'")
        _check_search(f"{at}.search.{key}", search)


def _check_search(at: str, search: FloatRange | Choices) -> None:
    if isinstance(search, Choices):
        return
    low, high = search.low, search.high
    if isinstance(low, float) and isinstance(high, float) and low > high:
        raise StudyError(f"{at}: low {low:g} is above high {high:g}; exchange them.")
    if search.log and isinstance(low, float) and low <= 0:
        raise StudyError(f"{at}: low {low:g} has no logarithm; with log: true it must be above 0.")


def _check_cell(cell: Cell, where: str) -> None:
    at = f"{where}: {cell.name}"
    if cell.row.warmup_epochs >= cell.num_epochs:
        raise StudyError(
            f"{at}: schedule.{cell.schedule_name}.warmup_epochs is {cell.row.warmup_epochs:g}, which leaves "
            f"nothing of the {cell.num_epochs} epochs of {cell.dataset}; make it shorter or num_epochs more."
        )
    try:
        settings = cell.settings()
        schedule = settings["schedule"]
        make_schedule(
            schedule["function"],
            cell.num_epochs,
            warmup_epochs=schedule["warmup_epochs"],
            granularity=schedule["granularity"],
            **schedule["parameters"],
        )
        check_options(cell.optimizer.name, cell.optimizer.options)
        make_controller(cell.controller.name, num_epochs=cell.num_epochs, **cell.controller.options)
    except StudyError as error:
        raise StudyError(f"{at}: {error}") from None
    if "base_lr" not in cell.optimizer.search:
        raise StudyError(
            f"{at}: optimizer.search has no base_lr; every schedule tunes it, so add "
            "`search: {base_lr: {low: ..., high: ..., log: true}}`."
        )
    for name, search in cell.optimizer.search.items():
        if name != "base_lr":
            raise unknown(f"{at}: optimizer.search", name, ["base_lr"], "searched")
        _check_search(f"{at}: optimizer.search.base_lr", search)
    try:
        cell.search_space()
    except StudyError as error:
        raise StudyError(f"{at}: {error}") from None
