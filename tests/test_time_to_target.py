"""How long trainings took to their model's target: worked by hand, with nobody left out who never got there."""

import copy
import json
import math

import pytest

from known_study import SETTINGS, cells, measured, plain, trained_elsewhere
from lrstudy.analysis.comparison import compare
from lrstudy.analysis.time_to_target import time_to_target

INF = math.inf


def timed(study: dict, settings=SETTINGS) -> dict:
    """As the stage writes it to comparison.json, and the report reads it back."""
    taken = measured(study)
    found = time_to_target(taken, compare(taken, settings).cells, settings)
    return json.loads(json.dumps(plain(found), allow_nan=False))


def times(found: dict, cost: str = "epochs") -> dict[str, list[float]]:
    """A model's times by schedule, in the order of the seeds."""
    return {
        name: [float(value) for value in schedule[cost]["values"].values()]
        for name, schedule in found["schedules"].items()
    }


@pytest.fixture(scope="module")
def known() -> dict:
    return timed(cells())


# --- one target per model, before any of the final seeds ran ---


def test_the_target_is_what_the_references_search_reached_on_average_over_its_seeds(known):
    resnet, lstm = (known["models"][model]["target"] for model in ("resnet", "lstm"))
    # 0.73 with seed 101 and 0.69 with seed 102
    assert (resnet["metric"], resnet["value"]) == ("validation/accuracy", pytest.approx(0.71))
    assert (lstm["metric"], lstm["value"]) == ("validation/f1_macro", pytest.approx(0.795))
    assert resnet["source"] == "what static ended with in its search, a mean over the tuning seeds"


def test_no_result_of_the_rows_that_are_compared_moves_the_target(known):
    """It was the reference's own last epoch at every seed: a draw from its noise, which moved with the seeds."""
    study = cells()
    for schedules in study.values():
        for name, cell in schedules.items():
            for row in cell["history"]:
                row["validation/accuracy"] = row["validation/f1_macro"] = 0.99
            if name != "static":
                for trial in cell["tuning"]["searches"][0]["trials"]:
                    trial["search"]["validation"] = dict.fromkeys(("accuracy", "f1", "f1_macro"), 0.99)
    study["resnet"]["lucky"] = study["resnet"]["cosine"]
    found = timed(study)
    for model in ("resnet", "lstm"):
        assert found["models"][model]["target"] == known["models"][model]["target"]
        assert set(times(found["models"][model])["static"]) == {1.0}


def test_finalists_count_with_all_their_seeds_and_searches_alike():
    study = cells()
    tuning = study["resnet"]["static"]["tuning"]
    first = tuning["searches"][0]["trials"][3]
    first["search"] |= {"losses": [0.7, 0.8, 0.75]}  # three seeds at 0.73, one at 0.69
    assert timed(study)["models"]["resnet"]["target"]["value"] == pytest.approx((3 * 0.73 + 0.69) / 4)
    second = copy.deepcopy(tuning["searches"][0]) | {"best_trial": 2}
    second["trials"][2]["search"]["validation"]["accuracy"] = 0.7
    second["trials"][2]["confirmation"]["validation"]["accuracy"] = 0.5
    tuning["searches"].append(second)
    assert timed(study)["models"]["resnet"]["target"]["value"] == pytest.approx((0.72 + 0.6) / 2)


def test_without_confirmation_the_search_alone_sets_the_target():
    study = cells()
    for trial in study["resnet"]["static"]["tuning"]["searches"][0]["trials"]:
        trial["confirmation"] = None
    assert timed(study)["models"]["resnet"]["target"]["value"] == pytest.approx(0.73)


def test_a_row_that_took_another_models_values_takes_its_target_and_says_so():
    study = cells()
    study["longer"] = copy.deepcopy(study["resnet"])
    found = timed(study)["models"]
    assert found["longer"]["target"]["value"] == found["resnet"]["target"]["value"]
    assert found["longer"]["target"]["source"].startswith("what static of resnet ended with in its search")


def test_a_target_that_is_given_is_taken():
    given = SETTINGS.model_copy(update={"targets": {"resnet": 0.76}})
    found = timed(cells(), given)["models"]
    assert found["resnet"]["target"] == {
        "metric": "validation/accuracy", "value": 0.76, "source": "given in compare.targets",
    }  # fmt: skip
    assert times(found["resnet"]) == {
        "static": [INF, INF, INF], "exponential": [INF, INF, 2.0], "cosine": [INF, INF, 1.0],
    }  # fmt: skip
    assert found["lstm"]["target"]["value"] == pytest.approx(0.795)


