"""What a training is known by: which edits of the real modules make which trainings stale."""

import ast
import copy
import functools
import json
import math
import re
import shutil
from pathlib import Path

import pytest

from lrstudy.controllers import CONTROLLERS
from lrstudy.entries import meaning
from lrstudy.errors import StudyError
from lrstudy.recipe import identity
from lrstudy.recipe.identity import (
    code_behind,
    content_hash,
    training_code,
    training_definitions,
    training_identity,
)
from lrstudy.recipe.networks import architectures, arguments_of
from lrstudy.recipe.optimizers import OPTIMIZERS
from lrstudy.schedules import SCHEDULES
from tiny_data import settings

ROOT = Path(identity.__file__).parents[1]
NETWORKS = tuple(architectures())


def read_again() -> None:
    for function in (meaning._module, meaning._meaning, meaning._file, identity._loop, identity._entry):
        function.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def _parsed_once():
    """A file whose content was read before is not parsed again: what a module has follows from that alone."""
    read = meaning._Module
    parsed = functools.cache(lambda name, content: read(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meaning, "_Module", lambda name: parsed(name, meaning._file(name).read_bytes()))
        yield
    read_again()


@pytest.fixture
def copied(tmp_path, monkeypatch) -> Path:
    """A copy of the package that is read in its place."""
    folder = tmp_path / "lrstudy"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(meaning, "_root", lambda: folder)
    read_again()
    yield folder
    read_again()


def a_training(schedule="cosine", controller="none", optimizer="sgd", network="lstm") -> dict:
    base = settings("lstm", schedule={"function": schedule})
    return base | {
        "controller": {"name": controller},
        "optimizer": {"name": optimizer, "base_lr": 0.1},
        "model": {"architecture": network},
    }


TRAININGS = {
    **{name: a_training(schedule=name) for name in SCHEDULES},
    **{name: a_training(controller=name) for name in CONTROLLERS},
    **{name: a_training(optimizer=name) for name in OPTIMIZERS},
    **{name: a_training(network=name) for name in NETWORKS},
}
"""One for every entry of every registry; the others are cosine, none, sgd and lstm."""


def codes() -> dict[str, dict]:
    read_again()
    return {name: training_code(chosen) for name, chosen in TRAININGS.items()}


@pytest.fixture(scope="module")
def before() -> dict[str, dict]:
    """The code of every training as it is."""
    return codes()


def stale(before: dict[str, dict]) -> set[str]:
    """The trainings whose code means something else than ``before``."""
    return {name for name, code in codes().items() if code != before[name]}


def dotted(module: str) -> str:
    """The name of a module that is given by its path in the package."""
    return f"lrstudy.{module.replace('/', '.')}"


def edit(folder: Path, module: str, *changes: tuple[str, str]) -> None:
    path = folder / f"{module}.py"
    text = path.read_text()
    for old, new in changes:
        assert text.count(old) >= 1, f"{module} has no {old!r}"
        text = text.replace(old, new)
    ast.parse(text)
    path.write_text(text)


MODULES = (
    "controllers", "entries/parameters", "recipe/models", "recipe/muon", "recipe/networks", "recipe/optimizers",
    "schedules", "training/averages", "training/batches", "training/devices", "training/evaluation", "training/loop",
    "training/measures",
)  # fmt: skip
"""Every module that a training's code comes from."""


# ------------------------------------------------------------------------------------- what makes nothing stale


def commented(source: str) -> str:
    """A comment before every statement of the module, and after many a line."""
    text = re.sub(r"^(?=(def|class|@|[A-Z_a-z]+ = ))", "# explained\n", source, flags=re.MULTILINE)
    return text.replace("return ", "return (  # explained\n    ", 0)


def reformatted(source: str) -> str:
    """As Python itself writes the syntax tree: other line breaks, quotes and parentheses, no comments."""
    return ast.unparse(ast.parse(source))


class _Redocumented(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:]
            node.body.insert(0, ast.Expr(ast.Constant("Says it otherwise.")))
        return node


class _Retyped(ast.NodeTransformer):
    def visit_Lambda(self, node: ast.Lambda) -> ast.Lambda:
        return node  # has no annotations

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None if node.returns else ast.Name("object", ast.Load())
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None if node.annotation else ast.Name("object", ast.Load())
        return node


class _Reworded(ast.NodeTransformer):
    """What errors say."""

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        if isinstance(node.exc, ast.Call) and node.exc.args:
            node.exc.args = [ast.Constant("In other words.")]
        return node


HARMLESS = {
    "comments": commented,
    "formatting": reformatted,
    "docstrings": lambda source: ast.unparse(
        ast.fix_missing_locations(_Redocumented().visit(ast.parse(source)))
    ),
    "annotations": lambda source: ast.unparse(ast.fix_missing_locations(_Retyped().visit(ast.parse(source)))),
    "the words of errors": lambda source: ast.unparse(_Reworded().visit(ast.parse(source))),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_an_edit_for_readers_in_every_module_leaves_every_identity_as_it_was(copied, before, change):
    changed = 0
    for path in (copied / f"{module}.py" for module in MODULES):
        source = path.read_text()
        text = change(source)
        changed += text != source
        path.write_text(text)
    assert changed >= 7  # devices may have nothing of the kind
    assert stale(before) == set()


def test_the_modules_of_the_loop_are_all_that_a_training_uses():
    used = {
        one.own
        for chosen in TRAININGS.values()
        for part in training_definitions(chosen).values()
        for one in part
    }
    modules = {
        str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.rglob("*.py") if path.stem[:2] != "__"
    }
    assert set(MODULES) == {
        module
        for module in modules
        for name in meaning._module(dotted(module)).statements
        if meaning._meaning(f"{dotted(module)}.{name}").own in used
        or any(
            meaning._meaning(f"{dotted(module)}.{name}", registry).own in used
            for registry, _ in identity.REGISTRIES.values()
        )
    }


def move(folder: Path, source: str, target: str, *names: str, imports: str = "") -> None:
    """Move definitions to another module, and import them where they were."""
    path = folder / f"{source}.py"
    tree = ast.parse(path.read_text())
    moved = [
        node
        for node in tree.body
        if getattr(node, "name", None) in names
        or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in names)
    ]
    assert len(moved) == len(names)
    (folder / f"{target}.py").write_text(f"{imports}\n" + "\n".join(map(ast.unparse, moved)))
    tree.body = [node for node in tree.body if node not in moved]
    path.write_text(f"from {dotted(target)} import {', '.join(names)}\n" + ast.unparse(tree))


def test_a_function_moved_to_another_file_makes_nothing_stale(copied, before):
    move(
        copied,
        "schedules",
        "arithmetic",
        "_half_cosine",
        "_floor",
        imports="import math\nfrom lrstudy.entries.parameters import _TOLERANCE",
    )
    move(
        copied,
        "training/evaluation",
        "metrics",
        "accuracy_and_f1",
        "cross_entropy",
        imports="import numpy as numbers",
    )
    metrics = copied / "metrics.py"
    metrics.write_text(metrics.read_text().replace("np.", "numbers."))
    move(
        copied, "training/batches", "texts", "TextSplit",
        imports="import copy\nimport numpy as np\nimport torch\nfrom lrstudy.training.batches import _SORT_WINDOW, _LENGTH_STEP, full_batches",
    )  # fmt: skip
    move(
        copied, "recipe/models", "recurrent", "LSTM",
        imports="import torch\nimport torch.nn as nn\nfrom lrstudy.recipe.models import WordDropout, make_embedding, network",
    )  # fmt: skip
    move(
        copied, "schedules", "annealing", "cosine",
        imports="from lrstudy.schedules import schedule, _MIN_FACTOR, _TO_THE_END\nfrom lrstudy.arithmetic import _half_cosine",
    )  # fmt: skip
    move(
        copied, "training/batches", "shares", "take_share", imports="import numpy as np",
    )  # fmt: skip
    assert stale(before) == set()


ADDED = {
    "a schedule": (
        "schedules",
        "\n\n@schedule(power=Number(1.0, 'exponent', 'number', gt=0))\n"
        "def sqrt_decay(t: float, num_epochs: float, *, power: float) -> float:\n"
        "    return (1.0 - t / num_epochs) ** (power / 2)\n",
    ),
    "a network": ("recipe/models", "\n\n@network('gru')\nclass GRU(nn.Module):\n    def __init__(self, num_classes): pass\n"),
    "an optimizer": (
        "recipe/optimizers",
        "] = {\n    \"sgd\"",
        "] = {\n    'lion': OptimizerSpec('lion.Lion', _DECAY),\n    \"sgd\"",
    ),
    "a controller": (
        "controllers",
        "CONTROLLERS: dict",
        "class Restless(Controller):\n    name = 'restless'\n\n\nCONTROLLERS: dict",
    ),
    "a controller's entry": ("controllers", '"none": Controller,', '"none": Controller, "restless": LossDecay,'),
}  # fmt: skip


@pytest.mark.parametrize("change", ADDED.values(), ids=ADDED)
def test_what_is_added_makes_nothing_stale(copied, before, change):
    module, *change = change
    if len(change) == 1:
        path = copied / f"{module}.py"
        path.write_text(path.read_text() + change[0])
    else:
        edit(copied, module, tuple(change))
    assert stale(before) == set()


# ------------------------------------------------------------------------------------------- what makes some stale

WITH_COSINE = set(TRAININGS) - (set(SCHEDULES) - {"cosine"})
WITH_LSTM = set(TRAININGS) - (set(NETWORKS) - {"lstm"})
TEXT_NETWORKS = {name for name in NETWORKS if "vocab_size" in arguments_of(name)}
WITH_SGD = set(TRAININGS) - (set(OPTIMIZERS) - {"sgd"})
WITH_NONE = set(TRAININGS) - (set(CONTROLLERS) - {"none"})
ALL = set(TRAININGS)

STALE = [
    ("the formula of cosine", "schedules", ("_half_cosine(t / num_epochs)", "_half_cosine(t / num_epochs) ** 2"), WITH_COSINE),
    ("the formula of exponential", "schedules", ("return math.exp(-decay_rate * t)", "return math.exp(decay_rate * t)"), {"exponential"}),
    ("a helper of several", "schedules", ("math.cos(math.pi * share)", "math.cos(math.pi * share**2)"), WITH_COSINE | {"cosine_restarts", "cyclical", "late_decay", "one_cycle_cosine", "piecewise"}),
    ("a window", "schedules", ('"welch": lambda x: 1.0 - x * x', '"welch": lambda x: 1.0 - x'), {"cyclical"}),
    ("how cycles are counted", "schedules", ("period * period_mult**cycle", "period * period_mult**(cycle + 1)"), {"cosine_restarts", "restarts"}),
    ("the monitor", "controllers", ("self.num_bad_epochs += 1", "self.num_bad_epochs += 2"), {"validation_monitor"}),
    ("what all controllers are", "controllers", ("self.factor = 1.0", "self.factor = 0.5"), ALL),
    ("adam's options", "recipe/optimizers", ('"torch.optim.Adam", _BETAS', '"torch.optim.RAdam", _BETAS'), {"adam"}),
    ("a shared option", "recipe/optimizers", ('"beta2": _coefficient(0.999)', '"beta2": _coefficient(0.99)'),
     {name for name, one in OPTIMIZERS.items() if "beta2" in one.options}),
    ("the LSTM", "recipe/models", ("features.amax(dim=1)", "features.mean(dim=1)"), WITH_LSTM),
    ("attention", "recipe/models", ("attn_mask=mask)", "attn_mask=None)"), {"transformer"}),
    ("the embedding of both text models", "recipe/models", ("std=embedding_size**-0.5)\n    with", "std=1.0)\n    with"), WITH_LSTM | TEXT_NETWORKS),
    ("the ResNet's block", "recipe/models", ("self.norm2(self.conv2(y)).add_", "self.norm2(self.conv1(y)).add_"), {"resnet"}),
    ("the loop", "training/loop", ("lr = base_lr * controller.factor", "lr = base_lr / controller.factor"), ALL),
    ("what the loop begins with", "training/loop", ("torch.set_flush_denormal(True)", "torch.set_flush_denormal(False)"), ALL),
    ("the batches of images", "training/batches", ("randint(0, 2 * padding + 1", "randint(0, 2 * padding"), ALL),
    ("the batches of texts", "training/batches", ("_SORT_WINDOW = 50", "_SORT_WINDOW = 40"), ALL),
    ("the share of the data", "training/batches", ("default_rng(0)", "default_rng(1)"), ALL),
    ("the evaluation", "training/evaluation", ("losses.std()", "losses.var()"), ALL),
    ("the test metrics", "training/evaluation", ('average="macro"', 'average="micro"'), ALL),
    ("the warmup", "schedules", ("schedule(0.0) * _line(self.start_factor, 1.0", "schedule(0.0) * _line(self.start_factor, 0.9"), ALL),
    ("how a schedule is called", "schedules", ("return factory.formula(_checked", "return 2 * factory.formula(_checked"), ALL),
    ("how an entry becomes a schedule", "schedules", ("Factory(name, formula, parameters, problem, kind", "Factory(name, lambda *a, **k: 2 * formula(*a, **k), parameters, problem, kind"), ALL),
    ("the logits on test data", "training/evaluation", ("**measure(logits, arrays", "**measure(-logits, arrays"), ALL),
    ("mixed precision", "training/devices", ("enabled=dtype != torch.float32", "enabled=True"), ALL),
    ("weight decay's groups", "recipe/optimizers", ("if p.ndim >= 2]", "if p.ndim >= 1]"), ALL),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "change", "expected"), [case[1:] for case in STALE], ids=[case[0] for case in STALE]
)
def test_a_formula_makes_its_own_trainings_stale_and_the_loop_all(copied, before, module, change, expected):
    edit(copied, module, change)
    assert stale(before) == expected


