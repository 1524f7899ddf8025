"""The schedules' formulas in JavaScript, for a page that computes them without Python.

Translated is the syntax tree of the source itself: an entry's formula, what is derived, what is refused, and
every function and constant of :mod:`lrstudy.schedules` that these refer to. So the page has no formulas of
its own that could differ. The subset of Python is what formulas are written in: numbers, texts, lists and
dicts, arithmetic, conditions, loops over lists, comprehensions, lambdas and :mod:`math`. Anything else is an
error that names the line, never a guess. ``tests/test_page.py`` compares the two in a browser, value for
value.

Alike in both languages are floating-point numbers (a whole one is a double in JavaScript) and ``and``/``or``
on numbers, texts and None; an empty list, which is true in JavaScript, is no operand of theirs here.
"""

import ast
import inspect
import json
import math
from typing import Any

from lrstudy import schedules
from lrstudy.errors import StudyError

PROVIDED = ("find", "_rounded")
"""What the page has by itself: the registry's lookup, and twelve digits of a number."""

ALSO = ("_TOLERANCE", "_floor", "_line")
"""What the page uses beside the formulas."""

_MATH = {name: f"Math.{name}" for name in ("exp", "expm1", "log", "log1p", "cos", "tanh", "sqrt", "floor")}
_CONSTANTS = {"pi": "Math.PI", "inf": "Infinity"}
_ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARISONS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "===", ast.NotEq: "!==", ast.Is: "===",
    ast.IsNot: "!==",
}  # fmt: skip
_FUNCTIONS = {"abs": "Math.abs", "float": "Number", "len": "size", "sum": "sum", "max": "max", "min": "min"}


def registry() -> str:
    """JavaScript statements that define what the formulas need, and ``FORMULAS`` with every entry's code.

    ``FORMULAS[name]`` is ``{formula(t, num_epochs, values), problem(values), derive: {parameter:
    (num_epochs, values) => value}}``.

    Raises:
        StudyError: the source has what is not translated; it says where.
    """
    return _Module().registry()


class _Module:
    """The top of lrstudy.schedules, and what of it was translated so far."""

    def __init__(self) -> None:
        self.top: dict[str, ast.stmt] = {}
        for statement in ast.parse(inspect.getsource(schedules)).body:
            if isinstance(statement, ast.FunctionDef):
                self.top[statement.name] = statement
            elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                self.top[statement.targets[0].id] = statement
        self.written: dict[str, str] = {}

    def registry(self) -> str:
        entries = [self._entry(name) for name in schedules.SCHEDULES]
        for name in ALSO:
            self.need(name, self.top[name] if name in self.top else ast.Name(name))
        return "\n".join([*self.written.values(), "const FORMULAS = {", *entries, "};"])

    def _entry(self, name: str) -> str:
        function = self.top[name]
        assert isinstance(function, ast.FunctionDef)
        lister = function.decorator_list[0]
        given = {one.arg: one.value for one in lister.keywords} if isinstance(lister, ast.Call) else {}
        problem = self.expression(given["problem"]) if "problem" in given else "() => null"
        derived = []
        for parameter in schedules.SCHEDULES[name].parameters:
            spec = given[parameter]
            if isinstance(spec, ast.Name) and isinstance(said := self.top[spec.id], ast.Assign):
                spec = said.value
            for keyword in spec.keywords if isinstance(spec, ast.Call) else ():
                if keyword.arg == "derive":
                    derived.append(f"{parameter}: {self.expression(keyword.value)}")
        body = self.function(function)
        return f"{name}: {{formula: {body}, problem: {problem}, derive: {{{', '.join(derived)}}}}},"

    def need(self, name: str, node: ast.AST) -> None:
        """Translate a function or a constant of the module, once, before what refers to it."""
        if name in self.written or name in PROVIDED:
            return
        self.written[name] = ""  # it may refer to itself
        statement = self.top.get(name)
        if isinstance(statement, ast.FunctionDef):
            text = f"const {name} = {self.function(statement)};"
        elif isinstance(statement, ast.Assign):
            text = f"const {name} = {self.expression(statement.value)};"
        elif isinstance(value := getattr(schedules, name, None), int | float | str):
            text = f"const {name} = {_constant(value)};"  # imported
        else:
            raise _untranslated(node, f"the name {name}")
        del self.written[name]
        self.written[name] = text

    def expression(self, node: ast.expr) -> str:
        """An expression outside of any function."""
        return _Scope(self, frozenset()).expression(node)

    def function(self, node: ast.FunctionDef) -> str:
        """A function as an arrow function; what is keyword-only comes in one object."""
        arguments = [one.arg for one in node.args.args]
        keywords = [one.arg for one in node.args.kwonlyargs]
        names = {
            one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
        }
        scope = _Scope(self, frozenset({*arguments, *keywords, *names}))
        parameters = [*arguments, *([f"{{{', '.join(keywords)}}}"] if keywords else [])]
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        own = sorted(names - {*arguments, *keywords})
        declared = f"let {', '.join(own)}; " if own else ""
        return f"({', '.join(parameters)}) => {{ {declared}{scope.block(body)} }}"