def without_a_search(study: dict) -> str:
    study["resnet"]["static"]["tuning"] = {"source": "defaults", "values": {"base_lr": 0.125}, "trials": []}
    return "static was not searched"


def diverged_in_its_search(study: dict) -> str:
    study["resnet"]["static"]["tuning"]["searches"][0]["trials"][3]["search"]["objective"] = None
    return "static diverged in its search"


def without_the_reference(study: dict) -> str:
    del study["resnet"]["static"]
    return "static did not run"


@pytest.mark.parametrize("change", [without_a_search, diverged_in_its_search, without_the_reference])
def test_a_model_without_a_target_says_why_and_is_in_no_profile(change, known):
    study = cells()
    why = change(study)
    found = timed(study)
    assert found["models"]["resnet"]["target"] == {
        "metric": "validation/accuracy", "value": None, "source": f"{why}, and compare.targets has none",
    }  # fmt: skip
    assert found["models"]["resnet"]["schedules"] == {}
    assert found["models"]["resnet"]["profiles"]["epochs"]["shares"] == {}
    assert found["profiles"] == found["models"]["lstm"]["profiles"] == known["models"]["lstm"]["profiles"]


# --- what is never reached is infinite, and stays ---


def test_times_are_those_worked_by_hand(known):
    resnet, lstm = known["models"]["resnet"], known["models"]["lstm"]
    # static ends at 0.70, 0.72, 0.74; cosine has 0.72 and 0.77 after one epoch, and its seed 2 diverged
    assert times(resnet) == {"static": [INF, 2, 2], "exponential": [2, 2, 2], "cosine": [1, INF, 1]}
    assert times(resnet, "seconds")["static"] == [INF, 3.0, 3.0]
    assert times(resnet, "seconds")["cosine"] == [1.5, INF, 1.5]
    # macro F1 ends at 0.79, 0.81, 0.80; cosine has 0.81 and more after one epoch
    assert times(lstm) == {"static": [INF, 2, 2], "exponential": [INF, 2, 2], "cosine": [1, 1, 1]}
    assert {name: schedule["unreached"] for name, schedule in resnet["schedules"].items()} == {
        "static": 1, "exponential": 0, "cosine": 1,
    }  # fmt: skip


def test_the_target_is_of_the_headline_metric():
    study = cells()
    study["lstm"]["exponential"]["history"][0]["validation/accuracy"] = 1.0  # seed 1, epoch 1
    assert times(timed(study)["models"]["lstm"])["exponential"] == [INF, 2, 2]
    study["lstm"]["exponential"]["history"][0]["validation/f1_macro"] = 1.0
    assert times(timed(study)["models"]["lstm"])["exponential"] == [1, 2, 2]


def test_a_schedule_that_rarely_gets_there_does_not_look_fast():
    """transformer-step of the first study got there at one of five seeds, and was told as the fastest: 1 epoch."""
    study = cells()
    for row in study["lstm"]["exponential"]["history"]:
        row["validation/f1_macro"] = 0.9 if row["seed"] == 1 else 0.1
    found = timed(study)["models"]["lstm"]["schedules"]["exponential"]
    assert found["epochs"]["values"] == {"1": 1.0, "2": "inf", "3": "inf"}
    assert (found["epochs"]["median"], found["seconds"]["median"], found["unreached"]) == ("inf", "inf", 2)


def test_a_run_that_diverged_later_has_reached_nothing():
    study = cells()
    cell = study["resnet"]["exponential"]
    assert [row["epoch"] for row in cell["history"] if row["seed"] == 3] == [1, 2]
    cell["training"]["seeds"]["3"]["status"] = "diverged"
    assert times(timed(study)["models"]["resnet"])["exponential"] == [2, 2, INF]


def test_infinity_is_a_word_in_json_that_float_reads_back(known):
    text = json.dumps(known, allow_nan=False)
    assert json.loads(text) == known
    value = known["models"]["resnet"]["schedules"]["static"]["epochs"]["values"]["1"]
    assert (value, float(value)) == ("inf", INF)


