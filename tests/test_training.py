"""The training loop: the rate of every update, equal starts, exact resuming, divergence as a result."""

import io
import math
import shutil
import time

import numpy as np
import pytest
import torch

from lrstudy.controllers import CONTROLLERS, METRICS, make_controller
from lrstudy.errors import StudyError
from lrstudy.ledger.record import ALWAYS_IN_FINAL
from lrstudy.recipe.models import make_model
from lrstudy.recipe.optimizers import OPTIMIZERS, evaluation_weights, make_optimizer
from lrstudy.schedules import make_schedule
from lrstudy.training import loop
from lrstudy.training.batches import make_split
from lrstudy.training.devices import choose_device, choose_dtype, compute_clock
from lrstudy.training.evaluation import predict, summarize
from lrstudy.training.loop import Progress, train
from lrstudy.training.measures import AVERAGES
from tiny_data import MODELS, SIZES, dataset, settings

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
STEPS = SIZES["train"] // 16
DATA = {kind: dataset(kind) for kind in ("image", "text")}


def run(name: str = "lstm", /, state: dict | None = None, on_epoch=None, **changes) -> Progress:
    """Train the model ``name`` on the tiny data with the settings changed."""
    splits, meta = DATA["image" if name == "resnet" else "text"]
    chosen = settings(name, **changes)
    parts = [
        make_split(splits["train"], meta, CPU, chosen["augment"]),
        make_split(splits["validation"], meta, CPU),
    ]
    options = {} if on_epoch is None else {"on_epoch": on_epoch}
    return train(chosen, *parts, meta, state=state, **options)


def without_clock(epochs: list[dict]) -> list[dict]:
    return [
        {k: v for k, v in record.items() if k not in ("seconds", "compute_seconds", "time")}
        for record in epochs
    ]


def assert_same(first: Progress, second: Progress) -> None:
    """The same training bit for bit: history, interventions, weights."""
    assert without_clock(first.epochs) == without_clock(second.epochs)
    assert (first.status, first.best_epoch) == (second.status, second.best_epoch)
    assert first.final == second.final
    pairs = [(getattr(first, name), getattr(second, name)) for name in ("last_weights", "best_weights")]
    assert first.average_weights.keys() == second.average_weights.keys() == set(AVERAGES)
    pairs += [(first.average_weights[name], second.average_weights[name]) for name in AVERAGES]
    for left, right in pairs:
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)


def steps(progress: Progress, name: str) -> list[float]:
    return [value for record in progress.epochs for value in record["steps"][name]]


def initial_weights(model: str, seed: int = 1) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return list(make_model(MODELS[model], DATA["image" if model == "resnet" else "text"][1]).parameters())


def distance(before: list[torch.Tensor], weights: dict[str, torch.Tensor], model: str) -> float:
    """Euclidean distance over all parameters, without batch norm's statistics."""
    after = make_model(MODELS[model], DATA["image" if model == "resnet" else "text"][1])
    after.load_state_dict(weights)
    parts = [(a - b).double().square().sum() for a, b in zip(after.parameters(), before, strict=True)]
    return torch.stack(parts).sum().sqrt().item()


# ------------------------------------------------------------------------------------ the rate of every update


@pytest.mark.parametrize("granularity", ["step", "epoch"])
@pytest.mark.parametrize("warmup_epochs", [0.0, 1.0, 1.5])
@pytest.mark.parametrize(
    ("function", "parameters"), [("cosine", {"min_factor": 0.1}), ("step", {"gamma": 0.5, "step_size": 1})]
)
def test_the_rate_is_base_lr_times_the_schedule(granularity, warmup_epochs, function, parameters):
    row = {
        "function": function,
        "parameters": parameters,
        "granularity": granularity,
        "warmup_epochs": warmup_epochs,
    }
    progress = run(schedule=row)
    schedule = make_schedule(function, 3, warmup_epochs=warmup_epochs, granularity=granularity, **parameters)
    assert steps(progress, "lr") == [0.1 * schedule(step / STEPS) for step in range(3 * STEPS)]
    assert [record["lr"] for record in progress.epochs] == steps(progress, "lr")[STEPS - 1 :: STEPS]
    if granularity == "epoch":
        assert all(len(set(record["steps"]["lr"])) == 1 for record in progress.epochs)


