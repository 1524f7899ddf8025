"""A cell is one model x schedule: what config says of it, joined, checked and ready to train or search."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lrstudy.controllers import METRICS, make_controller
from lrstudy.errors import StudyError, unknown
from lrstudy.recipe.conf import told_file
from lrstudy.recipe.config import (
    Choices,
    ControllerParams,
    FloatRange,
    ModelParams,
    OptimizerParams,
    Params,
    PerModel,
    ScheduleRow,
)
from lrstudy.recipe.networks import check_kind, check_sizes
from lrstudy.recipe.optimizers import check_options
from lrstudy.schedules import (
    LEAST_MOVEMENT,
    forms_of,
    make_schedule,
    moves,
    multiplier_range,
    parameters_of,
    replace_parameters,
    resolve_parameters,
)
from lrstudy.words import counted


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
    precision: str

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

        ``tuned`` maps ``base_lr`` and schedule parameters to found values; the rest keeps the defaults. A
        found value replaces what the row says in either form: ``final_factor`` a ``decay_rate`` of the row.
        """
        tuned = dict(tuned or {})
        base_lr = tuned.pop("base_lr", self.optimizer.base_lr)
        return {
            "dataset": self.dataset,
            "model": {
                "architecture": self.model.architecture,
                **check_sizes(f"model.{self.model_name}", self.model.architecture, self.model.options),
            },
            "batch_size": self.batch_size,
            "precision": self.precision,
            "num_epochs": self.num_epochs,
            "optimizer": {"name": self.optimizer.name, "base_lr": base_lr, **self.optimizer.options},
            "schedule": {
                "function": self.function,
                "warmup_epochs": self.row.warmup_epochs,
                "granularity": self.row.granularity,
                "parameters": self.parameters(tuned),
            },
            "controller": {"name": self.controller.name, **self.controller.options},
        }

    def parameters(self, tuned: dict | None = None) -> dict:
        """All parameters of the schedule, in both forms, with ``tuned`` in place of the row's defaults."""
        tuned = {name: value for name, value in (tuned or {}).items() if name != "base_lr"}
        available = self.num_epochs - self.row.warmup_epochs
        defaults = resolve_parameters(self.function, available, **self.row.options)
        # Through its other form a default would come back changed in the last digit: another training.
        if all(name in defaults and defaults[name] == value for name, value in tuned.items()):
            return defaults
        given = replace_parameters(self.function, self.row.options, tuned)
        return resolve_parameters(self.function, available, **given)

    def moves(self, tuned: dict | None = None, steps_per_epoch: int = 100) -> bool:
        """Whether the schedule with these values moves the rate: :func:`lrstudy.schedules.moves`.

        What a search draws and does not move is not a trial of a dynamic schedule; `static` never moves.
        """
        return moves(steps_per_epoch=steps_per_epoch, **self._schedule(tuned))

    def _schedule(self, tuned: dict | None = None) -> dict:
        """The arguments of :func:`lrstudy.schedules.make_schedule`."""
        schedule = self.settings(tuned)["schedule"]
        return {
            "name": schedule["function"],
            "num_epochs": self.num_epochs,
            "warmup_epochs": schedule["warmup_epochs"],
            "granularity": schedule["granularity"],
            **schedule["parameters"],
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

    The length is the model's own, else that of its data set. A row's optimizer and controller come before the
    model's and before those for all.

    Raises:
        StudyError: an unknown model or schedule, one that the model has not, parameters that don't fit the
            schedule's function, the optimizer or the controller, or a schedule other than static that does
            not move the rate.
    """
    if model not in params.model:
        raise unknown("params.yaml: model", model, params.model, "a model of this study")
    if schedule not in params.schedule:
        raise unknown("params.yaml: schedule", schedule, params.schedule, "a schedule of this study")
    settings, row = params.model[model], params.schedule[schedule]
    if settings.schedules is not None and schedule not in settings.schedules:
        raise unknown(f"params.yaml: model.{model}.schedules", schedule, settings.schedules, "one of them")
    optimizer = settings.optimizer if isinstance(params.optimizer, PerModel) else params.optimizer
    if row.optimizer is not None:
        if settings.optimizer.name not in row.optimizer:
            raise StudyError(
                f"params.yaml: schedule.{schedule}.optimizer: found {', '.join(row.optimizer) or 'nothing'}; "
                f"the model '{model}' has {settings.optimizer.name}, so add what replaces it."
            )
        optimizer = row.optimizer[settings.optimizer.name]
    controller = row.controller or params.controller
    if isinstance(controller, str):
        controller = ControllerParams(name=controller)
    num_epochs, batch_size = num_epochs_of(params, model), params.of_dataset("batch_size", settings.dataset)
    cell = Cell(
        model, schedule, settings, row, optimizer, controller, num_epochs, batch_size, params.train.precision
    )
    where = f"params.yaml: model.{model}"
    kind = params.dataset_named(settings.dataset).kind
    with told_file("model", model), _told_where(where):
        check_sizes(where, settings.architecture, settings.options, beside=tuple(ModelParams.model_fields))
        check_kind(where, settings.architecture, settings.dataset, kind)
    with told_file("schedule", schedule):
        _check_row(schedule, row, "params.yaml")
        _check_schedule(cell, "params.yaml")
    of_the_row = ("schedule", schedule)
    of_the_model = (
        ("model", model) if isinstance(params.optimizer, PerModel) else ("optimizer", optimizer.name)
    )
    with told_file(*(of_the_model if row.optimizer is None else of_the_row)):
        _check_optimizer(cell, "params.yaml")
    with told_file(*(of_the_row if row.controller else ("controller", controller.name))):
        _check_controller(cell, "params.yaml")
    with told_file(*of_the_row), _told_where(f"params.yaml: {cell.name}"):
        cell.search_space()
    return cell


def searching_cell(params: Params, cell: Cell) -> Cell:
    """The cell whose search finds this one's values: itself, or that of the row which it is ``tuned_as``."""
    return cell if cell.model.tuned_as is None else make_cell(params, cell.model.tuned_as, cell.schedule_name)


def stretched(values: dict, of: Cell, to: Cell) -> dict:
    """Values that the search of a cell found, as a cell of another length takes them: in their relative form.

    A decay rate per epoch becomes the factor that is left in the end, an interval in epochs a share of the
    training; ``base_lr`` and what is no time stay. For the same length nothing changes, to the last digit.
    What was not searched is what the row says, a warmup in epochs included.
    """
    if of.num_epochs == to.num_epochs:
        return dict(values)
    parameters, relative = of.parameters(values), forms_of(of.function)
    return {
        relative.get(name, name): parameters[relative[name]] if name in relative else value
        for name, value in values.items()
    }


def num_epochs_of(params: Params, model: str) -> int:
    """How long a model of the study is trained: its row's own number of epochs, else its data set's."""
    return params.model[model].num_epochs or params.of_dataset("num_epochs", params.model[model].dataset)


def default_values(cell: Cell) -> dict:
    """What the config says of each searched value, unset ones resolved to numbers."""
    settings = cell.settings()
    known = {"base_lr": settings["optimizer"]["base_lr"], **settings["schedule"]["parameters"]}
    return {name: known[name] for name in cell.search_space()}


def _check_row(name: str, row: ScheduleRow, where: str) -> None:
    function = row.function or name
    at, reserved = f"{where}: schedule.{name}", list(ScheduleRow.model_fields)
    try:
        allowed = parameters_of(function)
    except StudyError as error:
        if row.function is None and (meant := difflib.get_close_matches("function", row.options)):
            raise unknown(at, meant[0], reserved, "a known key") from None
        raise StudyError(f"{at}: {error}") from None
    for key in row.options:
        if key not in allowed:
            raise unknown(f"{at}", key, [*allowed, *reserved], f"a parameter of '{function}'")
    for key, search in row.search.items():
        if key not in allowed:
            raise unknown(f"{at}.search", key, allowed, f"a parameter of '{function}'")
        _check_search(f"{at}.search.{key}", search)
    for in_epochs, relative in forms_of(function).items():
        if in_epochs in row.search and relative in row.search:
            raise StudyError(
                f"{at}.search: {relative} and {in_epochs} are two forms of one value; search one of them."
            )


def _check_search(at: str, search: FloatRange | Choices) -> None:
    if isinstance(search, Choices):
        return
    low, high = search.low, search.high
    if isinstance(low, float) and isinstance(high, float) and low > high:
        raise StudyError(f"{at}: low {low:g} is above high {high:g}; exchange them.")
    if search.log and isinstance(low, float) and low <= 0:
        raise StudyError(f"{at}: low {low:g} has no logarithm; with log: true it must be above 0.")


@contextmanager
def _told_where(at: str) -> Iterator[None]:
    """Has errors of the block begin with the place."""
    try:
        yield
    except StudyError as error:
        raise error if str(error).startswith(at) else StudyError(f"{at}: {error}") from None


def _check_schedule(cell: Cell, where: str) -> None:
    at = f"{where}: {cell.name}"
    if cell.row.warmup_epochs >= cell.num_epochs:
        raise StudyError(
            f"{at}: schedule.{cell.schedule_name}.warmup_epochs is {cell.row.warmup_epochs:g}, which leaves "
            f"nothing of the {counted(cell.num_epochs, 'epoch')} of {cell.dataset}; make it shorter or "
            "num_epochs more."
        )
    with _told_where(at):
        make_schedule(**cell._schedule())
    if cell.function != "static" and not cell.moves():
        raise StudyError(f"{at}: {_why_static(cell)}")


def _check_optimizer(cell: Cell, where: str) -> None:
    at = f"{where}: {cell.name}"
    with _told_where(at):
        check_options(cell.optimizer.name, cell.optimizer.options)
    if "base_lr" not in cell.optimizer.search:
        raise StudyError(
            f"{at}: optimizer.search has no base_lr; every schedule tunes it, so add "
            "`search: {base_lr: {low: ..., high: ..., log: true}}`."
        )
    for name, search in cell.optimizer.search.items():
        if name != "base_lr":
            raise unknown(f"{at}: optimizer.search", name, ["base_lr"], "searched")
        _check_search(f"{at}: optimizer.search.base_lr", search)


def _check_controller(cell: Cell, where: str) -> None:
    with _told_where(f"{where}: {cell.name}"):
        controller = make_controller(
            cell.controller.name, num_epochs=cell.num_epochs, **cell.controller.options
        )
        for name in controller.watches:
            if name not in METRICS:
                raise unknown(
                    f"controller {cell.controller.name}: watch",
                    name,
                    METRICS,
                    "a metric of the study's trainings",
                )


def _why_static(cell: Cell) -> str:
    """Why a row is not dynamic, and what to change."""
    schedule = cell._schedule()
    reached = multiplier_range(**schedule)
    if reached is None:
        how = "the warmup and granularity: epoch leave it no update"
    elif reached[0] == reached[1]:
        how = f"its multiplier is {reached[0]:.4g} at every update"
    else:
        how = f"its multiplier lies between {reached[0]:.4g} and {reached[1]:.4g}"
    set_to = ", ".join(f"{name} {schedule[name]}" for name in parameters_of(cell.function))
    finer = ", or granularity: step" if cell.row.granularity == "epoch" else ""
    return (
        f"schedule.{cell.schedule_name} is not dynamic: over the {counted(cell.num_epochs, 'epoch')} of "
        f"{cell.dataset} {how} ({set_to}), and a schedule moves by {LEAST_MOVEMENT:g} of its largest "
        f"multiplier or more. Choose other parameters{finer}, or leave the row out: static stands for a "
        "constant rate."
    )
