"""The report's content, section by section, from what the compare stage wrote."""

import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from lrstudy.analysis.looks import alpha_spent
from lrstudy.analysis.records import (
    COSTS,
    CellResult,
    Claim,
    Comparison,
    Difference,
    Reference,
    Taken,
    Term,
    Tuning,
)
from lrstudy.analysis.statistics import MIN_SEEDS
from lrstudy.controllers import CONTROLLERS
from lrstudy.report.document import Document, Figure, Section, Table
from lrstudy.report.findings import AVERAGED_CLAIM, MAIN_CLAIM, claim_of, findings, verdict
from lrstudy.report.series import (
    budgets,
    difference_of,
    differences,
    models_beyond_the_paper,
    profiles,
    ranks,
)
from lrstudy.report.words import (
    PAPER_EPOCHS,
    by_search,
    cell_states,
    change_words,
    headline,
    hours_words,
    interval_words,
    lengths_on,
    less_one,
    model_title,
    number_words,
    p_words,
    pairs_words,
    parameters_words,
    percent_confidence,
    percent_words,
    points_words,
    range_words,
    reached_words,
    seeds_words,
    state_words,
    tuned_rows,
)
from lrstudy.words import counted, listed, seeds_named


def document(comparison: Comparison) -> Document:
    """What the report says, from the numbers in ``comparison``."""
    sample = comparison.protocol.source == "sample"
    title = "Do dynamic learning-rate schedules generalize better than static ones?"
    everything = [f"{model}-{schedule}" for model, schedule, _ in comparison.each()]
    reference = comparison.protocol.reference
    main_figure = Figure(
        "differences.svg",
        f"Test metric minus that of {reference} at the same seed, in points: dots are seeds, bars the mean "
        f"with its {percent_confidence(comparison)} interval. {reference}_averaged is no schedule: its are "
        f"the trainings of {reference} with their weights averaged.",
        "comparison.json",
        everything,
    )
    return Document(
        title=title + (" A run on the embedded sample, not a result" if sample else ""),
        warning="This is the embedded sample, which shows that the study runs. It says nothing about "
        "CIFAR-10 or IMDB."
        if sample
        else "",
        measured_on=_measured_on(comparison),
        answer=verdict(comparison) + findings(comparison),
        main_figure=main_figure if differences(comparison) else None,
        sections=[section for section in _sections(comparison) if section is not None],
    )


def _sections(comparison: Comparison) -> Iterator[Section | None]:
    yield _results(comparison)
    for model in comparison.cells:
        yield Section(
            model_title(comparison, model),
            3,
            tables=[_table(comparison, model)],
            after=[*_over_examples(comparison, model), *_ranks(comparison, model)],
        )
    yield _rank_diagrams(comparison)
    yield _across(comparison)
    yield _other_metrics(comparison)
    yield _time_to_target(comparison)
    yield _costs(comparison)
    yield _claims(comparison)
    yield from _alone(comparison)
    yield _theory(comparison)
    yield _gaps(comparison)
    yield from _search(comparison)
    yield _curves(comparison)
    yield _origins(comparison)
    yield _sources(comparison)


def _measured_on(comparison: Comparison) -> str:
    protocol = comparison.protocol
    data = "; ".join(
        f"{found.label} ({found.num_examples['train']:,} training, "
        f"{found.num_examples['validation']:,} validation, {found.num_examples['test']:,} test "
        f"examples; {'official' if found.official else 'not the official files'})"
        for found in comparison.data.values()
    )
    epochs = ", ".join(
        f"{listed([str(count) for count in sorted(lengths_on(comparison, name))])} epochs of {name}"
        for name in comparison.data
    )
    tuning = (
        f"{protocol.num_trials} tuning trials for every schedule"
        if protocol.num_trials
        else "not tuned: the defaults of conf/"
    )
    seeds = counted(len(protocol.seeds))
    return f"Measured on {data}. Preset `{protocol.preset}`: {seeds}, {epochs}, {tuning}."


def _results(comparison: Comparison) -> Section:
    after = []
    diverged = [
        f"{model}-{schedule} seed {seed}"
        for model, schedule, cell in comparison.each()
        for seed in cell.diverged
    ]
    if diverged:
        after.append(
            "Diverged runs (the loss was not finite; they count as losses, with accuracy and F1 of 0): "
            f"{', '.join(diverged)}."
        )
    after += _origin_notes(comparison)
    after += _optimizer_notes(comparison)
    after += [
        f"{model} has the values that the search for {base} found, stretched with the length."
        for model, base in tuned_rows(comparison).items()
    ]
    for name, use in _controllers(comparison).items():
        formula = f" ({use.formula})" if use.formula else ""
        after.append(
            f"Controller `{name}`{formula} was on {', '.join(use.cells)}: {use.interventions} "
            "interventions in all."
        )
    after += _not_there_yet(comparison)
    level = comparison.protocol.level
    return Section(
        "Test metrics after the last epoch",
        text=[
            "Metrics are in percent, differences in points; spread is the standard deviation over seeds, "
            "intervals are Student's over seeds. p is the exact two-sided Wilcoxon signed-rank test of the "
            f"paired differences; there is none with fewer than {MIN_SEEDS} seeds. A row is judged by its "
            f"own p at {level:g}; who looks for the best of a model's rows reads the p after Holm. The "
            "generalization gap is accuracy on 5,000 training examples minus test accuracy, both of the last "
            "weights in evaluation mode.",
            _plan(comparison),
            *_balance_words(comparison),
            *_view_words(comparison),
            *_reference_words(comparison),
        ],
        after=after,
    )


