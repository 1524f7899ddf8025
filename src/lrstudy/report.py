"""The report: renders what ``compare`` wrote, computes nothing new. The only importer of jinja2.

``python -m lrstudy.report`` prints the table of results for a terminal.
"""

import json
from pathlib import Path
from typing import Any

from lrstudy.controllers import CONTROLLERS
from lrstudy.errors import StudyError


def read_comparison(path: str | Path = "reports/comparison.json") -> dict[str, Any]:
    """What ``compare`` wrote.

    Raises:
        StudyError: it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise StudyError(
            f"{path}: not found; `dvc repro compare` makes it from the finished cells."
        ) from None
    except json.JSONDecodeError as error:
        raise StudyError(
            f"{path}: not JSON (line {error.lineno}); `dvc repro -f -s compare` makes it anew."
        ) from None


def headline(comparison: dict, cell: dict) -> str:
    """The name of the metric that decides for this cell's data set."""
    return comparison["protocol"]["headline"][cell["dataset"]]


def render_markdown(comparison: dict) -> str:
    """reports/report.md."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lrstudy"),
        autoescape=False,  # Markdown, not HTML; names in it are checked to be plain words by config
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    protocol = comparison["protocol"]
    num_seeds = len(protocol["seeds"])
    tested = [
        metric["difference"]
        for _, _, cell in _cells(comparison)
        for metric in cell["metrics"].values()
        if "p" in metric.get("difference", {})
    ]
    power = min((difference["smallest_p"] for difference in tested), default=None)
    power_holm = min((difference["smallest_p_holm"] for difference in tested), default=None)
    return environment.get_template("report.md.j2").render(
        data=comparison["data"],
        protocol=protocol,
        sample=protocol["source"] == "sample",
        num_seeds=num_seeds,
        epochs=", ".join(
            f"{count} epochs of {name}"
            for name, count in protocol["num_epochs"].items()
            if name in comparison["data"]
        ),
        percent=f"{100 * protocol['confidence']:g}%",
        findings=findings(comparison),
        tables={model: _table(comparison, model) for model in comparison["cells"]},
        power=f"{power:.3g}" if power is not None else "",
        power_holm=f"{power_holm:.3g}" if power_holm is not None else "",
        power_limited=power_holm is not None and power_holm > 0.05,
        diverged=[
            f"{model}-{schedule} seed {seed}"
            for model, schedule, cell in _cells(comparison)
            for seed in cell["diverged"]
        ],
        controllers=_controllers(comparison),
        searches={model: found for model in comparison["cells"] if (found := _search(comparison, model))},
        missing=comparison["missing"],
    )


def findings(comparison: dict) -> list[str]:
    """One paragraph per model: which schedule is ahead of the reference, by how much, how surely."""
    reference = comparison["protocol"]["reference"]
    paragraphs = []
    for model, schedules in comparison["cells"].items():
        others = {name: cell for name, cell in schedules.items() if name != reference}
        if reference not in schedules:
            paragraphs.append(
                f"**{_title(comparison, model)}**: the reference {reference} did not run, so there is no "
                "difference to tell."
            )
            continue
        if not others:
            continue
        metric = headline(comparison, schedules[reference])
        differences = {name: cell["metrics"][metric].get("difference") for name, cell in others.items()}
        differences = {name: found for name, found in differences.items() if found}
        if not differences:
            continue
        best = max(differences, key=lambda name: differences[name]["mean"])
        found = differences[best]
        words = (
            f"**{_title(comparison, model)}**: the best dynamic schedule is {best}, "
            f"{100 * found['mean']:+.2f} points of {metric} against {reference}"
        )
        if found["interval"] is not None:
            low, high = (100 * bound for bound in found["interval"])
            words += f" (interval {low:+.2f} to {high:+.2f}, p {found['p_holm']:.3g} after Holm)"
            decided = found["p_holm"] <= 0.05
            words += ". " + (
                "This is more than chance." if decided else "That is not told apart from chance."
            )
        else:
            words += ": a single seed, from which nothing can be concluded."
        paragraphs.append(words)
    return paragraphs


def _search(comparison: dict, model: str) -> dict[str, Any] | None:
    """What tuning found for a model's schedules, and what a value off by a factor of 2 costs each."""
    tuned = {name: cell["tuning"] for name, cell in comparison["cells"][model].items() if cell["tuning"]}
    if not tuned:
        return None
    rows = []
    for schedule, tuning in tuned.items():
        for term in tuning["terms"]:
            known = tuning["sensitivity"]["parameters"].get(term["parameter"], {})
            rows.append(
                [
                    schedule,
                    term["term"],
                    f"{_number(term['value'])} {term['unit']}".strip(),
                    _range(term["as_good"]),
                    *(_change(known.get(side)) for side in ("half", "double")),
                ]
            )
    losses = [
        [
            schedule,
            _number(tuning["defaults_objective"]),
            _number(tuning["objective"]),
            f"{tuning['cost']['epochs_of_full_data']:.4g}",
            f"{tuning['cost']['seconds'] / 60:.1f}",
        ]
        for schedule, tuning in tuned.items()
    ]
    sides = {"half": "halved", "double": "doubled"}
    rises = {name: tuning["largest_rise"] for name, tuning in tuned.items() if tuning["largest_rise"]}
    return {
        "title": _title(comparison, model),
        "rows": rows,
        "losses": losses,
        "safest": [
            f"{name} ({rise['parameter']} {sides[rise['side']]}: {_change(rise)})"
            for name, rise in sorted(rises.items(), key=lambda item: item[1]["change"])
        ],
    }


