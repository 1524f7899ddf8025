"""What the trials of a search say beyond their winner: known functions, and tables worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrstudy.recipe.config import Choices, FloatRange
from lrstudy.schedules import resolve_parameters
from lrstudy.search.sensitivity import (
    in_the_papers_terms,
    largest_rise,
    noise_between_seeds,
    sensitivity,
    within_the_noise,
)

BASE_LR = FloatRange(low=0.001, high=1.0, log=True)
GAMMA = FloatRange(low=0.05, high=0.8, log=True)
STEP = {"base_lr": BASE_LR, "gamma": GAMMA}


def trial(objective: float | None, *further: float | None, **values) -> dict:
    """A trial as tuning returns it, searched with one seed; ``further`` losses are those of its confirmation."""
    losses = [objective, *further]
    return {
        "number": 0,
        "values": values,
        "objective": None if None in losses else sum(losses) / len(losses),
        "search": {"objective": objective, "losses": [objective]},
        "confirmation": {"losses": list(further)} if further else None,
    }


def drawn(space: dict, loss, count: int = 24, seed: int = 0, noise: float = 0.0) -> list[dict]:
    """Trials at random values of ``space``; noise is that of the logarithm of the loss."""
    rng = np.random.default_rng(seed)
    trials = []
    for _ in range(count):
        values = {name: value_in(where, rng) for name, where in space.items()}
        trials.append(trial(loss(values) * math.exp(noise * rng.normal()), **values))
    return trials


def value_in(where: FloatRange | Choices, rng: np.random.Generator):
    if isinstance(where, Choices):
        return where.choices[rng.integers(len(where.choices))]
    if where.int_:
        return int(rng.integers(int(where.low), int(where.high) + 1))
    if where.log:
        return float(np.exp(rng.uniform(np.log(where.low), np.log(where.high))))
    return float(rng.uniform(where.low, where.high))


def lowest(trials: list[dict]) -> dict:
    return min(trials, key=lambda found: found["search"]["objective"] or math.inf)


def bowl(values: dict) -> float:
    """Lowest at base_lr 2**-4, gamma 2**-2; a factor of 2 costs a little more in the rate than in gamma."""
    rate, gamma = math.log2(values["base_lr"]), math.log2(values["gamma"])
    return 0.5 * math.exp(0.05 * (rate + 4) ** 2 + 0.03 * (gamma + 2) ** 2)


def rate_alone(values: dict) -> float:
    return 0.5 * math.exp(0.05 * (math.log2(values["base_lr"]) + 4) ** 2)


MIDDLE = {"values": {"base_lr": 0.0625, "gamma": 0.25}}

# ------------------------------------------------------------------------------- what a factor of 2 costs


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "best", [MIDDLE, {"values": {"base_lr": 0.02, "gamma": 0.35}}], ids=["lowest", "beside"]
)
def test_the_change_is_that_of_a_known_function(seed, best):
    found = sensitivity(drawn(STEP, bowl, seed=seed), STEP, best)
    assert found["num_trials"] == 24
    assert list(found["parameters"]) == ["base_lr", "gamma"]
    for name, known in found["parameters"].items():
        assert known["value"] == best["values"][name]
        for side, factor in (("half", 0.5), ("double", 2.0)):
            there = best["values"] | {name: factor * best["values"][name]}
            true = bowl(there) / bowl(best["values"]) - 1
            assert known[side]["value"] == there[name]
            assert known[side]["change"] == pytest.approx(true, abs=0.02)
            low, high = known[side]["interval"]
            assert low <= true <= high
            assert low < known[side]["change"] < high


def test_the_change_by_hand():
    """At the lowest point of the bowl a factor of 2 is one step of log2: exp(0.05) - 1 and exp(0.03) - 1."""
    found = sensitivity(drawn(STEP, bowl, count=40), STEP, MIDDLE)["parameters"]
    for side in ("half", "double"):
        assert found["base_lr"][side]["change"] == pytest.approx(math.expm1(0.05), abs=0.01)
        assert found["gamma"][side]["change"] == pytest.approx(math.expm1(0.03), abs=0.01)


def test_a_falling_loss_is_a_negative_change():
    """Where tuning chose values that are not the best on the first share, that is said and not hidden."""
    best = {"values": {"base_lr": 0.25, "gamma": 0.25}}
    found = sensitivity(drawn(STEP, bowl), STEP, best)["parameters"]["base_lr"]
    assert found["half"]["change"] == pytest.approx(math.expm1(0.05 * (1 - 4)), abs=0.02)
    assert found["double"]["change"] == pytest.approx(math.expm1(0.05 * (9 - 4)), abs=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_a_parameter_that_does_nothing_changes_nothing(seed):
    found = sensitivity(drawn(STEP, rate_alone, seed=seed), STEP, MIDDLE)["parameters"]
    for side in ("half", "double"):
        assert found["gamma"][side]["change"] == pytest.approx(0, abs=0.01)
        assert found["base_lr"][side]["change"] > 0.03


def test_where_nothing_does_anything_nothing_changes():
    found = sensitivity(drawn(STEP, lambda values: 0.5), STEP, MIDDLE)["parameters"]
    for known in found.values():
        for side in ("half", "double"):
            assert known[side]["change"] == pytest.approx(0, abs=1e-9)
            assert known[side]["interval"][0] < 0 < known[side]["interval"][1]


def test_the_unit_of_the_loss_does_not_matter():
    trials = drawn(STEP, bowl)
    scaled = [trial(7 * t["search"]["objective"], **t["values"]) for t in trials]
    one, other = (sensitivity(found, STEP, MIDDLE)["parameters"] for found in (trials, scaled))
    for name in STEP:
        for side in ("half", "double"):
            assert one[name][side]["change"] == pytest.approx(other[name][side]["change"], abs=1e-3)


def test_noise_and_few_trials_make_the_interval_wide():
    def width(**options) -> float:
        found = sensitivity(drawn(STEP, bowl, **options), STEP, MIDDLE)["parameters"]["base_lr"]["double"]
        return found["interval"][1] - found["interval"][0]

    assert width(count=24) < width(count=24, noise=0.05) < width(count=6, noise=0.05)


def test_a_level_that_is_not_known_is_no_uncertainty_of_the_change():
    """Far from all trials the loss itself may be anything; gamma, which does nothing, does nothing there."""
    known = {"base_lr": FloatRange(low=0.001, high=0.02, log=True), "gamma": GAMMA}
    best = {"values": {"base_lr": 0.5, "gamma": 0.25}}
    found = sensitivity(drawn(known, rate_alone), STEP, best)["parameters"]["gamma"]
    for side in ("half", "double"):
        low, high = found[side]["interval"]
        assert -0.2 < low < 0 < high < 0.2


def test_the_interval_holds_the_truth_of_noisy_trials_about_as_often_as_it_says():
    """Not exactly 95%: the process's own parameters are estimated, too."""
    held = []
    for seed in range(10):
        found = sensitivity(drawn(STEP, bowl, seed=seed, noise=0.03), STEP, MIDDLE)["parameters"]
        for name, true in (("base_lr", math.expm1(0.05)), ("gamma", math.expm1(0.03))):
            for side in ("half", "double"):
                low, high = found[name][side]["interval"]
                held.append(low <= true <= high)
    assert np.mean(held) > 0.85


