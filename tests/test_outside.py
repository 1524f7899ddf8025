"""Code of other packages: found by name, known by its meaning, and named in every error."""

import copy
import math
import pickle
import sys
import textwrap
from pathlib import Path

import pytest

from lrstudy.controllers import find as find_controller
from lrstudy.controllers import make_controller
from lrstudy.entries import meaning
from lrstudy.entries.outside import is_outside
from lrstudy.entries.signatures import signature
from lrstudy.errors import StudyError
from lrstudy.recipe import identity
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import check_params
from lrstudy.recipe.identity import training_code
from lrstudy.recipe.networks import arguments_of, check_sizes
from lrstudy.recipe.networks import parameters_of as parameters_of_network
from lrstudy.recipe.optimizers import check_options, make_optimizer
from lrstudy.schedules import forms_of, make_schedule, moves, parameters_of, resolve_parameters
from tiny_data import dataset, settings

RATES = '''
"""Rates."""
from stranger.shapes import line


def knee(t: float, num_epochs: float, *, knee=0.5):
    """Says something."""
    return min(1.0, line(t / num_epochs) / (1 - knee))


def other(t, num_epochs):
    return 1.0
'''
SHAPES = "def line(share):\n    return 1 - share\n"
NETS = """
from typing import Annotated
import torch
from torch import nn
from lrstudy.entries.parameters import Choice, Count, Number


class Wide(nn.Module):
    def __init__(self, num_classes: int, in_channels: int, width: Annotated[int, Number(ge=8, step=6, whole=True)],
                 layers: Count = 1, pool: "Annotated[str, Choice(None, 'how', ('mean', 'max'))]" = "mean", act=nn.ReLU):
        super().__init__()
        if layers > 9:
            raise ValueError("too deep")
        self.out = nn.Linear(in_channels, num_classes)

    def forward(self, images):
        return self.out(images.mean(dim=(2, 3)))


class Wider(Wide):
    pass


def flat(num_classes, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size[0] * image_size[1], num_classes))


def wrong(num_classes):
    return nn.Flatten()


def breaks(num_classes):
    class Breaks(nn.Flatten):
        def forward(self, images):
            return self.missing(images)
    return Breaks()


def nothing(num_classes):
    return 3
"""
OPTIM = """
import torch


class Sign(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, betas=(0.9, 0.99), *, weight_decay=0.0, centred=False):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                weight.sub_(group["lr"] * (weight.grad.sign() + group["weight_decay"] * weight))


class Layered(Sign):
    @staticmethod
    def parameter_groups(model, weight_decay):
        first, *rest = model.children()
        return [
            {"params": [*first.parameters()], "lr": 0.01},
            {"params": [p for layer in rest for p in layer.parameters()], "weight_decay": weight_decay},
        ]


class Rateless(torch.optim.Optimizer):
    def __init__(self, params, speed=1.0):
        super().__init__(params, dict(speed=speed))
"""
CONTROL = """
from lrstudy.controllers import Controller
from lrstudy.entries.parameters import Number


class Halve(Controller):
    parameters = {"share": Number(0.5, "what is left", "factor", gt=0, le=1)}

    def after_epoch(self, *, epoch, train_loss, validation_loss, gradient_norm):
        self.factor *= self.params["share"]
"""


def read_again() -> None:
    for function in (meaning._module, meaning._meaning, meaning._file, identity._entry, signature):
        function.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("stranger", "lone")]:
        del sys.modules[name]


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A package in the working folder; returns a function that writes modules of it: name -> source."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(**modules: str) -> None:
        for name, source in modules.items():
            (tmp_path / "stranger" / f"{name}.py").write_text(source)
        read_again()

    (tmp_path / "stranger").mkdir()
    write(rates=RATES, shapes=SHAPES, nets=NETS, optim=OPTIM, control=CONTROL)
    yield write
    read_again()


# ------------------------------------------------------------------------------------------------------- schedules


