"""Optimizers: equal to their packages' own classes, exact when resumed, and honest about bad options."""

import copy
import importlib
import inspect
import math
import pickle
import subprocess
import sys
from pathlib import Path

import prodigyopt
import pytest
import schedulefree
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from composed import conf_section
from lrstudy.entries.parameters import Flag
from lrstudy.errors import StudyError
from lrstudy.recipe.models import make_model
from lrstudy.recipe.optimizers import (
    OPTIMIZERS,
    check_options,
    evaluation_weights,
    make_optimizer,
    refresh_batch_norm,
    snapshot,
    update_ratio,
)
from lrstudy.schedules import as_torch_scheduler, make_schedule
from tiny_data import MODELS

CONF = Path(__file__).parents[1] / "conf" / "optimizer"
SCHEDULE_FREE = [name for name in OPTIMIZERS if name.startswith("schedule_free")]


def tiny_model(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 8, bias=False),
        torch.nn.BatchNorm1d(8),
        torch.nn.Tanh(),
        torch.nn.Linear(8, 5),
        torch.nn.Tanh(),
        torch.nn.Linear(5, 3),
    )


def batches(count: int, seed: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(10, 6, generator=generator), torch.randint(3, (10,), generator=generator))
        for _ in range(count)
    ]


def train(model, optimizer, data, lrs=None) -> None:
    """Plain steps over ``data``, with the learning rate written as the study's loop writes it."""
    for index, (inputs, labels) in enumerate(data):
        if lrs is not None:
            for group in optimizer.param_groups:
                group["lr"] = lrs[index]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# The same update from the package's own class, with the options a user of it would write.
OWN = {
    "sgd": (torch.optim.SGD, {}, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.8}, {"momentum": 0.8}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.8}, {"momentum": 0.8, "nesterov": True}),
    "adagrad": (torch.optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-7}, None),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.9, "momentum": 0.5, "centered": True, "eps": 1e-6}, None),
    "adadelta": (torch.optim.Adadelta, {"rho": 0.8, "eps": 1e-5}, None),
    "adam": (
        torch.optim.Adam,
        {"beta1": 0.8, "beta2": 0.9, "amsgrad": True},
        {"betas": (0.8, 0.9), "amsgrad": True},
    ),
    "adamw": (torch.optim.AdamW, {"beta1": 0.8, "eps": 1e-6}, {"betas": (0.8, 0.999), "eps": 1e-6}),
    "adamax": (torch.optim.Adamax, {"beta2": 0.9}, {"betas": (0.9, 0.9)}),
    "nadam": (
        torch.optim.NAdam,
        {"beta1": 0.8, "momentum_decay": 0.01},
        {"betas": (0.8, 0.999), "momentum_decay": 0.01},
    ),
    "radam": (
        torch.optim.RAdam,
        {"beta1": 0.8, "decoupled_weight_decay": True},
        {"betas": (0.8, 0.999), "decoupled_weight_decay": True},
    ),
    "schedule_free_sgd": (schedulefree.SGDScheduleFree, {"momentum": 0.8}, None),
    "schedule_free_adamw": (schedulefree.AdamWScheduleFree, {"beta1": 0.8}, {"betas": (0.8, 0.999)}),
    "prodigy": (
        prodigyopt.Prodigy,
        {"d_coef": 2.0, "safeguard_warmup": True, "beta2": 0.99},
        {"d_coef": 2.0, "safeguard_warmup": True, "betas": (0.9, 0.99)},
    ),
}


