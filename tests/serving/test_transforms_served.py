"""A project whose service has transforms: what is served is what was trained on, to the last bit, from packed code."""

from types import SimpleNamespace

import polars as pl
import pytest
from serving_house import Place, logged
from shop_house import BEGIN, Shop

from everloop import data
from everloop.catalog import versions
from everloop.core.clock import DAY, iso
from everloop.core.errors import InvalidInput
from everloop.features.definitions import FeatureServiceDef
from everloop.features.online import OnlineView, advance, push, scope_of
from everloop.features.stores.places import open_place, place_of
from everloop.models.predictor import load, materialize
from everloop.serving import revision as revisions
from everloop.serving import segments
from everloop.serving.rollout import entries
from everloop.serving.table import LOADER, Route

PROJECT = '''
import numpy as np
import polars as pl

import everloop as el

project = el.Project("shop")
till = project.source("till", el.Files("data/till/*.csv"), key="number", event_time="at")
CUT = 40.0


@project.dataset(key="number", event_time="at")
def orders(till: pl.LazyFrame) -> pl.LazyFrame:
    """Some orders do not say how many items, nor where."""
    odd = pl.col("number") % 5 == 0
    return till.select(
        "number", "at", "place", "amount", "returned",
        items=pl.when(odd).then(None).otherwise(pl.col("items").cast(pl.Int64)),
        note=pl.when(odd).then(None).otherwise(pl.col("place") + "!"),
        known_at=pl.col("at") + pl.duration(hours=6),
    )


features = [el.count(over="2d"), el.mean("amount", over="2d")]
seen = project.feature_view("seen", source=orders, entity="place", features=features)


@project.transform(
    inputs={"amount": "float64", "items": "int64", "seen__count_2d": "int64"},
    outputs={"each": "float64", "busy": "bool"},
)
def basket(amount, items, seen__count_2d):
    return {"each": amount / np.ma.filled(items.astype(float), np.nan), "busy": seen__count_2d > 50}


@project.transform(
    inputs={"note": "text", "items": "int64", "each": "float64"}, outputs={"shouted": "int64", "dear": "bool"}
)
def shouting(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        shouted=pl.col("note").str.ends_with("!").cast(pl.Int64) + pl.col("items"),
        dear=(pl.col("each") > CUT).fill_null(False),
    )


inputs = project.feature_service("inputs", [seen], request=["amount", "items", "note"], transforms=[basket, shouting])


@project.model(inputs=inputs, spine=orders, label="returned", label_known="known_at", holdout="2d")
def comeback(frame: pl.DataFrame):
    from sklearn.ensemble import HistGradientBoostingClassifier

    kept = frame.select("amount", "seen__amount_mean_2d", "each", "busy", "shouted", "dear").cast(pl.Float64)
    return HistGradientBoostingClassifier(max_iter=10, random_state=1).fit(kept, frame["returned"].to_numpy())


endpoint = project.endpoint("comeback", graph=el.Sequence(el.Lookup(inputs), comeback))
'''
DERIVED = ["each", "busy", "shouted", "dear"]


SCOPE = scope_of("shop", "production")
DAYS = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The built project, its model's folder, its frame, and the facts of its view in an online store."""
    shop = Shop(tmp_path_factory.mktemp("transforms") / "shop", policy="solo", days=DAYS, text=PROJECT)
    try:
        built = shop.build()
        ctx = shop.context("sandbox/ada/main")
        with ctx.read() as tx:
            held = dict(versions.get(tx, "shop", built.snapshot).manifest["entries"])
            manifests = versions.manifests(tx, "shop", set(held.values()))
        home = tmp_path_factory.mktemp("place")
        folder = materialize(manifests[held["model/comeback"]], ctx.store, home / "model")
        rows = data.read(ctx, built.results.outputs["frame/comeback_rows"]).collect()
        orders = data.read(ctx, built.results.outputs["data/orders"]).collect()
        service = FeatureServiceDef.from_manifest("inputs", manifests[held["service/inputs"]], manifests)
        [view] = service.views
        store = open_place(place_of(home, "production"))
        online = OnlineView.of(SCOPE, held["view/seen"], view)
        push(store, online, orders.with_columns(pl.col("at").dt.epoch("us")).to_dicts())
        advance(store, online, BEGIN + DAYS * DAY)
        store.close()
        yield SimpleNamespace(shop=shop, held=held, manifests=manifests, folder=folder, rows=rows, home=home)
    finally:
        shop.close()


