"""The report says what comparison.json says, in words that the numbers carry."""

import copy
import functools
import json
import math
import re
from html.parser import HTMLParser

import pytest

from known_study import SETTINGS, cells, comparison, identity, trained_elsewhere
from lrstudy.errors import StudyError
from lrstudy.report import document, findings, main, read_comparison, render_html, render_markdown, text_table


@functools.cache
def _known_text() -> str:
    return json.dumps(comparison(cells()))


def known() -> dict:
    """The whole known study, read back as the report reads it."""
    return json.loads(_known_text())


def with_seeds(count: int) -> dict[str, dict[str, dict]]:
    """The known study with ``count`` seeds; those after the third are like the third, a little better each."""
    changed = cells()
    for schedules in changed.values():
        for name, cell in schedules.items():
            for seed in range(4, count + 1):
                cell["scores"][str(seed)] = copy.deepcopy(cell["scores"]["3"])
                for found in cell["scores"][str(seed)].values():
                    found["accuracy"] += 0 if name == "static" else seed / 1000
                    found["f1"] += 0 if name == "static" else seed / 1000
                cell["training"]["seeds"][str(seed)] = cell["training"]["seeds"]["3"]
                cell["history"] += [
                    row | {"seed": float(seed)} for row in cell["history"] if row["seed"] == 3
                ]
            for seed in range(count + 1, 4):
                del cell["scores"][str(seed)], cell["training"]["seeds"][str(seed)]
                cell["history"] = [row for row in cell["history"] if row["seed"] != seed]
    return changed


def tables(markdown: str) -> dict[str, list[dict[str, str]]]:
    """The Markdown tables by the heading above them, a dict per row; the two interval columns told apart."""
    found, title, header = {}, None, None
    for line in markdown.splitlines():
        if line.startswith("#"):
            title, header = line.lstrip("# "), None
        elif line.startswith("|"):
            fields = [field.strip() for field in line.strip("|").split("|")]
            if header is None:
                header = [f"difference's {f}" if f in fields[:i] else f for i, f in enumerate(fields)]
                found[title] = []
            elif not set(line) <= set("|-"):
                found[title].append(dict(zip(header, fields, strict=True)))
    return found


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_every_number_of_the_tables_is_in_the_json(num_seeds):
    given = known() if num_seeds == 3 else comparison(with_seeds(num_seeds))
    found = tables(render_markdown(given))
    found = {title: found[title] for title in ("resnet on CIFAR-10", "lstm on IMDB")}
    for (model, schedules), rows in zip(given["cells"].items(), found.values(), strict=True):
        name = {"resnet": "test/accuracy", "lstm": "test/f1_macro"}[model]
        schedules = schedules | given["views"][model]
        assert [row["schedule"] for row in rows] == ["static", "exponential", "cosine", "static_averaged"]
        for row, cell in zip(rows, schedules.values(), strict=True):
            metric = cell["metrics"][name]
            assert row[name] == percent(metric["mean"])
            assert row["spread over seeds"] == percent(metric["spread"])
            assert row["95% interval"] == " to ".join(percent(bound) for bound in metric["interval"])
            gap, best_epoch = (cell["metrics"][name]["mean"] for name in ("generalization_gap", "best_epoch"))
            if "view_of" in cell:  # averaged weights are of no epoch
                shown = (row["generalization gap"], row["lowest validation loss at epoch"])
                assert shown == ("none", "none")
            else:
                assert row["generalization gap"] == percent(gap)
                assert float(row["lowest validation loss at epoch"]) == pytest.approx(best_epoch, rel=1e-3)
            assert row["base rate"] == "0.125"
            difference = metric.get("difference")
            if row["schedule"] == "static":
                assert difference is None
                assert (row["difference to static"], row["difference's 95% interval"], row["p (Holm)"]) == (
                    "",
                    "",
                    "",
                )
                continue
            assert row["difference to static"] == f"{100 * difference['mean']:+.2f}"
            low, high = (float(bound) for bound in row["difference's 95% interval"].split(" to "))
            assert (low, high) == pytest.approx([100 * bound for bound in difference["interval"]], abs=0.005)
            assert float(row["p (Holm)"]) == pytest.approx(difference["p_holm"], rel=5e-3)
    assert found["resnet on CIFAR-10"][1]["parameters"] == "decay_rate 0.25"
    assert found["resnet on CIFAR-10"][0]["parameters"] == "none"