def _not_there_yet(comparison: Comparison) -> list[str]:
    """What the study plans and has not done yet."""
    said = []
    if states := cell_states(comparison):
        cells = "; ".join(f"{name}: {words}" for name, words in states.items())
        said.append(
            f"**Not there yet**: {cells}. Numbers are of the seeds that are there, differences of those that "
            "both rows have. A test looks when all rows that it depends on have all seeds of a planned look, "
            "and not before; `python -m lrstudy.why` says which trainings are missing."
        )
    absent = [
        f"the linear reference of {name} (`dvc repro references@{name}`)"
        for name in comparison.data
        if name not in comparison.references
    ]
    absent += [f"{name} (`dvc repro {name}`)" for name in comparison.theory.missing]
    if absent:
        said.append(f"**Not run** on these data: {listed(absent)}.")
    return said


def _view_words(comparison: Comparison) -> list[str]:
    """What the row of the reference's averaged weights is."""
    if not any(comparison.views.values()):
        return []
    reference = comparison.protocol.reference
    return [
        f"{reference}_averaged is no training of its own: it shows the trainings of {reference} with the "
        "mean of their weights over the last fifth of the updates. It is the rival that every decay must "
        "beat: the differences to it are tests of their own, adjusted among themselves."
    ]


_METRICS: dict[str, str] = {
    "test/accuracy": "accuracy",
    "test/balanced_accuracy": "balanced accuracy",
    "test/f1_macro": "macro F1",
    "test/f1": "F1",
}


def _balance_words(comparison: Comparison) -> list[str]:
    """For each data set whose classes differ in size, by how much and what decides on it."""
    paragraphs = []
    for dataset, counts in comparison.protocol.test_classes.items():
        label = comparison.data[dataset].label
        total = sum(counts.values())
        largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        metric = _METRICS[comparison.protocol.headline[dataset]]
        words = (
            f"The classes of {label} are unbalanced: of {total:,} test examples {largest} has "
            f"{counts[largest]:,} and {smallest} {counts[smallest]:,}. "
        )
        if metric == "accuracy":
            words += (
                f"Accuracy decides all the same: who always says {largest} has "
                f"{percent_words(counts[largest] / total)}."
            )
        else:
            words += f"So {metric} decides, to which every class counts alike, and not accuracy."
        paragraphs.append(words)
    return paragraphs


def _reference_words(comparison: Comparison) -> list[str]:
    """For each data set, what its linear reference is and reaches, at which cost."""
    paragraphs = []
    for dataset, found in comparison.references.items():
        scores = ", ".join(
            f"{_METRICS.get(name, name)} {percent_words(value)}" for name, value in found.metrics.items()
        )
        paragraphs.append(
            "The last row, in grey or italics, is no schedule but what a sceptic would train first on "
            f"{comparison.data[dataset].label}: {found.title}, on the same training examples, with "
            f"settings fixed in advance: {scores}, in {found.seconds:.0f} s of one core "
            f"({found.processor})."
        )
    return paragraphs


def _plan(comparison: Comparison) -> str:
    """When the study is tested, and whether this is such a time."""
    protocol = comparison.protocol
    count, looks = max(len(cell.seeds) for _, _, cell in comparison.each()), protocol.looks
    if not looks:
        return (
            f"Planned is one look, at {counted(len(comparison.protocol.seeds))}. Who adds seeds after "
            "having seen results plans further looks (`compare.looks`) first."
        )
    level = comparison.protocol.level
    words = f"Planned are looks at {listed([str(look) for look in looks])} seeds"
    reached = [look for look in looks if look <= count]
    if reached:
        fractions = ", ".join(f"{alpha_spent(look / looks[-1], level):.2g} at {look}" for look in reached)
        words += f"; of {level:g}, spent so far: {fractions}"
    words += "."
    if count not in looks:
        ahead = next((look for look in looks if look > count), None)
        words += (
            f" {counted(count)} are no planned look: they decide nothing that was not decided at "
            f"{reached[-1] if reached else 'an earlier one, of which there is none'}"
        )
        words += f", and the next is at {ahead}." if ahead else ", and none is left."
    return words


