"""What DVC's stages of the cells are over: each cell, or in a large study each model."""

import itertools
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from composed import composed_params
from lrstudy.recipe.config import check_params
from test_end_to_end import Copy

ROOT = Path(__file__).parents[1]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
OF_CELLS = ("tune", "train", "evaluate")
CHOSEN = [
    "evaluate", "-S", "data=sample", "-S", "preset=smoke", "-S", "model=[lstm,lstm_20_epochs]",
    "-S", "schedule=[static,step]", "-S", "num_epochs.imdb=2", "-S", "model.lstm_20_epochs.num_epochs=3",
]  # fmt: skip


def filled(text: str, item: dict, key: str) -> str:
    """What DVC makes of a line of a foreach."""
    return re.sub(r"\$\{(?:item\.(\w+)|key)\}", lambda name: item[name[1]] if name[1] else key, text)


def stages(params: dict) -> dict[str, dict]:
    """The cells' stages by name: their commands and outputs."""
    found = {}
    for stage in OF_CELLS:
        over = params["stages"]["searches" if stage == "tune" else "cells"]
        for key, item in over.items():
            [output] = DVC[stage]["do"]["outs"]
            found[f"{stage}@{key}"] = {
                "command": filled(DVC[stage]["do"]["cmd"], item, key),
                "output": filled(next(iter(output)), item, key),
                "params": {filled(line, item, key) for line in DVC[stage]["do"].get("params", [])},
            }
    return found


def test_a_cell_has_stages_of_its_own_with_its_own_schedule():
    found = stages(composed_params("model=[lstm]", "schedule=[static,cosine]"))
    assert set(found) == {f"{s}@lstm-{row}" for s, row in itertools.product(OF_CELLS, ("static", "cosine"))}
    assert found["train@lstm-cosine"]["command"] == "python -m lrstudy.stages.train lstm cosine"
    assert found["train@lstm-cosine"]["output"] == "artifacts/train/lstm/cosine"
    assert "schedule.cosine" in found["tune@lstm-cosine"]["params"]
    assert "schedule" not in found["tune@lstm-cosine"]["params"]


def test_a_model_has_stages_for_all_its_cells_whose_outputs_hold_theirs():
    found = stages(
        composed_params("stage_per=model", "model=[lstm,lstm_20_epochs]", "schedule=[static,cosine]")
    )
    assert set(found) == {
        "tune@lstm",
        *(f"{s}@{m}" for s in ("train", "evaluate") for m in ("lstm", "lstm_20_epochs")),
    }
    assert found["train@lstm"]["command"] == "python -m lrstudy.stages.train lstm"
    assert found["train@lstm"]["output"] == "artifacts/train/lstm"
    assert "schedule" in found["train@lstm"]["params"]


@pytest.mark.parametrize("per", ["cell", "model", "auto"])
def test_params_know_what_a_cells_stages_are_called(per):
    params = check_params(composed_params(f"stage_per={per}", "model=[lstm]", "schedule=[static,cosine]"))
    assert params.staged("lstm", "cosine") == ("lstm" if per == "model" else "lstm-cosine")
    assert set(params.searches) == {"lstm-static", "lstm-cosine"}


@pytest.mark.parametrize(("count", "names"), [(60, "cell"), (61, "model")])
def test_a_large_study_has_stages_by_model(count, names):
    from hydra_plugins.lrstudy_cells import study_stages
    from omegaconf import OmegaConf

    one = {"dataset": "imdb", "num_epochs": "num_epochs.imdb", "batch_size": "batch_size.imdb"}
    cells = {
        f"lstm-s{n}": one | {"model": "lstm", "schedule": f"s{n}", "tuned": f"lstm/s{n}"}
        for n in range(count)
    }
    found = study_stages(OmegaConf.create(cells), "auto")
    assert set(found.cells) == set(found.searches) == ({"lstm"} if names == "model" else set(cells))


def outputs(folder: Path) -> dict[str, bytes]:
    """What the cells' stages have left."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for kind in ("tuned", "train", "evaluate")
        for path in sorted((folder / "artifacts" / kind).rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_stages_by_model_leave_the_same_files_and_train_nothing_again(tmp_path):
    copy = Copy(tmp_path)
    copy.run("dvc", "exp", "run", *CHOSEN)
    before, records = outputs(copy.folder), sorted((copy.folder / "ledger/trainings").rglob("*.gz"))
    said = copy.run("dvc", "exp", "run", *CHOSEN, "-S", "stage_per=model")
    assert {name for name in copy.stages_run(said) if name.split("@")[0] in OF_CELLS} == {
        "tune@lstm", "train@lstm", "train@lstm_20_epochs", "evaluate@lstm", "evaluate@lstm_20_epochs",
    }  # fmt: skip
    assert outputs(copy.folder) == before
    assert sorted((copy.folder / "ledger/trainings").rglob("*.gz")) == records
    assert copy.stages_run(copy.run("dvc", "repro", "evaluate")) == set()


def test_the_committed_study_has_stages_by_cell():
    committed = subprocess.run(
        ["git", "show", ":params.yaml"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    if not committed:
        pytest.skip("no repository here")
    assert set(yaml.safe_load(committed)["stages"]["cells"]) == set(yaml.safe_load(committed)["cells"])
