"""How often is a verdict wrong, and is the power what the design said? (make bench-verdicts)

    python benchmarks/verdicts.py                      # the study of params.yaml
    python benchmarks/verdicts.py -S preset=cpu        # another one, composed from conf/
    python benchmarks/verdicts.py --studies 100 --resume

Studies are simulated in which the truth is known, and judged by what judges the study: ``compare`` and
``claims``, whole. Each has the models, rows, seeds and looks of params.yaml, and in place of trainings

* a test metric with a part that all rows of a seed share, and a part of its own: the spread of the paired
  differences is the one that the design takes for granted (``lrstudy.design.GUESSED_SPREAD``);
* a validation loss that follows the test metric over the seeds, with a correlation drawn for each model from
  -0.9 to -0.2, as in the study of 73cd819, and a test loss likewise;
* normal or heavy tails (Student's t with 3 degrees of freedom), all parts alike.

Where there is an effect, every row whose rate moves is better by it than static, its averages and static with
a monitor, in every model; the monitor's test loss is lower by 0.5, 1 or 2 spreads. No validation loss moves
with it, so what validation chooses is luck, which is the worst case for what it chose.

Results: benchmarks/results/verdicts.json and .md, and the same table in docs/verdicts.md.
"""

import argparse
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lrstudy.analysis.cells import AVERAGED
from lrstudy.analysis.claim_specs import ClaimSpec, Paired
from lrstudy.analysis.claims import claims
from lrstudy.analysis.comparison import compare
from lrstudy.analysis.records import Claim, Protocol, Results
from lrstudy.analysis.time_to_target import time_to_target
from lrstudy.compose import compose
from lrstudy.design import EFFECTS, GUESSED_SPREAD, SPREADS, PlannedClaim, claims_of, power
from lrstudy.errors import StudyError
from lrstudy.files import write_atomically, write_json
from lrstudy.ledger.record import ALWAYS_IN_FINAL, WEIGHTS, Data, Origin, Scores
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import Params, load_params
from lrstudy.recipe.identity import content_hash
from lrstudy.schedules import make_schedule
from lrstudy.study.collect import MeasuredCell, MeasuredSeed

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/verdicts.json"
WORK = ROOT / "benchmarks/results/.verdicts.jsonl"  # a line a study, of a run that has not ended
DOCUMENT = ROOT / "docs/verdicts.md"
MARK = "<!-- from benchmarks/results/verdicts.json: scenarios -->"

SHARED = 0.5
"""Of a metric's variance over seeds, what a seed's rows share. So the paired spread is the spread itself."""

CORRELATION = (-0.9, -0.2)
"""Of test metric and validation loss over seeds: that of the twelve cells of 73cd819 was -0.93 to -0.30."""

LOSS_SPREAD = 0.015
SPREAD = {"cifar10": GUESSED_SPREAD["image"], "imdb": GUESSED_SPREAD["text"]}
LEVELS = {"cifar10": 0.75, "imdb": 0.86}
EXAMPLES = {"cifar10": 10_000, "imdb": 25_000}
TAILS = ("normal", "t3")


@dataclass(frozen=True)
class Scenario:
    """What is true in simulated studies: the effect (0: none, else its place in EFFECTS from 1), tails."""

    effect: int
    tails: str
    studies: int

    @property
    def size(self) -> float:
        """Of the headline metric."""
        return EFFECTS[self.effect - 1] if self.effect else 0.0

    @property
    def in_spreads(self) -> float:
        """Of the test loss."""
        return SPREADS[self.effect - 1] if self.effect else 0.0


@cache
def read(text: str) -> tuple[Params, list[PlannedClaim]]:
    """The settings that a worker was sent, and the claims that are simulated."""
    params = Params.model_validate_json(text)
    return params, simulated_claims(params)


class Template(NamedTuple):
    """A cell of which all trainings are alike, whether its rate moves, and the epochs of one training."""

    cell: MeasuredCell
    moves: bool
    epochs: list[dict[str, float]]


