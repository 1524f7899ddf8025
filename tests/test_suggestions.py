"""Suggested against tuned rates: which cells count, what a ratio and a summary are, and what the page says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import known_study
from lrstudy import docs
from lrstudy.analysis.suggestions import ComparedCell, compare_suggestions, summaries
from lrstudy.study.outputs import FoundRates


def test_of(model: str, **changes) -> FoundRates:
    return FoundRates.model_validate(known_study.range_tests(model) | changes)


test_of.__test__ = False


@pytest.fixture
def study() -> dict:
    """What stands in a comparison.json whose searches were within the noise from 0.1 to 0.3."""
    content = known_study.written(known_study.comparison(known_study.cells()))
    for schedules in content["cells"].values():
        for cell in schedules.values():
            cell["optimizer"] = "sgd"
            if cell["tuning"] is not None:
                cell["tuning"]["within_the_noise"]["values"] = {"base_lr": [0.1, 0.3]}
    return content


def searched(study: dict, model: str) -> list[str]:
    return [
        name
        for name, cell in study["cells"][model].items()
        if cell["tuning"] is not None and cell["tuned"] == "tuned" and not cell.get("view_of")
    ]


def test_a_ratio_is_the_suggested_over_the_tuned_rate_of_every_cell_that_was_searched(study):
    found = compare_suggestions([test_of("lstm")], known_study.read(study))
    assert [cell.schedule for cell in found] == searched(study, "lstm")
    assert found
    for cell in found:
        assert cell.tuned == study["cells"]["lstm"][cell.schedule]["base_lr"]
        assert cell.ratios == {"minimum": 0.25 / cell.tuned, "valley": None}
        assert cell.as_good == (0.1, 0.3)
        assert cell.is_as_good("minimum")
        assert not cell.is_as_good("valley")


@pytest.mark.parametrize("known", [{}, {"base_lr": [0.125, 0.125]}, {"base_lr": {"choices": [0.1, 0.2]}}])
def test_where_the_search_does_not_say_what_is_as_good_nothing_is_judged(study, known):
    for cell in study["cells"]["lstm"].values():
        if cell["tuning"] is not None:
            cell["tuning"]["within_the_noise"]["values"] = known
    found = compare_suggestions([test_of("lstm")], known_study.read(study))
    assert {cell.as_good for cell in found} == {None}
    assert [one.judged for one in summaries(found)] == [0]


def test_a_test_on_other_data_or_with_another_optimizer_says_nothing_of_a_cell(study):
    data = known_study.range_tests("lstm")["data"] | {"fingerprint": "another"}
    comparison = known_study.read(study)
    assert compare_suggestions([test_of("lstm", data=data)], comparison) == []
    assert compare_suggestions([test_of("lstm", optimizer="adam")], comparison) == []
    of_another = test_of("lstm").model_copy(update={"model": "another"})
    assert compare_suggestions([of_another], comparison) == []


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8))
def test_the_factor_is_the_same_for_twice_as_much_and_for_half(ratios):
    def summary(values: list[float]):
        cells = [
            ComparedCell("lstm", str(k), 0.1, (0.05, 0.2), {"valley": value})
            for k, value in enumerate(values)
        ]
        [one] = summaries(cells)
        return one

    one, inverse = summary(ratios), summary([1 / ratio for ratio in ratios])
    assert one.factor == pytest.approx(inverse.factor)
    assert one.factor == pytest.approx(math.prod(max(r, 1 / r) for r in ratios) ** (1 / len(ratios)))
    assert (one.low, one.high, one.cells, one.judged) == (min(ratios), max(ratios), len(ratios), len(ratios))
    assert one.as_good == sum(0.05 <= ratio * 0.1 <= 0.2 for ratio in ratios)


def test_cells_of_one_model_are_one_model():
    cells = [ComparedCell("lstm", name, 0.1, None, {"valley": 1.0, "minimum": None}) for name in "abc"]
    cells.append(ComparedCell("resnet", "a", 0.1, None, {"valley": None, "minimum": None}))
    [one] = summaries(cells)
    assert (one.rule, one.models, one.cells, one.without) == ("valley", 1, 3, 1)


def test_the_page_has_the_numbers_of_the_files(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    comparison = known_study.read(study)
    assert docs.suggested_against_tuned(comparison, []).startswith("No cell has both")
    test_of("lstm").write(tmp_path / "reports/finder/lstm.json")
    tests = docs.range_tests(comparison, []).splitlines()
    assert "| 2 x 10 | 0.25 (0.12 to 0.5) | none | 12, " in tests[2]
    lines = docs.suggested_against_tuned(comparison, []).splitlines()
    names = searched(study, "lstm")
    tuned = {name: study["cells"]["lstm"][name]["base_lr"] for name in names}
    assert lines[2 : 2 + len(names)] == [
        f"| lstm | {name} | {tuned[name]:.2g} | 0.1 to 0.3 | {0.25 / tuned[name]:.2f} ✓ | none |"
        for name in names
    ]
    assert lines[-1] == (
        f"**minimum**: {0.25 / max(tuned.values()):.2f} to {0.25 / min(tuned.values()):.2f} times the tuned "
        f"rate in {len(names)} cells of 1 model; off by a factor of 2.00 in the geometric mean; as good in "
        f"{len(names)} of the {len(names)} that say."
    )