def test_a_plain_function_is_a_schedule_with_the_parameters_of_its_signature(stranger):
    name = "stranger.rates:knee"
    assert parameters_of(name) == {"knee": 0.5}
    assert resolve_parameters(name, 10, knee=0.75) == {"knee": 0.75}
    assert forms_of(name) == {}
    schedule = make_schedule(name, 12, warmup_epochs=2, knee=0.75)
    assert schedule(7) == 1.0
    assert schedule(12) == 0.0
    assert schedule(10) == pytest.approx((1 - 8 / 10) / 0.25)
    assert moves(name, 3)
    assert not moves("stranger.rates:other", 3)
    with pytest.raises(
        StudyError, match=r"schedule stranger\.rates:knee: 'nee' is not a parameter.*'knee'\?"
    ):
        make_schedule(name, 10, nee=1)
    with pytest.raises(StudyError, match=r"stranger\.rates:knee: knee is 'much', not a finite number"):
        make_schedule(name, 10, knee="much")


def test_a_decorated_function_says_what_its_parameters_may_be_and_takes_no_name_of_ours(stranger):
    from lrstudy.schedules import SCHEDULES

    before = dict(SCHEDULES)
    stranger(
        rates="from lrstudy.entries.parameters import Number\nfrom lrstudy.schedules import schedule\n\n"
        "@schedule(knee=Number(0.5, 'when', 'share', ge=0, lt=1))\n"
        "def cosine(t, num_epochs, *, knee):\n    return (1 - t / num_epochs) * knee\n"
    )
    assert make_schedule("stranger.rates:cosine", 10, knee=0.5)(5) == 0.25
    assert before == SCHEDULES
    with pytest.raises(
        StudyError, match=r"stranger\.rates:cosine: knee is 1; allowed: 0 <= knee < 1 \(when, share\)"
    ):
        make_schedule("stranger.rates:cosine", 10, knee=1)


