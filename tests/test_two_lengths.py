"""A study of two lengths of one network: cells that are no full product, from compare to the report."""

import copy
import json

import pytest

from known_study import SETTINGS, cells, compare_as_written, comparison
from lrstudy.analysis.records import ClaimRun, Comparison
from lrstudy.report.figures import budget_figure, curve_figure, difference_figure
from lrstudy.report.findings import findings, text_table
from lrstudy.report.render import render_markdown
from lrstudy.report.sections import document
from lrstudy.report.words import model_title
from test_report import tables, with_seeds


def two_lengths(study: dict | None = None) -> dict:
    """The known study, and its ResNet for 20 epochs under static and cosine, with the values of the shorter."""
    study = study or cells()
    study["resnet_20_epochs"] = {name: copy.deepcopy(study["resnet"][name]) for name in ("static", "cosine")}
    for cell in study["resnet_20_epochs"].values():
        cell["model"] = "resnet_20_epochs"
        cell["training"]["tuned_as"] = "resnet"
        cell["training"]["settings"]["num_epochs"] = 20
        cell["tuning"] = None
    return study


@pytest.fixture(scope="module")
def whole() -> Comparison:
    """With nine seeds, so that tests can decide."""
    return comparison(two_lengths(with_seeds(9)))


def test_a_longer_row_changes_no_other_rows_numbers():
    found, without = compare_as_written(two_lengths(), SETTINGS), compare_as_written(cells(), SETTINGS)
    for part in ("cells", "views", "models"):
        assert {m: found[part][m] for m in without[part]} == without[part]
    longer = found["cells"]["resnet_20_epochs"]["cosine"]
    assert (longer["tuned_as"], longer["tuning"], longer["num_epochs"]) == ("resnet", None, 20)
    assert "tuned_as" not in found["cells"]["resnet"]["cosine"]
    json.dumps(found, allow_nan=False)


def test_a_network_that_stands_twice_is_counted_once_across_models():
    found, without = compare_as_written(two_lengths(), SETTINGS), compare_as_written(cells(), SETTINGS)
    # exponential, which the longer row has not, is compared on all models that have it
    assert found["across_models"] == without["across_models"]
    assert list(found["across_models"]) == ["exponential", "cosine", "static_averaged"]
    assert set(found["across_models"]["exponential"]["by_model"]) == {"resnet", "lstm"}


def test_a_schedule_that_a_model_has_not_is_compared_across_those_that_have_it():
    study = with_seeds(9)
    del study["resnet"]["exponential"]
    by_design = compare_as_written(study, SETTINGS)["across_models"]["exponential"]
    assert (by_design["num_models"], set(by_design["by_model"])) == (1, {"lstm"})
    # not where it should have run
    assert (
        "exponential" not in compare_as_written(study, SETTINGS, [("resnet", "exponential")])["across_models"]
    )
    # a longer row that has not run yet holds up nothing
    study = two_lengths()
    del study["resnet_20_epochs"]["cosine"]
    late = compare_as_written(study, SETTINGS, [("resnet_20_epochs", "cosine")])
    assert late["across_models"] == compare_as_written(cells(), SETTINGS)["across_models"]


def test_both_lengths_are_parts_of_the_main_claim_and_a_row_is_no_question_to_a_model_without_it(whole):
    claims = {claim.id: claim for claim in whole.claims}
    main = claims["dynamic_generalizes"]
    assert [part.model for part in main.parts] == ["resnet", "lstm", "resnet_20_epochs"]
    alone = main.by_schedule["exponential"]
    assert [part.model for part in alone.parts] == ["resnet", "lstm"]
    assert alone.untested == {}
    assert "resnet_20_epochs" not in alone.why
    # Where the study has the cell and it did not run, that is said.
    study = two_lengths(with_seeds(9))
    part = comparison(study, missing=("resnet_20_epochs-exponential",))
    alone = {claim.id: claim for claim in part.claims}["dynamic_generalizes"].by_schedule["exponential"]
    assert "resnet_20_epochs could not be tested (exponential or static did not run)" in alone.why


def test_the_claim_on_overfitting_is_tested_on_the_longer_row_alone(whole):
    found = next(claim for claim in whole.claims if claim.id == "static_overfits")
    assert found.untested["2 epochs are not more than 10"] == ["resnet", "lstm"]


def test_a_claim_that_nothing_bears_on_asks_for_no_training_of_a_network_twice(whole):
    once = comparison(with_seeds(9))

    def run(found: Comparison) -> ClaimRun:
        return next(claim.run for claim in found.claims if claim.id == "windows_equivalent")

    assert run(whole) == run(once)
    assert run(whole).core_hours > 0


def test_the_papers_gaps_are_filled_by_rows_that_searched_for_themselves(whole):
    for gap in whole.gaps[:4]:
        assert not [value for value in gap.values if value.cell.startswith("resnet_20_epochs")], gap.gap
        assert "resnet_20_epochs" not in gap.text
    results = whole.gaps[4]
    assert {value.cell for value in results.values} >= {"resnet-cosine", "resnet_20_epochs-cosine"}
    # ... and are not missing where such a row lacks a cell
    study = two_lengths()
    part = comparison(study, missing=("resnet_20_epochs-exponential",))
    decay = next(gap for gap in part.gaps if gap.gap == "decay rate")
    assert decay.missing == []


