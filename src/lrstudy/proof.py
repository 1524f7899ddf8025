"""What this source tree computes, to the bit: python -m lrstudy.proof OUT.json.

A fixed set of tiny trainings that covers every entry of every registry, both kinds of data and every branch
of the loop that settings can reach, each whole and gone on with from a checkpoint half-way. For each the file
has its settings, its code and all that it computed: values, or the SHA-256 of exact bytes. Two trees whose
files agree compute the same on this machine: :mod:`lrstudy.prove_equal` compares them.

The module runs with the code of the tree that it lies in, so an older revision has an older one. It must keep
its name and its command line, or revisions on two sides of the change cannot be compared; ``FORMAT`` changes
with what the file holds.
"""

import argparse
import contextlib
import fnmatch
import hashlib
import io
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrstudy.controllers import CONTROLLERS, make_controller
from lrstudy.data import read_split
from lrstudy.entries.parameters import REQUIRED, UNREAD, Choice, Free, Made, Parameter
from lrstudy.errors import StudyError
from lrstudy.files import write_json
from lrstudy.ledger.machine import versions
from lrstudy.recipe.identity import entries_of, training_code
from lrstudy.recipe.identity import kind_of as kind_of_part
from lrstudy.recipe.models import ARCHITECTURES
from lrstudy.recipe.networks import arguments_of, parameters_of
from lrstudy.recipe.optimizers import OPTIMIZERS, check_options
from lrstudy.schedules import SCHEDULES, resolve_parameters
from lrstudy.training.evaluation import test_weights
from lrstudy.training.loop import Progress, prepare, train

FORMAT = 2
ENTRIES: dict[str, Collection[str]] = {
    "schedule": SCHEDULES,
    "controller": CONTROLLERS,
    "optimizer": OPTIMIZERS,
    "network": ARCHITECTURES,
}
OF_THE_CLOCK = ("seconds", "compute_seconds", "time")
"""What a clock decides, in an epoch's record."""

NUM_EPOCHS = 6  # late phases are reached: the last updates lie beyond 5/6 of the training


# --- The trainings ------------------------------------------------------------------------------------------

_USUAL = {
    "schedule": ("cosine", "polynomial"),
    "controller": ("none",),
    "optimizer": ("momentum", "adamw"),
    "image": ("resnet",),
    "text": ("lstm", "transformer"),
}
"""What a training uses that is there for something else; the first that is not left out."""

_SIZES: dict[str, tuple[Any, Any]] = {
    "depth": (8, 14),
    "width": (8, 12),
    "embedding_size": (8, 12),
    "hidden_size": (8, 12),
    "num_heads": (2, 4),
    "num_layers": (2, 1),
    "feedforward_size": (16, 12),
    "dropout": (0.3, 0.0),
    "word_dropout": (0.2, 0.0),
}
"""Two values for each size of a network."""

_ACTING: dict[str, dict[str, Any]] = {
    "validation_monitor": {"patience": 0, "threshold": 0.27},
    "greedy": {"factor": 0.95, "patience": 0, "threshold": 0.1, "warmup": 0, "window": 1},
}
"""What makes a controller act in a few epochs, where its defaults don't."""

_ACTING_LATE: dict[str, dict[str, Any]] = {
    "greedy": {"watch": "accuracy", "factor": 0.8, "patience": 1, "warmup": 1, "window": 2},
}
"""Other values of what is kept above; on top of the defaults, in a training of their own."""


