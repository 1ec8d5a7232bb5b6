"""A model whose parameters are searched, built as people build it: judged by folds of time, never on the holdout."""

import pytest
from shop_house import PROJECT_FILE, Shop

from everloop.catalog import versions
from everloop.catalog.tracking import experiments, querying
from everloop.flows.value import codec

SEARCHED = """holdout="5d",
    search=el.search({"regularisation": el.choice(0.0001, 0.01, 1.0)}, maximize="roc_auc", sampler="grid"),
    folds=el.folds.time_series(3, gap="1h"))"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    text = PROJECT_FILE.read_text().replace('holdout="5d")', SEARCHED)
    made = Shop(tmp_path_factory.mktemp("searched") / "shop", policy="solo", days=20, text=text)
    yield made
    made.close()


def test_a_model_is_trained_with_what_its_search_found(shop):
    built = shop.build()
    ctx = shop.context("sandbox/ada/main")
    with ctx.read() as tx:
        model = versions.get(tx, "shop", built.results.outputs["model/comeback"])
        searched = versions.get(tx, "shop", built.results.outputs["value/comeback_search"])
        parents = {edge.role: edge.from_id for edge in versions.upstream(tx, "shop", model.id, 1)}
        home = experiments.by_name(tx, "shop", "comeback_search")
        runs = querying.search(tx, "shop", {home.id: home.name}, limit=50).rows
    assert parents["search"] == searched.id
    best = codec.load(searched.manifest, ctx.store, {})
    estimator = codec_model(model.manifest, ctx.store)
    assert best["params"]["regularisation"] == estimator.named_steps["logisticregression"].C
    folds = [best["result"][f"fold_{number}/roc_auc"] for number in (1, 2, 3)]
    assert best["values"]["roc_auc"] == pytest.approx(sum(folds) / 3)
    assert best["result"]["roc_auc_spread"] > 0
    trials = [one for one in runs if "everloop.trial" in one.tags]
    assert {one.params["regularisation"] for one in trials} == {"0.0001", "0.01", "1.0"}
    assert all("fold_3/roc_auc" in {point.key for point in one.metrics} for one in trials)
    again = shop.build()
    assert again.results.outputs == built.results.outputs
    assert all(step.reused for step in again.results.steps if step.step.startswith(("model/", "value/")))


def codec_model(manifest, store):
    import pickle

    return pickle.loads(store.get(manifest["files"]["model.pkl"]))
