"""Prove that this working tree trains as another revision does: make prove-equal BASE=<revision>.

A refactoring changes the syntax of the loop, and with it every training's identity, and not one number. Both
source trees run :mod:`lrstudy.proof` on this machine, each in a process of its own. Only where all that they
compute is equal to the bit does the ledger get an equivalence of the codes, by which what the old code
trained is found under the new one. docs/equivalence.md says what is compared and what is not.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from lrstudy.errors import StudyError, unknown
from lrstudy.ledger.equivalence import Equivalence, Pair, Part, read_equivalences, write_equivalence
from lrstudy.ledger.machine import origin_here
from lrstudy.process.exits import Terminated, sigterm_as_exception
from lrstudy.recipe.identity import REGISTRIES, kind_of
from lrstudy.study.workspace import ledger_folder

Proof = dict[str, Any]
"""What :mod:`lrstudy.proof` writes."""

_MODULE = "src/lrstudy/proof.py"
_CHANGED = "+changes"
"""After a revision: with what the working tree had besides."""


# --- The comparison -----------------------------------------------------------------------------------------


@dataclass
class Comparison:
    """Two proofs side by side.

    Attributes:
        total: how many trainings the older proof has.
        differing: training -> what is not equal, in words; empty where nothing differs.
        pairs: the codes of the trainings that were compared, on either side, where they are not the same.
        compared: the names of these trainings.
        new: entries that the older proof does not know, ``part.name``.
        suspects: entries with another code that all the differing trainings use, and not all trainings.
    """

    total: int = 0
    differing: dict[str, str] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    compared: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    suspects: list[str] = field(default_factory=list)


def compare(base: Proof, now: Proof) -> Comparison:
    """What differs between the proofs of two source trees; every training of ``base`` must be in ``now``.

    Proofs without what was computed (``--list``) are compared by settings alone.
    """
    found = Comparison(
        total=len(base["trainings"]),
        new=[name for name in sorted(entries(now)) if name not in entries(base)],
        compared=[name for name in base["trainings"] if name in now["trainings"]],
    )
    pairs: set[tuple[Part, str, str, str]] = set()
    for name, old in base["trainings"].items():
        new = now["trainings"].get(name)
        if new is None:
            found.differing[name] = "is not trained any more"
            continue
        if told := _difference(old, new):
            found.differing[name] = told
        codes: tuple[dict[Part, str], dict[Part, str]] = (old["code"], new["code"])
        for part in codes[0].keys() & codes[1].keys():
            if codes[0][part] != codes[1][part]:
                pairs.add(
                    (cast(Part, kind_of(part)), old["uses"].get(part, part), codes[0][part], codes[1][part])
                )
    found.pairs = [
        Pair(part=part, name=name, old=before, new=after) for part, name, before, after in sorted(pairs)
    ]
    differing = [set(_entries_of(base["trainings"][name])) for name in found.differing]
    everywhere = set.intersection(*(set(_entries_of(one)) for one in base["trainings"].values()))
    changed = {f"{pair.part}.{pair.name}" for pair in found.pairs}
    if differing:
        found.suspects = sorted(set.intersection(*differing) & changed - everywhere)
    return found


def entries(proof: Proof) -> set[str]:
    """The entries of the tree's registries, ``part.name`` each."""
    return {f"{part}.{name}" for part, names in proof["entries"].items() for name in names}


def check_known(without: Collection[str], base: Proof, now: Proof) -> None:
    """StudyError where an entry to leave out is in neither tree."""
    names = entries(base) | entries(now)
    for one in without:
        if one not in names:
            raise unknown("--except", one, names, "an entry of BASE or of the working tree")


def _entries_of(training: dict) -> list[str]:
    return [f"{kind_of(part)}.{name}" for part, name in training["uses"].items()]


