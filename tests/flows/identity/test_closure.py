"""Editing code changes the identity of exactly the steps that reach what was edited."""

import importlib
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everloop.core.errors import Conflict, DefinitionError
from everloop.flows.identity import closure_hash, explain, runner_identity

STEPS = '''
"""The project."""
import functools
import math
import re
from pathlib import Path
import numpy as np
import polars as pl
from . import rules
from .deep import shape
from .deep.shape import Area, area_of
from . import registry as reg

HERE = Path(__file__).parent
RATE = 3
TABLE = {"a": [1, 2], "b": (3.5, None)}
GRID = np.arange(4)
PATTERN = re.compile("x+")
COLUMN = pl.col("a") + 1
unused = 7


def make(factor):
    def scale(value):
        return value * factor
    return scale


double = make(2)
triple = make(3)


def plain(x, rate=1):
    """Nothing of the project."""
    # a comment
    total = x + 1
    return total


def uses_place(x):
    return HERE / x, __file__


def uses_global(x):
    return x * RATE


def uses_table(x):
    return TABLE[x]


def uses_grid(x):
    return GRID + x


def uses_pattern(x):
    return PATTERN.match(x)


def uses_column(x):
    return x.select(COLUMN)


def uses_helper(x):
    return rules.clamp(x)


def uses_deep(x):
    return shape.volume(x)


def uses_class(x):
    return Area(x).size()


def uses_double(x):
    return double(x)


def uses_triple(x):
    return triple(x)


def uses_partial(x):
    return CLAMP_LOW(x)


def uses_local_import(x):
    from .deep.late import later
    return later(x)


def uses_module_value(x):
    return rules.LIMIT + x


def uses_whole(x):
    return getattr(reg, x)


def recursive(x):
    return 0 if x == 0 else recursive(x - 1)


CLAMP_LOW = functools.partial(rules.clamp, low=1)
'''
RULES = '''
from .deep.shape import volume
LIMIT = 10
OTHER = 1


def clamp(x, low=0):
    """Between."""
    return max(low, min(x, bound()))


def bound():
    return LIMIT


def alone():
    return 5
'''
SHAPE = '''
SIDES = 4


class Area:
    """A square."""

    side: int = 1

    def __init__(self, side):
        self.side = side

    def size(self) -> int:
        return self.side ** exponent()


def exponent():
    return 2


def volume(x):
    return x ** SIDES


def area_of(x):
    return Area(x)
'''
FILES = {
    "__init__.py": "",
    "steps.py": STEPS,
    "rules.py": RULES,
    "registry.py": "def one():\n    return 1\n",
    "deep/__init__.py": "",
    "deep/shape.py": SHAPE,
    "deep/late.py": "from .shape import volume\ndef later(x):\n    return volume(x) + 1\n",
}
NAMES = [line.split("(")[0][4:] for line in STEPS.splitlines() if line.startswith("def ")]
NAMES.remove("make")
CALLS_CLAMP = {"uses_helper", "uses_partial"}

EDITS = [
    # (file, old, new, steps that it changes)
    ("steps.py", "# a comment", "# another comment\n    # and more", set()),
    ("steps.py", '"""Nothing of the project."""', '"""Still nothing."""', set()),
    ("steps.py", '    """Nothing of the project."""\n', "", set()),
    ("steps.py", '"""The project."""', '"""Ours."""\n\n\n', set()),
    ("steps.py", "total = x + 1", "total: int = (x+1)", set()),
    ("steps.py", "def plain(x, rate=1)", "def plain(x, rate=2)", set()),
    ("steps.py", "unused = 7", "unused = 8", set()),
    ("steps.py", "def recursive(x):", "def extra(x):\n    return x\n\n\ndef recursive(x):", set()),
    ("rules.py", '"""Between."""', '"""Bounded."""', set()),
    ("deep/shape.py", '"""A square."""', '"""Square."""', set()),
    ("deep/shape.py", "def size(self) -> int:", "def size(self):", set()),
    ("rules.py", "return 5", "return 6", set()),
    ("rules.py", "OTHER = 1", "OTHER = 2", set()),
    ("steps.py", "total = x + 1", "total = x + 2", {"plain"}),
    ("steps.py", "Path(__file__).parent", "Path(__file__).parent.parent", {"uses_place"}),
    ("steps.py", "RATE = 3", "RATE = 4", {"uses_global"}),
    ("steps.py", "(3.5, None)", "(3.6, None)", {"uses_table"}),
    ("steps.py", "np.arange(4)", "np.arange(5)", {"uses_grid"}),
    ("steps.py", '"x+"', '"x*"', {"uses_pattern"}),
    ("steps.py", 'pl.col("a") + 1', 'pl.col("a") + 2', {"uses_column"}),
    ("steps.py", "make(3)", "make(4)", {"uses_triple"}),
    ("steps.py", "return value * factor", "return value + factor", {"uses_double", "uses_triple"}),
    ("steps.py", "low=1)", "low=2)", {"uses_partial"}),
    ("rules.py", "max(low,", "max(low - 1,", CALLS_CLAMP),
    ("rules.py", "low=0", "low=1", CALLS_CLAMP),
    ("rules.py", "    return LIMIT", "    return LIMIT - 1", CALLS_CLAMP),
    ("rules.py", "LIMIT = 10", "LIMIT = 11", {*CALLS_CLAMP, "uses_module_value"}),
    ("registry.py", "return 1", "return 2", {"uses_whole"}),
    ("deep/shape.py", "    return 2\n", "    return 3\n", {"uses_class"}),
    ("deep/shape.py", "side: int = 1", "side: int = 2", {"uses_class"}),
    ("deep/shape.py", "SIDES = 4", "SIDES = 5", {"uses_deep", "uses_local_import"}),
    ("deep/late.py", "+ 1", "+ 2", {"uses_local_import"}),
    ("steps.py", "recursive(x - 1)", "recursive(x - 2)", {"recursive"}),
]
_count = iter(range(100_000))


