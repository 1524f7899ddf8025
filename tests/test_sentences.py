"""The report's sentences are in templates: what each branch of them says is said in some study."""

import copy
import re
from collections.abc import Callable, Iterator

import pytest
from jinja2 import Environment, UndefinedError, nodes

from known_study import SETTINGS, cells, comparison, read, trained_elsewhere, written
from lrstudy.analysis.records import Comparison
from lrstudy.report import sentences
from lrstudy.report.sections import document
from test_report import with_looks, with_seeds
from test_two_lengths import two_lengths


def changed(study: Comparison, change: Callable[[dict], object]) -> Comparison:
    content = written(study)
    change(content)
    return read(content)


def studies() -> Iterator[Comparison]:
    """Studies that together give every branch of the templates something to say."""
    plain = comparison(cells())
    yield plain
    for count in (1, 8, 9):
        yield comparison(with_seeds(count))
    yield comparison(with_seeds(8), source="sample")
    for looks in ((12, 9, 12, 20), (10, 9, 12), (4, 9, 12), (10, 8, 9)):
        yield with_looks(*looks)
    for across_dtypes in (False, True):
        study = cells()
        trained_elsewhere(study["resnet"]["exponential"], "12", "bfloat16")
        trained_elsewhere(study["lstm"]["static"], "3", "bfloat16", torch="2.13.0")
        trained_elsewhere(study["lstm"]["cosine"], "12", accelerator="NVIDIA H100")
        yield comparison(study, settings=SETTINGS.model_copy(update={"across_dtypes": across_dtypes}))
    study = two_lengths(with_seeds(9))
    study["lstm"]["free"] = copy.deepcopy(study["lstm"]["static"])
    study["lstm"]["free"]["training"]["settings"]["optimizer"]["name"] = "adam"
    yield comparison(study)
    study = cells()
    del study["resnet"]["static"], study["lstm"]["exponential"]
    for row in study["lstm"]["cosine"]["history"]:
        row["validation/f1_macro"] = 0.1
    yield comparison(study, missing=("resnet-static", "lstm-exponential"))

    for change in (_searched, _told_more, _decided):
        yield changed(plain, change)
    yield changed(comparison(with_seeds(9)), _against)


def _searched(content: dict) -> None:
    content["protocol"] |= {"searches": 2, "confirm_seeds": [], "num_trials": 0, "tune_seeds": [101, 103]}
    for schedules in content["cells"].values():
        for cell in schedules.values():
            cell["tuning"] |= {
                "budget": [],
                "largest_rise": cell["tuning"]["largest_rise"] | {"side": "half"},
            }
    static = content["cells"]["resnet"]["static"]
    content["time_to_target"]["models"]["resnet"]["target"] |= {"value": None}
    content["time_to_target"]["profiles"]["epochs"] |= {"num_unsolved": 1}
    static["num_epochs"] = 20


def _told_more(content: dict) -> None:
    content["protocol"] |= {"test_classes": {name: {"ship": 9, "frog": 3} for name in content["data"]}}
    content["protocol"]["num_trials"] = 9
    content["references"] = {}
    content["theory"]["missing"] = ["late_decay"]
    cosine, exponential = content["cells"]["resnet"]["cosine"], content["cells"]["resnet"]["exponential"]
    cosine |= {"controller": "gradient_modulated", "interventions": {"1": 2, "2": 1}}
    exponential |= {"controller": "somebodys:own"}
    accuracy = content["cells"]["lstm"]["cosine"]["metrics"]["test/accuracy"]
    accuracy["difference"]["examples_interval"] = [0.03, 0.07]
    for files in content["theory"]["figures"].values():
        names = ("toy.", "branches_", "sharpness_", "landscape_", "paths_", "components_")
        files[:] = [f"{name}x.svg" for name in names]
    for model in content["models"].values():
        model["groups"] = [["static", "cosine"], ["cosine", "exponential"]]


def _decided(content: dict) -> None:
    for claim in content["claims"]:
        claim |= {"verdict": "undecided", "seeds_needed": 9, "chance": 0.8, "core_hours": 2.0}
        for part in claim["parts"]:
            part |= {"n": 9, "decides": "equivalent", "waits": "", "notes": ["futile"]}


def _against(content: dict) -> None:
    for claim in content["claims"]:
        for part in claim["parts"]:
            part |= {"decides": "against"}


MARK = re.compile("<<(.*?)>>")


class Marked(Environment):
    """Every branch and block begins with a mark of its own."""

    marks: set[str]

    def _parse(self, source, name, filename):
        tree = super()._parse(source, name, filename)
        for node in list(tree.find_all((nodes.If, nodes.For, nodes.Block))):
            for which in ("body", "else_"):
                inside = getattr(node, which, [])
                if inside:
                    mark = f"{name} line {node.lineno} {type(node).__name__} {which}"
                    self.marks.add(mark)
                    inside.insert(0, nodes.Output([nodes.TemplateData(f"<<{mark}>>")]))
        return tree


def test_every_branch_of_every_template_is_said_in_some_study(monkeypatch):
    plain = sentences.templates()
    marked = plain.overlay()
    marked.__class__, marked.marks, marked.cache = Marked, set(), {}
    monkeypatch.setattr(sentences, "templates", lambda: marked)
    names = [name for name in plain.list_templates() if name.startswith("sentences/")]
    assert len(names) > 10
    for name in names:
        marked.get_template(name)
    said = set()
    for study in studies():
        said |= set(MARK.findall(repr(document(study))))
    assert marked.marks - said == set()


def test_a_name_that_is_not_given_is_an_error():
    with pytest.raises(UndefinedError, match="rival"):
        sentences.paragraphs("claims", "alone")


def test_paragraphs_are_apart_by_empty_lines_and_lines_are_none():
    first, second = sentences.paragraphs("time_to_target", models={})
    assert first.endswith("seeds of a model.")
    assert second.startswith("A run that never got there")
    assert not any("\n" in part or "  " in part for part in (first, second))
