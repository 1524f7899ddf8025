"""The report says what comparison.json says, in words that the numbers carry."""

import copy
import functools
import json
import math
import re
from html.parser import HTMLParser

import pytest

from known_study import SETTINGS, cells, comparison, identity, progress, read, trained_elsewhere, written
from lrstudy.analysis.records import Comparison, Progress
from lrstudy.errors import StudyError
from lrstudy.report.__main__ import main
from lrstudy.report.document import read_comparison
from lrstudy.report.findings import findings, text_table
from lrstudy.report.render import render_html, render_markdown
from lrstudy.report.sections import document
from lrstudy.report.series import budgets, differences, profiles
from lrstudy.report.words import state_words


@functools.cache
def whole() -> Comparison:
    """The whole known study."""
    return comparison(cells())


def known() -> dict:
    """Its comparison.json, to be changed."""
    return written(whole())


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


def tables(markdown: str, grey: bool = False) -> dict[str, list[dict[str, str]]]:
    """The Markdown tables by the heading above them, a dict per row; the two interval columns distinguished.

    Without the rows in grey, or those alone.
    """
    found, title, header = {}, None, None
    for line in markdown.splitlines():
        if line.startswith("#"):
            title, header = line.lstrip("# "), None
        elif line.startswith("|"):
            fields = [field.strip() for field in line.strip("|").split("|")]
            if header is None:
                header = [f"difference's {f}" if f in fields[:i] else f for i, f in enumerate(fields)]
                found[title] = []
            elif not set(line) <= set("|-") and line.startswith("| _") == grey:
                found[title].append(dict(zip(header, fields, strict=True)))
    return found


def test_references_stand_below_the_schedules_in_grey_and_are_in_no_comparison():
    study = whole()
    grey = tables(render_markdown(study), grey=True)
    (resnet,), (lstm,) = grey["resnet on CIFAR-10"], grey["lstm on IMDB"]
    assert (resnet["schedule"], resnet["test/accuracy"]) == ("_pixels, logistic regression_", "_40.12_")
    assert {value for name, value in resnet.items() if name not in ("schedule", "test/accuracy")} == {""}
    metric = study.protocol.headline["imdb"]
    score = f"_{100 * study.references['imdb'].metrics[metric]:.2f}_"
    assert (lstm["schedule"], lstm[metric]) == ("_TF-IDF, logistic regression_", score)
    assert len([row for rows in grey.values() for row in rows]) == 2

    page = html(study)
    assert re.search(r"tfoot td \{ color: var\(--soft\); \}", page)
    feet = re.findall(r"<tfoot>(.*?)</tfoot>", page, re.S)
    assert len(feet) == 2
    assert "<td>pixels, logistic regression</td>" in feet[0]
    assert '<td class="number">40.12</td>' in feet[0]

    without = read(known() | {"references": {}})
    assert findings(without) == findings(study)
    assert "logistic regression" not in render_markdown(without)
    assert "<tfoot>" not in html(without)


def test_references_say_what_they_reach_at_what_cost():
    text = render_markdown(whole())
    assert (
        "The last row, in grey or italics, is no schedule but what a sceptic would train first on IMDB: TF-IDF, "
        "logistic regression, on the same training examples, with settings fixed in advance: accuracy 90.34, "
        "macro F1 90.33, F1 90.41, in 32 s of one core (AMD EPYC (avx512))." in text
    )
    assert "accuracy 40.12, macro F1 39.87, in 61 s" in text
    lines = [line for line in text_table(whole()).splitlines() if "logistic regression" in line]
    assert [line.split()[-1] for line in lines] == ["CIFAR-10", "IMDB"]
    assert "test/accuracy    40.12" in lines[0]


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


