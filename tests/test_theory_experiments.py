"""Branches that share a trunk, networks as functions of their weights, verdicts, and the two stages."""

import importlib
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from composed import composed_params
from lrstudy.errors import StudyError
from lrstudy.recipe.config import check_params
from lrstudy.theory import branching, effects, late_decay, measurements, paths
from lrstudy.theory.network import Network
from lrstudy.tracking.journal import Journal
from lrstudy.training.batches import make_split
from lrstudy.training.loop import train
from tiny_data import SIZES, dataset, settings, write_dataset

ROOT = Path(__file__).parents[1]
KINDS = {"resnet": "image", "lstm": "text", "transformer": "text"}
DECAY = {"function": "late_decay", "parameters": {"start": 1 / 3, "shape": "step", "min_factor": 0.1}}
STATIC = {"function": "static", "parameters": {}}


def task(folder: Path, data: Path, settings: dict, **changes) -> dict:
    base = {"folder": str(folder), "key": folder.name, "label": folder.name, "data": str(data)}
    return base | {"settings": settings, "branches": [], "start": None} | changes


@pytest.fixture
def data(tmp_path, one_thread):
    """A function that writes a tiny data set of the kind that a model reads."""
    return lambda model: write_dataset(KINDS[model], tmp_path / "data")


# --- Branches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["nesterov", "adamw"])
@pytest.mark.parametrize("model", ["lstm", "resnet"])
def test_a_branch_ends_bit_for_bit_where_a_training_of_its_own_ends(tmp_path, data, model, optimizer):
    folder = data(model)
    common = settings(model, optimizer={"name": optimizer, "base_lr": 0.01})
    trunk = task(tmp_path / "trunk", folder, common | {"schedule": common["schedule"] | STATIC}, branches=[1])
    own = common | {"schedule": common["schedule"] | DECAY}
    branch = task(
        tmp_path / "branch", folder, own, start={"file": str(tmp_path / "trunk/branch-1.pt"), "epoch": 1}
    )
    paths.train_path(trunk)
    paths.train_path(branch)

    splits, meta = dataset(KINDS[model])
    device = torch.device("cpu")
    alone = train(
        own,
        make_split(splits["train"], meta, device),
        make_split(splits["validation"], meta, device),
        meta,
    )
    found = load_file(paths.weights_file(branch["folder"], 3))
    assert found.keys() == alone.last_weights.keys()
    for name, value in alone.last_weights.items():
        assert torch.equal(found[name], value), name
    outcome = json.loads((tmp_path / "branch/outcome.json").read_text())
    assert [e["validation/loss"] for e in outcome["epochs"]] == [e["validation/loss"] for e in alone.epochs]
    # It trained two epochs and no more: the first one's weights are the trunk's.
    assert not paths.weights_file(branch["folder"], 1).exists()
    assert outcome["epochs"][0]["lr"] == pytest.approx(0.01)
    assert outcome["epochs"][1]["lr"] == pytest.approx(0.001)


