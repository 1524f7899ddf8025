"""The embedded sample: stand-ins for CIFAR-10 and IMDB that work offline, in seconds, always the same.

They exist to try the pipeline, not to answer its question. Digits: scikit-learn's scans of handwritten digits
(UCI, 8x8 pixels), enlarged to 32x32, each in its own colours on its own background, shifted, with noise.
Reviews: generated sentences whose words mislead without their negations, with filler and wrong labels.
"""

from typing import Any

import numpy as np

from lrstudy.sources import IMAGE_SIZE, OFFICIAL_SPLITS, Spec, image_table

VERSION = 1  # of the sample's content: raise it with every change that alters a single example
SEED = 20  # of colours, shifts, noise and sentences

SPECS = {
    "cifar10": Spec(
        name="cifar10",
        kind="image",
        title="digits",
        class_names=tuple("0123456789"),
        rows={"train": 1300, "test": 440},  # balanced: the rarest digit has 174 scans
    ),
    "imdb": Spec(
        name="imdb",
        kind="text",
        title="generated reviews",
        class_names=("neg", "pos"),
        rows={"train": 2000, "test": 1000},
    ),
}

NOISE = 12.0  # standard deviation of pixel noise, of 255
MAX_SHIFT = 2  # pixels, each way
NEGATED = 0.3  # share of opinions said by negating the opposite word
AGREEING = 0.92  # chance that an opinion agrees with the review's label
WRONG_LABEL = 0.06  # share of reviews whose label is flipped

WORDS = {
    0: (
        "awful",
        "boring",
        "clumsy",
        "dull",
        "flat",
        "lazy",
        "messy",
        "predictable",
        "sloppy",
        "tedious",
        "weak",
    ),
    1: (
        "brilliant",
        "charming",
        "clever",
        "funny",
        "gripping",
        "lovely",
        "moving",
        "sharp",
        "superb",
        "warm",
    ),
}
SUBJECTS = ("acting", "story", "script", "ending", "pacing", "music", "camera", "dialogue", "plot", "cast")
OPINIONS = (
    "the {subject} was {adverb} {word}",
    "i found the {subject} {adverb} {word}",
    "the {subject} is {adverb} {word} from start to end",
)
NEGATED_OPINIONS = (
    "the {subject} was not {adverb} {word}",
    "i did not find the {subject} {adverb} {word}",
    "the {subject} is never {adverb} {word}",
    "nobody could call the {subject} {adverb} {word}",
)
ADVERBS = ("", "very", "rather", "really", "quite")
FILLER = (
    "we saw it on a rainy evening",
    "the film runs for about two hours",
    "it was shot in a small town by the sea",
    "my brother had picked it from the list",
    "there is a dog in it<br /><br />",
    "the second half is set in winter",
    "the cinema was almost full",
    "it opened last week",
)


def tables(dataset: str) -> dict[str, Any]:
    """Both official splits of the stand-in for ``dataset`` as Arrow tables with the hub's columns."""
    return _digits() if dataset == "cifar10" else _reviews()


def _digits() -> dict[str, Any]:
    from PIL import Image
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)  # (1797, 64), ink from 0 to 16
    rng = np.random.default_rng(SEED)
    spec = SPECS["cifar10"]
    per_class = {split: spec.rows[split] // len(spec.class_names) for split in OFFICIAL_SPLITS}
    chosen = {split: [] for split in OFFICIAL_SPLITS}
    for digit in range(len(spec.class_names)):
        rows = rng.permutation(np.flatnonzero(labels == digit))[: sum(per_class.values())]
        chosen["train"].extend(rows[: per_class["train"]])
        chosen["test"].extend(rows[per_class["train"] :])
    result = {}
    for split, rows in chosen.items():
        rows = rng.permutation(rows)
        images = np.empty((len(rows), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        for target, row in enumerate(rows):
            scan = Image.fromarray((scans[row].reshape(8, 8) * 255 / 16).astype(np.uint8))
            ink = np.asarray(scan.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)) / 255
            ink = np.roll(ink, rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, 2), (0, 1))[..., None]
            colour, background = rng.uniform(140, 255, 3), rng.uniform(0, 115, 3)
            image = (
                background + (colour - background) * ink + rng.normal(0, NOISE, (IMAGE_SIZE, IMAGE_SIZE, 3))
            )
            images[target] = np.clip(np.rint(image), 0, 255)
        result[split] = image_table(images, labels[rows])
    return result


def _reviews() -> dict[str, Any]:
    import pyarrow as pa

    rng = np.random.default_rng(SEED)
    result = {}
    for split, rows in SPECS["imdb"].rows.items():
        label = rng.permutation(np.repeat([0, 1], rows // 2))
        # as many of each class are flipped, so that the classes stay balanced
        flipped = np.zeros(rows, bool)
        for value in (0, 1):
            flipped[rng.permutation(np.flatnonzero(label == value))[: round(WRONG_LABEL * rows / 2)]] = True
        texts = [_review(rng, int(value)) for value in np.where(flipped, 1 - label, label)]
        result[split] = pa.table({"text": texts, "label": pa.array(label, pa.int64())})
    return result


def _review(rng: np.random.Generator, label: int) -> str:
    sentences = [_opinion(rng, label if rng.random() < AGREEING else 1 - label) for _ in range(3)]
    sentences += [FILLER[i] for i in rng.permutation(len(FILLER))[: rng.integers(3)]]
    return " ".join(f"{sentences[i].capitalize()}." for i in rng.permutation(len(sentences)))


def _opinion(rng: np.random.Generator, polarity: int) -> str:
    def pick(choices: tuple[str, ...]) -> str:
        return choices[rng.integers(len(choices))]

    negated = rng.random() < NEGATED
    sentence = pick(NEGATED_OPINIONS if negated else OPINIONS).format(
        subject=pick(SUBJECTS), adverb=pick(ADVERBS), word=pick(WORDS[1 - polarity if negated else polarity])
    )
    return " ".join(sentence.split())  # the adverb may be empty