EXACT = set(OWN) - {"nadam", "radam"}
COMBINED = ["muon"]  # of two classes of torch, see below
for name in OPTIMIZERS.keys() - OWN.keys():  # a new one, with its defaults
    module, _, class_name = OPTIMIZERS[name].class_path.rpartition(".")
    OWN[name] = (getattr(importlib.import_module(module), class_name), {}, {})


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - set(COMBINED)))
def test_steps_equal_the_packages_own_class(name, weight_decay):
    own_class, options, own_options = OWN[name]
    lrs = [0.05, 0.02, 0.04]
    model = tiny_model()
    optimizer = make_optimizer(name, model, 0.05, weight_decay=weight_decay, **options)
    train(model, optimizer, batches(3), lrs)

    reference = tiny_model()
    groups = [
        {"params": [p for p in reference.parameters() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in reference.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    own = own_class(groups, lr=0.05, **(options if own_options is None else own_options))
    if hasattr(own, "train"):
        own.train()
    train(reference, own, batches(3), lrs)
    # torch's NAdam and RAdam round differently where they work on lists of tensors, and so may a new one
    torch.testing.assert_close(weights(model), weights(reference), rtol=0, atol=0 if name in EXACT else 5e-7)
    assert not torch.equal(weights(model), weights(tiny_model()))


def test_defaults_are_the_packages_own():
    for name, spec in OPTIMIZERS.items():
        own = inspect.signature(OWN[name][0]).parameters
        for option, value in check_options(name, {}).items():
            if option in ("beta1", "beta2"):
                assert value == own["betas"].default[option == "beta2"], (name, option)
            elif option == "weight_decay" and name in COMBINED:
                pass  # the groups have it
            elif option == "momentum" and name in ("momentum", "nesterov"):
                assert value == 0.9  # torch's default of 0 is the optimizer named sgd
            else:
                assert value == own[option].default, (name, option)
        assert set(spec.fixed) <= {"foreach", "nesterov"}


def test_weight_decay_spares_biases_and_normalization():
    model = tiny_model()
    optimizer = make_optimizer("sgd", model, 0.5, weight_decay=0.1)
    before = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model[0].weight, before[0].weight * (1 - 0.5 * 0.1))
    for layer in (1, 3, 5):
        assert torch.equal(model[layer].bias, before[layer].bias)
    assert torch.equal(model[1].weight, before[1].weight)


def test_frozen_parameters_are_left_out_and_parameters_may_come_as_an_iterator():
    model = tiny_model()
    model[0].weight.requires_grad_(False)
    optimizer = make_optimizer("adam", model.parameters(), 0.1)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()} - {id(model[0].weight)}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resuming_ends_bit_for_bit_where_an_unbroken_run_ends(name, tmp_path):
    data = batches(10)
    lrs = [0.0, 0.02, 0.04, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01, 0.005]  # warmup from zero, then decay
    options = {"weight_decay": 0.01}

    unbroken = tiny_model()
    train(unbroken, make_optimizer(name, unbroken, 0.05, **options), data, lrs)

    first = tiny_model()
    optimizer = make_optimizer(name, first, 0.05, **options)
    train(first, optimizer, data[:5], lrs[:5])
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")

    second = tiny_model(seed=7)
    optimizer = make_optimizer(name, second, 0.05, **options)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    second.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    train(second, optimizer, data[5:], lrs[5:])
    assert torch.equal(weights(second), weights(unbroken))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_of_zero_moves_nothing(name):
    model = tiny_model()
    optimizer = make_optimizer(name, model, 0.05, weight_decay=0.1)
    train(model, optimizer, batches(2), [0.0, 0.0])
    assert torch.equal(weights(model), weights(tiny_model()))


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_schedule_free_evaluates_the_average_and_trains_on_unchanged(name):
    data = batches(8)
    unbroken = tiny_model()
    train(unbroken, make_optimizer(name, unbroken, 0.1), data)

    model = tiny_model()
    optimizer = make_optimizer(name, model, 0.1)
    train(model, optimizer, data[:4])
    training = weights(model)
    with evaluation_weights(optimizer):
        evaluation = weights(model)
        with evaluation_weights(optimizer):  # nested: already there, nothing to do
            assert torch.equal(weights(model), evaluation)
        assert torch.equal(weights(model), evaluation)
        with pytest.raises(Exception, match="train mode"):
            optimizer.step()
    assert torch.equal(weights(model), training)
    assert not torch.allclose(evaluation, training)
    # y = (1 - beta) z + beta x, where z is the optimizer's own sequence and x what is evaluated
    z = torch.cat([optimizer.state[p]["z"].flatten() for p in model.parameters()])
    torch.testing.assert_close(0.1 * z + 0.9 * evaluation, training)
    train(model, optimizer, data[4:])
    assert torch.equal(weights(model), weights(unbroken))


def test_schedule_free_sgd_evaluates_the_mean_of_its_iterates():
    """With a constant rate, x is the plain mean of z_1 ... z_k (Defazio et al. 2024, eq. 5 with c = 1/k)."""
    model = torch.nn.Linear(6, 3)
    optimizer = make_optimizer("schedule_free_sgd", model, 0.1)
    iterates = []
    for batch in batches(5):
        train(model, optimizer, [batch])
        iterates.append(optimizer.state[model.weight]["z"].clone())
    with evaluation_weights(optimizer):
        torch.testing.assert_close(model.weight.detach(), torch.stack(iterates).mean(0))


def test_training_weights_come_back_after_an_error_in_evaluation():
    model = tiny_model()
    optimizer = make_optimizer("schedule_free_sgd", model, 0.1)
    train(model, optimizer, batches(3))
    training = weights(model)
    with pytest.raises(RuntimeError, match="evaluation failed"), evaluation_weights(optimizer):
        raise RuntimeError("evaluation failed")
    assert torch.equal(weights(model), training)
    train(model, optimizer, batches(1))


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - set(SCHEDULE_FREE)))
def test_other_optimizers_evaluate_the_weights_they_train(name):
    model = tiny_model()
    optimizer = make_optimizer(name, model, 0.01)
    train(model, optimizer, batches(2))
    training = weights(model)
    with evaluation_weights(optimizer):
        assert torch.equal(weights(model), training)