def _table(comparison: Comparison, model: str) -> Table:
    schedules = comparison.cells[model] | comparison.views[model]
    metric = headline(comparison, next(iter(schedules.values())))
    percent, reference = percent_confidence(comparison), comparison.protocol.reference
    rows = []
    for schedule, cell in schedules.items():
        found = cell.metrics[metric]
        difference = difference_of(comparison, cell)
        planned = len(comparison.protocol.seeds)
        part = f" ({len(cell.seeds)} of {planned} seeds)" if len(cell.seeds) < planned else ""
        rows.append(
            [
                f"{schedule}{part}",
                percent_words(found.mean),
                percent_words(found.spread),
                interval_words(found.interval),
                points_words(difference.mean) if difference else "",
                interval_words(difference.interval, "+") if difference else "",
                p_words(difference, "p"),
                p_words(difference, "p_holm"),
                *_to_averaged(found.difference_to_averaged),
                percent_words(cell.metrics["generalization_gap"].mean),
                number_words(cell.metrics["best_epoch"].mean),
                by_search(cell, lambda search: f"{search.base_lr:.4g}"),
                by_search(cell, lambda search: parameters_words(search.parameters)),
            ]
        )
    header = [
        "schedule",
        metric,
        "spread over seeds",
        f"{percent} interval",
        f"difference to {reference}",
        f"{percent} interval",
        "p",
        "p (Holm)",
        f"difference to {reference}_averaged",
        f"p against {reference}_averaged (Holm)",
        "generalization gap",
        "lowest validation loss at epoch",
        "base rate",
        "parameters",
    ]
    rows += [
        [found.schedule, state_words(found) or "", *[""] * (len(header) - 2)]
        for name, found in comparison.progress.items()
        if name in comparison.missing and found.model == model
    ]
    grey = [
        [found.title, percent_words(found.metrics[metric]), *[""] * (len(header) - 2)]
        for found in _references(comparison, model)
    ]
    return Table(header, rows, grey)


def _to_averaged(difference: Difference | None) -> list[str]:
    """A row's mean difference to the averaged reference with its interval, and its p's."""
    if difference is None or difference.mean is None:
        return ["", ""]
    mean = points_words(difference.mean)
    if difference.interval is not None:
        mean += f" ({interval_words(difference.interval, '+')})"
    p = p_words(difference, "p")
    return [mean, f"{p} ({p_words(difference, 'p_holm')})" if p else ""]


def _references(comparison: Comparison, model: str) -> list[Reference]:
    """The linear reference of the model's data set, if there is one."""
    dataset = next(iter(comparison.cells[model].values())).dataset
    return [found for name, found in comparison.references.items() if name == dataset]


def _over_examples(comparison: Comparison, model: str) -> list[str]:
    """The interval that takes the test examples for a sample, too, where their results were at hand."""
    known = [
        f"{schedule} {interval_words(difference.examples_interval, '+')}"
        for schedule, cell in comparison.cells[model].items()
        if (difference := cell.metrics["test/accuracy"].difference) and difference.examples_interval
    ]
    if not known:
        return []
    return [
        f"{percent_confidence(comparison)} intervals of the difference in accuracy over seeds and test "
        f"examples: {'; '.join(known)}."
    ]


def _ranks(comparison: Comparison, model: str) -> list[str]:
    result = comparison.models[model]
    left_out = []
    if result.left_out:
        left_out = [
            f"Left out of the ranks: {seeds_named(result.left_out)}, where not all schedules ran in one "
            "dtype."
        ]
    test = result.test
    if test is None:
        return left_out
    ranks = ", ".join(f"{name} {rank:.2f}" for name, rank in sorted(test.ranks.items(), key=lambda r: r[1]))
    groups = "; ".join(" and ".join(group) for group in test.groups)
    return [
        f"Average ranks over {result.num_seeds} seeds, 1 is best: {ranks}. Ranks that differ by less than "
        f"{test.critical_difference:.2f} (Nemenyi) are not told apart"
        + (f": {groups}" if groups else "")
        + f". Friedman's test of any difference ({test.method}): p {test.p:.3g}.",
        *left_out,
    ]


def _rank_diagrams(comparison: Comparison) -> Section | None:
    found = ranks(comparison)
    if not found:
        return None
    return Section(
        "Ranks within a model",
        figures=[
            Figure(
                "ranks.svg",
                "Average rank of each schedule over the seeds, best on the left; a bar joins those that "
                f"Nemenyi's critical difference does not tell apart at {percent_confidence(comparison)}.",
                "comparison.json",
                [f"{model}-{schedule}" for model, schedule, _ in comparison.each() if model in found],
            )
        ],
    )