class _Set:
    """The trainings by name, each with settings as :func:`lrstudy.study.tasks.training_task` gives them."""

    def __init__(self, without: Collection[str]):
        self.without = without
        self.trainings: dict[str, dict] = {}

    def left(self, part: str) -> list[str]:
        """The entries of a registry that are not left out."""
        return [name for name in ENTRIES[part] if f"{part}.{name}" not in self.without]

    def usual(self, part: str, among: Collection[str]) -> str:
        """The entry of ``among`` for trainings that are there for something else."""
        for name in (*_USUAL[part], *among):
            if name in among:
                return name
        raise StudyError(
            f"--except: leaves no {part if part in ENTRIES else f'network for {part} data'}, and without one "
            "the loop is not proven; leave out fewer entries."
        )

    def add(self, name: str, kind: str, **changes: Any) -> None:
        """A training on data of this kind; ``changes`` replace whole sections of the usual settings."""
        network = self.usual(kind, [one for one in self.left("network") if kind_of(one) == kind])
        settings = {
            "dataset": kind,
            "model": {"architecture": network, **sizes_of(network, 0)},
            "batch_size": 16,
            "precision": "float32",
            "num_epochs": NUM_EPOCHS,
            "optimizer": self.optimizer(self.usual("optimizer", self.left("optimizer"))),
            "schedule": self.schedule(self.usual("schedule", self.left("schedule"))),
            "controller": controller(self.usual("controller", self.left("controller"))),
            "training_share": 1.0,
            "seed": 1,
            "threads": 1,
            "device": "cpu",
            "augment": "none",
            "gradient_clip": None,
            "compile": False,
        } | changes
        uses = {f"{kind_of_part(part)}.{entry}" for part, entry in entries_of(settings).items()}
        # A schedule may be made of one that is left out.
        if settings not in self.trainings.values() and not uses & set(self.without):
            self.trainings[name] = settings

    def schedule(self, function: str, warmup: float = 0.0, granularity: str = "step", **given: Any) -> dict:
        """The settings' section."""
        return {
            "function": function,
            "warmup_epochs": warmup,
            "granularity": granularity,
            "parameters": resolve_parameters(function, NUM_EPOCHS - warmup, **given),
        }

    def of_left(self, parts: Any) -> Any:
        """What a schedule is made of, with others in place of those that are left out."""
        if isinstance(parts, list):
            return [self.of_left(part) for part in parts]
        if f"schedule.{parts['schedule']}" not in self.without:
            return parts
        single = [
            name
            for name in self.left("schedule")
            if not any(isinstance(one, Made) for one in SCHEDULES[name].parameters.values())
        ]
        lengths = {key: value for key, value in parts.items() if key in ("share", "epochs", "factor")}
        return {"schedule": self.usual("schedule", single), **lengths}

    def optimizer(self, name: str, **options: Any) -> dict:
        """The settings' section."""
        adaptive = not {"momentum", "lr_decay"} & OPTIMIZERS[name].options.keys()
        return {"name": name, "base_lr": 0.01 if adaptive else 0.1, **check_options(name, options)}


def trainings(without: Collection[str] = ()) -> dict[str, dict]:
    """The settings of every training of the set, by name.

    Args:
        without: entries, ``part.name`` each, that no training is to use.

    Raises:
        StudyError: a part has no entry left, or a network has a size that there is no value for.
    """
    found = _Set(without)
    for add in (_for_schedules, _for_controllers, _for_optimizers, _for_networks, _for_the_loop):
        add(found)
    return found.trainings


def _for_schedules(found: _Set) -> None:
    for name in found.left("schedule"):
        parameters = SCHEDULES[name].parameters
        made = {key: found.of_left(one.default) for key, one in parameters.items() if isinstance(one, Made)}
        for what, values in variants(
            parameters, lambda n=name, **given: resolve_parameters(n, NUM_EPOCHS, **given)
        ):
            found.add(f"schedule.{name}{what}", "text", schedule=found.schedule(name, **made | values))


def _for_controllers(found: _Set) -> None:
    for name in found.left("controller"):
        acting = _ACTING.get(name, {})
        for what, values in variants(
            CONTROLLERS[name].parameters, lambda n=name, **given: controller(n, **given), acting
        ):
            for kind in ("image", "text"):
                found.add(f"controller.{name}{what} {kind}", kind, controller=controller(name, **values))
        for kind in ("image", "text") if name in _ACTING_LATE else ():
            late = controller(name, **_ACTING_LATE[name])
            found.add(f"controller.{name} late {kind}", kind, controller=late)


def _for_optimizers(found: _Set) -> None:
    for name in found.left("optimizer"):
        other = {}
        for option, spec in OPTIMIZERS[name].options.items():
            for value in others(spec.default):
                with contextlib.suppress(StudyError):
                    other[option] = spec.check(name, option, value)
                    break
        for kind in ("image", "text"):
            found.add(f"optimizer.{name} {kind}", kind, optimizer=found.optimizer(name))
            found.add(f"optimizer.{name} other values {kind}", kind, optimizer=found.optimizer(name, **other))


def _for_networks(found: _Set) -> None:
    for name in found.left("network"):
        for what, index, precision in (
            ("", 0, "float32"),
            (" other values", 1, "float32"),
            (" bfloat16", 0, "bfloat16"),
        ):
            model = {"architecture": name, **sizes_of(name, index)}
            # Those that cannot be made smaller would take as long as all the others together.
            less = {} if sizes_of(name, 0) else {"training_share": 0.2, "batch_size": 4, "num_epochs": 2}
            schedule = found.schedule(found.usual("schedule", found.left("schedule")))
            found.add(
                f"network.{name}{what}",
                kind_of(name),
                model=model,
                precision=precision,
                schedule=schedule,
                **less,
            )


