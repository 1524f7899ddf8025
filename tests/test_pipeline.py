"""Contracts between dvc.yaml, params.yaml, conf/ and the code."""

import functools
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from composed import composed_params, conf_section
from lrstudy.entries import meaning
from lrstudy.errors import StudyError
from lrstudy.ledger import Ledger
from lrstudy.recipe.config import check_params, load_params
from lrstudy.recipe.identity import code_behind
from lrstudy.stages import code

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = {name: stage.get("do", stage) for name, stage in DVC.items()}


WALK = [
    "download", "preprocess", "trainings", "tune", "train", "evaluate", "references", "timing", "late_decay", "level_sets",
    "compare", "report", "publish",
]  # fmt: skip
OF_CELLS = ["tune", "train", "evaluate"]
OF_MODELS = ["timing"]
OVER = (
    dict.fromkeys(OF_CELLS, "${stages.cells}")
    | {"tune": "${stages.searches}"}
    | dict.fromkeys(OF_MODELS, "${timed}")
)


@pytest.mark.parametrize("name", WALK)
def test_a_stage_depends_on_what_its_code_means_and_on_no_module_by_itself(name):
    """The stage `code` writes these files: see tests/test_identity.py."""
    own = f"artifacts/code/{name}{'/${key}' if name in OVER else ''}.json"
    deps = STAGES[name]["deps"]
    assert own in deps
    assert [dep for dep in deps if dep.startswith("artifacts/code")] == [own]
    assert [dep for dep in deps if dep.endswith(".py")] == []
    of_data = {"download": "${dataset}", "preprocess": "${datasets}", "references": "${datasets}"}
    assert DVC[name].get("foreach") == (OVER | of_data).get(name)


def test_the_code_is_written_down_again_whenever_the_source_or_what_is_proven_equal_changes():
    assert set(STAGES["code"]["deps"]) == {"src/lrstudy", "ledger/equivalences", "artifacts/outside"}
    # Kept out of the run cache, see dvc.yaml.
    assert STAGES["code"]["outs"] == [{"artifacts/code": {"persist": True}}]


def written_code(tmp_path: Path, *overrides: str) -> dict[str, dict]:
    """The files of artifacts/code for a composition, by name."""
    params = check_params(compose(*overrides))
    return code.code_files(params, Ledger(tmp_path / "ledger"))


def test_every_cell_has_the_code_of_its_trainings_and_every_stage_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    files = written_code(tmp_path, "model=[resnet,lstm]", "schedule=[static,cosine]")
    cells = ["resnet-static", "resnet-cosine", "lstm-static", "lstm-cosine"]
    whole = [f"{name}.json" for name in WALK if name not in OVER]
    of_models = [f"{name}/{model}.json" for name in OF_MODELS for model in ("resnet", "lstm")]
    assert set(files) == {f"{name}/{cell}.json" for name in OF_CELLS for cell in cells} | {*whole, *of_models}
    for name in OF_CELLS:
        of = {cell: files[f"{name}/{cell}.json"] for cell in cells}
        assert {frozenset(one) for one in of.values()} == {
            frozenset({"stage", "loop", "schedule", "controller", "optimizer", "network"})
        }
        assert len({one["stage"] for one in of.values()}) == 1
        assert of["resnet-cosine"]["schedule"] == of["lstm-cosine"]["schedule"]
        assert of["resnet-cosine"]["schedule"] != of["resnet-static"]["schedule"]
        assert of["resnet-cosine"]["network"] != of["lstm-cosine"]["network"]
    assert len({files[f"{name}/lstm-cosine.json"]["stage"] for name in OF_CELLS}) == 3


