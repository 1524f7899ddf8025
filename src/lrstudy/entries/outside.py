"""The door for code of other packages: ``package.module:name``, imported because the configuration names it.

A package is found in the folder that the stage runs in, the repository's root, or among what is installed.
Everything that goes wrong in it is one error that says whose code it is. What it computes takes part in a
training's identity like this package's own code: :mod:`lrstudy.entries.meaning`. Imports no torch of its own.
"""

import ast
import contextlib
import functools
import importlib
import importlib.util
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lrstudy.errors import StudyError, meant, unknown

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_outside(name: str) -> bool:
    """Whether ``name`` is ``package.module:name``.

    Raises:
        StudyError: it has a colon or a dot and is none all the same, or names this package.
    """
    if ":" not in name:
        module, dot, own = name.rpartition(".")
        if dot and _NAME.fullmatch(f"{module}:{own}"):
            raise StudyError(f"{name!r}: a colon stands before the last part; write {module}:{own}.")
        return False
    if not _NAME.fullmatch(name):
        raise StudyError(f"{name!r}: write code of another package as package.module:name.")
    if name.partition(".")[0].partition(":")[0] == "lrstudy":
        raise StudyError(f"{name}: what lrstudy itself has goes by its short name, without the module.")
    return True


def load(name: str, noun: str) -> Any:
    """What ``package.module:name`` stands for; ``noun`` says what it is to be, as in "a schedule".

    Raises:
        StudyError: there is no such module, it has no such name, or it raises when it is imported.
    """
    module_name, _, attribute = name.partition(":")
    module_file(module_name)  # says what is missing
    _make_importable()
    with told_whose(name, f"the import of {module_name}"):
        module = importlib.import_module(module_name)
    if not hasattr(module, attribute):
        own = [
            one
            for one, value in vars(module).items()
            if not one.startswith("_") and getattr(value, "__module__", module_name) == module_name
        ]
        raise unknown(name, attribute, own, f"defined in {module.__file__}, as {noun} has to be")
    return _guarded(getattr(module, attribute), name, noun)


# What the loop calls of an object that code of another package has made.
_CALLED = {"a controller": ("before_step", "after_epoch"), "an optimizer": ("step",)}


def _guarded(found: Any, name: str, noun: str) -> Any:
    """``found``; where the loop calls its methods, a subclass in which their errors say whose they are."""
    if not isinstance(found, type):
        return found
    methods = {
        method: _told_method(function, name, method, noun)
        for method in _CALLED.get(noun, ())
        if (function := getattr(found, method, None)) is not None
    }
    if not methods:
        return found
    # The class that pickle would find by its name is the one that is not guarded.
    methods["__reduce__"] = lambda self: (_anew, (name, noun), self.__getstate__())
    return type(found.__name__, (found,), methods | {"__module__": found.__module__})


def _anew(name: str, noun: str) -> Any:
    """For pickle: an object of the class ``name`` without a state."""
    kind = load(name, noun)
    return kind.__new__(kind)


def _told_method(function: Callable, name: str, method: str, noun: str) -> Callable:
    @functools.wraps(function)
    def told(self: Any, *args: Any, **kwargs: Any) -> Any:
        with told_whose(name, f"{method}()"):
            given = function(self, *args, **kwargs)
        factor = self.factor if noun == "a controller" else 1.0
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor < math.inf:
            raise StudyError(
                f"{name}: {method}() set factor to {factor!r}; allowed: a number from 0, since it multiplies "
                "the learning rate."
            )
        return given

    return told


@contextlib.contextmanager
def told_whose(name: str, doing: str) -> Iterator[None]:
    """What the block raises as one :class:`StudyError`, if ``name`` is code of another package.

    Says whose it is, what it was doing, and the line of its own that was the last one.
    """
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        if not is_outside(name):
            raise
        raise StudyError(f"{name}: {doing} raised {_said(error)}{_last_line(error, name)}.") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500].rstrip(".: ")


def _last_line(error: Exception, name: str) -> str:
    """Where in the package, as far as it can be told."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    package = module_folder(name.partition(":")[0])
    own = [
        one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).is_relative_to(package)
    ]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _make_importable() -> None:
    """Have modules of the folder that this process runs in found, in a worker or a test as in a stage."""
    if not any(Path(entry or ".").resolve() == Path.cwd() for entry in sys.path):
        sys.path.append(str(Path.cwd()))


def module_file(module: str) -> Path:
    """The source file of a module of another package, found without importing anything.

    Raises:
        StudyError: it cannot be found.
    """
    folder = module_folder(module)
    inside = folder.joinpath(*module.split(".")[1:])
    for path in (inside / "__init__.py", inside.with_name(f"{inside.name}.py")):
        if path.is_file():
            return path
    above = module.rpartition(".")[0]
    beside = [f"{above}.{path.stem}" for path in sorted(inside.parent.glob("[!_]*.py"))]
    raise StudyError(
        f"module {module} not found: looked for {inside.relative_to(folder.parent)}.py in {folder.parent}."
        f"{meant(module, beside)}"
    )


def module_folder(module: str) -> Path:
    """The folder of the package that a module belongs to: ``.../mypackage``, for ``rates.py`` ``.../rates``.

    Raises:
        StudyError: it cannot be found.
    """
    top = module.partition(".")[0]
    _make_importable()
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise StudyError(
            f"module {module} not found: looked for {top} in {Path.cwd()} and among the installed packages; "
            "it must be importable from the repository's root or installed."
        )
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise StudyError(
            f"module {module}: {spec.origin or top} is no source file; what it computes cannot be seen."
        )
    return Path(spec.origin).with_suffix("")


def parse(path: Path) -> ast.Module:
    """The syntax tree of a source file.

    Raises:
        StudyError: it is no Python.
    """
    try:
        return ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise StudyError(f"{path}{f', line {line}' if line else ''}: no Python ({error.args[0]}).") from None