def _for_the_loop(found: _Set) -> None:
    schedule = found.usual("schedule", found.left("schedule"))
    late = found.schedule(schedule, warmup=1.5)
    by_epoch = found.schedule(schedule, warmup=1.5, granularity="epoch")
    optimizer = found.optimizer(found.usual("optimizer", found.left("optimizer")))
    for kind in ("image", "text"):
        changes: dict[str, dict[str, Any]] = {
            "": {},
            " seed 2": {"seed": 2},
            " warmup": {"schedule": late},
            " by epoch": {"schedule": by_epoch},
            " gradient_clip": {"gradient_clip": 0.1},
            " training_share": {"training_share": 0.5},
            " one epoch": {"num_epochs": 1, "schedule": found.schedule(schedule)},
            " batch of all": {"batch_size": 500},
            " huge rate": {"optimizer": optimizer | {"base_lr": 1e30}},
        }
        if kind == "image":
            changes[" crop_flip"] = {"augment": "crop_flip"}
        else:
            changes[" many batches"] = {"batch_size": 1, "num_epochs": 2}  # beyond what is sorted together
        together = {
            "schedule": by_epoch,
            "gradient_clip": 0.5,
            "training_share": 0.7,
            "batch_size": 8,
            "augment": "crop_flip" if kind == "image" else "none",
            "precision": "bfloat16",
        }
        changes[" together"] = together
        for name in found.left("controller"):
            changes[f" together {name}"] = together | {
                "controller": controller(name, **_ACTING.get(name, {})),
                "precision": "float32",
            }
        for name in found.left("optimizer"):
            if name.startswith("schedule_free"):
                changes[f" together {name}"] = together | {"optimizer": found.optimizer(name)}
        for what, changed in changes.items():
            found.add(f"loop {kind}{what}", kind, **changed)


def controller(name: str, **given: Any) -> dict:
    """The settings' section, every parameter at its value."""
    return {"name": name, **make_controller(name, num_epochs=NUM_EPOCHS, **given).params}


def kind_of(network: str) -> str:
    """The kind of data that a network takes: only text has a vocabulary."""
    return "text" if "vocab_size" in arguments_of(network) else "image"


def sizes_of(network: str, index: int) -> dict[str, Any]:
    """The sizes that a network wants, as its config would have them; ``index`` chooses of two sets.

    They are those of ``_SIZES``, else the first two small values that its signature allows.

    Raises:
        StudyError: it wants one for which nothing is allowed that could be guessed.
    """
    return {name: _size(network, name, spec, index) for name, spec in parameters_of(network).items()}


def _size(network: str, name: str, spec: Parameter, index: int) -> Any:
    if name in _SIZES:
        return _SIZES[name][index]
    values = [] if spec.default in (REQUIRED, UNREAD) else [spec.default, *others(spec.default)]
    values += [
        *getattr(spec, "choices", ()),
        *(() if isinstance(spec, Free) else (2, 1, 8, 0.3, True, False)),
    ]
    allowed = []
    for value in values:
        with contextlib.suppress(StudyError):
            allowed.append(spec.check(network, name, value))
    if not allowed:
        raise StudyError(
            f"{__file__}: the network '{network}' has the size {name!r}, which the proof finds no values "
            "for; say in its signature what is allowed, or add two small ones to _SIZES."
        )
    return allowed[min(index, len(allowed) - 1)]


def variants(
    parameters: dict[str, Any], check: Callable[..., dict], acting: dict | None = None
) -> Iterator[tuple[str, dict]]:
    """Values for the parameters of an entry: the defaults, other ones, and each choice of words.

    Args:
        parameters: name -> :class:`~lrstudy.entries.parameters.Choice` or another specification.
        check: all values from those that are given; StudyError where one is not allowed.
        acting: values that are kept in all but the first.

    Yields:
        What to add to a training's name, and the values that are given.
    """
    yield "", {}
    acting = acting or {}
    words = {
        f" {name}={word}": {name: word}
        for name, spec in parameters.items()
        if isinstance(spec, Choice)
        for word in spec.choices
        if word != spec.default
    }
    for what, chosen in {" other values": {}, **words}.items():
        given = acting | chosen
        for name, spec in parameters.items():
            if isinstance(spec, Choice) or name in given:
                continue
            before = check(**given)[name]
            for value in others(before):
                try:
                    check(**given, **{name: value})
                except StudyError:
                    continue
                given[name] = value
                break
        yield what, given