def test_a_changed_number_changes_the_report():
    given = known()
    given["cells"]["resnet"]["static"]["metrics"]["test/accuracy"]["mean"] = 0.654321
    assert "| static | 65.43 |" in render_markdown(given)
    assert "65.43" in text_table(given)


def test_what_was_measured_on_is_said():
    text = render_markdown(known())
    assert "CIFAR-10 (45,000 training, 5,000 validation, 10,000 test examples; official)" in text
    assert "IMDB (22,500 training, 2,500 validation, 25,000 test examples; not the official files)" in text
    assert "3 seeds, 2 epochs of cifar10, 2 epochs of imdb, 8 tuning trials for every schedule" in text
    assert "fingerprint `c1f4`" in text
    untuned = known()
    untuned["protocol"]["num_trials"] = 0
    assert "not tuned: the defaults of conf/" in render_markdown(untuned)


def test_the_sample_is_said_in_the_title_and_only_the_sample():
    given = known()
    real = render_markdown(given)
    given["protocol"]["source"] = "sample"
    sample = render_markdown(given)
    assert "embedded sample, not a result" in sample.splitlines()[0]
    assert "This is the embedded sample" in sample
    assert "the sample" not in real
    assert "embedded" not in real


def test_missing_cells_are_named():
    changed = cells()
    del changed["resnet"]["cosine"], changed["lstm"]["exponential"]
    given = comparison(changed, missing=("resnet-cosine", "lstm-exponential"))
    assert "**Missing cells** (not run, no number here includes them): resnet-cosine, lstm-exponential." in (
        render_markdown(given)
    )
    assert text_table(given).count("missing: it has not run") == 2
    assert "Missing cells" not in render_markdown(known())


def test_diverged_runs_are_named():
    assert "accuracy and F1 of 0): resnet-cosine seed 2." in render_markdown(known())
    changed = cells()
    del changed["resnet"]["cosine"]
    assert "Diverged" not in render_markdown(comparison(changed))


POWER = [
    (
        3,
        "with 3 seeds no p can be below 0.25, nor below 0.5 once adjusted**, so no difference can reach 0.05",
    ),
    (
        5,
        "with 5 seeds no p can be below 0.0625, nor below 0.125 once adjusted**, so no difference can reach 0.05",
    ),
    # two schedules are tested: 2 x 2 / 2^6 is still above 0.05
    (
        6,
        "with 6 seeds no p can be below 0.0312, nor below 0.0625 once adjusted**, so no difference can reach 0.05",
    ),
    (7, "with 7 seeds no p can be below 0.0156, nor below 0.0312 once adjusted**, so 0.05 can be reached"),
]


@pytest.mark.parametrize(("num_seeds", "statement"), POWER)
def test_the_power_of_so_many_seeds_is_stated(num_seeds, statement):
    given = comparison(with_seeds(num_seeds))
    assert statement in render_markdown(given)
    reached = [
        metric["difference"]["p_holm"]
        for schedules in given["cells"].values()
        for cell in schedules.values()
        for metric in cell["metrics"].values()
        if "p" in metric.get("difference", {})
    ]
    assert min(reached) >= 2 * 2 / 2**num_seeds - 1e-12


