"""A cell of which all is done is not gone through again; whatever may have changed has it gone through."""

import json
from functools import partial
from pathlib import Path

import pytest

from composed import composed_params
from filled_ledger import DATA, fill
from lrstudy.ledger import Ledger
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import check_params
from lrstudy.study.cell_jobs import Study, cell_jobs
from lrstudy.study.engine import Costs
from lrstudy.study.plan import Plan
from lrstudy.study.settled import Settled
from lrstudy.study.sharing import Sharing
from lrstudy.tracking.store import server_name

SERVER = "http://127.0.0.1:9"
OPTIONS = ("preset=smoke", "model=[lstm]", "schedule=[cosine]", "train.device=cpu", "train.precision=float32")


def params_with(*options):
    return check_params(composed_params(*OPTIONS, *options))


def gone_through(params, root: Path) -> tuple[list, dict]:
    """The jobs that the cell asks for, and what it returns."""
    study = Study(params, root, lambda folder: None, Costs(), lambda line: None, True, Sharing())
    cell = make_cell(params, "lstm", "cosine")
    jobs = cell_jobs(study, Plan(cell, params.dataset[cell.dataset].metric), DATA["imdb"])
    asked = []
    while True:
        try:
            asked += next(jobs)
        except StopIteration as end:
            return asked, end.value
        if len(asked) > 50:
            raise AssertionError("the cell asks for jobs though all is there")


def sent(root: Path) -> list[Path]:
    """Have all journals noted as sent; returns the notes."""
    notes = []
    for journal in (root / "checkpoints").rglob("journal.jsonl"):
        notes.append(journal.with_name("sent.json"))
        events = journal.read_bytes().count(b"\n")
        notes[-1].write_text(json.dumps({"uri": server_name(SERVER), "run_id": "0" * 32, "events": events}))
    return sorted(notes)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A workspace whose ledger has all of the cell, which was gone through once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    monkeypatch.delenv("LRSTUDY_OPTUNA_STORAGE", raising=False)
    params = params_with()
    fill(params, tmp_path)
    asked, seeds = gone_through(params, tmp_path)
    assert asked == []
    assert list(seeds) == [str(seed) for seed in params.train.seeds]
    assert sent(tmp_path)
    return tmp_path


def settled(params, root: Path) -> dict | None:
    return Settled(params, root).seeds(make_cell(params, "lstm", "cosine"), DATA["imdb"])


def test_it_is_not_gone_through_again(root, monkeypatch):
    params = params_with()
    wanted = settled(params, root)
    assert wanted is not None
    for name in ("find", "all_of", "add"):
        monkeypatch.setattr(Ledger, name, lambda *_, name=name: pytest.fail(f"Ledger.{name} was called"))
    assert gone_through(params, root) == ([], wanted)


@pytest.mark.parametrize(
    "options",
    [
        ("train.seeds=[1,2]",),
        ("tune.num_trials=3",),
        ("tune.confirm_seeds=[104]",),
        ("train.gradient_clip=0.5",),
        ("schedule.cosine.min_factor=0.2",),
        ("model.lstm.dropout=0.25",),
        ("optimizer=momentum",),
    ],
)
def test_what_is_asked_for_otherwise_is_gone_through(root, options):
    assert settled(params_with(*options), root) is None


def test_other_data_are_gone_through(root):
    params = params_with()
    other = DATA["imdb"] | {"fingerprint": "others"}
    assert Settled(params, root).seeds(make_cell(params, "lstm", "cosine"), other) is None


def test_another_search_is_gone_through(root, monkeypatch):
    """The same question to another version of what searches may get other trials."""
    monkeypatch.setattr("lrstudy.study.settled.version", lambda package: "0.0.0")
    assert settled(params_with(), root) is None


def first(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


def behind(root: Path) -> None:
    note = sent(root)[0]
    content = json.loads(note.read_text())
    note.write_text(json.dumps(content | {"events": content["events"] - 1}))


def elsewhere(root: Path) -> None:
    note = root / "checkpoints/lstm-cosine/settled.json"
    content = json.loads(note.read_text())
    note.write_text(json.dumps(content | {"journals": {"checkpoints/../../others": 1}}))


DAMAGE = {
    "a record is gone": lambda root: first(root, "ledger/trainings/*/*.json.gz").unlink(),
    "a journal was not sent to its end": behind,
    "a journal was sent nowhere": lambda root: sent(root)[0].unlink(),
    "Optuna's database is gone": lambda root: (root / "optuna.db").unlink(),
    "the note is cut off": lambda root: (root / "checkpoints/lstm-cosine/settled.json").write_text(
        '{"asked": "'
    ),
    "the note is a folder's": elsewhere,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_as_it_was_left_is_gone_through(root, damage):
    assert settled(params_with(), root) is not None
    DAMAGE[damage](root)
    assert settled(params_with(), root) is None


def test_another_tracking_server_is_told(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:10")
    assert settled(params_with(), root) is None


def test_a_cell_that_was_not_measured_is_not_settled(tmp_path, monkeypatch):
    """Its weights are on another machine; they may be brought."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    params = params_with("tune.num_trials=0")
    fill(params, tmp_path, measured=lambda need: False)
    gone = partial(gone_through, params, tmp_path)
    assert gone()[0] == []
    sent(tmp_path)
    assert settled(params, tmp_path) is None


def test_what_a_settled_cell_has_trained_is_shared_with_a_new_one(root):
    """Its trainings are known to the others of its network, which may begin with them or be the same."""
    both = params_with("schedule=[cosine,static]")
    fill(both, root)
    study = Study(both, root, lambda folder: None, Costs(), lambda line: None, True, Sharing())
    cell = make_cell(both, "lstm", "cosine")
    assert study.settled.seeds(cell, DATA["imdb"]) is not None
    assert not study.settled.all_of_the_network(cell, DATA["imdb"])
    told = []
    study.sharing.know = lambda task, record: told.append(record.identity)
    jobs = cell_jobs(study, Plan(cell, both.dataset["imdb"].metric), DATA["imdb"])
    with pytest.raises(StopIteration):
        next(jobs)
    own = {
        record.identity for record in Ledger(root / "ledger").records() if record.labels.schedule == "cosine"
    }
    assert set(told) == own
