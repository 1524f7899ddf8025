"""What code means, as far as results go: its syntax trees, wherever they stand.

The meaning of a function is its syntax tree and those of everything in this package that it refers to,
without docstrings, comments, annotations, formatting, imports and what an error says. So a comment, a type or
a move to another file changes nothing, and what is not referred to plays no part:

>>> cosine = reached(["lrstudy.schedules.cosine"], listed_in="lrstudy.schedules.SCHEDULES")
>>> sorted(definition.name for definition in cosine)
['_half_cosine', 'cosine']

Found out from the source files alone: nothing is imported or run. What cannot be seen in the source is not
followed: names that are put together at run time, and other packages, whose versions are recorded instead.
From code of another package that the configuration names (:mod:`lrstudy.entries.outside`) that package is
followed, too; and since what it does when it is imported may change what others compute, so are its modules'
statements that do more than to define names.
"""

import ast
import functools
import hashlib
import importlib.util
import symtable
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from lrstudy.entries.outside import is_outside, module_file, module_folder, parse
from lrstudy.errors import StudyError, unknown

PACKAGE = "lrstudy"
_DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Definition:
    """What one module-level name stands for.

    Attributes:
        name: the name, without its module.
        own: SHA-256 of its own syntax tree.
        whole: SHA-256 of that and of the trees that it refers to directly.
    """

    name: str
    own: str
    whole: str


def reached(
    roots: Iterable[str], *, stop: Collection[str] = (), listed_in: str = ""
) -> frozenset[Definition]:
    """The definitions that the roots refer to, at any remove, themselves included.

    Args:
        roots: ``module.name`` each.
        stop: names ``module.name``, and modules, that are not followed: a reference to one is a name alone.
        listed_in: a registry, ``module.name``: where the first decorator of a root fills it, that decorator
            plays no part.

    Raises:
        KeyError: a root is not defined in its module.
    """
    found: dict[str, _Meaning] = {}
    waiting = [(_followed(root, root.partition(".")[0]), listed_in) for root in roots]
    while waiting:
        name, registry = waiting.pop()
        if name not in found:
            found[name] = _meaning(name, registry)
            waiting += [(other, "") for other in found[name].refers_to if not _stops(other, stop)]
    return frozenset(
        Definition(
            name.rpartition(".")[2],
            one.own,
            _sha(one.own, *(found[other].own for other in one.refers_to if other in found)),
        )
        for name, one in found.items()
    )


def digest(definitions: Collection[Definition]) -> str:
    """SHA-256 of these definitions, whatever modules they stand in."""
    return _sha(*sorted(f"{one.name} {one.whole}" for one in definitions))


def listing(definitions: Collection[Definition]) -> dict[str, str]:
    """Definition -> 16 digits of its own hash, to tell later which one differs; of namesakes all of them."""
    names: dict[str, list[str]] = {}
    for one in sorted(definitions, key=lambda one: (one.name, one.own)):
        names.setdefault(one.name, []).append(one.own[:16])
    return {name: " ".join(hashes) for name, hashes in names.items()}


def entry(registry: str, key: str, *, stop: Collection[str] = ()) -> frozenset[Definition]:
    """The definitions behind the entry ``key`` of a registry, by itself: not of the others.

    Args:
        registry: ``module.name``, as for :func:`entries`.
        key: an entry, or ``package.module:name`` of another package.
        stop: as for :func:`reached`.

    Raises:
        StudyError: there is no such entry, or its definition cannot be found from the registry's module.
    """
    if is_outside(key):
        imported = _imported_with(key.partition(":")[0])
        run = [f"{module}.{_AT_IMPORT}" for module in imported if _module(module).at_import]
        return reached([definition_outside(key), *run], stop=stop, listed_in=registry)
    if (literal := _literal(registry)) is None:
        if (definition := entries(registry).get(key)) is None:
            raise _no_entry(registry, key)
        return reached([definition], stop=stop, listed_in=registry)
    module = _module(registry.rpartition(".")[0])
    for known, value in zip(literal.keys, literal.values, strict=True):
        if isinstance(known, ast.Constant) and known.value == key:
            meaning = _meaning_of([_Statement(ast.unparse(value))], module)
            behind = reached(meaning.refers_to, stop=stop)
            if isinstance(value, ast.Name) and _defined(module.resolve(value.id) or ""):
                return behind
            return behind | {Definition(key, meaning.own, meaning.own)}
    raise _no_entry(registry, key)