@pytest.mark.parametrize("num_seeds", [3, 8])
def test_every_number_of_the_tables_is_in_the_json(num_seeds):
    given = written(whole() if num_seeds == 3 else comparison(with_seeds(num_seeds)))
    found = tables(render_markdown(read(given)))
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
                for column in ("difference to static", "difference's 95% interval", "p", "p (Holm)"):
                    assert row[column] == ""
                continue
            assert row["difference to static"] == f"{100 * difference['mean']:+.2f}"
            low, high = (float(bound) for bound in row["difference's 95% interval"].split(" to "))
            assert (low, high) == pytest.approx([100 * bound for bound in difference["interval"]], abs=0.005)
            if num_seeds < 8:
                assert (row["p"], row["p (Holm)"]) == ("", "")
                continue
            assert float(row["p"]) == pytest.approx(difference["p"], rel=5e-3)
            assert float(row["p (Holm)"]) == pytest.approx(difference["p_holm"], rel=5e-3)
    assert found["resnet on CIFAR-10"][1]["parameters"] == "decay_rate 0.25"
    assert found["resnet on CIFAR-10"][0]["parameters"] == "none"


def test_every_table_holds_the_schedules_against_the_averaged_reference():
    """A view of static's own trainings, which cost nothing more: the rival that every decay must beat."""
    for number in (3, 8):
        study = comparison(with_seeds(number))
        found = tables(render_markdown(study))
        for model, title in (("resnet", "resnet on CIFAR-10"), ("lstm", "lstm on IMDB")):
            name = study.protocol.headline[{"resnet": "cifar10", "lstm": "imdb"}[model]]
            for row in found[title]:
                shown = (
                    row["difference to static_averaged"],
                    row["p against static_averaged (Holm)"],
                )
                if row["schedule"] in ("static", "static_averaged"):
                    assert shown == ("", "")
                    continue
                metric = study.cells[model][row["schedule"]].metrics[name]
                difference = metric.difference_to_averaged
                low, high = (f"{100 * bound:+.2f}" for bound in difference.interval)
                assert shown[0] == f"{100 * difference.mean:+.2f} ({low} to {high})"
                expected = f"{difference.p:.3g} ({difference.p_holm:.3g})" if number == 8 else ""
                assert shown[1] == expected
        assert list(differences(study)["lstm"]) == ["exponential", "cosine", "static_averaged"]
        rows = found["Each schedule against static_averaged"]
        assert [row["schedule"] for row in rows] == ["exponential", "cosine"]
        assert "against static_averaged" in rows[0]["why"]


def test_the_values_of_two_searches_are_told_with_their_seeds():
    study = known()
    cell = study["cells"]["lstm"]["exponential"]
    first = cell["by_search"]["1"] | {"seeds": [1, 3]}
    second = {
        "values": {"base_lr": 0.25, "decay_rate": 0.5},
        "base_lr": 0.25,
        "parameters": {"decay_rate": 0.5},
    }
    cell["by_search"] = {"1": first, "2": second | {"seeds": [2]}}
    cell["tuning"]["searches"].append(cell["tuning"]["searches"][0] | {"num_tried": 5})
    study["protocol"]["searches"] = 2
    study = read(study)
    found = tables(render_markdown(study))
    row = found["lstm on IMDB"][1]
    assert row["base rate"] == "0.125 (seeds 1 and 3); 0.25 (seed 2)"
    assert row["parameters"] == "decay_rate 0.25 (seeds 1 and 3); decay_rate 0.5 (seed 2)"
    rate, decay = (row for row in found["lstm on IMDB: the values found"] if row["schedule"] == "exponential")
    assert rate["chosen"] == "0.125 (seeds 1 and 3); 0.25 (seed 2)"
    assert decay["chosen"] == "0.25 per epoch (seeds 1 and 3); 0.5 per epoch (seed 2)"
    assert section(study, "What tuning found").text[2] == (
        "2 searches, each with a sampler of its own, take turns in giving the seeds their values, so that the spread "
        "over seeds has the luck of the search in it. Fewer trials, since the space has no more: lstm-exponential 5."
    )


def test_a_changed_number_changes_the_report():
    given = known()
    given["cells"]["resnet"]["static"]["metrics"]["test/accuracy"]["mean"] = 0.654321
    assert "| static | 65.43 |" in render_markdown(read(given))
    assert "65.43" in text_table(read(given))


def test_what_was_measured_on_is_said():
    text = render_markdown(whole())
    assert "CIFAR-10 (45,000 training, 5,000 validation, 10,000 test examples; official)" in text
    assert "IMDB (22,500 training, 2,500 validation, 25,000 test examples; not the official files)" in text
    assert "3 seeds, 2 epochs of cifar10, 2 epochs of imdb, 8 tuning trials for every schedule" in text
    assert "fingerprint `c1f4`" in text
    untuned = known()
    untuned["protocol"]["num_trials"] = 0
    assert "not tuned: the defaults of conf/" in render_markdown(read(untuned))


