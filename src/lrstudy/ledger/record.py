"""One training's entry in the ledger: what it holds, how it is written, and whether what is read can be so.

A record is a JSON object of plain values, compressed with gzip: nothing in it can run code. Its file is named
after the training's identity and the record's own content, so that files of several ledgers can lie in one
folder without one replacing another. docs/ledger.md describes the format for people and other programs.
"""

import base64
import binascii
import gzip
import hashlib
import io
import json
import math
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lrstudy.checked import Finite, Name, Sha256, Share
from lrstudy.errors import StudyError
from lrstudy.recipe.identity import training_identity
from lrstudy.training.evaluation import NO_SCORES
from lrstudy.training.measures import AVERAGES, balanced_accuracy

FORMAT: Final = 2
"""The newest. Records that share nothing are written in format 1, as they were before others could."""
SUFFIX = ".json.gz"
MAX_BYTES = 1_000_000  # of a file, ten times what a training of many epochs takes
MAX_TEXT = 16_000_000  # unpacked
MAX_EXAMPLES = 10_000_000  # of a test split: a number alone must not ask for any amount of memory

WEIGHTS = ("last", "best", *AVERAGES)
"""After the last epoch: the headline; of the lowest validation loss; averages of a training that finished."""

TEST_PREFIX = {name: "test" if name == "last" else f"test_{name}" for name in WEIGHTS}
"""Weights -> what their test metrics' names begin with: test/accuracy, test_best/accuracy, ..."""
SCORES = ("accuracy", "f1", "f1_macro", "loss")
"""Test metrics that are one number."""

ALWAYS_IN_HISTORY = (
    "train/loss", "train/accuracy", "train/f1", "train/f1_macro", "validation/loss",
    "validation/loss_standard_error", "validation/accuracy", "validation/f1", "validation/f1_macro", "lr",
    "seconds", "compute_seconds", "time",
)  # fmt: skip
ALWAYS_IN_FINAL = tuple(
    f"{split}/{metric}"
    for split in ("train_evaluated", *(f"validation_{name}" for name in AVERAGES))
    for metric in ("loss", "loss_standard_error", "accuracy", "f1", "f1_macro")
)
"""What is measured once, at the end of a training that finished."""


class DamagedRecord(StudyError):
    """A file of the ledger that is not what a training left."""


class NewerRecord(StudyError):
    """A file of the ledger that a later version of this code has written: whole, and not to be read here."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(_Strict):
    """The data set that a training read, as its meta.json describes it."""

    dataset: Name
    label: str
    official: bool
    fingerprint: str
    num_examples: dict[str, Annotated[int, Field(ge=0)]]


class Origin(_Strict):
    """Where and when a training took place: told, and no part of its identity."""

    machine: str  # which: lrstudy.ledger.machine.machine_name
    processor: str
    cores: Annotated[int, Field(ge=1)]
    system: str
    accelerator: str | None
    versions: dict[str, str]
    revision: str  # of the code, "" outside of a repository
    ended: Finite  # seconds since 1970


class Labels(_Strict):
    """What the study that asked for the training called it; another study may call it otherwise."""

    model: Name
    schedule: Name
    role: Literal["final", "trial"]


class Scores(_Strict):
    """Metrics on the test split; None each where the weights are no numbers."""

    accuracy: Share | None
    f1: Share | None
    f1_macro: Share | None
    loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    confusion: list[list[Annotated[int, Field(ge=0)]]] | None

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean over the classes of their share of right predictions."""
        return None if self.confusion is None else balanced_accuracy(self.confusion)

    @model_validator(mode="after")
    def _agree(self) -> "Scores":
        given = [value is not None for value in self.model_dump().values()]
        if any(given) != all(given):
            raise ValueError("accuracy, f1, f1_macro, loss and confusion must stand together")
        if self.confusion is not None and self.accuracy is not None and self.f1_macro is not None:
            if any(len(row) != len(self.confusion) for row in self.confusion):
                raise ValueError("confusion is not square")
            correct = sum(row[label] for label, row in enumerate(self.confusion))
            if not math.isclose(correct, self.accuracy * self.num_examples, rel_tol=1e-9, abs_tol=1e-6):
                raise ValueError(f"confusion has {correct} right, accuracy says {self.accuracy:.6f}")
            macro = _macro_f1(self.confusion)
            if not math.isclose(macro, self.f1_macro, rel_tol=1e-9, abs_tol=1e-9):
                raise ValueError(f"confusion has a macro F1 of {macro:.6f}, not {self.f1_macro:.6f}")
        return self

    @property
    def num_examples(self) -> int:
        """Of how many examples the scores are; 0 where there are none."""
        return sum(map(sum, self.confusion or []))