def entries(registry: str) -> dict[str, str]:
    """The entries of a registry that a decorator fills: key -> ``module.name`` of the definition.

    The decorator is a definition's first, and lists it under the text that it is given, else under its own
    name: ``@network("lstm")``. It plays no part in an entry's meaning. What is listed stands in the
    registry's module, or is imported there. Of a registry that is a literal dict nothing is found here: it
    has its entries itself.
    """
    module = _module(registry.rpartition(".")[0])
    names = [f"{module.name}.{name}" for name in module.statements]
    names += [target for name in module.imports if _defined(target := module.resolve(name) or "")]
    found = {}
    for name in names:
        where, _, own = name.rpartition(".")
        for statement in _module(where).statements[own]:
            if (lister := _lister(statement, _module(where), registry)) is not None:
                given = lister.args[0] if isinstance(lister, ast.Call) and lister.args else None
                if isinstance(given, ast.Constant) and isinstance(given.value, str):
                    found[given.value] = name
                else:
                    found[own] = name
    return found


def definition_outside(key: str) -> str:
    """``package.module.name`` of the definition that ``package.module:name`` stands for.

    Raises:
        StudyError: it is not defined in that package.
    """
    module, _, name = key.partition(":")
    file = module_file(module)  # says what is missing
    package = module.partition(".")[0]
    definition = _followed(f"{module}.{name}", package)
    if not _defined(definition, package):
        known = _module(module)
        if name not in known.imports:
            names = [one for one in known.statements if not one.startswith("_")]
            raise unknown(key, name, names, f"defined at the top of {file}")
        raise StudyError(
            f"{key}: {package} does not define {name} at the top of {file}, so what it "
            "computes cannot be seen; name the module that does."
        )
    return definition


def source_of(definition: str) -> ast.stmt:
    """The last statement that defines ``module.name``, as it stands in the file, annotations and all."""
    module, _, name = definition.rpartition(".")
    return [one for one in parse(_source_file(module)).body if name in _binds(one)][-1]


def resolved(name: str, module: str) -> str | None:
    """The definition, ``module.name``, that a name in a module stands for; None for what is not followed."""
    found = _module(module).resolve(name)
    return found if found and _defined(found, module.partition(".")[0]) else None


def _literal(registry: str) -> ast.Dict | None:
    module_name, _, name = registry.rpartition(".")
    values = [getattr(one.tree(), "value", None) for one in _module(module_name).statements[name]]
    return next((value for value in values if isinstance(value, ast.Dict) and value.keys), None)


def _no_entry(registry: str, key: str) -> StudyError:
    module, _, name = registry.rpartition(".")
    return StudyError(
        f"{module}: {name} has no entry {key!r} whose definition can be found. Define it in that module or "
        "import it there, under this name; in a literal dict, write it as a key."
    )


def _stops(name: str, stop: Collection[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:count]) in stop for count in range(1, len(parts) + 1))