def test_the_report_has_both_lengths_side_by_side(whole):
    text = render_markdown(whole)
    assert [model_title(whole, model) for model in whole.cells] == [
        "resnet on CIFAR-10, 2 epochs", "lstm on IMDB", "resnet_20_epochs on CIFAR-10, 20 epochs",
    ]  # fmt: skip
    found = tables(text)
    assert [row["schedule"] for row in found["resnet_20_epochs on CIFAR-10, 20 epochs"]] == [
        "static", "cosine", "static_averaged",
    ]  # fmt: skip
    assert "2 and 20 epochs of cifar10, 2 epochs of imdb" in text
    assert (
        "resnet_20_epochs has the values that the search for resnet found, stretched with the length." in text
    )
    assert "resnet_20_epochs is not counted: it is resnet once more" in text
    assert set(found["All models together"][0]) >= {"resnet", "lstm"}
    assert "resnet_20_epochs" not in found["All models together"][0]
    # There was no search of its own to tell of.
    sections = [section.title for section in document(whole).sections]
    assert "resnet on CIFAR-10, 2 epochs: the values found" in sections
    assert "resnet_20_epochs on CIFAR-10, 20 epochs: the values found" not in sections
    assert findings(whole)[2].startswith(
        "**resnet_20_epochs on CIFAR-10, 20 epochs**: validation chose cosine"
    )
    assert len({line.index("test/") for line in text_table(whole).splitlines() if "test/" in line}) == 1


def test_a_study_of_one_length_does_not_say_it_with_every_name():
    assert model_title(comparison(cells()), "resnet") == "resnet on CIFAR-10"


def test_a_row_with_another_optimizer_is_told_and_is_not_among_the_dynamic_ones():
    study = with_seeds(9)
    study["lstm"]["free"] = copy.deepcopy(study["lstm"]["static"])
    study["lstm"]["free"]["training"]["settings"]["optimizer"]["name"] = "schedule_free_adamw"
    found = comparison(study)
    assert (
        "lstm-free is trained with schedule_free_adamw, and static with sgd: no verdict on schedules includes it."
        in (render_markdown(found))
    )
    assert "free" not in next(c for c in found.claims if c.id == "dynamic_generalizes").by_schedule
    assert found.cells["lstm"]["free"].metrics["test/f1_macro"].difference.mean == 0.0


# --- figures ---

ORDER = ["static", "step", "cosine"]
COLUMNS = {
    "resnet": ["static", "cosine"],
    "lstm": ["static", "step", "cosine"],
    "resnet_20_epochs": ["cosine"],
}


def colours(figure) -> dict[str, set[str]]:
    """By label the colours of the lines that have it, over all panels."""
    found: dict[str, set[str]] = {}
    for panel in figure.axes:
        for line in panel.lines:
            if not line.get_label().startswith("_"):
                found.setdefault(line.get_label(), set()).add(line.get_color())
    return found


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_schedule_has_one_colour_in_all_panels_and_the_legend_has_each_once():
    rows = [
        {"model": model, "schedule": name, "epoch": epoch, "lr": 0.1}
        for model, columns in COLUMNS.items()
        for name in columns
        for epoch in (1, 2)
    ]
    drawn = [
        curve_figure(rows, {model: model for model in COLUMNS}, "lr", "rate"),
        budget_figure({m: {name: ([1, 2], [0.5, 0.4]) for name in names} for m, names in COLUMNS.items()}),
    ]
    for figure in drawn:
        assert {label: len(found) for label, found in colours(figure).items()} == dict.fromkeys(ORDER, 1)
        assert len(set.union(*colours(figure).values())) == 3
        assert sorted(legend(figure)) == sorted(ORDER)


def test_differences_have_the_colour_of_their_schedule_in_every_panel():
    panels = {m: {name: ([1.0], 1.0, (0.5, 1.5)) for name in names} for m, names in COLUMNS.items()}
    figure = difference_figure(panels, "points")
    of = [
        {
            label.get_text(): panel.lines[1 + 3 * row].get_color()
            for row, label in enumerate(panel.get_yticklabels())
        }
        for panel in figure.axes
    ]
    assert [list(found) for found in of] == list(COLUMNS.values())
    assert len({found["cosine"] for found in of}) == 1
    assert len({*of[1].values()}) == 3


@pytest.mark.parametrize(
    ("count", "rows"), [(1, [1]), (3, [3]), (4, [2, 2]), (5, [3, 2]), (6, [3, 3]), (7, [3, 3, 1])]
)
def test_more_than_three_panels_stand_in_rows(count, rows):
    panels = {f"model {n}": {"static": ([1, 2], [0.5, 0.4])} for n in range(count)}
    figure = budget_figure(panels)
    places = [panel.get_subplotspec().rowspan.start for panel in figure.axes]
    assert [places.count(row) for row in range(len(rows))] == rows
    # the y axis is said once a row
    assert sum(bool(panel.get_ylabel()) for panel in figure.axes) == len(rows)