def test_the_sample_is_said_in_the_title_and_only_the_sample():
    given = known()
    real = render_markdown(whole())
    given["protocol"]["source"] = "sample"
    sample = render_markdown(read(given))
    assert "embedded sample, not a result" in sample.splitlines()[0]
    assert "This is the embedded sample" in sample
    assert "the sample" not in real
    assert "embedded" not in real


def test_missing_cells_are_named():
    changed = cells()
    del changed["resnet"]["cosine"], changed["lstm"]["exponential"]
    given = comparison(changed, missing=("resnet-cosine", "lstm-exponential"))
    assert "**Not there yet**: resnet-cosine: not run yet; lstm-exponential: not run yet. Numbers" in (
        render_markdown(given)
    )
    assert text_table(given).count("not run yet") == 2
    assert "Not there yet" not in render_markdown(whole())


def test_diverged_runs_are_named():
    assert "accuracy and F1 of 0): resnet-cosine seed 2." in render_markdown(whole())
    changed = cells()
    del changed["resnet"]["cosine"]
    assert "Diverged" not in render_markdown(comparison(changed))


def with_looks(count: int, *looks: int) -> Comparison:
    settings = SETTINGS.model_copy(update={"looks": list(looks)})
    return comparison(with_seeds(count), settings=settings)


def test_when_the_study_is_tested_is_said_once():
    assert section(comparison(with_seeds(8)), RESULTS).text[1] == (
        "Planned is one look, at 8 seeds. Who adds seeds after having seen results plans further looks "
        "(`compare.looks`) first."
    )
    assert section(with_looks(12, 9, 12, 20), RESULTS).text[1] == (
        "Planned are looks at 9, 12 and 20 seeds; of 0.05, spent so far: 0.0017 at 9, 0.0076 at 12."
    )
    assert "A row is judged by its own p at 0.05" in section(whole(), RESULTS).text[0]


def test_a_number_of_seeds_that_was_not_planned_is_said():
    assert (
        section(with_looks(10, 9, 12), RESULTS)
        .text[1]
        .endswith(
            "10 seeds are no planned look: they decide nothing that was not decided at 9, and the next is at 12."
        )
    )
    assert (
        section(with_looks(4, 9, 12), RESULTS)
        .text[1]
        .endswith(
            "4 seeds are no planned look: they decide nothing that was not decided at an earlier one, of which "
            "there is none, and the next is at 9."
        )
    )
    assert section(with_looks(10, 8, 9), RESULTS).text[1].endswith("decided at 9, and none is left.")


def test_the_first_screen_has_a_sentence_a_model_on_the_schedule_that_validation_chose():
    few, many = findings(whole()), findings(comparison(with_seeds(8)))
    assert few == [
        "**resnet on CIFAR-10**: validation chose exponential, +3.00 points of test/accuracy from static (95% "
        "interval -1.97 to +7.97); undecided: 3 seeds, and a test needs 8; -1.00 points from static_averaged.",
        "**lstm on IMDB**: validation chose exponential, +0.33 points of test/f1_macro from static (95% interval -3.46 "
        "to +4.13); undecided: 3 seeds, and a test needs 8; -3.67 points from static_averaged.",
    ]
    # resnet: 2 / 2^8, twice after Holm over the two models
    sentence, rival = many[0].split("; 8 seeds); ")
    assert sentence.endswith("; better than static (p 0.00781, 0.0156 after Holm over the models")
    # -1, -3 and +1 points, and +1.4 to +1.8 at the five seeds added
    assert rival == "+0.63 points from static_averaged, undecided (p 0.266)."
    assert "chance, whatever its size" not in render_markdown(whole())


def test_the_first_screen_is_question_verdict_a_sentence_a_model_and_the_figure():
    report = document(comparison(with_seeds(8)))
    assert report.title == "Do dynamic learning-rate schedules generalize better than static ones?"
    verdict, *sentences = report.answer
    assert verdict.startswith(("**Supported**", "**Undecided**", "**Mixed**"))
    assert len(sentences) == 2
    assert report.main_figure.name == "differences.svg"