def test_the_findings_name_the_best_schedule_its_lead_and_how_sure_it_is():
    few, many = findings(known()), findings(comparison(with_seeds(7)))
    assert few == [
        "**resnet on CIFAR-10**: the best dynamic schedule is exponential, +3.00 points of test/accuracy against "
        "static (interval +1.00 to +5.00, p 0.5 after Holm). 3 seeds tell no difference from chance, whatever its size.",
        "**lstm on IMDB**: the best dynamic schedule is cosine, +5.00 points of test/f1_macro against static "
        "(interval +4.00 to +6.00, p 0.5 after Holm). 3 seeds tell no difference from chance, whatever its size.",
    ]
    assert many[1].startswith("**lstm on IMDB**: the best dynamic schedule is cosine, ")
    assert many[1].endswith("p 0.0312 after Holm). This is more than chance.")


def test_from_a_single_seed_nothing_is_concluded():
    text = render_markdown(comparison(with_seeds(1)))
    assert (
        "+5.00 points of test/f1_macro against static: a single seed, from which nothing can be concluded."
        in text
    )
    assert "than chance" not in text
    assert "from chance" not in text
    assert "1 seed, 2 epochs" in text
    rows = tables(text)["lstm on IMDB"]
    assert [row["spread over seeds"] for row in rows] == ["none"] * 4
    assert [row["95% interval"] for row in rows] == ["none"] * 4
    assert [row["p (Holm)"] for row in rows] == [""] * 4


def test_a_reference_that_did_not_run_is_said_and_nothing_is_compared():
    changed = cells()
    del changed["resnet"]["static"]
    given = comparison(changed, missing=("resnet-static",))
    assert findings(given)[0] == (
        "**resnet on CIFAR-10**: the reference static did not run, so there is no difference to tell."
    )
    rows = tables(render_markdown(given))["resnet on CIFAR-10"]
    assert [row["difference to static"] for row in rows] == ["", ""]
    for name in ("exponential", "cosine"):
        del given["cells"]["lstm"][name]
    assert len(findings(given)) == 1  # of static alone there is nothing to say


def test_a_cell_that_diverged_everywhere_is_still_a_row():
    changed = cells()
    cell = changed["resnet"]["cosine"]
    for seed in "13":
        cell["scores"][seed], cell["training"]["seeds"][seed]["status"] = cell["scores"]["2"], "diverged"
    row = tables(render_markdown(comparison(changed)))["resnet on CIFAR-10"][2]
    assert (row["test/accuracy"], row["generalization gap"]) == ("0.00", "none")
    assert row["lowest validation loss at epoch"] == "none"


def test_the_terminals_table_has_a_line_for_every_cell_in_columns():
    header, *lines = text_table(known()).splitlines()
    assert re.split(r"\s{2,}|\s(?=schedule|metric)", header) == [
        "model", "schedule", "metric", "mean", "spread", "seeds", "data",
    ]  # fmt: skip
    assert len(lines) == 6
    assert lines[0].split() == ["resnet", "static", "test/accuracy", "72.00", "2.00", "3", "CIFAR-10"]
    assert lines[5].split() == ["lstm", "cosine", "test/f1_macro", "85.00", "1.00", "3", "IMDB"]
    for word, figure in (("mean", "72.00"), ("spread", "2.00")):
        assert header.index(word) + len(word) == lines[0].index(f" {figure} ") + len(figure) + 1


def test_the_command_prints_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/comparison.json").write_text(_known_text())
    main()
    assert capsys.readouterr().out == text_table(known()) + "\n"


def test_a_missing_or_broken_comparison_is_one_clear_error(tmp_path):
    path = tmp_path / "comparison.json"
    with pytest.raises(StudyError, match=r"comparison\.json: not found; `dvc repro compare` makes it"):
        read_comparison(path)
    path.write_text('{\n"cells": ')
    with pytest.raises(StudyError, match=r"comparison\.json: not JSON \(line 2\)"):
        read_comparison(path)
    path.write_text(json.dumps({name: {} for name in known() if name != "models"}))
    with pytest.raises(
        StudyError, match=r"has no models: another version wrote it; `dvc repro -f -s compare`"
    ):
        read_comparison(path)
    path.write_text(_known_text())
    assert math.isclose(
        read_comparison(path)["cells"]["lstm"]["cosine"]["metrics"]["test/f1_macro"]["mean"], 0.85
    )