def test_a_timing_has_the_code_of_all_that_it_times(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    files = written_code(tmp_path, "model=[resnet,lstm]", "schedule=[static,cosine]")
    resnet, lstm = files["timing/resnet.json"], files["timing/lstm.json"]
    optimizers = check_params(compose()).timing.optimizers
    assert resnet.keys() == lstm.keys() == {
        "stage", "schedules.static", "schedules.cosine", *(f"optimizers.{name}" for name in optimizers)
    }  # fmt: skip
    assert resnet["stage"] == lstm["stage"]
    assert all(resnet[name] != lstm[name] for name in resnet.keys() - {"stage"})  # the network's code


def test_a_theory_stage_has_the_code_of_what_it_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    theory = check_params(compose("theory=hours")).theory
    files = written_code(tmp_path, "theory=hours")
    model = theory.level_sets.models[0]
    assert set(files["level_sets.json"]) >= {"stage", *(f"{model}-{row}" for row in theory.level_sets.rows)}
    assert set(files["late_decay.json"]) >= {"stage", f"{model}-static", f"{model}-late_decay"}


def test_what_is_proven_equal_is_the_same_code_to_dvc(tmp_path, monkeypatch):
    from lrstudy.ledger.equivalence import Equivalence, Pair, write_equivalence
    from lrstudy.ledger.record import Origin

    monkeypatch.chdir(ROOT)
    files = written_code(tmp_path, "model=lstm", "schedule=cosine")
    now, older = files["train/lstm-cosine.json"]["loop"], "0" * 64
    origin = Origin(
        machine="m",
        processor="p",
        cores=1,
        system="s",
        accelerator=None,
        versions={},
        revision="r",
        ended=0.0,
    )
    pair = Pair(part="loop", name="", old=older, new=now)
    write_equivalence(
        tmp_path / "ledger/equivalences",
        Equivalence(format=1, pairs=[pair], base="b", revision="r", compared={}, origin=origin),
    )
    equal = written_code(tmp_path, "model=lstm", "schedule=cosine")
    assert equal["train/lstm-cosine.json"] == files["train/lstm-cosine.json"] | {"loop": older}


def test_files_of_the_package_that_are_no_modules_belong_to_some_stage():
    listed = {dep for stage in STAGES.values() for dep in stage["deps"] if dep.startswith("src/")}
    for file in (SOURCE / "lrstudy").rglob("*"):
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            path = file.relative_to(ROOT)
            # a stage that depends on a folder depends on those in it; on all of the package only `code` does
            above = {str(folder) for folder in path.parents if len(folder.parts) > 2}
            assert listed & {str(path), str(path.parent), *above}, path


def test_the_stages_are_the_documented_walk():
    assert list(STAGES) == ["outside", "code", *WALK]
    assert all(STAGES[name]["cmd"].startswith(f"python -m lrstudy.stages.{name}") for name in WALK)


@pytest.mark.parametrize(
    ("target", "first"),
    [(None, "trainings"), ("report", "trainings"), ("evaluate@lstm-cosine", "tune@lstm-cosine")],
)
def test_all_trainings_come_before_the_cells_stages_unless_a_cell_alone_is_asked_for(target, first):
    """In the order in which DVC runs stages, which it takes from dvc.yaml and from what compare depends on."""
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro

    with Repo(str(ROOT)) as repo:
        graph = repo.index.graph
        named = {stage.addressing: stage for stage in repo.index.stages}
        planned = [stage.addressing for stage in plan_repro(graph, target and [named[target]])]
    of_cells = [name for name in planned if name.split("@")[0] in ("trainings", *OF_CELLS)]
    assert of_cells[0] == first
    assert ("trainings" in planned) == (first == "trainings")


def test_only_the_stages_that_measure_results_open_test_data():
    readers = {
        str(file.relative_to(ROOT))
        for file in (SOURCE / "lrstudy").rglob("*.py")
        if re.search(r"(?<!def )read_(split|examples)\(", text := file.read_text()) and '"test"' in text
    }
    # Data that it has made itself; what hands out the split that is asked for.
    readers -= {"src/lrstudy/proof.py", "src/lrstudy/data/preprocessing.py"}
    measuring = ("study/measuring", "stages/references", "theory/measurements", "theory/network")
    assert readers == {f"src/lrstudy/{name}.py" for name in measuring}
    of_readers = {
        meaning._meaning(f"{module}.{name}").own
        for module in (
            reader.removeprefix("src/").removesuffix(".py").replace("/", ".") for reader in readers
        )
        for name, statements in meaning._module(module).statements.items()
        if re.search(r"read_(split|examples)\(", text := "".join(one.source for one in statements))
        and "'test'" in text
    }
    assert of_readers
    reaching = {
        name for name in WALK if of_readers & {one.own for one in code_behind(f"lrstudy.stages.{name}.main")}
    }
    assert reaching == {"trainings", "evaluate", "references", "late_decay", "level_sets"}


def leaf_paths(section, prefix=""):
    """Every dotted path to a value of params.yaml."""
    if not isinstance(section, dict) or not section:
        return [prefix]
    return [
        leaf for key, value in section.items() for leaf in leaf_paths(value, f"{prefix}.{key}".lstrip("."))
    ]


@pytest.mark.parametrize("preset", ["cpu", "study"])
def test_every_key_of_params_is_declared_by_some_stage(preset):
    params = compose(f"preset={preset}")
    declared = set()
    for name, stage in STAGES.items():
        items = DVC[name].get("foreach", "")
        for declaration in stage.get("params", []):
            if items in OVER.values():
                declared |= {
                    re.sub(r"\$\{item\.(\w+)\}", lambda key, c=c: c[key[1]], declaration).replace(
                        "${key}", of
                    )
                    for of, c in functools.reduce(dict.get, items[2:-1].split("."), params).items()
                }
            elif items in ("${dataset}", "${datasets}"):
                declared |= {re.sub(r"\$\{(key|item)\}", one, declaration) for one in params["datasets"]}
            else:
                declared.add(declaration)
    undeclared = [
        leaf
        for leaf in leaf_paths(params)
        if not any(leaf == d or leaf.startswith(d + ".") for d in declared)
    ]
    # Two lists: which names may stand in num_epochs, and over what the DAG runs. Where trainings run decides no
    # result, so that moving to a cluster makes no stage stale.
    assert undeclared == ["known_datasets", "datasets", "parallel.backend"]
    for declaration in declared:
        node = params
        for key in declaration.split("."):
            assert key in node, f"{declaration} is declared and not in params.yaml"
            node = node[key]


compose = composed_params
"""params.yaml as `dvc exp run -S ...` writes it."""


def test_the_committed_params_are_the_composition():
    """What git has of params.yaml, since `dvc exp run -S ...` leaves its own composition in the folder."""
    if not (ROOT / ".git").exists():
        pytest.skip("no repository here")
    committed = subprocess.run(
        ["git", "show", ":params.yaml"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert yaml.safe_load(committed) == compose()


PRESETS = sorted(path.stem for path in (ROOT / "conf/preset").glob("*.yaml"))
SCHEDULES = sorted(path.stem for path in (ROOT / "conf/schedule").glob("*.yaml"))
MODELS = sorted(path.stem for path in (ROOT / "conf/model").glob("*.yaml"))
OPTIMIZERS = sorted(path.stem for path in (ROOT / "conf/optimizer").glob("*.yaml"))
CONTROLLERS = sorted(path.stem for path in (ROOT / "conf/controller").glob("*.yaml"))


@pytest.mark.parametrize("group", ["optimizer", "controller"])
def test_every_optimizer_and_every_controller_composes_to_its_own_section(group):
    """By its package; that it then stands there as its file has it is composed for two of each."""
    choices = sorted((ROOT / "conf" / group).glob("*.yaml"))
    assert [path.name for path in choices if path.read_text().split("\n")[0] != f"# @package {group}"] == []
    for choice in (choices[0].stem, choices[-1].stem):
        found = compose("model=resnet", "schedule=static", f"{group}={choice}")
        assert found[group] == conf_section(group, choice)


def test_the_timed_optimizers_are_those_of_conf_and_the_claim_finds_both_kinds_among_them():
    from lrstudy.analysis.claim_specs import Timed, claim_specs

    timed = compose("optimizer=adagrad")["timing"]["optimizers"]
    assert timed == {name: conf_section("optimizer", name) for name in timed}
    [claim] = [spec for spec in claim_specs() if isinstance(spec, Timed) and spec.contrast == "optimizer"]
    assert set(timed) < {*claim.adaptive, *claim.plain}
    assert {"adagrad", "rmsprop", "adam", "adamw", "nadam"} < set(claim.adaptive) & set(timed)
    assert {*claim.adaptive, *claim.plain} <= set(OPTIMIZERS)  # a new one is in neither class until named


def all_cells(preset: str) -> dict:
    """Every model with every schedule under this preset."""
    return compose(f"preset={preset}", f"schedule=[{','.join(SCHEDULES)}]", f"model=[{','.join(MODELS)}]")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_cell_of_conf_is_legal_under_every_preset(preset):
    from lrstudy.recipe.cells import default_values, make_cell
    from lrstudy.search.tuning import check_inside

    content = all_cells(preset)
    assert content["optimizer"] == conf_section("optimizer", "per_model")
    assert content["controller"] == conf_section("controller", "none")
    columns = {model: found.get("schedules") or SCHEDULES for model, found in content["model"].items()}
    assert {(cell["model"], cell["schedule"]) for cell in content["cells"].values()} == {
        (model, schedule) for model, found in columns.items() for schedule in found
    }
    params = check_params(content)
    for listed in params.cells.values():
        cell = make_cell(params, listed.model, listed.schedule)
        defaults = default_values(cell)
        assert set(defaults) == set(cell.search_space())
        for name, where in cell.search_space().items():  # the first trial is the defaults
            check_inside(name, defaults[name], where, cell)


@pytest.mark.parametrize(
    ("group", "choice"),
    [*(("optimizer", name) for name in OPTIMIZERS), *(("controller", name) for name in CONTROLLERS)],
)
def test_every_optimizer_and_every_controller_is_legal_in_every_cell_of_conf(group, choice):
    """Under the preset with the fewest epochs. Neither knows a length, and presets leave both, see above."""
    from lrstudy.recipe.cells import default_values, make_cell
    from lrstudy.search.tuning import check_inside

    params = check_params(all_cells("smoke") | {group: conf_section(group, choice)})
    for listed in params.cells.values():
        cell = make_cell(params, listed.model, listed.schedule)
        defaults = default_values(cell)
        assert set(defaults) == set(cell.search_space())
        for name, where in cell.search_space().items():
            check_inside(name, defaults[name], where, cell)


@pytest.mark.parametrize("source", ["hub", "archive", "sample"])
def test_every_data_source_composes(source):
    assert check_params(compose(f"data={source}")).data.source == source


def test_a_row_without_the_text_models_needs_no_text():
    params = compose("model=resnet", "schedule=exponential")
    assert params["datasets"] == ["cifar10"]
    assert list(params["cells"]) == ["resnet-exponential"]


def test_the_cluster_composes_and_decides_no_result():
    params, local = compose("parallel=ray"), compose()
    assert params.pop("parallel") == ON_RAY
    assert local.pop("parallel") == {"backend": "local"}
    assert params == local
    assert check_params(compose("parallel=ray", "parallel.num_gpus=0.25")).workers == (
        1,
        "auto",
        {"num_cpus": None, "num_gpus": 0.25, "memory_gib": 1.5, "max_retries": 3},
    )
    assert check_params(compose()).workers == (1, "auto", None)


ON_RAY = {"backend": "ray", "num_cpus": None, "num_gpus": 0.0, "memory_gib": 1.5, "max_retries": 3}
WRONG = [
    ("an unknown section", {"trian": {}}, "params.yaml: 'trian' is not a known key; choose one of"),
    ("an unknown key", {"train.sedes": [1]}, "params.yaml: train: 'sedes' is not a known key; choose one of"),
    ("a wrong type", {"train.threads": "two"}, "params.yaml: train.threads: found 'two'; input should be"),
    ("a value out of range", {"tune.num_trials": -1}, "params.yaml: tune.num_trials: found -1;"),
    ("no finalist", {"tune.finalists": 0}, "params.yaml: tune.finalists: found 0; input should be greater than or equal to 1"),
    ("no search", {"tune.searches": 0}, "params.yaml: tune.searches: found 0; input should be greater than or equal to 1"),
    ("not even the defaults", {"tune.num_quasi_random": 0}, "params.yaml: tune.num_quasi_random: found 0;"),
    ("rungs, which there were", {"tune.rungs": [1.0]}, "params.yaml: tune: 'rungs' is not a known key; choose one of"),
    ("confirming on the final seeds", {"tune.confirm_seeds": [102, 1]}, "params.yaml: tune.confirm_seeds and train.seeds share [1]; tuning must not see"),
    ("confirming on the search's seeds", {"tune.confirm_seeds": [102, 101]}, "params.yaml: tune.seeds and tune.confirm_seeds share [101]; a training that is repeated confirms nothing"),
    ("confirming twice", {"tune.confirm_seeds": [102, 102]}, "params.yaml: tune.confirm_seeds has a seed twice in [102, 102]"),
    ("no seeds", {"train.seeds": []}, "params.yaml: train.seeds: found [];"),
    ("a seed twice", {"train.seeds": [1, 1]}, "params.yaml: train.seeds has a seed twice"),
    ("tuning on the final seeds", {"tune.seeds": [1]}, "params.yaml: tune.seeds and train.seeds share [1]"),
    ("a rate of 0", {"model.lstm.optimizer.base_lr": 0.0}, "params.yaml: model.lstm.optimizer.base_lr: found 0.0;"),
    ("a rate that is not a number", {"model.lstm.optimizer.base_lr": float("nan")}, "params.yaml: model.lstm.optimizer.base_lr: found nan;"),
    ("rounds without their reverse", {"timing.rounds": 7}, "params.yaml: timing.rounds: found 7; input should be a multiple of 2"),
    ("no updates", {"timing.updates": 0}, "params.yaml: timing.updates: found 0; input should be greater than or equal to 1"),
    ("an unknown key of the timing", {"timing.round": 8}, "params.yaml: timing: 'round' is not a known key; choose one of optimizers, rounds, updates. Did you mean 'rounds'?"),
    ("an optimizer that is timed without a rate", {"timing.optimizers.sgd": {"name": "sgd", "search": {}}}, "params.yaml: timing.optimizers.sgd.base_lr is missing"),
    ("an unknown data source", {"data.source": "web"}, "params.yaml: data.source: found 'web';"),
    ("an unknown device", {"train.device": "tpu"}, "params.yaml: train.device: found 'tpu';"),
    ("an unknown backend", {"parallel.backend": "dask"}, "params.yaml: parallel: found {'backend': 'dask'}; input tag 'dask'"),
    ("a cluster's key without the cluster", {"parallel.num_gpus": 1}, "params.yaml: parallel: 'num_gpus' is not a known key; choose one of backend."),
    ("a cluster without its keys", {"parallel": {"backend": "ray"}}, "params.yaml: parallel.num_cpus is missing"),
    ("an unknown key of a cluster", {"parallel": ON_RAY | {"num_gpu": 1}}, "params.yaml: parallel: 'num_gpu' is not a known key; choose one of backend, max_retries, memory_gib, num_cpus, num_gpus. Did you mean 'num_gpus'?"),
    ("a GPU and a half", {"parallel": ON_RAY | {"num_gpus": 1.5}}, "params.yaml: parallel.num_gpus: found 1.5; above 1 it must be a whole number"),
    ("a task on no processor", {"parallel": ON_RAY | {"num_cpus": 0.0}}, "params.yaml: parallel.num_cpus: found 0.0; input should be greater than 0"),
    ("CUDA without a GPU", {"parallel": ON_RAY, "train.device": "cuda"}, "params.yaml: train.device is cuda and parallel.num_gpus is 0;"),
    ("a GPU that is not used", {"parallel": ON_RAY | {"num_gpus": 0.5}, "train.device": "cpu"}, "params.yaml: train.device is cpu and parallel.num_gpus is 0.5;"),
    ("looks that do not grow", {"compare.looks": [8, 12, 12]}, "params.yaml: compare.looks: the numbers of seeds at which the study looks must grow"),
    ("a target of a model that is not there", {"compare.targets": {"lst": 0.8}}, "params.yaml: compare.targets: 'lst' is not a model of the study; choose one of lstm, resnet, transformer. Did you mean 'lstm'?"),
    ("a target in percent", {"compare.targets": {"lstm": 88.0}}, "params.yaml: compare.targets.lstm: found 88.0; input should be less than 1"),
    ("confidence of 1", {"compare.confidence": 1.0}, "params.yaml: compare.confidence: found 1.0;"),
]  # fmt: skip


OVERRIDES = [
    *((preset, "schedule.exponential.decay_rate=0.3", 0.3) for preset in ("smoke", "paper")),
    *((preset, "schedule.exponential.final_factor=0.1", 0.1) for preset in ("smoke", "paper")),
    *((preset, "schedule.step.step_size=2", 2) for preset in ("quick", "paper")),
]


@pytest.mark.parametrize(("preset", "override", "value"), OVERRIDES)
def test_either_form_of_a_parameter_can_be_overridden_and_searched_from(preset, override, value):
    """The README's examples, in the shortest trainings and in the longest: trial 0 lies in the search space."""
    from lrstudy.recipe.cells import default_values, make_cell
    from lrstudy.search.tuning import distributions

    _, schedule, name = override.partition("=")[0].split(".")
    params = check_params(compose(f"preset={preset}", override))
    for model in params.model:
        cell = make_cell(params, model, schedule)
        assert cell.parameters()[name] == value
        assert cell.settings(default_values(cell)) == cell.settings()
        distributions(cell)


def put(params: dict, changes: dict) -> dict:
    """``params`` with the dotted keys changed."""
    for path, value in changes.items():
        *sections, key = path.split(".")
        node = params
        for section in sections:
            node = node[section]
        node[key] = value
    return params


@pytest.mark.parametrize(("changes", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_wrong_params_get_one_clear_error(changes, message):
    with pytest.raises(StudyError) as error:
        check_params(put(compose(), changes))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


CELL_WRONG = [
    ("a depth that is not 6n + 2", {"model.resnet.depth": 9}, "params.yaml: model.resnet: depth is 9; allowed: depth = 8, 14, 20, ..."),
    ("an unknown network", {"model.resnet.architecture": "vgg"}, "params.yaml: model.resnet: model.architecture: 'vgg' is not a network; choose one of "),
    ("a width as text", {"model.resnet.width": "16"}, "params.yaml: model.resnet: width is '16', not a finite number"),
    ("an unknown function", {"schedule.cosine.function": "cosin"}, "params.yaml: schedule.cosine: schedule: 'cosin' is not"),
    ("a parameter of another schedule", {"schedule.cosine.gamma": 0.5}, "params.yaml: schedule.cosine: 'gamma' is not a parameter of 'cosine'"),
    ("an illegal value", {"schedule.cosine.min_factor": 2.0}, "params.yaml: resnet-cosine:"),
    ("low above high", {"schedule.exponential.search.final_factor.low": 2.0}, "params.yaml: schedule.exponential.search.final_factor: low 2 is above high 0.8"),
    ("a range that the epochs leave empty", {"schedule.cosine": {"function": "step", "step_size": 2, "search": {"step_size": {"low": 99, "high": "num_epochs", "int": True}}}}, "params.yaml: resnet-cosine: search.step_size: low 99 is above high"),
    ("a logarithm of 0", {"schedule.exponential.search.final_factor.low": 0.0}, "params.yaml: schedule.exponential.search.final_factor: low 0 has no logarithm"),
    ("a search of nothing", {"schedule.exponential.search.gamma": {"low": 0.1, "high": 1.0}}, "params.yaml: schedule.exponential.search: 'gamma' is not a parameter"),
    ("warmup beyond the training", {"schedule.cosine.warmup_epochs": 10}, "params.yaml: resnet-cosine:"),
    ("two forms that contradict each other", {"schedule.exponential.final_factor": 0.05, "schedule.exponential.decay_rate": 0.3}, "params.yaml: resnet-exponential: schedule exponential: final_factor is 0.05, but decay_rate is 0.3"),
    ("a row that does not move the rate", {"schedule.exponential.decay_rate": 0.001}, "params.yaml: resnet-exponential: schedule.exponential is not dynamic"),
    ("an unknown optimizer", {"model.resnet.optimizer.name": "adamm"}, "params.yaml: resnet-cosine: optimizer: 'adamm' is not"),
    ("an option of another optimizer", {"model.resnet.optimizer.beta1": 0.9}, "params.yaml: resnet-cosine: optimizer nesterov: 'beta1' is not"),
    ("an unknown controller", {"controller.name": "monitor"}, "params.yaml: resnet-cosine: controller: 'monitor' is not"),
    ("no search of the rate", {"model.resnet.optimizer.search": {}}, "params.yaml: resnet-cosine: optimizer.search has no base_lr"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), [w[1:] for w in CELL_WRONG], ids=[w[0] for w in CELL_WRONG])
def test_what_does_not_fit_a_cell_gets_one_clear_error(changes, message):
    from lrstudy.recipe.cells import make_cell

    params = check_params(put(compose(), changes))
    with pytest.raises(StudyError) as error:
        for schedule in ("cosine", "exponential"):
            make_cell(params, "resnet", schedule)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("section", ["model", "schedule", "cells", "timed"])
def test_a_key_that_breaks_a_line_breaks_no_message(section):
    params = compose()
    params[section]["\n"] = 5
    with pytest.raises(StudyError, match=rf"^params\.yaml: {section}\.'\\n': found 5; [^\n]+$"):
        check_params(params)


@pytest.mark.parametrize("written", ["5e-05", "5E-5", "5.0e-05", "0.00005"])
def test_a_number_with_an_exponent_is_a_number_with_and_without_a_point(tmp_path, written):
    text = yaml.safe_dump(compose()).replace("low: 5.0e-05", f"low: {written}")
    (tmp_path / "params.yaml").write_text(text)
    assert load_params(tmp_path / "params.yaml").timing.optimizers["rmsprop"].search["base_lr"].low == 5e-5


def test_params_that_are_not_yaml_are_named_with_their_line(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("train:\n  seeds: [1\n  threads: 1\n")
    with pytest.raises(StudyError, match=r"params\.yaml, line 3: not readable as YAML"):
        load_params(path)
    path.write_text("preset: cpu\npreset: quick\n")
    with pytest.raises(StudyError, match="stands twice"):
        load_params(path)
    with pytest.raises(StudyError, match="not found"):
        load_params(tmp_path / "other.yaml")
