"""A step that names packages of its own gets them, and they alone decide whether it runs again."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from wheel_house import wheel

from everloop.catalog import steps, versions
from everloop.core.errors import DefinitionError, InvalidInput, Unavailable
from everloop.core.settings import Settings
from everloop.flows.control import environment
from everloop.flows.engine import Origin
from everloop.flows.executors.process import ProcessExecutor
from everloop.flows.identity import project_tree
from everloop.flows.reproducing.environment import uv
from everloop.project.loading import load_project
from everloop.workspace.build import Request, build
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations
from everloop.workspace.work.executors import executor_of
from everloop.workspace.work.reproducing import reproduce_version

SHOP = """
import everloop as el
import pricing

project = el.Project("shop")


@project.step(environment=el.environment("pricing=={version}"))
def old():
    import sys
    return [pricing.price(10), sys.prefix]


@project.step()
def new():
    import sys
    return [pricing.price(10), sys.prefix]


@project.step()
def both(old, new):
    return old[0] - new[0]
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    load_operations()
    root, wheels, site = (tmp_path / name for name in ("code", "wheels", "site-packages"))
    for one in (root, wheels):
        one.mkdir()
    for version in ("1.0", "1.5", "2.0"):
        wheel(wheels, "pricing", version, f"def price(amount):\n    return amount * {version}\n")
    install = [uv(), "pip", "install", "-q", "--no-deps", "--offline", "--target", str(site)]
    subprocess.run([*install, "--find-links", str(wheels), "pricing==2.0"], check=True)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.delitem(sys.modules, "pricing", raising=False)
    settings = Settings(home=tmp_path / "home", project="shop")
    initialise(settings, "ada", "solo", root)
    with Workspace.open(settings) as workspace:
        ctx = workspace.system()

        def built(version):
            (root / "shop_priced.py").write_text(SHOP.replace("{version}", version))
            sys.modules.pop("shop_priced", None)
            project = load_project(root, "shop_priced")
            code = project_tree(root, ctx.store, "shop")
            executor = executor_of(ctx, project.assets(), code)
            origin = Origin(root, "shop_priced", "shop")
            try:
                made = build(ctx, project, origin, Request("sandbox/ada/main", ("both",)), executor=executor, code=code)
            finally:
                executor.close()
            return made.results

        yield SimpleNamespace(ctx=ctx, built=built, root=root)
    for name in ("shop_priced", "pricing"):
        sys.modules.pop(name, None)


def value(ctx, identity):
    with ctx.read() as tx:
        manifest = versions.get(tx, ctx.project, identity).manifest
    return json.loads(ctx.store.get(manifest["object"]))


def test_two_steps_of_one_run_see_two_versions_of_a_package(shop):
    done = shop.built("1.0")
    (old, place), (new, here) = (value(shop.ctx, done.outputs[f"value/{name}"]) for name in ("old", "new"))
    assert (old, new) == (10.0, 20.0)
    assert place != here == sys.prefix
    with shop.ctx.read() as tx:
        made = steps.made(tx, shop.ctx.project, [done.outputs["value/old"]])[done.outputs["value/old"]]
        seen = versions.get(tx, shop.ctx.project, made.runtime).manifest["packages"]
    assert seen["pricing"]["version"] == "1.0"
    assert seen["msgspec"]  # what it does not name is as it is here
    assert all(one.reused for one in shop.built("1.0").steps)
    again = {one.step: one.reused for one in shop.built("1.5").steps}
    assert again == {"value/old": False, "value/new": True, "value/both": False}
    verdict = reproduce_version(shop.ctx, done.outputs["value/old"])
    assert (value(shop.ctx, done.outputs["value/old"])[0], verdict.environment) == (10.0, "rebuilt")
    assert not [one for one in verdict.factors if one.startswith("package")]


def test_what_cannot_be_had_or_given_is_refused_before_anything_runs(shop):
    with pytest.raises(Unavailable, match="pricing"):
        shop.built("9.0")
    for pin in ("pricing", "pricing>=1", "pricing==1.*", ""):
        with pytest.raises(DefinitionError, match="no package in an exact version"):
            environment(pin)
    with pytest.raises(DefinitionError, match="holds packages"):
        environment()
    assert environment("My_Pricing == 1.0") == environment("my-pricing==1.0")
    project = load_project(shop.root, "shop_priced")
    origin, asked, executor = Origin(shop.root, "shop_priced"), Request("sandbox/ada/x", ("old",)), ProcessExecutor()
    try:
        with pytest.raises(InvalidInput, match="environment of its own, which this executor cannot"):
            build(shop.ctx, project, origin, asked, executor=executor)
    finally:
        executor.close()