def test_what_is_not_tested_comes_with_its_command_and_cost():
    rows = tables(render_markdown(whole()))["The claims, brought to a verdict"]
    overfits = rows[0]
    assert overfits["verdict"] == "not tested"
    assert overfits["what would decide"].startswith("`dvc exp run -S 'schedule=[static]' ")
    assert overfits["what would decide"].endswith("core-hours)")


def test_each_schedule_by_itself_has_a_verdict():
    rows = tables(render_markdown(comparison(with_seeds(8))))["Each schedule by itself"]
    assert [row["schedule"] for row in rows] == ["exponential", "cosine"]


def test_an_interval_over_seeds_and_examples_is_told_where_it_is_known():
    study = known()
    assert "over seeds and test examples" not in render_markdown(whole())
    study["cells"]["lstm"]["cosine"]["metrics"]["test/accuracy"]["difference"]["examples_interval"] = [
        0.03,
        0.07,
    ]
    assert section(read(study), "lstm on IMDB").after[0] == (
        "95% intervals of the difference in accuracy over seeds and test examples: cosine +3.00 to +7.00."
    )


def test_from_a_single_seed_nothing_is_concluded():
    text = render_markdown(comparison(with_seeds(1)))
    assert "+0.00 points of test/f1_macro from static; undecided: 1 seed, and a test needs 8; " in text
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
        "**resnet on CIFAR-10**: static did not run, so there is no difference to tell."
    )
    rows = tables(render_markdown(given))["resnet on CIFAR-10"]
    assert [row["difference to static"] for row in rows] == ["", "", ""]
    assert (rows[-1]["schedule"], rows[-1]["test/accuracy"]) == ("static", "not run yet")
    del changed["lstm"]["exponential"], changed["lstm"]["cosine"]
    assert findings(comparison(changed, missing=("resnet-static",)))[1] == (
        "**lstm on IMDB**: no dynamic schedule ran beside static, so there is no difference to tell."
    )


def test_a_cell_that_diverged_everywhere_is_still_a_row():
    changed = cells()
    cell = changed["resnet"]["cosine"]
    for seed in "13":
        cell["scores"][seed], cell["training"]["seeds"][seed]["status"] = cell["scores"]["2"], "diverged"
    row = tables(render_markdown(comparison(changed)))["resnet on CIFAR-10"][2]
    assert (row["test/accuracy"], row["generalization gap"]) == ("0.00", "none")
    assert row["lowest validation loss at epoch"] == "none"


def test_the_terminals_table_has_a_line_for_every_cell_in_columns():
    header, *lines = text_table(whole()).splitlines()
    assert re.split(r"\s{2,}|\s(?=schedule|metric)", header) == [
        "model", "schedule", "metric", "mean", "spread", "seeds", "data",
    ]  # fmt: skip
    # and a line for each model's averaged reference and each data set's linear one
    assert len(lines) == 6 + 2 + 2
    assert lines[0].split() == ["resnet", "static", "test/accuracy", "72.00", "2.00", "3", "CIFAR-10"]
    assert lines[3].split()[1:4] == ["static_averaged", "test/accuracy", "76.00"]
    assert lines[6].split() == ["lstm", "cosine", "test/f1_macro", "85.00", "1.00", "3", "IMDB"]
    for word, figure in (("mean", "72.00"), ("spread", "2.00")):
        assert header.index(word) + len(word) == lines[0].index(f" {figure} ") + len(figure) + 1


def test_the_command_prints_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/comparison.json").write_text(json.dumps(known()))
    main()
    assert capsys.readouterr().out == text_table(whole()) + "\n"


def test_a_missing_or_broken_comparison_is_one_clear_error(tmp_path):
    path = tmp_path / "comparison.json"
    with pytest.raises(StudyError, match=r"comparison\.json: not found; `dvc repro compare` makes it"):
        read_comparison(path)
    path.write_text('{\n"cells": ')
    with pytest.raises(StudyError, match=r"comparison\.json: not JSON \(line 2\)"):
        read_comparison(path)
    path.write_text(json.dumps({name: part for name, part in known().items() if name != "models"}))
    with pytest.raises(
        StudyError,
        match=r"models is missing: not what this version of the stage writes; `dvc repro --force -s compare`",
    ):
        read_comparison(path)
    path.write_text(json.dumps(known()))
    assert math.isclose(read_comparison(path).cells["lstm"]["cosine"].metrics["test/f1_macro"].mean, 0.85)