def _sha(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


# --- A module -----------------------------------------------------------------------------------------------


class _Statement:
    """A statement of a module without what decides no result; made so when it is asked for.

    Most of a module plays no part in any one meaning, and its definitions are most of it.
    """

    def __init__(self, given: ast.stmt | str):
        """``given`` as it stands in the module, or source that is bare already."""
        self._given = given
        self.decorators: list[ast.expr] = getattr(given, "decorator_list", [])

    @functools.cached_property
    def source(self) -> str:
        given = self._given
        return given if isinstance(given, str) else ast.unparse(_Bare().visit(given))

    def tree(self) -> ast.stmt:
        """Its syntax tree, a new one at every call, which may be changed."""
        return ast.parse(self.source).body[0]


class _Module:
    """A module's statements by the name that they define, and what its names stand for."""

    def __init__(self, name: str):
        self.name = name
        self.package = name.partition(".")[0]
        path = _source_file(name)
        self.place = f"{name}.__init__" if path.name == "__init__.py" else name
        self.statements: dict[str, list[_Statement]] = {}
        self.imports: dict[str, str] = {}
        self.imported: set[str] = set()  # names of which some are modules
        self.at_import: list[_Statement] = []  # what does more than to define names
        for node in parse(path).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
            elif isinstance(node, _DEFINITION):  # binds its own name, whatever is in it
                self.statements.setdefault(node.name, []).append(_Statement(node))
            else:
                self._other(_Bare().visit(node))

    def _other(self, node: ast.stmt) -> None:
        # In a block, too: `try: from a import f` has `f` stand for what is there.
        if isinstance(node, ast.If | ast.Try | ast.With):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    self._import(inner)
        statement = _Statement(ast.unparse(node))
        if not _only_defines(node):
            self.at_import.append(statement)
        for bound in _binds(node):
            self.statements.setdefault(bound, []).append(statement)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            self.imported |= {alias.name for alias in node.names}
        self.imported |= set(_bound_by(node, self.place).values())
        for bound, target in _bound_by(node, self.place).items():
            known = self.imports.setdefault(bound, target)
            followed = {PACKAGE, self.package}
            if self.package != PACKAGE and (top := target.split(".")[0]) not in followed:
                self._check_beside(top)
            if known != target and followed & {known.split(".")[0], target.split(".")[0]}:
                raise StudyError(
                    f"{self.name}, line {node.lineno}: {bound} stands for {known} and for {target}; which "
                    "one is meant cannot be seen. Give them two names."
                )

    def _check_beside(self, top: str) -> None:
        """Refuse what lies beside another package and is not followed: its edits would make nothing stale."""
        folder = module_folder(self.package).parent
        installed = {"site-packages", "dist-packages"} & set(folder.parts)
        lies_there = (folder / f"{top}.py").is_file() or (folder / top).is_dir()
        if lies_there and not installed and top not in sys.stdlib_module_names:
            raise StudyError(
                f"{_file(self.name)}: imports {top}, which lies beside {self.package} and would "
                f"be no part of what a training is known by; move it into the package {self.package}."
            )

    def resolve(self, name: str) -> str | None:
        """``module.name`` or a module that ``name`` stands for here; None for builtins."""
        if name in self.statements:
            return f"{self.name}.{name}"
        return _followed(self.imports[name], self.package) if name in self.imports else None


@functools.cache
def _module(name: str) -> _Module:
    return _Module(name)


@functools.cache
def _file(module: str) -> Path | None:
    """Where a module that is followed stands; None if there is none of that name."""
    top, *parts = module.split(".")
    path = (_root() if top == PACKAGE else module_folder(top)).joinpath(*parts)
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.exists()), None)


def _source_file(module: str) -> Path:
    """Where a module that is there stands."""
    if (file := _file(module)) is None:
        raise KeyError(f"there is no module {module}")
    return file


def _root() -> Path:
    """The package's folder."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{PACKAGE} is not installed")
    return Path(spec.origin).parent


# ``package``: the one in which a name stands; of others than that and this package nothing is followed.


def _is_module(name: str, package: str = PACKAGE) -> bool:
    return name.split(".")[0] in (PACKAGE, package) and _file(name) is not None


def _defined(name: str, package: str = PACKAGE) -> bool:
    """Whether ``module.name`` is a definition that is followed."""
    module, _, own = name.rpartition(".")
    return bool(module) and _is_module(module, package) and own in _module(module).statements


def _followed(name: str, package: str) -> str:
    """Where ``module.name`` is defined, if the module only imports it."""
    module, _, own = name.rpartition(".")
    if module and _is_module(module, package) and not _is_module(name, package):
        known = _module(module)
        if own not in known.statements and own in known.imports:
            return _followed(known.imports[own], package)
    return name


def _bound_by(statement: ast.Import | ast.ImportFrom, here: str) -> dict[str, str]:
    """What an import binds: name here -> dotted name."""
    if isinstance(statement, ast.Import):
        return {
            alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
            for alias in statement.names
        }
    if any(alias.name == "*" for alias in statement.names):
        raise StudyError(
            f"{here}, line {statement.lineno}: `import *` hides what code means; name what is imported."
        )
    module = statement.module or ""
    if statement.level:
        package = here.split(".")[: -statement.level or None]
        module = ".".join([*package, module]).rstrip(".")
    return {alias.asname or alias.name: f"{module}.{alias.name}" for alias in statement.names}


def _only_defines(statement: ast.stmt) -> bool:
    """Whether all that a statement does is to give names of its module a value, or nothing at all."""
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, ast.Name) for target in statement.targets)
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass)


_AT_IMPORT = "<import>"
"""In the place of a definition's name: what a module does when it is imported besides defining names."""


