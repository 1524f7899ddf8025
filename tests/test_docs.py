"""The parts of documents that are made from what the study found."""

import re
from pathlib import Path

import pytest

import known_study
import tiny_data
from lrstudy import docs
from lrstudy.analysis.records import Comparison
from lrstudy.docs import DOCUMENTS, ENTRIES, PAGES, PARTS, made
from lrstudy.errors import StudyError
from lrstudy.report.words import headline


@pytest.fixture(scope="module")
def found() -> Comparison:
    return known_study.comparison(known_study.cells())


def text(*parts: str) -> str:
    """A document with these parts, empty."""
    return "# Title\n\n" + "\n\n".join(f"<!-- made by make docs: {part} -->\n<!-- end -->" for part in parts)


def rows(part: str, comparison: Comparison, records=()) -> list[list[str]]:
    """The cells of the part's table, without its header."""
    lines = [line for line in PARTS[part](comparison, records).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_part_is_made_between_its_marks_and_what_stands_around_stays(found):
    before = text(*PARTS) + "\n\nafter"
    once = made(before, "README.md", found, [])
    assert re.sub(r"(docs: \w+ -->\n).*?(<!-- end)", r"\1\2", once, flags=re.DOTALL) == before
    assert all(PARTS[part](found, []) in once for part in PARTS)
    assert made(once, "README.md", found, []) == once


def test_a_part_that_there_is_not_is_named_with_those_that_there_are(found):
    with pytest.raises(StudyError, match=r"README\.md: made by make docs: 'result' .*Did you mean 'results'"):
        made(text("result"), "README.md", found, [])


def test_results_are_the_comparisons_to_the_digit(found):
    told = {(row[0].partition(",")[0], row[1]): row for row in rows("results", found)}
    reference = found.protocol.reference
    for model, schedules in found.cells.items():
        for schedule, cell in schedules.items():
            metric = cell.metrics[headline(found, cell)]
            row = told[model, schedule]
            assert row[3].split(" ± ")[0] == f"{100 * metric.mean:.2f}"
            assert row[5] == f"{len(cell.seeds)} of {len(found.protocol.seeds)}"
            if schedule != reference:
                assert row[4].split(" ")[0] == f"{100 * metric.difference.mean:+.2f}"
            else:
                assert row[4] == ""


def test_below_the_schedules_stands_what_they_are_to_be_held_against(found):
    metrics = {name: one.metrics for name, one in found.references.items()}
    headline_of = found.protocol.headline
    assert [row[3] for row in rows("results", found) if row[0].startswith("*")] == [
        f"{100 * metrics[name][headline_of[name]]:.2f}" for name in metrics
    ]


def test_claims_are_told_with_the_comparisons_verdicts(found):
    assert [row[:2] for row in rows("claims", found)] == [
        [claim.claim, claim.verdict] for claim in found.claims
    ]


def test_trainings_are_counted_and_their_core_hours_added(found):
    records = [tiny_data.record([0.5, 0.4]), tiny_data.record([0.5, 0.4, 0.3])]
    *groups, every = rows("trainings", found, records)
    seconds = sum(sum(record.history["compute_seconds"]) * record.settings["threads"] for record in records)
    assert every[0] == "all"
    assert every[4] == f"{seconds / 3600:.2f}"
    assert sum(int(row[2]) + int(row[3]) for row in groups) == int(every[2]) + int(every[3]) == len(records)


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "page",
    [page for folder in (".", "docs", "notes") for page in sorted((ROOT / folder).glob("*.md"))],
    ids=str,
)
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_documents_have_parts():
    for path in DOCUMENTS:
        named = re.findall(r"<!-- made by make docs: (.+?) -->", (ROOT / path).read_text())
        assert named
        assert set(named) <= set(PARTS)


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_the_pages_about_entries_are_as_they_are_made_now(path):
    text = (ROOT / path).read_text()
    assert made(text, str(path), None, []) == text, "`make docs` writes it"


def test_a_networks_sizes_stand_with_their_kind_and_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("sized.py").write_text("def net(num_classes, width: int, deep: int = 4, flat: bool = False): ...\n")
    monkeypatch.setattr("lrstudy.docs.architectures", lambda: {"sized:net": "sized.net"})
    assert docs.networks().splitlines()[2] == (
        "| sized:net | `sized.net` | width, a whole number; deep, a whole number, default 4; "
        "flat: true or false, default false |"
    )


def test_where_a_part_is_none_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("first.md").write_text(text("networks"))
    Path("second.md").write_text(text("netwroks"))
    monkeypatch.setattr(docs, "PAGES", (Path("first.md"), Path("second.md")))
    monkeypatch.setattr("sys.argv", ["docs", "--entries"])
    with pytest.raises(StudyError, match=r"second\.md: .*'netwroks' .*Did you mean 'networks'"):
        docs.main()
    assert Path("first.md").read_text() == text("networks")


def test_what_a_preset_can_decide_is_what_make_design_prints():
    page = (ROOT / "docs/protocol.md").read_text()
    assert re.findall(r"<!-- made by make docs: design (\S+) -->", page) == ["preset=cpu", "preset=smoke"]
    assert "This design can decide 3 of 8 claims" in docs.designed("preset=cpu")


def test_every_entry_stands_on_its_page():
    pages = "".join((ROOT / path).read_text() for path in PAGES)
    for part in ENTRIES:
        assert f"<!-- made by make docs: {part} -->" in pages
