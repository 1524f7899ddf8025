"""The embedded sample: stand-ins for data sets that work offline, in seconds, always the same.

They exist to try the pipeline, not to answer its question. Digits: scikit-learn's scans of handwritten digits
(UCI, 8x8 pixels), enlarged to the data set's size, each in its own colours on its own background, shifted,
with noise. Reviews: generated sentences whose words mislead without their negations, with filler and wrong
labels. Topics: sentences of any number of classes, each with invented words of its own.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrstudy.data.raw import OFFICIAL_SPLITS, image_table
from lrstudy.recipe.dataset import Columns, Dataset, Split, image_shape

VERSION = 1  # of the sample's content: raise it with every change that alters a single example
SEED = 20  # of colours, shifts, noise and sentences

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


NUM_DIGITS = 10
# Of ten classes, balanced: the rarest digit has 174 scans.
DIGIT_ROWS: dict[Split, int] = {
    "train": 1300,
    "test": 440,
}
REVIEW_ROWS: dict[Split, int] = {"train": 2000, "test": 1000}
SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "ti", "vo", "wu", "ze")
TOPIC_WORDS = 12  # of each class
TOPIC_SENTENCES = ("{word} was in the news today", "they spoke of {word} and {other}", "no end of {word} yet")


@dataclass(frozen=True)
class Sample:
    """A stand-in: both official splits as Arrow tables, their columns, its classes and its title."""

    tables: dict[Split, Any]
    columns: Columns
    class_names: list[str]
    title: str


def make(spec: Dataset) -> Sample:
    """The stand-in that a data set's conf names, in its layout: size, channels and number of classes."""
    if spec.sample is None:
        raise ValueError(f"{spec.title} has no stand-in")
    return SAMPLES[spec.sample](spec)


def _digits(spec: Dataset) -> Sample:
    """Scans of digits. More than ten classes are digits in several hues, or brightnesses if grey."""
    from PIL import Image
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)  # (1797, 64), ink from 0 to 16
    rng = np.random.default_rng(SEED)
    (height, width, channels), num_classes = image_shape(spec), len(spec.classes)
    num_inks = -(-num_classes // NUM_DIGITS)
    columns = Columns(input="img", label="label")
    per_class = {split: rows // NUM_DIGITS // num_inks for split, rows in DIGIT_ROWS.items()}
    chosen: dict[Split, list[tuple[int, int]]] = {split: [] for split in OFFICIAL_SPLITS}
    for digit in range(min(NUM_DIGITS, num_classes)):
        scans_of = rng.permutation(np.flatnonzero(labels == digit))
        for ink in range(num_inks):
            number = ink * NUM_DIGITS + digit
            if number < num_classes:
                rows = scans_of[ink * sum(per_class.values()) :][: sum(per_class.values())]
                chosen["train"].extend((row, number) for row in rows[: per_class["train"]])
                chosen["test"].extend((row, number) for row in rows[per_class["train"] :])
    tables: dict[Split, Any] = {}
    for split, examples in chosen.items():
        examples = [examples[place] for place in rng.permutation(len(examples))]
        images = np.empty((len(examples), height, width, channels), np.uint8)
        for target, (row, number) in enumerate(examples):
            scan = Image.fromarray((scans[row].reshape(8, 8) * 255 / 16).astype(np.uint8))
            drawn = np.asarray(scan.resize((width, height), Image.Resampling.BILINEAR)) / 255
            shift = tuple(rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, 2).tolist())
            drawn = np.roll(drawn, shift, (0, 1))[..., None]
            colour, background = rng.uniform(140, 255, channels), rng.uniform(0, 115, channels)
            if num_inks > 1:
                colour = _colour(number // NUM_DIGITS / num_inks, channels)
            noise = rng.normal(0, NOISE, (height, width, channels))
            image = background + (colour - background) * drawn + noise
            images[target] = np.clip(np.rint(image), 0, 255)
        tables[split] = image_table(images, np.array([number for _, number in examples]), columns)
    digits = [str(number % NUM_DIGITS) for number in range(num_classes)]
    if num_inks > 1:
        digits = [f"{digit}, ink {number // NUM_DIGITS}" for number, digit in enumerate(digits)]
    return Sample(tables, columns, digits, "digits")


def _colour(share: float, channels: int) -> np.ndarray:
    """A hue of the colour circle, of grey ink a brightness, as values up to 255."""
    if channels == 1:
        return np.array([255 - 110 * share])
    return 255 * np.array(colorsys.hsv_to_rgb(share, 0.6, 1.0))


def _reviews(spec: Dataset) -> Sample:
    import pyarrow as pa

    rng = np.random.default_rng(SEED)
    tables: dict[Split, Any] = {}
    for split, rows in REVIEW_ROWS.items():
        label = rng.permutation(np.repeat([0, 1], rows // 2))
        flipped = _flipped(rng, label, 2)
        texts = [_review(rng, int(value)) for value in np.where(flipped, 1 - label, label)]
        tables[split] = pa.table({"text": texts, "label": pa.array(label, pa.int64())})
    return Sample(tables, Columns(input="text", label="label"), ["neg", "pos"], "generated reviews")


def _flipped(rng: np.random.Generator, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Which labels are wrong: as many of each class, so that the classes stay balanced."""
    flipped = np.zeros(len(label), bool)
    for value in range(num_classes):
        of_class = rng.permutation(np.flatnonzero(label == value))
        flipped[of_class[: round(WRONG_LABEL * len(label) / num_classes)]] = True
    return flipped


def _topics(spec: Dataset) -> Sample:
    import pyarrow as pa

    rng = np.random.default_rng(SEED)
    num_classes = len(spec.classes)
    invented: dict[str, None] = {}
    while len(invented) < TOPIC_WORDS * num_classes:
        invented["".join(rng.choice(SYLLABLES, 3 if num_classes <= 100 else 4))] = None
    words = np.array(list(invented)).reshape(num_classes, TOPIC_WORDS)
    tables: dict[Split, Any] = {}
    for split, rows in REVIEW_ROWS.items():
        label = rng.permutation(np.repeat(np.arange(num_classes), max(1, rows // num_classes)))
        wrong = _flipped(rng, label, num_classes)
        topic = np.where(wrong, (label + 1) % num_classes, label)
        texts = [_topic(rng, words, int(value)) for value in topic]
        tables[split] = pa.table({"text": texts, "label": pa.array(label, pa.int64())})
    return Sample(tables, Columns(input="text", label="label"), spec.classes, "generated topics")


def _topic(rng: np.random.Generator, words: np.ndarray, topic: int) -> str:
    sentences = [FILLER[rng.integers(len(FILLER))]]
    for sentence in rng.permutation(TOPIC_SENTENCES):
        spoken_of = topic if rng.random() < AGREEING else rng.integers(len(words))
        word, other = rng.choice(words[spoken_of], 2, replace=False)
        sentences.append(str(sentence).format(word=word, other=other))
    return " ".join(f"{sentences[place].capitalize()}." for place in rng.permutation(len(sentences)))


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


SAMPLES: dict[str, Callable[[Dataset], Sample]] = {"digits": _digits, "reviews": _reviews, "topics": _topics}
"""What can stand in for a data set, by the name that its conf gives."""
