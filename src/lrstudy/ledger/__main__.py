"""Look into the ledger, check it, join two, hand it to others: python -m lrstudy.ledger --help."""

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lrstudy.errors import StudyError, unknown
from lrstudy.files import write_atomically
from lrstudy.ledger import Ledger, Record, preference, read_code
from lrstudy.ledger.equivalence import read_equivalence
from lrstudy.ledger.record import (
    MAX_BYTES,
    SCORES,
    TEST_PREFIX,
    WEIGHTS,
    DamagedRecord,
    NewerRecord,
    printable,
    read_record,
)
from lrstudy.recipe.config import workspace_root
from lrstudy.recipe.identity import content_hash, training_code
from lrstudy.study.tasks import DESCRIBED
from lrstudy.study.workspace import data_folder, git_revision, ledger_folder
from lrstudy.tracking.journal import flatten
from lrstudy.words import counted

EXAMPLES = """\
examples:
  python -m lrstudy.ledger list --model resnet --schedule cosine --role final
  python -m lrstudy.ledger show 63b07428
  python -m lrstudy.ledger merge ../their-clone --dry-run
  python -m lrstudy.ledger export trainings.parquet
"""

SHORT = 12  # digits of an identity, enough for any ledger that fits a repository
SHOWN_EPOCHS = 20
_DEVICES = ("cpu", "cuda", "mps")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with status 1 where a ledger has files that are no good."""
    options = _parser().parse_args(arguments)
    ledger = _chosen(options.ledger, may_be_new=options.command is merge)
    try:
        good = options.command(ledger, options)
        sys.stdout.flush()
    except BrokenPipeError:  # `list | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if good is False:
        sys.exit(1)


def _chosen(folder: str | None, may_be_new: bool) -> Ledger:
    """The ledger that ``--ledger`` names, or the workspace's.

    Args:
        may_be_new: whether a folder will do that is empty, or is still to be made in one that there is.

    Raises:
        StudyError: the folder is no ledger. To go on would be to say that an empty one is whole.
    """
    usual = ledger_folder(workspace_root())
    if folder == "":
        raise StudyError("--ledger: nothing is given; name the folder of a ledger.")
    found = Path(folder) if folder is not None else usual
    if _is_ledger(found):
        return Ledger(found)
    if not found.is_dir():
        if may_be_new and found.parent.is_dir() and not os.path.lexists(found):
            return Ledger(found)
        raise StudyError(f"{found}: no such folder; --ledger names the folder of a ledger.")
    if found.resolve() != usual.resolve() and not (may_be_new and not any(found.iterdir())):
        near = f" There is one in it: --ledger {found / 'ledger'}." if _is_ledger(found / "ledger") else ""
        raise StudyError(f"{found}: no ledger (a folder with trainings/ or equivalences/).{near}")
    return Ledger(found)


def _is_ledger(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ("trainings", "equivalences"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lrstudy.ledger",
        description="The ledger of finished trainings: docs/ledger.md.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    of_ledger: dict[str, Any] = {"metavar": "FOLDER", "help": "another ledger than the workspace's ledger/"}
    parser.add_argument("--ledger", **of_ledger)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function: Callable, name: str, what: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        added.set_defaults(command=function)
        added.add_argument("--ledger", default=argparse.SUPPRESS, **of_ledger)
        return added

    listing = command(list_trainings, "list", "a line per training")
    add = listing.add_argument
    for name in _FILTERS:
        add(f"--{name}", type=int if name == "seed" else str)
    add("--untested", action="store_true", help="only those that were not measured on test data yet")
    add(
        "--sample",
        action=argparse.BooleanOptionalAction,
        help="only trainings on the sample that comes with the code, or only the others",
    )
    how = listing.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="every column of export, as JSON")
    how.add_argument("--files", action="store_true", help="the files of their records, a line each")

    add = command(show, "show", "all that is known of one training").add_argument
    add("identity", help="its first digits")
    add("--json", action="store_true", help="the record as it is stored")
    add("--csv", action="store_true", help="the history by epoch, every quantity in full precision")

    command(
        verify,
        "verify",
        "read everything and name what is damaged; changes nothing, exit status 1 if anything is",
    )

    add = command(
        merge, "merge", "take what another ledger has and this one lacks; nothing is overwritten"
    ).add_argument
    add("folder", type=Path, help="a ledger, or a repository that has one")
    add("--dry-run", action="store_true", help="say what would be taken, and take nothing")

    add = command(export, "export", "one table for pandas or R").add_argument
    add("file", type=Path, metavar="FILE.parquet|FILE.csv")
    add("--history", action="store_true", help="a row per training and epoch instead of one per training")

    add = command(retrain, "retrain", "train again what is recorded, for its weights").add_argument
    add("identity", nargs="+", help="the training's first digits")
    return parser


# --- list ---------------------------------------------------------------------------------------------------

_FILTERS: dict[str, Callable[[Record], Any]] = {
    "model": lambda record: record.labels.model,
    "schedule": lambda record: record.labels.schedule,
    "role": lambda record: record.labels.role,
    "dataset": lambda record: record.data.dataset,
    "seed": lambda record: record.settings["seed"],
    "device": lambda record: record.device,
    "dtype": lambda record: record.dtype,
    "machine": lambda record: record.origin.machine,
    "status": lambda record: record.status,
}

_COLUMNS: dict[str, Callable[[Record], Any]] = {
    "identity": lambda record: record.identity[:SHORT],
    **{name: _FILTERS[name] for name in ("model", "schedule", "role", "seed")},
    "epochs": lambda record: len(record.history["epoch"]),
    "status": _FILTERS["status"],
    "val. loss": lambda record: _number(record.history["validation/loss"][-1]),
    "test acc.": lambda record: _number(record.test.last.accuracy if record.test else None),
    "test macro F1": lambda record: _number(record.test.last.f1_macro if record.test else None),
    **{name: _FILTERS[name] for name in ("device", "dtype", "machine")},
    "date": lambda record: _date(record)[:10],
}


def list_trainings(ledger: Ledger, options: argparse.Namespace) -> None:
    """Print a line per training that the filters let pass, then how many there are."""
    every = sorted(ledger.records(), key=_order)
    chosen = every
    for name, value in _FILTERS.items():
        wanted = getattr(options, name)
        if wanted is not None:
            there = {value(record) for record in every}
            if wanted not in there:
                raise unknown(f"list --{name}", wanted, map(str, there), f"a {name} of {ledger.folder}")
            chosen = [record for record in chosen if value(record) == wanted]
    if options.untested:
        chosen = [record for record in chosen if record.test is None]
    if options.sample is not None:
        chosen = [record for record in chosen if _is_of_the_sample(record) is options.sample]
    if options.files:
        for record in chosen:
            for path in ledger.files(record.identity):
                print(path)
        return
    if options.json:
        print(json.dumps([_row(record) for record in chosen], indent=1, ensure_ascii=False))
        return
    if chosen:
        print(_table(list(_COLUMNS), [[column(record) for column in _COLUMNS.values()] for record in chosen]))
    size = sum(path.lstat().st_size for path in ledger.folder.rglob("*") if path.is_file())
    of = "" if len(chosen) == len(every) else f" of {len(every)}"
    trainings = f"{len(chosen)}{of} trainings" if of else counted(len(chosen), "training")
    print(f"{trainings}; {_bytes(size)} in {ledger.folder}")


def _is_of_the_sample(record: Record) -> bool:
    """Whether its data's label says so, as :mod:`lrstudy.data.sources` writes it."""
    return "(sample)" in record.data.label