def _imported_with(module: str) -> list[str]:
    """The modules of its package that are imported where ``module`` is, itself among them."""
    package = module.partition(".")[0]
    found: dict[str, None] = {}
    waiting = [module]
    while waiting:
        parts = waiting.pop().split(".")
        for name in (".".join(parts[:count]) for count in range(1, len(parts) + 1)):
            if parts[0] == package and name not in found and _is_module(name, package):
                found[name] = None
                waiting += sorted(_module(name).imported)
    return list(found)


def _binds(statement: ast.stmt) -> set[str]:
    """The module-level names that a statement binds or changes, as in ``x = 1``, ``x[0] = 1``, ``x.f()``."""
    bound = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            bound.add(node.id)
        elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            bound.add(_base(node))
        elif isinstance(node, _DEFINITION):
            bound.add(node.name)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            bound.add(_base(node.value.func))
    return bound - {""}


def _base(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


# --- A definition -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Meaning:
    own: str
    refers_to: tuple[str, ...]


@functools.cache
def _meaning(name: str, listed_in: str = "") -> _Meaning:
    module_name, _, own_name = name.rpartition(".")
    module = _module(module_name)
    if own_name == _AT_IMPORT:
        return _meaning_of(module.at_import, module)
    if own_name not in module.statements:
        raise KeyError(f"{module_name} does not define {own_name}")
    statements = module.statements[own_name]
    if listed_in:
        statements = [_unlisted(statement, module, listed_in) for statement in statements]
    meaning = _meaning_of(statements, module)
    return _Meaning(meaning.own, tuple(other for other in meaning.refers_to if other != name))


def _unlisted(statement: _Statement, module: _Module, registry: str) -> _Statement:
    """The statement without its first decorator, if that fills the registry."""
    tree = statement.tree()
    if _lister(statement, module, registry) is None or not isinstance(tree, _DEFINITION):
        return statement
    tree.decorator_list = tree.decorator_list[1:]
    return _Statement(ast.unparse(tree))


def _lister(statement: _Statement, module: _Module, registry: str) -> ast.expr | None:
    """The statement's first decorator, if that is a function which refers to the registry."""
    if not statement.decorators:
        return None
    registrar = module.resolve(_base(statement.decorators[0]))
    if registrar is None or not _defined(registrar) or registry not in _meaning(registrar).refers_to:
        return None
    return statement.decorators[0]


def _meaning_of(statements: list[_Statement], module: _Module) -> _Meaning:
    trees: list[str] = []
    refers_to: dict[str, None] = {}  # in the order in which they stand there, whatever module they are in
    for statement in statements:
        tree = statement.tree()
        imported = {
            bound: target
            for node in (ast.walk(tree) if "import" in statement.source else ())
            if isinstance(node, ast.Import | ast.ImportFrom)
            for bound, target in _bound_by(node, module.place).items()
        }
        names = _names_of_the_module(statement.source) | imported.keys()
        standing_for = {
            name: _followed(imported[name], module.package) if name in imported else module.resolve(name)
            for name in names
        }
        canonical = _Canonical(standing_for, module.package)
        trees.append(_written(canonical.visit(tree)))
        refers_to |= canonical.refers_to
    return _Meaning(_sha(*trees), tuple(refers_to))


def _written(node: object) -> str:
    """A syntax tree as text, the same from every version of Python; what ``ast.dump`` leaves out differs."""
    if isinstance(node, ast.AST):
        fields = [
            f"{name}={_written(value)}"
            for name, value in ast.iter_fields(node)
            if value is not None and value != [] and name not in ("ctx", "kind", "type_comment")
        ]
        return f"{type(node).__name__}({', '.join(fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_written, node))}]"
    return ascii(node)


def _names_of_the_module(source: str) -> set[str]:
    """The names in a module-level statement that are not some function's own."""
    table = symtable.symtable(source, "", "exec")
    names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    inner = list(table.get_children())
    while inner:
        scope = inner.pop()
        names |= {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global()}
        inner += scope.get_children()
    return names


class _Bare(ast.NodeTransformer):
    """Takes away what decides no result: docstrings, annotations, ``if TYPE_CHECKING``, what errors say."""

    def __init__(self) -> None:
        self._functions = 0  # how many there are around the node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Without the ``pass`` that stands for what was taken away, where something else is left."""
        if isinstance(node, ast.expr):  # has none of it: a lambda's arguments take no annotations
            return node
        super().generic_visit(node)
        for block in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, block, None), list):
                left = [one for one in statements if not isinstance(one, ast.Pass)]
                setattr(node, block, left or ([ast.Pass()] if block == "body" else []))
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        self._functions += 1
        self.generic_visit(node)
        self._functions -= 1
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        self.generic_visit(node)
        if node.value is None:
            if self._functions:
                return ast.Pass()
            # A field of a class: that it is there, and where.
            named = (ast.unparse(node.target),)
            return ast.Expr(ast.Constant(named))  # type: ignore[arg-type]  # typeshed leaves tuples out
        return ast.Assign([node.target], node.value, lineno=node.lineno)

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        """Which error, not its words: who reads them has no result."""
        return ast.Raise(node.exc.func if isinstance(node.exc, ast.Call) else node.exc, None)

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        self.generic_visit(node)
        node.msg = None
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        is_for_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return ast.Pass() if is_for_types and not node.orelse else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        """A string alone is a docstring, or says something of the field above it."""
        self.generic_visit(node)
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if is_text else node