def test_the_rate_that_is_logged_is_the_rate_that_is_used():
    """One update an epoch of plain SGD moves the weights by lr times the gradient, whatever the schedule."""
    progress = run(batch_size=SIZES["train"], num_epochs=4, schedule={"parameters": {"min_factor": 0.01}})
    norm = torch.nn.utils.get_total_norm(initial_weights("lstm")).item()
    for record in progress.epochs:
        moved = record["effective_step"] * norm
        assert moved == pytest.approx(record["lr"] * record["gradient_norm"], rel=1e-3)
        norm = record["weight_norm"]


def test_two_parameter_groups_share_the_rate():
    """With weight decay there are two groups; a rate of almost 0 must stop both."""
    row = {"function": "step", "parameters": {"gamma": 1e-12, "step_size": 1}}
    progress = run(schedule=row, optimizer={"name": "sgd", "base_lr": 0.1, "weight_decay": 0.1})
    assert [record["effective_step"] > 1e-4 for record in progress.epochs] == [True, False, False]
    assert progress.epochs[1]["weight_norm"] == pytest.approx(progress.epochs[0]["weight_norm"], rel=1e-7)


# ------------------------------------------------------------------------------------------------ equal starts


@pytest.mark.parametrize("model", MODELS)
def test_the_same_seed_gives_the_same_training(model):
    changes = {"num_epochs": 2, "augment": "crop_flip"}
    first, second, other = (run(model, seed=seed, **changes) for seed in (1, 1, 2))
    assert_same(first, second)
    assert steps(first, "train/loss") != steps(other, "train/loss")


@pytest.mark.parametrize("model", ["lstm", "transformer"])
def test_every_schedule_starts_alike(model):
    """Same initial weights, first batch and dropout: the same first loss and gradient; later others."""
    rows = [
        {"function": "static", "parameters": {}},
        {"function": "cosine", "parameters": {}},
        {"function": "exponential", "parameters": {"decay_rate": 2.0}},
        {"function": "cosine", "parameters": {}, "warmup_epochs": 1.0},
    ]
    runs = [run(model, schedule={"warmup_epochs": 0.0} | row) for row in rows]
    for name in ("train/loss", "gradient_norm"):
        assert len({steps(progress, name)[0] for progress in runs}) == 1
        assert len({steps(progress, name)[2] for progress in runs}) == len(rows)


def test_every_schedule_sees_the_same_batches_in_every_epoch(monkeypatch):
    seen: dict[str, list] = {}

    def recorded(function: str) -> list:
        rows = seen.setdefault(function, [])
        splits, meta = DATA["text"]
        split = make_split(splits["train"], meta, CPU)
        batches = split.training_batches

        def recording(size, generator):
            for batch in batches(size, generator):
                rows.append(batch[2].tolist())
                yield batch

        monkeypatch.setattr(split, "training_batches", recording)
        chosen = settings(schedule={"function": function, "parameters": {}})
        train(chosen, split, make_split(splits["validation"], meta, CPU), meta)
        return rows

    assert recorded("static") == recorded("cosine")
    assert len(seen["static"]) == 3 * STEPS
    assert seen["static"][:STEPS] != seen["static"][STEPS : 2 * STEPS]


# ------------------------------------------------------------------------------------------------- the history


