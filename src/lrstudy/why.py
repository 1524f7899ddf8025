"""Which trainings a cell needs, which the ledger has, and why it lacks the others: nothing is trained.

python -m lrstudy.why                  # every cell of params.yaml, a line each
python -m lrstudy.why resnet-cosine    # one cell, and what each missing training differs in
"""

import argparse
import json
import sys
from statistics import median

from lrstudy.entries.meaning import listing
from lrstudy.errors import unknown
from lrstudy.ledger import Ledger, Record
from lrstudy.recipe.config import load_params, workspace_root
from lrstudy.recipe.identity import entries_of, training_definitions
from lrstudy.study.collect import collect
from lrstudy.study.plan import Need, Plan
from lrstudy.study.tasks import told
from lrstudy.study.workspace import ledger_folder
from lrstudy.tracking.journal import flatten


def differences(task: dict, record: Record, ledger: Ledger) -> list[str]:
    """What a training would do otherwise than a recorded one: settings, data, functions, in words."""
    wanted, known = flatten(task["settings"]), flatten(record.settings)
    said = [
        f"{name} {known.get(name, 'not set')} (here {wanted.get(name, 'not set')})"
        for name in [*wanted, *(name for name in known if name not in wanted)]
        if wanted.get(name, None) != known.get(name, None)
    ]
    if record.data.fingerprint != task["described"]["fingerprint"]:
        said.append(
            f"the data: {record.data.label}, {record.data.fingerprint[:12]} (here "
            f"{task['described']['label']}, {task['described']['fingerprint'][:12]})"
        )
    here, there = entries_of(task["settings"]), entries_of(record.settings)
    for part, definitions in training_definitions(task["settings"]).items():
        before = record.code.get(part)
        # Where the settings name another entry, its code is another one anyway.
        if before != task["code"].get(part) and here.get(part) == there.get(part):
            said.append(_code_difference(part, definitions, before, ledger))
    return said


def _code_difference(part: str, definitions: frozenset, before: str | None, ledger: Ledger) -> str:
    now = listing(definitions)
    noted = ledger.noted_code(before or "")
    if noted is None:
        return f"the code of the {part}"
    changed = sorted(name for name in now.keys() & noted.keys() if now[name] != noted[name])
    words = [", ".join(f"`{name}`" for name in changed)] if changed else []
    for names, what in ((now.keys() - noted.keys(), "new: "), (noted.keys() - now.keys(), "gone: ")):
        if names:
            words.append(what + ", ".join(f"`{name}`" for name in sorted(names)))
    return f"the code of the {part} ({'; '.join(words) or 'how its functions refer to each other'})"


def nearest(task: dict, records: list[Record], ledger: Ledger) -> tuple[Record, list[str]] | None:
    """The recorded training that differs least, and in what; None where there is none of this data set."""
    alike = [r for r in records if r.data.dataset == task["described"]["dataset"]]
    if not alike:
        return None
    wanted = flatten(task["settings"]) | {f"code.{part}": meaning for part, meaning in task["code"].items()}

    def distance(record: Record) -> tuple:
        known = flatten(record.settings) | {f"code.{part}": meaning for part, meaning in record.code.items()}
        other_data = record.data.fingerprint != task["described"]["fingerprint"]
        differing = sum(wanted.get(name) != known.get(name) for name in wanted.keys() | known.keys())
        return differing + 3 * other_data, -record.origin.ended

    record = min(alike, key=distance)
    return record, differences(task, record, ledger)


def minutes(needs: list[Need], records: list[Record]) -> float | None:
    """Core-minutes that these trainings take if they cost as much an epoch as the ledger's of their model."""
    total = 0.0
    for need in needs:
        settings = need.task["settings"]
        costs = [
            median(r.numbers("compute_seconds")) * r.settings["threads"]
            for r in records
            if r.settings["model"] == settings["model"]
            and r.settings["training_share"] == settings["training_share"]
            and r.data.fingerprint == need.task["described"]["fingerprint"]
        ]
        if not costs:
            return None
        total += median(costs) * settings["num_epochs"] / 60
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lrstudy.why",
        description="Which trainings a study needs, and which are in its ledger.",
    )
    parser.add_argument("cell", nargs="*", help="<model>-<schedule>; none: every cell of params.yaml")
    parser.add_argument("--json", action="store_true", help="write JSON")
    arguments = parser.parse_args()
    params, root = load_params(), workspace_root()
    for name in arguments.cell:
        if name not in params.cells:
            raise unknown("cell", name, params.cells, "a cell of params.yaml")
    ledger = Ledger(ledger_folder(root))
    records = list(ledger.records())
    found, notes = collect(params, records, root, arguments.cell, to_train=True)
    plans = list(found.values())
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if arguments.json:
        print(json.dumps([_plain(one, records, ledger) for one in plans], indent=1))
        return
    for one in plans:
        print(_line(one))
        if arguments.cell:
            _explain(one, records, ledger)
    every = [need for one in plans for need in one.needs]
    missing = [need for one in plans for need in one.missing]
    cost = minutes(missing, records)
    estimate = ""
    if missing and cost is not None:
        about = f"about {cost:.0f} core-minutes" if cost >= 1 else "less than a core-minute"
        estimate = f", {about} by what the ledger's took"
    waiting = sum(bool(one.waiting) for one in plans)
    print(
        f"trainings needed: {len(every)}; in the ledger: {len(every) - len(missing)}; missing: {len(missing)}"
        f"{estimate}" + (f"; cells that wait for their search: {waiting}" if waiting else "")
    )


def _line(one: Plan) -> str:
    there = len(one.needs) - len(one.missing)
    parts = [f"{there} of {len(one.needs)} in the ledger"]
    if one.missing:
        parts.append("missing: " + ", ".join(need.name for need in one.missing))
    if one.waiting:
        parts.append("then " + one.waiting)
    return f"{one.cell.name:<28} {'; '.join(parts)}"


def _explain(one: Plan, records: list[Record], ledger: Ledger) -> None:
    for need in one.needs:
        if need.record is not None:
            tested = "" if need.record.test or "trial" in need.name else "; not yet measured on test data"
            print(f"  {need.name:<26} {need.record.identity[:12]}  {told(need.record)}{tested}")
            continue
        print(f"  {need.name:<26} missing")
        if (near := nearest(need.task, records, ledger)) is None:
            print("      the ledger has no training on this data set")
        else:
            record, said = near
            print(f"      nearest: {record.identity[:12]} ({record.name}), which differs in")
            for line in said:
                print(f"        {line}")


def _plain(one: Plan, records: list[Record], ledger: Ledger) -> dict:
    def said(need: Need) -> dict:
        known = {"name": need.name, "identity": need.task["key"], "in_ledger": need.record is not None}
        if need.record is None and (near := nearest(need.task, records, ledger)):
            known |= {"nearest": near[0].identity, "differs_in": near[1]}
        return known

    return {"cell": one.cell.name, "trainings": [said(need) for need in one.needs], "waiting": one.waiting}


if __name__ == "__main__":
    from lrstudy.process.command import run_stage

    run_stage(main)