def test_controllers_are_named_and_reconstructions_labelled():
    study = comparison(cells())
    assert "Controller" not in render_markdown(study)
    cell = study["cells"]["resnet"]["cosine"]
    cell |= {"controller": "gradient_modulated", "interventions": {"1": 2, "2": 1}}
    line = next(row for row in render_markdown(study).splitlines() if row.startswith("Controller"))
    assert "`gradient_modulated` (our reconstruction after the abstract of arXiv 2409.16769" in line
    assert line.endswith("was on resnet-cosine: 3 interventions in all.")


# --- what stands behind the cells ---

BEHIND = "What stands behind each cell"


def section(study: dict, title: str):
    return next(section for section in document(study).sections if section.title == title)


def notes(study: dict) -> list[str]:
    """What the notes at the main table say of machines and dtypes."""
    return [
        line
        for line in document(study).sections[0].after
        if not line.startswith(("Diverged", "Controller", "**Missing"))
    ]


def test_of_trainings_that_are_all_alike_one_line_is_said():
    assert notes(known()) == [
        "All trainings: one kind of machine (AMD EPYC (avx512)), float32, torch 2.14.1."
    ]
    rows = tables(render_markdown(known()))[BEHIND]
    assert len(rows) == 6
    assert rows[5] == {
        "model": "lstm",
        "schedule": "cosine",
        "seeds": "1, 2, 3",
        "kind of machine": "AMD EPYC (avx512)",
        "machine": "e4bbde5c",
        "device": "cpu",
        "dtype": "float32",
        "torch": "2.14.1",
        "lrstudy": "0.1.0",
        "code revision": "811a50eb",
        "trained": "2023-11-14",
    }
    assert section(known(), BEHIND).after == []


def in_two_dtypes(**settings) -> dict:
    """resnet-exponential in bfloat16 but for seed 3, and that of lstm-static; lstm-cosine on two machines."""
    study = cells()
    trained_elsewhere(study["resnet"]["exponential"], "12", "bfloat16")
    trained_elsewhere(study["lstm"]["static"], "3", "bfloat16", torch="2.13.0")
    trained_elsewhere(study["lstm"]["cosine"], "12", accelerator="NVIDIA H100", ended=1_700_086_400.0)
    return json.loads(json.dumps(comparison(study, settings=SETTINGS.model_copy(update=settings))))


def test_cells_of_several_dtypes_and_pairs_that_are_left_out_are_said():
    study = in_two_dtypes()
    assert notes(study) == [
        "Trainings: 2 kinds of machine, float32 and bfloat16, torch 2.14.1 and 2.13.0; by cell under What stands "
        "behind each cell.",
        "resnet-exponential: seeds 1 and 2 were trained in bfloat16, seed 3 in float32; not compared with static: "
        "seeds 1 and 2 (dtype bfloat16 against float32).",
        "lstm-static: seeds 1 and 2 were trained in float32, seed 3 in bfloat16.",
        "lstm-exponential: not compared with static: seed 3 (dtype float32 against bfloat16).",
        "lstm-cosine: not compared with static: seed 3 (dtype float32 against bfloat16).",
    ]
    row = next(
        row
        for row in tables(render_markdown(study))["resnet on CIFAR-10"]
        if row["schedule"] == "exponential"
    )
    assert row["difference to static"] == "+5.00"  # of seed 3 alone
    assert row["p (Holm)"] == ""
    assert section(study, "resnet on CIFAR-10").after == [
        "Left out of the ranks: seeds 1 and 2, where not all schedules ran in one dtype."
    ]
    ranks, left_out = section(study, "lstm on IMDB").after
    assert ranks.startswith("Average ranks over 2 seeds")
    assert left_out == "Left out of the ranks: seed 3, where not all schedules ran in one dtype."


