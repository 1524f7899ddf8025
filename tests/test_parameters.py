"""What a parameter may be: the check, and the sentence of its error, agree with what is said to be allowed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrstudy.controllers import CONTROLLERS
from lrstudy.entries.parameters import REQUIRED, UNREAD, Choice, Flag, Free, Made, Number, checked, of_default
from lrstudy.errors import StudyError
from lrstudy.recipe.networks import architectures, parameters_of
from lrstudy.recipe.optimizers import OPTIMIZERS
from lrstudy.schedules import SCHEDULES

RANGES = [
    (Number(gt=0, le=1), "0 < x <= 1", [1, 0.5], [0, 1.1, -1]),
    (Number(ge=0, lt=1), "0 <= x < 1", [0, 0.999], [1, -1e-9]),
    (Number(ge=1, whole=True), "1 <= x, a whole number", [1, 7.0], [0, 1.5]),
    (Number(ge=8, step=6, whole=True), "x = 8, 14, 20, ...", [8, 20], [2, 9, 13.5]),
    (Number(ge=0, le="num_epochs", whole=True), "0 <= x <= num_epochs, a whole number", [0, 10], [11, 2.5]),
    (Number(), "x, a finite number", [-3, 0.1], []),
    (Flag(), "true or false", [True, False], [0, 1, "true", None]),
    (Choice("a", "how", ("a", "b")), "one of a, b", ["a", "b"], ["c", 1, None]),
]


@pytest.mark.parametrize(("spec", "words", "legal", "illegal"), RANGES, ids=[case[1] for case in RANGES])
def test_what_is_allowed_is_what_is_said(spec, words, legal, illegal):
    assert spec.allowed("x") == words
    for value in legal:
        assert spec.check("here", "x", value, 10) == value
    for value in illegal:
        with pytest.raises(StudyError, match=r"^here: x"):
            spec.check("here", "x", value, 10)


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "1", None, [1]])
def test_a_number_is_finite_and_no_other_thing(value):
    with pytest.raises(StudyError, match=r"^here: x is .*, not a finite number; allowed: 0 <= x"):
        Number(ge=0).check("here", "x", value)


def test_whole_numbers_come_back_as_such():
    assert str(Number(ge=1, whole=True).check("here", "x", 7.0)) == "7"
    assert str(Number(ge=1).check("here", "x", 7)) == "7"
    assert str(Number(ge=1).check("here", "x", 7.0)) == "7.0"


def test_an_error_has_the_meaning_and_the_unit():
    with pytest.raises(StudyError, match=r"^here: x is 2; allowed: 0 <= x <= 1 \(what is left, share\)\.$"):
        Number(0.5, "what is left", "share", ge=0, le=1).check("here", "x", 2)


def test_all_parameters_of_a_section_are_checked_and_filled_in():
    specs = {"a": Number(0.5, ge=0), "b": Number(), "c": Free(UNREAD), "d": Flag(False)}
    assert checked("here", specs, {"b": 2}) == {"a": 0.5, "b": 2, "d": False}
    assert checked("here", specs, {"b": 2, "c": [1]})["c"] == [1]
    with pytest.raises(StudyError, match=r"^here: b is missing; allowed: b, a finite number\.$"):
        checked("here", specs, {})
    with pytest.raises(
        StudyError, match=r"^here: 'aa' is not a size; choose one of a, b, c, d, name\. Did you mean 'a'\?"
    ):
        checked("here", specs, {"aa": 1}, noun="a size", beside=("name",))


@given(
    st.one_of(
        st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.none()
    )
)
def test_a_default_is_allowed_by_what_it_says(default):
    assert of_default(default).check("here", "x", default) == default


def entries() -> dict[str, dict]:
    found = {f"schedule {name}": one.parameters for name, one in SCHEDULES.items()}
    found |= {f"controller {name}": one.parameters for name, one in CONTROLLERS.items()}
    found |= {f"optimizer {name}": one.options for name, one in OPTIMIZERS.items()}
    return found | {f"network {name}": parameters_of(name) for name in architectures()}


@pytest.mark.parametrize("entry", entries())
def test_every_entry_says_what_its_parameters_may_be_and_its_defaults_are_allowed(entry):
    for name, spec in entries()[entry].items():
        assert not isinstance(spec, Free), name
        assert spec.allowed(name)
        if spec.default is not None and spec.default is not REQUIRED:
            found = spec.check(entry, name, spec.default, 100)
            assert spec.check(entry, name, found, 100) == found
            # What is made of other entries has their defaults, too.
            assert found == spec.default or isinstance(spec, Made)