def _difference(old: dict, new: dict) -> str | None:
    """What is not equal of one training, in words; None where all is."""
    if told := _differing_values(_flat(old["settings"]), _flat(new["settings"])):
        return f"other settings: {told}"
    if old["code"].keys() != new["code"].keys():
        return f"its code has the parts {', '.join(new['code'])}, in BASE {', '.join(old['code'])}"
    for side, training in (("BASE", old), ("here", new)):
        if "whole" in training and not _same(training["whole"], training["resumed"]):
            what = _difference_of_outcomes(training["whole"], training["resumed"])
            return f"{side}: gone on with from a checkpoint it is not the same as at a stretch: {what}"
    if "whole" in old and not _same(old["whole"], new["whole"]):
        same_code = (
            ""
            if old["code"] != new["code"]
            else (" (by the same code: something decides that its syntax trees don't show)")
        )
        return _difference_of_outcomes(old["whole"], new["whole"]) + same_code
    return None


def _difference_of_outcomes(old: dict, new: dict) -> str:
    for number, (before, after) in enumerate(zip(old["history"], new["history"], strict=False), 1):
        if told := _differing_values(_flat(before), _flat(after)):
            return f"history from epoch {number} on: {told}"
    if len(old["history"]) != len(new["history"]):
        return f"history: {len(old['history'])} epochs in BASE, {len(new['history'])} here"
    for part in ("weights", "test"):
        if not _same(old[part], new[part]):
            before, after = _flat(old[part]), _flat(new[part])
            names = [name for name in before | after if not _same(before.get(name), after.get(name))]
            return f"{part}: {_some(names)}"
    return _differing_values(_flat(old), _flat(new)) or "the order of its values"


