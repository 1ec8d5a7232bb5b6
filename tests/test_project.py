"""A wrong definition is refused at once, with file, line and a hint; a right one costs next to nothing."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import everloop as el
from everloop.core.errors import DefinitionError
from everloop.project.loading import load_project

HEAD = """
import everloop as el
project = el.Project("p")
flights = project.source("flights", el.Files("data/*.csv"), key="id", event_time="at")
"""
DEMO = Path(__file__).parent.parent / "everloop" / "demo" / "project"


def define(tmp_path, body, name):
    text = textwrap.dedent(HEAD) + textwrap.dedent(body)
    (tmp_path / f"{name}.py").write_text(text)
    return text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("@project.dataset()\ndef late(flihgts): ...\n", "'flihgts'"),
        ("project.source('flights', el.Files('x.csv'))\n", "is taken by source/flights"),
        (
            "@project.dataset()\ndef a(b): ...\n@project.dataset()\ndef b(a): ...\n",
            "in a circle: data/a -> data/b -> data/a",
        ),
        (
            (
                "@project.dataset(key='id')\ndef plain(flights): ...\n"
                "project.feature_view('v', source=plain, entity='id', features=[el.count(over='1h')])\n"
            ),
            "has no event time",
        ),
        (
            "project.feature_view('v', source=flights, entity='id', features=[el.count(over='1 fortnight')])\n",
            "is not a duration",
        ),
        ("project.objective('o', metric='roc_auc')\n", "at_least or at_most"),
        ("@project.check(blocks=['production'])\ndef good(modle): ...\n", "'modle'"),
        ("project.endpoint('e', graph='nothing')\n", "model/nothing"),
        ("@project.dataset(expect=[el.expect.between('x')])\ndef d(flights): ...\n", "has no bound"),
        ("import not_installed_anywhere\n", "does not import"),
        ("x = (\n", "does not import"),
        ("def f():\n    raise ValueError('in a helper')\nf()\n", "in a helper"),
    ],
)
def test_wrong_definitions_are_refused_with_place_and_hint(tmp_path, body, said, request):
    name = f"wrong_{abs(hash(request.node.name))}"
    define(tmp_path, body, name)
    with pytest.raises(DefinitionError) as caught:
        load_project(tmp_path, name)
    assert said in caught.value.message
    assert f"{name}.py:" in caught.value.message
    assert caught.value.hint


def test_a_place_is_the_line_of_the_definition(tmp_path):
    text = define(tmp_path, "\n\nproject.source('flights', el.Files('x.csv'))\n", "wrong_line")
    line = text.splitlines().index("project.source('flights', el.Files('x.csv'))") + 1
    with pytest.raises(DefinitionError, match=rf"wrong_line\.py:{line}:"):
        load_project(tmp_path, "wrong_line")


def test_two_projects_in_one_module_are_refused(tmp_path):
    define(tmp_path, "other = el.Project('other')\n", "two_projects")
    with pytest.raises(DefinitionError, match="holds 2 projects"):
        load_project(tmp_path, "two_projects")


def test_the_demo_defines_everything_and_loads_no_engine():
    probe = """
    import sys
    from pathlib import Path
    from everloop.project.loading import load_project
    project = load_project(Path(sys.argv[1]), "flights")
    assert set(project.assets()) >= {"data/departures", "frame/delay_rows", "model/delay"}, project.assets()
    loaded = {"sqlalchemy", "duckdb", "mlflow", "pyarrow", "sklearn", "scipy", "pydantic"} & set(sys.modules)
    assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(probe), str(DEMO)], check=True)


def test_defining_has_no_side_effects(tmp_path):
    define(
        tmp_path,
        "@project.dataset(key='id')\ndef d(flights):\n    raise RuntimeError('never called')\n",
        "quiet_project",
    )
    before = sorted(p.name for p in tmp_path.iterdir())
    project = load_project(tmp_path, "quiet_project")
    assert list(project.assets()) == ["data/flights", "data/d"]
    assert [p for p in sorted(p.name for p in tmp_path.iterdir()) if p != "__pycache__"] == before


def test_type_checkers_see_what_authors_can_use():
    stub = Path(el.__file__).with_suffix(".pyi").read_text()
    assert sorted(re.findall(r" import \w+ as (\w+)", stub)) == [name for name in dir(el) if not name.startswith("_")]
    assert all(getattr(el, name) is not None for name in dir(el))


def test_two_folders_may_hold_modules_of_one_name(tmp_path):
    for folder, extra in (("one", ""), ("two", "other = project.source('more', el.Files('m.csv'))\n")):
        (tmp_path / folder).mkdir()
        define(tmp_path / folder, extra, "same_name")
    assert list(load_project(tmp_path / "one", "same_name").tables) == ["flights"]
    assert list(load_project(tmp_path / "two", "same_name").tables) == ["flights", "more"]
    assert list(load_project(tmp_path / "one", "same_name").tables) == ["flights"]