def _macro_f1(confusion: list[list[int]]) -> float:
    """The mean F1 of the classes that are present or predicted; 0 where none is."""
    found = [
        2 * row[label] / (sum(row) + sum(other[label] for other in confusion))
        for label, row in enumerate(confusion)
        if sum(row) + sum(other[label] for other in confusion)
    ]
    return math.fsum(found) / len(found) if found else 0.0


class Test(_Strict):
    """What the test split said of each of WEIGHTS; nothing of averages where the training diverged.

    ``right`` and ``losses`` are of the last weights, in the order of the split's examples, and
    ``right_tail_average`` of the tail average, which stands as a row of its own beside the schedules.
    """

    num_examples: Annotated[int, Field(ge=1, le=MAX_EXAMPLES)]
    last: Scores
    best: Scores
    ema: Scores
    tail_average: Scores
    right: str | None  # base64 of bits, the first example's the highest of the first byte
    right_tail_average: str | None
    losses: str | None  # base64 of zlib of float16: all high bytes, then all low bytes

    @model_validator(mode="after")
    def _agree(self) -> "Test":
        if (self.right is None) != (self.losses is None) or (self.right is None) != (
            self.last.accuracy is None
        ):
            raise ValueError("right, losses and the scores of the last weights must stand together")
        if (self.right_tail_average is None) != (self.tail_average.accuracy is None):
            raise ValueError("right_tail_average and the scores of tail_average must stand together")
        for scores in (getattr(self, weights) for weights in WEIGHTS):
            if scores.confusion is not None and scores.num_examples != self.num_examples:
                raise ValueError(f"confusion is of {scores.num_examples} examples, not {self.num_examples}")
        for weights in ("last", "tail_average"):
            said = getattr(self, weights).accuracy
            if said is not None and not math.isclose(self.is_right(weights).mean(), said, abs_tol=1e-9):
                raise ValueError(
                    f"right says an accuracy of {self.is_right(weights).mean():.6f}, {weights} {said:.6f}"
                )
        if self.right is not None and self.last.loss is not None:
            losses = self.example_losses()
            if not np.isfinite(losses).all() or (losses < 0).any():
                raise ValueError("losses are not all finite numbers of at least 0")
            if not math.isclose(losses.mean(dtype=np.float64), self.last.loss, rel_tol=0.01, abs_tol=1e-3):
                raise ValueError(f"losses have a mean of {losses.mean():.4f}, last says {self.last.loss:.4f}")
        return self

    def is_right(self, weights: Literal["last", "tail_average"] = "last") -> np.ndarray:
        """bool (num_examples,): whether these weights' likeliest class was the label."""
        packed = self.right if weights == "last" else self.right_tail_average
        return unpack_bits(packed or "", self.num_examples)

    def example_losses(self) -> np.ndarray:
        """float16 (num_examples,): -log probability of the label, in nats."""
        return unpack_halves(self.losses or "", self.num_examples)


class Shared(_Strict):
    """The training whose first epochs, or all, a training has in common with it and was not done again
    for.
    """

    identity: Sha256
    epochs: Annotated[int, Field(ge=1)]


Value = Finite | int | None


