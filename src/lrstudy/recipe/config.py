"""params.yaml, read once and checked strictly: the one place that knows the study's knobs.

An unknown key, a wrong type or a value out of range is one :class:`StudyError` that says what is allowed.
What a schedule, an optimizer, a controller or a network accepts is checked in :mod:`lrstudy.recipe.cells`, so
that an edit of theirs does not make the data stages stale.
"""

import difflib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, ClassVar, Literal, TypedDict, TypeGuard, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

try:  # libyaml's parser takes a fifth of the time, and a large study has thousands of lines
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML was built without it
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

from lrstudy.errors import StudyError, unknown
from lrstudy.recipe.conf import file_of, told_file, with_file
from lrstudy.recipe.dataset import Dataset

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[list[Seed], Field(min_length=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


MAX_BYTES = 1 << 20  # of params.yaml; all of conf/ together has 30 KB, and a thousand cells 300 KB
_WRITTEN = "`make params` writes it from conf/"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _OpenSection(BaseModel):
    """A section whose further keys are checked by the module that they belong to."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    @property
    def options(self) -> dict:
        """The keys that this section does not name itself."""
        return dict(self.model_extra or {})


class DataParams(_Section):
    """Where the data comes from and how it is cut."""

    source: Literal["hub", "archive", "sample"]
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]
    split_seed: Annotated[int, Field(ge=0)]
    limit: Annotated[int, Field(ge=20)] | None
    vocab_size: Annotated[int, Field(ge=10, le=65_536)]
    max_length: Annotated[int, Field(ge=1)]


class TrainParams(_Section):
    """What all trainings share."""

    seeds: Seeds
    threads: Count
    device: Literal["auto", "cpu", "cuda", "mps"]
    augment: Literal["none", "crop_flip"]
    gradient_clip: PositiveFloat | None
    precision: Literal["auto", "float32", "bfloat16"]
    compile: bool


class TuneParams(_Section):
    """How much is searched, the same for every cell."""

    num_trials: Annotated[int, Field(ge=0)]
    num_quasi_random: Count
    seeds: Seeds
    finalists: Count
    confirm_seeds: list[Seed]
    searches: Count
    batch_size: Count
    sampler_seed: Annotated[int, Field(ge=0)]


class CompareParams(_Section):
    """How cells are compared."""

    reference: str
    looks: list[Count]
    targets: dict[str, Annotated[float, Field(gt=0, lt=1)]]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    num_resamples: Annotated[int, Field(ge=100)]
    across_dtypes: bool

    @field_validator("looks")
    @classmethod
    def _later_and_later(cls, looks: list[int]) -> list[int]:
        if any(low >= high for low, high in itertools.pairwise(looks)):
            raise ValueError("the numbers of seeds at which the study looks must grow")
        return looks


class FloatRange(_Section):
    """Uniform in [low, high], or in the logarithm with ``log``; whole numbers with ``int``."""

    low: FiniteFloat | Literal["num_epochs"]
    high: FiniteFloat | Literal["num_epochs"]
    log: bool = False
    int_: bool = Field(False, alias="int")

    @property
    def bounds(self) -> tuple[float, float]:
        """``low`` and ``high`` as numbers: of a range in which a cell's length stands for ``num_epochs``."""
        if self.low == "num_epochs" or self.high == "num_epochs":
            raise ValueError("num_epochs stands for no number here; take Cell.search_space()")
        return self.low, self.high


class Choices(_Section):
    """One of a list."""

    choices: Annotated[list[str | int | float | bool], Field(min_length=1)]


Search = dict[str, FloatRange | Choices]


class OptimizerParams(_OpenSection):
    """An optimizer by name, its base rate, its options and where to search them."""

    name: str
    base_lr: PositiveFloat
    search: Search


class TimingParams(_Section):
    """How many updates of every row are timed, and which optimizers beside the study's own."""

    rounds: Annotated[int, Field(ge=2, multiple_of=2)]
    updates: Count
    optimizers: dict[str, OptimizerParams]


class ModelParams(_OpenSection):
    """A row of networks: what it trains on and with, and the network by name with its sizes."""

    architecture: str
    dataset: str
    optimizer: OptimizerParams
    num_epochs: Count | None = None  # None: num_epochs.<dataset>
    tuned_as: str | None = None  # the row whose search finds this one's values
    schedules: Annotated[list[str], Field(min_length=1)] | None = None  # None: all of the study

    @property
    def network(self) -> dict:
        """What it computes: no optimizer, no data set, and nothing of what the row is in the study."""
        return {"architecture": self.architecture, **self.options}


class ScheduleRow(_OpenSection):
    """A row of the study: a schedule's function, its parameters, and what goes with it.

    ``optimizer``: by the name of a model's own optimizer, the one that replaces it in this row.
    """

    function: str | None = None
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    granularity: Literal["step", "epoch"] = "step"
    controller: "str | ControllerParams | None" = None
    optimizer: dict[str, OptimizerParams] | None = None
    search: Search = {}


class ControllerParams(_OpenSection):
    """A closed-loop factor by name and its parameters."""

    name: str


ScheduleRow.model_rebuild()  # it names the class above


class Cluster(TypedDict):
    """What a task takes of a machine of a Ray cluster, and how often it runs again."""

    num_cpus: float | None  # None: as many as its threads
    num_gpus: float
    memory_gib: float
    max_retries: int


class LocalParams(_Section):
    """Trainings run in worker processes of this machine."""

    backend: Literal["local"]
    cluster: ClassVar[None] = None


class RayParams(_Section):
    """Trainings run on a Ray cluster; what each takes of a machine."""

    backend: Literal["ray"]
    num_cpus: PositiveFloat | None
    num_gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    memory_gib: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    max_retries: Annotated[int, Field(ge=0)]

    @field_validator("num_cpus", "num_gpus")
    @classmethod
    def _whole_above_one(cls, amount: float | None) -> float | None:
        if amount is not None and amount > 1 and amount % 1:
            raise ValueError("above 1 it must be a whole number")
        return amount

    @property
    def cluster(self) -> Cluster:
        """The resources, as :func:`lrstudy.process.parallel.run_all` takes them."""
        return Cluster(
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            memory_gib=self.memory_gib,
            max_retries=self.max_retries,
        )


ParallelParams = Annotated[LocalParams | RayParams, Field(discriminator="backend")]


class ToyParams(_Section):
    """The toy model of late decay."""

    powers: Annotated[list[Annotated[float, Field(ge=0, le=4)]], Field(min_length=1)]
    num_seeds: Count
    num_examples: Count
    dimension: Count
    initial_norm: PositiveFloat
    base_lr: PositiveFloat
    decay_factor: Annotated[float, Field(ge=0, le=1)]
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    num_steps: Annotated[int, Field(ge=100)]
    decay_shares: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2)]

    @model_validator(mode="after")
    def _can_interpolate(self) -> "ToyParams":
        if self.num_examples >= self.dimension:
            raise ValueError(
                f"num_examples {self.num_examples} is not below dimension {self.dimension}; with as many "
                "examples as weights there is no manifold of minima"
            )
        if any(low >= high for low, high in itertools.pairwise(self.decay_shares)):
            raise ValueError("decay_shares must grow")
        return self