def test_the_same_trials_give_the_same_answer():
    trials = drawn(STEP, bowl, noise=0.03)
    assert sensitivity(trials, STEP, MIDDLE) == sensitivity(trials, STEP, MIDDLE)


def test_only_the_searchs_own_seeds_are_compared():
    """With further seeds some trials were trained and others not: as losses they say nothing of the others'."""
    trials = drawn(STEP, bowl)
    confirmed = [trial(t["objective"], t["objective"], **t["values"]) for t in trials[:5]]
    assert sensitivity(confirmed + trials[5:], STEP, MIDDLE) == sensitivity(trials, STEP, MIDDLE)


def test_the_noise_between_seeds_makes_the_interval_wide():
    """Losses that happen to lie on a smooth curve: what seeds differ by says how sure that is."""

    def width(spread: float) -> float:
        trials = drawn(STEP, bowl)
        confirmed = [
            trial(t["objective"], t["objective"] * math.exp(spread), **t["values"]) for t in trials[:4]
        ]
        found = sensitivity(confirmed + trials[4:], STEP, MIDDLE)["parameters"]["base_lr"]["double"]
        return found["interval"][1] - found["interval"][0]

    assert width(0.0) < width(0.1) < width(0.4)
    # The standard deviation of two values d apart is d / sqrt(2), and there are two ends: at least
    # 2 x 1.96 x d x (1 + change), in the logarithm.
    assert width(0.4) > 2 * 1.96 * 0.4 * 0.9


# ------------------------------------------------------------------------------------- what is not judged