def test_controllers_are_named_and_reconstructions_labelled():
    study = known()
    assert "Controller" not in render_markdown(whole())
    cell = study["cells"]["resnet"]["cosine"]
    cell |= {"controller": "gradient_modulated", "interventions": {"1": 2, "2": 1}}
    line = next(row for row in render_markdown(read(study)).splitlines() if row.startswith("Controller"))
    assert "`gradient_modulated` (our reconstruction after the abstract of arXiv 2409.16769" in line
    assert line.endswith("was on resnet-cosine: 3 interventions in all.")


# --- time to target ---


def test_the_time_to_target_is_told_with_the_runs_that_never_got_there():
    study = known()
    found = section(whole(), "Time to target")
    assert found.text[0] == (
        "Until the validation metric first was at least the target, which is one for all schedules and seeds of a "
        "model. resnet: validation/accuracy of 71.00 (what static ended with in its search, a mean over the tuning "
        "seeds); lstm: validation/f1_macro of 79.50 (what static ended with in its search, a mean over the tuning "
        "seeds)."
    )
    rows = tables(render_markdown(whole()))["Time to target"]
    assert [row["cell"] for row in rows] == _names(whole())
    assert [row["seeds that got there"] for row in rows] == [
        "2 of 3", "3 of 3", "2 of 3", "2 of 3", "2 of 3", "3 of 3",
    ]  # fmt: skip
    assert [row["median epochs"] for row in rows] == ["2", "2", "1", "2", "2", "1"]
    assert {row["95% interval of epochs"] for row in rows} == {"none"}  # three seeds
    for schedule in ("exponential", "cosine"):
        study["time_to_target"]["models"]["lstm"]["schedules"][schedule]["epochs"] |= {
            "median": "inf", "interval": [2.0, "inf"],
        }  # fmt: skip
    row = tables(render_markdown(read(study)))["Time to target"][4]
    assert (row["median epochs"], row["95% interval of epochs"]) == ("inf", "2 to inf")


def test_a_model_without_a_target_is_said_to_have_none():
    changed = cells()
    changed["resnet"]["static"]["tuning"] = {"source": "defaults"}
    study = comparison(changed)
    found = section(study, "Time to target")
    assert "resnet: none (static was not searched, and compare.targets has none); lstm: val" in found.text[0]
    assert len(found.tables[0].rows) == 3
    assert list(profiles(study)) == ["lstm on IMDB, by epochs", "lstm on IMDB, by seconds"]
    changed["lstm"]["static"]["tuning"] = {"source": "defaults"}
    found = section(comparison(changed), "Time to target")
    assert (found.figures, found.tables) == ([], [])


def test_profiles_are_drawn_of_all_models_and_of_each():
    study = whole()
    drawn = profiles(study)
    assert list(drawn) == [
        "all models, by epochs", "all models, by seconds", "resnet on CIFAR-10", "lstm on IMDB",
    ]  # fmt: skip
    curves, label = drawn["resnet on CIFAR-10"]
    assert label == "times the fewest epochs"
    assert curves["exponential"] == ([1.0, 2.0], [pytest.approx(1 / 3), 1.0])
    (figure,) = section(study, "Time to target").figures
    assert figure.cells == _names(study)
    assert figure.caption.endswith("All models: 6 seeds of models that all of these schedules ran.")
    changed = cells()
    del changed["resnet"]["exponential"]
    for cell in changed["lstm"].values():
        for row in cell["history"]:
            row["validation/f1_macro"] = 0.1
    (figure,) = section(comparison(changed), "Time to target").figures
    assert figure.caption.endswith(
        "All models: 6 seeds of models that all of these schedules ran, at 3 of which none got there; without "
        "exponential, which did not run on every model."
    )


# --- what stands behind the cells ---

BEHIND = "What stands behind each cell"
RESULTS = "Test metrics after the last epoch"


