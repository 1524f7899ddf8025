"""What the ledger has of a study: whole, in part and not at all, and the report that is made of it."""

import json
import sys

import pytest
import yaml

from composed import composed_params
from filled_ledger import DATA, fill
from known_outputs import contents
from known_study import read
from lrstudy.data.records import DataMeta
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger import Ledger
from lrstudy.recipe.config import check_params
from lrstudy.report.render import render_markdown
from lrstudy.stages import compare, report
from lrstudy.study.collect import cell_of, collect, progress

SEEDS = [1, 2, 3, 4, 5, 6, 7, 8]
SETTINGS = (
    "preset=smoke", "theory=none", "model=[lstm]", "schedule=[static,step,cosine]", "num_epochs.imdb=4", "tune.num_trials=3",
    "tune.finalists=2", "tune.confirm_seeds=[102]", f"train.seeds={SEEDS}",
)  # fmt: skip


@pytest.fixture(scope="module")
def composed() -> dict:
    return composed_params(*SETTINGS)


@pytest.fixture
def params(composed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(composed, sort_keys=False))
    return check_params(composed)


def rendered() -> dict[str, bytes]:
    """What `make report` writes, by name."""
    compare.main()
    report.main()
    files = {str(path): path.read_bytes() for path in sorted(compare.REPORTS.rglob("*")) if path.is_file()}
    with open("metrics.json", "rb") as file:
        return files | {"metrics.json": file.read()}


def comparison() -> dict:
    return json.loads((compare.REPORTS / "comparison.json").read_text())


def test_a_whole_study_is_collected_with_all_its_trainings(params, tmp_path):
    ledger = fill(params, tmp_path)
    plans, notes = collect(params, list(ledger.records()), tmp_path)
    assert notes == []
    assert list(plans) == ["lstm-static", "lstm-step", "lstm-cosine"]
    for found in plans.values():
        assert (found.missing, found.waiting) == ([], "")
        assert found.tuned["cost"]["trainings"] == 3 + 2
        cell = cell_of(found)
        assert list(cell.seeds) == [str(seed) for seed in SEEDS]
        assert len(cell.history) == 8 * 4
        for run in cell.seeds.values():
            record = ledger.find(run.identity)
            assert record.settings["optimizer"]["base_lr"] == found.tuned["values"]["base_lr"]
            assert run.scores["last"].accuracy == record.test.last.accuracy == run.right.mean()
        told = progress(found, params)
        assert (told.measured, told.trained, told.planned) == (SEEDS, [], SEEDS)
        whole = {"trials": 3, "of": 3, "confirmed": 2, "finalists": 2, "complete": True}
        assert [search.model_dump() for search in told.searches] == [whole]


def of_part(need) -> bool:
    """static whole, cosine with six seeds, of step's search one trial."""
    if "cosine" in need.name:
        return need.task["settings"]["seed"] != 7 and need.task["settings"]["seed"] != 8
    return "static" in need.name or (
        "step" in need.name and need.task["settings"]["seed"] == 101 and "trial 0" in need.name
    )


@pytest.fixture
def named(monkeypatch):
    """Needs whose names have their cell's, for :func:`of_part`."""
    import filled_ledger

    plain = filled_ledger.plan

    def plan(cell, *args):
        found = plain(cell, *args)
        for need in found.needs:
            need.name = f"{cell.schedule_name} {need.name}"
        return found

    monkeypatch.setattr(filled_ledger, "plan", plan)


def test_half_a_study_is_read_cell_by_cell_and_decides_nothing_early(params, tmp_path, named, capsys):
    fill(params, tmp_path, wanted=of_part, measured=lambda need: "cosine seed 6" not in need.name)
    files = rendered()
    found = comparison()
    assert found["missing"] == ["lstm-step"]
    assert found["progress"]["lstm-step"]["searches"] == [
        {"trials": 1, "of": 3, "confirmed": 0, "finalists": 2, "complete": False}
    ]
    cosine = found["cells"]["lstm"]["cosine"]
    assert (cosine["seeds"], found["cells"]["lstm"]["static"]["seeds"]) == (SEEDS[:5], SEEDS)
    difference = cosine["metrics"]["test/f1_macro"]["difference"]
    assert list(difference["values"]) == ["1", "2", "3", "4", "5"]
    assert difference["mean"] > 0.01
    assert (difference["p"], difference["p_holm"]) == (None, None)
    (claim,) = (one for one in found["claims"] if one["id"] == "dynamic_generalizes")
    assert claim["verdict"] == claim["by_schedule"]["cosine"]["verdict"] == "undecided"
    assert "undecided: 5 of 8 planned seeds so far" in claim["by_schedule"]["cosine"]["why"]
    text = files["reports/report.md"].decode()
    assert (
        "**Not there yet**: lstm-step: search not finished: 1 of 3 trials; lstm-cosine: 5 of 8 planned seeds, 1 seed "
        "trained and not measured on test data yet." in text
    )
    assert "| cosine (5 of 8 seeds) |" in text
    assert "| step | search not finished: 1 of 3 trials |" in text
    assert (
        "**Not run** on these data: the linear reference of imdb (`dvc repro references@imdb`), late_decay (`dvc repro "
        "late_decay`) and level_sets (`dvc repro level_sets`)." in text
    )
    assert "reports/late_decay.json: not there; `dvc repro late_decay` makes it" in capsys.readouterr().err