def test_prodigy_keeps_its_step_size_estimate_and_obeys_the_rate():
    model = tiny_model()
    optimizer = make_optimizer("prodigy", model, 1.0)
    train(model, optimizer, batches(12))
    estimate = optimizer.param_groups[0]["d"]
    assert estimate > optimizer.param_groups[0]["d0"]
    restored = make_optimizer("prodigy", tiny_model(), 1.0)
    restored.load_state_dict(optimizer.state_dict())
    assert restored.param_groups[0]["d"] == estimate

    half, full = copy.deepcopy((model, optimizer)), copy.deepcopy((model, optimizer))
    start = weights(model)
    train(*half, batches(1, seed=3), [0.5])
    train(*full, batches(1, seed=3), [1.0])
    torch.testing.assert_close(2 * (weights(half[0]) - start), weights(full[0]) - start, rtol=1e-2, atol=1e-7)


def test_prodigy_prints_nothing(capsys):
    make_optimizer("prodigy", tiny_model(), 1.0, weight_decay=0.1)
    assert capsys.readouterr() == ("", "")


# --- Muon and AdamW as one ---


class TiedAndNested(torch.nn.Module):
    """An output layer that shares the embedding's matrix, attention, a kernel and a matrix of its own."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(2, 2))
        self.embedding = torch.nn.Embedding(7, 4)
        self.attention = torch.nn.MultiheadAttention(4, 2)
        self.convolution = torch.nn.Conv1d(4, 4, 3)
        self.head = torch.nn.Linear(4, 7)
        self.head.weight = self.embedding.weight


META = {"num_classes": 4, "in_channels": 3, "vocab_size": 30, "max_length": 24}
BLOCK = ("conv1.weight", "conv2.weight")
MUONS = {
    "resnet": [
        *(f"blocks.{number}.{kernel}" for number in range(3) for kernel in BLOCK),
        "blocks.1.shortcut.0.weight",
        "blocks.2.shortcut.0.weight",
    ],
    "resnet18": [
        *(
            f"layer{stage}.{number}.{kernel}"
            for stage in (1, 2, 3, 4)
            for number in (0, 1)
            for kernel in BLOCK
        ),
        *(f"layer{stage}.0.downsample.0.weight" for stage in (2, 3, 4)),
    ],
    "lstm": [f"lstm.weight_{which}_l{layer}" for which in ("ih", "hh") for layer in (0, 1)],
    "transformer": [
        f"blocks.0.{layer}.weight"
        for layer in ("query_key_value", "output", "feedforward.0", "feedforward.2")
    ],
}
"""What the author's advice comes to: no input layer, no embedding, no output layer, no vector."""


