"""What a parameter may be: its default, range, unit and meaning, said once.

A schedule's, a controller's, an optimizer's and a network's parameters are said in these words. From them
come the check, the sentence of its error and the tables of the documentation:

>>> gamma = Number(0.1, "what each drop multiplies the rate by", "factor", gt=0, le=1)
>>> gamma.allowed("gamma")
'0 < gamma <= 1'
>>> gamma.check("schedule step", "gamma", 1.5)
Traceback (most recent call last):
    ...
lrstudy.errors.StudyError: schedule step: gamma is 1.5; allowed: 0 < gamma <= 1 (what each drop ..., factor).

A network says them in its signature, ``width: Annotated[int, Number(ge=8, whole=True)]``; ``Count`` and
``Probability`` are such annotations. Needs nothing but Python.
"""

import itertools
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeGuard

from lrstudy.errors import StudyError, unknown

# What is derived from other numbers is rounded: in binary 0.1 * 30 lies above 3.
_TOLERANCE = 1e-9


class _Word:
    """A default that is none."""

    def __init__(self, said: str):
        self.said = said

    def __repr__(self) -> str:
        return self.said


REQUIRED = _Word("required")
"""In place of a default: the value must be given."""

UNREAD = _Word("the code's own")
"""In place of a default: there is one, and it is no plain value; it holds where no other is given."""


@dataclass(frozen=True)
class Number:
    """A real parameter, its unit and its range; bounds are named as in pydantic (``le`` may be num_epochs).

    ``whole`` numbers may be counted in ``step`` from ``ge`` on. Where ``default`` is None,
    ``derive(num_epochs, other_values)`` supplies the value, as ``derived`` says. ``form_of`` names the
    parameter that says the same relative to the length of the training.
    """

    default: Any = REQUIRED
    about: str = ""
    unit: str = "number"
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | Literal["num_epochs"] | None = None
    whole: bool = False
    step: int | None = None
    derive: Callable[[float, dict], float | None] | None = None
    derived: str = ""
    form_of: str | None = None

    def allowed(self, name: str) -> str:
        """The range in words: ``0 < gamma <= 1``."""
        if self.step is not None:
            # step counts from ge, so there is one.
            return f"{name} = {', '.join(f'{self.ge + self.step * n:g}' for n in range(3))}, ..."  # type: ignore[operator]
        low = f"{self.gt:g} < " if self.gt is not None else f"{self.ge:g} <= " if self.ge is not None else ""
        high = self.lt if self.lt is not None else self.le
        sign = "<" if self.lt is not None else "<="
        upper = "" if high is None else f" {sign} {high if isinstance(high, str) else f'{high:g}'}"
        kind = "whole number" if self.whole else "finite number"
        return low + name + upper + (f", a {kind}" if self.whole or not (low or upper) else "")

    def check(self, where: str, name: str, value: object, num_epochs: float = math.inf) -> float:
        """The value as a plain int or float, or an error that says what is allowed."""
        if not is_number(value):
            raise StudyError(
                f"{where}: {name} is {value!r}, not a finite number; allowed: {self._range(name)}."
            )
        le = num_epochs * (1 + _TOLERANCE) if self.le == "num_epochs" else self.le
        if (
            (self.gt is not None and not value > self.gt)
            or (self.ge is not None and not value >= self.ge)
            or (self.lt is not None and not value < self.lt)
            or (le is not None and not value <= le)
            or (self.whole and value != int(value))
            or (self.step is not None and (value - self.ge) % self.step)  # type: ignore[operator]  # as above
        ):
            # A schedule runs over what its warmup leaves; whole epochs are counted from the training's first.
            length = f" = {num_epochs:g}{'' if self.whole else ' without warmup'}"
            length = length if math.isfinite(num_epochs) else ""
            raise StudyError(f"{where}: {name} is {value!r}; allowed: {self._range(name, length)}.")
        return int(value) if self.whole else as_number(value)

    def _range(self, name: str, length: str = "") -> str:
        about = f" ({self.about}, {self.unit})" if self.about else ""
        return f"{self.allowed(name).replace('num_epochs', f'num_epochs{length}')}{about}"


@dataclass(frozen=True)
class Flag:
    """A parameter that is on or off."""

    default: Any = REQUIRED
    about: str = ""
    unit: str = "true or false"
    form_of: None = None

    def allowed(self, name: str) -> str:
        """The two values in words."""
        return "true or false"

    def check(self, where: str, name: str, value: object, num_epochs: float = math.inf) -> bool:
        """The value, or an error that says what is allowed."""
        if not isinstance(value, bool):
            raise StudyError(f"{where}: {name} is {value!r}; allowed: true or false.")
        return value


@dataclass(frozen=True)
class Choice:
    """A parameter that is one of a few words."""

    default: Any
    about: str
    choices: tuple[str, ...]
    unit: str = "name"
    form_of: None = None

    def allowed(self, name: str) -> str:
        """The choices in words."""
        return f"one of {', '.join(self.choices)}"

    def check(self, where: str, name: str, value: object, num_epochs: float = math.inf) -> str:
        """The value, or an error that lists the choices."""
        if value not in self.choices:
            raise unknown(f"{where}: {name}", value, self.choices, "known")
        return str(value)