def test_only_the_part_that_changed_is_another_one(copied, before):
    edit(copied, "schedules", ("_half_cosine(t / num_epochs)", "_half_cosine(t / num_epochs) ** 2"))
    after = codes()["cosine"]
    assert {part for part, known in before["cosine"].items() if known != after[part]} == {"schedule"}


# -------------------------------------------------------------------------------------------- settings and data


def leaves(node: dict, path: tuple = ()) -> list[tuple]:
    return [
        leaf
        for key, value in node.items()
        for leaf in (leaves(value, (*path, key)) if isinstance(value, dict) else [(*path, key)])
    ]


@pytest.mark.parametrize("model", ["resnet", "lstm", "transformer"])
def test_the_identity_follows_every_setting_the_data_and_every_part_of_the_code(model):
    chosen = settings(model, optimizer={"name": "adamw", "base_lr": 0.1, "weight_decay": 0.0})
    code = training_code(chosen)
    identities = {training_identity(chosen, "data", code)}
    for path in leaves(chosen):
        changed = copy.deepcopy(chosen)
        node = changed
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = "changed"
        identities.add(training_identity(changed, "data", code))
    identities.add(training_identity(chosen, "other data", code))
    for part in code:
        identities.add(training_identity(chosen, "data", code | {part: "0" * 64}))
    assert len(identities) == 1 + len(leaves(chosen)) + 1 + len(code)
    assert set(code) == {"loop", "schedule", "controller", "optimizer", "network"}
    reordered = json.loads(json.dumps(dict(reversed(chosen.items()))))
    assert training_identity(reordered, "data", code) == training_identity(chosen, "data", code)
    rate = chosen | {"optimizer": {"name": "adamw", "base_lr": math.nextafter(0.1, 1), "weight_decay": 0.0}}
    assert training_identity(rate, "data", code) not in identities