def _across(comparison: Comparison) -> Section | None:
    found = {name: row for name, row in comparison.across_models.items() if row.num_models > 1}
    if not found:
        return None
    again = tuned_rows(comparison)
    models = [model for model in comparison.cells if model not in again]
    once = [
        f"{model} is not counted: it is {base} once more, with the same network, values and seeds."
        for model, base in again.items()
    ]

    def effect(value: float | None) -> str:
        return "none" if value is None else f"{value:+.2f}"

    rows = [
        [
            schedule,
            effect(row.effect),
            "none" if row.interval is None else " to ".join(map(effect, row.interval)),
            *(effect((row.by_model or {}).get(model)) for model in models),
            str(row.num_runs),
        ]
        for schedule, row in found.items()
    ]
    reference = comparison.protocol.reference
    return Section(
        "All models together",
        text=[
            f"Differences to {reference} in units of their spread: of each model the mean difference over "
            "the standard deviation of its pairs (Hedges' g), and the mean of these with the same weight for "
            f"every model that has the schedule. Points of different metrics are not added up.",
            *once,
        ],
        tables=[
            Table(
                [
                    "schedule",
                    "mean of the models",
                    f"{percent_confidence(comparison)} interval",
                    *models,
                    "pairs",
                ],
                rows,
            )
        ],
    )


def _other_metrics(comparison: Comparison) -> Section:
    rows = []
    for model, schedule, cell in comparison.each():
        metrics = cell.metrics
        name = headline(comparison, cell)
        best = metrics[name.replace("test/", "test_best/")]
        rows.append(
            [
                f"{model}-{schedule}",
                percent_words(metrics[name].mean),
                percent_words(best.mean),
                number_words(metrics["test/loss"].mean),
                reached_words(metrics["turning_epoch"]),
                number_words(metrics["overfitting"].mean),
                number_words(metrics["seconds_per_epoch"].mean),
                percent_words(metrics["epoch_slowdown"].mean),
                str(sum(cell.interventions.values())),
            ]
        )
    return Section(
        "Other measures",
        text=[
            "Means over seeds. The validation loss, smoothed by medians of three epochs, turns at the epoch "
            "of its lowest value if it rises later by more than twice its standard error; overfitting is how "
            "much higher it ends, if by more than that, else 0 (fewer than four epochs show neither). "
            "Seconds are those of the run's cheapest epoch, on the machine that ran it: processor time on a "
            "CPU, by the clock on a GPU. Beside them, how much more the median epoch cost, which is much "
            "where the machine did other work."
        ],
        tables=[
            Table(
                [
                    "cell",
                    "test metric, last epoch",
                    "at the epoch of lowest validation loss",
                    "test loss",
                    "validation loss turns at epoch",
                    "overfitting",
                    "seconds per epoch",
                    "median epoch slower by, %",
                    "interventions",
                ],
                rows,
            )
        ],
    )


def _time_to_target(comparison: Comparison) -> Section:
    """How soon each schedule's runs reached one target per model; runs that never did are in every number."""
    models, percent = comparison.time_to_target.models, percent_confidence(comparison)
    targets, rows = [], []
    for model, timed in models.items():
        value, words = timed.target.value, "none"
        if value is not None:
            words = f"{timed.target.metric} of {percent_words(value)}"
        targets.append(f"{model}: {words} ({timed.target.source})")
        for schedule, times in timed.schedules.items():
            number = len(times.epochs.values)
            row = [f"{model}-{schedule}", f"{number - times.unreached} of {number}"]
            for cost in COSTS:
                row += [number_words(times.by(cost).median), range_words(times.by(cost).interval)]
            rows.append(row)
    header = [words for cost in COSTS for words in (f"median {cost}", f"{percent} interval of {cost}")]
    figure = Figure(
        "time_to_target.svg",
        "Share of the seeds at which a schedule reached the target within so many times what the fastest "
        "schedule needed (performance profile). At 1: how often it was the fastest; at the right: how often "
        f"it got there at all.{_profiled(comparison)}",
        "comparison.json",
        [row[0] for row in rows],
    )
    return Section(
        "Time to target",
        text=[
            "Until the validation metric first was at least the target, which is one for all schedules and "
            f"seeds of a model. {'; '.join(targets)}.",
            "A run that never got there, or diverged, took infinitely long (inf) and is left out of nothing: "
            "the median is the time by which half of the runs had got there, and inf where more than half "
            "never did. Intervals are of the median, from the order of the times alone; fewer than 6 seeds "
            "have none. Seconds are as many of the run's cheapest epochs.",
        ],
        figures=[figure] if profiles(comparison) else [],
        tables=[Table(["cell", "seeds that got there", *header], rows)] if rows else [],
    )


def _profiled(comparison: Comparison) -> str:
    """Which schedules and seeds the profile over all models is of; nothing where there is one model."""
    found = comparison.time_to_target
    models = {model: timed.schedules for model, timed in found.models.items() if timed.schedules}
    whole = found.profiles.epochs
    if len(models) < 2:
        return ""
    words = f" All models: {whole.num_problems} seeds of models that all of these schedules ran"
    if whole.num_unsolved:
        words += f", at {whole.num_unsolved} of which none got there"
    some = list(dict.fromkeys(name for timed in models.values() for name in timed))
    if partly := [name for name in some if name not in whole.schedules]:
        words += f"; without {listed(partly)}, which did not run on every model"
    return words + "."