class Record(_Strict):
    """What a finished training leaves.

    ``history`` has a list per quantity with one value per epoch, in full precision; None where a training
    that diverged had no number. ``final`` is :class:`lrstudy.training.loop.Progress`'s, None where an
    average's logits are no numbers, and empty where the training diverged. ``weights`` are the SHA-256 of its
    weights' files where they were kept. ``shared``: the training that its first epochs were taken from, to
    the bit what they would have been (:mod:`lrstudy.training.prefix`); their seconds are that one's.
    """

    format: Literal[1, 2]
    identity: Sha256
    settings: dict[str, Any]
    data: Data
    code: dict[str, Sha256]
    labels: Labels
    origin: Origin
    status: Literal["finished", "diverged"]
    best_epoch: Annotated[int, Field(ge=0)]
    num_parameters: Annotated[int, Field(ge=0)]
    history: dict[str, list[Value]]
    final: dict[str, Value]
    interventions: list[dict[str, Any]]
    weights: dict[Literal["last", "best", "ema", "tail_average"], Sha256]  # WEIGHTS
    test: Test | None
    shared: Shared | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> "Record":
        for name, kind in _SETTINGS.items():
            if type(self.settings.get(name)) is not kind:
                raise ValueError(f"settings has no {name} that is {_KINDS[kind]}")
        known = training_identity(self.settings, self.data.fingerprint, self.code)
        if known != self.identity:
            raise ValueError(
                f"settings, data and code have the identity {known[:16]}..., not {self.identity[:16]}..."
            )
        if (self.format == 1) != (self.shared is None):
            raise ValueError("a record of format 2 says what was shared, one of format 1 does not")
        epochs = self.history.get("epoch", [])
        if self.shared is not None and self.shared.epochs > len(epochs):
            raise ValueError(f"it shares {self.shared.epochs} of {len(epochs)} epochs")
        if not epochs or epochs != list(range(1, len(epochs) + 1)):
            raise ValueError("history has no epochs from 1 on")
        if missing := [name for name in ALWAYS_IN_HISTORY if name not in self.history]:
            raise ValueError(f"history has no {', '.join(missing)}")
        for name, series in self.history.items():
            if len(series) != len(epochs):
                raise ValueError(f"history has {len(epochs)} epochs and {len(series)} of {name}")
        if self.status == "finished":
            if len(epochs) != self.settings.get("num_epochs"):
                raise ValueError(
                    f"it finished after {len(epochs)} of {self.settings.get('num_epochs')} epochs"
                )
            for name, series in self.history.items():
                if any(value is None or not math.isfinite(value) for value in series):
                    raise ValueError(f"it finished with {name} that is no finite number")
            losses = self.numbers("validation/loss")
            if self.best_epoch != 1 + losses.index(min(losses)):
                raise ValueError(f"best_epoch {self.best_epoch} has not the lowest validation/loss")
            if missing := [name for name in ALWAYS_IN_FINAL if name not in self.final]:
                raise ValueError(f"it finished and final has no {', '.join(missing)}")
        elif self.final:
            raise ValueError("it diverged, and final says what only a training that finished has")
        if self.best_epoch > len(epochs):
            raise ValueError(f"best_epoch {self.best_epoch} is none of {len(epochs)} epochs")
        for intervention in self.interventions:
            if intervention.get("epoch") not in epochs:
                raise ValueError("interventions has one in no epoch of the history")
        of_data = self.data.num_examples.get("test")
        if self.test and of_data not in (None, self.test.num_examples):
            raise ValueError(f"test is of {self.test.num_examples} examples, the data have {of_data}")
        return self

    @property
    def name(self) -> str:
        """``<model>-<schedule> seed <n>``, as it is called in messages."""
        return f"{self.labels.model}-{self.labels.schedule} seed {self.settings['seed']}"

    @property
    def device(self) -> str:
        """The kind of device: cpu, cuda or mps."""
        return self.settings["device"]

    @property
    def dtype(self) -> str:
        """The type of its matrix products."""
        return self.settings["precision"]

    @property
    def measured(self) -> Test:
        """What test data said, of a record that has it."""
        if self.test is None:
            raise ValueError(f"{self.name}: not measured on test data")
        return self.test

    def numbers(self, name: str) -> list[float]:
        """The history of a quantity that is a number in every epoch."""
        series = [value for value in self.history[name] if value is not None]
        if len(series) < len(self.history[name]):
            raise ValueError(f"{self.name}: {name} is no number in every epoch")
        return series

    def outcome(self) -> dict[str, Any]:
        """The same as a training's own ``outcome.json`` says it, but for the single updates."""
        epochs = []
        for values in zip(*self.history.values(), strict=True):
            epoch = {
                name: math.nan if value is None else value
                for name, value in zip(self.history, values, strict=True)
            }
            epoch["interventions"] = [i for i in self.interventions if i["epoch"] == epoch["epoch"]]
            epochs.append(epoch)
        return {
            "status": self.status,
            "best_epoch": self.best_epoch,
            "num_parameters": self.num_parameters,
            "epochs": epochs,
            "final": self.final,
        }

    def with_test(self, test: Test) -> "Record":
        """The same with what test data said."""
        return self.model_copy(update={"test": test})

    def says_all_of(self, other: "Record") -> bool:
        """Whether the other is this one, or would be if it had what it lacks of it.

        It may lack the test part and the weights' hashes; and where a search alone asked for the training (it
        is a trial), the labels of the study that took it for its own (it is final).
        """
        lacking = [name for name in ("test", "weights") if not getattr(other, name)]
        if (self.labels.role, other.labels.role) == ("final", "trial"):
            lacking.append("labels")
        return other.model_copy(update={name: getattr(self, name) for name in lacking}) == self