def section(study: Comparison, title: str):
    return next(section for section in document(study).sections if section.title == title)


def notes(study: Comparison) -> list[str]:
    """What the notes at the main table say of machines and dtypes."""
    return [
        line
        for line in document(study).sections[0].after
        if not line.startswith(("Diverged", "Controller", "**Missing"))
    ]


def test_of_trainings_that_are_all_alike_one_line_is_said():
    assert notes(whole()) == [
        "All trainings: one kind of machine (AMD EPYC (avx512)), float32, torch 2.14.1."
    ]
    rows = tables(render_markdown(whole()))[BEHIND]
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
    assert section(whole(), BEHIND).after == []


def in_two_dtypes(**settings) -> Comparison:
    """resnet-exponential in bfloat16 but for seed 3, and that of lstm-static; lstm-cosine on two machines."""
    study = cells()
    trained_elsewhere(study["resnet"]["exponential"], "12", "bfloat16")
    trained_elsewhere(study["lstm"]["static"], "3", "bfloat16", torch="2.13.0")
    trained_elsewhere(study["lstm"]["cosine"], "12", accelerator="NVIDIA H100", ended=1_700_086_400.0)
    return comparison(study, settings=SETTINGS.model_copy(update=settings))


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


def test_effects_across_models_are_told_in_units_of_their_spread_with_each_models():
    found = section(whole(), "All models together")
    assert "with the same weight for every model" in found.text[0]
    row = tables(render_markdown(whole()))["All models together"][0]
    expected = whole().across_models["exponential"]
    assert row["mean of the models"] == f"{expected.effect:+.2f}"
    assert (row["resnet"], row["lstm"]) == tuple(f"{g:+.2f}" for g in expected.by_model.values())
    assert row["pairs"] == "6"


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
        "**lstm on IMDB**: no seed has test/f1_macro and the same dtype for both exponential and static, so there is no "
        "difference to tell."
    )
    rows = tables(render_markdown(study))["lstm on IMDB"]
    assert [(row["test/f1_macro"], row["difference to static"], row["p (Holm)"]) for row in rows] == [
        ("80.00", "", ""),
        ("80.33", "", ""),
        ("85.00", "", ""),
        ("84.00", "+4.00", ""),  # the same trainings as static's
    ]
    assert list(study.across_models) == ["static_averaged"]  # no schedule was compared on every model
    assert html(study)


def test_each_training_is_told_by_its_name_in_the_ledger():
    text = render_markdown(whole())
    assert "`python -m lrstudy.ledger show <identity>`" in text
    assert "predictions.parquet" not in text
    row = tables(text)["Where the numbers come from"][-1]
    assert row["identity"] == f"`{identity('lstm', 'cosine', '3')[:16]}`"


def test_numbers_of_a_version_that_planned_no_looks_are_refused(tmp_path):
    old = known()
    del old["protocol"]["looks"]
    (tmp_path / "comparison.json").write_text(json.dumps(old))
    with pytest.raises(
        StudyError,
        match=r"protocol\.looks is missing: not what this version of the stage writes; `dvc repro -",
    ):
        read_comparison(tmp_path / "comparison.json")


# --- what tuning found ---


def test_the_search_is_told_in_the_papers_words_with_what_a_wrong_value_costs():
    text = render_markdown(whole())
    assert "Every schedule had 8 trials with the seed 101, none of those above" in text
    assert "; the best 2 of each schedule were trained again with 102, and the mean over all these" in text
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
    assert "| cosine | 0.875 | 0.625 | 0.75 | 10 | 20 | 1.5 |" in text
    assert (
        "the safest schedule first: static (base_lr halved: +5.0% (+1.0 to +9.0)); "
        "cosine (base_lr halved: +5.0% (+1.0 to +9.0)); "
        "exponential (decay_rate doubled: +20.0% (+1.0 to +9.0))." in text
    )