class _Scope:
    """Expressions and statements, given the names that are not the module's."""

    def __init__(self, module: _Module, local: frozenset[str]):
        self.module, self.local = module, local

    def block(self, statements: list[ast.stmt]) -> str:
        return " ".join(self.statement(one) for one in statements)

    def statement(self, node: ast.stmt) -> str:
        match node:
            case ast.Return(value=ast.expr() as value):
                return f"return {self.expression(value)};"
            case ast.Assign(targets=[target], value=value):
                return f"{self.target(target)} = {self.expression(value)};"
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value) if type(op) in _ARITHMETIC:
                return f"{name} {_ARITHMETIC[type(op)]}= {self.expression(value)};"
            case ast.If(test=test, body=body, orelse=orelse):
                otherwise = f" else {{ {self.block(orelse)} }}" if orelse else ""
                return f"if ({self.expression(test)}) {{ {self.block(body)} }}{otherwise}"
            case ast.For(target=target, iter=values, body=body, orelse=[]):
                return f"for ({self.target(target)} of {self.expression(values)}) {{ {self.block(body)} }}"
        raise _untranslated(node, f"`{ast.unparse(node).splitlines()[0]}`")

    def target(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                return name
            case ast.Tuple(elts=names):
                return f"[{', '.join(self.target(one) for one in names)}]"
        raise _untranslated(node, f"`{ast.unparse(node)} = ...`")

    def expression(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=value) if value is None or isinstance(value, int | float | str):
                return _constant(value)
            case ast.Name(id=name):
                if name not in self.local:
                    self.module.need(name, node)
                return name
            case ast.Attribute(value=ast.Name(id="math"), attr=name) if name in _CONSTANTS:
                return _CONSTANTS[name]
            case ast.Attribute(value=value, attr="formula"):
                return f"{self.expression(value)}.formula"
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                return f"Math.pow({self.expression(left)}, {self.expression(right)})"
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return f"({self.expression(left)} {_ARITHMETIC[type(op)]} {self.expression(right)})"
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return f"(-{self.expression(operand)})"
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return f"(!{self.expression(operand)})"
            case ast.BoolOp(op=op, values=values):
                return (
                    f"({(' && ' if isinstance(op, ast.And) else ' || ').join(map(self.expression, values))})"
                )
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return f"({self.expression(test)} ? {self.expression(body)} : {self.expression(orelse)})"
            case ast.Compare():
                return self.comparison(node)
            case ast.Call():
                return self.call(node)
            case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper, step=None)):
                ends = [self.expression(one) if one else "undefined" for one in (lower, upper)]
                return f"{self.expression(value)}.slice({', '.join(ends)})"
            case ast.Subscript(
                value=value, slice=ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as last))
            ):
                return f"{self.expression(value)}.at({-last})"
            case ast.Subscript(value=value, slice=index):
                return f"{self.expression(value)}[{self.expression(index)}]"
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return f"[{', '.join(map(self.expression, elements))}]"
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                return f"({{{', '.join(self.pair(key, value, node) for key, value in pairs)}}})"
            case ast.Lambda(args=arguments, body=body):
                names = [one.arg for one in arguments.args]
                inner = _Scope(self.module, self.local | set(names))
                return f"(({', '.join(names)}) => {inner.expression(body)})"
            case (
                ast.GeneratorExp(elt=element, generators=[one]) | ast.ListComp(elt=element, generators=[one])
            ):
                return self.comprehension(one, element)
            case ast.DictComp(key=key, value=value, generators=[one]):
                return f"Object.fromEntries({self.comprehension(one, ast.Tuple([key, value], ast.Load()))})"
            case ast.JoinedStr(values=parts):
                return f"({' + '.join(map(self.text, parts))})"
        raise _untranslated(node, f"`{ast.unparse(node)}`")

    def pair(self, key: ast.expr | None, value: ast.expr, node: ast.AST) -> str:
        if isinstance(key, ast.Constant):
            return f"{_constant(key.value)}: {self.expression(value)}"
        raise _untranslated(node, f"`{ast.unparse(node)}`")

    def comparison(self, node: ast.Compare) -> str:
        found = []
        for left, operator, right in zip(
            [node.left, *node.comparators], node.ops, node.comparators, strict=False
        ):
            one, other = self.expression(left), self.expression(right)
            if isinstance(operator, ast.In | ast.NotIn):
                found.append(f"{'!' if isinstance(operator, ast.NotIn) else ''}has({other}, {one})")
            else:
                found.append(f"({one} {_COMPARISONS[type(operator)]} {other})")
        return found[0] if len(found) == 1 else f"({' && '.join(found)})"

    def call(self, node: ast.Call) -> str:
        arguments = [self.expression(one) for one in node.args]
        match node.func:
            case ast.Attribute(value=ast.Name(id="math"), attr="prod"):
                return f"product({', '.join(arguments)})"
            case ast.Attribute(value=ast.Name(id="math"), attr=name) if name in _MATH:
                return f"{_MATH[name]}({', '.join(arguments)})"
            case ast.Attribute(value=value, attr="get"):
                return f"get({', '.join([self.expression(value), *arguments])})"
            case ast.Attribute(value=value, attr="items"):
                return f"Object.entries({self.expression(value)})"
            case ast.Name(id=name) if name in _FUNCTIONS and name not in self.local:
                return f"{_FUNCTIONS[name]}({', '.join(arguments)})"
        match node.keywords:
            case []:
                pass
            case [ast.keyword(arg=None, value=values)]:  # **values
                arguments.append(self.expression(values))
            case _:
                raise _untranslated(node, f"`{ast.unparse(node)}`")
        return f"{self.expression(node.func)}({', '.join(arguments)})"

    def comprehension(self, generator: ast.comprehension, element: ast.expr) -> str:
        names = {one.id for one in ast.walk(generator.target) if isinstance(one, ast.Name)}
        inner, each = _Scope(self.module, self.local | names), self.target(generator.target)
        chosen = "".join(f".filter(({each}) => {inner.expression(test)})" for test in generator.ifs)
        return f"{self.expression(generator.iter)}{chosen}.map(({each}) => {inner.expression(element)})"

    def text(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=str() as value):
                return json.dumps(value)
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                return f"String({self.expression(value)})"
            case ast.FormattedValue(value=value, conversion=conversion, format_spec=None) if (
                conversion == ord("r")
            ):
                return f"repr({self.expression(value)})"
            case ast.FormattedValue(value=value, format_spec=ast.JoinedStr(values=[ast.Constant(value="g")])):
                return f"general({self.expression(value)})"
        raise _untranslated(node, f"`{ast.unparse(node)}`")


def _constant(value: Any) -> str:
    """A number, a text, true, false or None; a float keeps all its digits."""
    if isinstance(value, float) and not math.isfinite(value):
        return "Infinity" if value > 0 else "-Infinity"
    return json.dumps(value)


def _untranslated(node: ast.AST, what: str) -> StudyError:
    line = getattr(node, "lineno", "?")
    return StudyError(
        f"{schedules.__file__}:{line}: {what} is not translated to JavaScript; write the formula in plain "
        f"arithmetic, or teach {__name__} to translate it."
    )