@cache
def template(text: str) -> dict[str, dict[str, Template]]:
    """The cells of a study, all trainings alike."""
    params, _ = read(text)
    templates: dict[str, dict[str, Template]] = {}
    for listed in params.cells.values():
        cell = make_cell(params, listed.model, listed.schedule)
        settings = cell.settings()
        chosen = settings["schedule"]
        rate = make_schedule(
            chosen["function"],
            cell.num_epochs,
            warmup_epochs=chosen["warmup_epochs"],
            granularity=chosen["granularity"],
            **chosen["parameters"],
        )
        base_lr = settings["optimizer"]["base_lr"]
        epochs = [
            {
                "epoch": float(epoch),
                "train/loss": 1.0,
                "train/accuracy": 0.8,
                "validation/loss": 1.0,
                "validation/loss_standard_error": 0.01,
                "validation/accuracy": 0.8,
                "validation/f1": 0.8,
                "validation/f1_macro": 0.8,
                "lr": base_lr * rate(float(epoch)),
            }
            for epoch in range(1, cell.num_epochs + 1)
        ]
        run = MeasuredSeed(
            identity="",
            search=1,
            values={},
            base_lr=base_lr,
            parameters=chosen["parameters"],
            status="finished",
            best_epoch=cell.num_epochs,
            # a monitor that never acts would be no test of monitoring
            interventions=[{"epoch": 1}] if settings["controller"]["name"] == "validation_monitor" else [],
            compute_seconds=[1.0] * cell.num_epochs,
            final=dict.fromkeys(ALWAYS_IN_FINAL, 0.8),
            device="cpu",
            dtype="float32",
            origin=Origin(
                machine="simulated",
                processor="none",
                cores=1,
                system="none",
                accelerator=None,
                versions={},
                revision="",
                ended=0.0,
            ),
            scores={},
        )
        templates.setdefault(cell.model_name, {})[cell.schedule_name] = Template(
            MeasuredCell(
                model=cell.model_name,
                schedule=cell.schedule_name,
                data=_data(cell.dataset),
                dataset=cell.dataset,
                headline=params.dataset[cell.dataset].metric,
                tuned="defaults",
                settings=settings,
                seeds=dict.fromkeys(map(str, params.train.seeds), run),
                history=[],
                tuning={"source": "defaults"},
            ),
            cell.moves(),
            epochs,
        )
    return templates


def _data(dataset: str) -> Data:
    examples = dict.fromkeys(("train", "validation", "test"), EXAMPLES[dataset])
    return Data(dataset=dataset, label=dataset, official=False, fingerprint="", num_examples=examples)


def simulate(text: str, scenario: Scenario, number: int) -> dict[str, dict[str, MeasuredCell]]:
    """The cells of simulated study ``number`` of a scenario."""
    rng = np.random.default_rng([number, scenario.effect, TAILS.index(scenario.tails)])

    def noise(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) if scenario.tails == "normal" else rng.standard_t(3, shape) / 3**0.5

    simulated: dict[str, dict[str, MeasuredCell]] = {}
    for model, schedules in template(text).items():
        simulated[model] = {}
        seeds = list(next(iter(schedules.values())).cell.seeds)
        correlation = rng.uniform(*CORRELATION)
        shared = noise(len(seeds))
        for name, (cell, moves, epochs) in schedules.items():
            spread = SPREAD[cell.dataset]

            def following(metric: np.ndarray, correlation: float = correlation) -> np.ndarray:
                return correlation * metric + math.sqrt(1 - correlation**2) * noise(len(metric))

            own = noise(len(seeds))
            metric = math.sqrt(SHARED) * shared + math.sqrt(1 - SHARED) * own
            # Of a training's averages: what the seeds share, and half of the training's own luck.
            averaged = math.sqrt(SHARED) * shared + math.sqrt((1 - SHARED) / 2) * (own + noise(len(seeds)))
            effect = scenario.size if moves else 0.0
            losses, test_losses = following(metric), following(metric)
            if cell.settings["controller"]["name"] == "validation_monitor":
                # of a paired difference, whose two parts of the test loss are
                paired = math.sqrt(2 * (1 - SHARED) * correlation**2 + 2 * (1 - correlation**2))
                test_losses = test_losses - scenario.in_spreads * paired
            runs, history = {}, []
            for place, seed in enumerate(seeds):
                values = {"last": metric[place], AVERAGED: averaged[place]}
                scores = {
                    weights: _scores(
                        LEVELS[cell.dataset] + effect + spread * values.get(weights, metric[place]),
                        0.6 + LOSS_SPREAD * float(test_losses[place]),
                        EXAMPLES[cell.dataset],
                    )
                    for weights in WEIGHTS
                }
                runs[seed] = replace(cell.seeds[seed], scores=scores)
                *before, last = ({**epoch, "seed": float(seed)} for epoch in epochs)
                history += [*before, last | {"validation/loss": 0.6 + LOSS_SPREAD * float(losses[place])}]
            simulated[model][name] = replace(cell, seeds=runs, history=history)
    return simulated


