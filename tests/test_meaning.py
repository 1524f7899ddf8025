"""What code means: which edits of a small package change it and which do not."""

import textwrap
from pathlib import Path

import pytest

from lrstudy.entries import meaning
from lrstudy.entries.meaning import digest, entry, listing, reached
from lrstudy.errors import StudyError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules of a package called ``lrstudy``: module name -> source; returns a function that does."""
    monkeypatch.setattr(meaning, "_root", lambda: tmp_path)

    def write(**modules: str) -> None:
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        read_again()

    (tmp_path / "__init__.py").touch()
    read_again()
    yield write
    read_again()


def read_again() -> None:
    for function in (meaning._module, meaning._meaning, meaning._file):
        function.cache_clear()


def names(*roots: str, **options) -> set[str]:
    return {one.name for one in reached(roots, **options)}


BASE = """
    import math
    import numpy as np
    from dataclasses import dataclass

    SCALE = 2.0
    TABLE = {"a": 1}

    def helper(x: float) -> float:
        \"\"\"Doubles.\"\"\"
        return SCALE * x  # a comment

    def work(values, limit=3):
        total = 0.0
        for value in values:
            total += helper(np.sqrt(value))
        if total > limit:
            raise ValueError(f"{total} is too much")
        return math.exp(total)