def names_of_muon(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == set(names)
    return sorted(names[p] for group in optimizer.param_groups if group["use_muon"] for p in group["params"])


@pytest.mark.parametrize("network", sorted(MUONS))
def test_muon_gets_the_hidden_layers_matrices_of_every_network(network):
    model = make_model({"architecture": network} | MODELS.get(network, {}), META)
    optimizer = make_optimizer("muon", model, 0.001, weight_decay=0.1)
    assert names_of_muon(model, optimizer) == sorted(MUONS[network])
    decays = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert all(decay == (0.1 if parameter.ndim > 1 else 0.0) for parameter, decay in decays.items())


def test_muon_gets_no_matrix_that_an_embedding_shares_or_of_which_nobody_knows_what_it_does():
    model = TiedAndNested()
    muons = ["attention.in_proj_weight", "attention.out_proj.weight", "convolution.weight"]
    assert names_of_muon(model, make_optimizer("muon", model, 0.001)) == muons


def two_optimizers(model, base_lr, weight_decay, momentum, ns_steps, betas, eps):
    """The LSTM's two with torch's own classes, as a user of them would write it."""
    hidden = [p for name, p in model.named_parameters() if name in MUONS["lstm"]]
    rest = [p for name, p in model.named_parameters() if name not in MUONS["lstm"]]
    muon = torch.optim.Muon(
        hidden, base_lr, weight_decay, momentum, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw"
    )
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim == 1], "weight_decay": 0.0},
    ]
    return muon, torch.optim.AdamW(groups, base_lr, betas, eps, foreach=False)


def lstm_loss(model: torch.nn.Module, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 30, (6, 24), generator=generator)
    labels = torch.randint(4, (6,), generator=generator)
    return torch.nn.functional.cross_entropy(model(tokens, torch.full((6,), 24)), labels)


def an_lstm() -> torch.nn.Module:
    torch.manual_seed(0)
    return make_model(MODELS["lstm"], META).eval()  # nothing is dropped


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_steps_as_torchs_muon_and_adamw_do_side_by_side(weight_decay):
    model, reference = an_lstm(), an_lstm()
    options = {"weight_decay": weight_decay, "momentum": 0.9, "ns_steps": 4, "eps": 1e-6}
    optimizer = make_optimizer("muon", model, 0.01, beta1=0.8, beta2=0.99, **options)
    both = two_optimizers(reference, 0.01, betas=(0.8, 0.99), **options)
    for step, lr in enumerate([0.01, 0.0, 0.02, 0.005]):
        for one in (optimizer, *both):
            for group in one.param_groups:
                group["lr"] = lr
            one.zero_grad()
        lstm_loss(model, step).backward()
        lstm_loss(reference, step).backward()
        for one in (optimizer, *both):
            one.step()
        for (name, weight), own in zip(model.named_parameters(), reference.parameters(), strict=True):
            assert torch.equal(weight, own), (step, name)
    assert not torch.equal(weights(model), weights(an_lstm()))