def _scores(metric: float, loss: float, count: int) -> Scores:
    share = float(np.clip(round(metric * count) / count, 0.0, 1.0))
    # Without the confusion that such scores would have.
    return Scores.model_construct(accuracy=share, f1=share, f1_macro=share, loss=loss, confusion=None)


def judged(text: str, cells: dict[str, dict[str, MeasuredCell]]) -> tuple[Results, list[Claim]]:
    """What is compared of the cells, as the compare stage puts it together, and the claims' verdicts."""
    params, _ = read(text)
    datasets = {listed.dataset: None for listed in params.cells.values()}
    compared = compare(cells, params.compare)
    results = Results(
        data={name: _data(name) for name in datasets},
        references={},
        protocol=Protocol(
            preset=params.preset,
            source=params.data.source,
            seeds=params.train.seeds,
            num_trials=0,
            finalists=0,
            searches=1,
            tune_seeds=[],
            confirm_seeds=[],
            **params.compare.model_dump(),
            planned_seeds=len(params.train.seeds),
            headline={name: params.dataset[name].metric for name in datasets},
        ),
        progress={},
        missing=[],
        timing={},
        time_to_target=time_to_target(cells, compared.cells, params.compare),
        **compared._asdict(),
    )
    return results, claims(results, [])


def simulated_claims(params: Params) -> list[PlannedClaim]:
    """The claims that the simulated seeds can decide; times are not simulated."""
    return [claim for claim in claims_of(params) if claim.decidable]


def outcome(text: str, scenario: Scenario, number: int) -> dict:
    """What came of one simulated study: by claim the verdict, and the models whose test by itself decides."""
    results, claims_judged = judged(text, simulate(text, scenario, number))
    level = results.protocol.level
    found = {claim.id: claim for claim in claims_judged}
    told = {}
    for planned in read(text)[1]:
        name = planned.spec.id
        favours = 1 if planned.spec.favours == "higher" else -1
        for which, one in [(name, found[name]), *_by_schedule(found[name])]:
            told[which] = {
                "verdict": one.verdict,
                "for": [part.model for part in one.parts if part.p <= level and favours * part.effect > 0],
                "equivalent": [part.model for part in one.parts if part.p_within <= level],
            }
    return {"scenario": [scenario.effect, scenario.tails], "number": number, "claims": told}


def _by_schedule(claim: Claim) -> Iterator[tuple[str, Claim]]:
    for row, alone in (claim.by_schedule or {}).items():
        yield f"{claim.id}/{row}", alone


