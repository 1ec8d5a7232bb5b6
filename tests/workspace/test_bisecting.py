"""Two versions of a real project: narrowed to the commit and the file, and to the package, in environments of uv's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from wheel_house import wheel

from everloop.core.errors import Unavailable
from everloop.core.settings import Settings
from everloop.flows.bisect.operations import Question
from everloop.flows.engine import Origin
from everloop.flows.identity import runtime
from everloop.flows.reproducing import environment
from everloop.project.loading import load_project
from everloop.workspace.bisecting import bisect
from everloop.workspace.build import Request, build
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations
from everloop.workspace.work.executors import ByKind
from everloop.workspace.work.reproducing import interpreter

SHOP = """
import random
import everloop as el
from rules import discount

project = el.Project("shop")


@project.step()
def income(seed: int = 0):
    chance = random.Random(seed)
    return {"mean": sum(discount(chance.uniform(1, 2)) for _ in range(200)) / 200}
"""
RULES = "def discount(price):\n    return price{less}\n\n\ndef other():\n    return {number}\n"
SANDBOX = "sandbox/ada/main"


def git(folder, *words):
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def shop(tmp_path):
    """A project in a folder of a repository, and a workspace beside it."""
    load_operations()
    repository = tmp_path / "repository"
    root = repository / "shop"
    root.mkdir(parents=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    settings = Settings(home=tmp_path / "home", project="shop")
    initialise(settings, "ada", "solo", root)
    (root / "shop_income.py").write_text(SHOP)
    with Workspace.open(settings) as workspace:
        ctx = workspace.system()

        def built():
            for name in ("shop_income", "rules"):
                sys.modules.pop(name, None)
            project = load_project(root, "shop_income")
            executor = ByKind(project.assets(), workspace.store)
            try:
                request = Request(SANDBOX, ("income",), base="production")
                done = build(ctx, project, Origin(root, "shop_income", "shop"), request, executor=executor)
            finally:
                executor.close()
            return done.results.outputs["value/income"]

        def rules(text="", number=0):
            (root / "rules.py").write_text(RULES.format(less=text, number=number))

        def commit(words):
            git(repository, "add", "-A")
            git(repository, "commit", "--quiet", "-m", words)
            return git(repository, "rev-parse", "HEAD")

        yield SimpleNamespace(ctx=ctx, root=root, repository=repository, built=built, rules=rules, commit=commit)
    for name in ("shop_income", "rules"):
        sys.modules.pop(name, None)


def history(shop, guilty, count=7):
    """Commits of which one makes things cheaper; the ids of both ends, and that commit."""
    shop.rules()
    shop.commit("begin")
    good, found = shop.built(), ""
    for number in range(1, count + 1):
        shop.rules(" * 0.9" if number >= guilty else "", number)
        (shop.root / "notes.md").write_text(f"{number}\n")
        if number == guilty:
            (shop.root / "more.py").write_text("NOTHING = 1\n")
        made = shop.commit(f"step {number}")
        found = made if number == guilty else found
        (shop.repository / "elsewhere.txt").write_text(f"{number}\n")
        shop.commit("not of this project")
    return good, found


def asked(shop, good, bad, **more):
    question = Question(good=good, bad=bad, metric="mean", seeds=4)
    return bisect(shop.ctx, question, root=shop.root, **more).found


def test_the_commit_and_the_file_in_it_are_named(shop):
    good, guilty = history(shop, guilty=5)
    bad = shop.built()
    before = git(shop.repository, "status", "--porcelain"), git(shop.repository, "rev-parse", "HEAD")
    found = asked(shop, good, bad)
    assert [one["factors"] for one in found["contributions"]] == [["code"]]
    inside = found["inside"]
    assert inside["code"]["items"] == [f"commit {guilty[:10]} step 5 (Ada)"]
    assert inside["code"]["reason"] == "one item"
    assert len(inside["code"]["probes"][0]["items"]) == 7  # what touches other folders alone is no step
    assert inside[f"commit {guilty[:10]}"]["items"] == ["rules.py"]
    assert (git(shop.repository, "status", "--porcelain"), git(shop.repository, "rev-parse", "HEAD")) == before
    assert len(git(shop.repository, "worktree", "list").splitlines()) == 1
    assert found["runs"]["reused"] > found["runs"]["run"]  # most commits change nothing that the step reaches
    again = asked(shop, good, bad)
    assert again["runs"]["run"] == 0
    back = asked(shop, bad, good)  # from the newer to the older
    assert back["inside"]["code"]["items"] == [f"without commit {guilty[:10]} step 5 (Ada)"]


def test_what_was_never_committed_is_told_apart_from_commits(shop):
    (shop.root / "local.py").write_text("HERE = 1\n")  # both sides have it, and no commit
    (shop.repository / ".git" / "info" / "exclude").write_text("local.py\n")
    history(shop, guilty=99, count=3)
    (shop.repository / ".git" / "info" / "exclude").write_text("")
    good = shop.built()
    shop.rules("", 17)
    shop.commit("harmless")
    shop.rules(" * 0.8", 17)
    found = asked(shop, good, shop.built())
    head = git(shop.repository, "rev-parse", "HEAD")
    assert found["inside"]["code"]["items"] == [f"what was not committed on {head[:10]}"]
    assert "files" not in found["inside"]["code"]["reason"]


def test_sides_of_two_histories_are_narrowed_as_before(shop):
    shop.rules()
    shop.commit("one")
    good = shop.built()
    git(shop.repository, "checkout", "--quiet", "--orphan", "other")
    shop.rules(" * 0.9")
    shop.commit("another beginning")
    found = asked(shop, good, shop.built())
    assert found["inside"]["code"]["items"] == ["rules.py"]


PRICED = """
import random
import everloop as el
import labels
import pricing

