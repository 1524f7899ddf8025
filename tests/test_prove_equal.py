"""prove-equal: what a refactoring must show before trainings of the old code count as the new code's."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lrstudy import proof
from lrstudy.entries.parameters import Number
from lrstudy.errors import StudyError
from lrstudy.ledger import Ledger, Record
from lrstudy.ledger.equivalence import read_equivalence
from lrstudy.ledger.machine import origin_here
from lrstudy.ledger.record import ALWAYS_IN_FINAL, ALWAYS_IN_HISTORY, Data, Labels
from lrstudy.prove_equal import check_known, compare, full_revision, main
from lrstudy.recipe.identity import entries_of, kind_of, training_code, training_identity

ROOT = Path(__file__).parents[1]


# --- The set of trainings -----------------------------------------------------------------------------------


def used(trainings: dict[str, dict]) -> set[str]:
    return {
        f"{kind_of(part)}.{entry}"
        for settings in trainings.values()
        for part, entry in entries_of(settings).items()
    }


ALL = {f"{part}.{name}" for part, names in proof.ENTRIES.items() for name in names}


def test_every_entry_of_every_registry_is_trained():
    assert used(proof.trainings()) == ALL


@pytest.mark.parametrize("entry", sorted(ALL - {"controller.none"}))
def test_without_an_entry_all_others_are_trained_still(entry):
    assert used(proof.trainings([entry])) == ALL - {entry}


def test_a_set_that_would_not_prove_the_loop_on_texts_is_refused():
    with pytest.raises(StudyError, match="leaves no network for text data"):
        proof.trainings(["network.lstm", "network.transformer"])


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("schedule", "warmup_epochs"),
        ("schedule", "granularity"),
        (None, "dataset"),
        (None, "augment"),
        (None, "precision"),
        (None, "training_share"),
        (None, "gradient_clip"),
        (None, "batch_size"),
        (None, "num_epochs"),
        (None, "seed"),
    ],
)
def test_what_the_loop_can_be_told_takes_several_values(section, key):
    values = {str((one[section] if section else one)[key]) for one in proof.trainings().values()}
    assert len(values) > 1


def test_every_word_that_a_parameter_may_be_is_trained():
    trainings = proof.trainings().values()
    for name, factory in proof.SCHEDULES.items():
        for parameter, spec in factory.parameters.items():
            found = {
                str(one["schedule"]["parameters"][parameter])
                for one in trainings
                if one["schedule"]["function"] == name
            }
            assert found >= set(getattr(spec, "choices", ())), f"{name}.{parameter}"
            assert len(found) > 1, f"{name}.{parameter} is always {found}"
    for name, controller in proof.CONTROLLERS.items():
        for parameter, spec in controller.parameters.items():
            found = {
                str(one["controller"][parameter]) for one in trainings if one["controller"]["name"] == name
            }
            assert found >= set(getattr(spec, "choices", ())), f"{name}.{parameter}"
            assert len(found) > 1, f"{name}.{parameter} is always {found}"


def test_every_option_of_every_optimizer_takes_a_value_besides_its_default():
    for name, spec in proof.OPTIMIZERS.items():
        for option, legal in spec.options.items():
            values = {
                one["optimizer"][option]
                for one in proof.trainings().values()
                if one["optimizer"]["name"] == name
            }
            assert values - {legal.default}, f"{name}.{option}"


def test_a_network_of_unknown_size_is_named(monkeypatch):
    monkeypatch.setattr(proof, "parameters_of", lambda network: {"spread": Number(ge=100)})
    with pytest.raises(StudyError, match=r"network '[a-z0-9]+' has the size 'spread'"):
        proof.trainings()


@pytest.fixture(scope="module")
def some_proof():
    """What the trainings of the controllers compute, and those of the loop that do something seldom."""
    import torch

    found = proof.described()
    found["trainings"] = {
        name: one
        for name, one in found["trainings"].items()
        if name.startswith(("controller.", "loop text together")) or name == "loop image huge rate"
    }
    threads = torch.get_num_threads()
    proof.prove(found)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    return found


@pytest.mark.slow
def test_trainings_gone_on_with_equal_those_at_a_stretch(some_proof):
    assert len(some_proof["trainings"]) > 20
    assert compare(some_proof, some_proof).differing == {}


@pytest.mark.slow
def test_the_set_reaches_what_happens_seldom(some_proof):
    trainings = some_proof["trainings"]
    outcomes = {name: one["whole"] for name, one in trainings.items()}
    assert any(one["status"] == "diverged" for one in outcomes.values())
    for name, controller in proof.CONTROLLERS.items():
        acted = [
            epoch["interventions"]
            for training, one in outcomes.items()
            if trainings[training]["uses"]["controller"] == name
            for epoch in one["history"]
        ]
        assert any(acted) == (name != "none" and not controller.scales_loss), name
    assert any(one["best_epoch"] < len(one["history"]) for one in outcomes.values())


@pytest.mark.slow
def test_no_two_variants_of_a_controller_compute_the_same_on_both_kinds_of_data(some_proof):
    """Else one of them shows nothing: a parameter that it varies has no effect."""
    computed: dict[str, str] = {}
    for name, one in some_proof["trainings"].items():
        if name.startswith("controller."):
            variant = name.rpartition(" ")[0]
            computed[variant] = computed.get(variant, "") + json.dumps(one["whole"]["weights"])
    same = {one: sorted(n for n, other in computed.items() if other == one) for one in computed.values()}
    assert [names for names in same.values() if len(names) > 1] == []


# --- The comparison -----------------------------------------------------------------------------------------


def a_proof(**code: str) -> dict:
    """A proof of three trainings, by codes whose hashes are their names' repeated."""
    hashes = {
        part: (code.get(part, "a") * 64)[:64]
        for part in ("loop", "schedule", "controller", "optimizer", "network")
    }

    def training(schedule: str) -> dict:
        outcome = {
            "status": "finished",
            "best_epoch": 1,
            "num_parameters": 3,
            "history": [
                {"epoch": 1, "train/loss": 0.5, "steps": {"lr": [0.1, 0.1]}},
                {"epoch": 2, "train/loss": 0.25, "steps": {"lr": [0.1, 0.05]}},
            ],
            "final": {"validation_ema/loss": 0.5},
            "weights": {"last": {"w": "11"}, "best": {"w": "22"}},
            "test": {"last": {"logits": "33"}, "best": {"logits": "44"}},
        }
        return {
            "settings": {"seed": 1, "schedule": {"function": schedule}},
            "uses": {"schedule": schedule, "controller": "none", "optimizer": "sgd", "network": "lstm"},
            "code": hashes | ({} if schedule == "cosine" else {"schedule": "f" * 64}),
            "whole": outcome,
            "resumed": copy.deepcopy(outcome),
        }

    names = {"schedule.cosine": "cosine", "schedule.step": "step", "loop": "step"}
    return {
        "format": 1,
        "entries": {
            "schedule": ["cosine", "step"],
            "controller": ["none"],
            "optimizer": ["sgd"],
            "network": ["lstm"],
        },
        "trainings": {name: training(schedule) for name, schedule in names.items()},
    }


