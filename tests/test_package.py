"""The package as others install it: the sdist, the wheel, and the wheel alone in an empty environment."""

import ast
import email
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from lrstudy.errors import MissingPackage, brought_by

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13")

DOCTESTS = """
import doctest, importlib, importlib.util, sys

tried = failed = 0
torch = importlib.util.find_spec("torch") is not None
for name in sys.argv[1:]:
    for test in doctest.DocTestFinder().find(importlib.import_module(name)):
        asked = [number for number, one in enumerate(test.examples) if "import torch" in one.source]
        if asked and not torch:
            del test.examples[asked[0]:]
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
        tried, failed = tried + result.attempted, failed + result.failed
print(tried, failed)
"""
LIGHT = ("lrstudy.schedules", "lrstudy.controllers", "lrstudy.entries.parameters", "lrstudy.errors")

ORIGINS = """
import sys

before = set(sys.modules)
import lrstudy.schedules, lrstudy.controllers
brought = {sys.modules[name].__name__.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(brought - set(sys.stdlib_module_names)))
"""


def interpreter(version: str) -> str | None:
    """A Python of this version: the running one, one on the path, or one that pyenv has."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    there = [shutil.which(f"python{version}"), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))]
    for candidate in filter(None, there):  # pyenv has a shim of each version, also where it runs none
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def run(*command: object, **options: object) -> subprocess.CompletedProcess:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The sdist, and the wheel that was built from what it unpacks to."""
    project = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy2(ROOT / name, project)
    for name in ("src", "tests"):  # tests: to be left out
        shutil.copytree(
            ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", project / "dist", project)
    [sdist], [wheel] = (project / "dist").glob("*.tar.gz"), (project / "dist").glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module", params=VERSIONS)
def alone(request, built, tmp_path_factory) -> Path:
    """The Python of an environment that has the wheel and nothing else, not even pip."""
    if (python := interpreter(request.param)) is None:
        pytest.skip(f"this machine has no Python {request.param}")
    return environment(python, built[1], tmp_path_factory.mktemp("alone"))


def environment(python: str, wheel: Path, folder: Path) -> Path:
    run(python, "-m", "venv", "--without-pip", folder)
    made = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", made, "install", "--no-index", "--quiet", wheel)
    return made


def source_files() -> set[str]:
    return {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "lrstudy").rglob("*.py")}


def test_the_wheel_has_the_whole_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert source_files() <= names
    assert {name.partition("/")[0] for name in names} == {"lrstudy"}
    assert "lrstudy/py.typed" in names
    templates = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src").rglob("*.j2")}
    assert templates
    assert templates <= names


def test_the_sdist_has_the_source_and_no_half_of_the_tests(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"src/{name}" for name in source_files()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert not [name for name in names if name.startswith("tests")]


def test_the_metadata_ask_for_nothing_but_by_an_extra(built):
    with zipfile.ZipFile(built[1]) as wheel:
        [path] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(wheel.read(path))
    needed = metadata.get_all("Requires-Dist")
    assert [line for line in needed if "extra ==" not in line] == []
    assert {"torch", "plot", "study"} <= set(metadata.get_all("Provides-Extra"))
    assert metadata["Requires-Python"] == ">=3.11"


def test_installing_it_brings_one_package(alone):
    listed = "from importlib.metadata import distributions; print(*{d.name for d in distributions()})"
    assert run(alone, "-I", "-c", listed).stdout.split() == ["lrstudy"]


def test_the_schedules_import_python_alone(alone):
    assert run(alone, "-I", "-c", ORIGINS).stdout.split() == ["lrstudy"]


def test_the_examples_of_the_schedules_hold_without_torch(alone):
    tried, failed = map(int, run(alone, "-I", "-c", DOCTESTS, *LIGHT).stdout.split()[-2:])
    assert tried > 15
    assert failed == 0


def test_a_schedule_can_be_looked_at_without_the_study(alone, tmp_path):
    shown = run(
        alone, "-I", "-m", "lrstudy.preview", "cosine", "--epochs", "4", "--table", cwd=tmp_path
    ).stdout.splitlines()
    assert [line.split() for line in shown[1:]] == [
        ["0", "1"], ["1", "0.853553"], ["2", "0.5"], ["3", "0.146447"], ["4", "0"],
    ]  # fmt: skip


def modules() -> dict[str, ast.Module]:
    """Every module by its name; a package's ``__main__`` by the package's."""
    return {
        name.removesuffix(".py").removesuffix("/__main__").replace("/", "."): ast.parse(
            (ROOT / "src" / name).read_text(encoding="utf-8")
        )
        for name in sorted(source_files())
        if not name.endswith("__init__.py")
    }


def commands() -> list[str]:
    """What is for ``python -m``: the modules that do something when they are the main one."""
    server = "lrstudy.process.warm"  # started by stages, with an address
    found = [
        name
        for name, tree in modules().items()
        if name != server
        and any(isinstance(one, ast.If) and "__main__" in ast.unparse(one.test) for one in tree.body)
    ]
    assert {"lrstudy.why", "lrstudy.ledger", "lrstudy.report", "lrstudy.stages.train"} <= set(found)
    return found


WORK_ALONE = {"lrstudy.preview", "lrstudy.doctor"}


@pytest.mark.parametrize("command", sorted({*commands()} - WORK_ALONE))
def test_a_command_of_the_study_says_in_a_line_what_to_install(alone, command, tmp_path):
    done = subprocess.run(
        [alone, "-I", "-m", command], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout == ""
    assert re.fullmatch(
        r"error: lrstudy[.\w]+: No module named '\w+'\. Install .*pip install 'lrstudy\[study\]'.*\n",
        done.stderr,
    )
    assert done.returncode == 2


def test_the_doctor_examines_an_environment_without_packages(alone, tmp_path):
    done = subprocess.run(
        [alone, "-I", "-m", "lrstudy.doctor"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "No module named 'torch'" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["cosine", "-o", "cosine.png"], "matplotlib", "plot"),
        (["--all", "-o", "all.svg"], "matplotlib", "plot"),
        (["--parity"], "torch", "torch"),
    ],
)
def test_a_picture_says_what_to_install(alone, arguments, package, extra, tmp_path):
    done = subprocess.run(
        [alone, "-I", "-m", "lrstudy.preview", *arguments],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == ""
    assert re.fullmatch(
        rf"error: .*No module named '{package}'\..* pip install 'lrstudy\[{extra}\]'.*\n", done.stderr
    )
    assert done.returncode == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "package", "extra"),
    [
        ("import lrstudy.torch_schedule", "torch", "torch"),
        ("import lrstudy.lr_finder", "torch", "torch"),
        ("import lrstudy.parity", "torch", "torch"),
        (
            "from lrstudy.schedules import *; as_torch_scheduler(None, make_schedule('cosine', 2), 1)",
            "torch",
            "torch",
        ),
        ("from lrstudy.report.figures import *; style()", "matplotlib", "plot"),
        ("from lrstudy.report.figures import *; new_figure()", "matplotlib", "plot"),
    ],
)
def test_an_import_that_fails_says_what_to_install(alone, code, package, extra):
    caught = f"try:\n    {code}\nexcept ImportError as error:\n    print(error.name, error)"
    name, sentence = run(alone, "-I", "-c", caught).stdout.split(" ", 1)
    assert name == package
    assert f"No module named '{package}'." in sentence
    assert f"pip install 'lrstudy[{extra}]'" in sentence