class LateDecayParams(_Section):
    """A trunk at a constant rate, branches that decay, the landscape around them."""

    models: list[str]
    num_epochs: dict[str, Annotated[int, Field(ge=2)]]
    branch_epochs: dict[str, Annotated[list[Count], Field(min_length=1)]]
    shape: Literal["step", "linear", "cosine", "exponential"]
    min_factor: Annotated[float, Field(gt=0, le=1)]
    num_examples: Count
    resolution: Annotated[int, Field(ge=2)]
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    hessian_examples: Count
    num_iterations: Count
    num_samples: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _branches_lie_within(self) -> "LateDecayParams":
        for dataset, epochs in self.branch_epochs.items():
            if dataset not in self.num_epochs:
                raise ValueError(f"branch_epochs has {dataset} and num_epochs has not; give both")
            if epochs[-1] >= self.num_epochs[dataset]:
                raise ValueError(
                    f"branch_epochs.{dataset} ends with {epochs[-1]}, and the trunk has "
                    f"{self.num_epochs[dataset]} epochs; the last branch must leave before the end"
                )
            if any(low >= high for low, high in itertools.pairwise(epochs)):
                raise ValueError(f"branch_epochs.{dataset} must grow")
        return self


class LevelSetsParams(_Section):
    """Solutions of several schedules, paths between them, level sets in a plane."""

    models: list[str]
    rows: Annotated[dict[str, ScheduleRow], Field(min_length=1)]
    num_examples: Count
    num_batches: Count
    num_points: Annotated[int, Field(ge=3)]
    num_curve_steps: Count
    curve_lr: PositiveFloat
    curve_batch_size: Annotated[int, Field(ge=2)]
    resolution: Annotated[int, Field(ge=2)]
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    num_levels: Count


