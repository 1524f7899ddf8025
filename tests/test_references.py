"""The linear references: what they are, that they are always the same, and what the stage takes and writes."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from described import shipped
from lrstudy.data import preprocessing, references, sources
from lrstudy.data.references import measure_reference
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger.record import Data
from lrstudy.stages.compare import references as compared
from lrstudy.stages.references import main
from lrstudy.study.outputs import Reference


def reviews(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """The class shows in a pair of words alone: "not good" or "not bad", with either word beside it."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 2)
    pairs = [("not bad", "it is good or bad"), ("not good", "it is bad or good")]
    return [
        " ".join(rng.permutation([f"{pairs[1 - label][0]}.", f"{pairs[rng.integers(2)][1]}.", "a film ."]))
        for label in labels
    ], labels


def test_the_weight_of_a_word_is_worked_by_hand():
    """tf-idf with a = 1 + log 2 for the word that stands twice, idf = 1 + log((1 + 2) / (1 + 1)) for one text."""
    vectorizer = references.make_reference("text")[0].set_params(min_df=1)
    weights = vectorizer.fit_transform(["film film", "plot"]).toarray()
    assert vectorizer.get_feature_names_out().tolist() == ["film", "film film", "plot"]
    idf = 1 + np.log(3 / 2)
    first = np.array([(1 + np.log(2)) * idf, idf, 0])
    np.testing.assert_allclose(weights[0], first / np.linalg.norm(first))
    np.testing.assert_allclose(weights[1], [0, 0, 1])


def test_pairs_of_words_are_features():
    train, test = reviews(400, 0), reviews(200, 1)
    found = measure_reference("text", train, test, "f1_macro")
    assert found["metrics"] == {"test/accuracy": 1.0, "test/f1_macro": 1.0, "test/f1": 1.0}
    assert found["converged"]
    assert found["seconds"] > 0


@pytest.mark.parametrize("texts", [["one", "two"], ["", "a"]], ids=["no word twice", "no word"])
def test_texts_that_share_no_word_are_one_clear_error(texts):
    split = texts, np.array([0, 1])
    with pytest.raises(
        StudyError, match=r"^TF-IDF.*: no word stands in 2 of the 2 training texts; raise data\.limit"
    ):
        measure_reference("text", split, split, "f1_macro")


def test_pixels_are_scaled_by_the_training_images_alone():
    """Pixels made standard by hand give the same, up to where the solver stops."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 200, (60, 4, 4, 3)).astype(np.uint8)
    images[:, 0, 0, 0] += (20 * labels).astype(np.uint8)
    train, test = (images[:40], labels[:40]), (images[40:], labels[40:])
    model = references.make_reference("image").fit(*train)
    pixels = images.reshape(60, -1).astype(np.float32)
    pixels = (pixels - pixels[:40].mean(0)) / pixels[:40].std(0)
    by_hand = LogisticRegression(C=references.REFERENCES["image"].C, max_iter=1000).fit(pixels[:40], train[1])
    np.testing.assert_allclose(model.predict_proba(test[0]), by_hand.predict_proba(pixels[40:]), atol=1e-3)


def test_scores_are_those_of_the_test_split_worked_by_hand(monkeypatch):
    """Of 4 of class 1 three are found, of 6 of class 0 four: F1 = 6/9 and 8/11."""

    class Fixed:
        classes_, n_iter_, n_features_in_ = np.array([0, 1]), np.array([7]), 2

        def fit(self, examples, labels):
            assert examples == ["train"]

        def predict(self, examples):
            assert examples == ["test"]
            return np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])

        def __getitem__(self, _):
            return self

    monkeypatch.setattr(references, "make_reference", lambda kind: Fixed())
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    found = measure_reference("text", (["train"], np.array([0])), (["test"], labels), "accuracy")
    assert found["metrics"] == pytest.approx(
        {"test/accuracy": 7 / 10, "test/f1": 6 / 9, "test/f1_macro": (6 / 9 + 8 / 11) / 2}
    )
    assert (found["iterations"], found["num_features"], found["converged"]) == (7, 2, True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Both data sets of the sample, brought and preprocessed; only read by the tests here."""
    root = tmp_path_factory.mktemp("prepared")
    for dataset in ("cifar10", "imdb"):
        raw, folder = root / "data/raw" / dataset, root / "data/processed" / dataset
        sources.download(dataset, shipped(dataset), raw, source="sample")
        # one token a review, of a vocabulary of nothing: the reference must not see this
        preprocessing.preprocess(raw, folder, vocab_size=3, max_length=1)
    return root


@pytest.fixture
def workspace(prepared, monkeypatch):
    monkeypatch.chdir(prepared)
    monkeypatch.setattr(
        "lrstudy.stages.references.load_params", lambda: SimpleNamespace(dataset_named=shipped)
    )
    return prepared


@pytest.mark.parametrize(("dataset", "at_least"), [("cifar10", 0.6), ("imdb", 0.7)])
def test_the_stage_measures_the_sample_always_the_same(workspace, monkeypatch, capsys, dataset, at_least):
    found = []
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["references", dataset])
        main()
        found.append(json.loads((workspace / f"reports/references/{dataset}.json").read_text()))
        found[-1].pop("seconds")
    assert found[0] == found[1]
    assert found[0]["metrics"]["test/accuracy"] > at_least
    assert ("test/f1" in found[0]["metrics"]) == (dataset == "imdb")
    assert found[0]["data"]["dataset"] == dataset
    assert "(sample)" in capsys.readouterr().out


def test_the_reference_trains_on_the_train_split_and_no_validation_example(workspace, monkeypatch):
    seen = {}

    def measure(kind, train, test, headline):
        seen.update(kind=kind, train=train, test=test, headline=headline)
        return {"title": "t", "metrics": {}, "seconds": 0.0}

    monkeypatch.setattr("lrstudy.stages.references.measure_reference", measure)
    monkeypatch.setattr(sys, "argv", ["references", "imdb"])
    main()
    folder = workspace / "data/processed/imdb"
    validation, _ = preprocessing.read_examples(workspace / "data/raw/imdb", folder, "validation")
    assert (seen["kind"], len(seen["train"][0]), len(seen["test"][0])) == ("text", 1800, 1000)
    assert seen["headline"] == "f1_macro"
    assert not set(validation) & set(seen["train"][0])


def test_compare_takes_the_references_of_the_data_that_was_trained_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = {
        "dataset": "imdb", "label": "IMDB", "official": True, "fingerprint": "1adb", "num_examples": {"train": 1},
    }  # fmt: skip
    trained_on = {"imdb": Data(**data)}
    assert compared(trained_on) == {}
    assert "imdb.json: not there; `dvc repro references@imdb` makes it" in capsys.readouterr().err
    reference = {"title": "t", "metrics": {}, "seconds": 1.0, "data": data, "processor": "p"}
    write_json("reports/references/imdb.json", reference)
    write_json("reports/references/cifar10.json", reference)  # of a study that had images
    assert compared(trained_on) == {"imdb": Reference.model_validate(reference)}
    write_json("reports/references/imdb.json", reference | {"data": data | {"fingerprint": "0000"}})
    assert compared(trained_on) == {}
    assert (
        "measured on other data (0000) than the trainings (1adb); `dvc repro references@imdb`"
        in capsys.readouterr().err
    )


def test_an_unknown_data_set_is_named():
    done = subprocess.run(
        [sys.executable, "-m", "lrstudy.stages.references", "mnist"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "dataset: 'mnist' is not a data set of the study" in done.stderr
