"""What a project's code says of its assets shows from the next build on; a person's word stands before it."""

import json
import sys

import pytest

from everloop.cli.main import main
from everloop.cli.options import given
from everloop.client import local
from everloop.core.errors import DefinitionError
from everloop.core.settings import Settings
from everloop.project import Project
from everloop.workspace.direct import local_actor
from everloop.workspace.opened import Workspace

CODE = """
import everloop as el

project = el.Project("shop")
items = project.source("items", el.Files("items.csv"), key="id")
project.describe(items, owner="ops", description="What we sell", labels=["stock"], columns={"price": "euros"})
"""


@pytest.fixture
def everloop(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERLOOP_PROJECT", "shop")
    (tmp_path / "items.csv").write_text("id,price\n1,2.5\n")

    def run(*words):
        given.clear()
        capsys.readouterr()
        code = main(["--json", *words])
        out = capsys.readouterr().out
        assert code == 0, out
        return json.loads(out) if out.strip() else None

    assert main(["init"]) == 0
    yield run
    given.clear()


def build(everloop, tmp_path, code):
    (tmp_path / "project.py").write_text(code)
    sys.modules.pop("project", None)  # each build of a person's is a process of its own
    everloop("run", "items")
    with Workspace.open(Settings(home=tmp_path / ".everloop", project="shop")) as workspace:
        found = local(workspace.context(local_actor(workspace, ""))).call("catalogue.show", asset="data/items")
    return found.model_dump()


def test_words_of_the_code(everloop, tmp_path):
    found = build(everloop, tmp_path, CODE)
    assert (found["owner"], found["description"], found["labels"]) == ("ops", "What we sell", ["stock"])
    assert {one["name"]: one["description"] for one in found["columns"]} == {"id": "", "price": "euros"}
    first = found["number"]
    everloop("annotate", "data/items", "--description", "All that is on the shelves")
    found = build(everloop, tmp_path, CODE.replace("ops", "sales").replace("euros", "euros without tax"))
    assert (found["owner"], found["description"]) == ("sales", "All that is on the shelves")
    assert [one["description"] for one in found["columns"]] == ["", "euros without tax"]
    assert found["number"] == first  # words are no part of a version
    found = build(everloop, tmp_path, CODE.partition("project.describe")[0])
    assert (found["owner"], found["labels"], found["columns"][1]["description"]) == ("", [], "")


@pytest.mark.parametrize(("words", "told"), [({"labels": "a"}, "one text"), ({"owner": "x" * 201}, "owner is no text")])
def test_wrong_words_are_refused_where_they_stand(words, told):
    project = Project("p")
    view = project.objective("on_time", metric="roc_auc", at_least=0.7)
    with pytest.raises(DefinitionError, match=told) as error:
        project.describe(view, **words)
    assert __file__ in error.value.message
    with pytest.raises(DefinitionError, match="no definition of this project"):
        project.describe("on_time", owner="ops")