def _costs(comparison: Comparison) -> Section | None:
    """What an update costs under each schedule and each optimizer, per model."""
    if not comparison.timing:
        return None
    reference, percent = comparison.protocol.reference, percent_confidence(comparison)
    tables, text = [], []
    for model, timing in comparison.timing.items():
        rows = [
            (name if kind == "schedules" else f"static, {name}", row)
            for kind in ("schedules", "optimizers")
            for name, row in getattr(timing, kind).items()
        ]
        origin, threads = timing.origin, timing.threads
        on = origin.accelerator or f"{origin.processor}, {threads} thread{'s' * (threads > 1)}"
        text.append(
            f"{model}: {timing.rounds} rounds of {timing.updates} updates, {timing.batch_size} "
            f"examples of {timing.data.label} each, in {timing.precision} on {on}."
        )
        diverged = [f"{name} {row.diverged} times" for name, row in rows if row.diverged]
        if diverged:
            text.append(
                f"{model}'s loss was not finite, so that a training began anew: {', '.join(diverged)}. An "
                "update costs the same then."
            )
        header = ["optimizer", "controller", "ms per update", f"more than {reference}, %"]
        tables.append(
            Table(
                [f"{model}: schedule", *header, f"{percent} interval"],
                [
                    [
                        name,
                        row.optimizer,
                        row.controller,
                        f"{1000 * row.seconds_per_update:.4g}",
                        "" if row.ratio is None else f"{100 * (row.ratio - 1):+.1f}",
                        "" if row.ratio is None else interval_words(less_one(row.interval), "+"),
                    ]
                    for name, row in rows
                ],
            )
        )
    return Section(
        "What an update costs",
        text=[
            "The rows of a model were timed in turn by the study's own training loop, on a CPU in processor "
            "time: all of them in random order in one round, in reverse in the next. Shown are the median "
            "over the rounds and, of the ratio, the median over the pairs of such rounds with its exact "
            "interval. This is of one machine. The search, which costs every row the same number of trials, "
            "is not in it.",
            *text,
        ],
        tables=tables,
    )


def _claims(comparison: Comparison) -> Section | None:
    claims = comparison.claims
    if not claims:
        return None
    rows = [
        [
            claim.claim,
            claim.verdict,
            claim.why,
            _would_decide(claim),
            ", ".join(claim.source),
        ]
        for claim in claims
    ]
    return Section(
        "The claims, brought to a verdict",
        text=[
            "Supported: every test decides for the claim. Contradicted: one decides against it, and none for "
            "it. Mixed: it holds for some, and for others not. Equivalent: every difference lies within the "
            "margin. Undecided: the tests that ran do not tell. Not tested: nothing that ran bears on it."
        ],
        tables=[Table(["claim", "verdict", "why", "what would decide", "source"], rows)],
    )


def _alone(comparison: Comparison) -> Iterator[Section]:
    """The claims on the chosen schedule for each one by itself: against the reference and its average."""
    reference = comparison.protocol.reference
    for name, title, rival in (
        (MAIN_CLAIM, "Each schedule by itself", reference),
        (AVERAGED_CLAIM, f"Each schedule against {reference}_averaged", f"{reference}_averaged"),
    ):
        claim = claim_of(comparison, name)
        if claim is None or not claim.by_schedule:
            continue
        yield Section(
            title,
            3,
            text=[
                f"Does it generalize better than {rival}? Every row is a question of its own, with no "
                "adjustment for the others: of twenty schedules without an effect one would seem to have one."
            ],
            tables=[
                Table(
                    ["schedule", "verdict", "why"],
                    [[row, found.verdict, found.why] for row, found in claim.by_schedule.items()],
                )
            ],
        )


def _would_decide(claim: Claim) -> str:
    if claim.run is not None:
        return f"`{claim.run.command}`{hours_words(claim.run.core_hours)}"
    if claim.seeds_needed is None or claim.chance is None:
        return ""
    chance = f"chance {100 * claim.chance:.0f}%"
    more = " more" if claim.counted == "seeds" else ""
    return f"{claim.seeds_needed} {claim.counted}{hours_words(claim.core_hours, more)}, {chance}"


# By how the file's name begins; figures that are not named here are in artifacts/theory/ alone.
_THEORY_CAPTIONS = {
    "toy.": "Toy model under label noise: test loss, norm and trace of the Hessian after the last update, "
    "against the update at which the rate decayed; bands are intervals over seeds.",
    "branches_": "Branches that leave a trunk of constant rate and decay: test metric, losses and the gap "
    "between them at the end against the epoch of branching; thin lines are seeds.",
    "sharpness_": "Weight norm and sharpness of the training loss along the trunk and at the branches' ends, "
    "means over seeds.",
    "landscape_": "Training and test loss on the plane of the trajectories' two principal directions, with "
    "trunk and branches.",
    "paths_": "Losses along the straight line, a trained Bezier curve and the path over the top between two "
    "solutions.",
    "components_": "Connected components of the super- and sublevel sets within a plane, by level.",
}


