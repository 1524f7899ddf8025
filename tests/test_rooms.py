"""The package's layout: which room uses which, and where the large libraries are known."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lrstudy

PACKAGE = Path(lrstudy.__file__).parent
BASE = ("checked", "errors", "files", "words")
LIBRARY = ("schedules", "controllers", "torch_schedule", "lr_finder")
ROOMS = (
    "base", "entries", "library", "recipe", "data", "training", "process", "tracking", "ledger", "search", "study",
    "analysis", "report", "theory", "commands",
)  # fmt: skip
"""In the order of docs/design.md: a room uses those before it. What a user types may use all."""


def modules() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(PACKAGE).with_suffix("")): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def room(module: str) -> str:
    if module in BASE:
        return "base"
    if module in LIBRARY:
        return "library"
    folder, slash, name = module.partition("/")
    return "commands" if not slash or name == "__main__" or folder == "stages" else folder


def imported(tree: ast.Module) -> Iterator[str]:
    """The names that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str, known: dict[str, ast.Module]) -> str | None:
    """The module of this package that an imported name is, or is of."""
    parts = name.split(".")[1:] if name.startswith("lrstudy.") else []
    for count in range(len(parts), 0, -1):
        path = "/".join(parts[:count])
        if path in known or f"{path}/__init__" in known:
            return path if path in known else f"{path}/__init__"
    return None


def test_a_room_uses_those_before_it():
    known = modules()
    upward = {
        (module, other)
        for module, tree in known.items()
        for name in imported(tree)
        if (other := own(name, known)) and ROOMS.index(room(other)) > ROOMS.index(room(module))
    }
    assert upward == set()


def test_the_rooms_are_those_of_the_map():
    text = (PACKAGE.parents[1] / "docs" / "design.md").read_text(encoding="utf-8")
    table = text[text.index("## The rooms") :].partition("\n## ")[0]
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert {
        line.split("`")[1].rstrip("/") for line in table.splitlines() if line.startswith("| `")
    } >= folders


@pytest.mark.parametrize(
    ("library", "importers"),
    [
        ("mlflow", {"tracking/store", "training/serving", "process/warm", "doctor"}),
        ("optuna", {"search/tuning", "study/plan", "process/warm"}),
        ("ray", {"process/parallel", "doctor"}),
        ("joblib", {"process/parallel"}),
        ("jinja2", {"report/sentences"}),
        ("rich", {"study/view"}),
        ("matplotlib", {"report/figures", "theory/figures"}),
        ("datasets", {"data/intake"}),
        ("torchvision", {"data/sources", "recipe/models"}),
        ("hydra", {"compose"}),
        ("dvc", {"compose", "doctor", "stages/trainings"}),
    ],
)
def test_a_large_library_is_known_in_few_places(library, importers):
    assert {
        module
        for module, tree in modules().items()
        if any(name.partition(".")[0] == library for name in imported(tree))
    } == importers