def test_a_record_is_what_its_parts_say():
    calls = []
    progress = run("lstm", on_epoch=lambda record, checkpoint: calls.append(record))
    assert calls == progress.epochs
    assert [record["epoch"] for record in calls] == [1, 2, 3]
    assert progress.status == "finished"
    assert progress.num_parameters == sum(p.numel() for p in initial_weights("lstm"))
    for record in calls:
        assert {len(series) for series in record["steps"].values()} == {STEPS}
        assert record["train/loss"] == pytest.approx(np.mean(record["steps"]["train/loss"]))
        assert record["gradient_norm"] == pytest.approx(np.mean(record["steps"]["gradient_norm"]))
        assert record["controller_factor"] == 1
        assert record["interventions"] == []
        assert record["seconds"] > 0
        assert record["compute_seconds"] > 0
        assert 0 < record["validation/loss_standard_error"] < record["validation/loss"]
        for name in ("accuracy", "f1", "f1_macro"):
            assert 0 <= record[f"train/{name}"] <= 1
            assert 0 <= record[f"validation/{name}"] <= 1


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", ["sgd", "schedule_free_adamw"])
def test_the_weights_that_are_kept_reproduce_their_validation_metrics(model, optimizer):
    """Also where the optimizer evaluates at an average of the weights that it trains."""
    progress = run(model, optimizer={"name": optimizer, "base_lr": 0.05})
    splits, meta = DATA["image" if model == "resnet" else "text"]
    validation = make_split(splits["validation"], meta, CPU)
    losses = [record["validation/loss"] for record in progress.epochs]
    assert progress.best_epoch == 1 + int(np.argmin(losses))
    for weights, epoch in ((progress.last_weights, 3), (progress.best_weights, progress.best_epoch)):
        network = make_model(MODELS[model], meta)
        network.load_state_dict(weights)
        if meta["kind"] == "image":
            network = network.to(memory_format=torch.channels_last)
        logits = predict(network, validation, 500 if meta["kind"] == "image" else 256, CPU, torch.float32)
        labels = splits["validation"]["labels"]
        record = progress.epochs[epoch - 1]
        assert {f"validation/{name}": value for name, value in summarize(logits, labels).items()} == {
            name: value for name, value in record.items() if name.startswith("validation/")
        }


def test_the_best_epoch_is_the_first_with_the_lowest_validation_loss(monkeypatch):
    losses, weights = iter([0.9, 0.5, 0.7, 0.6, 0.5]), []
    monkeypatch.setattr(loop, "summarize", lambda logits, labels: {"loss": next(losses, 0.1)})

    def keep(record: dict, checkpoint) -> None:
        weights.append({name: value.clone() for name, value in checkpoint()["model"].items()})

    progress = run(num_epochs=5, on_epoch=keep)
    assert progress.best_epoch == 2
    assert all(torch.equal(progress.best_weights[name], weights[1][name]) for name in weights[1])
    assert all(torch.equal(progress.last_weights[name], weights[4][name]) for name in weights[4])
    assert not torch.equal(weights[1]["classifier.weight"], weights[4]["classifier.weight"])