def others(value: Any) -> list[Any]:
    """Values that a parameter at ``value`` may perhaps have too, the more telling first."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, dict):  # what a schedule is made of
        return [{"schedule": "polynomial"}]
    if isinstance(value, list) and isinstance(value[0], dict):
        return [value[::-1]]
    if isinstance(value, list):  # of numbers, or of pairs of them
        return [[[0.7 * part for part in one] if isinstance(one, list) else 0.7 * one for one in value]]
    if value is None:
        return [0.2]
    return [one for one in (0.7 * value, 1.3 * value, value + 0.3, value + 1, value - 1) if one != value]


# --- Their data ---------------------------------------------------------------------------------------------

_EXAMPLES = {  # no multiples of a batch; enough texts for several batches of the evaluation
    "image": {"train": 35, "validation": 20, "test": 18},
    "text": {"train": 55, "validation": 30, "test": 70},
}
_VOCAB_SIZE, _MAX_LENGTH = 30, 24


def write_data(folder: Path) -> dict[str, Path]:
    """A tiny data set of each kind as preprocessing leaves them; kind -> folder."""
    from safetensors.numpy import save_file

    folders = {kind: folder / kind for kind in ("image", "text")}
    for kind, place in folders.items():
        make = _images if kind == "image" else _texts
        splits = {
            name: make(np.random.default_rng(seed), size)
            for seed, (name, size) in enumerate(_EXAMPLES[kind].items())
        }
        meta: dict[str, Any] = {
            "dataset": f"proof_{kind}",
            "kind": kind,
            "label": f"proof {kind}",
            "official": False,
            "num_examples": _EXAMPLES[kind],
            "fingerprint": f"proof {kind}",
        }
        if kind == "image":
            pixels = splits["train"]["images"] / 255
            meta |= {
                "num_classes": 4,
                "image_size": [32, 32],
                "in_channels": 3,
                "mean": pixels.mean((0, 1, 2)).tolist(),
                "std": pixels.std((0, 1, 2)).tolist(),
            }
        else:
            meta |= {"num_classes": 2, "vocab_size": _VOCAB_SIZE, "max_length": _MAX_LENGTH}
        place.mkdir(parents=True)
        for name, arrays in splits.items():
            save_file(arrays, place / f"{name}.safetensors")
        write_json(place / "meta.json", meta)
    return folders


def _images(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Noise whose brightness grows with the class, and some black."""
    labels = np.arange(count) % 4
    images = rng.integers(0, 120, (count, 32, 32, 3)) + 40 * labels[:, None, None, None]
    images[:, :4, : 1 + count % 7] = 0
    return {"images": images.astype(np.uint8), "labels": labels, "index": np.arange(count)}