def test_a_path_that_was_killed_goes_on_and_tells_each_epoch_once(tmp_path, data, monkeypatch):
    folder = data("lstm")
    whole = task(tmp_path / "whole", folder, settings("lstm"), branches=[2])
    paths.train_path(whole)
    killed = task(tmp_path / "killed", folder, settings("lstm"), branches=[2])

    def die(record, num_epochs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(paths, "progress_line", die)
        for _ in range(2):  # after epoch 1, after epoch 2
            with pytest.raises(KeyboardInterrupt):
                paths.train_path(killed)
    paths.train_path(killed)
    for epoch in (1, 2, 3):
        mine, other = (load_file(paths.weights_file(t["folder"], epoch)) for t in (whole, killed))
        assert all(torch.equal(mine[name], other[name]) for name in mine)
    assert (tmp_path / "killed/branch-2.pt").exists()
    losses = [
        epoch
        for event in Journal(tmp_path / "killed", "killed").events()
        if event["event"] == "metrics"
        for name, _, epoch, _ in event["values"]
        if name == "validation/loss"
    ]
    assert losses == [1, 2, 3]


def test_a_path_is_trained_once_until_somebody_asks_for_more_of_it(tmp_path, data):
    one = task(tmp_path / "one", data("lstm"), settings("lstm", num_epochs=2))
    paths.train_path(one)
    stamp = (tmp_path / "one/outcome.json").stat().st_mtime_ns
    paths.train_path(one)
    assert (tmp_path / "one/outcome.json").stat().st_mtime_ns == stamp
    paths.train_path(one | {"branches": [1]})
    assert (tmp_path / "one/branch-1.pt").exists()
    paths.weights_file(one["folder"], 1).unlink()
    paths.train_path(one)
    assert paths.weights_file(one["folder"], 1).exists()


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path, data):
    one = task(tmp_path / "one", data("lstm"), settings("lstm", num_epochs=2))
    (tmp_path / "one").mkdir()
    (tmp_path / "one/checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(StudyError, match=r"checkpoint\.pt: not a checkpoint that can be read .* delete"):
        paths.train_path(one)


def test_sharing_the_trunk_saves_the_epochs_before_the_branches():
    found = branching.cost(num_epochs=10, branch_epochs=[1, 3, 5, 7, 9], num_seeds=3)
    assert found["epochs"] == 3 * (10 + 9 + 7 + 5 + 3 + 1)
    assert found["epochs_without_sharing"] == 3 * 6 * 10
    assert found["share_saved"] == pytest.approx(1 - 35 / 60)


def test_the_experiment_of_a_model_is_a_trunk_and_a_branch_for_every_epoch_and_seed(tmp_path):
    params = check_params(composed_params("data=sample", "preset=quick"))
    found = branching.branching(params, "lstm", dataset("text")[1], tmp_path)
    assert list(found.trunks) == params.theory.seeds
    assert len(found.paths()) == 2 * (1 + 3)
    trunk, branch = found.trunks[1], found.branches[1][2]
    assert trunk["settings"]["schedule"]["function"] == "static"
    assert trunk["branches"] == [1, 2, 3]
    assert branch["start"] == {"file": f"{trunk['folder']}/branch-2.pt", "epoch": 2}
    assert branch["settings"]["schedule"]["parameters"]["start"] == 0.5
    assert len({task["folder"] for *_, task in found.paths()}) == 8
    differing = {key for key in trunk["settings"] if trunk["settings"][key] != branch["settings"][key]}
    assert differing == {"schedule"}


def test_a_controller_of_the_study_does_not_reach_into_the_experiment(tmp_path):
    params = check_params(composed_params("data=sample", "preset=quick", "controller=validation_monitor"))
    found = branching.branching(params, "lstm", dataset("text")[1], tmp_path)
    assert {task["settings"]["controller"]["name"] for *_, task in found.paths()} == {"none"}


# --- Statistics -------------------------------------------------------------------------------------------


def test_a_trend_that_every_seed_agrees_on_is_as_sure_as_it_can_be():
    rising = np.array([[1.0, 2.0, 3.0, 4.0]] * 3)
    found = branching.trend(rising)
    assert found["rho"] == pytest.approx(1.0)
    assert found["p"] == pytest.approx(2 / 24**3)  # one order of 4! in each of 3 seeds, and both sides
    falling = branching.trend(-rising)
    assert falling["rho"] == pytest.approx(-1.0)
    assert falling["p"] == pytest.approx(found["p"])


def test_no_trend_where_seeds_contradict_each_other():
    found = branching.trend([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    assert found["rho"] == pytest.approx(0.0, abs=1e-12)
    assert found["p"] == 1.0
    assert branching.trend([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])["rho"] == 0.0


def test_too_few_branches_or_seeds_have_no_trend():
    assert branching.trend([[1.0, 2.0], [1.0, 2.0]])["p"] is None
    assert branching.trend([[1.0, 2.0, 3.0]])["p"] is None


def test_late_minus_early_leaves_the_middle_out():
    found = branching.late_minus_early([[1.0, 2.0, 99.0, 3.0, 6.0], [0.0, 0.0, -5.0, 1.0, 1.0]], 0.95, 1000)
    assert found["values"] == [3.0, 1.0]
    assert found["mean"] == 2.0
    assert found["n"] == 2
    assert found["smallest_p"] == 0.5


@pytest.mark.parametrize(
    ("mean", "interval", "p", "better", "expected"),
    [
        (2.0, [1.0, 3.0], 0.01, 1, "supported"),
        (2.0, [1.0, 3.0], 0.01, -1, "contradicted"),
        (-2.0, [-3.0, -1.0], 0.01, -1, "supported"),
        (2.0, [1.0, 3.0], 0.06, 1, "undecided"),
        (2.0, [-1.0, 3.0], 0.01, 1, "undecided"),
        (2.0, None, 0.01, 1, "undecided"),
        (2.0, [1.0, 3.0], None, 1, "undecided"),
    ],
)
def test_verdicts(mean, interval, p, better, expected):
    assert effects.verdict({"mean": mean, "interval": interval}, p, 0.95, better=better) == expected


def test_one_case_refutes_and_none_proves():
    found = effects.refutation([0.0, 0.3, 0.0], [0.1, 0.1, 0.1], 0.95)
    assert (found["verdict"], found["fail"], found["n"], found["largest"]) == ("refutes", 1, 3, 0.3)
    assert found["interval"][0] <= found["mean"] <= found["interval"][1]
    assert effects.refutation([0.0, 0.05], [0.1, 0.1], 0.95)["verdict"] == "does not refute"
    assert effects.refutation([], [], 0.95)["verdict"] == "not measured"
    assert effects.refutation([math.inf], [0.1], 0.95)["verdict"] == "refutes"


def test_a_gap_that_grows_with_the_branching_epoch_contradicts_that_late_decay_closes_it():
    """Test metrics and gaps that both grow at every seed: better on test data, and further from training."""
    growing = np.array([[0.1, 0.2, 0.4, 0.5, 0.9], [0.2, 0.3, 0.5, 0.7, 0.8], [0.0, 0.1, 0.2, 0.6, 0.7]])
    measured = {
        "trend": branching.trend(growing),
        "late_minus_early": branching.late_minus_early(growing, 0.95, 1000),
    }
    one = measured | {"gap": measured, "metric": "test/accuracy", "data": {"label": "images"}}
    better, gap = late_decay.claims({"toy": {"powers": {}}, "models": {"resnet": one}}, 0.95)
    assert (better["id"], better["verdict"]) == ("late_decay_network", "supported")
    assert (gap["id"], gap["verdict"]) == ("late_decay_gap", "contradicted")
    assert better["p"] == gap["p"] == pytest.approx(2 / math.factorial(5) ** 3)


def test_a_summary_counts_what_is_finite_and_keeps_the_places():
    found = effects.summary([1.0, math.nan, 3.0], 0.95, 1000)
    assert found["values"] == [1.0, None, 3.0]
    assert (found["mean"], found["n"]) == (2.0, 2)
    assert effects.summary([math.nan], 0.95, 1000)["mean"] is None


# --- Networks as functions of their weights ---------------------------------------------------------------


@pytest.fixture
def network(data):
    return lambda model, **options: Network(
        settings(model), str(data(model)), **{"num_examples": 1000, "num_batches": 3} | options
    )


@pytest.mark.parametrize("model", list(KINDS))
def test_weights_go_into_the_model_as_they_came_out(network, model):
    torch.manual_seed(3)
    found = network(model)
    weights = found.vector(found.model.state_dict())
    assert weights.shape == (found.size,)
    other = torch.randn(found.size)
    found.put(other)
    assert torch.equal(found.vector(found.model.state_dict()), other)
    matrix, bias = found.last_layer()
    assert torch.equal(other[matrix].view_as(found.model.classifier.weight), found.model.classifier.weight)
    assert torch.equal(other[bias], found.model.classifier.bias)


def test_losses_are_functions_of_the_weights_alone(network):
    """Whatever batch norm has seen before."""
    found = network("resnet")
    weights = found.vector(found.model.state_dict())
    first = found.family(weights)
    for module in found.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.fill_(7.0)
    assert found.family(weights) == first
    sizes = [len(rows) for rows in found.batches]
    batches = [first[f"batch {number}"] for number in (1, 2, 3)]
    assert np.average(batches, weights=sizes) == pytest.approx(first["train"])
    assert sum(sizes) == SIZES["train"]
    assert 0 < found.standard_error(weights)["test"] < first["test"]


def test_a_network_that_knows_nothing_loses_the_entropy_of_the_classes(network):
    found = network("resnet")
    assert found.losses(torch.zeros(found.size))["test"] == pytest.approx(math.log(4), rel=1e-6)


def test_the_gradient_of_a_batch_is_that_of_training_without_dropout(network):
    found = network("lstm")
    weights = found.vector(found.model.state_dict())
    everything = len(found.splits["train"])
    gradient = found.batch_gradient(weights, everything, torch.Generator().manual_seed(0))
    direction = gradient / gradient.norm()
    ahead, behind = (found.losses(weights + s * 1e-2 * direction)["train"] for s in (1, -1))
    assert (ahead - behind) / 2e-2 == pytest.approx(gradient.norm().item(), rel=0.02)


def test_a_curve_is_trained_on_the_whole_training_split(data):
    """On the few measured examples it would learn these, and the barrier be gone for them alone."""
    folder = str(data("resnet"))
    few, all_of_them = (
        Network(settings("resnet"), folder, num_examples=count) for count in (8, SIZES["train"])
    )
    weights = few.vector(few.model.state_dict())
    gradients = [
        found.batch_gradient(weights, SIZES["train"], torch.Generator().manual_seed(0))
        for found in (few, all_of_them)
    ]
    assert len(few.splits["train"]) == 8
    assert torch.equal(*gradients)


@pytest.mark.parametrize("model", ["lstm", "resnet"])
def test_a_hessian_product_is_the_second_derivative_of_the_loss(network, model):
    torch.manual_seed(1)
    found = network(model)
    weights = found.vector(found.model.state_dict())
    vector = torch.zeros(found.size)
    vector[found.last_layer()[1]] = torch.randn(vector[found.last_layer()[1]].shape)
    # In the bias the curvature is the covariance of the class probabilities.
    p, v = torch.from_numpy(found.logits(weights)).softmax(1), vector[found.last_layer()[1]]
    expected = ((p * v**2).sum(1) - (p @ v) ** 2).mean()
    product = found.product(weights, 1000)
    assert torch.dot(vector, product(vector)).item() == pytest.approx(expected.item(), rel=1e-3)
    found.put(0 * weights)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):  # rather than a wrong number
        product(vector)


@pytest.mark.slow
@pytest.mark.parametrize("model", list(KINDS))
def test_over_the_top_connects_two_trained_networks_in_the_superlevel_set(tmp_path, data, model):
    folder, files = data(model), []
    for seed in (1, 2):
        one = task(
            tmp_path / f"seed-{seed}",
            folder,
            settings(model, seed=seed, optimizer={"name": "adamw", "base_lr": 0.01}),
        )
        paths.train_path(one)
        files.append(str(paths.weights_file(one["folder"], 3)))
    asked = {
        "name": "both", "settings": settings(model), "data": str(folder), "num_examples": 1000,
        "ends": files, "epochs": {3: files}, "num_batches": 2, "num_points": 5, "num_curve_steps": 5,
        "curve_lr": 0.01, "curve_batch_size": 16, "seed": 0,
    }  # fmt: skip
    found = measurements.join(asked)
    assert found["over_the_top"]["dip"]["train"] < 1e-4
    assert max(found["over_the_top"]["along"]["train"]) > 10
    assert set(found["line"]["along"]) == {"train", "test", "batch 1", "batch 2"}
    assert found["line"]["worst"]["barrier"] == max(found["line"]["barrier"].values())
    assert found["distance"] > 0.1
    ends = found["line"]["along"]["train"]
    assert [found["curve"]["along"]["train"][i] for i in (0, -1)] == pytest.approx(
        [ends[0], ends[-1]], rel=1e-5
    )
    assert found["by_epoch"][0]["epoch"] == 3
    assert measurements.join(asked) == found


# --- Configuration ----------------------------------------------------------------------------------------


WRONG = [
    ("late_decay", {"branch_epochs": {"cifar10": [1, 10], "imdb": [1]}}, "branch_epochs.cifar10 ends with 10, and the trunk has 10"),
    ("late_decay", {"branch_epochs": {"cifar10": [3, 2], "imdb": [1]}}, "branch_epochs.cifar10 must grow"),
    ("late_decay", {"shape": "stair"}, "theory.late_decay.shape: found 'stair'"),
    ("late_decay", {"resolutoin": 3}, "theory.late_decay: 'resolutoin' is not a known key; choose one of"),
    ("toy", {"num_examples": 20}, "num_examples 20 is not below dimension 20"),
    ("toy", {"decay_shares": [0.5, 0.5]}, "decay_shares must grow"),
    ("toy", {"noise": -1.0}, "theory.toy.noise: found -1.0"),
    ("level_sets", {"num_points": 2}, "theory.level_sets.num_points: found 2"),
    (None, {"seeds": [1, 1]}, "theory.seeds has a seed twice"),
    (None, {"seeds": [101]}, "tune.seeds and theory.seeds share [101]"),
]  # fmt: skip


@pytest.fixture(scope="module")
def composed():
    return composed_params()


@pytest.mark.parametrize(("section", "changes", "message"), WRONG)
def test_wrong_settings_get_one_clear_error(composed, section, changes, message):
    theory = dict(composed["theory"])
    if section:
        theory[section] = theory[section] | changes
    else:
        theory |= changes
    with pytest.raises(StudyError) as error:
        check_params(composed | {"theory": theory})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_row_that_does_not_fit_is_named(composed):
    params = check_params(composed)
    row = params.theory.level_sets.rows["exponential"].model_copy(update={"function": "expo"})
    with pytest.raises(StudyError, match=r"schedule\.odd: schedule: 'expo' is not"):
        paths.path_cell(params, "resnet", "odd", row, 3)


# --- The stages -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    from lrstudy.compose import compose

    folder = tmp_path_factory.mktemp("theory")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_ROOT", raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("LRSTUDY_WORKERS", "1")
        overrides = ["data=sample", "preset=smoke", "model=[resnet,lstm]", "num_epochs.imdb=2"]
        compose(ROOT, folder / "params.yaml", overrides)
        for dataset_name in ("cifar10", "imdb"):
            run_stage(patch, "download", dataset_name)
            run_stage(patch, "preprocess", dataset_name)
        run_stage(patch, "late_decay")
        run_stage(patch, "level_sets")
        yield folder, patch


def run_stage(patch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    patch.setattr(sys, "argv", [name, *arguments])
    importlib.import_module(f"lrstudy.stages.{name}").main()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "model"), [("late_decay", "resnet"), ("level_sets", "lstm")])
def test_a_stage_writes_every_number_its_figures_and_verdicts(workspace, name, model):
    folder, _ = workspace
    found = json.loads((folder / f"reports/{name}.json").read_text())
    assert list(found["models"]) == [model]
    one = found["models"][model]
    drawn = {path.name for path in (folder / f"artifacts/theory/{name}").iterdir()}
    assert set(one["figures"]) <= drawn
    assert {f"{stem}.png" for stem in (path.removesuffix(".svg") for path in drawn)} & drawn
    for claim in found["claims"]:
        assert claim["verdict"] in (
            "supported", "contradicted", "undecided", "refutes", "does not refute", "not measured",
        )  # fmt: skip
        assert {"id", "where", "claim", "effect", "mean", "interval", "n", "why"} <= set(claim)
    if name == "late_decay":
        assert one["cost"]["epochs"] == 3
        assert one["cost"]["epochs_without_sharing"] == 4
        assert one["cost"]["seconds"]["trained"] < one["cost"]["seconds"]["without_sharing"]
        assert np.shape(one["landscape"]["losses"]["test"]) == (3, 3)
        # The curve of the branch begins on the trunk.
        paths_drawn = one["landscape"]["paths"]
        assert paths_drawn["from epoch 1"][0] == paths_drawn["trunk"][0]
        (trunk,) = [path for path in one["along"] if path["branch_epoch"] is None]
        assert [at["epoch"] for at in trunk["epochs"]] == [1, 2]
        assert trunk["epochs"][0]["trace_standard_error"] >= 0
        (branch,) = [path for path in one["along"] if path["branch_epoch"] == 1]
        end = branch["epochs"][-1]
        assert one["branches"]["1"]["gap"]["values"] == [end["test/loss"] - end["train/loss"]]
        networks = [claim["id"] for claim in found["claims"] if claim["where"].startswith("resnet")]
        assert networks == ["late_decay_network", "late_decay_gap"]
    else:
        verdicts = {claim["id"]: claim["verdict"] for claim in found["claims"]}
        assert verdicts["over_the_top_superlevel"] == "does not refute"
        assert set(one["schedules"]) == {"static", "exponential", "exponential_modulated"}
        trials = {len(schedule["tuned"]["trials"]) for schedule in one["schedules"].values()}
        assert trials == {1}  # as many for every row
        assert len(one["pairs"]) == 2


@pytest.mark.slow
def test_mlflow_has_a_run_for_each_experiment_with_its_paths_below(workspace):
    from mlflow import MlflowClient

    folder, _ = workspace
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lrstudy").experiment_id
    parents = {run.info.run_name: run for run in client.search_runs([experiment], "tags.kind = 'theory'")}
    assert set(parents) == {"late_decay toy", "late_decay resnet", "level_sets lstm"}
    for name, count in (("late_decay resnet", 2), ("level_sets lstm", 3)):
        run = parents[name]
        assert run.info.status == "FINISHED"
        children = client.search_runs(
            [experiment], f"tags.kind = 'path' and tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        )
        assert len(children) == count
        for child in children:
            assert child.info.status == "FINISHED"
            assert {"test/accuracy", "validation/loss"} <= set(child.data.metrics)
        assert len(client.list_artifacts(run.info.run_id, "figures")) >= 4


@pytest.mark.slow
def test_a_stage_that_runs_again_trains_nothing_and_says_the_same(workspace, capsys):
    folder, patch = workspace
    before = (folder / "reports/level_sets.json").read_text()
    shutil.rmtree(folder / "artifacts/theory")
    run_stage(patch, "level_sets")
    said = capsys.readouterr().err
    assert " epoch " not in said
    assert "paths between solutions:" not in said
    assert (folder / "reports/level_sets.json").read_text() == before


@pytest.mark.slow
def test_a_stage_that_was_killed_keeps_what_it_had_measured(workspace, capsys):
    folder, patch = workspace
    before = (folder / "reports/level_sets.json").read_text()
    kept = (folder / "checkpoints/theory/measured").glob("*.json")
    paths_kept = [file for file in kept if "over_the_top" in json.loads(file.read_text())]
    assert len(paths_kept) == 2
    paths_kept[0].unlink()
    run_stage(patch, "level_sets")
    said = [line for line in capsys.readouterr().err.splitlines() if "paths between solutions:" in line]
    assert said == ["level_sets lstm paths between solutions: 2 of 2"]
    assert (folder / "reports/level_sets.json").read_text() == before


@pytest.mark.slow
def test_without_models_only_the_toy_runs_and_models_that_are_not_there_are_named(workspace, capsys):
    from lrstudy.compose import compose

    folder, patch = workspace
    compose(
        ROOT,
        folder / "params.yaml",
        [
            "data=sample",
            "preset=smoke",
            "model=lstm",
            "theory.late_decay.models=[resnet]",
            "theory.level_sets.models=[]",
        ],
    )
    run_stage(patch, "late_decay")
    run_stage(patch, "level_sets")
    assert "not among the study's models, left out: resnet" in capsys.readouterr().err
    late = json.loads((folder / "reports/late_decay.json").read_text())
    assert late["missing"] == ["resnet"]
    assert late["models"] == {}
    assert len(late["toy"]["powers"]) == 4
    assert json.loads((folder / "reports/level_sets.json").read_text())["models"] == {}