def test_a_value_outside_of_the_search_space_is_not_judged():
    best = {"values": {"base_lr": 0.75, "gamma": 0.06}}
    found = sensitivity(drawn(STEP, bowl), STEP, best)["parameters"]
    assert found["base_lr"]["double"] is None  # 1.5, above 1
    assert found["base_lr"]["half"]["value"] == 0.375
    assert found["gamma"]["half"] is None  # 0.03, below 0.05
    assert found["gamma"]["double"]["value"] == 0.12


def test_the_bounds_belong_to_the_search_space():
    found = sensitivity(drawn(STEP, bowl), STEP, {"values": {"base_lr": 0.5, "gamma": 0.1}})["parameters"]
    assert (found["base_lr"]["double"]["value"], found["gamma"]["half"]["value"]) == (1.0, 0.05)


@pytest.mark.parametrize(
    ("chosen", "half", "double"),
    [
        (1, None, 2),  # half of 1 is rounded to 1 again
        (2, 1, 4),
        (3, 2, 6),  # 1.5, rounded up
        (5, 3, 10),  # 2.5, up as well, not to the even number
        (6, 3, None),  # 12 is above 10
    ],
)
def test_whole_numbers_are_rounded(chosen, half, double):
    space = {"base_lr": BASE_LR, "step_size": FloatRange(low=1.0, high=10.0, int=True)}
    best = {"values": {"base_lr": 0.0625, "step_size": chosen}}
    found = sensitivity(drawn(space, rate_alone), space, best)["parameters"]["step_size"]
    assert found["value"] == chosen
    for side, expected in (("half", half), ("double", double)):
        value = found[side] and found[side]["value"]
        assert value == expected
        assert value is None or isinstance(value, int)


def test_choices_and_ranges_that_reach_0_are_not_judged_and_still_explain_the_loss():
    space = {
        "base_lr": BASE_LR,
        "shape": Choices(choices=["linear", "cosine", 0.5]),
        "min_factor": FloatRange(low=0.0, high=0.5),
    }
    costs = {"linear": 0.0, "cosine": 0.4, 0.5: 0.8}

    def loss(values: dict) -> float:
        return rate_alone(values) * math.exp(costs[values["shape"]] + 0.8 * values["min_factor"])

    best = {"values": {"base_lr": 0.0625, "shape": "linear", "min_factor": 0.0}}
    found = sensitivity(drawn(space, loss, count=40), space, best)["parameters"]
    assert list(found) == ["base_lr"]
    for side in ("half", "double"):  # else their share of the loss would be the rate's or noise
        assert found["base_lr"][side]["change"] == pytest.approx(math.expm1(0.05), abs=0.02)
        assert found["base_lr"][side]["interval"][1] < 0.15


def test_a_range_of_one_value_is_no_obstacle():
    space = {
        "base_lr": BASE_LR,
        "step_size": FloatRange(low=5.0, high=5.0, int=True),
        "start": FloatRange(low=0.0, high=0.0),
    }
    best = {"values": {"base_lr": 0.0625, "step_size": 5, "start": 0.0}}
    found = sensitivity(drawn(space, rate_alone), space, best)["parameters"]
    assert found["step_size"] == {"value": 5, "half": None, "double": None}
    assert found["base_lr"]["half"]["change"] == pytest.approx(math.expm1(0.05), abs=0.02)


@pytest.mark.parametrize(
    ("num_parameters", "worked", "needed"),
    [(1, 4, 5), (1, 5, 5), (2, 4, 5), (2, 5, 5), (3, 5, 6), (3, 6, 6), (1, 0, 5)],
)
def test_too_few_trials_are_a_reason_and_not_an_answer(num_parameters, worked, needed):
    space = dict(list({**STEP, "power": FloatRange(low=0.5, high=4.0, log=True)}.items())[:num_parameters])
    trials = drawn(space, rate_alone, count=worked)
    values = {name: where.low for name, where in space.items()}
    trials += [trial(None, **values)] * 3  # trials that diverged are no answer either
    found = sensitivity(trials, space, {"values": values})
    if worked < needed:
        assert found == {
            "num_trials": worked,
            "parameters": {},
            "reason": f"{worked} trials ended with a loss; at least {needed} are needed",
        }
    else:
        assert set(found["parameters"]) == set(space)
        assert "reason" not in found


# --------------------------------------------------------------------------------------------- divergence