@dataclass(frozen=True)
class Times:
    """A parameter that is a rising list of times inside the training, as shares of it or in epochs."""

    default: Any
    about: str
    unit: str
    derive: Callable[[float, dict], list[float]]
    derived: str
    end: float | Literal["num_epochs"] = 1
    form_of: str | None = None

    def allowed(self, name: str) -> str:
        """The rule in words."""
        return f"0 < each of {name} < {self.end}, rising"

    def check(self, where: str, name: str, value: Any, num_epochs: float = math.inf) -> list[float]:
        """The value as a list, or an error that states the rule."""
        end = f"num_epochs = {num_epochs:g}" if self.end == "num_epochs" else self.end
        rule = f"allowed: a list of numbers, 0 < each of {name} < {end}, rising"
        try:
            found = None if isinstance(value, str) else list(value)
        except TypeError:
            found = None
        if not found or not all(is_number(time) for time in found):
            raise StudyError(f"{where}: {name} is {value!r}; {rule}.")
        inside = all(0 < time < (num_epochs if self.end == "num_epochs" else self.end) for time in found)
        found = [as_number(time) for time in found]
        if not inside or any(a >= b for a, b in itertools.pairwise(found)):
            raise StudyError(f"{where}: {name} is {found!r}; {rule}.")
        return found


@dataclass(frozen=True)
class Points:
    """A parameter that is a list of [time, value] pairs: the first at 0, times rising, values of 0 or more.

    Times are shares of the training, or epochs where ``end`` is num_epochs.
    """

    default: Any
    about: str
    unit: str
    derive: Callable[[float, dict], list[list[float]]]
    derived: str
    end: float | Literal["num_epochs"] = 1
    form_of: str | None = None

    def allowed(self, name: str) -> str:
        """The rule in words."""
        return f"a list of [time, value]: times from 0 on, rising, at most {self.end}; values of 0 or more"

    def check(self, where: str, name: str, value: Any, num_epochs: float = math.inf) -> list[list[float]]:
        """The value as a list of lists, or an error that states the rule."""
        length = f" = {num_epochs:g}" if self.end == "num_epochs" else ""
        rule = f"allowed: {self.allowed(name).replace('num_epochs', f'num_epochs{length}')}"
        pairs = value if isinstance(value, list | tuple) else ()
        for pair in pairs:
            if (
                not isinstance(pair, list | tuple)
                or len(pair) != 2
                or not all(is_number(number) for number in pair)
            ):
                raise StudyError(f"{where}: {name} has {pair!r}, no [time, value] of two numbers; {rule}.")
        found = [[float(time), float(height)] for time, height in pairs]
        end = num_epochs if self.end == "num_epochs" else self.end
        if (
            not found
            or found[0][0] != 0
            or any(a[0] >= b[0] for a, b in itertools.pairwise(found))
            or found[-1][0] > end * (1 + _TOLERANCE)
            or any(height < 0 for _, height in found)
        ):
            raise StudyError(f"{where}: {name} is {value!r}; {rule}.")
        return found


@dataclass(frozen=True)
class Made:
    """A parameter that is made of other entries of the registry: each a mapping of its name and parameters.

    ``resolve(where, value, num_epochs)`` checks all of it and fills in what was left out; ``rule`` says what
    is allowed, in words.
    """

    default: Any
    about: str
    rule: str
    resolve: Callable[[str, Any, float], Any]
    unit: str = "schedules"
    form_of: None = None

    def allowed(self, name: str) -> str:
        """The rule in words."""
        return self.rule

    def check(self, where: str, name: str, value: Any, num_epochs: float = math.inf) -> Any:
        """The value with all that follows from it, or an error that says which part of it is wrong."""
        return self.resolve(f"{where}: {name}", value, num_epochs)


@dataclass(frozen=True)
class Free:
    """A parameter of which nothing is said: what fits is the code's own affair."""

    default: Any = REQUIRED
    about: str = ""
    unit: str = "any value"
    form_of: None = None

    def allowed(self, name: str) -> str:
        """That there is no rule."""
        return "any value"

    def check(self, where: str, name: str, value: object, num_epochs: float = math.inf) -> object:
        """The value as it is."""
        return value


Parameter = Number | Flag | Choice | Times | Points | Made | Free

Count = Annotated[int, Number(ge=1, whole=True)]
"""For signatures: a whole number of at least 1."""

Probability = Annotated[float, Number(ge=0, lt=1)]
"""For signatures: 0 or more, below 1."""


def of_default(default: object) -> Parameter:
    """What a parameter may be of which only the default is known: another number, or on and off.

    >>> of_default(0.5).allowed("knee"), of_default(True).allowed("nesterov")
    ('knee, a finite number', 'true or false')
    >>> of_default("mean").allowed("pool")
    'any value'
    """
    if isinstance(default, bool):
        return Flag(default)
    return Number(default) if is_number(default) else Free(default)


def checked(
    where: str,
    parameters: Mapping[str, Parameter],
    given: Mapping[str, Any],
    *,
    num_epochs: float = math.inf,
    noun: str = "a parameter of it",
    beside: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Every parameter with its value: the given ones checked, the others at their defaults.

    Args:
        where: what the parameters belong to, as errors begin.
        noun: what a name in ``given`` has to be.
        beside: names that may stand in the same section and are no parameters, for the list of an error.

    Raises:
        StudyError: a name that is none of ``parameters``, one that must be given and is not, or a value that
        is
            not allowed.
    """
    for name in given:
        if name not in parameters:
            raise unknown(where, name, [*parameters, *beside], noun)
    values = {}
    for name, spec in parameters.items():
        value = given.get(name, spec.default)
        if value is REQUIRED:
            raise StudyError(f"{where}: {name} is missing; allowed: {spec.allowed(name)}.")
        if value is not UNREAD:
            values[name] = spec.check(where, name, value, num_epochs)
    return values


def is_number(value: object) -> TypeGuard[float]:
    """Whether this is a finite real number, numpy's included, which true and false are not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def as_number(value: float) -> float:
    """A number as Python's own, as JSON has it and of full precision, whatever library it is of."""
    return int(value) if isinstance(value, numbers.Integral) else float(value)