MISTAKES = {
    "a module that is not there": ("stranger.rate:knee", None, r"module stranger\.rate not found: looked for stranger/rate\.py in "),
    "a package that is not there": ("strange.rates:knee", None, r"module strange\.rates not found: looked for strange in .* must be importable from the repository's root or installed\.$"),
    "a name that is not there": ("stranger.rates:nee", None, r"'nee' is not defined in .*rates\.py, as a schedule has to be; choose one of knee, other\. Did you mean 'knee'\?"),
    "no name of code": ("stranger/rates.py:knee", None, r"write code of another package as package\.module:name"),
    "ours": ("lrstudy.schedules:cosine", None, "by its short name"),
    "a module that raises": ("stranger.rates:knee", "1 / 0\n" + RATES, r"stranger\.rates:knee: the import of stranger\.rates raised ZeroDivisionError: division by zero \(.*rates\.py, line 1\)\.$"),
    "a module that is no Python": ("stranger.rates:knee", "def knee(:\n", r"stranger\.rates:knee: the import of stranger\.rates raised SyntaxError.*rates\.py, line 1\)"),
    "a package that the module lacks": ("stranger.rates:knee", "import gone_package\n", r"raised ModuleNotFoundError: No module named 'gone_package' \(.*rates\.py, line 1\)"),
    "a formula that raises": ("stranger.rates:knee", "def knee(t, num_epochs):\n    return [][3]\n", r"stranger\.rates:knee: t = 0 of 3 epochs raised IndexError: list index out of range \(.*rates\.py, line 2\)\.$"),
    "no number": ("stranger.rates:knee", "def knee(t, num_epochs):\n    return float('nan')\n", r"the multiplier at t = 0 of 3 epochs is nan; allowed: a finite number of at least 0"),
    "a negative rate": ("stranger.rates:knee", "def knee(t, num_epochs, *, low=2):\n    return -low\n", r"is -2; allowed: a finite number of at least 0 \(low 2\)\.$"),
    "nothing at all": ("stranger.rates:knee", "def knee(t, num_epochs):\n    pass\n", r"is None; allowed"),
    "another form": ("stranger.rates:knee", "def knee(t):\n    return 1\n", r"found knee\(t\); a schedule is a function \(t, num_epochs, \*, knee=0\.5\)"),
    "no function": ("stranger.rates:knee", "knee = 3\n", "found a int; a schedule is a function"),
    "no default": ("stranger.rates:knee", "def knee(t, num_epochs, *, low):\n    return 1\n", "the parameter low has no default"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "source", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_schedule_is_one_sentence_that_says_whose(stranger, name, source, message):
    if source is not None:
        stranger(rates=source)
    with pytest.raises(StudyError, match=message):
        make_schedule(name, 3)(0)


KINDS = {
    "a schedule": (lambda name: make_schedule(name, 3), "rates", "knee"),
    "a network": (lambda name: check_sizes("model.wide", name, {}), "nets", "Wide"),
    "an optimizer": (lambda name: check_options(name, {}), "optim", "Sign"),
    "a controller": (lambda name: make_controller(name), "control", "Halve"),
}


@pytest.mark.parametrize(("find", "module", "name"), KINDS.values(), ids=KINDS)
def test_a_misspelt_name_is_told_with_what_was_meant_whatever_it_is_to_be(stranger, find, module, name):
    with pytest.raises(
        StudyError, match=rf"'{name}s' is not defined .*{module}\.py.* Did you mean '{name}'\?$"
    ):
        find(f"stranger.{module}:{name}s")
    with pytest.raises(
        StudyError, match=rf"looked for stranger/{module}s\.py.* Did you mean 'stranger\.{module}'\?$"
    ):
        find(f"stranger.{module}s:{name}")
    with pytest.raises(
        StudyError, match=rf"'stranger\.{module}\.{name}': .*; write stranger\.{module}:{name}\.$"
    ):
        find(f"stranger.{module}.{name}")


def test_names_without_a_module_are_ours():
    assert not is_outside("cosine")
    with pytest.raises(StudyError, match=r"'cosin' is not a schedule; choose one of .*Did you mean 'cosine'"):
        make_schedule("cosin", 3)


# -------------------------------------------------------------------------------------------------------- networks


def test_a_networks_arguments_are_read_from_its_source_and_not_imported(stranger):
    stranger(nets="raise RuntimeError('imported')\n" + NETS.replace("\nfrom typing", "\nfrom typing", 1))
    found = arguments_of("stranger.nets:Wide")
    assert list(found) == ["num_classes", "in_channels", "width", "layers", "pool", "act"]
    assert arguments_of("stranger.nets:Wider") == found
    where, name = "model.wide", "stranger.nets:Wide"
    assert check_sizes(where, name, {"width": 14}) == {"width": 14, "layers": 1, "pool": "mean"}
    for given, message in (
        ({}, "model.wide: width is missing; allowed: width = 8, 14, 20, ..."),
        ({"width": 9}, "width is 9; allowed: width = 8, 14, 20"),
        (
            {"widht": 8},
            "'widht' is not an argument of the network 'stranger.nets:Wide'.*Did you mean 'width'",
        ),
        ({"width": 8, "layers": 0}, "layers is 0; allowed: 1 <= layers, a whole number"),
        ({"width": 8, "pool": "sum"}, "'sum' is not known; choose one of max, mean"),
        ({"width": 8, "num_classes": 3}, "'num_classes' is not an argument"),
    ):
        with pytest.raises(StudyError, match=message):
            check_sizes(where, name, given)


def test_a_plain_type_says_what_kind_of_value_a_size_is(stranger):
    stranger(
        nets="def net(num_classes, width: int, deep: int = 4, rate: float = 1, flat: bool = False, some: int = None): ..."
    )
    assert {
        name: spec.allowed(name) for name, spec in parameters_of_network("stranger.nets:net").items()
    } == {
        "width": "width, a whole number",
        "deep": "deep, a whole number",
        "rate": "rate, a finite number",
        "flat": "true or false",
        "some": "any value",
    }
    sizes = check_sizes("model.net", "stranger.nets:net", {"width": 8})
    assert sizes == {"width": 8, "deep": 4, "rate": 1, "flat": False, "some": None}
    with pytest.raises(StudyError, match=r"model\.net: deep is 2\.5; allowed: deep, a whole number"):
        check_sizes("model.net", "stranger.nets:net", {"width": 8, "deep": 2.5})


def test_what_the_data_set_decides_is_given_by_name(stranger):
    from lrstudy.recipe.models import make_model

    _, meta = dataset("image")
    made = make_model({"architecture": "stranger.nets:Wide", "width": 8}, meta)
    assert (made.out.in_features, made.out.out_features) == (3, 4)
    assert (
        make_model({"architecture": "stranger.nets:flat"}, meta | {"image_size": [4, 4]})[1].in_features == 48
    )
    with pytest.raises(
        StudyError,
        match=r"stranger\.nets:Wide: making it with width 8, layers 10 raised ValueError: too deep",
    ):
        make_model({"architecture": "stranger.nets:Wide", "width": 8, "layers": 10}, meta)
    with pytest.raises(StudyError, match=r"stranger\.nets:nothing gives a int, no torch\.nn\.Module"):
        make_model({"architecture": "stranger.nets:nothing"}, meta)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("wrong", r"stranger\.nets:wrong gives torch\.float32 \(16, 3072\) for a batch of 16 examples of 4 classes; allowed: logits"),
        ("breaks", r"stranger\.nets:breaks: a training batch raised AttributeError: .*missing.*nets\.py, line \d+\)\.$"),
    ],
)  # fmt: skip
def test_a_network_that_gives_no_logits_is_one_sentence(stranger, network, message):
    from lrstudy.training.batches import make_split
    from lrstudy.training.loop import train

    splits, meta = dataset("image")
    parts = [make_split(splits[name], meta, "cpu") for name in ("train", "validation")]
    with pytest.raises(StudyError, match=message):
        train(settings("resnet") | {"model": {"architecture": f"stranger.nets:{network}"}}, *parts, meta)