def test_the_table_says_which_seeds_were_trained_where_and_which_pairs_differ():
    study = in_two_dtypes()
    rows = tables(render_markdown(study))[BEHIND]
    assert rows[3]["torch"] == "2.14.1 (seeds 1 and 2); 2.13.0 (seed 3)"
    assert rows[5]["kind of machine"] == "NVIDIA H100 (seeds 1 and 2); AMD EPYC (avx512) (seed 3)"
    assert rows[5]["device"] == "cuda (seeds 1 and 2); cpu (seed 3)"
    assert rows[5]["trained"] == "2023-11-14 to 2023-11-15"
    assert section(study, BEHIND).after == [
        "Pairs that differ and are compared: lstm-cosine against static: seeds 1 and 2 (kind of machine NVIDIA H100 "
        "against AMD EPYC (avx512), device cuda against cpu)."
    ]
    assert "Pairs that differ in dtype are not compared" in render_markdown(study)


def test_pooled_models_say_which_seed_is_left_out_for_its_dtypes():
    changed = cells()
    trained_elsewhere(changed["resnet"]["exponential"], "2", "bfloat16")
    (text,) = section(comparison(changed), "All models together").text
    assert text.startswith("Interquartile mean of the 4 runs of 2 models")
    assert text.endswith("Seed 2 is left out: not all schedules of resnet ran in one dtype.")


def test_dtypes_that_are_compared_as_asked_for_are_said_too():
    study = in_two_dtypes(across_dtypes=True)
    assert (
        "lstm-cosine: compared with static across dtypes, as asked for: seed 3 (dtype float32 against bfloat16, "
        "torch 2.14.1 against 2.13.0)." in notes(study)
    )
    text = render_markdown(study)
    assert "not compared with" not in text
    assert "Left out" not in text
    assert "Pairs that differ in dtype are compared, as `compare.across_dtypes` asks" in text


def test_a_model_whose_reference_ran_in_another_dtype_has_no_difference_to_tell():
    changed = cells()
    trained_elsewhere(changed["lstm"]["static"], "123", "bfloat16")
    study = comparison(changed)
    assert findings(study)[1] == (
        "**lstm on IMDB**: the reference static ran in another dtype, so there is no difference to tell."
    )
    rows = tables(render_markdown(study))["lstm on IMDB"]
    assert [(row["test/f1_macro"], row["difference to static"], row["p (Holm)"]) for row in rows] == [
        ("80.00", "", ""),
        ("80.33", "", ""),
        ("85.00", "", ""),
        ("84.00", "+4.00", "0.25"),  # the same trainings as static's
    ]
    assert "All models together" not in [section.title for section in document(study).sections]
    assert html(study)


def test_the_power_that_is_stated_is_that_of_the_pairs_that_are_compared():
    changed = with_seeds(7)
    trained_elsewhere(changed["lstm"]["cosine"], "4567", "bfloat16")
    assert findings(comparison(changed))[1].endswith(
        "3 seeds tell no difference from chance, whatever its size."
    )


def test_each_training_is_told_by_its_name_in_the_ledger():
    text = render_markdown(known())
    assert "`python -m lrstudy.ledger show <identity>`" in text
    assert "predictions.parquet" not in text
    row = tables(text)["Where the numbers come from"][-1]
    assert row["identity"] == f"`{identity('lstm', 'cosine', '3')[:16]}`"
    assert row["MLflow run"] == "run-lstm-cosine-3"