def test_a_diverged_trial_counts_as_the_worst_that_did_not():
    trials = drawn(STEP, bowl)
    worst = max(found["search"]["objective"] for found in trials)
    diverged = [{"base_lr": 0.9, "gamma": 0.3}, {"base_lr": 0.7, "gamma": 0.2}]
    said = sensitivity(trials + [trial(None, **values) for values in diverged], STEP, MIDDLE)
    assert said == sensitivity(trials + [trial(worst, **values) for values in diverged], STEP, MIDDLE)
    assert said["num_trials"] == len(trials) + 2


def test_a_rate_at_which_trainings_diverge_costs_much():
    trials = drawn(STEP, bowl)
    for found in trials:
        if found["values"]["base_lr"] > 0.3:
            found["search"] = {"objective": None, "losses": [None]}
            found["objective"] = None
    assert 3 < sum(found["search"]["objective"] is None for found in trials) < 12
    found = sensitivity(trials, STEP, {"values": {"base_lr": 0.25, "gamma": 0.25}})["parameters"]["base_lr"]
    assert found["double"]["change"] > math.expm1(0.05 * (9 - 4))  # the bowl's own


def test_a_loss_of_0_has_no_logarithm_and_is_no_error():
    """The cross-entropy of a network that is sure of every example, and right, is 0 in float64."""

    def sure(values: dict) -> float:
        return 0.0 if values["base_lr"] > 0.1 else 0.1

    trials = drawn(STEP, sure)
    found = sensitivity(trials, STEP, lowest(trials))["parameters"]
    changes = [
        known[side]["change"] for known in found.values() for side in ("half", "double") if known[side]
    ]
    assert changes
    assert all(math.isfinite(change) for change in changes)


# --------------------------------------------------------------------------------- values that are as good


def searched(trials: list[dict]) -> dict:
    """The search space of these trials: words, truths and ``period_mult`` from a list, numbers from a range."""
    space = {}
    for name in trials[0]["values"]:
        values = [trial["values"][name] for trial in trials]
        if name == "period_mult" or any(isinstance(value, str | bool) for value in values):
            space[name] = Choices(choices=list(dict.fromkeys(values)))
        else:
            space[name] = FloatRange(low=float(min(values)), high=float(max(values)))
    return space


def test_the_noise_between_seeds_by_hand():
    """(0.1^2 + 0.1^2) over 1, and (0.3^2 + 0 + 0.3^2) over 2: 0.02 + 0.18 over 3 degrees of freedom."""
    trials = [trial(0.5, 0.7, base_lr=0.1), trial(0.3, 0.6, 0.9, base_lr=0.2), trial(0.9, base_lr=0.3)]
    assert noise_between_seeds(trials) == {
        "standard_deviation": pytest.approx(math.sqrt(0.2 / 3)),
        "degrees_of_freedom": 3,
        "num_trials": 2,
    }


@given(
    st.lists(st.lists(st.floats(0.1, 2.0), min_size=2, max_size=4), min_size=1, max_size=4),
    st.lists(st.floats(-1, 1), min_size=4, max_size=4),
)
def test_the_noise_does_not_ask_how_good_the_trials_are(losses, shifts):
    moved = [[loss + shift for loss in found] for found, shift in zip(losses, shifts, strict=False)]
    one, other = (
        noise_between_seeds([trial(*row, base_lr=0.1) for row in found])["standard_deviation"]
        for found in (losses, moved)
    )
    assert one == pytest.approx(other, abs=1e-9)
    assert noise_between_seeds([trial(*losses[0], base_lr=0.1)])["standard_deviation"] == pytest.approx(
        float(np.std(losses[0], ddof=1)), abs=1e-12
    )


def test_without_finalists_the_searchs_own_seeds_tell_the_noise():
    several = trial(0.6, base_lr=0.1)
    several["search"] = {"objective": 0.6, "losses": [0.5, 0.7]}
    assert noise_between_seeds([several])["standard_deviation"] == pytest.approx(math.sqrt(0.02))


def test_of_single_seeds_and_of_diverged_trials_there_is_no_noise():
    assert noise_between_seeds([trial(0.5, base_lr=0.1), trial(0.6, base_lr=0.2)]) is None
    assert noise_between_seeds([trial(0.5, None, base_lr=0.1)]) is None