class TheoryParams(_Section):
    """The experiments behind claims about why schedules work."""

    seeds: Seeds
    toy: ToyParams
    late_decay: LateDecayParams
    level_sets: LevelSetsParams


class CellParams(_Section):
    """One model x schedule as the DAG lists it."""

    model: str
    schedule: str
    dataset: str
    tuned: str  # <model>/<schedule> of the search that finds its values
    num_epochs: str  # the key of params.yaml that has its length
    batch_size: str  # ... and the one that has its batch size


class PerModel(_Section):
    """Each model trains with the optimizer of its own section."""

    name: Literal["per_model"]


class Params(_Section):
    """The whole of params.yaml."""

    preset: str
    data: DataParams
    model: dict[str, ModelParams]
    schedule: dict[str, ScheduleRow]
    optimizer: PerModel | OptimizerParams
    controller: ControllerParams
    num_epochs: dict[str, Count]  # by data set; "others": of those that are not named
    batch_size: dict[str, Count]
    train: TrainParams
    tune: TuneParams
    compare: CompareParams
    timing: TimingParams
    theory: TheoryParams
    parallel: ParallelParams
    cells: dict[str, CellParams]
    searches: dict[str, CellParams]  # of the cells those that search for their own values
    timed: dict[str, CellParams]  # by model a cell of it, where the model searches for its own values
    datasets: list[str]
    outside: list[str]  # packages and modules in the repository's root whose code is named
    dataset: dict[str, Dataset]  # what the conf files of these say
    known_datasets: list[str]  # all that have a conf file

    @property
    def workers(self) -> tuple[int, str, Cluster | None]:
        """Where trainings run, for :mod:`lrstudy.process.parallel`: threads, device, what of a cluster."""
        return self.train.threads, self.train.device, self.parallel.cluster

    def dataset_named(self, name: str) -> Dataset:
        """What the conf file of one of the study's data sets says.

        Raises:
            StudyError: no model of the study is trained on it.
        """
        if name not in self.dataset:
            raise unknown("dataset", name, self.dataset, "a data set of the study's models")
        return self.dataset[name]

    def of_dataset(self, section: Literal["num_epochs", "batch_size"], name: str) -> int:
        """A data set's number of epochs or batch size: the preset's for it or all others, else its own."""
        values = getattr(self, section)
        return values.get(name) or values.get("others") or getattr(self.dataset_named(name), section)


