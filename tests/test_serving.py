"""A saved model is the trained network, for raw examples, wherever it is loaded."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from lrstudy.recipe.models import make_model
from lrstudy.training.batches import make_split
from lrstudy.training.evaluation import predict, softmax
from lrstudy.training.serving import make_classifier, save_model, some_examples
from tiny_data import MODELS, dataset

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def trained(name: str) -> tuple[torch.nn.Module, dict, dict]:
    """A network with statistics and weights of its own, a split's arrays, and their meta."""
    splits, meta = dataset("image" if name == "resnet" else "text")
    torch.manual_seed(3)
    network = make_model(MODELS[name], meta)
    inputs, _, _ = next(make_split(splits["train"], meta, CPU).evaluation_batches(20))
    network.train()(*inputs)  # batch norm's running statistics leave their defaults
    return network.eval(), splits["test"], meta


@pytest.mark.parametrize("name", MODELS)
def test_a_classifier_gives_the_probabilities_that_evaluate_saves(name):
    network, arrays, meta = trained(name)
    classifier = make_classifier(MODELS[name], meta, network.state_dict())
    every = len(arrays["labels"])
    with torch.inference_mode():
        found = classifier(torch.from_numpy(some_examples(arrays, meta, every))).numpy()
    expected = softmax(predict(network, make_split(arrays, meta, CPU), 7, CPU, torch.float32))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_examples_of_reviews_are_padded_to_the_longest():
    arrays = {"tokens": np.array([5, 6, 7, 8], np.int32), "offsets": np.array([0, 1, 4])}
    assert some_examples(arrays, {"kind": "text"}).tolist() == [[5, 0, 0], [6, 7, 8]]


@pytest.mark.parametrize("name", ["resnet", "lstm"])
def test_a_saved_model_has_signature_and_example_and_predicts_as_before(tmp_path, name):
    import mlflow.pyfunc
    import mlflow.pytorch

    network, arrays, meta = trained(name)
    classifier = make_classifier(MODELS[name], meta, network.state_dict())
    examples = some_examples(arrays, meta)
    for _ in range(2):  # the second replaces the first
        save_model(tmp_path / "model", classifier, examples, meta["num_classes"])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with torch.inference_mode():
        expected = classifier(torch.from_numpy(examples)).numpy()
        loaded = mlflow.pytorch.load_model(str(tmp_path / "model"))
        np.testing.assert_array_equal(loaded(torch.from_numpy(examples)).numpy(), expected)
    assert not (
        tmp_path / "model/code"
    ).exists()  # it would hide the installed package from who loads the model
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    np.testing.assert_array_equal(served.input_example, examples)
    inputs, outputs = served.metadata.signature.inputs, served.metadata.signature.outputs
    assert inputs.inputs[0].type == examples.dtype
    assert outputs.inputs[0].shape == (-1, meta["num_classes"])
    np.testing.assert_array_equal(served.predict(examples), expected)


@pytest.mark.slow
def test_a_saved_model_loads_where_lrstudy_is_not_installed(tmp_path):
    network, arrays, meta = trained("lstm")
    classifier = make_classifier(MODELS["lstm"], meta, network.state_dict())
    examples = some_examples(arrays, meta)
    save_model(tmp_path / "model", classifier, examples, meta["num_classes"])
    script = f"""
import os, sys
sys.path = [folder for folder in sys.path if not os.path.isdir(os.path.join(folder, "lrstudy"))]
sys.meta_path = [f for f in sys.meta_path if "editable" not in str(f).lower()]
try:
    import lrstudy
    raise SystemExit("lrstudy is installed")
except ImportError:
    pass
import mlflow.pyfunc
model = mlflow.pyfunc.load_model({str(tmp_path / "model")!r})
print(model.predict(model.input_example).tolist())
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    with torch.inference_mode():
        expected = classifier(torch.from_numpy(examples)).numpy()
    np.testing.assert_allclose(np.array(json.loads(found.stdout)), expected, rtol=1e-6)
