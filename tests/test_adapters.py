"""The examples of docs/adapters.md, run as they stand: the rates that they used are the schedule's."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
NEEDED = {
    "PyTorch": ["torch"],
    "Lightning": ["lightning"],
    "Trainer of transformers": ["transformers", "accelerate"],
    "Accelerate": ["accelerate"],
    "Keras 3": ["keras"],
    "JAX and optax": ["jax", "optax"],
}

CHECKED = """
import math
expected = [base_lr * schedule(update / steps_per_epoch) for update in range(num_epochs * steps_per_epoch)]
assert len(rates) == len(expected), (len(rates), len(expected))
assert all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) for a, b in zip(rates, expected)), (rates, expected)
print("the schedule's rates:", len(rates))
"""

SAVED = """
again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rate))
assert [float(again(update)) for update in range(len(rates))] == [float(rate(update)) for update in range(len(rates))]
assert float(rate(len(rates) + 100)) == rates[-1]
"""


def test_every_example_is_known_here():
    assert EXAMPLES.keys() == NEEDED.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDED)
def test_the_rates_are_the_schedules(name, tmp_path):
    if missing := [package for package in NEEDED[name] if find_spec(package) is None]:
        pytest.skip(f"{', '.join(missing)} not installed; `make adapters` runs it")
    program = tmp_path / "example.py"
    program.write_text(EXAMPLES[name] + CHECKED + (SAVED if name == "Keras 3" else ""), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the schedule's rates: " in done.stdout