def test_the_identity_is_the_sha256_of_settings_data_and_code():
    chosen = settings()
    code = training_code(chosen)
    found = training_identity(chosen, "data", code)
    assert found == content_hash({"code": code, "data": "data", "settings": chosen})
    assert re.fullmatch("[0-9a-f]{64}", found)


def test_versions_and_processors_are_no_part_of_it(monkeypatch):
    chosen = settings()
    before = training_identity(chosen, "data", training_code(chosen))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    monkeypatch.setattr("platform.processor", lambda: "another")
    read_again()
    assert training_identity(chosen, "data", training_code(chosen)) == before


def test_every_entry_has_a_code_of_its_own():
    for part, registry in {
        "schedule": SCHEDULES, "controller": CONTROLLERS, "optimizer": OPTIMIZERS, "network": NETWORKS,
    }.items():  # fmt: skip
        known = {TRAININGS_OF[part](name)[part] for name in registry}
        assert len(known) == len(list(registry)), part


TRAININGS_OF = {
    "schedule": lambda name: training_code(a_training(schedule=name)),
    "controller": lambda name: training_code(a_training(controller=name)),
    "optimizer": lambda name: training_code(a_training(optimizer=name)),
    "network": lambda name: training_code(a_training(network=name)),
}


def test_the_machinery_is_no_part_of_what_a_stage_computes(copied):
    def behind() -> dict:
        read_again()
        return {
            name: meaning.digest(code_behind(f"lrstudy.stages.{name}.main"))
            for name in ("train", "evaluate", "tune", "compare")
        }

    before = behind()
    edit(copied, "tracking/store", ("_METRICS_PER_REQUEST = 1000", "_METRICS_PER_REQUEST = 500"))
    edit(copied, "process/parallel", ("timeout=60", "timeout=61"))
    edit(copied, "study/view", ("refresh_per_second=2", "refresh_per_second=3"))
    edit(copied, "study/engine", ("maxlen=25", "maxlen=26"))
    edit(copied, "files", ("indent=1", "indent=2"))
    assert behind() == before
    edit(
        copied,
        "analysis/comparison",
        ("effect=summary and summary.mean", "effect=summary and 2 * summary.mean"),
    )
    assert {name for name, found in behind().items() if found != before[name]} == {"compare"}