# -------------------------------------------------------------------------------------- optimizers and controllers


def test_an_optimizers_options_are_its_constructors(stranger):
    import torch

    name = "stranger.optim:Sign"
    assert check_options(name, {"beta2": 0.5}) == {
        "beta1": 0.9,
        "beta2": 0.5,
        "weight_decay": 0.0,
        "centred": False,
    }
    with pytest.raises(StudyError, match=r"beta1 is 1\.0; allowed: 0 <= beta1 < 1"):
        check_options(name, {"beta1": 1.0})
    with pytest.raises(
        StudyError, match=r"optimizer stranger\.optim:Sign: 'weight_dcay'.*Did you mean 'weight_decay'"
    ):
        check_options(name, {"weight_dcay": 1.0})
    with pytest.raises(StudyError, match=r"its constructor has speed and no lr"):
        check_options("stranger.optim:Rateless", {})
    model = torch.nn.Linear(2, 2)
    model.weight.grad, model.bias.grad = torch.ones(2, 2), torch.ones(2)
    before, bias = model.weight.clone(), model.bias.clone()
    optimizer = make_optimizer(name, model, 0.1, weight_decay=0.5)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.99)
    optimizer.step()
    torch.testing.assert_close(model.weight, before - 0.1 * (1 + 0.5 * before))
    torch.testing.assert_close(model.bias, bias - 0.1)  # spared by weight decay


def test_an_optimizer_may_group_the_layers_itself(stranger):
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 3))
    optimizer = make_optimizer("stranger.optim:Layered", model, 0.1, weight_decay=0.5)
    first, second = optimizer.param_groups
    assert (first["lr"], first["weight_decay"]) == (0.01, 0.0)
    assert (second["lr"], second["weight_decay"]) == (0.1, 0.5)
    assert [id(p) for p in second["params"]] == [id(p) for p in model[1].parameters()]
    with pytest.raises(
        StudyError, match=r"^stranger\.optim:Layered: making it raised ValueError.*optim\.py, line"
    ):
        make_optimizer("stranger.optim:Layered", torch.nn.Linear(2, 2), 0.1)