def test_as_good_is_what_lies_within_the_noise_of_the_lowest():
    trials = [
        trial(0.50, base_lr=0.1, gamma=0.5),
        trial(0.40, 0.45, base_lr=0.2, gamma=0.1),  # the lowest; seeds spread by 0.05 / sqrt(2) = 0.0354
        trial(0.435, base_lr=0.05, gamma=0.3),  # just so
        trial(0.436, base_lr=0.9, gamma=0.8),
        trial(0.42, 0.47, base_lr=0.3, gamma=0.2),
    ]
    found = within_the_noise(trials, searched(trials), trials[1])
    assert found == {
        "num_trials": 3,
        "threshold": pytest.approx(0.40 + 0.05 / math.sqrt(2)),
        "standard_error": pytest.approx(0.05 / math.sqrt(2)),
        "noise": {
            "standard_deviation": pytest.approx(0.05 / math.sqrt(2)),
            "degrees_of_freedom": 2,
            "num_trials": 2,
        },
        "values": {"base_lr": [0.05, 0.3], "gamma": [0.1, 0.3]},
    }


def test_of_two_search_seeds_the_mean_is_less_noisy():
    trials = [trial(0.40, 0.45, base_lr=0.2), trial(0.42, 0.47, base_lr=0.3)]
    one = within_the_noise(trials, searched(trials), trials[0])["standard_error"]
    for found in trials:
        found["search"]["losses"] *= 2
        found["confirmation"]["losses"] *= 2
    # Twice the squares, of which 3 and no more 1 are free, and a mean of two.
    two = within_the_noise(trials, searched(trials), trials[0])["standard_error"]
    assert two == pytest.approx(one * math.sqrt(2 / 3 / 2))


def test_the_chosen_value_is_always_among_those_that_are_as_good():
    """Further seeds may choose what the search's own did not think as good."""
    trials = [
        trial(0.40, 0.401, 0.402, base_lr=0.1, shape="linear"),
        trial(0.60, 0.1, 0.1, base_lr=0.4, shape="cosine"),
    ]
    trials[1]["confirmation"] = None  # its spread is not that of the others
    found = within_the_noise(trials, searched(trials), trials[1])
    assert found["num_trials"] == 1
    assert found["values"] == {"base_lr": [0.1, 0.4], "shape": {"choices": ["linear", "cosine"]}}


def test_as_good_choices_are_a_list_and_numbers_go_from_the_lowest_to_the_highest():
    trials = [
        trial(0.40, 0.47, shape="linear", mixed="none", nesterov=True, period_mult=2, step_size=3),
        trial(0.41, shape="cosine", mixed=0.1, nesterov=True, period_mult=1, step_size=7),
        trial(0.42, shape="linear", mixed=0.1, nesterov=True, period_mult=2, step_size=4),
        trial(0.90, shape="step", mixed=0.2, nesterov=True, period_mult=3, step_size=9),
    ]
    assert within_the_noise(trials, searched(trials), trials[0])["values"] == {
        "shape": {"choices": ["linear", "cosine"]},
        "mixed": {"choices": ["none", 0.1]},
        "nesterov": {"choices": [True]},
        "period_mult": {"choices": [2, 1]},
        "step_size": [3, 7],
    }


def test_without_spread_between_seeds_the_lowest_alone_is_as_good():
    trials = [trial(0.5, 0.5, base_lr=0.1), trial(0.5 + 1e-12, base_lr=0.2)]
    found = within_the_noise(trials, searched(trials), trials[0])
    assert (found["num_trials"], found["threshold"], found["values"]) == (1, 0.5, {"base_lr": [0.1, 0.1]})


def test_with_a_single_seed_nothing_is_said_to_be_as_good():
    """The validation examples' own spread is that of the examples, and the same for all trials."""
    trials = [trial(0.5, base_lr=0.1), trial(0.5001, base_lr=0.2)]
    found = within_the_noise(trials, searched(trials), trials[0])
    assert (found["num_trials"], found["values"], found["noise"]) == (0, {}, None)
    assert found["reason"] == "the noise is not known: nothing was trained with two seeds"


def test_diverged_trials_are_not_as_good():
    trials = [trial(None, base_lr=0.9), trial(0.5, 9.5, base_lr=0.1), trial(3.0, base_lr=0.2)]
    found = within_the_noise(trials, searched(trials), trials[1])
    assert (found["num_trials"], found["values"]) == (2, {"base_lr": [0.1, 0.2]})


def test_where_every_trial_diverged_nothing_is_as_good():
    trials = [trial(None, base_lr=0.1), trial(None, base_lr=0.9)]
    found = within_the_noise(trials, searched(trials), trials[0])
    assert (found["num_trials"], found["values"], found["reason"]) == (0, {}, "every trial diverged")


# ------------------------------------------------------------------------------------- the paper's words