def test_lists_of_code_that_matters_name_what_is_there():
    for name in (*identity.MACHINERY, *identity._NOT_FOLLOWED, *identity.LOOP):
        assert meaning._is_module(name) or meaning._defined(name), name


def test_what_a_training_takes_from_the_machinery_is_how_errors_are_raised():
    """A function of the loop that moves there would be out of sight."""
    machinery = {name for name in identity.MACHINERY if meaning._is_module(name)}
    used = {
        other
        for root in (*identity.LOOP, *(f"{dotted(module)}.{name}" for module in MODULES for name in meaning._module(dotted(module)).statements))
        for other in meaning._meaning(root).refers_to
        if any(other.startswith(f"{module}.") for module in machinery)
    }  # fmt: skip
    assert used == {
        *("lrstudy.errors.StudyError", "lrstudy.errors.unknown"),
        *(f"lrstudy.entries.outside.{name}" for name in ("is_outside", "load", "told_whose")),
        *(
            f"lrstudy.entries.meaning.{name}" for name in ("definition_outside", "entries")
        ),  # where a name is looked up
    }


def test_an_entry_that_is_not_there_has_no_code():
    with pytest.raises(StudyError, match=r"lrstudy\.schedules: SCHEDULES has no entry 'cosin'"):
        training_code(a_training(schedule="cosin"))