def test_the_interval_of_the_median_may_end_at_infinity():
    study = cells()
    cell = study["resnet"]["static"]
    for seed in range(4, 9):
        cell["scores"][str(seed)] = cell["scores"]["2"]
        cell["training"]["seeds"][str(seed)] = cell["training"]["seeds"]["2"]
        cell["history"] += [row | {"seed": float(seed)} for row in cell["history"] if row["seed"] == 2]
    found = timed(study)["models"]["resnet"]["schedules"]
    # eight seeds: from the first in order to the last, which never got there
    assert (found["static"]["epochs"]["median"], found["static"]["epochs"]["interval"]) == (2.0, [2.0, "inf"])
    assert found["cosine"]["epochs"]["interval"] is None  # three seeds


# --- performance profiles ---


def shares(profile: dict) -> dict[str, list]:
    return {name: [pytest.approx(share) for share in found] for name, found in profile["shares"].items()}


def test_a_models_profile_is_over_its_seeds(known):
    found = known["models"]["resnet"]["profiles"]["epochs"]
    # ratios by seed: never 2 1; 1 1 never; 2 2 1
    assert found["factors"] == [1.0, 2.0]
    assert shares(found) == {"static": [1 / 3, 2 / 3], "exponential": [1 / 3, 1], "cosine": [2 / 3, 2 / 3]}
    assert (found["num_problems"], found["num_unsolved"], found["left_out"]) == (3, 0, {})


def test_the_profile_over_all_models_is_over_models_and_seeds(known):
    found = known["profiles"]["epochs"]
    assert found["num_problems"] == 6
    assert shares(found) == {
        "static": [1 / 6, 4 / 6],
        "exponential": [1 / 6, 5 / 6],
        "cosine": [5 / 6, 5 / 6],
    }


def test_a_problem_that_no_schedule_solves_stays_one():
    study = cells()
    for cell in study["lstm"].values():
        for row in cell["history"]:
            if row["seed"] == 2:
                row["validation/f1_macro"] = 0.1
    found = timed(study)["models"]["lstm"]["profiles"]["epochs"]
    assert (found["num_problems"], found["num_unsolved"]) == (3, 1)
    assert found["shares"]["cosine"] == [pytest.approx(2 / 3)] * 2


def test_only_problems_that_all_schedules_ran_are_in_a_profile():
    study = cells()
    static = study["resnet"]["static"]
    del static["scores"]["3"], static["training"]["seeds"]["3"]
    static["history"] = [row for row in static["history"] if row["seed"] != 3]
    del study["lstm"]["exponential"]
    found = timed(study)
    resnet = found["models"]["resnet"]["profiles"]["epochs"]
    assert resnet["num_problems"] == 2
    assert shares(resnet) == {"static": [0.5, 0.5], "exponential": [0.5, 1], "cosine": [0.5, 0.5]}
    assert found["profiles"]["epochs"]["schedules"] == ["static", "cosine"]
    assert found["profiles"]["epochs"]["num_problems"] == 2 + 3


def test_trainings_that_are_not_compared_are_named_and_in_no_profile():
    study = cells()
    trained_elsewhere(study["resnet"]["cosine"], "1", "bfloat16")
    trained_elsewhere(study["lstm"]["cosine"], "2", accelerator="NVIDIA H100")
    found = timed(study)["profiles"]
    dtypes = {"dtype": ["float32", "float32", "bfloat16"]}
    assert found["epochs"]["left_out"] == {"resnet": {"1": dtypes}}
    assert found["epochs"]["num_problems"] == 5
    assert set(found["seconds"]["left_out"]) == {"resnet", "lstm"}
    assert set(found["seconds"]["left_out"]["lstm"]["2"]) == {"processor", "device"}
    assert found["seconds"]["num_problems"] == 4
    settings = SETTINGS.model_copy(update={"across_dtypes": True})
    assert timed(study, settings)["profiles"]["epochs"]["num_problems"] == 6


def test_one_schedule_has_no_profile():
    study = cells()
    for schedules in study.values():
        del schedules["exponential"], schedules["cosine"]
    found = timed(study)["profiles"]["epochs"]
    assert (found["schedules"], found["factors"], found["shares"]) == (["static"], [], {})
