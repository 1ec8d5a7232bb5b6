"""Every difference is told, at its root, and nothing else is said to matter."""

import importlib
import sys
import time

import pytest

from everloop.catalog import refs, versions
from everloop.catalog.operation import find_operation, invoke
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.version import Version
from everloop.data.capturing import capture
from everloop.data.definitions import Files, SourceDef
from everloop.flows.why.code import segments
from everloop.flows.why.operations import Compare, why_differ
from everloop.workspace.codecs import CODECS

TEXT = """
import math
import polars as pl
from deep import rules

RATE = 2
UNUSED = 1


def clean(rows: pl.DataFrame):
    return rows.filter(pl.col("amount") > rules.least())


def total(clean: pl.DataFrame, scale: float = 1.0):
    # what it is for
    return math.floor(float(clean["amount"].sum()) * scale * RATE)


def other():
    return UNUSED


from everloop.flows.assets import Asset
ASSETS = [Asset("data/rows", None), define(clean, kind="data"), define(total), define(other)]
"""
RULES = '''
"""Rules."""


def least():
    return bound() - 1


def bound():
    return 3


def nobody():
    return 0
'''


class Shop:
    """A project whose parts can be edited one by one; `make` gives the versions that come out."""

    def __init__(self, author, context, tmp_path):
        self.author, self.context, self.folder = author, context, tmp_path
        self.text, self.rules, self.count, self.scale = TEXT, RULES, 60, {}

    def make(self, *targets):
        table = self.folder / "rows.csv"
        lines = [f"{number},{number % 10}" for number in range(self.count)]
        table.write_text("number,amount\n" + "\n".join(lines) + "\n")
        source = SourceDef("rows", Files("rows.csv"), ("number",))
        captured = capture(self.context, source, root=self.folder)
        root = self.folder / "authored"
        (root / "deep").mkdir(exist_ok=True)
        (root / "deep" / "__init__.py").write_text("")
        (root / "deep" / "rules.py").write_text(self.rules)
        for name in ("deep", "deep.rules"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        project = self.author(self.text)
        params = {"total": self.scale} if self.scale else {}
        return project.run(
            *targets or ("total", "other"), given={"data/rows": captured.id}, params=params, codecs=CODECS
        ).outputs


@pytest.fixture
def shop(author, context, tmp_path):
    (tmp_path / "authored").mkdir(exist_ok=True)
    return Shop(author, context, tmp_path)


def told(context, old, new):
    return invoke(context, find_operation(why_differ), Compare(old=old, new=new))


def roots(found):
    return [(root.difference.factor, root.difference.name) for root in found.roots]


def test_a_row_is_the_root_of_everything_made_of_it(shop, context):
    old = shop.make()
    shop.count = 65
    new = shop.make()
    found = told(context, old["value/total"], new["value/total"])
    assert {factor for factor, _ in roots(found)} == {"rows"}
    assert found.pairs[found.roots[0].pair].path == ["clean", "rows"]
    assert (found.roots[0].difference.old, found.roots[0].difference.new) == ("60", "65")
    assert [pair.root for pair in found.pairs] == [False, False, True]
    assert any("keys 0 to 64" in one.name for one in found.pairs[-1].differences)


def test_a_helper_two_modules_away_is_shown_by_its_lines_alone(shop, context):
    old = shop.make()
    shop.rules = RULES.replace("return 3", "return 5").replace("return 0", "return 9")
    new = shop.make()
    found = told(context, old["value/total"], new["value/total"])
    assert roots(found) == [("code", "deep.rules:bound")]
    hunk = found.roots[0].difference.hunk
    assert "-    return 3" in hunk
    assert "+    return 5" in hunk
    assert "nobody" not in hunk
    assert found.pairs[found.roots[0].pair].path == ["clean"]
    assert "deep/rules.py" not in [one.name for one in found.pairs[found.roots[0].pair].differences]


def test_a_global_and_a_parameter_are_told_apart(shop, context):
    old = shop.make()
    shop.text, shop.scale = TEXT.replace("RATE = 2", "RATE = 3"), {"scale": 2.0}
    new = shop.make()
    found = told(context, old["value/total"], new["value/total"])
    assert sorted(roots(found)) == [("code", "flow.RATE"), ("parameter", "scale")]
    parameter = next(root.difference for root in found.roots if root.difference.factor == "parameter")
    assert (parameter.old, parameter.new) == ("1.0", "2.0")
    hunk = next(root.difference.hunk for root in found.roots if root.difference.factor == "code")
    assert "-RATE = 2" in hunk
    assert "+RATE = 3" in hunk


def test_what_a_step_does_not_reach_cannot_matter(shop, context):
    old = shop.make()
    shop.text = TEXT.replace("# what it is for", "# said better").replace("RATE = 2", "RATE = 4")
    shop.rules = RULES.replace("return 0", "return 1")
    new = shop.make()
    found = told(context, old["value/total"], new["value/total"])
    assert roots(found) == [("code", "flow.RATE")]
    unread = [one for pair in found.pairs for one in pair.differences if one.name == "deep/rules.py"]
    assert [one.matters for one in unread] == ["no"]
    assert found.shared >= 1  # the table is one: nothing above it is looked at
    assert all("rows" not in pair.path for pair in found.pairs)


def test_the_same_version_says_so(shop, context):
    outputs = shop.make()
    found = told(context, outputs["value/total"], "value/total")
    assert found.same
    assert found.pairs == []
    assert "the same version" in found.text
    assert "the same version" in found.markdown


def test_packages_matter_where_they_are_imported(context):
    def runtime(numpy, ruff, python="3.11.7"):
        packages = {"numpy": {"version": numpy, "digest": "a"}, "ruff": {"version": ruff, "digest": "b"}}
        return Version("runtime", "python", {"packages": packages, "python": python, "cpu": ["avx2"], "threads": {}})

    made = [runtime("2.0", "0.1"), runtime("2.1", "0.2", "3.12.0")]
    with context.write() as tx:
        versions.put_many(tx, context.project, made, actor="ada", at=1)
    found = told(context, made[0].id, made[1].id)
    assert sorted(roots(found)) == [("python", "python")]
    assert {(one.name, one.matters) for one in found.pairs[0].differences if one.factor == "package"} == {
        ("numpy", "unknown"),
        ("ruff", "unknown"),
    }


def test_definitions_environments_and_people(context_of, sqlite_catalog):
    ada, bob = (context_of(sqlite_catalog, name=name) for name in ("ada", "bob"))
    with ada.write() as tx:
        view = Version("view", "load", {"features": [{"kind": "mean", "column": "delay", "over": "3h"}]})
        service = Version("service", "inputs", {"views": {"load": view.id}, "request": []})
        first = Version("snapshot", "snapshot", {"entries": {"service/inputs": service.id}, "parents": []})
        versions.put_many(tx, ada.project, [view, service, first], actor="ada", at=1)
        refs.move(tx, ada.project, refs.env_ref("production"), old=None, new=first.id, actor="ada", at=1)
    with bob.write() as tx:
        wider = Version("view", "load", {"features": [{"kind": "mean", "column": "delay", "over": "6h"}]})
        again = Version("service", "inputs", {"views": {"load": wider.id}, "request": []})
        second = Version("snapshot", "snapshot", {"entries": {"service/inputs": again.id}, "parents": [first.id]})
        versions.put_many(tx, bob.project, [wider, again, second], actor="bob", at=2)
        refs.move(tx, bob.project, refs.env_ref("production"), old=first.id, new=second.id, actor="bob", at=2_000_000)
    found = told(ada, "production@1970-01-01T00:00:01Z", "production")
    assert (found.old, found.new) == (first.id, second.id)
    assert [pair.kind for pair in found.pairs] == ["snapshot", "service", "view"]
    assert roots(found) == [("definition", "features[mean delay].over")]
    assert [(d.old, d.new) for d in found.pairs[0].differences if d.factor == "people"] == [("ada", "bob")]


def test_nothing_of_that_name_is_an_error_with_a_hint(context):
    for spec, error in (("model/none", NotFound), ("no such", InvalidInput), ("model/none:champion", NotFound)):
        with pytest.raises(error):
            told(context, spec, spec)


def test_a_long_lineage_costs_what_differs(context):
    """Manifests alone: a hundred tables of two hundred parts each above the difference are not read."""
    with context.write() as tx:
        made, before = [], ()
        for place in range(100):
            parts = [{"logical": f"b3:{place:032x}{part:032x}", "rows": 1} for part in range(200)]
            made.append(Version("data", f"t{place}", {"parts": parts, "rows": 200, "schema_fields": []}, before))
            before = (("rows", made[-1].id),)
        ends = [Version("model", "m", {"C": value}, before) for value in ("1", "2")]
        versions.put_many(tx, context.project, [*made, *ends], actor="ada", at=1)
    told(context, ends[0].id, ends[1].id)
    began = time.process_time()
    found = told(context, ends[0].id, ends[1].id)
    assert time.process_time() - began < 0.5
    assert (len(found.pairs), found.shared, roots(found)) == (1, 1, [("definition", "C")])


def test_pieces_of_a_file_by_name():
    spans = segments(
        "@wrap\ndef f():\n    def g():\n        pass\n\n\nclass A:\n    def m(self):\n        pass\n\n\nX, Y = 1, 2\n"
    )
    assert spans["f"] == ((1, 4),)
    assert spans["f.<locals>.g"] == ((3, 4),)
    assert spans["A.m"] == ((8, 9),)
    assert spans["X"] == spans["Y"] == ((12, 12),)
    assert segments("not python (") == {}