def test_equal_outcomes_prove_the_codes_that_differ_and_no_others():
    found = compare(a_proof(), a_proof(loop="b", schedule="c"))
    assert found.differing == {}
    assert [(pair.part, pair.name, pair.old[0], pair.new[0]) for pair in found.pairs] == [
        ("loop", "loop", "a", "b"),
        ("schedule", "cosine", "a", "c"),
    ]


def test_the_same_codes_need_no_pairs():
    assert compare(a_proof(), a_proof()).pairs == []


def both(training: dict, change) -> None:
    for outcome in ("whole", "resumed"):
        change(training[outcome])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda o: o["history"][1].update({"train/loss": 0.26}),
            "history from epoch 2 on: train/loss 0.25 in BASE, 0.26 here",
        ),
        (
            lambda o: o["history"][0]["steps"]["lr"].__setitem__(1, 0.2),
            "history from epoch 1 on: steps.lr.1 0.1 in BASE, 0.2 here",
        ),
        (lambda o: o["history"][0].update({"train/loss": -0.0}), "train/loss 0.5 in BASE, -0.0 here"),
        (lambda o: o["history"][0].update(epoch=1.0), "epoch 1 in BASE, 1.0 here"),
        (lambda o: o["history"][0].update(more=1), "more nothing in BASE, 1 here"),
        (lambda o: o["history"].pop(), "history: 2 epochs in BASE, 1 here"),
        (lambda o: o["weights"]["best"].update(w="23"), "weights: best.w"),
        (lambda o: o["test"]["last"].update(logits="34"), "test: last.logits"),
        (lambda o: o["final"].update({"validation_ema/loss": 1.0}), "final.validation_ema/loss 0.5 in BASE"),
        (lambda o: o.update(best_epoch=2), "best_epoch 1 in BASE, 2 here"),
    ],
)
def test_whatever_differs_is_told_of_the_training_that_it_differs_in(change, words):
    now = a_proof(loop="b")
    both(now["trainings"]["schedule.cosine"], change)
    found = compare(a_proof(), now)
    assert found.differing.keys() == {"schedule.cosine"}
    assert words in found.differing["schedule.cosine"]