def entry_of(made, **changed):
    manifests = {**made.manifests, **changed}
    version = revisions.build("comeback", made.held, made.manifests)
    return entries.entry_of(version, manifests, folder_of=lambda _: made.folder, scope=SCOPE, loader=LOADER)


def test_the_frame_holds_what_transforms_make_and_its_types_survive_nulls(made):
    assert [str(made.rows.schema[name]) for name in DERIVED] == ["Float64", "Boolean", "Int64", "Boolean"]
    assert made.rows["shouted"].null_count() == made.rows["items"].null_count() > 0


def test_the_model_carries_the_code_and_the_entry_says_what_to_send(made):
    entry = entry_of(made)
    assert entry.loader == "everloop.serving.fusing.loader:load"
    assert entry.nullable == ["items", "seen__count_2d"]
    assert entry.caller == [["place", "BYTES"], ["amount", "FP64"], ["items", "INT64"], ["note", "BYTES"]]
    sent = [name for name, _ in entry.inputs]
    assert not set(DERIVED) & set(sent)
    assert set(sent) >= {"amount", "items", "items?null", "note", "seen__amount_mean_2d", "seen__count_2d"}


def test_another_transform_than_the_model_was_trained_with_does_not_serve(made):
    service = made.held["service/inputs"]
    manifest = dict(made.manifests[service])
    manifest["transforms"] = [{**one, "code": "b3:" + "0" * 64} for one in manifest["transforms"]]
    with pytest.raises(InvalidInput, match="does not carry the transforms"):
        entry_of(made, **{service: manifest})


def test_a_request_is_answered_as_its_row_was_trained_bit_for_bit(made):
    place = Place(made.home)
    newest = made.rows.filter(pl.col("at").dt.epoch("us") > BEGIN + (DAYS - 1) * DAY + DAY // 2)
    expected = load(made.folder).scores(newest)
    try:
        entry = entry_of(made)
        entry = type(entry)(**{**{f: getattr(entry, f) for f in entry.__struct_fields__}, "weight": 100, "number": 1})
        place.serve(Route(project="shop", name="comeback", revisions=[entry]), replay=True)
        gateway = place.gateway().ready(90)
        replies = []
        for row in newest.iter_rows(named=True):
            asked = {name: row[name] for name in ("place", "amount", "items", "note")}
            stamp = {"Everloop-Time": iso(int(row["at"].timestamp() * 1_000_000))}
            replies.append(gateway.predict(asked, "shop.comeback", **stamp))
        assert {reply.status_code for reply in replies} == {200}, replies[0].text
        assert [reply.json()["predictions"] for reply in replies] == [[value] for value in expected.tolist()]
        described = gateway.client.get("/v2/models/shop.comeback").json()
        assert [output["name"] for output in described["outputs"]] == ["prediction"]
        wrong = gateway.predict({"place": "a", "amount": 1.0, "items": 1.5, "note": "x"}, "shop.comeback")
        assert wrong.status_code == 400, wrong.text
    finally:
        place.close()
    columns = ["amount", "items", "note", "seen__count_2d", "seen__amount_mean_2d", *DERIVED]
    asked = [segments.inputs_of(entry) for entry in logged(made.home)]
    assert [{name: one[name][0] for name in columns} for one in asked] == newest.select(columns).to_dicts()
    assert {name for entry in logged(made.home) for name in segments.answers_of(entry)} == {"answer"}