def closures(root: Path, files: dict[str, str], *, load_late: bool = True):
    """Write the project under a fresh folder, import it, and compute the closure of every step."""
    folder = root / f"v{next(_count)}"
    for name, text in files.items():
        path = folder / "pack" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    sys.path.insert(0, str(folder))
    try:
        steps = importlib.import_module("pack.steps")
        if load_late:
            importlib.import_module("pack.deep.late")
        return {name: closure_hash(getattr(steps, name), folder) for name in NAMES}
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == "pack"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return closures(tmp_path_factory.mktemp("before"), FILES)


def changed(before, after):
    return {name for name in NAMES if before[name].hash != after[name].hash}


def test_the_same_files_elsewhere_are_the_same(before, tmp_path):
    assert changed(before, closures(tmp_path, FILES)) == set()


@pytest.mark.parametrize("edit", EDITS, ids=[e[2].strip()[:30] or "removed" for e in EDITS])
def test_an_edit_changes_what_depends_on_it(before, tmp_path, edit):
    file, old, new, expected = edit
    assert FILES[file].count(old) == 1
    after = closures(tmp_path, {**FILES, file: FILES[file].replace(old, new)})
    assert changed(before, after) == expected


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(EDITS), min_size=2, max_size=5, unique_by=lambda e: (e[0], e[1])))
def test_edits_add_up(before, tmp_path, edits):
    files, expected = dict(FILES), set()
    for file, old, new, steps in edits:
        if files[file].count(old) == 1:
            files[file] = files[file].replace(old, new)
            expected |= steps
    assert changed(before, closures(tmp_path, files)) == expected


def test_a_local_import_counts_before_it_has_run(tmp_path):
    edited = {**FILES, "deep/shape.py": SHAPE.replace("SIDES = 4", "SIDES = 5")}
    before = closures(tmp_path, FILES, load_late=False)["uses_local_import"]
    assert before.hash != closures(tmp_path, edited, load_late=False)["uses_local_import"].hash


def test_packages_are_those_that_the_step_reaches(before):
    assert before["plain"].packages == ()
    assert before["uses_column"].packages == ("polars",)
    assert "numpy" in before["uses_grid"].packages
    assert all(not c.opaque for c in before.values())


def test_a_change_can_be_explained(before, tmp_path):
    after = closures(tmp_path, {**FILES, "rules.py": RULES.replace("LIMIT = 10", "LIMIT = 11")})
    assert explain(before["uses_helper"].parts, after["uses_helper"].parts) == ["pack.rules.LIMIT changed"]


def test_a_file_edited_after_its_import_is_noticed(tmp_path):
    (tmp_path / "stale_module.py").write_text("def step(x):\n    return x\n")
    sys.path.insert(0, str(tmp_path))
    try:
        step = importlib.import_module("stale_module").step
        (tmp_path / "stale_module.py").write_text("\n\n\ndef step(x):\n    return x\n")
        with pytest.raises(Conflict, match="is not there any more"):
            closure_hash(step, tmp_path)
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["stale_module"]


def test_annotations_of_a_step_choose_the_form_of_its_inputs(tmp_path):
    def hashed(text):
        path = tmp_path / f"note{next(_count)}.py"
        path.write_text("import polars as pl\n" + text)
        sys.path.insert(0, str(tmp_path))
        try:
            module = importlib.import_module(path.stem)
            found = closure_hash(module.step, tmp_path)
            return found.hash.replace(path.stem, ""), found
        finally:
            sys.path.remove(str(tmp_path))

    lazy, found = hashed("def step(x: pl.LazyFrame):\n    return x\n")
    eager, _ = hashed("def step(x: pl.DataFrame):\n    return x\n")
    assert found.packages == ("polars",)
    assert lazy != eager


def test_a_runner_counts_with_what_it_imports_of_its_package():
    assert runner_identity("").digest == ""
    frames = runner_identity("everloop.features.batch.frames:build_rows")
    assert frames.digest.startswith("b3:")
    assert frames.digest != runner_identity("everloop.models.training:train").digest
    assert {"polars", "duckdb"} <= set(frames.packages)
    with pytest.raises(DefinitionError, match="has no module"):
        runner_identity("everloop.no_such_module:x")