"""

MEANS_THE_SAME = {
    "a comment": ("total = 0.0", "total = 0.0  # nothing yet"),
    "formatting": ("helper(np.sqrt(value))", "helper(\n                np.sqrt( value )\n            )"),
    "a docstring": ("Doubles.", "Multiplies by SCALE."),
    "a new docstring": ("total = 0.0", '"""Adds up."""\n        total = 0.0'),
    "no annotation": ("x: float) -> float", "x)"),
    "another annotation": ("x: float) -> float", "x: 'np.ndarray') -> object"),
    "an annotated variable": ("total = 0.0", "total: float = 0.0"),
    "a declared variable": ("total = 0.0", "total: float\n        total = 0.0"),
    "what an error says": ('f"{total} is too much"', 'f"found {total}", limit'),
    "another name of a package": ("import numpy as np", "import numpy as numpy_\n    np = None\n    del np"),
    "an import of one function": ("import math", "import math\n    from math import exp"),
    "something that nobody uses": ("SCALE = 2.0", "SCALE = 2.0\n    OTHER = 3.0\n    def other(): return OTHER"),
    "a constant's annotation": ("SCALE = 2.0", "SCALE: float = 2.0"),
}  # fmt: skip
MEANS_SOMETHING_ELSE = {
    "a number": ("SCALE = 2.0", "SCALE = 2.5"),
    "a sign": ("total +=", "total -="),
    "a default": ("limit=3", "limit=4"),
    "a comparison": ("total > limit", "total >= limit"),
    "another function of a package": ("np.sqrt", "np.abs"),
    "another package": ("import numpy as np", "import math as np"),
    "another error": ("raise ValueError", "raise KeyError"),
    "a decorator": ("def helper", "@dataclass\n    def helper"),
    "a later change of a constant": ("def helper", "SCALE += 1\n    def helper"),
    "the order of a function's steps": ("return SCALE * x", "return x * SCALE"),
}
MEANS_SOMETHING_ELSE["a renamed variable (proven equal otherwise)"] = ("total", "sum_")


def edited(old: str, new: str) -> str:
    assert old in BASE
    return BASE.replace(old, new)


@pytest.mark.parametrize("change", MEANS_THE_SAME.values(), ids=MEANS_THE_SAME)
def test_what_decides_no_result_changes_no_meaning(package, change):
    package(a=BASE)
    before = digest(reached(["lrstudy.a.work"]))
    source = edited(*change)
    if "numpy_" in source:
        source = BASE.replace("import numpy as np", "import numpy as numpy_").replace(
            "np.sqrt", "numpy_.sqrt"
        )
    if "from math import exp" in source:
        source = source.replace("math.exp(", "exp(")
    package(a=source)
    assert digest(reached(["lrstudy.a.work"])) == before


@pytest.mark.parametrize("change", MEANS_SOMETHING_ELSE.values(), ids=MEANS_SOMETHING_ELSE)
def test_what_may_decide_a_result_changes_the_meaning(package, change):
    package(a=BASE)
    before = digest(reached(["lrstudy.a.work"]))
    package(a=edited(*change))
    assert digest(reached(["lrstudy.a.work"])) != before


def test_the_meaning_is_the_same_in_every_version_of_python_and_of_this_package(package):
    """Another digest here makes every published training stale: only with `make prove-equal` in hand."""
    package(a=BASE)
    found = listing(reached(["lrstudy.a.work"]))
    assert found == {"SCALE": "a154d9584eea5521", "helper": "53c5c4b5a62cfdfb", "work": "b51185beb4497d8d"}
    assert digest(reached(["lrstudy.a.work"]))[:16] == "a51d80acb96f09f1"


def test_a_function_means_the_same_in_another_file_however_it_is_imported(package):
    package(a=BASE)
    before = digest(reached(["lrstudy.a.work"]))
    rest = BASE[BASE.index("    def work") :]
    helpers = BASE[: BASE.index("    def work")]
    ways = {
        "by name": ("from lrstudy.b import helper", "helper("),
        "by another name": ("from lrstudy.b import helper as double", "double("),
        "by its module": ("from lrstudy import b", "b.helper("),
        "by its whole name": ("import lrstudy.b", "lrstudy.b.helper("),
        "from here": ("from .b import helper", "helper("),
    }
    for way, (statement, call) in ways.items():
        imports = f"    import math\n    import numpy as np\n    {statement}\n"
        package(a=imports + rest.replace("helper(", call), b=helpers)
        assert digest(reached(["lrstudy.a.work"])) == before, way
        # Imported where it is used, as a heavy module is.
        inside = f"    def work(values, limit=3):\n        import math\n        import numpy as np\n        {statement}\n"
        body = rest.replace("    def work(values, limit=3):\n", inside).replace("helper(", call)
        package(a=body, b=helpers)
        assert digest(reached(["lrstudy.a.work"])) == before, f"{way}, in the function"
    package(a=imports + rest, b=helpers.replace("SCALE * x", "SCALE - x"))
    assert digest(reached(["lrstudy.a.work"])) != before


def test_what_is_reached_is_what_is_referred_to(package):
    package(
        a="""
        from lrstudy import b
        from lrstudy.b import Shape, registry

        LIMIT, other = 3, 4
        unused = 5

        class Base:
            size = LIMIT
            def area(self): return half(self.size)

        class Square(Base, Shape):
            sides: int
            def area(self):
                def inner(limit=other): return [deep(x) for x in range(limit)]
                return inner()

        def half(x): return x / 2
        def deep(x): return (lambda y: b.third(y))(x)
        def shadowed(unused, half=None):
            for LIMIT in unused: pass
            deep = [other for other in unused]
            return LIMIT, deep
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)
        """,
        b="""
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from lrstudy.a import Square
        class Shape: pass
        registry = {}
        registry["x"] = Shape
        def third(x: "Square") -> "Square": return x / 3
        """,
    )
    assert names("lrstudy.a.Square") == {
        "Square", "Base", "Shape", "LIMIT", "half", "other", "deep", "third",
    }  # fmt: skip
    assert names("lrstudy.a.shadowed") == {"shadowed"}
    assert names("lrstudy.a.even") == {"even", "odd"}
    assert names("lrstudy.b.registry") == {"registry", "Shape"}
    assert names("lrstudy.a.Square", stop=["lrstudy.a.Base", "lrstudy.b"]) == {"Square", "other", "deep"}
    with pytest.raises(KeyError, match=r"lrstudy\.a does not define circle"):
        reached(["lrstudy.a.circle"])


def test_which_of_two_namesakes_is_meant_counts(package):
    other = "def f(x): return 2 * x\n"
    package(
        a="from lrstudy.b import f as one\nfrom lrstudy.c import f as two\ndef g(x): return one(x) - two(x)\n",
        b="def f(x): return x\n",
        c=other,
    )
    before = digest(reached(["lrstudy.a.g"]))
    assert listing(reached(["lrstudy.a.g"]))["f"].count(" ") == 1
    package(b=other, c="def f(x): return x\n")
    after = reached(["lrstudy.a.g"])
    assert {one.own for one in after} == {one.own for one in after}
    assert digest(after) != before


def test_the_fields_of_a_class_count_and_their_types_do_not(package):
    def point(fields: str) -> str:
        package(a=f"from dataclasses import dataclass\n@dataclass\nclass Point:\n    {fields}\n")
        return digest(reached(["lrstudy.a.Point"]))

    before = point("x: float; y: float = 0.0")
    assert point('x: "int"; y: object = 0.0') == before
    assert point("y: float; x: float = 0.0") != before
    assert point("x: float; y: float = 0.0; z: float = 0.0") != before


REGISTERED = """
    def register(function):
        LISTED[function.__name__] = function
        return function

    LISTED = {}

    def slope(x): return 1 - x

    @register
    def line(x): return slope(x)

    @register
    def flat(x): return 1

    class Net: pass
    def make(): return Net()
    NETS = {"net": Net, "made": make, "rule": dict(size=SIZE)}
    SIZE = 3