def test_muons_defaults_are_those_of_torchs_two_classes():
    muon, adamw = (inspect.signature(one).parameters for one in (torch.optim.Muon, torch.optim.AdamW))
    options = check_options("muon", {})
    for option in ("momentum", "nesterov", "ns_steps"):
        assert options[option] == muon[option].default, option
    assert (options["beta1"], options["beta2"]) == adamw["betas"].default
    for option in ("eps", "weight_decay"):
        assert options[option] == adamw[option].default, option


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_muon_steps_a_kernel_as_the_matrix_of_a_row_for_each_filter(memory_format):
    def three_convolutions() -> torch.nn.Module:
        torch.manual_seed(0)
        kernels = [torch.nn.Conv2d(*sizes, 3, bias=False) for sizes in ((3, 4), (4, 6), (6, 2))]
        return torch.nn.Sequential(*kernels).to(memory_format=memory_format)

    model = three_convolutions()
    kernel = model[1].weight
    matrix = torch.nn.Parameter(kernel.detach().reshape(6, 36).clone())
    own = torch.optim.Muon([matrix], 0.01, 0.1, adjust_lr_fn="match_rms_adamw")
    optimizer = make_optimizer("muon", model, 0.01, weight_decay=0.1)
    for seed in range(3):
        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        model(images).square().mean().backward()
        matrix.grad = kernel.grad.reshape(6, 36).clone()
        optimizer.step()
        own.step()
        assert torch.equal(kernel.reshape(6, 36), matrix)
    assert kernel.is_contiguous(memory_format=memory_format)
    assert not torch.equal(kernel, three_convolutions()[1].weight)