def _texts(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Texts of one to the most words; the class favours one half of the vocabulary."""
    labels = np.arange(count) % 2
    lengths = rng.integers(1, _MAX_LENGTH + 1, count)
    lengths[:2] = 1, _MAX_LENGTH
    half = _VOCAB_SIZE // 2
    side = np.where(rng.random(lengths.sum()) < 0.8, labels.repeat(lengths), 1 - labels.repeat(lengths))
    tokens = np.where(side, rng.integers(half, _VOCAB_SIZE, side.size), rng.integers(1, half, side.size))
    return {
        "tokens": tokens.astype(np.int32),
        "offsets": np.concatenate([[0], lengths.cumsum()]),
        "labels": labels,
        "index": np.arange(count),
    }


# --- What they compute --------------------------------------------------------------------------------------


def computed(settings: dict, data: str) -> dict[str, dict]:
    """What a training computes from end to end (``whole``), and from its checkpoint half-way (``resumed``).

    Args:
        settings: the training's.
        data: the folder of its data set.
    """
    training, validation, meta = prepare(settings, data)
    kept = io.BytesIO()

    def keep(record: dict, checkpoint: Callable[[], dict]) -> None:
        if record["epoch"] <= max(1, settings["num_epochs"] // 2):
            kept.seek(0)
            kept.truncate()
            torch.save(checkpoint(), kept)

    whole = train(settings, training, validation, meta, on_epoch=keep)
    kept.seek(0)
    state = torch.load(kept, weights_only=True)
    resumed = train(settings, training, validation, meta, state=state)
    known: dict[str, dict] = {}

    def test(weights: dict[str, torch.Tensor], digests: dict[str, str]) -> dict[str, Any]:
        key = str(digests)
        if key not in known:
            known[key] = tested(weights, settings, data, meta)
        return known[key]

    return {"whole": told(whole, test), "resumed": told(resumed, test)}


def told(progress: Progress, test: Callable[[dict, dict], dict]) -> dict[str, Any]:
    """All that a training computed and a clock did not, as plain values.

    Args:
        progress: the training's end.
        test: gives :func:`tested` of weights and their digests.
    """
    weights = {"last": progress.last_weights, "best": progress.best_weights, **progress.average_weights}
    digests = {
        which: {name: digest(value.numpy()) for name, value in values.items()}
        for which, values in weights.items()
        if values is not None
    }
    return {
        "status": progress.status,
        "best_epoch": progress.best_epoch,
        "num_parameters": progress.num_parameters,
        "history": [
            {name: value for name, value in epoch.items() if name not in OF_THE_CLOCK}
            for epoch in progress.epochs
        ],
        "final": progress.final,
        "weights": {which: digests.get(which) for which in weights},
        "test": {
            which: None if values is None else test(values, digests[which])
            for which, values in weights.items()
        },
    }


def tested(weights: dict[str, torch.Tensor], settings: dict, data: str, meta: dict) -> dict[str, Any]:
    """What the evaluation on test data computes of these weights."""
    with np.errstate(all="ignore"):  # of a training that diverged
        found = test_weights(settings, meta, read_split(data, "test"), weights)
    return {name: digest(value) if isinstance(value, np.ndarray) else value for name, value in found.items()}


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and bytes."""
    head = f"{array.dtype.str} {array.shape} "
    return hashlib.sha256(head.encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def described(without: Collection[str] = (), only: str = "*") -> dict[str, Any]:
    """The set without what its trainings compute: what a proof's file has, less ``whole`` and ``resumed``.

    Args:
        without: entries to do without, ``part.name`` each; some may be the other tree's alone.
        only: a pattern that the trainings' names must match.

    Raises:
        StudyError: what is not to be used is no entry, or no training is left.
    """
    import lrstudy

    for one in without:
        part, _, entry = one.partition(".")
        if part not in ENTRIES or not entry:
            raise StudyError(
                f"--except: {one!r} is no entry; write <part>.<entry>, such as schedule.cosine, with a part "
                f"of {', '.join(ENTRIES)}."
            )
    every = trainings(without)
    chosen = {name: settings for name, settings in every.items() if fnmatch.fnmatchcase(name, only)}
    if not chosen:
        some = ", ".join(list(every)[:3])
        raise StudyError(
            f"--only: {only!r} is the name of none of the {len(every)} trainings, such as {some}; --list "
            "writes all of them, and * stands for any text."
        )
    return {
        "format": FORMAT,
        "package": str(Path(lrstudy.__file__).resolve().parent),
        "versions": versions(),
        "entries": {part: sorted(names) for part, names in ENTRIES.items()},
        "trainings": {
            name: {"settings": settings, "uses": entries_of(settings), "code": training_code(settings)}
            for name, settings in chosen.items()
        },
    }


def prove(found: dict[str, Any], tell: Callable[[str], None] = lambda line: None) -> None:
    """Add to each training of ``found``, which :func:`described` made, what it computes."""
    with tempfile.TemporaryDirectory(prefix="lrstudy-proof-") as folder:
        data = write_data(Path(folder))
        for number, (name, training) in enumerate(found["trainings"].items(), 1):
            tell(f"{number} of {len(found['trainings'])}: {name}")
            training |= computed(training["settings"], str(data[training["settings"]["dataset"]]))


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lrstudy.proof", description=__doc__)
    parser.add_argument("out", type=Path, help="the JSON file to write")
    parser.add_argument("--list", action="store_true", help="settings and code only: nothing is trained")
    parser.add_argument("--only", default="*", help="a pattern that the trainings' names must match")
    parser.add_argument(
        "--except",
        dest="without",
        action="append",
        default=[],
        help="an entry to do without: schedule.cosine; one that this tree lacks is none of its trainings'",
    )
    asked = parser.parse_args(arguments)
    try:
        found = described(asked.without, asked.only)
        if not asked.list:
            prove(found, lambda line: print(line, flush=True))
        write_json(asked.out, found)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    from lrstudy.process.exits import exit_status

    sys.exit(exit_status(main))