def theory_figure(experiment: str, file: str) -> str:
    """How a theory stage's figure is called in reports/figures."""
    return f"{experiment}_{file}"


def _theory(comparison: Comparison) -> Section | None:
    claims = comparison.theory.claims
    if not claims:
        return None
    figures = [
        Figure(theory_figure(experiment, file), words, f"{experiment}.json", [])
        for experiment, files in comparison.theory.figures.items()
        for file in files
        for beginning, words in _THEORY_CAPTIONS.items()
        if file.startswith(beginning)
    ]
    rows = [
        [
            claim.claim,
            claim.where,
            claim.verdict,
            claim.effect,
            "" if claim.mean is None else f"{claim.mean:+.4g}",
            range_words(claim.interval),
            "" if claim.n is None else str(claim.n),
            claim.experiment,
        ]
        for claim in claims
    ]
    return Section(
        "The theory behind schedules, tested",
        text=[
            "Late decay (arXiv 2401.11600) and connected level sets (arXiv 2409.16769): what can be tested "
            "of them, and what follows without a test, is in docs/theory.md. A statement about all networks "
            "can be refuted by one; that it was not refuted is no proof."
        ],
        figures=figures,
        tables=[
            Table(
                [
                    "claim",
                    "where",
                    "verdict",
                    "effect",
                    "mean",
                    f"{percent_confidence(comparison)} interval",
                    "n",
                    "experiment",
                ],
                rows,
            )
        ],
    )


def _gaps(comparison: Comparison) -> Section | None:
    gaps = comparison.gaps
    if not gaps:
        return None
    rows = [
        [
            gap.gap,
            value.cell,
            value.name,
            f"{number_words(value.value)} {value.unit}".strip(),
            range_words(value.interval),
            value.key,
        ]
        for gap in gaps
        for value in gap.values
    ]
    return Section(
        "The paper's gaps, filled",
        text=[f"**{gap.gap}** ({gap.where}). {gap.text}" for gap in gaps],
        tables=[Table(["gap", "cell", "what", "value", "interval", "key in comparison.json"], rows)],
    )


_BUDGET = (
    "What a budget buys: the validation loss that the best of so many trials is expected to have, the "
    "defaults first and then any of the others, each choice of them equally likely (Sivaprasad et al. 2020, "
    "here without replacement). It is that of the search's own seeds, which chose: new seeds would have a "
    "higher one. Trials are not measured on test data."
)


def _search(comparison: Comparison) -> Iterator[Section]:
    """What tuning found for every model's schedules, and what a value off by a factor of 2 costs each."""
    protocol = comparison.protocol
    tuned: dict[str, dict[str, tuple[CellResult, Tuning]]] = {}
    for model, schedule, cell in comparison.each():
        if cell.tuning is not None:
            tuned.setdefault(model, {})[schedule] = cell, cell.tuning
    if not tuned:
        return
    seeds, further = protocol.tune_seeds, protocol.confirm_seeds
    drawn = budgets(comparison)
    yield Section(
        "What tuning found",
        text=[
            f"Every schedule had {protocol.num_trials} trials with the "
            f"{'seed' if len(seeds) == 1 else 'seeds'} "
            f"{', '.join(map(str, seeds))}, none of those above"
            + (
                f"; the best {protocol.finalists} of each schedule were trained again with "
                f"{', '.join(map(str, further))}, and the mean over all these seeds decided"
                if further
                else ", and the lowest loss decided"
            )
            + ". As good are the values of all trials whose loss lies above the lowest by no more than its "
            "standard error, which the noise between seeds tells. Half and twice: how much the validation "
            "loss would change if that value alone were off by a factor of 2, as a Gaussian process fitted "
            "to the trials has it, with the 95% of its own uncertainty; wide intervals mean few trials. "
            "Costs compare by trainings; minutes are theirs, with whatever else the machine did.",
            *([_BUDGET] if drawn else []),
            _searches(comparison),
        ],
        figures=[
            Figure(
                "budget.svg",
                "Expected validation loss of the best of so many trials.",
                "comparison.json",
                [f"{model}-{schedule}" for model, found in drawn.items() for schedule in found],
            )
        ]
        if drawn
        else [],
    )
    sides = {"half": "halved", "double": "doubled"}
    for model, searches in tuned.items():
        rows = []
        for schedule, (cell, tuning) in searches.items():
            for term in tuning.terms:
                known = tuning.sensitivity.parameters.get(term.parameter)
                rows.append(
                    [
                        schedule,
                        term.term,
                        by_search(cell, partial(_chosen, term)),
                        range_words(term.as_good),
                        change_words(known.half if known else None),
                        change_words(known.double if known else None),
                    ]
                )
        losses = [
            [
                schedule,
                number_words(tuning.defaults_objective),
                number_words(tuning.search_objective),
                number_words(tuning.objective),
                str(tuning.cost.trainings),
                f"{tuning.cost.epochs:.4g}",
                f"{tuning.cost.seconds / 60:.1f}",
            ]
            for schedule, (_, tuning) in searches.items()
        ]
        rises = {name: tuning.largest_rise for name, (_, tuning) in searches.items() if tuning.largest_rise}
        safest = [
            f"{name} ({rise.parameter} {sides[rise.side]}: {change_words(rise)})"
            for name, rise in sorted(rises.items(), key=lambda item: item[1].change)
        ]
        yield Section(
            f"{model_title(comparison, model)}: the values found",
            3,
            tables=[Table(["schedule", "parameter", "chosen", "as good", "half of it", "twice it"], rows)],
            after=[
                "By what a value off by a factor of 2 costs at worst, the safest schedule first: "
                f"{'; '.join(safest)}."
            ]
            if safest
            else [],
        )
        yield Section(
            f"{model_title(comparison, model)}: what the search gained and cost",
            3,
            tables=[
                Table(
                    [
                        "schedule",
                        "validation loss of the defaults",
                        "of the chosen values",
                        "of those over all tuning seeds",
                        "trainings",
                        "epochs",
                        "minutes",
                    ],
                    losses,
                )
            ],
        )