def summary(outcomes: Iterable[dict], scenarios: list[Scenario], params: Params) -> list[dict]:
    """Per scenario and claim the number of each verdict, of decisions by model, and what the design said.

    The verdicts on each schedule by itself are counted together.
    """
    counts: dict[tuple, dict] = {}
    for one in outcomes:
        for name, found in one["claims"].items():
            claim, _, row = name.partition("/")
            key = (*one["scenario"], claim, bool(row))
            count = counts.setdefault(
                key, {"judged": 0, "verdicts": Counter(), "for": Counter(), "equivalent": Counter()}
            )
            count["judged"] += 1
            count["verdicts"][found["verdict"]] += 1
            count["for"].update(found["for"])
            count["equivalent"].update(found["equivalent"])
    planned = {claim.spec.id: claim for claim in simulated_claims(params)}
    rows = []
    for scenario in scenarios:
        for (effect, tails, name, by_schedule), count in counts.items():
            if (effect, tails) != (scenario.effect, scenario.tails):
                continue
            said = {
                test.model: power(planned[name], SPREAD[params.model[test.model].dataset])
                for test in planned[name].tests
            }
            chances = [list(one.values())[effect - 1] if effect else None for one in said.values()]
            within = [one.get("equivalence") for one in said.values()]
            rows.append(
                {
                    "claim": name,
                    "by_schedule": by_schedule,
                    "tails": tails,
                    "effect": list(next(iter(said.values())))[effect - 1] if effect else "none",
                    "studies": scenario.studies,
                    "judged": count["judged"],
                    "verdicts": dict(sorted(count["verdicts"].items())),
                    "wrong": sum(
                        number
                        for verdict, number in count["verdicts"].items()
                        if is_wrong(verdict, scenario, planned[name].spec)
                    ),
                    "for": dict(sorted(count["for"].items())),
                    "equivalent": dict(sorted(count["equivalent"].items())),
                    "design": {
                        "one_model": float(np.mean(chances)) if effect else None,
                        "all_models": math.prod(chances) if effect else None,
                        "equivalence": None if effect or None in within else float(np.mean(within)),
                    },
                }
            )
    return rows


def is_wrong(verdict: str, scenario: Scenario, spec: ClaimSpec) -> bool:
    """Whether a verdict says what is not so: some difference where there is none, or none where there is one.

    ``mixed`` is wrong in any case, since the truth is the same in every model. Undecided says nothing.
    """
    if not scenario.effect:
        return verdict in ("supported", "contradicted", "mixed")
    of_points = isinstance(spec, Paired) and spec.metric == "headline"
    too_large = not of_points or scenario.size >= (spec.equivalence or 0.0)
    return verdict in ("contradicted", "mixed") or (verdict == "equivalent" and too_large)


