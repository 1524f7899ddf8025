"""A study that grows: over clones, seeds, schedules and edits of the code, what is trained stays trained."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lrstudy.ledger import Ledger
from test_end_to_end import Copy

pytestmark = pytest.mark.slow
STUDY = ["-S", "data=sample", "-S", "preset=smoke", "-S", "theory=none", "-S", "model=lstm", "-S", "tune.num_trials=2"]  # fmt: skip


def trained(printed: str) -> set[str]:
    """The trainings that went on at least an epoch, as the terminal names them; two workers may share a line."""
    return set(re.findall(r"(lstm-\w+(?: trial \d+)? seed \d+) +epoch +1/1", printed))


class Clone(Copy):
    """A clone of another one, by git alone."""

    def __init__(self, of: Copy, folder: Path):
        self.folder, self.environment = folder, of.environment | {"PYTHONPATH": str(folder / "src")}
        subprocess.run(["git", "clone", "-q", str(of.folder), str(folder)], check=True)
        self.run("git", "config", "user.name", "test")
        self.run("git", "config", "user.email", "test@localhost")


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Copy:
    """A finished study whose ledger is committed, and whose outputs lie in a remote."""
    copy = Copy(tmp_path_factory.mktemp("first"))
    copy.printed = copy.run("dvc", "exp", "run", *STUDY, "-S", "schedule=[static]")
    remote = tmp_path_factory.mktemp("remote")
    copy.run("dvc", "remote", "add", "--default", "store", str(remote))
    copy.run("dvc", "push")
    copy.run("git", "add", "-A")
    copy.run("git", "commit", "-q", "-m", "the study")
    return copy


def test_every_training_leaves_one_record(first):
    asked = {"lstm-static trial 0 seed 101", "lstm-static trial 1 seed 101", "lstm-static seed 1"}
    assert trained(first.printed) == asked
    records = list(Ledger(first.folder / "ledger").records())
    assert sorted(r.name for r in records) == ["lstm-static seed 1", *["lstm-static seed 101"] * 2]
    assert [r.labels.role for r in sorted(records, key=lambda r: r.name)] == ["final", "trial", "trial"]
    assert {r.name for r in records if r.test is not None} == {"lstm-static seed 1"}
    tracked = first.run("git", "ls-files", "ledger/trainings").split()
    assert len(tracked) == 3


def test_a_clone_trains_the_seed_and_the_schedule_that_are_new_and_nothing_else(first, tmp_path):
    clone = Clone(first, tmp_path / "clone")
    grown = [*STUDY, "-S", "schedule=[static,cosine]", "-S", "train.seeds=[1,2]"]
    overrides = [word for word in grown if word != "-S"]
    clone.run(sys.executable, "-m", "lrstudy.compose", *overrides)
    dry = clone.run(sys.executable, "-m", "lrstudy.why")
    assert "data/processed/imdb is not there; taken to be the ledger's" in dry
    listed = dict(line.split(maxsplit=1) for line in dry.splitlines() if line.startswith("lstm-"))
    assert listed["lstm-static"].strip() == "3 of 4 in the ledger; missing: seed 2"
    assert (
        listed["lstm-cosine"]
        .strip()
        .startswith("0 of 2 in the ledger; missing: trial 0 seed 101, trial 1 seed 101; then 2 trainings")
    )
    assert "missing: 3" in dry.splitlines()[-1]

    printed = clone.run("dvc", "exp", "run", *grown)
    assert trained(printed) == {
        "lstm-static seed 2", "lstm-cosine trial 0 seed 101", "lstm-cosine trial 1 seed 101", "lstm-cosine seed 1",
        "lstm-cosine seed 2",
    }  # fmt: skip
    assert "lstm-static seed 1: in the ledger, trained 2" in printed
    assert len(list(Ledger(clone.folder / "ledger").records())) == 3 + 5
    here, there = (one.json("artifacts/evaluate/lstm/static/metrics.json") for one in (clone, first))
    assert here["scores"]["1"] == there["scores"]["1"]
    assert here["training"]["seeds"]["1"]["origin"] == there["training"]["seeds"]["1"]["origin"]
    assert here["training"]["seeds"]["1"]["weights"] is False
    assert here["training"]["seeds"]["2"]["weights"] is True
    assert "missing: 0" in clone.run(sys.executable, "-m", "lrstudy.why").splitlines()[-1]

    # In MLflow the recorded training is a run like any other, with its history and test metrics, logged once.
    client = clone.client()
    experiment = client.get_experiment_by_name("lrstudy").experiment_id
    filters = "tags.kind = 'seed' and tags.schedule = 'static' and tags.seed = '1'"

    def check_the_run() -> None:
        [run] = client.search_runs([experiment], filters)
        assert run.info.status == "FINISHED"
        assert run.data.tags["from_ledger"] == "true"
        assert run.data.tags["trained"].startswith("trained 2")
        [metric] = client.get_metric_history(run.info.run_id, "validation/loss")
        record = Ledger(clone.folder / "ledger").find(here["training"]["seeds"]["1"]["identity"])
        assert metric.value == record.history["validation/loss"][-1]
        assert run.info.end_time == int(record.origin.ended * 1000)
        [accuracy] = client.get_metric_history(run.info.run_id, "test/accuracy")
        assert accuracy.value == record.test.last.accuracy

    check_the_run()
    clone.run("dvc", "repro", "--force", "-s", "train@lstm-static", "evaluate@lstm-static")
    check_the_run()
    [new] = client.search_runs([experiment], filters.replace("'1'", "'2'"))
    assert "from_ledger" not in new.data.tags


def test_a_clone_makes_the_same_report_from_the_ledger_alone_and_dvc_finds_nothing_to_do(first, tmp_path):
    clone = Clone(first, tmp_path / "clone")
    assert clone.stages_run(clone.run("dvc", "repro", "--allow-missing")) == set()

    def reports() -> dict[str, bytes]:
        files = [*(clone.folder / "reports").rglob("*"), clone.folder / "metrics.json"]
        return {str(file.relative_to(clone.folder)): file.read_bytes() for file in files if file.is_file()}

    def make_report() -> None:
        for stage in ("compare", "report"):
            clone.run(sys.executable, "-m", f"lrstudy.stages.{stage}")

    before = reports()
    assert "reports/comparison.json" in before
    make_report()
    page = "reports/report.html"  # DVC's, not git's: to the byte what the first one's run made
    assert reports() == before | {page: (first.folder / page).read_bytes()}
    assert clone.stages_run(clone.run("dvc", "repro", "--allow-missing")) == set()

    # A seed more that nobody has trained yet: the report says so.
    overrides = [
        word for word in (*STUDY, "-S", "schedule=[static]", "-S", "train.seeds=[1,2]") if word != "-S"
    ]
    clone.run(sys.executable, "-m", "lrstudy.compose", *overrides)
    make_report()
    assert "**Not there yet**: lstm-static: 1 of 2 planned seeds." in reports()["reports/report.md"].decode()
    assert "3 of 4 in the ledger; missing: seed 2" in clone.run(sys.executable, "-m", "lrstudy.why")


def test_what_needs_weights_says_which_trainings_it_would_repeat_and_repeats_none(first, tmp_path):
    clone = Clone(first, tmp_path / "clone")
    printed = clone.run("dvc", "repro")
    assert trained(printed) == set()
    assert "publish: imdb: the champion is lstm-static seed 1, whose weights are not here" in printed
    identity = clone.json("artifacts/train/lstm/static/training.json")["seeds"]["1"]["identity"]
    assert f"python -m lrstudy.ledger retrain {identity[:16]}" in printed
    again = clone.run(sys.executable, "-m", "lrstudy.ledger", "retrain", identity[:16])
    assert trained(again) == {"lstm-static seed 1"}
    assert "trained again: the same to the bit as its record" in again
    clone.run("dvc", "repro", "--force", "-s", "train@lstm-static")
    printed = clone.run("dvc", "repro")
    assert "not registered" not in printed
    version = clone.client().get_model_version_by_alias("lrstudy-imdb-sample", "champion")
    assert version.tags["schedule"] == "static"
    assert len(list(Ledger(clone.folder / "ledger").records())) == 3


def test_a_remote_brings_a_finished_study_with_its_weights(first, tmp_path):
    clone = Clone(first, tmp_path / "clone")
    clone.run("dvc", "pull")
    assert clone.stages_run(clone.run("dvc", "repro")) == set()
    for file in ("artifacts/train/lstm/static/seed-1/last.safetensors", "data/processed/imdb/meta.json"):
        assert (clone.folder / file).read_bytes() == (first.folder / file).read_bytes()
    # A seed more: the first one's weights, which this clone has not trained, stay.
    printed = clone.run("dvc", "exp", "run", *STUDY, "-S", "schedule=[static]", "-S", "train.seeds=[1,2]")
    assert trained(printed) == {"lstm-static seed 2"}
    seeds = clone.json("artifacts/train/lstm/static/training.json")["seeds"]
    assert {seed: found["weights"] for seed, found in seeds.items()} == {"1": True, "2": True}
    assert "not registered" not in printed


def test_no_cache_of_dvcs_brings_results_without_their_records(first, tmp_path):
    clone = Clone(first, tmp_path / "clone")
    clone.run("dvc", "exp", "run", *STUDY, "-S", "schedule=[static]", "-S", "train.seeds=[3]")
    shutil.rmtree(clone.folder / "ledger/trainings")
    (clone.folder / "dvc.lock").unlink()
    (clone.folder / "optuna.db").unlink()  # which remembers trials by itself
    printed = clone.run("dvc", "repro")
    assert trained(printed) == {f"lstm-static trial {number} seed 101" for number in (0, 1)}
    records = {record.name: record for record in Ledger(clone.folder / "ledger").records()}
    assert records.keys() == {"lstm-static seed 101", "lstm-static seed 3"}
    assert records["lstm-static seed 3"].test is not None


def changed_stages(copy: Copy) -> set[str]:
    """What `dvc status` calls stale, once the code has been read again."""
    copy.run("dvc", "repro", "code")
    return {
        line.rstrip(":") for line in copy.run("dvc", "status").splitlines() if line.endswith(":") and line[0] != "\t"
    }  # fmt: skip


def edit(copy: Copy, module: str, old: str, new: str) -> None:
    path = copy.folder / f"src/lrstudy/{module}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_dvc_finds_stale_what_the_code_of_its_trainings_makes_stale(first, tmp_path):
    clone = Clone(first, tmp_path / "clone")
    clone.run("dvc", "exp", "run", *STUDY, "-S", "schedule=[static,cosine]")
    for module in (
        "training/loop", "training/batches", "training/evaluation", "recipe/models", "recipe/optimizers",
        "schedules", "controllers",
    ):  # fmt: skip
        path = clone.folder / f"src/lrstudy/{module}.py"
        path.write_text(path.read_text() + "\n# A remark.\n")
    assert changed_stages(clone) == set()
    edit(clone, "schedules", "_half_cosine(t / num_epochs)", "_half_cosine(t / num_epochs) ** 2")
    cells = {f"{stage}@lstm-cosine" for stage in ("tune", "train", "evaluate")}
    assert changed_stages(clone) == cells | {"timing@lstm", "trainings"}
    printed = clone.run(sys.executable, "-m", "lrstudy.why", "lstm-cosine")
    assert "the code of the schedule (`cosine`)" in printed
    edit(clone, "training/loop", "lr = base_lr * controller.factor", "lr = base_lr / controller.factor")
    assert changed_stages(clone) >= cells | {cell.replace("cosine", "static") for cell in cells}