def test_numbers_of_the_version_that_told_no_machines_are_rendered_as_such(tmp_path):
    old = known()
    del old["protocol"]["across_dtypes"]
    for schedules in old["cells"].values():
        for cell in schedules.values():
            del cell["identities"], cell["origins"]
            for metric in cell["metrics"].values():
                if "difference" in metric:
                    del metric["difference"]["left_out"], metric["difference"]["mixed"]
    for found in (*old["models"].values(), *old["across_models"].values()):
        del found["left_out"]
    (tmp_path / "comparison.json").write_text(json.dumps(old))
    study = read_comparison(tmp_path / "comparison.json")
    assert section(study, BEHIND).text == [
        "Not recorded: the version that wrote these numbers told no machines."
    ]
    assert notes(study) == []
    text = render_markdown(study)
    assert "lrstudy.ledger" not in text
    assert tables(text)["Where the numbers come from"][0] == {
        "cell": "resnet-static",
        "seed": "1",
        "MLflow run": "run-resnet-static-1",
    }
    assert tables(text)["lstm on IMDB"] == tables(render_markdown(known()))["lstm on IMDB"]


# --- what tuning found ---


def test_the_search_is_told_in_the_papers_words_with_what_a_wrong_value_costs():
    text = render_markdown(known())
    assert "Every schedule had 8 trials with the seed 101, none of those above" in text
    assert "on 0.25 of the training data; the best of them and the defaults went on to 1.0" in text
    rows = [line for line in text.splitlines() if line.startswith("| exponential | decay rate |")]
    assert (
        rows
        == [
            "| exponential | decay rate | 0.25 per epoch | 0.05 to 0.5 | not judged | +20.0% (+1.0 to +9.0) |"
        ]
        * 2
    )
    assert (
        "| static | base learning rate | 0.125 | 0.025 to 0.25 | +5.0% (+1.0 to +9.0) | not judged |" in text
    )
    assert "| cosine | 0.875 | 0.75 | 8 | 1.5 |" in text
    assert (
        "the safest schedule first: static (base_lr halved: +5.0% (+1.0 to +9.0)); "
        "cosine (base_lr halved: +5.0% (+1.0 to +9.0)); "
        "exponential (decay_rate doubled: +20.0% (+1.0 to +9.0))." in text
    )


def test_without_a_search_there_is_no_section_on_it():
    study = known()
    for schedules in study["cells"].values():
        for cell in schedules.values():
            cell["tuning"] = None
    assert "What tuning found" not in render_markdown(study)


# --- one document, two forms ---

IMAGE = "data:image/svg+xml;base64,PHN2Zy8+"


