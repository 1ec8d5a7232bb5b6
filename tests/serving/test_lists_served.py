"""Lists as inputs of a model: the same columns in training, over HTTP, in the log and in a replay."""

from dataclasses import replace
from types import SimpleNamespace

import msgspec
import numpy as np
import polars as pl
import pytest
from serving_house import Place, logged
from shop_house import BEGIN, Shop

from everloop import data
from everloop.catalog import versions
from everloop.core.clock import DAY
from everloop.data.sensitive.tags import tags_of
from everloop.features.definitions import FeatureServiceDef
from everloop.features.online import OnlineView, advance, push, scope_of
from everloop.features.stores.places import open_place, place_of
from everloop.models.predictor import load, materialize
from everloop.serving import ingest, segments
from everloop.serving import revision as revisions
from everloop.serving.rollout import entries
from everloop.serving.table import LOADER, Route
from everloop.watch.parity.replay import replay

PROJECT = """
import polars as pl

import everloop as el

project = el.Project("shop")
orders = project.source("orders", el.Files("listing.csv"), key="number", event_time="at",
                        tags={"items": "personal"})
habits = project.feature_view("habits", source=orders, entity="place", features=[
    el.last_k("amount", 3), el.last_k("items", 2, kind="integer", ttl="1d", name="items"),
    el.top_k("items", 2, over="2d", kind="integer"), el.histogram("amount", [20, 60], over="1d"),
    el.mean("amount", over="1d"), el.last_k("channel", 2, kind="text"),
])
inputs = project.feature_service("inputs", [habits], request=["amount"])


@project.model(inputs=inputs, spine=orders, label="late", holdout="1d")
def lateness(frame: pl.DataFrame):
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    texts = [name for name in frame.columns if "channel" in name]
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    first = make_column_transformer((encoder, texts), remainder="passthrough")
    model = make_pipeline(first, HistGradientBoostingClassifier(max_iter=8, random_state=0))
    return model.fit(frame.drop("late"), frame["late"])


project.endpoint("lateness", graph=el.Sequence(el.Lookup(inputs), lateness))
"""
SCOPE = scope_of("shop", "production")
SPREAD = {
    "amount_last_3": [f"amount_last_3_{place:03d}" for place in range(3)],
    "items": ["items_000", "items_001"],
    "items_top_2_2d": ["items_top_2_2d_000", "items_top_2_2d_001"],
    "amount_histogram_1d": [f"amount_histogram_1d_{place:03d}" for place in range(3)],
    "amount_mean_1d": ["amount_mean_1d"],
    "channel_last_2": ["channel_last_2_000", "channel_last_2_001"],
}
INPUTS = [f"habits__{column}" for columns in SPREAD.values() for column in columns]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The project built from 240 orders, its view filled online, and the entry of its endpoint."""
    folder = tmp_path_factory.mktemp("lists") / "shop"
    folder.mkdir()
    rng, first = np.random.default_rng(3), pl.datetime(2024, 1, 1)
    amount = rng.gamma(2.0, 20.0, 240).round(2)
    orders = pl.DataFrame(
        {
            "number": range(240),
            "at": pl.datetime_range(first, first + pl.duration(minutes=30 * 239), "30m", eager=True),
            "place": rng.choice([f"p{n}" for n in range(30)], 240),
            "amount": amount,
            "items": rng.integers(1, 5, 240),
            "channel": rng.choice(["shop", "café", "web"], 240),
            "late": (amount > 35).astype(int),
        }
    )
    orders.write_csv(folder / "listing.csv")
    shop = Shop(folder, policy="solo", days=1, text=PROJECT)
    try:
        shop.set_time(BEGIN + 6 * DAY)  # the orders end on the fifth day
        built = shop.build()
        ctx = shop.context("sandbox/ada/main")
        with ctx.read() as tx:
            held = dict(versions.get(tx, "shop", built.snapshot).manifest["entries"])
            manifests = versions.manifests(tx, "shop", set(held.values()))
        version = revisions.build("lateness", held, manifests)
        with ctx.write() as tx:
            versions.put(tx, "shop", version, actor="ada", at=ctx.now())
        home = tmp_path_factory.mktemp("place")
        rows = data.read(ctx, built.results.outputs["frame/lateness_rows"]).collect()
        service = FeatureServiceDef.from_manifest("inputs", manifests[held["service/inputs"]], manifests)
        store = open_place(place_of(home, "production"))
        view = OnlineView.of(SCOPE, held["view/habits"], service.views[0])
        facts = orders.with_columns(pl.col("at").dt.epoch("us"))
        push(store, view, facts.to_dict(as_series=False))
        advance(store, view, facts["at"].max() + DAY)
        store.close()
        model = materialize(manifests[held["model/lateness"]], ctx.store, home / "lateness")
        entry = entries.entry_of(version, manifests, folder_of=lambda _: model, scope=SCOPE, loader=LOADER)
        entry = msgspec.structs.replace(entry, weight=100, number=1)
        yield SimpleNamespace(ctx=ctx, rows=rows, service=service, model=model, entry=entry, home=home)
    finally:
        shop.close()


def test_a_frame_has_a_column_for_each_place_of_a_list(made):
    assert list(made.service.columns) == ["amount", *INPUTS]
    assert [name for name in made.rows.columns if name.startswith("habits__")] == INPUTS
    kinds = {made.rows.schema[f"habits__items_{place:03d}"] for place in range(2)}
    assert kinds == {pl.Float64()}  # a whole number that may be missing
    assert made.rows.schema["habits__amount_histogram_1d_002"] == pl.Int64
    assert made.rows.schema["habits__channel_last_2_001"] == pl.String
    assert made.rows["habits__amount_last_3_002"].null_count() > made.rows["habits__amount_last_3_000"].null_count() > 0
    assert [name for name, _ in made.entry.inputs] == ["amount", *INPUTS]
    assert [name for name, _ in made.entry.caller] == ["place", "amount"]


def test_a_tag_reaches_each_place_of_a_list(made):
    with made.ctx.read() as tx:
        tags = tags_of(tx, "shop", versions.get(tx, "shop", made.entry.id))
    tagged = {column for column, said in tags.items() if said}
    assert tagged & set(INPUTS) == {column for column in INPUTS if column.startswith("habits__items")}


def test_lists_are_served_as_trained_and_replay_is_equal(made):
    newest, scorer = made.rows.tail(40), load(made.model)
    place = Place(made.home)
    try:
        route = Route(project="shop", name="lateness", revisions=[made.entry])
        views = {made.entry.lookup.service["views"][view.name]: view.manifest() for view in made.service.views}
        listed = entries.service_of("shop", "inputs", made.entry.lookup.service, views, SCOPE)
        place.serve(route, services=[listed], replay=True)
        client = place.gateway().ready(90).client
        told = client.get("/v2/models/shop.lateness").json()
        assert [one["name"] for one in told["inputs"]] == ["place", "amount"]
        served = []
        for row in newest.iter_rows(named=True):
            reply = client.post(
                "/endpoints/shop/lateness/predict",
                json={"place": row["place"], "amount": row["amount"]},
                headers={"Everloop-Time": row["at"].isoformat() + "Z"},
            )
            assert reply.status_code == 200, reply.text
            served += reply.json()["predictions"]
        last = newest.row(-1, named=True)
        asked = {"entities": [{"place": last["place"]}], "at": last["at"].isoformat() + "Z"}
        [values] = client.post("/features/shop/inputs", json=asked).json()["values"]
    finally:
        place.close()
    assert served == [scorer.scores(newest[number]).item() for number in range(len(newest))]
    given = [segments.inputs_of(one) for one in logged(made.home)]
    assert [{name: one[name][0] for name in INPUTS} for one in given] == newest.select(INPUTS).to_dicts()
    for name, columns in SPREAD.items():  # who looks features up gets a list as a list
        told = values[f"habits__{name}"]
        right = [last[f"habits__{column}"] for column in columns]
        assert (told if isinstance(told, list) else [told]) == [one for one in right if one is not None]

    ingest.ingest(made.ctx.catalog, made.home)
    times = newest["at"].dt.epoch("us")
    ctx = replace(made.ctx, home=made.home)
    found = replay(ctx, "lateness", "sandbox/ada/main", times.min(), times.max() + 1)
    assert (found.state, found.judged, found.values) == ("equal", 40, 40 * len(INPUTS))
    assert found.differences == []
