"""What an edit runs again is exactly what depends on it, over generated projects; and the cache says why."""

import importlib
import sys
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everloop.catalog.operation import invoke
from everloop.core.errors import InvalidInput, NotFound
from everloop.flows.assets import plan
from everloop.flows.engine import Options, Origin, run
from everloop.flows.executors.local import LocalExecutor
from everloop.flows.why.caching import OfStep, explain_step

CODECS = {"value": "everloop.flows.value:codec"}
COUNT = 5
EDITS = ("comment", "docstring", "layout", "body", "helper", "deep helper", "global", "file", "nothing used")


def project(shape, edit=None):
    """Files of a project: `shape[n]` are (steps before, helper, global, file) that step n uses; one thing is edited."""

    def changed(kind, target):
        return 1 if edit == (kind, target) else 0

    lines = [
        "from pathlib import Path",
        "from types import SimpleNamespace",
        "from everloop.flows.assets import define, wire",
    ]
    lines += ["import first", "HERE = Path(__file__).parent"]
    lines += [f"GLOBAL_{n} = {changed('global', n)}" for n in range(COUNT)]
    for n, (before, helper, variable, file) in enumerate(shape):
        takes = ", ".join(f"step_{other}" for other in before)
        lines += ["", "", f"def step_{n}({takes}):"]
        lines += [f'    """What step {n} is for{" (said better)" * changed("docstring", n)}."""']
        lines += [f"    # a remark{' that is longer' * changed('comment', n)}", *[""] * changed("layout", n)]
        terms = [f'"step {n} {changed("body", n)}"', *(f"step_{other}" for other in before)]
        terms += [f"first.helper_{helper}()"] if helper is not None else []
        terms += [f"GLOBAL_{variable}"] if variable is not None else []
        terms += [f'(HERE / "file_{file}").read_text()'] if file is not None else []
        lines += [f"    return [{', '.join(terms)}]"]
    lines += ["", "", f"ASSETS = [{', '.join(f'define(step_{n})' for n in range(COUNT))}]"]
    lines += ["project = SimpleNamespace(assets=lambda: wire(ASSETS))", ""]
    first, second = ["import second", ""], []
    for n in range(COUNT):
        first += [f"def helper_{n}():", f"    return second.deep_{n}(), {changed('helper', n)}", "", ""]
        second += [f"def deep_{n}():", '    """Deep."""', f"    return {n}, {changed('deep helper', n)}", "", ""]
    second += [f"def nobody():\n    return {changed('nothing used', 0)}\n"]
    files = {f"file_{n}": f"content {changed('file', n)}" for n in range(COUNT)}
    return {"steps.py": "\n".join(lines), "first.py": "\n".join(first), "second.py": "\n".join(second), **files}


def expected(shape, edit):
    """The steps that run again: those that use what was edited, and what is made of them."""
    kind, target = edit
    place = {"helper": 1, "deep helper": 1, "global": 2, "file": 3}
    if kind == "body":
        hit = {target}
    elif kind in place:
        hit = {n for n, uses in enumerate(shape) if uses[place[kind]] == target}
    else:
        hit = set()
    for n, (before, *_) in enumerate(shape):  # every value holds those before it, so that a change goes on
        if hit & set(before):
            hit.add(n)
    return hit


used = st.one_of(st.none(), st.integers(0, COUNT - 1))
shapes = st.tuples(
    *(st.tuples(st.sets(st.integers(0, n - 1)) if n else st.just(set()), used, used, used) for n in range(COUNT))
)


class House:
    """One project in one folder, edited and built."""

    def __init__(self, context, folder):
        self.context, self.root = context, folder

    def build(self, files):
        """The numbers of the steps that ran."""
        self.root.mkdir(exist_ok=True)
        for name, content in files.items():
            if not (self.root / name).exists() or (self.root / name).read_text() != content:
                (self.root / name).write_text(content)
        names = ("steps", "first", "second")
        for name in names:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        sys.path.insert(0, str(self.root))
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            assets = importlib.import_module("steps").project.assets()
            done = run(
                self.context,
                plan(assets, [f"step_{n}" for n in range(COUNT)]),
                origin=Origin(self.root, "steps"),
                executor=LocalExecutor(assets, self.context.store),
                codecs=CODECS,
                options=Options(),
            )
        finally:
            sys.dont_write_bytecode = before
            sys.path.remove(str(self.root))
            for name in names:
                sys.modules.pop(name, None)
        return {int(one.step.rpartition("_")[2]) for one in done.steps if not one.reused}


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(shape=shapes, edited=st.tuples(st.sampled_from(EDITS), st.integers(0, COUNT - 1)))
def test_an_edit_runs_again_exactly_what_depends_on_it(context_of, sqlite_catalog, tmp_path_factory, shape, edited):
    folder = tmp_path_factory.mktemp("house")
    context = context_of(sqlite_catalog, project=folder.name)
    house = House(context, folder / "project")
    assert house.build(project(shape)) == set(range(COUNT))
    assert house.build(project(shape)) == set()
    edit = (edited[0], 0 if edited[0] == "nothing used" else edited[1])
    assert house.build(project(shape, edit)) == expected(shape, edit)
    assert house.build(project(shape)) == set()  # what was before is known


@pytest.fixture
def house(context, tmp_path):
    return SimpleNamespace(house=House(context, tmp_path / "project"), context=context)


SHAPE = (
    (set(), 1, 2, 3),
    ({0}, None, None, None),
    (set(), None, None, None),
    ({2}, 4, None, None),
    (set(), None, 0, None),
)


@pytest.mark.parametrize(
    ("edit", "step", "said"),
    [
        (("deep helper", 1), "step_0", ["code: second:deep_1 changed"]),
        (("helper", 1), "step_0", ["code: first:helper_1 changed"]),
        (("global", 2), "step_0", ["code: steps.GLOBAL_2 changed"]),
        (("file", 3), "step_0", ["reads: file:file_3 changed"]),
        (("body", 0), "step_1", ["input: step_0: value/step_0 v1 → value/step_0 v2"]),
    ],
)
def test_the_cache_says_which_part_changed(house, edit, step, said):
    house.house.build(project(SHAPE))
    house.house.build(project(SHAPE, edit))
    found = invoke(house.context, explain_step, OfStep(step=step))
    assert [f"{change.part}: {change.text}" for change in found.changes] == said
    assert found.leaks == (["file:file_3"] if step == "step_0" else [])


def test_a_step_that_ran_once_or_never_says_so(house):
    house.house.build(project(SHAPE))
    found = invoke(house.context, explain_step, OfStep(step="value/step_2"))
    assert (found.old, found.changes) == ("", [])
    with pytest.raises(InvalidInput, match="0 steps"):
        invoke(house.context, explain_step, OfStep(step="nobody"))
    with pytest.raises(NotFound, match="no execution"):
        invoke(house.context, explain_step, OfStep(step="model/none"))