def test_a_training_that_goes_on_otherwise_than_at_a_stretch_is_refused_though_both_trees_agree():
    old, new = a_proof(), a_proof(loop="b")
    for side in (old, new):
        side["trainings"]["loop"]["resumed"]["weights"]["last"]["w"] = "12"
    assert "from a checkpoint" in compare(old, new).differing["loop"]


def test_numbers_that_are_no_numbers_are_equal_to_themselves():
    old, new = a_proof(), a_proof(loop="b")
    for side in (old, new):
        both(side["trainings"]["loop"], lambda o: o["history"][1].update({"train/loss": float("nan")}))
    assert compare(old, new).differing == {}


def test_a_training_that_is_gone_or_has_other_settings_is_refused():
    now = a_proof(loop="b")
    del now["trainings"]["loop"]
    now["trainings"]["schedule.step"]["settings"]["seed"] = 2
    found = compare(a_proof(), now)
    assert found.differing == {
        "schedule.step": "other settings: seed 1 in BASE, 2 here",
        "loop": "is not trained any more",
    }
    assert found.total == 3


def test_a_new_entry_is_told_and_needs_no_proof():
    now = a_proof(loop="b")
    now["entries"]["schedule"].append("welch")
    now["trainings"]["schedule.welch"] = now["trainings"]["schedule.step"]
    found = compare(a_proof(), now)
    assert (found.differing, found.new, len(found.compared)) == ({}, ["schedule.welch"], 3)


def test_a_difference_by_the_same_code_says_so():
    now = a_proof()
    both(now["trainings"]["loop"], lambda o: o["weights"]["last"].update(w="12"))
    assert "by the same code" in compare(a_proof(), now).differing["loop"]


def test_leaving_out_what_neither_tree_knows_is_a_mistake():
    check_known(["schedule.cosine"], a_proof(), a_proof())
    with pytest.raises(
        StudyError, match=r"'schedule.cosin' is not an entry .* Did you mean 'schedule.cosine'"
    ):
        check_known(["schedule.cosin"], a_proof(), a_proof())


def test_an_entry_behind_all_that_differs_is_suspected():
    now = a_proof(loop="b", schedule="c")
    both(now["trainings"]["schedule.cosine"], lambda o: o["weights"]["last"].update(w="12"))
    assert compare(a_proof(), now).suspects == ["schedule.cosine"]


# --- On a repository ----------------------------------------------------------------------------------------


def git(repository: Path, *arguments: str) -> str:
    told = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(told, check=True, capture_output=True, text=True).stdout.strip()