def load_params(path: str | Path = "params.yaml", *, where: str | None = None) -> Params:
    """Read and check ``path``; ``where`` names it in errors about what it says.

    Raises:
        StudyError: the file is missing or not YAML, a key is unknown, a value has the wrong type or is out
            of range.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise StudyError(f"{path}: not found. Run in the repository's root; {_WRITTEN}.") from None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); {_WRITTEN}.") from None
    if len(text) > MAX_BYTES:
        raise StudyError(f"{path}: more than {MAX_BYTES:,} bytes; {_WRITTEN}.")
    try:
        content = yaml.load(text.decode("utf-8"), Loader=_StrictLoader)
    except Exception as error:  # a tag whose value does not fit raises whatever its constructor does
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise StudyError(f"{path}{line}: not readable as YAML ({_first_line(error)}); {_WRITTEN}.") from None
    if not isinstance(content, dict):
        raise StudyError(f"{path}: found {type(content).__name__}, not a mapping of sections; {_WRITTEN}.")
    return check_params(content, where or str(path))


def check_params(content: dict, where: str = "params.yaml") -> Params:
    """Check a composed configuration; ``where`` names it in errors."""
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise StudyError(_explain(error, content, where)) from None
    # Folders, stages, runs and tables are called by these names.
    names: dict[str, Iterable[str]] = {
        "model": params.model,
        "schedule": params.schedule,
        "dataset": params.dataset,
        "preset": [params.preset],
    }
    for section, chosen in (names | {"compare.reference": [params.compare.reference]}).items():
        for name in chosen:
            if not re.fullmatch(r"[A-Za-z0-9_]+", name):
                raise StudyError(
                    f"{where}: {section}: {name!r} is not a name; use letters, digits and underscores alone."
                )
    for name, cell in params.cells.items():
        if cell.dataset not in params.dataset:
            raise unknown(f"{where}: cells.{name}.dataset", cell.dataset, params.dataset, "a data set")
    late_decay, others = params.theory.late_decay, ["others"]
    for section, named, more in (
        ("num_epochs", params.num_epochs, others),
        ("batch_size", params.batch_size, others),
        ("theory.late_decay.num_epochs", late_decay.num_epochs, []),
    ):
        for name in named:
            if name not in [*params.known_datasets, *more]:
                refused = unknown(f"{where}: {section}", name, [*params.known_datasets, *more], "a data set")
                raise StudyError(with_file(str(refused), file_of([*section.split("."), name], content)))
    _check_theory(params, where)
    for name in params.compare.targets:
        if name not in params.model:
            raise unknown(f"{where}: compare.targets", name, params.model, "a model of the study")
    for section in ("train", "theory"):
        for name in ("seeds", "confirm_seeds"):
            overlap = sorted(set(getattr(params, section).seeds) & set(getattr(params.tune, name)))
            if overlap:
                raise StudyError(
                    f"{where}: tune.{name} and {section}.seeds share {overlap}; tuning must not see the "
                    "final runs' seeds, choose others."
                )
    if overlap := sorted(set(params.tune.seeds) & set(params.tune.confirm_seeds)):
        raise StudyError(
            f"{where}: tune.seeds and tune.confirm_seeds share {overlap}; a training that is repeated "
            "confirms nothing, choose others."
        )
    if isinstance(params.parallel, RayParams):
        device, num_gpus = params.train.device, params.parallel.num_gpus
        if (device == "cuda" and num_gpus == 0) or (device == "cpu" and num_gpus > 0):
            raise StudyError(
                f"{where}: train.device is {device} and parallel.num_gpus is {num_gpus:g}; a training on "
                "CUDA needs a share of a GPU, one on the CPU must not hold one."
            )
    listed = {f"{section}.seeds": getattr(params, section).seeds for section in ("train", "tune", "theory")}
    for name, seeds in (listed | {"tune.confirm_seeds": params.tune.confirm_seeds}).items():
        if len(set(seeds)) != len(seeds):
            raise StudyError(f"{where}: {name} has a seed twice in {seeds}; each may stand once.")
    if not params.cells:
        raise StudyError(
            f"{where}: no cell: of the schedules {', '.join(params.schedule)} the models "
            f"{', '.join(params.model)} run none (model.<name>.schedules); choose others."
        )
    for name, model in params.model.items():
        if model.tuned_as is not None:
            with told_file("model", name):
                _check_tuned_as(name, model, model.tuned_as, params, where)
    return params


def _check_theory(params: Params, where: str) -> None:
    """Refuse a model for whose data set the theory's experiments have no lengths or not its metric."""
    late_decay = params.theory.late_decay
    asked = {"late_decay": late_decay.models, "level_sets": params.theory.level_sets.models}
    for section, models in asked.items():
        for name in [name for name in models if name in params.model]:
            dataset = params.model[name].dataset
            lengths = late_decay.num_epochs.keys() & late_decay.branch_epochs.keys()
            if section == "late_decay" and dataset not in lengths:
                raise StudyError(
                    f"{where}: theory.late_decay.num_epochs and branch_epochs have nothing for {dataset}, "
                    f"the data set of {name}; add it to both, or choose -S theory=none."
                )
            if params.dataset_named(dataset).headline == "balanced_accuracy":
                raise StudyError(
                    f"{where}: theory.{section}.models: {name} is judged by balanced accuracy, which the "
                    "theory's experiments do not measure; choose -S theory=none, or another headline in "
                    f"conf/dataset/{dataset}.yaml."
                )