def test_a_controller_is_a_subclass(stranger):
    controller = make_controller("stranger.control:Halve", share=0.25)
    controller.after_epoch(epoch=1, train_loss=1.0, validation_loss=1.0, gradient_norm=1.0)
    assert controller.factor == 0.25
    with pytest.raises(StudyError, match="share is 0; allowed: 0 < share <= 1"):
        make_controller("stranger.control:Halve", share=0)
    with pytest.raises(StudyError, match="a controller is a subclass of"):
        find_controller("stranger.rates:knee")
    carried = pickle.loads(pickle.dumps(controller))
    assert carried.state_dict() == controller.state_dict() == copy.deepcopy(controller).state_dict()
    assert type(carried).__name__ == "Halve"
    carried.factor = math.nan
    with pytest.raises(StudyError, match="set factor to nan"):  # its errors still say whose they are
        carried.after_epoch(epoch=2, train_loss=1.0, validation_loss=1.0, gradient_norm=1.0)


def step(name: str) -> None:
    import torch

    model = torch.nn.Linear(2, 2)
    model.weight.grad, model.bias.grad = torch.ones(2, 2), torch.ones(2)
    make_optimizer(name, model, 0.1).step()


def end_epoch(name: str) -> None:
    make_controller(name).after_epoch(epoch=1, train_loss=1.0, validation_loss=1.0, gradient_norm=1.0)


@pytest.mark.parametrize(
    ("module", "source", "call", "message"),
    [
        ("optim", OPTIM.replace("self.param_groups:", "self.param_group:"), lambda: step("stranger.optim:Sign"),
         r"^stranger\.optim:Sign: step\(\) raised AttributeError: .*param_group.*optim\.py, line \d+\)\.$"),
        ("control", CONTROL.replace("self.factor *=", "self.facto *="), lambda: end_epoch("stranger.control:Halve"),
         r"^stranger\.control:Halve: after_epoch\(\) raised AttributeError: .*facto.*control\.py, line \d+\)\.$"),
        ("control", CONTROL.replace("self.factor *=", "self.factor = -"), lambda: end_epoch("stranger.control:Halve"),
         r"^stranger\.control:Halve: after_epoch\(\) set factor to -0\.5; allowed: a number from 0"),
        ("control", CONTROL.replace("self.factor *=", "self.factor = float('nan') *"), lambda: end_epoch("stranger.control:Halve"),
         r"set factor to nan; allowed"),
    ],
)  # fmt: skip
def test_what_the_loop_calls_of_a_package_says_whose_mistake_it_is(stranger, module, source, call, message):
    stranger(**{module: source})
    with pytest.raises(StudyError, match=message):
        call()


# -------------------------------------------------------------------------------------------------------- identity


def chosen(**sections: dict) -> dict:
    return settings("lstm") | {
        "schedule": {"function": "stranger.rates:knee"},
        "model": {"architecture": "stranger.nets:Wide"},
        "optimizer": {"name": "stranger.optim:Sign"},
        "controller": {"name": "stranger.control:Halve"},
    } | sections  # fmt: skip


EDITS = [
    ("a comment", {"rates": RATES.replace("    return min", "    # falls\n    return min")}, set()),
    ("a docstring", {"rates": RATES.replace("Says something.", "Says more.")}, set()),
    ("an annotation", {"rates": RATES.replace("t: float, ", "t, ")}, set()),
    ("another function", {"rates": RATES.replace("return 1.0", "return 0.5")}, set()),
    ("the formula", {"rates": RATES.replace("(1 - knee)", "(2 - knee)")}, {"schedule"}),
    ("its helper", {"shapes": SHAPES.replace("1 - share", "1 - share**2")}, {"schedule"}),
    ("the network", {"nets": NETS.replace("images.mean", "images.amax")}, {"network"}),
    ("what a size may be", {"nets": NETS.replace("ge=8", "ge=2")}, set()),
    ("another network", {"nets": NETS.replace("nn.Flatten()", "nn.Flatten(2)")}, set()),
    ("the optimizer", {"optim": OPTIM.replace(".sign()", ".tanh()")}, {"optimizer"}),
    ("the controller", {"control": CONTROL.replace("self.factor *=", "self.factor /=")}, {"controller"}),
]