FEW = ("static", "cosine", "polynomial")


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """This code as a repository whose proof trains a few schedules for two epochs: enough to be wrong."""
    repository = tmp_path_factory.mktemp("committed") / "study"
    shutil.copytree(
        ROOT / "src", repository / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    edit(
        repository / "src/lrstudy/proof.py",
        'for name in found.left("schedule"):',
        f'for name in [one for one in found.left("schedule") if one in {FEW}]:',
    )
    edit(
        repository / "src/lrstudy/proof.py",
        "for add in (_for_schedules, _for_controllers, _for_optimizers, _for_networks, _for_the_loop):",
        "for add in (_for_schedules,):",
    )
    edit(repository / "src/lrstudy/proof.py", "NUM_EPOCHS = 6", "NUM_EPOCHS = 2")
    git(repository.parent, "init", "-q", str(repository))
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "base")
    return repository


@pytest.fixture
def repository(committed, tmp_path):
    git(tmp_path, "clone", "-q", str(committed), "study")
    return tmp_path / "study"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))


def start(repository: Path, *arguments: str) -> subprocess.Popen:
    scratch = repository.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "lrstudy.prove_equal", *arguments],
        cwd=repository,
        env=os.environ
        | {"PYTHONPATH": str(repository / "src"), "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def prove_equal(repository: Path, *arguments: str) -> tuple[int, str]:
    with start(repository, *arguments) as process:
        said, _ = process.communicate()
    assert list((repository.parent / "scratch").iterdir()) == [], "something was left behind"
    return process.returncode, said


def equivalences(repository: Path) -> list[Path]:
    return sorted((repository / "ledger/equivalences").glob("*.json"))


def record_of(settings: dict) -> Record:
    """What a training with these settings by this code left."""
    code = training_code(settings)
    data = Data(
        dataset="imdb", label="IMDB", official=True, fingerprint="abc", num_examples={"train": 10, "test": 10}
    )
    epochs = list(range(1, settings["num_epochs"] + 1))
    return Record(
        format=1,
        identity=training_identity(settings, data.fingerprint, code),
        settings=settings,
        data=data,
        code=code,
        labels=Labels(model="lstm", schedule="cosine", role="final"),
        origin=origin_here("cpu", "", 0.0),
        status="finished",
        best_epoch=1,
        num_parameters=10,
        history={"epoch": epochs} | {name: [float(epoch) for epoch in epochs] for name in ALWAYS_IN_HISTORY},
        final=dict.fromkeys(ALWAYS_IN_FINAL, 0.5),
        interventions=[],
        weights={},
        test=None,
    )


@pytest.mark.slow
def test_a_renamed_variable_of_the_loop_is_proven_and_old_records_are_found(repository):
    settings = proof.trainings()["schedule.cosine other values"]
    recorded = record_of(settings)
    ledger = Ledger(repository / "ledger")
    ledger.add(recorded)
    loop = repository / "src/lrstudy/training/loop.py"
    loop.write_text(re.sub(r"\brates\b", "learning_rates", loop.read_text()))

    status, said = prove_equal(repository, "HEAD")

    assert status == 0, said
    assert "equal to the bit" in said
    [path] = equivalences(repository)
    found = read_equivalence(path)
    [pair] = found.pairs
    assert (pair.part, pair.old) == ("loop", recorded.code["loop"])
    assert found.base == git(repository, "rev-parse", "HEAD")
    assert found.revision == found.base + "+changes"
    assert found.compared["trainings"] > len(FEW)
    new_code = recorded.code | {"loop": pair.new}
    identities = Ledger(repository / "ledger").identities(settings, "abc", new_code)
    assert identities[0] == recorded.identity, "another training would be asked for"
    assert Ledger(repository / "ledger").find(*identities) == recorded

    status, said = prove_equal(repository, "HEAD")
    assert status == 0
    assert "agree already" in said
    assert equivalences(repository) == [path], "what is known was written again"


@pytest.mark.slow
def test_a_changed_formula_is_refused_until_it_is_left_out(repository):
    edit(
        repository / "src/lrstudy/schedules.py",
        "return min_factor + (1.0 - min_factor) * _half_cosine(t / num_epochs)\n",
        "return min_factor + (1.0 + min_factor) * _half_cosine(t / num_epochs)\n",
    )
    loop = repository / "src/lrstudy/training/loop.py"
    loop.write_text(re.sub(r"\brates\b", "learning_rates", loop.read_text()))

    status, said = prove_equal(repository, "HEAD")
    assert status == 1
    # Where min_factor is 0 the sign plays no part.
    assert re.findall(r"^  ([\w. ]+):", said, re.MULTILINE) == ["schedule.cosine other values"]
    assert "--except schedule.cosine" in said
    assert equivalences(repository) == []

    status, said = prove_equal(repository, "HEAD", "--except", "schedule.cosine")
    assert status == 0, said
    [path] = equivalences(repository)
    found = read_equivalence(path)
    assert [(pair.part, pair.name) for pair in found.pairs] == [("loop", "loop")]
    assert found.compared["except"] == ["schedule.cosine"]


@pytest.mark.slow
def test_a_comment_in_every_module_needs_no_proof(repository):
    for path in (repository / "src/lrstudy").rglob("*.py"):
        path.write_text(path.read_text() + "\n# A word to the reader.\n")
    status, said = prove_equal(repository, "HEAD")
    assert status == 0
    assert "agree already" in said
    assert equivalences(repository) == []


@pytest.mark.slow
def test_a_tree_that_does_not_run_is_told_with_its_own_words(repository):
    loop = repository / "src/lrstudy/training/loop.py"
    loop.write_text(loop.read_text() + "\nraise ValueError('half an edit')\n")
    status, said = prove_equal(repository, "HEAD")
    assert status == 2
    assert "the working tree ended with status 1" in said
    assert "half an edit" in said


@pytest.mark.slow
def test_an_interrupted_proof_leaves_nothing_behind(repository):
    loop = repository / "src/lrstudy/training/loop.py"
    loop.write_text(re.sub(r"\brates\b", "learning_rates", loop.read_text()))
    with start(repository, "HEAD") as process:
        assert "tiny trainings" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate()
    assert process.returncode == 143
    assert "nothing was written" in said
    assert list((repository.parent / "scratch").iterdir()) == []
    assert git(repository, "status", "--porcelain") == "M src/lrstudy/training/loop.py"


def test_a_base_older_than_the_proof_names_the_first_that_has_it(tmp_path):
    git(tmp_path, "init", "-q", ".")
    for number, name in enumerate(("other.py", "proof.py", "third.py")):
        path = tmp_path / "src/lrstudy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-q", "-m", f"step {number}")
    first = git(tmp_path, "rev-parse", "--short", "HEAD~1")
    with pytest.raises(StudyError, match=rf"'HEAD~2' .* first revision that has it: {first} step 1"):
        full_revision(tmp_path, "HEAD~2")
    assert full_revision(tmp_path, "HEAD~1") == git(tmp_path, "rev-parse", "HEAD~1")
    with pytest.raises(StudyError, match="'v9' is no revision"):
        full_revision(tmp_path, "v9")
    with pytest.raises(StudyError, match="'--all' is no revision"):
        full_revision(tmp_path, "--all")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "BASE=<revision>"),
        ([""], "BASE=<revision>"),
        (["HEAD", "--except", "cosine"], "'cosine' is no entry"),
        (["HEAD", "--except", "loop.loop"], "'loop.loop' is no entry"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(arguments, words, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_make_passes_the_revision_on():
    told = subprocess.run(
        ["make", "-n", "-o", "setup", "prove-equal", "BASE=HEAD~3", "ARGS=--except schedule.cosine"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'lrstudy.prove_equal "HEAD~3" --except schedule.cosine' in told.stdout
