"""Datasets scored by the revision that answers callers: the same answers, once, whoever is killed on the way."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import graph_models
import numpy as np
import polars as pl
import pytest
from serving_house import Place, folder_of, revision
from sklearn.linear_model import LogisticRegression

from everloop.catalog import chain, facts, placements, tasks, versions
from everloop.catalog.operation import invoke
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.version import Version
from everloop.data.codec import DataCodec
from everloop.data.definitions import Contract
from everloop.data.editing.applying import edit
from everloop.data.reading.forms import read
from everloop.features.expressions import col
from everloop.models.codec import codec
from everloop.models.predictor import materialize
from everloop.models.training import Fitted
from everloop.serving.batch import scoring
from everloop.serving.batch.operations import Score
from everloop.serving.graph.nodes import Ensemble, Switch, node_of
from everloop.serving.table import LOADER, Part, Route

NAMES = ["a", "b"]
COLUMNS = [[name, "FP64"] for name in NAMES]


@pytest.fixture
def served(context, monkeypatch):
    """A context, and a workspace's folder with an endpoint that is a switch of a model and an ensemble."""
    home = Path(context.home)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    place = Place(home)
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(400, 2))
    parts = {}
    for seed, role in enumerate(("one", "two")):
        label = (rows[:, seed] > 0).astype(int)
        frame = pl.DataFrame({"a": rows[:, 0], "b": rows[:, 1], "late": label})
        fitted = Fitted(LogisticRegression().fit(rows, label), frame, frame, chosen=NAMES)
        manifest = codec.save(fitted, role, context.store, {"label": "late", "output": "probability"}).version.manifest
        folder = str(materialize(manifest, context.store, home / "models" / role))
        parts[f"model {role}"] = Part(folder, LOADER, COLUMNS, {"a": [0.0], "b": [0.0]})
    graph = node_of(Switch((col("a") > 0, "one"), otherwise=Ensemble("mean", one="one", two="two")))
    graph["cases"][0]["node"]["role"] = "one"
    made = Version("revision", "delay", {"models": {}, "endpoint": "delay"})
    with context.write() as tx:
        versions.put(tx, context.project, made, actor="ada", at=1)
    entry = revision(
        parts["model one"].folder,
        1,
        inputs=COLUMNS,
        caller=COLUMNS,
        example={},
        loader=LOADER,
        graph=graph,
        parts=parts,
    )
    entry = type(entry)(**{f: getattr(entry, f) for f in entry.__struct_fields__} | {"id": made.id})
    place.serve(Route(context.project, "delay", [entry]))
    yield context, place
    place.close()


def captured(context, name, frame, key=("id",)):
    saved = DataCodec(Contract(key=key)).save(frame, name, context.store, {})
    with context.write() as tx:
        placements.put(tx, context.project, saved.placements)
        versions.put(tx, context.project, saved.version, actor="ada", at=1)
    return saved.version.id


def table(rows, start=0):
    rng = np.random.default_rng(start + 7)
    values = rng.normal(size=(rows, 2))
    return pl.DataFrame(
        {"id": range(start, start + rows), "a": values[:, 0], "b": values[:, 1], "unused": ["x"] * rows}
    )


def test_batch_scores_are_what_callers_are_answered(served):
    context, place = served
    frame = table(3000)
    data = captured(context, "flights", frame)
    told = scoring.score(context, "delay", data, environment="sandbox/ada")
    scores = read(context, told.id).collect().sort("id")
    assert scores.columns == ["id", "prediction"]
    assert len(scores) == told.rows == 3000
    gateway = place.gateway().ready()
    asked = {name: frame[name].to_list() for name in NAMES}
    online = gateway.predict(asked, address=f"{context.project}.delay").json()["predictions"]
    assert scores["prediction"].to_list() == online
    alone = gateway.predict({"a": asked["a"][5], "b": asked["b"][5]}, address=f"{context.project}.delay")
    assert alone.json()["predictions"][0] == pytest.approx(online[5], abs=1e-12)
    again = scoring.score(context, "delay", data, environment="sandbox/ada")
    assert again.id == told.id
    with context.read() as tx:
        edges = {edge.role: edge.from_id for edge in versions.upstream(tx, context.project, told.id, 1)}
    chain.seal(context.catalog, context.clock)
    with context.read() as tx:
        facts_told = facts.tail(tx, context.project, kinds=("data.scored",), limit=5)
    assert (edges["scored"], edges["revision"]) == (data, told.revision)
    assert len(facts_told) == 1
    assert not list((context.home / "scoring").iterdir())