def _searches(comparison: Comparison) -> str:
    """How many searches stand behind the seeds, and which of them had fewer trials than were asked for."""
    protocol = comparison.protocol
    if protocol.searches == 1:
        words = "One search stands behind all seeds of a row: its luck is in no interval."
    else:
        words = (
            f"{protocol.searches} searches, each with a sampler of its own, take turns in giving the "
            "seeds their values, so that the spread over seeds has the luck of the search in it."
        )
    few = [
        f"{model}-{schedule} {min(tried)}"
        for model, schedule, cell in comparison.each()
        if cell.tuning
        and min(tried := [search.num_tried for search in cell.tuning.searches]) < protocol.num_trials
    ]
    return words + (f" Fewer trials, since the space has no more: {', '.join(few)}." if few else "")


def _chosen(term: Term, search: Taken) -> str:
    """A term's value in a search, with its unit."""
    value = (search.parameters | search.values)[term.parameter]
    return f"{number_words(value)} {term.unit}".strip()


def _curves(comparison: Comparison) -> Section:
    reference = comparison.protocol.reference
    everything = [f"{model}-{schedule}" for model, schedule, _ in comparison.each()]
    static = [f"{model}-{reference}" for model, found in comparison.cells.items() if reference in found]
    figures = [
        Figure(
            "losses.svg",
            f"Training and validation loss under the {reference} schedule; the line marks where the "
            "validation loss "
            "is lowest (the paper's figure 1).",
            "curves.csv",
            static,
        )
    ]
    figures = figures if static else []
    figures += [
        Figure("train_accuracy.svg", "Training accuracy by epoch (figure 2).", "curves.csv", everything),
        Figure(
            "validation_accuracy.svg", "Validation accuracy by epoch (figure 3).", "curves.csv", everything
        ),
        Figure("validation_loss.svg", "Validation loss by epoch.", "curves.csv", everything),
        Figure("rates.svg", "The learning rate at the end of each epoch.", "curves.csv", everything),
    ]
    if longer := models_beyond_the_paper(comparison):
        beginnings = [f"{model}-{reference}" for model in longer]
        for number, name, what in (
            (1, "losses", "Training and validation loss"),
            (2, "train_accuracy", "Training accuracy"),
            (3, "validation_accuracy", "Validation accuracy"),
        ):
            caption = f"{what}: the first {PAPER_EPOCHS} epochs under {reference} (figure {number})."
            figures.append(Figure(f"{name}_{PAPER_EPOCHS}.svg", caption, "curves.csv", beginnings))
    return Section("Curves", text=["Means over seeds; bands are one standard deviation."], figures=figures)


def _origins(comparison: Comparison) -> Section:
    """By cell, on what its trainings ran; then the pairs that differ and were compared all the same."""
    title = "What stands behind each cell"
    rows = []
    for model, schedule, cell in comparison.each():
        found = cell.origins
        revisions = {revision[:8] or "no repository": seeds for revision, seeds in found.revision.items()}
        days = dict.fromkeys(time.strftime("%Y-%m-%d", time.gmtime(ended)) for ended in found.ended)
        told = [found.processor, found.machine, found.device, found.dtype, found.torch]
        rows.append(
            [
                model,
                schedule,
                ", ".join(map(str, cell.seeds)),
                *map(seeds_words, [*told, found.lrstudy, revisions]),
                " to ".join(days),
            ]
        )
    dtypes = "are compared, as `compare.across_dtypes` asks"
    if not comparison.protocol.across_dtypes:
        dtypes = "are not compared: `compare.across_dtypes` would ask for it"
    reference = comparison.protocol.reference
    mixed = [
        f"{model}-{schedule} against {reference}: {pairs_words(difference.mixed)}"
        for model, schedule, cell in comparison.each()
        if (difference := difference_of(comparison, cell)) and difference.mixed
    ]
    return Section(
        title,
        text=[
            "A training is known by what it computes; the kind of machine, versions and revision are told "
            "beside it. Pairs that differ in the kind of machine, the device or the version of torch are "
            f"compared, but not in seconds. Pairs that differ in dtype {dtypes}. The machine is a code that "
            "tells one from another; dates are those of the first and the last training's end (UTC)."
        ],
        tables=[
            Table(
                [
                    "model",
                    "schedule",
                    "seeds",
                    "kind of machine",
                    "machine",
                    "device",
                    "dtype",
                    "torch",
                    "lrstudy",
                    "code revision",
                    "trained",
                ],
                rows,
            )
        ],
        after=[f"Pairs that differ and are compared: {'; '.join(mixed)}."] if mixed else [],
    )