def test_muons_update_is_nearly_orthogonal_and_an_entry_moves_by_a_fifth_of_the_rate():
    """A semi-orthogonal O of (A, B) has entries of root mean square 1 / sqrt(max(A, B)): arXiv 2502.16982."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(*sizes) for sizes in ((4, 16), (16, 48), (48, 2))))
    optimizer = make_optimizer("muon", model, 0.1, weight_decay=0.0)
    left, right = (torch.linalg.qr(torch.randn(48, 16)).Q, torch.linalg.qr(torch.randn(16, 16)).Q)
    model[1].weight.grad = left @ torch.linspace(0.01, 0.05, 16).diag() @ right
    before = model[1].weight.detach().clone()
    optimizer.step()
    update = before - model[1].weight.detach()
    singular = torch.linalg.svdvals(update) / (0.1 * 0.2 * 48**0.5)
    assert 0.5 < singular.min() < singular.max() < 1.5
    assert update.square().mean().sqrt() == pytest.approx(
        0.1 * 0.2 * (16 / 48) ** 0.5 * 48**0.5 / 16**0.5, rel=0.3
    )


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_of_muon_goes_on_alone(copied):
    model = tiny_model()
    optimizer = make_optimizer("muon", model, 0.01)
    train(model, optimizer, batches(2))
    other_model, other = copied((model, optimizer))
    train(model, optimizer, batches(3, seed=5))
    assert not torch.equal(weights(model), weights(other_model))
    train(other_model, other, batches(3, seed=5))
    assert torch.equal(weights(model), weights(other_model))


def test_muon_follows_a_scheduler_in_all_groups():
    optimizer = make_optimizer("muon", tiny_model(), 0.01, weight_decay=0.1)
    scheduler = as_torch_scheduler(optimizer, make_schedule("cosine", 2), steps_per_epoch=2)
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert [group["use_muon"] for group in optimizer.param_groups] == [True, False, False]
    assert all(len(set(at_once)) == 1 for at_once in rates)
    assert rates[0] > rates[1] > rates[2] > rates[3]


def test_a_group_that_is_added_to_muon_is_adamws_unless_it_says_so():
    optimizer = make_optimizer("muon", tiny_model(), 0.01)
    added = {which: torch.nn.Parameter(torch.ones(2, 2)) for which in ("adamw", "muon")}
    optimizer.add_param_group({"params": [added["adamw"]], "lr": 0.5})
    optimizer.add_param_group({"params": [added["muon"]], "lr": 0.25, "use_muon": True})
    for parameter in added.values():
        parameter.grad = torch.eye(2)
    optimizer.step()
    assert set(optimizer.state[added["adamw"]]) == {"step", "exp_avg", "exp_avg_sq"}
    assert set(optimizer.state[added["muon"]]) == {"momentum_buffer"}
    # AdamW: decay by 0.5 * 0.01, then a first step of the whole rate where there is a gradient
    torch.testing.assert_close(added["adamw"].detach(), torch.full((2, 2), 0.995) - 0.5 * torch.eye(2))


def test_muon_says_what_it_needs():
    with pytest.raises(StudyError, match=r"muon: parameters is a list; allowed: a torch\.nn\.Module"):
        make_optimizer("muon", list(tiny_model().parameters()), 0.01)
    shallow = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
    with pytest.raises(StudyError, match=r"optimizer muon: Sequential has no trained weight .* Choose adamw"):
        make_optimizer("muon", shallow, 0.01)
    model = tiny_model()
    model[3].weight.requires_grad_(False)
    with pytest.raises(StudyError, match="no trained weight"):
        make_optimizer("muon", model, 0.01)


def test_batch_norm_refresh_averages_the_batches_statistics():
    model = tiny_model()
    model[1].momentum = 0.3
    data = batches(4)
    train(model, make_optimizer("sgd", model, 0.1), data)
    hidden = [model[0](inputs).detach() for inputs, _ in data]
    for mode in (True, False):
        model.train(mode)
        refresh_batch_norm(model, (inputs for inputs, _ in data))
        torch.testing.assert_close(model[1].running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0))
        torch.testing.assert_close(model[1].running_var, torch.stack([h.var(0) for h in hidden]).mean(0))
        assert model[1].momentum == 0.3
        assert all(module.training is mode for module in model.modules())
    assert not model[1].running_mean.requires_grad


def test_batch_norm_refresh_leaves_the_random_numbers_alone():
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4))
    state = torch.random.get_rng_state()
    refresh_batch_norm(model, batches(2))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_batch_norm_refresh_without_batch_norm_reads_no_batch():
    def no_batches():
        raise AssertionError("read a batch")
        yield

    refresh_batch_norm(torch.nn.Linear(6, 3), no_batches())


def test_batch_norm_refresh_without_batches_is_an_error():
    with pytest.raises(ValueError, match="no batch"):
        refresh_batch_norm(tiny_model(), [])


def test_update_ratio_by_hand():
    layers = [torch.nn.Parameter(torch.tensor([3.0, 0.0])), torch.nn.Parameter(torch.tensor([[4.0]]))]
    before = snapshot(layers)
    with torch.no_grad():
        layers[0] += torch.tensor([0.1, 0.2])
        layers[1] -= 0.2
    # ||(0.1, 0.2, -0.2)|| / ||(3, 0, 4)|| = 0.3 / 5
    assert update_ratio(before, iter(layers)) == pytest.approx(0.06, rel=1e-6)
    assert update_ratio(layers, layers) == 0.0
    assert torch.equal(before[0], torch.tensor([3.0, 0.0]))


def test_update_ratio_from_zero_weights_is_no_number():
    zero, moved = [torch.zeros(2)], [torch.ones(2)]
    assert update_ratio(zero, moved) == math.inf
    assert math.isnan(update_ratio(zero, zero))


def test_update_ratio_of_one_sgd_step_is_rate_times_gradient_over_weights():
    model = tiny_model()
    before = snapshot(model.parameters())
    start = weights(model)
    train(model, make_optimizer("sgd", model, 0.1), batches(1))
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    expected = 0.1 * gradient.norm() / start.norm()
    assert update_ratio(before, model.parameters()) == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "base_lr", "options", "message"),
    [
        ("adm", 0.1, {}, r"'adm' is not an optimizer; choose one of .*Did you mean 'adam'\?"),
        ("per_model", 0.1, {}, "'per_model' is not an optimizer"),
        ("sgd", 0.1, {"momentum": 0.9}, "optimizer sgd: 'momentum' is not one of its options"),
        ("adam", 0.1, {"beta_1": 0.9}, r"Did you mean 'beta1'\?"),
        ("adam", 0.1, {"beta1": 1.0}, r"optimizer adam: beta1 is 1.0; allowed: 0 <= beta1 < 1"),
        ("momentum", 0.1, {"momentum": 0.0}, r"momentum is 0.0; allowed: 0 < momentum < 1"),
        ("schedule_free_adamw", 0.1, {"beta1": 0}, r"beta1 is 0; allowed: 0 < beta1 < 1"),
        (
            "adamw",
            0.1,
            {"weight_decay": -0.1},
            "weight_decay is -0.1; allowed: 0 <= weight_decay",
        ),
        ("adamw", 0.1, {"weight_decay": math.inf}, "weight_decay is inf"),
        ("adamw", 0.1, {"weight_decay": math.nan}, "weight_decay is nan"),
        ("adamw", 0.1, {"weight_decay": True}, "weight_decay is True"),
        ("rmsprop", 0.1, {"centered": 1}, "centered is 1; allowed: true or false"),
        ("adam", 0.1, {"eps": 0.0}, "eps is 0.0; allowed: 0 < eps"),
        ("muon", 0.1, {"ns_steps": 100}, "ns_steps is 100; allowed: 1 <= ns_steps < 100, a whole number"),
        ("muon", 0.1, {"momentum": 1.0}, r"optimizer muon: momentum is 1.0; allowed: 0 <= momentum < 1"),
        ("sgd", 0.0, {}, "base_lr is 0.0; allowed: 0 < base_lr"),
        ("sgd", math.nan, {}, "base_lr is nan"),
        ("sgd", "0.1", {}, "base_lr is '0.1'"),
        ("sgd", None, {}, "base_lr is None"),
    ],
)
def test_mistakes_are_named(name, base_lr, options, message):
    with pytest.raises(StudyError, match=message):
        make_optimizer(name, tiny_model(), base_lr, **options)


@settings(deadline=None)  # a loaded machine must not fail a test
@given(st.sampled_from(sorted(OPTIMIZERS)), st.data())
def test_every_legal_value_is_taken_by_the_package(name, data):
    options = {}
    for option, allowed in OPTIMIZERS[name].options.items():
        value = (
            st.booleans()
            if isinstance(allowed, Flag)
            else st.integers(allowed.ge, allowed.lt - 1)
            if allowed.whole
            else st.floats(
                allowed.gt if allowed.ge is None else allowed.ge,
                1e6 if allowed.lt is None else allowed.lt,
                exclude_min=allowed.ge is None,
                exclude_max=True,
            )
        )
        options[option] = data.draw(value, label=option)
    make_optimizer(name, tiny_model(), data.draw(st.floats(1e-6, 1e3)), **options)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_conf_files_name_every_option_at_its_default(name):
    text = (CONF / f"{name}.yaml").read_text()
    section = conf_section("optimizer", name)
    assert text.startswith("# @package optimizer\n")
    search = section.pop("search")
    assert section.pop("name") == name
    base_lr = section.pop("base_lr")
    assert section == check_options(name, {})
    assert list(search) == ["base_lr"]
    assert search["base_lr"]["log"] is True
    assert 0 < search["base_lr"]["low"] < base_lr < search["base_lr"]["high"]
    of_all = (CONF / "sgd.yaml").read_text() if "\ndefaults:" in text else ""  # which it is based on
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if (
            line
            and not line.startswith(("#", " ", "defaults:"))
            and f"\n{line.partition(':')[0]}:" not in of_all
        ):
            assert lines[number - 1].startswith("# "), f"{name}: {line} has no comment"
    assert not [line for line in lines[2:] if line.startswith("# ") and line in of_all.splitlines()]


def test_there_is_one_conf_file_per_optimizer():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(OPTIMIZERS) | {"per_model"}
    assert yaml.safe_load((CONF / "per_model.yaml").read_text()) == {"name": "per_model"}


def test_names_and_checks_need_no_torch():
    code = (
        "import sys; from lrstudy.recipe.optimizers import check_options; check_options('adam', {});"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