def test_what_a_budget_buys_is_a_figure_of_every_schedule():
    study = known()
    assert budgets(whole())["lstm"]["cosine"] == ([1, 2], [0.875, 0.75])
    found = section(whole(), "What tuning found")
    assert [figure.name for figure in found.figures] == ["budget.svg"]
    assert set(found.figures[0].cells) == set(_names(whole()))
    assert "Trials are not measured on test data." in found.text[1]
    assert found.text[2] == "One search stands behind all seeds of a row: its luck is in no interval."
    # What may all have diverged has no expectation, and of a single trial there is no figure.
    for schedules in study["cells"].values():
        for cell in schedules.values():
            cell["tuning"]["budget"] = [{"num_trials": 1, "loss": None}, {"num_trials": 2, "loss": 0.5}]
    assert budgets(read(study))["lstm"]["cosine"] == ([2], [0.5])
    for schedules in study["cells"].values():
        for cell in schedules.values():
            cell["tuning"]["budget"] = [{"num_trials": 1, "loss": 0.5}]
    assert budgets(read(study)) == {}
    found = section(read(study), "What tuning found")
    assert (found.figures, len(found.text)) == ([], 2)


def test_without_confirmation_the_lowest_loss_decided():
    study = known()
    study["protocol"]["confirm_seeds"] = []
    assert "none of those above, and the lowest loss decided." in render_markdown(read(study))


def _names(study: Comparison) -> list[str]:
    return [f"{model}-{schedule}" for model, schedule, _ in study.each()]


def test_without_a_search_there_is_no_section_on_it():
    study = known()
    for schedules in study["cells"].values():
        for cell in schedules.values():
            cell["tuning"] = None
    assert "What tuning found" not in render_markdown(read(study))


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


def html(study: Comparison) -> str:
    names = [figure.name for section in document(study).sections for figure in section.figures]
    return render_html(
        study, dict.fromkeys([*names, "differences.svg"], IMAGE), {"curves.csv": "data:text/csv;base64,"}
    )


def test_a_file_behind_several_figures_is_in_the_page_once():
    study, address = whole(), "data:text/csv;base64,MQ=="
    figures = [figure for section in document(study).sections for figure in section.figures]
    names = [figure.name for figure in figures if figure.data == "curves.csv"]
    images = dict.fromkeys([*(figure.name for figure in figures), "differences.svg"], IMAGE)
    page = render_html(study, images, {"curves.csv": address})
    assert page.count(address) == page.count('id="file-curves.csv"') == 1
    assert page.count('href="#file-curves.csv"') == len(names) > 1


def test_html_and_markdown_say_the_same():
    study = whole()
    page = Page(html(study))
    report = document(study)
    sections = [section.title for section in report.sections]
    assert page.headings == [report.title, *sections, "The data behind the figures"]
    markdown = render_markdown(study)
    for section in report.sections:
        assert f"{'#' * section.level} {section.title}" in markdown
    expected = [
        value
        for s in report.sections for table in s.tables for row in table.rows + table.grey for value in row
    ]  # fmt: skip
    assert [re.sub(r"[`*]", "", value) for value in expected] == page.cells
    for section in report.sections:
        for table in section.tables:
            for row in table.rows:
                assert f"| {' | '.join(row)} |" in markdown


def test_the_page_needs_no_other_file_and_its_links_lead_somewhere():
    page = Page(html(whole()))
    assert page.addresses
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"@import|url\(|https?://", html(whole()))
    assert page.anchors
    assert set(page.anchors) <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)


def test_what_comes_from_outside_is_escaped():
    study = known()
    study["data"]["cifar10"]["label"] = "<script>alert(1)</script> & 'co'"
    study["cells"]["resnet"]["static"]["identities"]["1"] = "<img src=x onerror=alert(1)>"
    page = Page(html(read(study)))
    assert page.scripts == Page(html(whole())).scripts
    assert "<img src=x" not in html(read(study))
    assert any("<script>alert(1)</script> & 'co'" in heading for heading in page.headings)


def test_a_missing_cell_is_named_and_changes_no_other_row():
    changed = cells()
    del changed["resnet"]["cosine"]
    before, part = whole(), comparison(changed, missing=("resnet-cosine",))
    rows = [tables(render_markdown(study))["resnet on CIFAR-10"] for study in (before, part)]
    assert [row["schedule"] for row in rows[0]] == ["static", "exponential", "cosine", "static_averaged"]
    assert rows[1][:-1] == [row for row in rows[0] if row["schedule"] != "cosine"]
    assert list(rows[1][-1].values())[:2] == ["cosine", "not run yet"]
    assert part.models["resnet"].ranks is None
    assert part.models["lstm"] == before.models["lstm"]
    assert "resnet-cosine" in document(part).sections[0].after[-1]