def test_schedule_free_keeps_the_average_and_its_batch_norm_statistics():
    """It trains at one point and is evaluated at an average of others: that is what must be kept."""
    states = []
    options = {"name": "schedule_free_sgd", "base_lr": 0.5}
    progress = run("resnet", optimizer=options, on_epoch=lambda _, checkpoint: states.append(checkpoint()))
    splits, meta = DATA["image"]
    network = make_model(MODELS["resnet"], meta)
    network.load_state_dict(states[-1]["model"])
    assert not torch.equal(network.stem[0].weight, progress.last_weights["stem.0.weight"])
    optimizer = make_optimizer(options["name"], network, options["base_lr"])
    optimizer.load_state_dict(states[-1]["optimizer"])
    with evaluation_weights(optimizer):
        for name, weight in network.named_parameters():
            torch.testing.assert_close(weight.detach(), progress.last_weights[name])
    # all training images make one batch: its statistics are those of the first layer's output
    network.load_state_dict(progress.last_weights)
    ((images,), _, _), *more = make_split(splits["train"], meta, CPU).evaluation_batches(128)
    assert not more
    with torch.no_grad():
        features = network.stem[0](images).double()
    for name, value in (("mean", features.mean((0, 2, 3))), ("var", features.var((0, 2, 3)))):
        kept = progress.last_weights[f"stem.1.running_{name}"].double()
        torch.testing.assert_close(kept, value, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------- measured at the end


def rebuilt(weights: dict[str, torch.Tensor], model: str) -> torch.nn.Module:
    """The network with these weights."""
    meta = DATA["image" if model == "resnet" else "text"][1]
    network = make_model(MODELS[model], meta)
    network.load_state_dict(weights)
    return network.to(memory_format=torch.channels_last) if model == "resnet" else network


def summary(weights: dict[str, torch.Tensor], model: str, split) -> dict[str, float]:
    size = 500 if model == "resnet" else 64
    return summarize(predict(rebuilt(weights, model), split, size, CPU, torch.float32), split.labels.numpy())


@pytest.mark.parametrize("optimizer", ["adamw", "schedule_free_sgd"])
def test_the_averages_are_those_of_every_updates_weights(optimizer):
    """One update an epoch, so that each checkpoint has the weights after an update."""
    seen = []

    def keep(record: dict, checkpoint) -> None:
        seen.append({name: value.double().clone() for name, value in checkpoint()["model"].items()})

    options = {"name": optimizer, "base_lr": 0.05}
    progress = run(batch_size=500, num_epochs=20, optimizer=options, on_epoch=keep)
    assert len(seen) == len(steps(progress, "lr")) == 20
    for name in seen[0]:
        moving = seen[0][name]
        for weights in seen[1:]:
            moving = moving + (weights[name] - moving) / 2  # the horizon, a tenth of 20 updates
        tail = sum(weights[name] for weights in seen[-4:]) / 4  # the last fifth
        expected = {"ema": moving, "tail_average": tail}
        for average, weights in progress.average_weights.items():
            torch.testing.assert_close(weights[name].double(), expected[average], rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(tail, last) for tail, last in zip(
        progress.average_weights["tail_average"].values(), progress.last_weights.values(), strict=True
    ))  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_averages_are_evaluated_on_validation_data_like_any_network(model):
    progress = run(model, optimizer={"name": "sgd", "base_lr": 0.2})
    splits, meta = DATA["image" if model == "resnet" else "text"]
    validation = make_split(splits["validation"], meta, CPU)
    for name in AVERAGES:
        for metric, value in summary(progress.average_weights[name], model, validation).items():
            assert progress.final[f"validation_{name}/{metric}"] == value
    assert set(progress.final) == set(ALWAYS_IN_FINAL)
    assert all(math.isfinite(value) for value in progress.final.values())


def test_an_averages_batch_norm_has_its_own_statistics_of_the_training_data():
    """The last weights' are wrong for it: an average's activations are spread otherwise."""
    progress = run("resnet", optimizer={"name": "sgd", "base_lr": 0.5})
    splits, meta = DATA["image"]
    ((images,), _, _), *more = make_split(splits["train"], meta, CPU).evaluation_batches(128)
    assert not more
    for name in AVERAGES:
        network = rebuilt(progress.average_weights[name], "resnet")
        with torch.no_grad():
            features = network.stem[0](images).double()
        for statistic, value in (("mean", features.mean((0, 2, 3))), ("var", features.var((0, 2, 3)))):
            kept = progress.average_weights[name][f"stem.1.running_{statistic}"].double()
            torch.testing.assert_close(kept, value, rtol=1e-4, atol=1e-5)
            assert not torch.equal(kept.float(), progress.last_weights[f"stem.1.running_{statistic}"])


def test_the_averages_change_nothing_of_the_training(monkeypatch):
    whole = run("resnet", augment="crop_flip")
    monkeypatch.setattr(loop.WeightAverages, "update", lambda *_: None)
    without = run("resnet", augment="crop_flip")
    assert without_clock(whole.epochs) == without_clock(without.epochs)
    assert all(
        torch.equal(whole.last_weights[name], without.last_weights[name]) for name in whole.last_weights
    )


@pytest.mark.parametrize("model", ["resnet", "lstm"])
def test_training_examples_are_evaluated_as_test_examples_are(model, monkeypatch):
    """Not with dropout, batch norm of the batch and weights that still move, as the running accuracy is."""
    monkeypatch.setattr(loop, "TRAIN_EVALUATED", 20)
    progress = run(model, optimizer={"name": "sgd", "base_lr": 0.2}, augment="crop_flip")
    splits, meta = DATA["image" if model == "resnet" else "text"]
    rows = np.sort(np.random.default_rng(0).permutation(SIZES["train"])[:20])
    whole = make_split(splits["train"], meta, CPU)
    logits = predict(rebuilt(progress.last_weights, model), whole, 500, CPU, torch.float32)[rows]
    expected = summarize(logits, splits["train"]["labels"][rows])
    for metric, value in expected.items():
        assert progress.final[f"train_evaluated/{metric}"] == pytest.approx(value, rel=1e-5), metric
    assert progress.final["train_evaluated/loss"] != pytest.approx(
        progress.epochs[-1]["train/loss"], rel=0.01
    )


@pytest.mark.parametrize("model", MODELS)
def test_the_tiny_data_can_be_learned(model):
    without_dropout = {} if model == "resnet" else {"dropout": 0.0}
    progress = run(model, num_epochs=8, optimizer={"name": "adamw", "base_lr": 0.05}, model=without_dropout)
    assert progress.epochs[-1]["train/loss"] < 0.5 * progress.epochs[0]["train/loss"]
    assert progress.epochs[-1]["validation/accuracy"] > 0.85


def test_one_batch_an_epoch_when_the_split_is_smaller_than_a_batch():
    progress = run(batch_size=1000)
    assert [len(record["steps"]["lr"]) for record in progress.epochs] == [1, 1, 1]


# ----------------------------------------------------------------------------------------------------- resume


RESUMED = [
    ("resnet", {"augment": "crop_flip", "optimizer": {"name": "nesterov", "base_lr": 0.05, "weight_decay": 1e-3}}),
    ("resnet", {"optimizer": {"name": "schedule_free_sgd", "base_lr": 0.5}}),
    ("lstm", {"optimizer": {"name": "schedule_free_adamw", "base_lr": 0.01, "weight_decay": 0.01}}),
    ("lstm", {"optimizer": {"name": "prodigy", "base_lr": 1.0}}),
    ("lstm", {"optimizer": {"name": "adadelta", "base_lr": 1.0}, "gradient_clip": 0.1}),
    ("transformer", {"optimizer": {"name": "nadam", "base_lr": 0.01}}),
    ("transformer", {"controller": {"name": "gradient_modulated", "gap_strength": 1.0}}),
    ("lstm", {"controller": {"name": "validation_monitor", "patience": 0, "threshold": 0.5}}),
    ("lstm", {"controller": {"name": "sparsity"}, "optimizer": {"name": "adamw", "base_lr": 0.01}}),
    ("transformer", {"controller": {"name": "loss_decay"}, "precision": "bfloat16"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "changes"),
    RESUMED,
    ids=lambda value: (
        value
        if isinstance(value, str)
        else "-".join(v["name"] for v in value.values() if isinstance(v, dict))
    ),
)
def test_a_training_goes_on_from_any_epoch_as_if_it_had_never_stopped(model, changes):
    saved = []

    def save(record, checkpoint):
        file = io.BytesIO()
        torch.save(checkpoint(), file)
        saved.append(file.getvalue())

    whole = run(model, num_epochs=3, on_epoch=save, **changes)
    assert len(saved) == 3
    for content in saved:
        torch.manual_seed(12345)  # whatever the process did before
        state = torch.load(io.BytesIO(content), weights_only=True)
        assert_same(run(model, state=state, num_epochs=3, **changes), whole)


def test_a_finished_training_trains_no_further():
    states = []
    whole = run(on_epoch=lambda record, checkpoint: states.append(checkpoint()))
    again = run(state=states[-1], on_epoch=lambda *_: pytest.fail("trained"))
    assert_same(again, whole)


def test_the_state_of_another_controller_is_refused():
    states = []
    run(num_epochs=1, on_epoch=lambda record, checkpoint: states.append(checkpoint()))
    with pytest.raises(StudyError, match="controller sparsity: found the saved state of 'none'"):
        run(state=states[0], controller={"name": "sparsity"})


# -------------------------------------------------------------------------------------------------- divergence


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("model", ["resnet", "transformer"])
def test_a_training_that_diverges_ends_with_its_history(model):
    calls = []
    progress = run(
        model, optimizer={"name": "sgd", "base_lr": 1e6}, on_epoch=lambda record, _: calls.append(record)
    )
    assert progress.status == "diverged"
    assert len(progress.epochs) == len(calls) == 1
    assert not math.isfinite(progress.epochs[0]["validation/loss"])
    assert (progress.best_epoch, progress.best_weights) == (0, None)
    assert progress.last_weights is not None
    assert (progress.average_weights, progress.final) == ({}, {})
    assert steps(progress, "lr")[0] == 1e6
    assert math.isfinite(steps(progress, "train/loss")[0])  # before the first update


def explodes_in_epoch_2(*args, **kwargs):
    return lambda t: 1e-8 if t < 1 else 1.0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_late_divergence_keeps_the_best_epoch_and_is_not_resumed(monkeypatch):
    monkeypatch.setattr(loop, "make_schedule", explodes_in_epoch_2)
    states = []
    changes = {
        "num_epochs": 4,
        "optimizer": {"name": "sgd", "base_lr": 1e6},
        "controller": {"name": "validation_monitor", "patience": 0},
    }
    progress = run("transformer", on_epoch=lambda record, checkpoint: states.append(checkpoint()), **changes)
    assert (progress.status, len(progress.epochs), progress.best_epoch) == ("diverged", 2, 1)
    assert all(torch.isfinite(value).all() for value in progress.best_weights.values())
    assert not all(torch.isfinite(value).all() for value in progress.last_weights.values())
    assert progress.epochs[1]["interventions"] == []  # a controller learns nothing from a loss of nan
    again = run("transformer", state=states[-1], on_epoch=lambda *_: pytest.fail("trained"), **changes)
    assert (again.status, len(again.epochs)) == ("diverged", 2)


# -------------------------------------------------------------------------------------------- gradient clipping


@pytest.mark.parametrize("model", MODELS)
def test_gradient_clip_bounds_the_update(model):
    changes = {
        "num_epochs": 1,
        "batch_size": SIZES["train"],
        "optimizer": {"name": "sgd", "base_lr": 0.5},
        "schedule": {"function": "static", "parameters": {}},
    }
    before = initial_weights(model)
    free = run(model, **changes)
    norm = free.epochs[0]["gradient_norm"]
    assert distance(before, free.last_weights, model) == pytest.approx(0.5 * norm, rel=1e-3)

    clipped = run(model, gradient_clip=norm / 10, **changes)
    assert clipped.epochs[0]["gradient_norm"] == norm  # logged as it was before clipping
    assert distance(before, clipped.last_weights, model) == pytest.approx(0.5 * norm / 10, rel=1e-3)

    assert_same(run(model, gradient_clip=norm * 10, **changes), free)


# ------------------------------------------------------------------------- every optimizer, every controller


@pytest.mark.parametrize("model", ["resnet", "lstm"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_trains(model, optimizer):
    progress = run(model, num_epochs=1, optimizer={"name": optimizer, "base_lr": 0.01})
    assert progress.status == "finished"
    assert progress.epochs[0]["effective_step"] > 0
    assert distance(initial_weights(model), progress.last_weights, model) > 0


@pytest.mark.parametrize("model", ["resnet", "lstm"])
@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_controller_trains(model, name):
    progress = run(model, num_epochs=1, controller={"name": name})
    assert progress.status == "finished"
    assert progress.epochs[0]["effective_step"] > 0


def test_a_controllers_factor_multiplies_the_rate_from_the_next_epoch_on():
    """A monitor that no epoch satisfies halves the rate after the second epoch and each one after it."""
    row = {"function": "exponential", "parameters": {"decay_rate": 0.5}}
    monitor = {"name": "validation_monitor", "patience": 0, "factor": 0.5, "threshold": 0.99}
    progress = run(num_epochs=4, schedule=row, controller=monitor)
    assert [record["controller_factor"] for record in progress.epochs] == [1, 0.5, 0.25, 0.125]
    assert [[i["epoch"] for i in record["interventions"]] for record in progress.epochs] == [
        [],
        [2],
        [3],
        [4],
    ]
    factors = np.repeat([1, 1, 0.5, 0.25], STEPS)
    expected = 0.1 * np.exp(-0.5 * np.arange(4 * STEPS) / STEPS) * factors
    np.testing.assert_allclose(steps(progress, "lr"), expected, rtol=1e-12)


@pytest.mark.parametrize("watch", ["accuracy", "f1_macro", "train_f1", "gradient_norm"])
def test_a_controller_is_told_of_the_metric_that_it_watches(watch):
    """The rate after each epoch is that of a monitor which is told what the history says."""
    watched = watch if watch in ("accuracy", "f1_macro") else f"+{watch}"
    monitor = {"name": "validation_monitor", "patience": 0, "watch": watched, "threshold": 0.1}
    progress = run("lstm", num_epochs=4, controller=monitor)
    alone = make_controller(**monitor)
    for record in progress.epochs:
        alone.after_epoch(epoch=record["epoch"], **{watch: record[METRICS[watch]]})
        assert record["controller_factor"] == alone.factor
    assert alone.factor < 1


def test_each_parameter_group_has_its_own_base_rate(monkeypatch):
    """An optimizer of another package may give its groups rates of their own; the schedule holds for each."""
    seen = []

    def layered(*args, **options):
        optimizer = make_optimizer(*args, **options)
        optimizer.param_groups[1]["lr"] *= 8
        optimizer.register_step_pre_hook(
            lambda *_: seen.append([group["lr"] for group in optimizer.param_groups])
        )
        return optimizer

    monkeypatch.setattr(loop, "make_optimizer", layered)
    progress = run(optimizer={"name": "momentum", "base_lr": 0.1, "weight_decay": 0.01})
    rates = steps(progress, "lr")
    assert len(set(rates)) > 1
    assert seen == [[rate, pytest.approx(8 * rate, rel=1e-15)] for rate in rates]


@pytest.mark.parametrize("model", ["resnet", "lstm"])
def test_sparsity_follows_the_zeros_of_each_batch(model):
    progress = run(model, num_epochs=2, controller={"name": "sparsity", "strength": 2.0}, schedule={"function": "static", "parameters": {}})  # fmt: skip
    splits, meta = DATA["image" if model == "resnet" else "text"]
    split = make_split(splits["train"], meta, CPU)
    order = torch.Generator().manual_seed(1)
    shares = [split.zero_share(rows) for _ in range(2) for _, _, rows in split.training_batches(16, order)]
    np.testing.assert_allclose(steps(progress, "lr"), 0.1 * (1 + 2 * np.array(shares)), rtol=1e-6)
    assert len(set(shares)) > 1


def test_loss_decay_is_the_schedule_under_plain_sgd_and_not_under_adam():
    row = {"function": "exponential", "parameters": {"decay_rate": 1.0}}
    for optimizer, same in (
        ({"name": "sgd", "base_lr": 0.1}, True),
        ({"name": "adam", "base_lr": 0.1}, False),
    ):
        scaled_rate = run(schedule=row, optimizer=optimizer)
        scaled_loss = run(schedule=row, optimizer=optimizer, controller={"name": "loss_decay"})
        assert set(steps(scaled_loss, "lr")) == {0.1}
        losses = [steps(progress, "train/loss") for progress in (scaled_rate, scaled_loss)]
        assert np.allclose(*losses, rtol=1e-4) == same


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_controller_is_told_of_batches_only_if_it_asks(monkeypatch, name):
    told = []
    monkeypatch.setattr(CONTROLLERS[name], "before_step", lambda self, *, zero_share: told.append(zero_share))
    run(num_epochs=1, controller={"name": name})
    assert len(told) == (STEPS if name == "sparsity" else 0)


# ------------------------------------------------------------------------------------------ device, precision


def test_mixed_precision_trains_weights_that_stay_float32():
    full, mixed = (run("resnet", num_epochs=1, precision=p) for p in ("float32", "bfloat16"))
    assert steps(full, "train/loss") != steps(mixed, "train/loss")
    np.testing.assert_allclose(steps(full, "train/loss")[0], steps(mixed, "train/loss")[0], rtol=0.02)
    kinds = {value.dtype for name, value in mixed.last_weights.items() if "num_batches" not in name}
    assert kinds == {torch.float32}


def test_the_precision_of_auto_is_what_the_device_computes_natively(monkeypatch):
    from lrstudy.training import devices

    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(devices, "has_native_bfloat16", lambda device, native=native: native)
        assert choose_dtype("auto", CPU) == dtype
        assert choose_dtype("float32", CPU) == torch.float32
        assert choose_dtype("bfloat16", CPU) == torch.bfloat16


def test_what_a_training_costs_is_processor_time_on_a_cpu_and_the_clocks_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(time, "process_time", lambda: 12.0)
    monkeypatch.setattr(time, "perf_counter", lambda: 70.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert compute_clock(CPU) == 4.0
    assert compute_clock(torch.device("cuda")) == compute_clock(torch.device("mps")) == 70.0


def test_a_device_that_is_asked_for_by_name_must_be_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(StudyError, match=r"train\.device: 'cuda' is not available .*choose auto or cpu"):
        choose_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cpu") == CPU


# ------------------------------------------------------------------------------------------------- torch.compile


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("model", ["resnet", "transformer"])
def test_compiled_kernels_change_the_history_by_rounding_alone(model):
    """Dropout draws the same numbers, reviews of any length fit. 1e-5 at first, 1e-2 after three epochs."""
    eager, compiled = (run(model, precision="float32", compile=chosen) for chosen in (False, True))
    assert steps(eager, "train/loss") != steps(compiled, "train/loss")  # it was compiled
    for name in ("train/loss", "gradient_norm"):
        np.testing.assert_allclose(steps(compiled, name)[0], steps(eager, name)[0], rtol=1e-5)
        np.testing.assert_allclose(steps(compiled, name), steps(eager, name), rtol=1e-2)
    validation = [[e["validation/loss"] for e in progress.epochs] for progress in (eager, compiled)]
    np.testing.assert_allclose(*validation, rtol=1e-2)
    assert compiled.last_weights.keys() == eager.last_weights.keys()


@pytest.mark.slow
def test_without_a_compiler_it_says_what_is_missing(monkeypatch):
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    torch._dynamo.reset()  # kernels that other tests made
    monkeypatch.setattr(config.cpp, "cxx", (None, "/nowhere/c++"))
    with (
        fresh_cache(),
        pytest.raises(StudyError, match=r"train\.compile: .*/nowhere/c\+\+.*g\+\+; install one"),
    ):
        run("resnet", num_epochs=1, compile=True)
