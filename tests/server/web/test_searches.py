"""Pages of searches and of first models, over real ones."""

import importlib
import sys

import numpy as np
import polars as pl
import pytest

from everloop.catalog.operation import invoke
from everloop.core.errors import NotFound
from everloop.flows.assets import plan
from everloop.flows.engine import Origin, run
from everloop.flows.executors.local import LocalExecutor
from everloop.flows.search.operations import ListSearches, ShowSearch
from everloop.models.baseline.operations import ShowBaseline
from everloop.server.web.views.explaining.searches import state
from everloop.workspace.flows.baselines import Asked, baseline
from everloop.workspace.runs import TrackedRuns

PROJECT = """
import everloop as el

project = el.Project("shop")
SPACE = {"kind": el.choice("flat", "steep"), "x": el.floats(-2, 2), "depth": el.ints(1, 4).when(kind="steep")}


@project.step(search=el.search(SPACE, maximize="score", trials=24, seed=2, prune=el.Median(startup=3)))
def climbed(kind="flat", x=0.0, depth=1):
    if depth == 4:
        raise ValueError("too deep")
    found = 1 - x * x + (depth / 10 if kind == "steep" else 0)
    el.report(found - 0.1, step=1)
    return {"score": found, "size": abs(x) + depth}


@project.step(search=el.search(SPACE, maximize="score", minimize="size", trials=10, seed=2))
def weighed(kind="flat", x=0.0, depth=1):
    return {"score": 1 - x * x, "size": abs(x) + depth}
"""


@pytest.fixture(scope="module")
def searched(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("search_pages")
    (root / "search_flow.py").write_text(PROJECT)
    sys.path.insert(0, str(root))
    try:
        assets = importlib.import_module("search_flow").project.assets()
    finally:
        sys.path.remove(str(root))
    ctx = world.by("ada")
    run(
        ctx,
        plan(assets, ["climbed", "weighed"]),
        origin=Origin(root, "search_flow"),
        executor=LocalExecutor(assets, ctx.store),
        codecs={"value": "everloop.flows.value:codec"},
        runs=TrackedRuns(ctx),
    )
    return invoke(ctx, "searches.show", ShowSearch(search="climbed"))


def test_a_search_is_told_with_every_trial(world, searched):
    assert (searched.search.trials, searched.search.metrics) == (24, (("score", "max"),))
    assert searched.search.done + searched.search.pruned + searched.search.failed == 24
    assert searched.search.pruned > 0
    assert searched.search.failed > 0
    best = next(one for one in searched.trials if one.best)
    assert best.metrics["score"] == max(one.metrics["score"] for one in searched.trials if one.state == "done")
    assert set(searched.importance["score"]) == {"kind", "x", "depth"}
    listed = invoke(world.by("ada"), "searches.list", ListSearches(name="value/climbed")).searches
    assert [one.run for one in listed] == [searched.search.run]
    with pytest.raises(NotFound):
        invoke(world.by("ada"), "searches.show", ShowSearch(search="nothing"))
    assert state(world.by("ada"), "climbed") == ""  # it has ended: an open page need not look again


def test_the_page_shows_history_importance_and_trials(http, searched):
    text = http("ada").get("/shop/searches/climbed").text
    for said in ("score by trial", "What it depends on", "Parameters and metrics", "ended early", "too deep", "best"):
        assert said in text
    assert f'href="/shop/runs/{searched.trials[0].run}"' in text
    assert "Pareto front" not in text
    narrowed = http("ada").get("/shop/searches/climbed", params={"brush": "x:-0.5..0.5"}).text
    assert "Within" in narrowed
    assert 'href="/shop/searches"' in http("ada").get("/shop/flows").text
    listed = http("ada").get("/shop/searches").text
    assert "climbed" in listed
    assert "weighed" in listed
    assert http("ada").get("/shop/searches/nothing").status_code == 404


def test_several_metrics_have_a_front_and_a_choice(http, searched):
    text = http("ada").get("/shop/searches/weighed", params={"metric": "size"}).text
    for said in ("Pareto front", "less size is better", "<option selected>size</option>"):
        assert said in text


def test_a_first_model_has_a_report(http, world, tmp_path):
    rng = np.random.default_rng(1)
    x, city = rng.normal(size=240), rng.choice(["ber", "par"], 240)
    label = (x + (city == "par") + rng.normal(size=240) > 0.5).astype(int)
    table = pl.DataFrame({"id": np.arange(240), "x": x, "city": city, "told": label * 1.0, "late": label})
    table.write_csv(tmp_path / "trips.csv")
    ctx = world.by("ada")
    asked = Asked("trips.csv", "late", "sandbox/ada/first", algorithms=("linear",))
    made = baseline(ctx, asked, root=tmp_path, say=lambda _text: None)
    assert made.name == "trips_late"
    found = invoke(ctx, "baselines.show", ShowBaseline(name="trips_late"))
    assert found.model == made.model
    text = http("ada").get("/shop/baselines/trips_late").text
    for said in ("A first model of late", "Trivial answer", "What matters to it", "told answers the question alone"):
        assert said in text
    assert "an id" in text
    with pytest.raises(NotFound):
        invoke(ctx, "baselines.show", ShowBaseline(name="nothing"))
