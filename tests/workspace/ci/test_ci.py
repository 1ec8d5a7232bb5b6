"""`everloop ci` on a small project: green to a change, and each way of being red."""

import json
import shutil
import sys
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from everloop.catalog.context import Actor
from everloop.changes import reviewing
from everloop.changes.access import OWNER_ROLES
from everloop.checks.record import record_finding
from everloop.checks.request import Finding
from everloop.cli import main
from everloop.cli.options import given
from everloop.client import local
from everloop.core.settings import Settings
from everloop.workspace.ci.findings import Case, Report, Stage
from everloop.workspace.ci.junit import junit
from everloop.workspace.ci.markdown import markdown
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations

PROJECT = """
import polars as pl
import everloop as el

project = el.Project("shop")
till = project.source("till", el.Files("till.csv"), key="number", event_time="at")


@project.dataset(key="number", event_time="at", tags={"customer": "personal"},
                 expect=[el.expect.unique("number"), el.expect.between("amount", 0, 1000),
                         el.expect.matches("customer", "c[0-9]+")])
def orders(till: pl.LazyFrame) -> pl.LazyFrame:
    return till.with_columns(pl.col("returned").cast(pl.Int8))


spent = project.feature_view("spent", source=orders, entity="place", features=[el.mean("amount", over="2d")])
inputs = project.feature_service("inputs", [spent], request=["amount"])
ranked = project.objective("ranked", metric="roc_auc", at_least=0.6, owner="till")


@project.model(inputs=inputs, spine=orders, label="returned", holdout="5d")
def comeback(frame: pl.DataFrame, regularisation: float = 1.0):
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    return make_pipeline(SimpleImputer(), LogisticRegression(C=regularisation)).fit(
        frame.drop("returned").to_numpy(), frame["returned"].to_numpy())


@project.check(objective=ranked, blocks=["production"])
def good_enough(comeback: el.Candidate, holdout: pl.DataFrame, objective: el.Objective) -> el.Verdict:
    return el.verdicts.threshold(comeback, holdout, objective)
"""
TESTS = "def test_sums():\n    assert 1 + 1 == 2\n"


def rows():
    rng = np.random.default_rng(7)
    amount = rng.gamma(2.0, 20.0, 600).round(2)
    start = pl.datetime(2024, 1, 1)
    return pl.DataFrame(
        {
            "number": range(600),
            "place": rng.choice(["a", "b"], 600),
            "customer": [f"c{n}" for n in range(600)],
            "amount": amount,
            "returned": (rng.random(600) < 1 / (1 + np.exp(-(amount - 40) / 10))).astype(int),
        }
    ).with_columns(at=start + pl.duration(hours=pl.col("number")))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with project, data, tests and workspace, after one green run: later runs find its work in the cache."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, folder)
        (folder / "shop_of_ci.py").write_text(PROJECT)
        (folder / "test_shop.py").write_text(TESTS)
        rows().write_csv(folder / "till.csv")
        assert main(["init"]) == 0
        report, junit_file = folder.parent / "report.md", folder.parent / "junit.xml"
        code = main(["ci", "--report", str(report), "--junit", str(junit_file)])
        return folder, code, report.read_text(), junit_file.read_bytes()


@pytest.fixture
def shop(built, tmp_path, monkeypatch):
    """A copy of it, to break; `.module(text)` gives the project another text under a name of its own."""
    folder = tmp_path / "shop"
    shutil.copytree(built[0], folder)
    at_home(monkeypatch, folder)
    return Shop(folder, tmp_path)


def at_home(patch, folder):
    patch.chdir(folder)
    given.clear()
    for name, value in {"LOGNAME": "ada", "EVERLOOP_PROJECT": "shop", "EVERLOOP_MODULE": "shop_of_ci"}.items():
        patch.setenv(name, value)


class Shop:
    def __init__(self, folder, scratch):
        self.folder, self.scratch = folder, scratch

    def edit(self, *edits):
        path = self.folder / "shop_of_ci.py"
        text = path.read_text()
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)

    def ci(self, capsys, *more):
        capsys.readouterr()
        sys.modules.pop("shop_of_ci", None)  # as in a process of its own
        code = main(["ci", "--report", str(self.scratch / "r.md"), *more, "--json"])
        given.clear()
        return code, json.loads(capsys.readouterr().out), (self.scratch / "r.md").read_text()

    @contextmanager
    def client(self):
        load_operations()
        with Workspace.open(Settings(home=self.folder / ".everloop", project="shop")) as workspace:
            yield local(workspace.context(Actor.of("ada", *OWNER_ROLES)))

    def merge(self, number):
        """As a worker and a person do it."""
        with Workspace.open(Settings(home=self.folder / ".everloop", project="shop")) as workspace:
            worker = workspace.context(Actor.of("everloop", "worker", kind="service"))
            for request in reviewing.pending_checks(worker, number):
                record_finding(worker, request, Finding("passed", "fine"))
        with self.client() as client:
            client.call("changes.approve", number=number)
            client.call("changes.merge", number=number)


def stage(found, name):
    return next(s for s in found["stages"] if s["name"] == name)


def states(found, name):
    return {case["name"]: case["state"] for case in stage(found, name)["cases"]}


