"""What the report's figures show, as plain values."""

from lrstudy.report.words import PAPER_EPOCHS, cells_in, headline, model_title, result_rows


def differences(comparison: dict) -> dict[str, dict[str, tuple]]:
    """The main figure in points: model -> schedule -> (values by seed, mean, interval or None).

    With the reference's averaged weights, the rival that costs no training.
    """
    found: dict[str, dict[str, tuple]] = {}
    for model, schedule, cell in result_rows(comparison):
        difference = difference_of(comparison, cell)
        if difference:
            found.setdefault(model, {})[schedule] = (
                [100 * value for value in difference["values"].values()],
                100 * difference["mean"],
                difference["interval"] and [100 * bound for bound in difference["interval"]],
            )
    return found


def ranks(comparison: dict) -> dict[str, tuple[dict[str, float], float]]:
    """The rank figure: model -> (average rank by schedule, critical difference); ranked models alone."""
    return {
        model: (found["ranks"], found["critical_difference"])
        for model, found in comparison["models"].items()
        if found["critical_difference"] is not None
    }


def budgets(comparison: dict) -> dict[str, dict[str, tuple[list[int], list[float]]]]:
    """The budget figure: model -> schedule -> (numbers of trials, expected validation losses).

    Numbers of trials that may all have diverged have no expectation; models with a single trial no figure.
    """
    found: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    for model, schedule, cell in cells_in(comparison):
        rows = (cell["tuning"] or {}).get("budget", [])
        known = [(row["num_trials"], row["loss"]) for row in rows if row["loss"] is not None]
        if known and len(rows) > 1:
            found.setdefault(model, {})[schedule] = ([k for k, _ in known], [loss for _, loss in known])
    return found


def profiles(comparison: dict) -> dict[str, tuple[dict[str, tuple[list[float], list[float]]], str]]:
    """The profile figure: title -> (schedule -> (factors, shares), what the factors are of).

    All models together by epochs and by seconds, then each model by epochs; a single model by both.
    """
    found = comparison["time_to_target"]
    models = [model for model, timed in found["models"].items() if timed["schedules"]]
    if len(models) == 1:
        title, whole = model_title(comparison, models[0]), found["models"][models[0]]["profiles"]
    else:
        title, whole = "all models", found["profiles"]
    panels = {f"{title}, by {cost}": (whole, cost) for cost in TIMES}
    if len(models) > 1:
        panels |= {
            model_title(comparison, name): (found["models"][name]["profiles"], "epochs") for name in models
        }
    return {
        title: (
            {name: (profile[cost]["factors"], shares) for name, shares in profile[cost]["shares"].items()},
            f"times the fewest {cost}",
        )
        for title, (profile, cost) in panels.items()
        if profile[cost]["shares"]
    }


TIMES = ("epochs", "seconds")


def models_beyond_the_paper(comparison: dict) -> list[str]:
    """The models that the reference trained for more epochs than the paper's figures show."""
    reference = comparison["protocol"]["reference"]
    return [
        model
        for model, schedules in comparison["cells"].items()
        if reference in schedules and schedules[reference]["num_epochs"] > PAPER_EPOCHS
    ]


def difference_of(comparison: dict, cell: dict) -> dict | None:
    """The headline metric's difference to the reference; None where no pair is compared."""
    found = cell["metrics"][headline(comparison, cell)].get("difference")
    return found if found and found["mean"] is not None else None