def tables(found: dict) -> str:
    """The results as two tables: without an effect, and with one."""
    num_models = len(found["shape"]["models"])

    def share(count: int, row: dict, of: int = 1) -> str:
        p = count / (row["judged"] * of)
        # A study's models are independent of each other, the schedules of one model are not.
        error = math.sqrt(p * (1 - p) / (row["studies"] * of))
        return f"{100 * p:.1f} ± {100 * error:.1f}"

    def named(row: dict) -> str:
        return f"{row['claim']}, each schedule by itself" if row["by_schedule"] else row["claim"]

    without = [
        "| no effect: claim | tails | wrong verdicts, % | supported | contradicted | mixed | equivalent | "
        "a model equivalent | the design said |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with_one = [
        "| claim | effect | tails | wrong verdicts, % | a model's test decides for it | the design said | "
        "supported | the design said |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["scenarios"]:
        design = row["design"]
        if row["effect"] == "none":
            verdicts = [
                share(row["verdicts"].get(name, 0), row)
                for name in ("supported", "contradicted", "mixed", "equivalent")
            ]
            within = ["", ""]
            if design["equivalence"] is not None:
                within = [
                    share(sum(row["equivalent"].values()), row, num_models),
                    f"{100 * design['equivalence']:.1f}",
                ]
            cells = [named(row), row["tails"], share(row["wrong"], row), *verdicts, *within]
            without.append(f"| {' | '.join(cells)} |")
        else:
            cells = [
                named(row),
                row["effect"],
                row["tails"],
                share(row["wrong"], row),
                share(sum(row["for"].values()), row, num_models),
                f"{100 * design['one_model']:.1f}",
                share(row["verdicts"].get("supported", 0), row),
                f"{100 * design['all_models']:.1f}",
            ]
            with_one.append(f"| {' | '.join(cells)} |")
    counts = {row["effect"] == "none": row["studies"] for row in found["scenarios"]}
    without_any, with_each = counts.get(True, 0), counts.get(False, 0)
    said = f"Studies of either tails: {without_any:,} without an effect, {with_each:,} with each."
    return "\n\n".join([said, "\n".join(without), "\n".join(with_one)])


def into_document(text: str, found: dict) -> str:
    """The document with the tables below its mark, up to the next heading."""
    if MARK not in text:
        raise StudyError(f"{DOCUMENT}: the line {MARK} is not there; put it where the tables belong.")
    before, _, after = text.partition(MARK)
    place = after.find("\n## ")
    rest = after[place:] if place >= 0 else ""
    return f"{before}{MARK}\n\n{tables(found)}\n{rest}"


def run(params: Params, scenarios: list[Scenario], work: Path, resume: bool, processes: int) -> list[dict]:
    """The outcome of every study; ``work`` has a line a study, and what is in it is not done again."""
    text = params.model_dump_json(by_alias=True)
    key = content_hash(json.loads(text))
    done: dict[tuple, dict] = {}
    if resume and work.exists():
        first, *lines = work.read_text().splitlines()
        if json.loads(first) != key:
            raise StudyError(f"{work}: of another study; leave --resume out to begin anew.")
        for line in lines:
            one = json.loads(line)
            done[*one["scenario"], one["number"]] = one
    else:
        work.write_text(json.dumps(key) + "\n")
    left = {
        scenario: [n for n in range(scenario.studies) if (scenario.effect, scenario.tails, n) not in done]
        for scenario in scenarios
    }
    with ProcessPoolExecutor(processes) as pool, work.open("a") as file:
        found = chain.from_iterable(
            pool.map(partial(outcome, text, scenario), numbers, chunksize=10)
            for scenario, numbers in left.items()
        )
        for one in found:
            file.write(json.dumps(one) + "\n")
            file.flush()
            done[*one["scenario"], one["number"]] = one
    return [
        done[scenario.effect, scenario.tails, number]
        for scenario in scenarios
        for number in range(scenario.studies)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "-S", dest="overrides", action="append", metavar="OVERRIDE", help="as for dvc exp run"
    )
    parser.add_argument(
        "--studies", type=int, default=2_000, help="without an effect, for both tails (2,000)"
    )
    parser.add_argument("--with-effect", type=int, default=500, help="for each effect and both tails (500)")
    parser.add_argument("--resume", action="store_true", help="go on where the last run was ended")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.overrides is None:
        params = load_params()
    else:
        with tempfile.TemporaryDirectory() as folder:
            composed = Path(folder) / "params.yaml"
            compose(ROOT, composed, arguments.overrides)
            params = load_params(composed)
    if not simulated_claims(params):
        raise SystemExit("this study can decide no claim by its seeds: python -m lrstudy.design")
    scenarios = [
        Scenario(effect, tails, arguments.with_effect if effect else arguments.studies)
        for effect in range(len(EFFECTS) + 1)
        for tails in TAILS
    ]
    outcomes = run(params, scenarios, WORK, arguments.resume, arguments.processes)
    found = {
        "shape": {
            "models": list(params.model),
            "schedules": list(params.schedule),
            "seeds": len(params.train.seeds),
            "looks": params.compare.looks,
            "level": round(1 - params.compare.confidence, 12),
        },
        "simulated": {
            "studies": len(outcomes),
            "spread": SPREAD,
            "shared": SHARED,
            "correlation": CORRELATION,
        },
        "scenarios": summary(outcomes, scenarios, params),
    }
    write_json(RESULTS, found)
    write_atomically(RESULTS.with_suffix(".md"), tables(found) + "\n")
    write_atomically(DOCUMENT, into_document(DOCUMENT.read_text(), found))
    WORK.unlink()
    print(tables(found))


if __name__ == "__main__":
    main()