_SETTINGS = {
    "dataset": str, "seed": int, "num_epochs": int, "device": str, "precision": str,
    "model": dict, "optimizer": dict, "controller": dict, "schedule": dict,
}  # fmt: skip
"""What is read of a training's settings wherever records are read."""
_KINDS = {str: "a text", int: "a whole number", dict: "an object"}

OF_THE_CLOCK = ("seconds", "compute_seconds", "time")
"""What of a history a clock decides: no part of a result."""
NOT_IN_HISTORY = ("steps", "interventions")


def history_of(epochs: list[dict]) -> dict[str, list[Value]]:
    """A training's records by epoch as a record's ``history``."""
    names = [name for name in epochs[0] if name not in NOT_IN_HISTORY]
    return {name: [_plain(epoch[name]) for epoch in epochs] for name in names}


def final_of(found: Mapping[str, float]) -> dict[str, Value]:
    """What a training measured at its end as a record's ``final``."""
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: float) -> Value:
    return value if math.isfinite(value) else None


def test_of(found: Mapping[str, Mapping[str, Any]], num_examples: int) -> Test:
    """A record's ``test`` from what :func:`lrstudy.training.evaluation.measure` found of its weights.

    Args:
        found: by their name in WEIGHTS; averages are left out where the training diverged.
        num_examples: of the test split.
    """
    last, tail = found["last"], found.get("tail_average")
    return Test(
        num_examples=num_examples,
        **{name: Scores(**(found[name]["scores"] if name in found else NO_SCORES)) for name in WEIGHTS},
        right=None if last["right"] is None else pack_bits(last["right"]),
        right_tail_average=None if tail is None or tail["right"] is None else pack_bits(tail["right"]),
        losses=None if last["losses"] is None else pack_halves(last["losses"]),
    )


test_of.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


# --- Packing ------------------------------------------------------------------------------------------------


def pack_bits(values: np.ndarray) -> str:
    """bool (N,) as base64 of bits."""
    return base64.b64encode(np.packbits(values).tobytes()).decode()


