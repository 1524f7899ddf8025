"""What the arguments of a class or function may be, read from its source: nothing is imported.

An argument says what it may be in its annotation, ``Annotated[int, Number(ge=8)]``, a name of
:mod:`lrstudy.entries.parameters` such as ``Count``, or ``int``, ``float`` and ``bool`` alone. Any other
annotation restricts nothing; without one the default says what kind of value it is.
"""

import ast
import functools
from dataclasses import replace
from typing import Any, get_args

from lrstudy.entries import parameters
from lrstudy.entries.meaning import definition_outside, resolved, source_of
from lrstudy.entries.parameters import (
    REQUIRED,
    UNREAD,
    Flag,
    Free,
    Number,
    Parameter,
    is_number,
    of_default,
)
from lrstudy.errors import StudyError

__all__ = ["definition_outside", "signature"]

_SAID = (
    ast.Name,
    ast.Subscript,
    ast.Tuple,
    ast.Call,
    ast.keyword,
    ast.Constant,
    ast.UnaryOp,
    ast.USub,
    ast.Load,
)


@functools.cache
def signature(definition: str) -> dict[str, Parameter]:
    """The arguments of ``module.name`` by name, in order: a function's, or those of a class's constructor.

    One without a default is :data:`~lrstudy.entries.parameters.REQUIRED`; one whose default is no plain value
    is :data:`~lrstudy.entries.parameters.UNREAD`. A class without a constructor has its base's, as far as
    that is code which is followed (:mod:`lrstudy.entries.meaning`).

    Raises:
        StudyError: it is neither, or an argument cannot be given by name.
    """
    node = source_of(definition)
    if isinstance(node, ast.ClassDef):
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                return _arguments(definition, statement, skip=1)
        module = definition.rpartition(".")[0]
        for base in node.bases:
            if isinstance(base, ast.Name) and (above := resolved(base.id, module)):
                return signature(above)
        return {}
    if isinstance(node, ast.FunctionDef):
        return _arguments(definition, node)
    raise StudyError(
        f"{definition}: its definition is neither a class nor a function, so its arguments cannot be read."
    )


def _arguments(definition: str, function: ast.FunctionDef, skip: int = 0) -> dict[str, Parameter]:
    arguments = function.args
    if arguments.posonlyargs[skip:]:
        raise StudyError(
            f"{definition}: the argument {arguments.posonlyargs[skip].arg} cannot be given by name; take the "
            "/ away."
        )
    positional = arguments.args[max(0, skip - len(arguments.posonlyargs)) :]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults[
        -len(positional) or None :
    ]
    given = [
        *zip(positional, defaults, strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return {argument.arg: _parameter(argument.annotation, default) for argument, default in given}


def _parameter(annotation: ast.expr | None, default: ast.expr | None) -> Parameter:
    value = REQUIRED if default is None else _literal(default)
    said = _said(annotation) or _plain(annotation, value)
    if said is not None:
        return replace(said, default=value)
    return Free(value) if value is REQUIRED or value is UNREAD else of_default(value)


def _plain(annotation: ast.expr | None, default: object) -> Parameter | None:
    """What ``int``, ``float`` and ``bool`` say, where the default is of that kind, too."""
    name = annotation.value if isinstance(annotation, ast.Constant) else getattr(annotation, "id", None)
    if name == "bool" and (default is REQUIRED or isinstance(default, bool)):
        return Flag()
    if name == "int" and (default is REQUIRED or (is_number(default) and default == int(default))):
        return Number(whole=True)
    return Number() if name == "float" and (default is REQUIRED or is_number(default)) else None


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return UNREAD


def _said(annotation: ast.expr | None) -> Parameter | None:
    """What an annotation says in the words of :mod:`lrstudy.entries.parameters`; None for anything else."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if annotation is None or not all(isinstance(node, _SAID) for node in ast.walk(annotation)):
        return None
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    known = {**vars(parameters), "int": int, "float": float, "bool": bool, "str": str}
    if not names <= known.keys():
        return None
    said = get_args(
        eval(compile(ast.Expression(annotation), "annotation", "eval"), {"__builtins__": {}} | known)
    )
    return next((one for one in said[1:] if isinstance(one, Parameter)), None)