def _range(as_good: list | None) -> str:
    if not as_good:
        return "none"
    if len(as_good) == 2 and all(isinstance(value, int | float) for value in as_good):
        return f"{_number(as_good[0])} to {_number(as_good[1])}"
    return ", ".join(_number(value) for value in as_good)


def _change(side: dict | None) -> str:
    if side is None:
        return "not judged"
    low, high = side["interval"]
    return f"{100 * side['change']:+.1f}% ({100 * low:+.1f} to {100 * high:+.1f})"


def _controllers(comparison: dict) -> dict[str, dict[str, Any]]:
    """Each controller that was used: on which cells, how often it intervened, and whose formula it is."""
    found: dict[str, dict[str, Any]] = {}
    for model, schedule, cell in _cells(comparison):
        name = cell["controller"]
        if name == "none":
            continue
        formula = CONTROLLERS[name].reconstruction if name in CONTROLLERS else ""
        words = found.setdefault(name, {"formula": formula, "rows": [], "interventions": 0})
        words["rows"].append(f"{model}-{schedule}")
        words["interventions"] += sum(cell["interventions"].values())
    return found


def text_table(comparison: dict) -> str:
    """Model x schedule for a terminal: metric, mean over seeds, spread."""
    lines = [f"{'model':<12} {'schedule':<20} {'metric':<14} {'mean':>7} {'spread':>7}  seeds  data"]
    for model, schedule, cell in _cells(comparison):
        metric = headline(comparison, cell)
        found = cell["metrics"][metric]
        label = comparison["data"][cell["dataset"]]["label"]
        lines.append(
            f"{model:<12} {schedule:<20} {metric:<14} {_percent(found['mean']):>7}"
            f" {_percent(found['spread']):>7}  {len(cell['seeds']):>5}  {label}"
        )
    lines += [f"{name:<33} missing: it has not run" for name in comparison["missing"]]
    return "\n".join(lines)


def _cells(comparison: dict):
    for model, schedules in comparison["cells"].items():
        for schedule, cell in schedules.items():
            yield model, schedule, cell


def _title(comparison: dict, model: str) -> str:
    dataset = next(iter(comparison["cells"][model].values()))["dataset"]
    return f"{model} on {comparison['data'][dataset]['label']}"


def _table(comparison: dict, model: str) -> dict[str, Any]:
    schedules = comparison["cells"][model]
    metric = headline(comparison, next(iter(schedules.values())))
    rows = []
    for schedule, cell in schedules.items():
        found = cell["metrics"][metric]
        difference = found.get("difference")
        rows.append(
            [
                schedule,
                _percent(found["mean"]),
                _percent(found["spread"]),
                _interval(found["interval"]),
                f"{100 * difference['mean']:+.2f}" if difference else "",
                _interval(difference["interval"], "+") if difference else "",
                f"{difference['p_holm']:.3g}" if difference and difference["interval"] else "",
                _percent(cell["metrics"]["generalization_gap"]["mean"]),
                _number(cell["metrics"]["best_epoch"]["mean"]),
                f"{cell['base_lr']:.4g}",
                ", ".join(f"{name} {_number(value)}" for name, value in cell["parameters"].items()) or "none",
            ]
        )
    return {"title": _title(comparison, model), "metric": metric, "rows": rows}


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.2f}"


def _interval(bounds: list[float] | None, sign: str = "") -> str:
    return "none" if bounds is None else f"{100 * bounds[0]:{sign}.2f} to {100 * bounds[1]:{sign}.2f}"


def _number(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Print the table of results."""
    print(text_table(read_comparison()))


if __name__ == "__main__":
    from lrstudy.stages import run_stage

    run_stage(main)