def _origin_notes(comparison: Comparison) -> list[str]:
    """What a reader of the main table must know of machines and dtypes; a line if all trainings are alike."""
    kinds, dtypes, versions = (
        list(dict.fromkeys(value for _, _, cell in comparison.each() for value in cell.origins.of(name)))
        for name in ("processor", "dtype", "torch")
    )
    alike = len(kinds) == len(dtypes) == len(versions) == 1
    machines = f"one kind of machine ({kinds[0]})" if len(kinds) == 1 else f"{len(kinds)} kinds of machine"
    notes = [
        f"{'All trainings' if alike else 'Trainings'}: {machines}, {listed(dtypes)}, torch {listed(versions)}"
        + ("." if alike else "; by cell under What stands behind each cell.")
    ]
    reference = comparison.protocol.reference
    for model, schedule, cell in comparison.each():
        words = []
        if len(cell.origins.dtype) > 1:
            first, *others = (
                (dtype, seeds_named(seeds), len(seeds)) for dtype, seeds in cell.origins.dtype.items()
            )
            were = "was" if first[2] == 1 else "were"
            words.append(
                ", ".join(
                    [
                        f"{first[1]} {were} trained in {first[0]}",
                        *(f"{seeds} in {dtype}" for dtype, seeds, _ in others),
                    ]
                )
            )
        difference = cell.metrics[headline(comparison, cell)].difference
        if difference is not None and difference.left_out:
            words.append(f"not compared with {reference}: {pairs_words(difference.left_out)}")
        mixed = difference.mixed if difference is not None else {}
        across = {seed: what for seed, what in mixed.items() if "dtype" in what}
        if across:
            words.append(f"compared with {reference} across dtypes, as asked for: {pairs_words(across)}")
        if words:
            notes.append(f"{model}-{schedule}: {'; '.join(words)}.")
    return notes


def _optimizer_notes(comparison: Comparison) -> list[str]:
    """The rows that have another optimizer than their model's reference: no schedule makes them differ."""
    reference = comparison.protocol.reference
    return [
        f"{model}-{schedule} is trained with {cell.optimizer}, and {reference} with {base.optimizer}: "
        "no verdict on schedules includes it."
        for model, schedule, cell in comparison.each()
        if (base := comparison.cells[model].get(reference)) and cell.optimizer != base.optimizer
    ]


def _sources(comparison: Comparison) -> Section:
    return Section(
        "Where the numbers come from",
        text=[
            "`comparison.json` has every value in full precision with the identity of each seed's training; "
            "`python -m lrstudy.ledger show <identity>` shows what `ledger/` has of it, the results of every "
            "test example included. Its MLflow run, where there is one, has it in the tag `lrstudy.key`.",
            *(f"{name}: fingerprint `{found.fingerprint}`." for name, found in comparison.data.items()),
        ],
        tables=[
            Table(
                ["cell", "seed", "identity"],
                [
                    [f"{model}-{schedule}", seed, f"`{identity[:16]}`"]
                    for model, schedule, cell in comparison.each()
                    for seed, identity in cell.identities.items()
                ],
            )
        ],
    )


class ControllerUse(NamedTuple):
    """Whose formula a controller is, the cells that it was on, and how often it intervened in all."""

    formula: str
    cells: list[str]
    interventions: int


def _controllers(comparison: Comparison) -> dict[str, ControllerUse]:
    """Each controller that was used."""
    used: dict[str, list[tuple[str, CellResult]]] = {}
    for model, schedule, cell in comparison.each():
        if cell.controller != "none":
            used.setdefault(cell.controller, []).append((f"{model}-{schedule}", cell))
    return {
        name: ControllerUse(
            CONTROLLERS[name].reconstruction if name in CONTROLLERS else "",
            [cell_name for cell_name, _ in cells],
            sum(sum(cell.interventions.values()) for _, cell in cells),
        )
        for name, cells in used.items()
    }


def identities_in(comparison: Comparison) -> dict[str, dict[str, str]]:
    return {f"{model}-{schedule}": cell.identities for model, schedule, cell in comparison.each()}
