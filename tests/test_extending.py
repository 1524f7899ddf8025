"""docs/extending.md as a new user follows it, and what adding an entry to the project takes."""

import re
import subprocess
from pathlib import Path

import pytest

from test_end_to_end import Copy

PAGE = Path(__file__).parents[1] / "docs/extending.md"
FILES = dict(re.findall(r"^`([\w/.]+)`\n\n```\w+\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> Copy:
    """A copy of the repository in which somebody did what the page says."""
    copy = Copy(tmp_path_factory.mktemp("stranger"))
    for name, text in FILES.items():
        (copy.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (copy.folder / name).write_text(text)
    copy.run("git", "add", "-A")
    copy.run("git", "commit", "-q", "-m", "mine")
    copy.printed = "".join(copy.run("sh", "-c", command) for command in COMMANDS)
    return copy


def test_a_strangers_package_goes_from_nothing_to_the_report(followed):
    assert len(FILES) == 8
    report = (followed.folder / "reports/report.md").read_text()
    assert "wide" in report
    assert "knee" in report
    training = followed.json("artifacts/train/wide/knee/training.json")
    assert training["settings"]["schedule"]["function"] == "mypackage.rates:knee"
    assert training["settings"]["model"] == {
        "architecture": "mypackage.nets:Wide",
        "width": 64,
        "dropout": 0.1,
    }
    assert training["settings"]["optimizer"]["name"] == "mypackage.optim:Lion"
    assert training["settings"]["controller"]["name"] == "mypackage.control:HalveOnRise"
    assert followed.run("git", "status", "--porcelain", "src") == ""


def test_an_edit_of_the_package_makes_its_own_rows_stale(followed):
    def ran_after(old: str, new: str) -> set[str]:
        path = followed.folder / "mypackage/rates.py"
        path.write_text(path.read_text().replace(old, new))
        return followed.stages_run(followed.run("dvc", "repro", "evaluate"))

    assert ran_after('"""A schedule', '"""One schedule') == {"outside@mypackage", "code"}
    stale = ran_after("(1 - t / num_epochs)", "(1 - (t / num_epochs) ** 2)")
    assert stale >= {"outside@mypackage", "code", "tune@wide-knee", "train@wide-knee", "evaluate@wide-knee"}
    assert not any(stage.endswith("wide-static") for stage in stale)


ADDED = {
    "src/lrstudy/schedules.py": '''

@schedule(depth=Number(0.5, "how far the rate falls", "factor", ge=0, le=1))
def dip(t: float, num_epochs: float, *, depth: float) -> float:
    """The rate falls on a parabola to 1 - depth at the end.

        1 - depth * (t / num_epochs) ** 2

    Use: a test.

    Source: ours.
    """
    return 1.0 - depth * (t / num_epochs) ** 2
''',
    "src/lrstudy/recipe/models.py": '''

@network("bag")
class Bag(nn.Module):
    """The mean of the words' vectors, a linear classifier."""

    def __init__(self, num_classes: int, vocab_size: int, embedding_size: Count):
        super().__init__()
        self.embedding = make_embedding(vocab_size, embedding_size)
        self.classifier = nn.Linear(embedding_size, num_classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.classifier(self.embedding(tokens).sum(dim=1) / lengths[:, None])


@network("blur")
class Blur(nn.Module):
    """The mean of each channel, a linear classifier."""

    def __init__(self, num_classes: int, in_channels: int, width: Count):
        super().__init__()
        self.hidden = nn.Linear(in_channels, width)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.hidden(images.mean((2, 3))))
''',
    "src/lrstudy/recipe/optimizers.py": """
    "rectified_adam": OptimizerSpec("torch.optim.RAdam", _BETAS | _EPS | _DECAY, _FOREACH),
""",
    "conf/schedule/dip.yaml": """# @package schedule.dip
# A parabola.
# how far the rate falls; 0 to 1
depth: 0.5
# epochs of linear rise before the schedule, inside num_epochs; 0 or more, below num_epochs
warmup_epochs: 0
# when the rate changes: step (at every update) or epoch (at the start of each)
granularity: step
# what tuning may change, and within which bounds (log: even on a logarithmic scale; int: whole numbers)
search:
  depth: {low: 0.2, high: 0.9}
""",
    "conf/model/bag.yaml": """# @package model.bag
# The mean of the words' vectors.
dataset: imdb
architecture: bag
embedding_size: 16      # >= 1
optimizer:
  name: adamw
  base_lr: 0.003        # > 0; the rate that the schedule multiplies
  weight_decay: 0.01    # >= 0
  search:
    base_lr: {low: 0.0003, high: 0.03, log: true}
""",
    "conf/model/blur.yaml": """# @package model.blur
# The mean of each channel.
dataset: svhn
architecture: blur
width: 16               # >= 1
optimizer:
  name: nesterov
  base_lr: 0.1          # > 0; the rate that the schedule multiplies
  momentum: 0.9         # 0 to 1
  search:
    base_lr: {low: 0.01, high: 1.0, log: true}
""",
    "conf/dataset/svhn.yaml": """# House numbers. What a key means: cifar10.yaml.
kind: image
title: SVHN
headline: accuracy
classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
image_size: [32, 32]
channels: 3
num_epochs: 10
batch_size: 128
sample: digits
origin:
  type: images
  folder: ~/svhn
""",
    "conf/optimizer/rectified_adam.yaml": """# @package optimizer
# RAdam, by another name.

# the optimizer, as in lrstudy.recipe.optimizers.OPTIMIZERS
name: rectified_adam
# learning rate where the schedule is 1; above 0
base_lr: 0.001
# share kept of the running mean of the gradient; in [0, 1)
beta1: 0.9
# share kept of the running mean of its square; in [0, 1)
beta2: 0.999
# added to the denominator against division by zero; above 0
eps: 0.00000001
# L2 penalty, added to the gradient; 0 or more; biases and normalization are spared
weight_decay: 0.0
# what tuning may change, and within which bounds (log: even on a logarithmic scale)
search:
  base_lr: {low: 0.0001, high: 0.03, log: true}
""",
}
"""A schedule, a network of texts and one of images, an optimizer: an entry and a file each; a data set: a file."""

TOUCHED = (
    "test_parameters", "test_schedules", "test_optimizers", "test_models", "test_preview", "test_docs", "test_identity",
    "test_pipeline", "test_intake",
)  # fmt: skip


def test_adding_one_of_each_takes_an_entry_and_a_file_and_breaks_no_test(tmp_path):
    copy = Copy(tmp_path)
    for name, text in ADDED.items():
        path = copy.folder / name
        before = path.read_text() if path.exists() else ""
        at = before.index('    "adamw": OptimizerSpec') if name.endswith("optimizers.py") else len(before)
        path.write_text(before[:at] + text.removeprefix("\n" if at < len(before) else "") + before[at:])
    assert (len([name for name in ADDED if name.startswith("src")]), len(ADDED)) == (3, 3 + 5)
    copy.run("python", "-m", "lrstudy.compose")
    copy.run("python", "-m", "lrstudy.preview", "--docs", "docs/schedules.md")
    copy.run("python", "-m", "lrstudy.docs", "--entries")
    tests = [f"tests/{name}.py" for name in TOUCHED if (copy.folder / f"tests/{name}.py").exists()]
    done = subprocess.run(
        ["python", "-m", "pytest", "-q", "-m", "not slow", "-k", "not link and not committed", *tests], cwd=copy.folder, env=copy.environment,
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