def test_what_a_package_computes_is_part_of_a_training_and_of_no_other(stranger):
    before, ours = training_code(chosen()), training_code(settings("lstm"))
    assert before.keys() == ours.keys()
    assert before["loop"] == ours["loop"]
    for what, modules, parts in EDITS:
        stranger(**modules)
        after = training_code(chosen())
        assert {part for part in before if after[part] != before[part]} == parts, what
        assert training_code(settings("lstm")) == ours
        stranger(rates=RATES, shapes=SHAPES, nets=NETS, optim=OPTIM, control=CONTROL)


PATCHES = {
    "setattr": {"nets": NETS + "\nsetattr(Wide, 'forward', lambda self, images: 2 * self.out(images.mean(dim=(2, 3))))\n"},
    "a call": {"nets": NETS + "\ndef patch(a_class):\n    a_class.scale = 2\n\n\npatch(Wide)\n"},
    "a loop": {"nets": NETS + "\nfor name in ('scale',):\n    setattr(Wide, name, 2)\n"},
    "exec": {"nets": NETS + "\nexec('Wide.scale = 3')\n"},
    "another library": {"nets": NETS + "\nnn.Linear.reset_parameters = lambda self: None\n"},
    "the package": {"__init__": "from torch import nn\nnn.Linear.reset_parameters = lambda self: None\n"},
    "a module that is only imported": {
        "nets": "import stranger.patch\n" + NETS, "patch": "import torch\ntorch.set_default_dtype(torch.float64)\n",
    },
    "a module that a module imports": {
        "nets": "from . import middle\n" + NETS, "middle": "from .patch import torch\n", "patch": "import torch\ntorch.manual_seed(3)\n",
    },
}  # fmt: skip


@pytest.mark.parametrize("modules", PATCHES.values(), ids=PATCHES)
def test_what_a_package_does_when_it_is_imported_is_part_of_what_it_computes(stranger, modules):
    before = training_code(chosen())["network"]
    stranger(**modules)
    assert training_code(chosen())["network"] != before


def test_names_that_a_package_defines_and_nobody_uses_are_no_part_of_it(stranger):
    before = training_code(chosen())["network"]
    stranger(
        nets=NETS + "\nUNUSED = [nn.Linear, 3]\nversion: str = '2'\n",
        __init__='"""A package."""\n__all__ = ["nets"]\n',
    )
    assert training_code(chosen())["network"] == before


def test_code_is_known_without_importing_it_and_whatever_way_it_is_imported(stranger):
    before = training_code(chosen())["schedule"]
    for way, call in (
        ("from .shapes import line", "line("), ("from stranger import shapes", "shapes.line("), ("import stranger.shapes", "stranger.shapes.line("),
    ):  # fmt: skip
        stranger(rates=RATES.replace("from stranger.shapes import line", way).replace("line(", call))
        assert training_code(chosen())["schedule"] == before
    stranger(rates=RATES + "\nraise RuntimeError('imported')\n")
    assert training_code(chosen())["schedule"] != before  # and nothing was raised
    stranger(__init__="from .rates import knee\n", rates=RATES)
    assert training_code(chosen(schedule={"function": "stranger:knee"}))["schedule"] == before