def test_what_was_tuned_has_the_papers_words_and_units():
    values = {"base_lr": 0.1, "gamma": 0.5, "step_size": 3, "decay_rate": 0.2, "shape": "a"}
    as_good = {"values": {"base_lr": [0.05, 0.2], "shape": {"choices": ["a", "b"]}}}
    space = dict.fromkeys(["base_lr", "gamma", "step_size", "decay_rate"], FloatRange(low=0.1, high=9.0))
    space["shape"] = Choices(choices=["a", "b"])
    found = in_the_papers_terms(values, as_good, space, dict)
    assert [(row["term"], row["parameter"], row["value"], row["unit"], row["as_good"]) for row in found] == [
        ("base learning rate", "base_lr", 0.1, "", [0.05, 0.2]),
        ("reduction factor", "gamma", 0.5, "per drop", None),
        ("reduction interval", "step_size", 3, "epochs", None),
        ("decay rate", "decay_rate", 0.2, "per epoch", None),
        ("shape", "shape", "a", "", {"choices": ["a", "b"]}),  # no word of the paper's
    ]


def test_the_papers_terms_follow_from_relative_values():
    """decay_rate = -ln(final_factor) / num_epochs; step_size = num_epochs * (1 - first_drop) / 2."""

    def terms(name, values, as_good, space):
        def parameters(some):
            given = {key: value for key, value in some.items() if key != "base_lr"}
            return resolve_parameters(name, 20, **given)

        found = in_the_papers_terms(values, {"values": as_good}, space, parameters)
        assert [row["parameter"] for row in found[: len(values)]] == list(values)
        return {row["term"]: (row["value"], row["unit"], row["as_good"]) for row in found[len(values) :]}

    decays = {"base_lr": BASE_LR, "final_factor": FloatRange(low=0.001, high=0.8, log=True)}
    values = {"base_lr": 0.1, "final_factor": 0.1}
    as_good = {"base_lr": [0.05, 0.1], "final_factor": [0.01, 0.1]}
    per_epoch = math.log(10) / 20
    assert terms("exponential", values, as_good, decays) == {
        "decay rate": (
            pytest.approx(per_epoch, rel=1e-11),
            "per epoch",
            pytest.approx([per_epoch, 2 * per_epoch], rel=1e-11),
        )
    }
    one = terms("exponential", values, {"base_lr": [0.1, 0.1], "final_factor": [0.1, 0.1]}, decays)
    assert one["decay rate"][2] == pytest.approx([per_epoch, per_epoch])
    assert terms("exponential", values, {}, decays)["decay rate"][2] is None  # nothing is known

    drops = {"base_lr": BASE_LR, "first_drop": FloatRange(low=0.1, high=0.9)}
    values = {"base_lr": 0.1, "first_drop": 0.5}
    found = terms("step", values, {"base_lr": [0.1, 0.1], "first_drop": [0.3, 0.8]}, drops)
    assert found == {"reduction interval": (5.0, "epochs", [pytest.approx(2.0), pytest.approx(7.0)])}

    # What does not follow from what was searched was not found by the search: no term.
    assert terms("step", {"base_lr": 0.1}, {"base_lr": [0.1, 0.1]}, {"base_lr": BASE_LR}) == {}


# ------------------------------------------------------------------------------------------ largest rise


def side(value: float, change: float) -> dict:
    return {"value": value, "change": change, "interval": [change - 0.1, change + 0.1]}


def test_the_largest_rise_is_that_of_all_parameters_and_both_sides():
    found = {
        "num_trials": 12,
        "parameters": {
            "base_lr": {"value": 0.1, "half": side(0.05, 0.2), "double": side(0.2, 0.1)},
            "gamma": {"value": 0.5, "half": side(0.25, 0.3), "double": None},
        },
    }
    assert largest_rise(found) == {"parameter": "gamma", "side": "half"} | side(0.25, 0.3)
    found["parameters"]["base_lr"]["double"] = side(0.2, 0.31)
    assert largest_rise(found) == {"parameter": "base_lr", "side": "double"} | side(0.2, 0.31)


def test_the_largest_rise_may_be_a_fall():
    found = {"parameters": {"base_lr": {"value": 0.1, "half": side(0.05, -0.2), "double": side(0.2, -0.1)}}}
    assert largest_rise(found)["change"] == -0.1


@pytest.mark.parametrize(
    "parameters", [{}, {"base_lr": {"value": 0.1, "half": None, "double": None}}], ids=["none", "not judged"]
)
def test_there_is_no_largest_rise_where_nothing_was_judged(parameters):
    assert largest_rise({"parameters": parameters}) is None