project = el.Project("shop")


@project.step()
def income(bonus: float = 0.0, seed: int = 0):
    chance = random.Random(seed)
    labels.label()
    return {"mean": sum(pricing.price(chance.uniform(1, 2)) for _ in range(200)) / 200 + bonus}
"""


@pytest.fixture(scope="module")
def priced(tmp_path_factory):
    """A project run with two packages, and again after both were upgraded: two real environments, two versions."""
    folder = tmp_path_factory.mktemp("priced")
    root, wheels = folder / "shop", folder / "wheels"
    for one in (root, wheels):
        one.mkdir()
    (root / "shop_income.py").write_text(PRICED)
    for version in ("1.0", "2.0"):
        less = "" if version == "1.0" else " * 0.9"
        wheel(wheels, "pricing", version, f"def price(amount):\n    return amount{less}\n")
        wheel(wheels, "labels", version, f"def label():\n    return {version}\n")
    initialise(Settings(home=folder / "home", project="shop"), "ada", "solo", root)
    recorded = runtime().version.manifest
    lock = environment.lock_of([], recorded)
    digests = {name: recorded["packages"][name]["digest"] for name in lock}
    python = {
        version: environment.rebuild(
            folder,
            recorded["python"],
            {**lock, "pricing": version, "labels": version},
            wheels,
            digests={**digests, "pricing": "", "labels": ""},
        )
        for version in ("1.0", "2.0")
    }
    variables = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    variables |= {"EVERLOOP_HOME": str(folder / "home"), "EVERLOOP_PROJECT": "shop", "EVERLOOP_MODULE": "shop_income"}
    path = f"{Path(environment.uv()).parent}{os.pathsep}{variables['PATH']}"
    variables |= {"LOGNAME": "ada", "UV_FIND_LINKS": str(wheels), "PATH": path}

    def everloop(version, *words, **more):
        done = subprocess.run(
            [python[version], "-P", "-m", "everloop", *words, "--json"],
            cwd=root,
            env={**variables, **more},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    for version in ("1.0", "2.0"):
        assert everloop(version, "run", "income")[0] == 0
    return everloop, wheels


def test_a_package_that_was_upgraded_is_named(priced):
    everloop, _ = priced
    code, found = everloop(
        "2.0", "bisect", "value/income@1", "value/income@2", "--metric", "mean", "--yes", "--seeds", "4"
    )
    assert code == 0, found
    told = found["found"]
    assert [one["factors"] for one in told["contributions"]] == [["environment"]]
    assert told["inside"]["environment"]["items"] == ["pricing"]
    assert told["equal"].keys() == {"data", "evaluation", "code", "parameters"}
    assert -0.2 < float(told["measured"]["total"][0]) < -0.1


def test_a_package_and_a_parameter_together_are_both_named(priced):
    everloop, _ = priced
    assert everloop("2.0", "run", "income", "--set", "income.bonus=-0.4")[0] == 0
    code, found = everloop(
        "2.0", "bisect", "value/income@1", "value/income@3", "--metric", "mean", "--yes", "--seeds", "4"
    )
    assert code == 0, found
    told = found["found"]
    assert [(one["factors"], one["noise"]) for one in told["contributions"]] == [
        (["parameters"], False),
        (["environment"], False),
    ]
    assert told["inside"]["parameters"]["items"] == ["value/income.bonus"]
    assert everloop("2.0", "lineage", "value/income@3")[0] == 0
    assert everloop("2.0", "lineage", "value/income@4")[0] == 4  # replicates are named apart


def test_the_recorded_packages_come_back_for_a_reproduction(priced):
    everloop, _ = priced
    code, verdict = everloop("2.0", "reproduce", "value/income@1")
    assert (code, verdict["tier"], verdict["environment"]) == (0, "bit", "rebuilt")
    assert not [factor for factor in verdict["factors"] if factor.startswith("package")]
    code, verdict = everloop("2.0", "reproduce", "value/income@1", "--here")
    assert (code, verdict["tier"]) == (1, "different")
    named = [factor for factor in verdict["factors"] if factor.startswith("package")]
    assert named == ["package labels: 1.0 then, 2.0 now", "package pricing: 1.0 then, 2.0 now"]


def test_other_files_under_the_recorded_version_are_no_rebuilt_environment(priced, shop, monkeypatch):
    monkeypatch.setenv("UV_FIND_LINKS", str(priced[1]))
    recorded = runtime().version.manifest
    packages = {**recorded["packages"], "pricing": {"version": "1.0", "digest": "b3:of another build"}}
    needed = {"pricing": "1.0 b3:of another build"}
    with pytest.raises(Unavailable, match="pricing can be had in other files only"):
        interpreter(shop.ctx, needed, {**recorded, "packages": packages}, exact=True)