def _check_tuned_as(name: str, model: ModelParams, base: str, params: Params, where: str) -> None:
    """Refuse a row whose values no other row's search can find: that must be the same but for the length."""
    at = f"{where}: model.{name}.tuned_as"
    if base not in params.model:
        raise StudyError(
            f"{at}: '{base}' is not among the models of this study ({', '.join(params.model)}), so nothing "
            f"finds the values of {name}; add it: -S 'model=[{','.join([base, *params.model])}]'."
        )
    base_row = params.model[base]
    if base_row.tuned_as is not None:
        raise StudyError(
            f"{at}: {base} has no search of its own but takes the values of {base_row.tuned_as}; name a row "
            "without tuned_as."
        )
    mine, other = (
        {"dataset": one.dataset, **one.network, "optimizer": one.optimizer.model_dump()}
        for one in (model, base_row)
    )
    for key in mine | other:
        if key not in other and difflib.get_close_matches(key, ModelParams.model_fields):
            known = [*ModelParams.model_fields, *base_row.options]
            raise unknown(f"{where}: model.{name}", key, known, "a known key")
        if mine.get(key) != other.get(key):
            raise StudyError(
                f"{at}: {key} is {_short(mine.get(key))}, and that of {base} {_short(other.get(key))}; "
                "values are taken for the same data set, network and optimizer alone: change both, or leave "
                "tuned_as out."
            )
    for cell in params.cells.values():
        if cell.model == name and f"{base}-{cell.schedule}" not in params.searches:
            raise StudyError(
                f"{at}: {name} has the schedule {cell.schedule} and {base} has not, so nothing finds its "
                f"values; add it to model.{base}.schedules, or leave it out of model.{name}.schedules."
            )


def workspace_root() -> Path:
    """The folder that holds databases and checkpoints: the real workspace, also in a temporary experiment.

    ``DVC_ROOT`` names it when DVC runs the stage (source: DVC's documentation of ``dvc exp run``).
    """
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


class _StrictLoader(yaml.composer.Composer, _Loader):
    """YAML without aliases, which can stand for any amount of content, and without keys that stand twice."""

    def __init__(self, stream):
        _Loader.__init__(self, stream)
        yaml.composer.Composer.__init__(self)

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            mark = self.get_event().start_mark  # type: ignore[union-attr]  # an event has just been seen
            raise yaml.composer.ComposerError(None, None, "an alias (*name) is not allowed", mark)  # type: ignore[arg-type]  # libyaml's mark says the same
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        mapping = super().construct_mapping(node, deep)
        if isinstance(node, yaml.MappingNode) and len(mapping) < len(node.value):
            seen = set()
            for key, _ in node.value:
                name = self.construct_object(key, deep=True)
                if name in seen:
                    problem = f"the key {name!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(name)
        return mapping