def test_what_is_said_to_be_brought_by_an_extra_is(built):
    with zipfile.ZipFile(built[1]) as wheel:
        [path] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        needed = email.message_from_bytes(wheel.read(path)).get_all("Requires-Dist")
    brought = {  # pairs of extra and distribution
        (re.search(r"extra == [\"'](\w+)", line)[1], re.match(r"[\w.-]+", line)[0]) for line in needed
    }
    said = {
        (block.items[0].context_expr.args[0].value, name.partition(".")[0])
        for tree in modules().values()
        for block in ast.walk(tree)
        if isinstance(block, ast.With) and ast.unparse(block.items[0]).startswith("brought_by(")
        for node in block.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert said == {("torch", "torch"), ("plot", "matplotlib")}
    assert said <= brought


@pytest.mark.parametrize("package", ["pydantic", "numpy", "yaml", "pydantic_core"])
def test_a_broken_installation_names_what_it_lacks(built, package, tmp_path):
    """The wheel with all that is installed here but one package, which may be one that another needs."""
    python = environment(sys.executable, built[1], tmp_path / "environment")
    [packages] = (tmp_path / "environment").glob("lib/python*/site-packages")
    others = tmp_path / "others"
    others.mkdir()
    for path in Path(importlib.util.find_spec("torch").origin).parents[1].iterdir():
        if path.name != package and not path.name.startswith("lrstudy"):
            (others / path.name).symlink_to(path)
    (packages / "behind.pth").write_text(str(others))
    for command in ("why", "stages.train"):
        done = subprocess.run(
            [python, "-I", "-m", f"lrstudy.{command}"],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode > 0
        assert f"No module named '{package}'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("importer", "package"),
    [
        ("strange.networks", "gone_package"),  # somebody's own code
        ("pydantic.main", "gone_core"),
        ("lrstudy.files", "fcntl.gone"),
        ("lrstudy.study.plan", "lrstudy.gone"),
    ],
)
def test_an_import_that_no_extra_mends_fails_as_it_is(importer, package):
    with pytest.raises(ModuleNotFoundError, match="No module named") as caught, brought_by("study"):
        exec(f"import {package}", {"__name__": importer})
    assert not isinstance(caught.value, MissingPackage)


def test_the_innermost_extra_is_the_one_that_is_said():
    said = r"^lrstudy\.here: .*lrstudy\[plot\]"
    with pytest.raises(MissingPackage, match=said), brought_by("study"), brought_by("plot"):
        exec("import gone_package", {"__name__": "lrstudy.here"})


def test_the_examples_hold_with_torch(built, tmp_path):
    python = environment(sys.executable, built[1], tmp_path / "environment")
    [packages] = (tmp_path / "environment").glob("lib/python*/site-packages")
    # Behind the wheel: the packages that torch is among here, and not this checkout.
    [torch] = importlib.util.find_spec("torch").submodule_search_locations
    (packages / "behind.pth").write_text(str(Path(torch).parent))
    found = run(python, "-I", "-c", "import lrstudy.schedules as s, torch; print(s.__file__)").stdout
    assert str(packages) in found
    modules = (*LIGHT, "lrstudy.torch_schedule")
    tried, failed = map(int, run(python, "-I", "-c", DOCTESTS, *modules).stdout.split()[-2:])
    assert tried > 25
    assert failed == 0
