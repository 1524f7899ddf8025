"""Tables of the documents are what committed JSON says: measured numbers that nobody can trace are not stated."""

import json
import re

import pytest

from test_committed import ROOT, committed


def marked_tables(file: str) -> dict[str, list[list[str]]]:
    """The cells, without the header, of each table below a mark ``<!-- from <file>: <what> -->``, by the mark."""
    found: dict[str, list[list[str]]] = {}
    mark = None
    for line in (ROOT / file).read_text().splitlines():
        if match := re.fullmatch(r"<!-- from (.+) -->", line):
            mark = match[1]
            found[mark] = []
        elif mark and line.startswith("|"):
            found[mark].append([cell.strip() for cell in line.strip("|").split("|")])
        elif mark and found[mark]:
            mark = None
    return {mark: rows[:1] + rows[2:] for mark, rows in found.items()}


def late_decay() -> dict:
    return json.loads(committed("reports/late_decay.json"))


def test_the_theorys_table_of_decays_is_the_committed_one():
    toy = late_decay()["toy"]
    steps = ["never" if step == toy["settings"]["num_steps"] else f"{step:,}" for step in toy["decay_steps"]]
    assert marked_tables("docs/theory.md")["reports/late_decay.json: toy.powers.test_loss"] == [
        ["rate decays at update", *steps],
        *(
            [f"g = {power}", *(f"{decay['mean']:.3f}" for decay in found["test_loss"])]
            for power, found in toy["powers"].items()
        ),
    ]


def test_the_theorys_settings_and_smallest_loss_are_the_committed_ones():
    toy = late_decay()["toy"]
    settings = toy["settings"]
    low = settings["base_lr"] * settings["decay_factor"]
    expected = (
        f"Of {settings['num_steps']:,} updates (n = {settings['num_examples']}, d = {settings['dimension']}, rate "
        f"{settings['base_lr']:g}, then {low:g}, s = {settings['noise']:g}, start at "
        f"{settings['initial_norm']:g} times the smallest norm), mean test loss over {settings['num_seeds']} seeds; "
        f"the minimum-norm solution has {toy['minimum_norm_test_loss']['mean']:.3f}:"
    )
    assert expected in " ".join((ROOT / "docs/theory.md").read_text().split())


def test_the_theorys_table_of_claims_is_the_committed_one():
    claims = [claim for claim in late_decay()["claims"] if claim["id"] == "late_decay_toy"]
    assert marked_tables("docs/theory.md")["reports/late_decay.json: claims"] == [
        ["", "difference", "interval", "p", "verdict"],
        *(
            [
                claim["where"].removeprefix("toy model, "),
                f"{claim['mean']:+.4f}",
                "{:+.4f} to {:+.4f}".format(*claim["interval"]),
                f"{claim['p']:.2g}",
                claim["verdict"],
            ]
            for claim in claims
        ),
    ]


def test_what_the_theory_says_of_networks_is_that_none_was_measured():
    """When a study has measured some, their numbers belong there, in a marked table."""
    found = late_decay()["models"], json.loads(committed("reports/level_sets.json"))["models"]
    assert found == ({}, {})
    text = (ROOT / "docs/theory.md").read_text()
    assert "measured no network here" in text
    assert "holds no model" in text


@pytest.mark.parametrize("file", ["docs/theory.md"])
def test_a_table_with_measured_numbers_says_which_file_has_them(file):
    """docs/theory.md once told of an 88-minute run whose JSON was in no commit."""
    traced = [row for rows in marked_tables(file).values() for row in rows]
    for line in (ROOT / file).read_text().splitlines():
        if line.startswith("|") and re.search(r"\d\.\d", line):
            assert [cell.strip() for cell in line.strip("|").split("|")] in traced, line


def test_what_cannot_be_traced_is_called_history():
    text = (ROOT / "notes/theory-history.md").read_text()
    assert text.splitlines()[2].startswith("**A historical note, not a result.**")
    for section in text.split("\n## ")[1:]:
        assert re.search(r"Measured with the code .*[0-9a-f]{7}", section)


def references() -> dict:
    return json.loads(committed("benchmarks/results/references.json"))


def test_the_table_of_linear_references_is_the_committed_one():
    rows = marked_tables("docs/data.md")["benchmarks/results/references.json: metrics"]
    assert rows[1:] == [
        [
            found["data"]["label"],
            found["title"],
            *(
                f"{100 * found['metrics'][name]:.2f}" if name in found["metrics"] else ""
                for name in ("test/accuracy", "test/f1_macro", "test/f1")
            ),
            f"{found['num_features']:,}",
            f"{found['seconds']:.0f}",
        ]
        for found in references().values()
    ]
    assert all(found["converged"] for found in references().values())
    (processor,) = {found["processor"] for found in references().values()}
    assert processor in (ROOT / "docs/data.md").read_text()


def test_the_table_of_duplicates_is_the_committed_one():
    rows = marked_tables("docs/data.md")["benchmarks/results/references.json: duplicates"]
    names = ("train", "validation", "test", "validation_in_train", "test_in_train", "test_in_validation")
    assert rows[1:] == [
        [found["data"]["label"], *(f"{found['duplicates'][name]}" for name in names)]
        for found in references().values()
    ]


def test_the_settings_of_the_linear_references_are_those_of_the_code():
    from lrstudy.data.references import REFERENCES

    for found, kind in zip(references().values(), ("image", "text"), strict=True):
        chosen = REFERENCES[kind]
        assert found["settings"] == {**chosen.features, "C": chosen.C, "max_iter": chosen.max_iter}
        assert found["title"] == chosen.title