def test_a_row_that_is_whole_is_tested_though_another_is_not(params, tmp_path, named):
    fill(params, tmp_path, wanted=lambda need: of_part(need) or "cosine" in need.name)
    compare.main()
    found = comparison()
    assert found["cells"]["lstm"]["cosine"]["metrics"]["test/f1_macro"]["difference"]["p"] == 2 / 2**8
    (claim,) = (one for one in found["claims"] if one["id"] == "dynamic_generalizes")
    assert claim["by_schedule"]["cosine"]["verdict"] == "supported"
    assert claim["verdict"] == "undecided"  # validation may yet choose step
    assert "0 of 8 planned seeds so far" in claim["why"]


def test_a_report_follows_from_the_ledger_to_the_byte_wherever_it_is_made(
    params, tmp_path, monkeypatch, composed
):
    reference = {"title": "t", "metrics": {"test/accuracy": 0.9, "test/f1_macro": 0.9}, "seconds": 1.0}
    reference |= {"data": DATA["imdb"], "processor": "a processor"}
    fill(params, tmp_path)
    write_json("reports/references/imdb.json", reference)
    toy = {"figures": ["toy.svg"]}
    for name, found in (
        ("late_decay", {"claims": [], "toy": toy, "models": {}}),
        ("level_sets", {"claims": [], "models": {}}),
    ):
        for folder in ("reports", f"artifacts/theory/{name}"):
            write_json(f"{folder}/{name}.json", found)
    (tmp_path / "artifacts/theory/late_decay/toy.svg").write_text("<svg/>")
    here = rendered()
    assert "Not there yet" not in here["reports/report.md"].decode()
    assert "**Not run**" not in here["reports/report.md"].decode()

    clone = tmp_path / "clone"
    clone.mkdir()
    for name, content in here.items():  # what git has
        if (
            name.endswith(".svg")
            or "reports/references" in name
            or name in ("reports/late_decay.json", "reports/level_sets.json")
        ):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes(content)
    (tmp_path / "ledger").rename(clone / "ledger")
    (tmp_path / "params.yaml").rename(clone / "params.yaml")
    monkeypatch.chdir(clone)
    assert rendered() == here
    (clone / "reports/figures/old.svg").write_text("<svg/>")
    assert rendered() == here  # and again; what it does not draw any more is gone


def test_a_ledger_with_nothing_of_the_study_is_one_clear_error(params, tmp_path):
    nothing = r"ledger: has none of the trainings .* measured on test data; `dvc repro`"
    with pytest.raises(StudyError, match=nothing):
        compare.main()
    fill(params, tmp_path, measured=lambda need: False)
    with pytest.raises(StudyError, match=nothing):
        compare.main()


def test_models_on_data_of_which_there_is_nothing_yet_hold_up_no_other(params, tmp_path, composed):
    fill(params, tmp_path)
    both = composed_params(*(word.replace("[lstm]", "[resnet,lstm]") for word in SETTINGS))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(both, sort_keys=False))
    compare.main()
    found = comparison()
    assert found["missing"] == ["resnet-static", "resnet-step", "resnet-cosine"]
    assert list(found["cells"]) == ["lstm"]
    assert "resnet-static: not run yet" in render_markdown(read(found))


def test_the_data_here_and_this_machine_come_first_and_what_is_taken_instead_is_said(params, tmp_path):
    fill(params, tmp_path)
    other = DATA["imdb"] | {"fingerprint": "other texts", "label": "other"}
    write_json("data/processed/imdb/meta.json", contents()[DataMeta] | other)
    plans, (note,) = collect(params, list(Ledger(tmp_path / "ledger").records()), tmp_path)
    assert note == (
        "imdb: the ledger has none of the study's trainings with this machine's data, device and dtype; taken are those "
        "on made-up texts, fingerprint texts, cpu, float32"
    )
    assert all(not found.missing for found in plans.values())


def test_of_two_data_sets_of_a_name_that_are_not_here_the_one_with_the_study_is_taken(params, tmp_path):
    """A clone has no data, and its ledger may have trainings on the sample as well as on the whole."""
    ledger = fill(params, tmp_path)
    first = next(iter(ledger.records()))
    other = first.model_copy(
        update={"identity": "0" * 64, "data": first.data.model_copy(update={"fingerprint": "0 sample"})}
    )
    # "auto" may be bfloat16 here; the ledger's are float32.
    exact = params.train.model_copy(update={"precision": "float32", "device": "cpu"})
    params = params.model_copy(update={"train": exact})
    for to_train in (False, True):
        plans, (note,) = collect(params, [other, *ledger.records()], tmp_path, to_train=to_train)
        assert all(not found.missing for found in plans.values())
        assert note.startswith(
            "data/processed/imdb is not there; taken to be the ledger's: made-up texts, fing"
        )


def test_asked_what_to_train_here_only_the_data_here_count(params, tmp_path):
    ledger = fill(params, tmp_path)
    other = DATA["imdb"] | {"fingerprint": "other texts", "label": "other"}
    write_json("data/processed/imdb/meta.json", contents()[DataMeta] | other)
    plans, notes = collect(params, list(ledger.records()), tmp_path, ["lstm-step"], to_train=True)
    assert (list(plans), notes) == (["lstm-step"], [])
    assert plans["lstm-step"].needs == plans["lstm-step"].missing


def test_data_of_which_nothing_is_known_are_said_and_all_their_trainings_missing(params, tmp_path):
    plans, (note,) = collect(params, [], tmp_path, to_train=True)
    assert "the ledger has no training on it; `dvc repro preprocess@imdb` makes it" in note
    assert all(found.needs and found.needs == found.missing and found.waiting for found in plans.values())


def test_nothing_heavy_is_imported_to_collect_what_has_one_device_and_dtype(params, tmp_path):
    import subprocess

    fill(params, tmp_path)
    code = "import sys; from lrstudy.stages import compare; compare.main(); print([m for m in ('torch', 'mlflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