class Page(HTMLParser):
    """What a browser would fetch, and the text of the table cells and headings, of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.addresses, self.anchors, self.ids = [], [], []
        self.cells, self.headings, self.scripts = [], [], 0
        self._into = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        for name in ("src", "href", "srcset", "poster", "action", "data"):
            if found.get(name, "").startswith("#"):
                self.anchors.append(found[name][1:])
            elif name in found:
                self.addresses.append(found[name])
        if "id" in found:
            self.ids.append(found["id"])
        self.scripts += tag == "script"
        if tag in ("td", "h1", "h2", "h3"):
            self._into = self.cells if tag == "td" else self.headings
            self._into.append("")

    def handle_endtag(self, tag):
        if tag in ("td", "h1", "h2", "h3"):
            self._into = None

    def handle_data(self, text):
        if self._into is not None:
            self._into[-1] += text


def html(study: dict) -> str:
    names = [figure.name for section in document(study).sections for figure in section.figures]
    return render_html(
        study, dict.fromkeys([*names, "differences.svg"], IMAGE), {"curves.csv": "data:text/csv;base64,"}
    )


def test_a_file_behind_several_figures_is_in_the_page_once():
    study, address = known(), "data:text/csv;base64,MQ=="
    figures = [figure for section in document(study).sections for figure in section.figures]
    names = [figure.name for figure in figures if figure.data == "curves.csv"]
    images = dict.fromkeys([*(figure.name for figure in figures), "differences.svg"], IMAGE)
    page = render_html(study, images, {"curves.csv": address})
    assert page.count(address) == page.count('id="file-curves.csv"') == 1
    assert page.count('href="#file-curves.csv"') == len(names) > 1


def test_html_and_markdown_say_the_same():
    study = known()
    page = Page(html(study))
    report = document(study)
    sections = [section.title for section in report.sections]
    assert page.headings == [report.title, *sections, "The data behind the figures"]
    markdown = render_markdown(study)
    for section in report.sections:
        assert f"{'#' * section.level} {section.title}" in markdown
    expected = [value for s in report.sections for table in s.tables for row in table.rows for value in row]
    assert [re.sub(r"[`*]", "", value) for value in expected] == page.cells
    for section in report.sections:
        for table in section.tables:
            for row in table.rows:
                assert f"| {' | '.join(row)} |" in markdown


def test_the_page_needs_no_other_file_and_its_links_lead_somewhere():
    page = Page(html(known()))
    assert page.addresses
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"@import|url\(|https?://", html(known()))
    assert page.anchors
    assert set(page.anchors) <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)


def test_what_comes_from_outside_is_escaped():
    study = known()
    study["data"]["cifar10"]["label"] = "<script>alert(1)</script> & 'co'"
    study["cells"]["resnet"]["static"]["run_ids"]["1"] = "<img src=x onerror=alert(1)>"
    page = Page(html(study))
    assert page.scripts == Page(html(known())).scripts
    assert "<img src=x" not in html(study)
    assert any("<script>alert(1)</script> & 'co'" in heading for heading in page.headings)


def test_a_missing_cell_is_named_and_changes_no_other_row():
    changed = cells()
    del changed["resnet"]["cosine"]
    whole, part = known(), comparison(changed, missing=("resnet-cosine",))
    rows = [tables(render_markdown(study))["resnet on CIFAR-10"] for study in (whole, part)]
    assert [row["schedule"] for row in rows[0]] == ["static", "exponential", "cosine", "static_averaged"]
    assert rows[1] == [row for row in rows[0] if row["schedule"] != "cosine"]
    assert part["models"]["resnet"]["ranks"] is None
    assert part["models"]["lstm"] == whole["models"]["lstm"]
    assert "resnet-cosine" in document(part).sections[0].after[-1]


def test_the_claims_and_the_gaps_stand_in_the_report():
    study = known()
    sections = {section.title: section for section in document(study).sections}
    claims = sections["The claims, brought to a verdict"].tables[0].rows
    assert [row[0] for row in claims] == [claim["claim"] for claim in study["claims"]]
    assert [row[1] for row in claims] == [claim["verdict"] for claim in study["claims"]]
    gaps = sections["The paper's gaps, filled"]
    assert [text.split("**")[1] for text in gaps.text] == [gap["gap"] for gap in study["gaps"]]
    assert [row[-1] for row in gaps.tables[0].rows] == [v["key"] for g in study["gaps"] for v in g["values"]]
    assert (
        document(study).answer[0] == "**Undecided**: Dynamic schedules generalize better than a static one."
    )


def test_the_theorys_claims_stand_in_the_report_with_effect_interval_and_n():
    rows = tables(render_markdown(known()))["The theory behind schedules, tested"]
    assert [row["verdict"] for row in rows] == ["supported", "not measured"]
    assert [row["mean"] for row in rows] == ["-0.4", ""]
    assert [row["95% interval"] for row in rows] == ["-0.5 to -0.3", "none"]
    assert [row["n"] for row in rows] == ["20", "0"]
    assert [row["experiment"] for row in rows] == ["late_decay", "level_sets"]
    sections = {section.title: section for section in document(known()).sections}
    drawn = sections["The theory behind schedules, tested"].figures
    assert [(figure.name, figure.data) for figure in drawn] == [("late_decay_toy.svg", "late_decay.json")]