def test_what_lies_beside_a_package_and_would_not_be_seen_is_refused(stranger):
    Path("lone.py").write_text("def line(share): return 1 - share\n")
    stranger(rates=RATES.replace("stranger.shapes", "lone"))
    with pytest.raises(
        StudyError, match=r"rates\.py: imports lone, which lies beside stranger.*move it into"
    ):
        training_code(chosen())
    Path("lone.py").write_text("def flat(t, num_epochs, *, low=1.0):\n    return low\n")
    read_again()
    before = training_code(chosen(schedule={"function": "lone:flat"}))["schedule"]
    Path("lone.py").write_text("def flat(t, num_epochs, *, low=0.9):\n    return low\n")
    read_again()
    assert training_code(chosen(schedule={"function": "lone:flat"}))["schedule"] != before


# ---------------------------------------------------------------------------------------------------- in the study


def test_a_cell_joins_code_of_another_package(stranger):
    from composed import composed_params

    content = composed_params("preset=smoke", "model=resnet", "schedule=cosine")
    content["schedule"]["cosine"] = {
        "function": "stranger.rates:knee",
        "knee": 0.7,
        "search": {"knee": {"low": 0.1, "high": 0.9}},
    }
    content["model"]["resnet"] |= {"architecture": "stranger.nets:Wide", "width": 8}
    del content["model"]["resnet"]["depth"]
    content["model"]["resnet"]["optimizer"] |= {"name": "stranger.optim:Sign"}
    del content["model"]["resnet"]["optimizer"]["momentum"]
    content["controller"] = {"name": "stranger.control:Halve"}
    cell = make_cell(check_params(content), "resnet", "cosine")
    found = cell.settings({"knee": 0.3})
    assert found["schedule"]["parameters"] == {"knee": 0.3}
    assert found["model"] == {"architecture": "stranger.nets:Wide", "width": 8, "layers": 1, "pool": "mean"}
    assert found["optimizer"]["name"] == "stranger.optim:Sign"
    assert set(cell.search_space()) == {"base_lr", "knee"}
    content["model"]["resnet"]["widht"] = content["model"]["resnet"].pop("width")
    with pytest.raises(
        StudyError, match=r"params\.yaml: model\.resnet: 'widht' is not .*Did you mean 'width'"
    ):
        make_cell(check_params(content), "resnet", "cosine")


def test_a_worker_that_starts_anew_finds_the_package(stranger, monkeypatch):
    from joblib.externals.loky import get_reusable_executor

    from lrstudy.process.parallel import run_all

    get_reusable_executor().shutdown(wait=True)  # workers of an earlier test
    monkeypatch.setenv("LRSTUDY_WORKERS", "2")
    tasks = [{"name": "stranger.rates:knee", "t": t} for t in (6, 8)]
    assert sorted(run_all(value_of, tasks, 1)) == pytest.approx([0.4, 0.8])


def value_of(task: dict) -> float:
    return make_schedule(task["name"], 10)(task["t"])


def test_the_packages_that_conf_names_are_listed_for_dvc(tmp_path):
    import importlib.util

    from omegaconf import OmegaConf

    spec = importlib.util.spec_from_file_location(
        "cells_again", Path(__file__).parents[1] / "hydra_plugins/lrstudy_cells.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT = tmp_path
    (tmp_path / "mine").mkdir()
    (tmp_path / "lone.py").touch()
    sections = {
        "schedule": {
            "a": {"function": "mine.rates:knee"},
            "b": {"controller": {"name": "installed.control:Some"}},
        },
        "model": {"c": {"architecture": "lone:Net", "search": {"x": {"choices": ["a:b c", 3]}}}},
    }
    assert module.study_outside(OmegaConf.create(sections)) == ["lone.py", "mine"]


def test_a_package_that_is_followed_is_parsed_as_it_is(stranger):
    stranger(
        rates=textwrap.dedent("from stranger.gone import line\ndef knee(t, num_epochs): return line(t)\n")
    )
    assert "schedule" in training_code(chosen())  # the import itself fails when the schedule is made
    with pytest.raises(StudyError, match=r"raised ModuleNotFoundError: No module named 'stranger\.gone'"):
        make_schedule("stranger.rates:knee", 3)