def test_the_claims_and_the_gaps_stand_in_the_report():
    study = whole()
    sections = {section.title: section for section in document(study).sections}
    claims = sections["The claims, brought to a verdict"].tables[0].rows
    assert [row[0] for row in claims] == [claim.claim for claim in study.claims]
    assert [row[1] for row in claims] == [claim.verdict for claim in study.claims]
    gaps = sections["The paper's gaps, filled"]
    assert [text.split("**")[1] for text in gaps.text] == [gap.gap for gap in study.gaps]
    assert [row[-1] for row in gaps.tables[0].rows] == [
        value.key for gap in study.gaps for value in gap.values
    ]
    assert (
        document(study)
        .answer[0]
        .startswith(
            "**Undecided**: A dynamic schedule, chosen on validation data, generalizes better than a static one. "
        )
    )


def test_the_theorys_claims_stand_in_the_report_with_effect_interval_and_n():
    rows = tables(render_markdown(whole()))["The theory behind schedules, tested"]
    assert [row["verdict"] for row in rows] == ["supported", "not measured"]
    assert [row["mean"] for row in rows] == ["-0.4", ""]
    assert [row["95% interval"] for row in rows] == ["-0.5 to -0.3", "none"]
    assert [row["n"] for row in rows] == ["20", "0"]
    assert [row["experiment"] for row in rows] == ["late_decay", "level_sets"]
    sections = {section.title: section for section in document(whole()).sections}
    drawn = sections["The theory behind schedules, tested"].figures
    assert [(figure.name, figure.data) for figure in drawn] == [("late_decay_toy.svg", "late_decay.json")]


def of_a_cell(**changes) -> Progress:
    return Progress.model_validate(progress("lstm", "cosine", list("12345"), None) | changes)


def searched(trials: int, confirmed: int = 0, complete: bool = False) -> list[dict]:
    return [{"trials": trials, "of": 6, "confirmed": confirmed, "finalists": 2, "complete": complete}]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (of_a_cell(), "not run yet"),
        (of_a_cell(searches=[]), "not run yet"),  # nothing is searched
        (of_a_cell(searches=searched(3)), "search not finished: 3 of 6 trials"),
        (of_a_cell(searches=searched(6, 1)), "search not finished: 6 of 6 trials, 1 of 2 finalists confirmed"),
        (of_a_cell(searches=searched(6, 2, complete=True)), "search finished, no seed yet"),
        (of_a_cell(trained=[1, 2]), "2 seeds trained and not measured on test data yet"),
        (of_a_cell(measured=[1, 2, 4]), "3 of 5 planned seeds"),
        (of_a_cell(measured=[1], trained=[2]), "1 of 5 planned seeds, 1 seed trained and not measured on test data yet"),
        (of_a_cell(measured=[1, 2, 3, 4, 5]), None),
        (of_a_cell(searches=searched(2) * 2), "search not finished: search 1: 2 of 6 trials; search 2: 2 of 6 trials"),
    ],
)  # fmt: skip
def test_how_far_a_cell_has_come_is_said_in_words(found, words):
    assert state_words(found) == words


def test_a_cell_that_is_done_in_part_says_so_wherever_its_numbers_stand():
    changed = cells()
    for part in ("scores", "training"):
        found = changed["resnet"]["cosine"][part]
        del (found if part == "scores" else found["seeds"])["3"]
    given = comparison(changed)
    text = render_markdown(given)
    assert (
        "**Not there yet**: resnet-cosine: 2 of 3 planned seeds. Numbers are of the seeds that are there"
        in text
    )
    names = [row["schedule"] for row in tables(text)["resnet on CIFAR-10"]]
    assert names == ["static", "exponential", "cosine (2 of 3 seeds)", "static_averaged"]
    assert (
        "; undecided: of the rows that validation chooses from one has 2 of 3 planned seeds so far;"
        in findings(given)[0]
    )
    assert "resnet-cosine                     2 of 3 planned seeds" in text_table(given)
    assert "Not there yet" not in render_markdown(whole())