SCORER = """
import sys
from pathlib import Path
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.serving.batch import scoring
from everloop.store import open_store
catalog, store, home, project, data = sys.argv[1:]
ctx = Context(Actor.of("ada", "contributor"), project, SystemClock(), Catalog.open(catalog), open_store(store), None,
              home=Path(home))
print(scoring.score(ctx, "delay", data, environment="sandbox/ada", means=scoring.Means(1)).reused)
"""


def test_a_scorer_that_is_killed_goes_on_and_the_result_is_there_once(context, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    place = Place(Path(context.home))
    made = Version("revision", "delay", {"models": {}, "endpoint": "delay"})
    with context.write() as tx:
        versions.put(tx, context.project, made, actor="ada", at=1)
    x = {"inputs": [["x", "FP64"]], "caller": [["x", "FP64"]], "example": {"x": [1.0]}, "id": made.id}
    place.serve(
        Route(context.project, "delay", [revision(folder_of(place.home, "m", graph_models.Slow(0.02)), 1, **x)])
    )
    frame = pl.DataFrame({"id": range(300_000), "x": np.arange(300_000) / 7})
    data = captured(context, "many", frame, key=())
    with context.read() as tx:
        parts = len(versions.get(tx, context.project, data).manifest["parts"])
    assert parts > 2
    arguments = [context.catalog.url, context.store.url, str(context.home), context.project, data]
    killed = subprocess.Popen([sys.executable, "-c", SCORER, *map(str, arguments)], stdout=subprocess.PIPE)
    end = time.monotonic() + 60
    while time.monotonic() < end and not list((context.home / "scoring").glob("*/*.parquet")):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    told = scoring.score(context, "delay", data, environment="sandbox/ada")
    assert 1 <= told.reused < parts
    scores = read(context, told.id).collect()
    assert scores["id"].to_list() == list(range(300_000))
    with context.read() as tx:
        assert len(versions.history(tx, context.project, "data", "scores.delay", limit=5)) == 1


def test_what_a_feed_brings_is_scored_once(served):
    context, _ = served
    edit(context, "clicks", table(500), "append", "sandbox/ada", contract=Contract(key=("id",)))
    first = scoring.score_new(context, "delay", "clicks", environment="sandbox/ada", by=["id"])
    nothing = scoring.score_new(context, "delay", "clicks", environment="sandbox/ada", by=["id"])
    edit(context, "clicks", table(300, 500), "append", "sandbox/ada")
    second = scoring.score_new(context, "delay", "clicks", environment="sandbox/ada", by=["id"])
    assert (first.rows, nothing.rows, nothing.id, second.rows) == (500, 0, "", 300)
    scores = read(context, "scores.delay", environment="sandbox/ada").collect()
    assert sorted(scores["id"].to_list()) == list(range(800))
    assert scores["revision"].unique().to_list() == [first.revision]
    with pytest.raises(InvalidInput, match="no column"):
        scoring.score_new(context, "delay", "clicks", environment="sandbox/ada", by=["nobody"])


def test_what_cannot_be_scored_says_why(served):
    context, _ = served
    data = captured(context, "narrow", table(10).drop("b"))
    with pytest.raises(InvalidInput, match="no column 'b'"):
        scoring.score(context, "delay", data, environment="sandbox/ada")
    with pytest.raises(NotFound, match="no endpoint"):
        scoring.score(context, "nobody", data, environment="sandbox/ada")


def test_it_is_a_task_that_a_worker_takes_up(served):
    context, _ = served
    data = captured(context, "flights", table(100))
    ctx = context.as_actor(type(context.actor).of("ada", "contributor"))
    told = invoke(ctx, "endpoints.score", Score(endpoint="delay", dataset=data, environment="sandbox/ada"))
    again = invoke(ctx, "endpoints.score", Score(endpoint="delay", dataset=data, environment="sandbox/ada"))
    assert told.task == again.task  # while it waits
    task = tasks.claim(context.catalog, "w", ["endpoints.score"], 30.0, context.wall())
    made = scoring.perform(ctx, task.payload)
    assert (made["rows"], json.loads(json.dumps(made))["id"]) == (100, made["id"])