# 1e-05 is a number in YAML 1.2, in JSON and to whoever writes it; PyYAML knows it with a point alone.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _first_line(error: Exception) -> str:
    lines = str(getattr(error, "problem", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__


def _explain(error: ValidationError, content: dict, where: str) -> str:
    """One problem as one sentence: where, what was found, what is allowed.

    A key that nobody knows comes first: it may be what is missing elsewhere.
    """
    problems = _of_the_nearest([_Problem.of(dict(found)) for found in error.errors()])
    for problem in problems:
        if key := problem.unknown_key():
            *section, _ = problem.path if problem.kind == "extra_forbidden" else (*problem.path[:-1], key)
            at = ": ".join([where, *([".".join(section)] if section else [])])
            said = str(unknown(at, key[:100], problem.allowed, "a known key"))
            return with_file(said, file_of([*section, key], content))
    problem = problems[0]
    path = ".".join(name if name.isprintable() else repr(name) for name in problem.path)
    if problem.kind == "missing":
        said = f"{where}: {path} is missing; every key of conf/ is required, `make params` composes them."
    elif isinstance(problem.found, dict | list) and problem.kind == "value_error":
        said = f"{where}: {path}: {problem.message}."
    else:
        message = problem.message[:1].lower() + problem.message[1:]
        said = f"{where}: {path}: found {_short(problem.found)}; {message}."
    return with_file(said, file_of(problem.path, content))


@dataclass(frozen=True)
class _Problem:
    """What pydantic says of one place.

    Attributes:
        path: the keys that lead there.
        tags: by the place where a section may be one of several kinds, the kind that it was taken for.
        allowed: the keys that the section may have in which the place lies.
    """

    kind: str
    message: str
    found: object
    path: tuple[str, ...]
    tags: dict[tuple[str, ...], str]
    allowed: tuple[str, ...]

    @classmethod
    def of(cls, problem: dict) -> "_Problem":
        path: tuple[str, ...] = ()
        tags: dict[tuple[str, ...], str] = {}
        around: list = []
        kinds: list = [Params]
        for part in problem["loc"]:
            inner = [found for kind in kinds for found in _inside(kind, part)]
            chosen = [kind for kind in kinds if len(kinds) > 1 and part in _names_of(kind)]
            if chosen:
                tags[path], kinds = part, chosen
            else:
                path, around, kinds = (*path, str(part)), kinds, inner
        kind = problem["type"]
        if kind == "union_tag_not_found":  # the key that says which of several kinds it is
            kind, around, path = "missing", kinds, (*path, problem["ctx"]["discriminator"].strip("'"))
        allowed = tuple(
            field.alias or name
            for kind in around
            if _is_section(kind)
            for name, field in kind.model_fields.items()
        )
        message = problem["msg"].removeprefix("Value error, ")
        return cls(kind, message, problem.get("input"), path, tags, tuple(dict.fromkeys(allowed)))

    def unknown_key(self) -> str | None:
        """The key that is not known: this one; or where this one is missing, one that is almost it."""
        if self.kind == "extra_forbidden":
            return self.path[-1]
        if self.kind == "missing" and isinstance(self.found, dict):
            others = [key for key in self.found if isinstance(key, str) and key not in self.allowed]
            return next(iter(difflib.get_close_matches(self.path[-1], others, n=1)), None)
        return None


def _of_the_nearest(problems: list[_Problem]) -> list[_Problem]:
    """Those of the kind that a section is most like, where it may be one of several: that with the fewest."""
    places = {place for problem in problems for place in problem.tags}
    for place in sorted(places, key=len, reverse=True):
        counts = Counter(problem.tags[place] for problem in problems if place in problem.tags)
        nearest = min(counts, key=lambda tag: (counts[tag], tag in _PLAIN))
        problems = [problem for problem in problems if problem.tags.get(place, nearest) == nearest]
    return problems


_PLAIN = {"float", "str", "literal['num_epochs']"}  # kinds that are no sections


def _is_section(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kinds(annotation: object) -> list:
    """The kinds of value that an annotation allows."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for one in get_args(annotation) for kind in _kinds(one)]
    return [annotation]


def _inside(kind: object, part: str | int) -> list:
    """The kinds of value that a section, mapping or list of this kind may have at ``part``."""
    if _is_section(kind):
        fields = {field.alias or name: field for name, field in kind.model_fields.items()}
        return _kinds(fields[part].annotation) if part in fields else []
    inner = get_args(kind) if get_origin(kind) in (dict, list) else ()
    return _kinds(inner[-1]) if inner else []


def _names_of(kind: object) -> tuple[str, ...]:
    """What pydantic calls this kind in the place of a problem, where there are several."""
    if get_origin(kind) is Literal:
        return (f"literal[{','.join(map(repr, get_args(kind)))}]",)
    tags = (
        value
        for field in (kind.model_fields.values() if _is_section(kind) else ())
        if get_origin(field.annotation) is Literal
        for value in get_args(field.annotation)
    )
    return (getattr(kind, "__name__", ""), *tags)


def _short(found: object) -> str:
    text = repr(found)
    return text if len(text) <= 100 else f"{text[:97]}..."
