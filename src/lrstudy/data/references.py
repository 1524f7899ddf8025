"""What a sceptic would train first: linear models of the same examples, without a network or a schedule.

They say what a result is worth: a network that a linear model beats has learned little, whatever its
schedule. Texts: logistic regression on TF-IDF of words and bigrams (bigrams after Wang and Manning 2012,
"Baselines and Bigrams"). Images: logistic regression on the pixels. All that could be chosen is fixed here;
nothing is tuned by the study, and test data choose nothing.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lrstudy.errors import StudyError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True)
class Reference:
    """A linear model, by scikit-learn's names; what is not named here has scikit-learn's default.

    Attributes:
        title: as it stands in tables.
        features: options of the step before the logistic regression.
        C: inverse strength of the L2 penalty: |w|^2 / 2 + C sum over examples of -log p(label).
        max_iter: iterations of L-BFGS at most.
    """

    title: str
    features: dict[str, Any]
    C: float
    max_iter: int


REFERENCES = {
    "text": Reference(
        "TF-IDF, logistic regression",
        {"ngram_range": [1, 2], "min_df": 2, "sublinear_tf": True},
        C=10.0,
        max_iter=1000,
    ),
    "image": Reference("pixels, logistic regression", {}, C=1e-3, max_iter=1000),
}
"""By kind of data. TfidfVectorizer makes the features of texts: lower case, words of two letters and more, a
weight of 1 + log of the count times the log of the inverse document frequency, length 1. StandardScaler those
of images: every pixel and channel with mean 0 and standard deviation 1 over the train split."""


def make_reference(kind: str) -> "Pipeline":
    """The untrained reference for a kind of data: texts as a list, images uint8 (N, H, W, 3)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    chosen = REFERENCES[kind]
    classifier = LogisticRegression(C=chosen.C, max_iter=chosen.max_iter)
    if kind == "text":
        options = chosen.features | {"ngram_range": tuple(chosen.features["ngram_range"])}
        return make_pipeline(TfidfVectorizer(**options), classifier)
    return make_pipeline(
        FunctionTransformer(flatten), StandardScaler(copy=False, **chosen.features), classifier
    )


def flatten(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) as float32 (N, H * W * C)."""
    return images.reshape(len(images), -1).astype(np.float32)


def measure_reference(
    kind: str,
    train: tuple[np.ndarray | list[str], np.ndarray],
    test: tuple[np.ndarray | list[str], np.ndarray],
    headline: str,
) -> dict[str, Any]:
    """Train the reference on one split and test it on the other.

    One thread and a deterministic solver: on one kind of processor the same data give the same numbers.

    Args:
        kind: ``text`` or ``image``.
        train: examples as :func:`make_reference` takes them, and labels int (N,).
        test: the same of the test split.
        headline: the metric that decides for the data set, which is measured in any case.

    Returns:
        ``title``; ``settings``; ``num_features``; ``iterations`` and whether the solver ``converged`` in
        them; ``metrics``: ``test/accuracy``, ``test/f1_macro`` (the mean over the classes), for two classes
        ``test/f1`` of class 1, and ``test/balanced_accuracy`` where that is the headline; ``seconds`` of the
        processor, features and test included.

    Raises:
        StudyError: the training texts share no word.
    """
    from sklearn import metrics
    from threadpoolctl import threadpool_limits

    model = make_reference(kind)
    with threadpool_limits(1):
        begun = time.process_time()
        try:
            model.fit(*train)
        except ValueError as error:
            if "vocabulary" not in str(error) and "no terms remain" not in str(error):
                raise
            raise StudyError(
                f"{REFERENCES[kind].title}: no word stands in {REFERENCES[kind].features['min_df']} of the "
                f"{len(train[1]):,} training texts; raise data.limit."
            ) from error
        predicted = model.predict(test[0])
        seconds = time.process_time() - begun
    classifier = model[-1]
    iterations = int(classifier.n_iter_.max())
    labels, chosen = test[1], REFERENCES[kind]
    scores = {
        "test/accuracy": metrics.accuracy_score(labels, predicted),
        "test/f1_macro": metrics.f1_score(labels, predicted, average="macro", zero_division=0),
    }
    if len(classifier.classes_) == 2:
        scores["test/f1"] = metrics.f1_score(labels, predicted, zero_division=0)
    if headline == "balanced_accuracy":
        scores["test/balanced_accuracy"] = metrics.balanced_accuracy_score(labels, predicted)
    return {
        "title": chosen.title,
        "settings": {**chosen.features, "C": chosen.C, "max_iter": chosen.max_iter},
        "num_features": int(classifier.n_features_in_),
        "iterations": iterations,
        "converged": iterations < chosen.max_iter,
        "metrics": {name: float(value) for name, value in scores.items()},
        "seconds": seconds,
    }
