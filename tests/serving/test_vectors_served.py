"""Files and texts become vectors by steps, vectors become features, and a model answers binary tensors of them."""

import json
from types import SimpleNamespace

import msgspec
import numpy as np
import polars as pl
import pytest
from serving_house import Place, logged
from shop_house import Shop

from everloop import data
from everloop.catalog import versions
from everloop.catalog.operation import invoke
from everloop.core.errors import EverloopError, InvalidInput, NotFound
from everloop.features.definitions import FeatureServiceDef
from everloop.features.online import OnlineView, advance, push, scope_of
from everloop.features.stores.places import open_place, place_of
from everloop.features.vectors.operations import Nearest
from everloop.models.predictor import load, materialize
from everloop.serving import revision as revisions
from everloop.serving import segments
from everloop.serving.rollout import entries
from everloop.serving.table import LOADER, Route

FEW, MANY, DIM, WORDS = 300, 20_000, 16, 8
PROJECT = f'''
import numpy as np
import polars as pl

import everloop as el

project = el.Project("shop")
images = project.source("images", el.Folder("pictures/**/*.raw"))
listing = project.source("listing", el.Files("listing.csv"), key="item", event_time="at")


@project.encoder(source=images, dim={DIM})
def pictures(files):
    """Means of the patches of an 8 by 8 picture."""
    pixels = np.stack([np.frombuffer(content, np.uint8) for content in files]).astype(np.float32)
    return pixels.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, {DIM}) / 255


@project.encoder(source=listing, column="title", dim={WORDS}, vector="words", batch=50)
def titles(texts):
    """Letters, counted into a few bins."""
    return [[sum(ord(c) % {WORDS} == place for c in text) for place in range({WORDS})] for text in texts]


@project.dataset(key="item", event_time="at")
def shown(pictures: pl.LazyFrame, listing: pl.LazyFrame, titles: pl.LazyFrame) -> pl.LazyFrame:
    """An item's picture and title, known an hour before it is first asked for."""
    keyed = pictures.with_columns(item=pl.col("path").str.extract("([0-9]+)").cast(pl.Int64)).drop("path")
    early = listing.select("item", pl.col("at").dt.offset_by("-1h"))
    return early.join(keyed, on="item").join(titles.drop("at"), on="item")


looks = project.feature_view("looks", source=shown, entity="item", features=[
    *el.vector("embedding", {DIM}, ttl="2d"), *el.vector("words", {WORDS}),
])
inputs = project.feature_service("inputs", [looks], request=[f"query_{{place:03d}}" for place in range(4)])


@project.model(inputs=inputs, spine=listing, label="number", holdout="6h", output="value")
def alike(frame: pl.DataFrame):
    """The number of the item whose picture and title are nearest."""
    from everloop.features.vectors.nearest import NearestLabel

    return NearestLabel("euclidean").fit(frame.drop("number").to_numpy(), frame["number"].to_numpy())


@project.model(inputs=inputs, spine=listing, label="bright", holdout="6h")
def comeback(frame: pl.DataFrame):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=200).fit(frame.drop("bright").to_numpy(), frame["bright"].to_numpy())


endpoint = project.endpoint("comeback", graph=el.Sequence(el.Lookup(inputs), comeback))
project.endpoint("alike", graph=el.Sequence(el.Lookup(inputs), alike))
'''
SCOPE = scope_of("shop", "production")


def picture(number):
    return np.random.default_rng(number).integers(0, 128 + 127 * (number % 2), 64, np.uint8)