"""


def test_an_entry_of_a_registry_is_known_by_itself(package):
    package(a=REGISTERED)
    assert {one.name for one in entry("lrstudy.a.LISTED", "line")} == {"line", "slope"}
    assert {one.name for one in entry("lrstudy.a.LISTED", "flat")} == {"flat"}
    assert {one.name for one in entry("lrstudy.a.NETS", "made")} == {"make", "Net"}
    assert {one.name for one in entry("lrstudy.a.NETS", "rule")} == {"rule", "SIZE"}
    for registry in ("LISTED", "NETS"):
        with pytest.raises(StudyError, match=rf"^lrstudy\.a: {registry} has no entry 'circle' whose"):
            entry(f"lrstudy.a.{registry}", "circle")
    keys = [("LISTED", "line"), ("LISTED", "flat"), ("NETS", "net"), ("NETS", "made"), ("NETS", "rule")]

    def all_digests() -> dict:
        return {key: digest(entry(f"lrstudy.a.{registry}", key)) for registry, key in keys}

    before = all_digests()
    package(a=REGISTERED.replace("1 - x", "2 - x").replace("@register", "@register  # listed"))
    assert {key for key, found in all_digests().items() if found != before[key]} == {"line"}
    package(a=REGISTERED.replace("dict(size=SIZE)", "dict(size=SIZE + 1)"))
    assert {key for key, found in all_digests().items() if found != before[key]} == {"rule"}
    package(
        a=REGISTERED.replace("LISTED[function.__name__] = function", "LISTED[function.__name__] = [function]")
    )
    assert all_digests() == before  # how an entry is listed
    package(a=REGISTERED.replace('"net": Net,', '"other": dict(), "net": Net,'))
    assert all_digests() == before


def test_only_the_decorator_that_lists_an_entry_plays_no_part(package):
    twice = "\n    def twice(function): return lambda x: 2 * function(x)\n"
    package(a=REGISTERED + twice)
    before = digest(entry("lrstudy.a.LISTED", "line"))
    package(a=REGISTERED.replace("@register\n    def line", "@register\n    @twice\n    def line") + twice)
    decorated = digest(entry("lrstudy.a.LISTED", "line"))
    assert decorated != before
    package(
        a=REGISTERED.replace("@register\n    def line", "@register\n    @twice\n    def line")
        + twice.replace("2 *", "3 *")
    )
    assert digest(entry("lrstudy.a.LISTED", "line")) != decorated
    package(a=REGISTERED.replace("@register\n    def line", "@twice\n    def line") + twice)
    # `twice` lists nothing, so it stays
    assert digest(reached(["lrstudy.a.line"], listed_in="lrstudy.a.LISTED")) == decorated
    with pytest.raises(StudyError, match="LISTED has no entry 'line'"):
        entry("lrstudy.a.LISTED", "line")


def test_an_entry_may_be_defined_in_another_module(package):
    package(a=REGISTERED)
    before = digest(entry("lrstudy.a.LISTED", "line"))
    line = REGISTERED[REGISTERED.index("    def slope") : REGISTERED.index("    @register\n    def flat")]
    package(
        a=REGISTERED.replace(line, "    from lrstudy.lines import line\n"),
        lines="    from lrstudy.a import register\n" + line,
    )
    assert digest(entry("lrstudy.a.LISTED", "line")) == before


def test_imports_in_blocks_are_followed_and_stars_are_refused(package):
    package(
        a="import sys\nif sys.platform:\n    from lrstudy.b import f\ndef g(): return f()\n",
        b="def f(): return 1\n",
    )
    before = digest(reached(["lrstudy.a.g"]))
    package(b="def f(): return 3\n")
    assert digest(reached(["lrstudy.a.g"])) != before
    package(
        a="try:\n    from lrstudy.b import f\nexcept ImportError:\n    from lrstudy.c import f\ndef g(): return f()\n"
    )
    with pytest.raises(
        StudyError, match=r"^lrstudy\.a, line 4: f stands for lrstudy\.b\.f and for lrstudy\.c\.f"
    ):
        reached(["lrstudy.a.g"])
    package(d="from lrstudy.b import *\ndef g(): return f()\n")
    with pytest.raises(StudyError, match=r"^lrstudy\.d, line 1: `import \*` hides what code means"):
        reached(["lrstudy.d.g"])


def test_a_name_in_quotes_that_is_looked_up_at_run_time_is_followed(package):
    package(a='RULE = dict(path="lrstudy.b.Step", other="lrstudy.b.gone")\n', b="class Step: size = 1\n")
    assert names("lrstudy.a.RULE") == {"RULE", "Step"}


def test_the_real_package_can_be_read_whole():
    """Every module, whatever syntax it uses: what cannot be parsed or resolved would be no part of any meaning."""
    root = Path(meaning.__file__).parents[1]
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        module = ".".join(["lrstudy", *(part for part in parts if part != "__init__")])
        for name in meaning._module(module).statements:
            assert meaning._meaning(f"{module}.{name}").own