class _Canonical(ast.NodeTransformer):
    """Writes what a name stands for in place of the name, and notes what is referred to and followed."""

    def __init__(self, standing_for: dict[str, str | None], package: str):
        self.standing_for = standing_for
        self.package = package
        self.refers_to: dict[str, None] = {}

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Name(self, node: ast.Name) -> ast.expr:
        target = self.standing_for.get(node.id)
        return self._named(target, node) if target else node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        """A dotted name in quotes may be looked up at run time, as an optimizer's class is."""
        text = node.value
        if (
            isinstance(text, str)
            and text.startswith((f"{PACKAGE}.", f"{self.package}."))
            and all(map(str.isidentifier, text.split(".")))
            and _defined(text, self.package)
        ):
            self.refers_to[text] = None
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        dotted = self._dotted(node)
        return self._named(dotted, node) if dotted else self.generic_visit(node)

    def _dotted(self, node: ast.expr) -> str | None:
        """The dotted name of what lies in a module: ``np.mean`` is numpy.mean."""
        if isinstance(node, ast.Name):
            target = self.standing_for.get(node.id)
            return target if target and not _defined(target, self.package) else None
        if isinstance(node, ast.Attribute) and (before := self._dotted(node.value)):
            return f"{before}.{node.attr}"
        return None

    def _named(self, target: str, node: ast.Name | ast.Attribute) -> ast.expr:
        if target.split(".")[0] not in (PACKAGE, self.package):
            return ast.Name(target, node.ctx)
        attributes: list[str] = []
        target = _followed(target, self.package)
        while not self._known(target) and "." in target:
            target, _, last = target.rpartition(".")
            target = _followed(target, self.package)
            attributes.insert(0, last)
        if _defined(target, self.package):
            self.refers_to[target] = None
        named: ast.Name | ast.Attribute = ast.Name(target.rpartition(".")[2], ast.Load())
        for attribute in attributes:
            named = ast.Attribute(named, attribute, ast.Load())
        named.ctx = node.ctx
        return named

    def _known(self, target: str) -> bool:
        return _defined(target, self.package) or _is_module(target, self.package)
