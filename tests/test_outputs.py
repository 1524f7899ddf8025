"""What one stage writes and another reads: whole it comes back as it was, damaged it is one clear sentence."""

import json
import re
from pathlib import Path

import pytest

from known_outputs import contents
from lrstudy.analysis.records import Comparison
from lrstudy.checked import Output
from lrstudy.errors import StudyError
from lrstudy.study.outputs import Best, Theory, Training

OUTPUTS = sorted(contents(), key=lambda output: output.__name__)


@pytest.fixture(params=OUTPUTS, ids=lambda output: output.__name__)
def output(request) -> type[Output]:
    return request.param


@pytest.fixture
def content(output) -> dict:
    return contents()[output]


def refusal(output: type[Output], path: Path) -> str:
    """The one line that reading it gives."""
    with pytest.raises(StudyError) as refused:
        output.read(path, "stage@cell")
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert len(said) < 600
    assert re.search(r"`dvc repro (--force -s )?stage@cell` makes it", said)
    return said


def test_what_was_written_comes_back_whole(output, content, tmp_path):
    path = tmp_path / "folder" / "file.json"
    output.model_validate(content).write(path)
    assert json.loads(path.read_text()) == content
    assert output.read(path, "stage").model_dump(exclude_unset=True) == content


def test_a_file_that_is_not_there_is_made_by_its_stage(output, tmp_path):
    assert "not found; `dvc repro stage@cell` makes it" in refusal(output, tmp_path / "file.json")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b"", "not JSON"), (b'{"values":\n', r"not JSON \(line 2\)"), (b"\xff\x00\x80", "not JSON"),
        (b"[" * 100_000, "not JSON"), (b"[]", "a list, not an object"), (b"null", "a NoneType, not an object"),
        (b"1e999", "a float, not an object"), (b"{}", "is missing"), (b'"\xed\xa0\x80"', "not JSON"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_one_sentence(output, tmp_path, damage, said):
    path = tmp_path / "file.json"
    path.write_bytes(damage)
    assert re.search(said, refusal(output, path))


def test_a_folder_in_its_place_is_one_sentence(output, tmp_path):
    (tmp_path / "file.json").mkdir()
    assert "cannot be read (Is a directory)" in refusal(output, tmp_path / "file.json")


def places(output: type[Output]) -> list[tuple[str, ...]]:
    """Where the record says what must stand: its own fields, and those of the records in them."""
    return [(name,) for name, field in output.model_fields.items() if field.is_required()]


def test_every_required_part_is_named_where_it_lacks(output, content, tmp_path):
    path = tmp_path / "file.json"
    for (name,) in places(output):
        path.write_text(json.dumps({key: value for key, value in content.items() if key != name}))
        assert f"{name} is missing" in refusal(output, path)


JUNK = (None, [], {}, "", "x" * 100, 1e308, -1, True, [[[]]], {"": {}}, {"../up": 1}, "../../up")


def test_junk_in_any_place_is_refused_or_harmless(output, content, tmp_path):
    """At every place down to the fourth level: either it is one sentence, or a file that is what it says."""
    path = tmp_path / "file.json"
    refused = 0
    for number, place in enumerate(_paths(content, 3)):
        # Of a large file, whose reading takes long, each place gets one kind of junk.
        for junk in JUNK if len(json.dumps(content)) < 20_000 else (JUNK[number % len(JUNK)],):
            path.write_text(json.dumps(_with(content, place, junk)))
            try:
                output.read(path, "stage@cell")
            except StudyError:
                refusal(output, path)
                refused += 1
    assert refused > 15


def _paths(content: object, depth: int, at: tuple = ()) -> list[tuple]:
    if depth == 0:
        return []
    if isinstance(content, dict):
        inner = list(content.items())[:6] if at else list(content.items())
    else:
        inner = list(enumerate(content))[:1] if isinstance(content, list) else []
    found = []
    for key, value in inner:
        found += [(*at, key), *_paths(value, depth - 1, (*at, key))]
    return found


def _with(content: dict | list, place: tuple, junk: object) -> dict | list:
    """The content with ``junk`` at this place; what is around the place is a copy, the rest is shared."""
    key, *further = place
    changed = content.copy()
    changed[key] = _with(content[key], tuple(further), junk) if further else junk
    return changed


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/b", "", ".", "a\nb", "a b"])
def test_names_that_become_paths_lead_nowhere(tmp_path, name):
    path = tmp_path / "file.json"
    known = contents()
    for changed, output in (
        (known[Training] | {"model": name}, Training),
        (known[Training] | {"dataset": name}, Training),
        (known[Training] | {"seeds": {name: known[Training]["seeds"]["1"]}}, Training),
        (known[Best] | {"schedule": name}, Best),
        (_with(known[Comparison], ("cells", name), {}), Comparison),
    ):
        path.write_text(json.dumps(changed))
        refusal(output, path)


@pytest.mark.parametrize("name", ["../up.svg", "/etc/passwd", "a/b.svg", "", ".."])
def test_figures_are_files_of_their_own_folder(tmp_path, name):
    path = tmp_path / "file.json"
    known = contents()
    for changed, output in (
        (_with(known[Theory], ("toy", "figures"), [name]), Theory),
        (_with(known[Comparison], ("theory", "figures"), {"late_decay": [name]}), Comparison),
    ):
        path.write_text(json.dumps(changed))
        assert "figures" in refusal(output, path)


def test_odd_seeds_have_the_values_of_one_search_and_even_ones_those_of_another():
    one, other = {"base_lr": 1.0}, {"base_lr": 2.0}
    best = Best(
        model="lstm",
        schedule="step",
        source="tuned",
        values=one,
        searches=[{"values": one}, {"values": other}],
    )
    assert [best.values_for(seed) for seed in (1, 2, 3, 4)] == [(one, 1), (other, 2), (one, 1), (other, 2)]


def test_with_one_search_or_none_all_seeds_have_the_same():
    values = {"base_lr": 1.0}
    for searches in ({}, {"searches": [{"values": values}]}):
        best = Best(model="lstm", schedule="step", source="tuned", values=values, **searches)
        assert [best.values_for(seed) for seed in (1, 2, 5)] == [(values, 1)] * 3