@pytest.fixture(scope="module", params=[FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def made(request, tmp_path_factory):
    """The built project, its model's folder and frame, and the vectors of its view in an online store."""
    count = request.param
    folder = tmp_path_factory.mktemp("vectors") / "shop"
    (folder / "pictures" / "all").mkdir(parents=True)
    for number in range(count):
        (folder / "pictures" / "all" / f"{number:05}.raw").write_bytes(picture(number).tobytes())
    rng, first = np.random.default_rng(0), pl.datetime(2024, 1, 1)
    pl.DataFrame(
        {
            "item": range(count),
            "at": pl.datetime_range(first, first + pl.duration(minutes=10 * (count - 1)), "10m", eager=True),
            "title": [f"item number {number}" for number in range(count)],
            "bright": [number % 2 for number in range(count)],
            "number": [float(number) for number in range(count)],
            **{f"query_{place:03d}": rng.normal(size=count).round(3) for place in range(4)},
        }
    ).write_csv(folder / "listing.csv")
    shop = Shop(folder, policy="solo", days=1, text=PROJECT)
    try:
        built = shop.build()
        ctx = shop.context("sandbox/ada/main")
        with ctx.read() as tx:
            held = dict(versions.get(tx, "shop", built.snapshot).manifest["entries"])
            manifests = versions.manifests(tx, "shop", set(held.values()))
        home = tmp_path_factory.mktemp("place")
        tables = {n: data.read(ctx, built.results.outputs[f"data/{n}"]).collect() for n in ("pictures", "shown")}
        rows = data.read(ctx, built.results.outputs["frame/comeback_rows"]).collect()
        service = FeatureServiceDef.from_manifest("inputs", manifests[held["service/inputs"]], manifests)
        store = open_place(place_of(home, "production"))
        online = OnlineView.of(SCOPE, held["view/looks"], service.views[0])
        facts = tables["shown"].with_columns(pl.col("at").dt.epoch("us")).drop("embedding", "words")
        for part in facts.iter_slices(5_000):
            push(store, online, part.to_dicts())
        advance(store, online, facts["at"].max() + 3_600_000_000)
        store.close()
        models, served = {}, {}
        for name in ("comeback", "alike"):
            models[name] = materialize(manifests[held[f"model/{name}"]], ctx.store, home / name)
            version = revisions.build(name, held, manifests)
            entry = entries.entry_of(
                version, manifests, folder_of=lambda _, n=name: models[n], scope=SCOPE, loader=LOADER
            )
            served[name] = msgspec.structs.replace(entry, weight=100, number=1)
        yield SimpleNamespace(ctx=ctx, tables=tables, rows=rows, home=home, models=models, entries=served)
    finally:
        shop.close()


def test_encoders_make_datasets_of_vectors(made):
    vectors = made.tables["pictures"]
    assert vectors.schema["embedding"] == pl.Array(pl.Float32, DIM)
    expected = picture(7).astype(np.float32).reshape(4, 2, 4, 2).mean(axis=(1, 3)).reshape(-1) / 255
    row = vectors.filter(pl.col("path").str.contains("00007")).row(0, named=True)
    assert np.allclose(row["embedding"], expected)
    assert [row[f"embedding_{place:03d}"] for place in range(DIM)] == list(row["embedding"])


def test_nearest_neighbours_are_asked_by_vector_or_by_row(made):
    def ask(**asked):
        return invoke(made.ctx, "features.nearest", Nearest(environment="sandbox/ada/main", **asked))

    vectors = made.tables["pictures"]
    first = vectors.row(0, named=True)
    found = ask(dataset="pictures", vector=tuple(first["embedding"]), k=3)
    assert found.neighbours[0].key == {"path": first["path"]}
    assert found.neighbours[0].score == pytest.approx(1.0)
    alike = ask(dataset="pictures", like={"path": first["path"]}, k=2)
    assert [n.key for n in alike.neighbours] == [n.key for n in found.neighbours[1:]]
    words = ask(dataset="titles", like={"item": 11}, k=1, column="words", metric="euclidean")
    assert set(words.neighbours[0].key) == {"item"}
    assert ask(dataset="titles", like={"item": 11}, k=1, metric="euclidean") == words  # the only one
    with pytest.raises(NotFound, match="has no row"):
        ask(dataset="pictures", like={"path": "nowhere"})
    with pytest.raises(InvalidInput, match="no column of vectors"):
        ask(dataset="listing", vector=(1.0,))
    with pytest.raises(EverloopError, match="neither a vector nor a row"):
        ask(dataset="pictures")


def asked(client, endpoint, row):
    """One request, the query a binary tensor, at the row's time."""
    query = np.array([[row[f"query_{place:03d}"] for place in range(4)]])
    head = {
        "inputs": [
            {"name": "item", "datatype": "INT64", "shape": [1], "data": [row["item"]]},
            {"name": "query", "datatype": "FP64", "shape": [1, 4], "parameters": {"binary_data_size": 32}},
        ]
    }
    said = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": str(len(said)), "Everloop-Time": row["at"].isoformat() + "Z"}
    reply = client.post(f"/v2/models/shop.{endpoint}/infer", content=said + query.tobytes(), headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.json()["outputs"][0]["data"]


def test_binary_tensors_are_answered_as_trained_and_replay_is_equal(made):
    """A classifier of the vectors, and the nearest neighbour in a graph; all that was served is what batch computes."""
    place = Place(made.home)
    newest, learnt = made.rows.tail(24 if made.rows.height == FEW else 400), made.rows.head(12)
    scorer, finder = (load(made.models[name]) for name in ("comeback", "alike"))
    # row by row: a product of matrices may differ from one of vectors in the last bit, which is the model's affair
    expected = [scorer.scores(newest[number]).item() for number in range(len(newest))]
    alike = [finder.scores(newest[number]).item() for number in range(len(newest))]
    try:
        routes = [Route(project="shop", name=name, revisions=[entry]) for name, entry in made.entries.items()]
        place.serve(*routes, replay=True)
        client = place.gateway().ready(90).client
        told = client.get("/v2/models/shop.comeback").json()
        assert {"name": "query", "datatype": "FP64", "shape": [-1, 4]} in told["inputs"]
        assert [asked(client, "comeback", row)[0] for row in newest.iter_rows(named=True)] == expected
        assert [asked(client, "alike", row)[0] for row in newest.iter_rows(named=True)] == alike
        assert [asked(client, "alike", row)[0] for row in learnt.iter_rows(named=True)] == learnt["item"].to_list()
        wrong = client.post("/endpoints/shop/comeback/predict", json={"item": 1, "query": [1.0, 2.0]})
        assert wrong.status_code == 400
        assert "vectors of 4 numbers" in wrong.text
    finally:
        place.close()
    names = [name for name, _ in made.entries["comeback"].inputs]
    served = [segments.inputs_of(one) for one in logged(made.home)]
    batch = [row for part in (newest, newest, learnt) for row in part.select(names).to_dicts()]
    assert [{name: one[name][0] for name in names} for one in served] == batch