def _order(record: Record) -> tuple:
    labels = record.labels
    return labels.model, labels.schedule, labels.role, record.settings["seed"], record.origin.ended


def _table(header: list[str], rows: list[list[Any]]) -> str:
    """Columns under their names, numbers to the right."""
    texts = [[printable("-" if value is None else value, 60) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    right = [all(_is_number(row[index]) for row in texts) for index in range(len(header))]
    lines = (
        "  ".join(
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in [header, *texts]
    )
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == "-"
    return True


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _date(record: Record) -> str:
    """When the training ended, by ISO 8601, in UTC."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.origin.ended))
    except (ValueError, OverflowError, OSError):
        return "-"  # no time that a calendar has


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


# --- show ---------------------------------------------------------------------------------------------------


def show(ledger: Ledger, options: argparse.Namespace) -> None:
    """Print all that is known of one training."""
    records = _records(ledger, options.identity)
    record = records[0]
    if options.json:
        print(json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True))
        return
    if options.csv:
        print(_frame(_history_rows(record)).to_csv(index=False), end="")
        return
    print(f"{record.identity}  {printable(record.name)} ({record.labels.role})")
    if len(records) > 1:
        print(
            f"{len(records)} records of it; this is the one that counts: measured on test data before not, "
            "final before trial, then the oldest."
        )
    print(f"\n{record.status} after {counted(len(record.history['epoch']), 'epoch')}, {_date(record)}")
    _section("settings", flatten(record.settings))
    _section("data", flatten(record.data.model_dump()))
    _section("origin", flatten(record.origin.model_dump(exclude={"ended"})))
    _section("code (SHA-256 of its meaning)", record.code)
    _section("weights (SHA-256)", dict(record.weights.items()) or {"-": "not kept"})
    print("\ntest")
    if record.test is None:
        print("  not measured on test data yet")
    else:
        scores = [
            [f"  {weights}", *(_number(getattr(getattr(record.test, weights), name)) for name in SCORES)]
            for weights in WEIGHTS
        ]
        print(_table(["  weights", *SCORES], scores))
        print(
            f"  of {counted(record.test.num_examples, 'example')}; last: after the last epoch, best: of the "
            "lowest validation loss, ema and tail_average: averaged over updates"
        )
    if record.final:
        _section("at the end", {name: _shown(value) for name, value in record.final.items()})
    epochs = _some_epochs(record)
    names = [name for name in _SHOWN_IN_HISTORY if name in record.history]
    print(f"\nhistory{_left_out(record, epochs)}")
    rows = [[_shown(record.history[name][epoch]) for name in names] for epoch in epochs]
    print(_table([f"  {names[0]}", *names[1:]], [[f"  {row[0]}", *row[1:]] for row in rows]))
    if record.interventions:
        there = counted(len(record.interventions), "intervention")
        print(f"\nThe controller made {there}; --json has all of them.")


_SHOWN_IN_HISTORY = (
    "epoch", "lr", "train/loss", "train/accuracy", "validation/loss", "validation/accuracy", "validation/f1",
)  # fmt: skip


def _section(title: str, values: dict[str, Any]) -> None:
    print(f"\n{title}")
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        print(f"  {printable(name).ljust(min(width, 40))}  {'-' if value is None else printable(value)}")


def _some_epochs(record: Record) -> list[int]:
    """Which epochs (from 0) ``show`` prints: all, or the first, the last, the best and some between."""
    count = len(record.history["epoch"])
    if count <= SHOWN_EPOCHS:
        return list(range(count))
    between = (round(index * (count - 1) / (SHOWN_EPOCHS - 2)) for index in range(SHOWN_EPOCHS - 1))
    return sorted({*between, max(record.best_epoch - 1, 0)})


def _left_out(record: Record, epochs: list[int]) -> str:
    count = len(record.history["epoch"])
    some = "" if len(epochs) == count else f"{len(epochs)} of {count} epochs; "
    return f" ({some}--csv has all of it)"


def _shown(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _records(ledger: Ledger, prefix: str) -> list[Record]:
    """The records of the training whose identity begins so, the preferred first.

    Raises:
        StudyError: there is none, there are several trainings, or no record of it can be read.
    """
    if not prefix or len(prefix) > 64 or not set(prefix) <= set("0123456789abcdef"):
        raise StudyError(
            f"{prefix!r}: not the first digits of an identity (0-9, a-f, at most 64); "
            "`python -m lrstudy.ledger list` shows them."
        )
    paths = [path for path in ledger.paths() if path.name.startswith(prefix)]
    identities = sorted({path.name[:64] for path in paths})
    if not identities:
        raise StudyError(
            f"{ledger.folder}: no training whose identity begins with {prefix}; "
            "`python -m lrstudy.ledger list` shows which there are."
        )
    if len(identities) > 1:
        some = ", ".join(identity[:SHORT] for identity in identities[:5])
        raise StudyError(
            f"{ledger.folder}: {len(identities)} trainings begin with {prefix}: {some}; give more digits."
        )
    found, left_out = [], None
    for path in paths:
        try:
            found.append(ledger.read(path))
        except (DamagedRecord, NewerRecord) as error:
            left_out = error
            print(f"ledger: left out: {error}", file=sys.stderr)
    if not found:
        raise StudyError(f"{left_out} There is no other record of this training.")
    return sorted(found, key=preference)


# --- verify -------------------------------------------------------------------------------------------------


def verify(ledger: Ledger, options: argparse.Namespace) -> bool:
    """Print a line for everything in the ledger that is not as it should be; returns whether all is."""
    good: dict[Path, Record] = {}
    problems: dict[Path, str] = {}
    for path in ledger.paths():
        _check(problems, path, lambda path: good.__setitem__(path, ledger.read(path)))
    listings = _check_files(problems, ledger.folder / "code", read_code)
    equivalences = _check_files(problems, ledger.folder / "equivalences", read_equivalence)
    for path, twin in _twins(good, problems):
        problems[path] = (
            f"{printable(path, 4096)}: the same record as {twin}, under another name; remove this one."
        )
    for path in sorted(problems):
        print(problems[path])
    for note in [*_notes(good), *_without_listing(ledger, good.values())]:
        print(f"note: {note}")
    for path in ledger.unfinished():
        print(
            f"note: {printable(path, 4096)}: half a file, of a process that is writing it or was killed; if "
            "none is running, remove it"
        )
    aside = ledger.folder / "set-aside"
    if aside.is_dir() and (count := len(list(aside.iterdir()))):
        was = "was" if count == 1 else "were"
        print(
            f"note: {aside}: {counted(count, 'file')} that {was} set aside earlier; nothing reads this folder"
        )
    trainings = len({record.identity for record in good.values()})
    print(
        f"{ledger.folder}: in good order: {counted(len(good), 'record')} of "
        f"{counted(trainings, 'training')}, "
        f"{counted(listings, 'code listing')} and {counted(equivalences, 'equivalence')}; "
        f"{counted(len(problems), 'problem') if problems else 'no problems'}"
    )
    return not problems


def _check(problems: dict[Path, str], path: Path, read: Callable[[Path], object]) -> bool:
    try:
        read(path)
    except StudyError as error:
        problems[path] = str(error)
    except OSError as error:
        problems[path] = f"{printable(path, 4096)}: cannot be read ({error.strerror})."
    return path not in problems


def _check_files(problems: dict[Path, str], folder: Path, read: Callable[[Path], object]) -> int:
    """Check every file in ``folder``; returns how many are whole."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return sum(_check(problems, path, read) for path in paths if not path.name.startswith("."))


def _twins(good: dict[Path, Record], problems: dict[Path, str]) -> Iterator[tuple[Path, Path]]:
    """The files among the damaged that are to the byte one that is whole."""
    by_content = {_sha256(path): path for path in good}
    for path in problems:
        if not path.is_symlink() and path.is_file() and path.stat().st_size <= MAX_BYTES:
            try:
                twin = by_content.get(_sha256(path))
            except OSError:
                continue  # said already
            if twin is not None:
                yield path, twin


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _notes(good: dict[Path, Record]) -> Iterator[str]:
    """What is no damage: trainings done or measured more than once, records that say less than another."""
    by_identity: dict[str, list[tuple[Path, Record]]] = {}
    for path, record in good.items():
        by_identity.setdefault(record.identity, []).append((path, record))
    for found in by_identity.values():
        trained = []
        for path, record in found:
            fuller = next((p for p, other in found if other != record and other.says_all_of(record)), None)
            if fuller is None:
                trained.append(record)
            else:
                yield f"{path}: says less than {fuller.name} of the same training and may be removed"
        # What ended at one time with one history was trained once, whatever was found out of it afterwards.
        once = {(record.origin.model_dump_json(), json.dumps(record.history)): record for record in trained}
        who = f"{trained[0].identity[:SHORT]} {trained[0].name}"
        if len(once) > 1:
            machines = ", ".join(sorted({printable(record.origin.machine) for record in once.values()}))
            yield (
                f"{who}: trained {_times(len(once))}, on {machines}; validation losses differ by up to "
                f"{_largest_difference(list(once.values())):.2g}"
            )
        tests = {record.test.model_dump_json() for record in trained if record.test is not None}
        if len(trained) > len(once) and len(tests) > 1:
            losses = [r.test.last.loss for r in trained if r.test and r.test.last.loss is not None]
            apart = f"; test losses differ by up to {max(losses) - min(losses):.2g}" if losses else ""
            yield f"{who}: measured {_times(len(trained) - len(once) + 1)}{apart}"
        elif len(trained) > len(once):
            yield f"{who}: recorded {_times(len(trained))}, with other labels or weights"
    chosen = (min((record for _, record in found), key=preference) for found in by_identity.values())
    untested = sum(record.labels.role == "final" and record.test is None for record in chosen)
    if untested:
        have = "has" if untested == 1 else "have"
        yield (
            f"{counted(untested, 'final training')} {have} no test results: "
            "`python -m lrstudy.ledger list --untested --role final`"
        )


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"


def _largest_difference(records: list[Record]) -> float:
    """Between any two of the validation losses of one epoch, where there are numbers."""
    by_epoch = zip(*(record.history["validation/loss"] for record in records), strict=False)
    there = [[value for value in losses if value is not None] for losses in by_epoch]
    return max((max(losses) - min(losses) for losses in there if losses), default=0.0)


def _without_listing(ledger: Ledger, records: Iterable[Record]) -> Iterator[str]:
    lacking = {meaning for record in records for meaning in record.code.values()}
    lacking = {meaning for meaning in lacking if not (ledger.folder / "code" / f"{meaning}.json").exists()}
    if lacking:
        yield (
            f"{ledger.folder / 'code'}: no listing of {counted(len(lacking), 'part')} of the code that "
            "records name; it cannot be told later which function differs"
        )


# --- merge --------------------------------------------------------------------------------------------------


def merge(ledger: Ledger, options: argparse.Namespace) -> bool:
    """Take what the other ledger has and this one lacks; returns whether all of it could be read."""
    other = Ledger(_ledger_in(options.folder))
    if other.folder.resolve() == ledger.folder.resolve():
        raise StudyError(f"{options.folder}: this is the ledger to merge into; give another one.")
    problems: dict[Path, str] = {}
    taken = {"record": 0, "fuller record": 0, "code listing": 0, "equivalence": 0}
    for path in other.paths():

        def take(path: Path) -> None:
            record = other.read(path)
            try:
                here = _readable_here(ledger, record.identity)
            except NewerRecord as error:
                raise StudyError(f"{path}: this ledger has a newer record of it: {error}") from None
            if any(known.says_all_of(record) for known in here):
                return
            taken["fuller record" if any(record.says_all_of(known) for known in here) else "record"] += 1
            if not options.dry_run:
                ledger.add(record)

        _check(problems, path, take)
    for kind, folder, read in (
        ("code listing", "code", read_code),
        ("equivalence", "equivalences", read_equivalence),
    ):

        def copy(path: Path, kind: str = kind, folder: str = folder, read: Callable = read) -> None:
            read(path)
            target = ledger.folder / folder / path.name
            if not os.path.lexists(target):
                taken[kind] += 1
                if not options.dry_run:
                    write_atomically(target, path.read_bytes())

        _check_files(problems, other.folder / folder, copy)
    for path in sorted(problems):
        print(f"not taken: {problems[path]}")
    would = "would be taken" if options.dry_run else "taken"
    counts = ", ".join(counted(count, kind) for kind, count in taken.items())
    left = f"{counted(len(problems), 'file')} left there" if problems else "nothing left there"
    print(f"{would} from {other.folder}: {counts}; {left}")
    return not problems


def _ledger_in(folder: Path) -> Path:
    for found in (folder, folder / "ledger"):
        if _is_ledger(found):
            return found
    raise StudyError(
        f"{folder}: no ledger (a folder with trainings/ or equivalences/), and no ledger/ in it that is one."
    )


def _readable_here(ledger: Ledger, identity: str) -> list[Record]:
    """The training's records; damaged ones are left to :meth:`Ledger.add`.

    Raises:
        NewerRecord: one of them cannot be read by this version.
    """
    found = []
    for path in ledger.files(identity):
        try:
            found.append(read_record(path))
        except DamagedRecord:
            continue
    return found


# --- export -------------------------------------------------------------------------------------------------


def export(ledger: Ledger, options: argparse.Namespace) -> None:
    """Write one table of all trainings, or of all their epochs."""
    kind = options.file.suffix
    if kind not in (".parquet", ".csv"):
        raise StudyError(
            f"{options.file}: ends with {kind or 'nothing'}; choose a name that ends with .parquet or .csv."
        )
    _check_target(options.file)
    records = sorted(ledger.records(), key=_order)
    if not records:
        raise StudyError(f"{ledger.folder}: no trainings to export.")
    if options.history:
        table = _frame(row for record in records for row in _history_rows(record))
    else:
        table = _frame(map(_row, records))
    if kind == ".csv":
        for name in table.select_dtypes(exclude=["number", "bool"]).columns:
            table[name] = table[name].map(_no_formula)
    try:
        if kind == ".parquet":
            write_atomically(options.file, lambda file: table.to_parquet(file, index=False))
        else:
            write_atomically(options.file, table.to_csv(index=False))
    except OSError as error:
        raise _no_target(options.file, error) from error
    rows, columns = counted(len(table), "row"), counted(len(table.columns), "column")
    print(f"wrote {options.file}: {rows}, {columns}")


def _check_target(file: Path) -> None:
    """StudyError where a file cannot be: it is known before everything was read."""
    try:
        if file.is_dir():
            raise StudyError(f"{file}: a folder; name a file in it, such as {file / 'trainings.parquet'}.")
        if not file.parent.is_dir():
            raise StudyError(f"{file}: there is no folder {file.parent}; make it, or name another file.")
    except OSError as error:
        raise _no_target(file, error) from error


def _no_target(file: Path, error: OSError) -> StudyError:
    return StudyError(f"{file}: cannot be written ({error.strerror}); fix that, or name another file.")


def _row(record: Record) -> dict[str, Any]:
    """A training as a row: plain values by column."""
    first = {
        "identity": record.identity,
        "cell": cell_of(record),
        **record.labels.model_dump(),
        "dataset": record.data.dataset,
        "seed": _FILTERS["seed"](record),
        "device": record.device,
        "dtype": record.dtype,
        "status": record.status,
        "epochs": len(record.history["epoch"]),
        "best_epoch": record.best_epoch,
        "num_parameters": record.num_parameters,
        "interventions": len(record.interventions),
        "compute_seconds": math.fsum(value or 0 for value in record.history.get("compute_seconds", [])),
        "ended": _date(record),
    }
    rest = {
        **flatten(record.settings, "settings."),
        **flatten(record.data.model_dump(), "data."),
        **flatten(record.origin.model_dump(exclude={"ended"}), "origin."),
        **{f"code.{part}": meaning for part, meaning in record.code.items()},
    }
    last = {name: series[-1] for name, series in record.history.items() if name not in _NOT_LAST}
    test = {
        f"{prefix}/{name}": record.test and getattr(getattr(record.test, weights), name)
        for weights, prefix in TEST_PREFIX.items()
        for name in SCORES
    }
    known = last | record.final | rest
    row = first | {name: value for name, value in known.items() if name not in first} | test
    return {name: _scalar(value) for name, value in row.items()}


_NOT_LAST = ("epoch", "seconds", "compute_seconds", "time")


def cell_of(record: Record) -> str:
    """12 digits that trainings share which differ in the seed alone, or in the device and its dtype."""
    settings = {
        name: value for name, value in record.settings.items() if name not in ("seed", "device", "precision")
    }
    return content_hash([settings, record.data.fingerprint, record.code])[:SHORT]


def _history_rows(record: Record) -> Iterator[dict[str, Any]]:
    first = {name: value for name, value in _row(record).items() if name in _OF_A_HISTORY}
    for values in zip(*record.history.values(), strict=True):
        yield dict(zip(record.history, values, strict=True)) | first


_OF_A_HISTORY = ("identity", "cell", "model", "schedule", "role", "dataset", "seed", "device", "dtype")


def _scalar(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _frame(rows: Iterable[dict[str, Any]]) -> Any:
    """A DataFrame whose columns have one type each: where texts and numbers meet, all are texts."""
    import pandas as pd

    table = pd.DataFrame(list(rows))
    first = [name for name in _OF_A_HISTORY if name in table.columns]
    table = table[first + [name for name in table.columns if name not in first]]
    for name in [name for name, kind in table.dtypes.items() if kind == "object"]:
        kinds = {type(value) for value in table[name] if value is not None and value == value}
        if len(kinds) > 1 or kinds <= {int}:  # whole numbers alone are none that 64 bits hold
            table[name] = [None if value is None or value != value else str(value) for value in table[name]]
    return table


def _no_formula(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula, as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


# --- retrain ------------------------------------------------------------------------------------------------


def retrain(ledger: Ledger, options: argparse.Namespace) -> None:
    """Train these again for their weights, though they are recorded; say whether the numbers are the same."""
    from lrstudy.process.parallel import run_all
    from lrstudy.study.runs import find_weights, train_run

    root = workspace_root()
    tasks = []
    for prefix in options.identity:
        record = _records(ledger, prefix)[0]
        task = retraining_task(record, ledger, root)
        if (found := find_weights(task, Path(task["folder"]))) is not None:
            print(f"{printable(record.name)}: its weights are in {found[0]}")
        elif task not in tasks:
            tasks.append(task)
    for device in sorted({task["settings"]["device"] for task in tasks}):
        of_device = [task for task in tasks if task["settings"]["device"] == device]
        threads = max(task["settings"].get("threads", 1) for task in of_device)
        for folder in run_all(train_run, of_device, threads, device):
            print(f"weights: {folder}")
    cells = sorted({f"{task['labels']['model']}-{task['labels']['schedule']}" for task in tasks})
    for cell in cells:
        print(f"`dvc repro --force -s train@{cell}` brings them to artifacts/train")


def retraining_task(record: Record, ledger: Ledger, root: Path) -> dict:
    """The task of :func:`lrstudy.study.runs.train_run` that does a recorded training again, in ``root``.

    Raises:
        StudyError: what it would train here is not that training: other data, other code, no such device.
    """
    from lrstudy.data import read_meta
    from lrstudy.study.runs import run_folder

    who = f"{record.identity[:SHORT]} {printable(record.name)}"
    folder = root / data_folder(record.data.dataset)
    meta = read_meta(folder)
    if meta["fingerprint"] != record.data.fingerprint:
        raise StudyError(
            f"{folder}: {printable(meta.get('label'))}, fingerprint {printable(meta['fingerprint'], 16)}; "
            f"{who} was trained on {printable(record.data.label)}, fingerprint "
            f"{printable(record.data.fingerprint, 16)}. Prepare these data with "
            f"`dvc repro preprocess@{record.data.dataset}`, then run it again."
        )
    try:
        code = training_code(record.settings)
    except (KeyError, TypeError, StudyError) as error:
        raise StudyError(
            f"{who}: this version of the code lacks something that it used ({printable(error)})."
        ) from None
    identities = ledger.identities(record.settings, record.data.fingerprint, code)
    if record.identity not in identities:
        changed = [part for part in sorted({*code, *record.code}) if code.get(part) != record.code.get(part)]
        raise StudyError(
            f"{who}: the code that it used has changed since ({', '.join(map(printable, changed))}), so this "
            "would be another training; check out the revision "
            f"{printable(record.origin.revision) or '(not recorded)'} and retrain there."
        )
    _need_device(record.device, who)
    return {
        "folder": str(run_folder(root, f"{record.labels.model}-{record.labels.schedule}", identities[0])),
        "key": identities[0],
        "identities": identities,
        "label": record.name,
        "settings": record.settings,
        "code": ledger.canonical(code),
        "data": str(folder),
        "described": {key: meta[key] for key in DESCRIBED},
        "labels": record.labels.model_dump(),
        "ledger": str(ledger.folder.resolve()),
        "revision": git_revision(),
        "keep_weights": True,
        "journal": False,
        "again": True,
    }


def _need_device(device: str, who: str) -> None:
    from lrstudy.training.devices import choose_device

    try:
        if device not in _DEVICES:
            raise StudyError(f"{printable(device)!r} is none of {', '.join(_DEVICES)}")
        choose_device(device)
    except StudyError:
        raise StudyError(
            f"{who}: trained on {printable(device)}, which is not here; retrain it where it is."
        ) from None


if __name__ == "__main__":
    from lrstudy.process.command import run_stage

    run_stage(main)
