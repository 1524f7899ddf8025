"""What is imported is declared, what is declared is used, and the lock has a version of everything."""

import ast
import functools
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NOT_IMPORTED = {
    "ruamel-yaml-clib": "makes DVC read its lock file in C",
    "schedulefree": "imported by name in optimizers.py",
    "prodigyopt": "imported by name in optimizers.py",
    "pandas": "what scikit-posthocs returns, and what tests read results with",
    "pytest-xdist": "`make test` runs on all cores with it",
    "build": "makes the sdist and the wheel",
    "ruff": "`make check`",
    "mypy": "`make check`",
    "pandas-stubs": "types for mypy",
    "types-pyyaml": "types for mypy",
}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def by_name(lines: list[str]) -> dict[str, Requirement]:
    """The requirements by canonical name."""
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def locked() -> dict[str, Requirement]:
    """The lock's."""
    return by_name((ROOT / "requirements.lock").read_text().splitlines())


def imported(*folders: str) -> dict[str, set[str]]:
    """Top-level modules that code in the folders imports, anywhere in it: module -> files."""
    modules: dict[str, set[str]] = {}
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module]
                for name in names:
                    modules.setdefault(name.partition(".")[0], set()).add(str(path.relative_to(ROOT)))
    return modules


@functools.cache
def outsiders(*folders: str) -> dict[tuple[str, ...], set[str]]:
    """Imports that are neither Python's own nor this repository's: the distributions that have it -> files."""
    here = {
        "hydra_plugins",
        "lrstudy",
        *(path.stem for name in ("tests", "benchmarks") for path in (ROOT / name).glob("*.py")),
    }
    providers = packages_distributions()
    found: dict[tuple[str, ...], set[str]] = {}
    for module, files in imported(*folders).items():
        if module not in sys.stdlib_module_names and module not in here:
            names = tuple(sorted({canonicalize_name(name) for name in providers.get(module, [module])}))
            found.setdefault(names, set()).update(files)
    return found


def undeclared(used: dict[tuple[str, ...], set[str]], known: set[str]) -> dict[tuple[str, ...], set[str]]:
    """What none of the ``known`` distributions provides."""
    return {names: files for names, files in used.items() if not known & set(names)}


EXTRAS = {name: by_name(lines) for name, lines in PROJECT["optional-dependencies"].items()}
RUN, DEVELOP = EXTRAS["study"], EXTRAS["dev"]
OPTIONAL = (
    EXTRAS["ray"].keys() | EXTRAS["postgresql"].keys() | EXTRAS["peers"].keys()
)  # imported where the configuration asks for it


def test_every_import_of_the_package_is_a_declared_dependency():
    used = outsiders("src", "hydra_plugins")
    assert undeclared(used, RUN.keys() | OPTIONAL) == {}
    assert undeclared(used, RUN.keys() - {"torch"} | OPTIONAL).keys() == {("torch",)}


def test_every_import_of_the_tests_is_a_declared_dependency():
    used = outsiders("tests", "benchmarks")
    assert undeclared(used, RUN.keys() | DEVELOP.keys() | OPTIONAL) == {}


def test_every_declared_dependency_is_used():
    used = {name for names in outsiders("src", "hydra_plugins") for name in names} | NOT_IMPORTED.keys()
    assert RUN.keys() - used == set()
    tested = {name for names in outsiders("tests", "benchmarks") for name in names} | NOT_IMPORTED.keys()
    assert DEVELOP.keys() - tested == set()
    assert NOT_IMPORTED.keys() - RUN.keys() - DEVELOP.keys() == set()


def test_the_package_itself_needs_nothing():
    assert PROJECT["dependencies"] == []


def test_the_lock_pins_and_every_range_has_two_ends_with_the_locked_version_between_them():
    lock = locked()
    lines = (ROOT / "requirements-peers.txt").read_text().splitlines()
    peers = by_name([line for line in lines if not line.startswith("#")])
    assert peers.keys() == EXTRAS["peers"].keys()
    assert all(re.fullmatch(r"==[\w.+]+", str(pin.specifier)) for pin in lock.values())
    for extra, requirements in EXTRAS.items():
        for name, requirement in requirements.items():
            assert re.fullmatch(r"<\d+,>=[\d.]+", str(requirement.specifier)), (extra, str(requirement))
            if extra != "postgresql":  # not installed by `make setup`
                [version] = (peers if extra == "peers" else lock)[name].specifier
                assert requirement.specifier.contains(version.version), (extra, str(requirement))


def test_what_the_schedules_are_extended_with_is_part_of_the_study():
    for extra in ("torch", "plot"):
        assert EXTRAS[extra].keys() <= RUN.keys()


def test_the_lock_has_every_package_that_the_declared_ones_need():
    lock, missing = locked(), set()
    ours = {"lrstudy", "pip", "setuptools", "wheel"}
    reached, waiting = set(), [*RUN, *DEVELOP]
    while waiting:
        name = waiting.pop()
        if name in reached | ours:
            continue
        reached.add(name)
        if name not in lock:
            missing.add(name)
        try:
            needed = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue  # not for this platform
        waiting += [
            canonicalize_name(r.name) for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})
        ]
    assert missing == set()


@pytest.mark.parametrize("place", ["scripts/setup.sh", "scripts/audit.sh"])
def test_setup_and_audit_go_by_the_lock(place):
    assert "requirements.lock" in (ROOT / place).read_text()


def test_requirements_txt_is_the_study_in_the_locked_versions():
    """`pip install -r requirements.txt`, by which many look for what a project needs."""
    lines = [
        line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")
    ]
    assert lines == ["-c requirements.lock", "-e .[study]"]


def test_setup_brings_what_builds_the_package_before_it_builds():
    """pip keeps an older setuptools that a new environment came with, unless it is told which is needed."""
    [needed] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"][
        "requires"
    ]
    assert f"'{needed}'" in (ROOT / "scripts/setup.sh").read_text()