def test_a_green_run_tells_everything_in_markdown_and_junit(built):
    _, code, report, xml = built
    assert code == 0
    assert report.startswith("# everloop ci: green")
    assert "model/comeback v1" in report
    assert "| comeback | roc_auc |" in report
    assert "shop_of_ci.py" in report
    assert "| orders | new |" in report
    assert "good_enough | ok |" in report
    suites = {s.get("name"): s for s in ET.fromstring(xml)}
    assert list(suites) == [
        "definitions",
        "data contracts",
        "project's tests",
        "build",
        "checks of the target's policy",
    ]
    assert [c.get("name") for c in suites["project's tests"]] == ["test_shop::test_sums"]
    assert "orders: unique(number)" in [c.get("name") for c in suites["data contracts"]]
    assert all(s.get("failures") == "0" for s in suites.values())


def test_green_opens_the_change_updates_it_and_meets_the_checks_of_production(shop, capsys):
    code, found, _ = shop.ci(capsys, "--propose")
    assert (code, found["green"], found["change"]) == (0, True, 1)
    with shop.client() as client:
        change = client.call("changes.show", number=1)
        assert change.source == "sandbox/ada/ci"
        assert [c.state for c in change.checks] == ["waiting"]  # what CI saw is no evidence: a worker's run is
    (shop.folder / "notes.py").write_text("more = 1\n")
    assert shop.ci(capsys, "--propose")[1]["change"] == 1
    with shop.client() as client:
        assert len(client.call("changes.list").changes) == 1
        assert client.call("changes.show", number=1).head != change.head
    shop.merge(1)
    shop.edit(("return el.verdicts.threshold(comeback, holdout, objective)", "return el.Verdict(True, 'trust me')"))
    code, found, report = shop.ci(capsys, "--propose")
    checks = {case["name"]: case["summary"] for case in stage(found, "checks of the target's policy")["cases"]}
    assert checks["good_enough"] == "trust me"
    assert "roc_auc" in checks["good_enough (as production holds it)"]  # the code of production's snapshot said that
    assert (code, found["change"]) == (0, 2)
    assert "| shop_of_ci.py | changed | +1 -1 |" in report


def test_broken_data_and_a_failing_test_are_red_with_masked_rows(shop, capsys):
    broken = rows().with_columns(
        amount=pl.when(pl.col("number") == 5).then(-1.0).otherwise("amount"),
        customer=pl.when(pl.col("number") == 6).then(pl.lit("Jane Roe")).otherwise("customer"),
    )
    broken.write_csv(shop.folder / "till.csv")
    (shop.folder / "test_shop.py").write_text(TESTS + "def test_wrong():\n    assert 2 + 2 == 5\n")
    code, found, report = shop.ci(capsys, "--propose")
    assert code == 1
    contracts = states(found, "data contracts")
    assert contracts["orders: unique(number)"] == "passed"
    assert contracts["orders: between(amount, lower=0, upper=1000)"] == "failed"
    assert "number=5, amount=-1.0" in report
    assert "number=6, customer=•••" in report
    assert "Jane" not in report
    assert states(found, "project's tests") == {"test_shop::test_sums": "passed", "test_shop::test_wrong": "failed"}
    assert states(found, "build") == {"build": "skipped"}
    assert (found["change"], found["differences"]) == (None, None)


def test_a_check_that_fails_is_red_and_proposes_nothing(shop, capsys):
    shop.edit(("at_least=0.6", "at_least=0.999"))
    code, found, report = shop.ci(capsys, "--propose")
    assert code == 1
    assert states(found, "checks of the target's policy") == {"good_enough": "failed"}
    assert "## checks of the target's policy: good_enough" in report
    assert found["change"] is None
    with shop.client() as client:
        assert client.call("changes.list").changes == []


def test_a_wrong_definition_is_red_with_its_place(shop, capsys):
    shop.edit(("source=orders", "source='order'"))
    code, found, _ = shop.ci(capsys)
    (case,) = stage(found, "definitions")["cases"]
    assert (code, case["state"]) == (1, "failed")
    assert "shop_of_ci.py:" in case["summary"]
    assert len(found["stages"]) == 1


@pytest.mark.parametrize("wrong", [("--target", "moon"), ("--target", "sandbox/a/b"), ("--sandbox", "production")])
def test_what_cannot_be_asked_is_exit_code_2(shop, capsys, wrong):
    assert main(["ci", *wrong, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["hint"]


def test_who_may_not_build_there_is_told_so(shop, capsys):
    with shop.client() as client:
        client.call("access.create_user", name="eve", kind="service", roles=("viewer",))
        token = client.call("access.create_token", user="eve").secret
    assert main(["--token", token, "ci", "--json"]) == 2
    given.clear()
    assert json.loads(capsys.readouterr().out)["code"] == "permission_denied"


def test_without_a_workspace_it_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    at_home(monkeypatch, tmp_path)
    assert main(["ci"]) == 2
    assert "everloop init" in capsys.readouterr().err
    assert not list(Path(tmp_path).iterdir())


def test_reports_hold_whatever_a_case_says():
    nasty = Case("a|b", "failed", "x | <b>\n```\x00", "hint", "```\n| row |")
    report = Report("p", "production", "sandbox/a/b", (Stage("s", (nasty,)),))
    assert "a\\|b" in markdown(report) or "a|b" in markdown(report)
    assert "``````text" in markdown(report)
    (suite,) = ET.fromstring(junit(report))
    assert suite.get("failures") == "1"