def _differing_values(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """The first of the values that differ with what it was and is, and the names of the others."""
    names = [name for name in old | new if not _same(old.get(name, _NOTHING), new.get(name, _NOTHING))]
    if not names:
        return None
    first, *others = names
    was, is_now = (one.get(first, _NOTHING) for one in (old, new))
    more = f"; also {_some(others)}" if others else ""
    return f"{first} {_short(was)} in BASE, {_short(is_now)} here{more}"


_NOTHING = "nothing"


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Every plain value in nested dicts and lists by the way to it: ``steps.lr.0``."""
    inner: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    else:
        return {name: value}
    found: dict[str, Any] = {}
    for key, one in inner:
        found |= _flat(one, f"{name}.{key}" if name else str(key))
    return found


def _same(old: Any, new: Any) -> bool:
    """Whether two values are equal to the bit and of one type: 0.0 is not -0.0, 1 not 1.0, NaN is NaN."""
    return json.dumps(old) == json.dumps(new)


def _short(value: Any) -> str:
    text = value if value is _NOTHING else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _some(names: Collection[str], most: int = 4) -> str:
    shown = list(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


# --- Two trees ----------------------------------------------------------------------------------------------


def git(root: Path, *arguments: str) -> bytes:
    """What git says of the repository.

    Raises:
        StudyError: git is not there, or refuses; its own words.
    """
    try:
        found = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise StudyError("prove-equal: git was not found; install it.") from None
    if found.returncode:
        said = found.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise StudyError(f"prove-equal: git {arguments[0]} in {root}: {said[0]}")
    return found.stdout


def full_revision(root: Path, name: str) -> str:
    """The hash of the commit that ``name`` stands for, which must have the proof.

    Raises:
        StudyError: there is no such commit, or it is older than the proof.
    """
    try:
        revision = (
            git(root, "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}").decode().strip()
        )
    except StudyError as error:
        raise StudyError(
            f"BASE: {name!r} is no revision of {root} ({str(error).partition(': ')[2]}); give a commit, a "
            "branch or a tag, such as HEAD or HEAD~1."
        ) from None
    if not git(root, "ls-tree", revision, "--", _MODULE):
        having = git(root, "log", "--diff-filter=A", "--reverse", "--format=%h %s", "HEAD", "--", _MODULE)
        first = having.decode().splitlines()[:1]
        raise StudyError(
            f"BASE: {name!r} ({revision[:12]}) has no {_MODULE}, by which it would say what it computes; "
            + (f"the first revision that has it: {first[0]}." if first else "commit it first.")
        )
    return revision


def here(root: Path) -> str:
    """The revision of the working tree's code, as an equivalence has it."""
    changed = git(root, "status", "--porcelain", "--", "src")
    return git(root, "rev-parse", "HEAD").decode().strip() + (_CHANGED if changed else "")


def lay_out(root: Path, revision: str, folder: Path) -> None:
    """Both source trees in ``folder``: ``base`` of the revision, ``here`` of the working tree as it is now.

    Copies: what is edited meanwhile plays no part, and git has no worktree to forget.
    """
    with tarfile.open(fileobj=io.BytesIO(git(root, "archive", revision, "--", "src"))) as archive:
        archive.extractall(folder / "base", filter="data")
    shutil.copytree(
        root / "src", folder / "here" / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )


SIDES = ("base", "here")


def run_proofs(folder: Path, *options: str) -> tuple[Proof, Proof]:
    """What the proofs of the two trees in ``folder`` say, side by side in a process each.

    Args:
        folder: see :func:`lay_out`.
        options: of :mod:`lrstudy.proof`.

    Raises:
        StudyError: one of them does not run; its last words.
    """
    running: dict[str, subprocess.Popen] = {}
    try:
        for side in SIDES:
            tree = folder / side
            environment = os.environ | {
                "PYTHONPATH": str(tree / "src"),
                "PYTHONDONTWRITEBYTECODE": "1",
                "TMPDIR": str(folder),  # goes with it, also of a proof that is killed
                "OMP_NUM_THREADS": "1",
                "MKL_NUM_THREADS": "1",
            }
            with (folder / f"{side}.log").open("wb") as log:
                running[side] = subprocess.Popen(
                    [sys.executable, "-m", "lrstudy.proof", str(folder / f"{side}.json"), *options],
                    cwd=tree,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
        for side, process in running.items():
            if process.wait():
                said = (folder / f"{side}.log").read_text("utf-8", "replace").strip().splitlines() or [
                    "nothing"
                ]
                which = "BASE" if side == "base" else "the working tree"
                raise StudyError(
                    f"prove-equal: the proof of {which} ended with status {process.returncode}. Its last "
                    f"words: {said[-1]}"
                )
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
            process.wait()
    base, now = (_read(folder, side) for side in SIDES)
    if base["format"] != now["format"]:
        raise StudyError(
            f"BASE: its proof has format {base['format']}, that of the working tree {now['format']}; prove "
            "the steps before and after that change by themselves."
        )
    return base, now


def _read(folder: Path, side: str) -> Proof:
    proof = json.loads((folder / f"{side}.json").read_text("utf-8"))
    wanted = (folder / side / "src" / "lrstudy").resolve()
    if Path(proof["package"]) != wanted:
        raise RuntimeError(f"the proof ran the code in {proof['package']}, not in {wanted}")
    return proof


# --- The whole ----------------------------------------------------------------------------------------------


def prove_equal(root: Path, name: str, without: Collection[str] = ()) -> bool:
    """Compare the working tree with a revision, and add to the ledger what is proven; says what it finds.

    Args:
        root: the project's folder, in a git repository.
        name: the revision, as git takes it.
        without: entries, ``part.name`` each, that no training is to use: they were changed on purpose.

    Returns:
        Whether all that was compared is equal.

    Raises:
        StudyError: there is nothing to compare, or a proof does not run.
    """
    _check_names(without)
    revision, mine = full_revision(root, name), here(root)
    ledger = ledger_folder(root) / "equivalences"
    known = read_equivalences(ledger)
    with tempfile.TemporaryDirectory(prefix="lrstudy-prove-equal-") as temporary:
        folder = Path(temporary)
        lay_out(root, revision, folder)
        options = [f"--except={one}" for one in without]
        listed = run_proofs(folder, "--list", *options)
        check_known(without, *listed)
        found = compare(*listed)
        if not found.differing:
            # All or none: codes follow a proof as a whole, so that there are no mixtures.
            pairs = [] if all(known.holds(pair) for pair in found.pairs) else found.pairs
            if not pairs:
                _tell_new(found)
                print(
                    f"prove-equal: {name} and the working tree agree already: the {len(found.compared)} "
                    "trainings of the proof have the same identities"
                    + (", some by what the ledger has proven" if found.pairs else "")
                    + ". Nothing was trained or written."
                )
                return True
            started = time.monotonic()
            print(
                f"prove-equal: {_count(pairs)} not the same as in {name}; training {len(found.compared)} "
                "tiny trainings by either",
                flush=True,
            )
            found = compare(*run_proofs(folder, *options))
            print(f"prove-equal: trained in {time.monotonic() - started:.0f} s")
    _tell_new(found)
    if found.differing:
        for line in _refusal(found, name):
            print(line)
        return False
    # What was compared is what was trained: the copies, whatever the working tree is now.
    written = write_equivalence(
        ledger,
        Equivalence(
            format=1,
            pairs=pairs,
            base=revision,
            revision=mine,
            compared={
                "trainings": len(found.compared),
                "of": ["history of every update and epoch", "weights", "logits and scores on test data"],
                "each": "whole, and gone on with from a checkpoint half-way",
                "except": sorted(without),
            },
            origin=origin_here("cpu", mine, time.time()),
        ),
    )
    print(
        f"prove-equal: equal to the bit in {len(found.compared)} trainings, whole and resumed. Proven equal:"
    )
    for pair in pairs:
        print(f"  {_named(pair)}: {pair.old[:12]} = {pair.new[:12]}")
    print(f"prove-equal: written to {written}; commit it together with the change.")
    return True


def _check_names(without: Collection[str]) -> None:
    for one in without:
        part, _, entry = one.partition(".")
        if part not in REGISTRIES or not entry:
            parts = ", ".join(REGISTRIES)
            raise StudyError(
                f"--except: {one!r} is no entry; write <part>.<entry>, such as schedule.cosine, with a part "
                f"of {parts}."
            )


def _tell_new(found: Comparison) -> None:
    if found.new:
        print(f"prove-equal: new here, and in need of no proof: {', '.join(found.new)}")


def _refusal(found: Comparison, name: str) -> Iterator[str]:
    yield (
        f"prove-equal: REFUSED: {len(found.differing)} of {found.total} trainings are not the same as in "
        f"{name}. Nothing was written."
    )
    for training, told in found.differing.items():
        yield f"  {training}: {told}"
    if found.suspects:
        yield (
            "All of them use "
            + " and ".join(found.suspects)
            + ". If that was changed on purpose, prove the rest: "
            "make prove-equal BASE=" + name + " ARGS='--except " + found.suspects[0] + "'"
        )


def _count(pairs: list[Pair]) -> str:
    names = [_named(pair) for pair in pairs]
    return f"{_some(names)} {'is' if len(names) == 1 else 'are'}"


def _named(pair: Pair) -> str:
    return pair.part if pair.part == pair.name else f"{pair.part}.{pair.name}"


def main(arguments: Iterable[str] | None = None) -> int:
    """0: equal; 1: refused; 2: a mistake that the user can fix; 130 and 143: interrupted."""
    parser = argparse.ArgumentParser(prog="python -m lrstudy.prove_equal", description=__doc__)
    parser.add_argument("base", nargs="?", help="the revision to compare with: a commit, a branch, a tag")
    parser.add_argument(
        "--except",
        dest="without",
        action="append",
        default=[],
        metavar="PART.ENTRY",
        help="an entry that was changed on purpose, such as schedule.cosine; nothing is proven of it",
    )
    asked = parser.parse_args(arguments)
    try:
        with sigterm_as_exception():
            if not asked.base:
                raise StudyError(
                    "prove-equal: no revision to compare with; say make prove-equal BASE=<revision>, the "
                    "last one whose trainings are to stay valid, such as BASE=HEAD."
                )
            return 0 if prove_equal(Path.cwd(), asked.base, asked.without) else 1
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print("interrupted; nothing was written", file=sys.stderr)
        return 143 if isinstance(error, Terminated) else 130


if __name__ == "__main__":
    from lrstudy.process.exits import exit_status

    sys.exit(exit_status(main))