def unpack_bits(packed: str, count: int) -> np.ndarray:
    """The inverse of :func:`pack_bits`; ValueError where it is not ``count`` values."""
    found = np.frombuffer(_decoded(packed), np.uint8)
    if len(found) != -(-count // 8):
        raise ValueError(f"right has {8 * len(found)} bits, not {count}")
    return np.unpackbits(found, count=count).astype(bool)


def pack_halves(values: np.ndarray) -> str:
    """float16 (N,) as base64 of zlib: the high bytes, which repeat, before the low ones, which don't."""
    planes = values.astype("<f2").view(np.uint8).reshape(-1, 2).T[::-1]
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()


def unpack_halves(packed: str, count: int) -> np.ndarray:
    """The inverse of :func:`pack_halves`; ValueError where it is not ``count`` values."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(_decoded(packed), 2 * count + 1)
    except zlib.error as error:
        raise ValueError(f"losses cannot be unpacked ({error})") from None
    if len(content) != 2 * count:
        raise ValueError(f"losses are {len(content) / 2:g} values or more, not {count}")
    planes = np.frombuffer(content, np.uint8).reshape(2, count)
    return np.ascontiguousarray(planes[::-1].T).view("<f2").reshape(count)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64 ({error})") from None


# --- Files --------------------------------------------------------------------------------------------------


def encode(record: Record) -> tuple[str, bytes]:
    """The record's file name and content; the same bytes for the same record.

    A number in ``interventions`` that is not finite becomes null, as in the history.
    """
    text = _text(record)
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, packed, mtime=0) as file:
        file.write(text)
    return _name(record.identity, text), packed.getvalue()


def file_name(record: Record) -> str:
    """The name that :func:`encode` gives the record's file."""
    return _name(record.identity, _text(record))


def _text(record: Record) -> bytes:
    return json.dumps(
        record.model_dump(mode="json", exclude=None if record.shared else {"shared"}),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).encode()


def _name(identity: str, text: bytes) -> str:
    return f"{identity}-{hashlib.sha256(text).hexdigest()[:16]}{SUFFIX}"


def identity_in(name: str) -> str | None:
    """The identity in a record's file name; None where the name is no record's."""
    stem = name.removesuffix(SUFFIX)
    identity, _, digest = stem.partition("-")
    well_formed = name.endswith(SUFFIX) and len(identity) == 64 and len(digest) == 16
    return identity if well_formed and set(identity + digest) <= set("0123456789abcdef") else None


def read_record(path: Path) -> Record:
    """The record in ``path``.

    Raises:
        DamagedRecord: the file is not what :func:`encode` writes under that name; one sentence says why.
        NewerRecord: its format is a later one; its name is that of its content.
        OSError: the system does not let it be read, which says nothing about the record.
    """
    path = Path(path)
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        is_link, is_folder = stat.S_ISLNK(found.st_mode), stat.S_ISDIR(found.st_mode)
        what = "a link" if is_link else "a folder" if is_folder else "no file"
        raise _damaged(path, f"{what}, not the file of a record")
    identity = identity_in(path.name)
    if identity is None:
        raise _damaged(path, f"the name is not <identity>-<digest>{SUFFIX}")
    if found.st_size > MAX_BYTES:
        raise _damaged(path, f"{found.st_size:,} bytes; a record has at most {MAX_BYTES:,}")
    text = _unpacked(path)
    if not text:
        raise _damaged(path, "empty")
    try:
        content = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise _damaged(path, "not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise _damaged(path, f"a {type(content).__name__}, not a record")
    its_format = content.get("format")
    if type(its_format) is int and its_format > FORMAT and path.name == _name(identity, text):
        raise NewerRecord(
            f"{printable(path, 4096)}: not readable by this version: format {printable(its_format, 20)}, and "
            f"it reads up to {FORMAT}; update lrstudy (`git pull`, then `make setup`)."
        )
    if type(its_format) is not int or not 1 <= its_format <= FORMAT:
        raise _damaged(path, f"format {its_format!r:.40}; this version reads 1 to {FORMAT}")
    try:
        record = Record.model_validate(content)
        canonical = _text(record)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        raise _damaged(path, f"{where + ': ' if where else ''}{message}") from None
    except (ValueError, RecursionError) as error:  # half a surrogate pair, nested without end
        raise _damaged(path, f"has what no record can have ({str(error).splitlines()[0]})") from None
    if record.identity != identity_in(path.name):
        raise _damaged(path, f"named after another training; it is {record.identity[:16]}...")
    if path.name != _name(record.identity, text):
        raise _damaged(path, "not the content that its name is made of: it was changed by hand")
    if text != canonical:
        raise _damaged(
            path, "not written as records are: infinite numbers, keys twice, spaces or other order"
        )
    return record


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            text = file.read(MAX_TEXT + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, f"cannot be unpacked ({error})") from None
    if len(text) > MAX_TEXT:
        raise _damaged(path, f"unpacks to more than {MAX_TEXT:,} bytes")
    return text


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON's")


def _damaged(path: Path, reason: str) -> DamagedRecord:
    return DamagedRecord(f"{printable(path, 4096)}: {printable(reason)}.")


def printable(text: object, length: int = 300) -> str:
    """Text from a file as a terminal may show it, cut at ``length``: it may hold escape sequences."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in str(text)[: length + 1])
    return shown if len(shown) <= length else f"{shown[: length - 3]}..."
