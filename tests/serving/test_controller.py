"""The controller on a real catalog, with real gateways and model folders."""

import hashlib
import pickle
import time
from dataclasses import replace

import msgspec
import pytest
import serving_models
from serving_house import Place
from sqlalchemy import update

from everloop.catalog import refs, tasks, versions
from everloop.catalog.governance import access
from everloop.catalog.operating.predictions import strangers
from everloop.catalog.operation import invoke
from everloop.catalog.tables.changes import changes as changes_table
from everloop.changes import environments, merging, proposing, provenance, reviewing
from everloop.core.clock import MINUTE, ReplayClock
from everloop.core.errors import NotFound, PolicyRefused
from everloop.core.grants import Grant
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef, count, mean
from everloop.features.expressions import col
from everloop.features.online import OnlineView, advance, push
from everloop.features.stores.places import store_of
from everloop.features.transforms.definitions import transform_of
from everloop.serving import operations
from everloop.serving import table as tables
from everloop.serving.controller import Controller
from everloop.serving.definitions import AllAtOnce, Canary, EndpointDef, Guardrails, Shadow
from everloop.serving.graph.nodes import Lookup, Model, Sequence, Step, Switch, Transform
from everloop.serving.ingest import ingest
from everloop.serving.reading import pairs, seal, window
from everloop.serving.rollout import filling
from everloop.serving.table import Revision

START = 1_400_000_000_000_000


def model_version(ctx, name, estimator, inputs, **more):
    """A packaged model, as `models` stores one."""
    card = {
        "format": "pickle",
        "file": "model.pkl",
        "inputs": [{"name": n, "type": t} for n, t in inputs],
        "output": "value",
    }
    files = {
        "everloop.json": ctx.store.put(msgspec.json.encode(card)),
        "model.pkl": ctx.store.put(pickle.dumps(estimator)),
    }
    signature = {"inputs": [{"name": n, "type": t} for n, t in inputs]}
    return Version("model", name, {"files": files, "signature": signature, **more})


NUMBERS = [("distance", "double"), ("hour", "long")]


class Shop:
    """A project with one endpoint, whose model is replaced again and again."""

    def __init__(self, ctx, place, endpoint, inputs=NUMBERS):
        self.ctx, self.place, self.endpoint, self.inputs = ctx, place, endpoint, inputs
        self.controller = Controller(place.home, place.key, replay=True)
        environments.create_workspace_environments(ctx, "solo")
        self.released = 0

    @property
    def head(self):
        with self.ctx.read() as tx:
            return refs.get(tx, "shop", "env/production")

    def release(self, estimator, *others, **model):
        """Through a sandbox, a change, a review and a merge, as everybody does; returns production's snapshot."""
        trained = model_version(self.ctx, "delay", estimator, self.inputs, **model)
        return self.merge(Version("endpoint", self.endpoint.name, self.endpoint.manifest()), trained, *others)

    def merge(self, *held):
        ctx, sandbox = self.ctx, f"sandbox/ada/r{self.released}"
        self.released += 1
        with ctx.write() as tx:
            versions.put_many(tx, ctx.project, held, actor="ada", at=ctx.now())
        invoke(ctx, environments.create_sandbox, environments.CreateSandbox(environment=sandbox))
        entries = {version.key: version.id for version in held}
        invoke(ctx, environments.commit, environments.Commit(environment=sandbox, entries=entries))
        wanted = proposing.Propose(source=sandbox, target="production", title="release", enqueue=False)
        number = invoke(ctx, proposing.propose, wanted).number
        invoke(ctx, reviewing.approve, reviewing.Approve(number=number))
        return invoke(ctx, merging.merge, proposing.Numbered(number=number)).merge_snapshot

    def point_by_hand(self, snapshot):
        """What somebody with the database can do."""
        ctx = self.ctx
        with ctx.write() as tx:
            versions.put(tx, ctx.project, snapshot.version(), actor="eve", at=ctx.now())
            refs.move(tx, ctx.project, "env/production", old=self.head, new=snapshot.id, actor="eve", at=ctx.now())

    def reconcile_until(self, condition, seconds=20.0, each=None):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.controller.reconcile([self.ctx])
            if condition(self.shown()):
                return self.shown()
            if each is not None:
                each()
            time.sleep(0.1)
        raise AssertionError(self.shown())

    def shown(self):
        try:
            return invoke(self.ctx, "endpoints.show", operations.ShowEndpoint(name=self.endpoint.name))
        except NotFound:
            return None


@pytest.fixture
def clock():
    return ReplayClock(START)


@pytest.fixture
def shop(context_of, sqlite_catalog, clock, tmp_path):
    place = Place(tmp_path)
    ctx = replace(context_of(sqlite_catalog, clock=clock, project="shop"), key=place.key)
    endpoint = EndpointDef("delay", "delay", rollout=Canary([50, 100], hold="10m"), guardrails=Guardrails("5%"))
    yield Shop(ctx, place, endpoint)
    place.close()


def kinds(ctx):
    with ctx.catalog.read() as tx:
        from sqlalchemy import select

        from everloop.catalog.tables.core import facts as table

        return [row.kind for row in tx.execute(select(table).order_by(table.c.id)) if row.kind.startswith("rollout.")]


def ask(gateway, times=30, distance=5.0):
    return [gateway.predict({"distance": distance, "hour": 3}) for _ in range(times)]


def test_canary_to_live_then_a_broken_revision_goes_back_by_itself(shop, clock):
    gateway = shop.place.gateway()
    shop.release(serving_models.Values(1.0))
    shop.reconcile_until(lambda s: s and s.phase == "live")
    assert ask(gateway, 1)[0].json()["predictions"] == [1.0]
    clock.advance(START + 11 * MINUTE)
    first = shop.reconcile_until(lambda s: s.phase == "settled").target

    shop.release(serving_models.Values(2.0))
    shown = shop.reconcile_until(lambda s: s.phase == "canary")
    assert [(r.weight) for r in shown.revisions] == [50, 50]
    shop.place.sequence = shop.controller._table.sequence
    gateway.ready()
    assert {a.json()["predictions"][0] for a in ask(gateway)} == {1.0, 2.0}
    clock.advance(START + 22 * MINUTE)
    second = shop.reconcile_until(lambda s: s.phase == "live").target

    shop.release(serving_models.Values(3.0, breaks=True))
    shop.reconcile_until(lambda s: s.phase == "canary")
    answers = []
    shown = shop.reconcile_until(lambda s: s.phase == "reverted", each=lambda: answers.extend(ask(gateway)))
    assert {a.status_code for a in answers} == {200}  # the revision before answered for the broken one
    assert "requests failed" in shown.reason
    assert shown.serving == second
    assert shown.target not in (first, second)
    assert shown.evidence["errors"] >= 3
    assert ask(gateway, 3)[0].json()["predictions"] == [2.0]
    assert kinds(shop.ctx)[-3:] == ["rollout.started", "rollout.step", "rollout.reverted"]
    shop.controller.reconcile([shop.ctx])
    assert shop.shown().phase == "reverted"  # it is not tried again


def test_a_revision_that_cannot_load_never_gets_traffic(shop, clock):
    gateway = shop.place.gateway()
    shop.release(serving_models.Values(1.0))
    shop.reconcile_until(lambda s: s and s.phase == "live")
    shop.release(serving_models.Unloadable())
    shown = shop.reconcile_until(lambda s: s.phase == "reverted")
    assert "does not load" in shown.reason
    assert {a.json()["predictions"][0] for a in ask(gateway, 5)} == {1.0}


def test_rolling_the_environment_back_is_instant(shop, clock):
    gateway = shop.place.gateway()
    shop.release(serving_models.Values(1.0))
    first = shop.reconcile_until(lambda s: s and s.phase == "live").target
    shop.endpoint = EndpointDef("delay", "delay", rollout=AllAtOnce())
    shop.release(serving_models.Values(2.0))
    shop.reconcile_until(lambda s: s.phase == "live" and s.target != first)
    invoke(shop.ctx, provenance.rollback, provenance.Rollback(environment="production"))
    shop.controller.reconcile([shop.ctx])
    assert shop.shown().serving == first
    assert "rollout.rolled_back" in kinds(shop.ctx)
    shop.place.sequence = shop.controller._table.sequence
    gateway.ready()
    assert ask(gateway, 1)[0].json()["predictions"] == [1.0]


def test_an_endpoint_without_its_model_says_so(shop):
    with pytest.raises(PolicyRefused, match="does not hold"):  # review stops it
        shop.merge(Version("endpoint", "delay", shop.endpoint.manifest()))


def test_a_pointer_that_no_merge_put_there_is_not_served(shop, clock):
    shop.place.gateway()
    shop.release(serving_models.Values(1.0))
    good = shop.reconcile_until(lambda s: s and s.phase == "live")
    reviewed = shop.head
    evil = model_version(shop.ctx, "delay", serving_models.Values(666.0), NUMBERS)
    with shop.ctx.read() as tx:
        entries = dict(Snapshot.from_manifest(versions.get(tx, "shop", reviewed).manifest).entries)
    with shop.ctx.write() as tx:
        versions.put(tx, "shop", evil, actor="eve", at=clock.now())
    shop.point_by_hand(Snapshot({**entries, evil.key: evil.id}, (reviewed,), "nothing to see", ("ada",)))
    for _ in range(3):
        shop.controller.reconcile([shop.ctx])
    shown = shop.shown()
    assert shown.serving == good.serving
    assert "which no merge put there" in shown.blocked
    assert kinds(shop.ctx).count("rollout.refused") == 1
    table = tables.load(shop.place.home / "serving" / "routes.json", shop.place.key.public)
    assert [r.id for route in table.routes for r in route.revisions] == [good.serving]
    with shop.ctx.catalog.write() as tx:  # nor one that a row written by hand vouches for: no statement does
        tx.execute(update(changes_table).values(merge_snapshot=refs.get(tx, "shop", "env/production")))
    shop.controller.reconcile([shop.ctx])
    assert shop.shown().blocked == "the signed statement of change #1 is about something else"
    assert shop.shown().serving == good.serving


@pytest.mark.parametrize("served", [False, True])
def test_predictions_with_features_are_logged_ingested_labelled_and_traced(shop, clock, redis_url, served):
    ctx, place = shop.ctx, shop.place
    if served:
        (place.home / "bindings.toml").write_text(f'[production]\nonline_store = "{redis_url}#traced"\n')
    view = FeatureViewDef(
        "load", "departures", ("origin",), (count(over="3h"), mean("delay", over="3h")), event_time="at", key=("id",)
    )
    view_version = Version("view", "load", view.manifest())
    service = FeatureServiceDef("inputs", (view,), ("distance",))
    service_version = Version(
        "service", "inputs", service.manifest({"load": view_version.id}), (("view", view_version.id),)
    )
    online = store_of(place.home, "production")
    rows = [{"id": n, "origin": "JFK", "at": START - n * MINUTE, "delay": float(n)} for n in range(1, 5)]
    prepared = OnlineView.of("shop/production", view_version.id, view)
    push(online, prepared, rows)
    if served:
        advance(online, prepared, START)
    columns = [(name, "long" if "count" in name else "double") for name in service.columns]
    shop.inputs = columns
    shop.endpoint = EndpointDef("delay", Sequence(Lookup("inputs"), "delay"), rollout=AllAtOnce())
    gateway = place.gateway()
    shop.release(serving_models.Summed(), view_version, service_version, service=service_version.id)
    if not served:  # nobody said that the view is whole
        shop.reconcile_until(lambda s: s and s.blocked)
        assert shop.shown().blocked == "it waits until load is filled online"
        with ctx.read() as tx:
            (task,) = tasks.list(tx, "shop", kinds=[filling.TASK])
        assert task.payload == {"environment": "production", "views": ["load"]}
        advance(online, prepared, START)
    shop.reconcile_until(lambda s: s and s.phase == "live")
    assert not shop.shown().blocked
    table = tables.load(place.home / "serving" / "routes.json", place.key.public)
    assert [(s.name, s.masked) for s in table.services] == [("inputs", [])]
    told = gateway.client.get("/v2/models/shop.delay").json()
    assert [i["name"] for i in told["inputs"]] == ["origin", "distance"]
    body = {"origin": ["JFK", "LGA"], "distance": [100.0, 200.0]}
    answer = gateway.predict(body, **{"everloop-time": str(START)}).json()
    assert "predictions" in answer, answer
    assert answer["predictions"] == [100.0 + 4 + 2.5, 200.0 + 0]
    identity = answer["prediction_id"]
    for n in range(20):
        gateway.predict({"origin": "JFK", "distance": float(n)}, **{"everloop-time": str(START + n)})

    assert ingest(ctx.catalog, place.home) == 22
    assert ingest(ctx.catalog, place.home) == 0
    given = [operations.GivenLabel(prediction=f"{identity}.0", value=1)]
    for _ in range(2):
        told = invoke(ctx, "labels.add", operations.AddLabels(endpoint="delay", labels=given))
        assert (told.taken, told.unknown) == (1, 0)
    stray = [operations.GivenLabel(prediction=name, value=0) for name in ("nobody", f"{identity}.1", "nobody")]
    assert invoke(ctx, "labels.add", operations.AddLabels(endpoint="delay", labels=stray[:1])).unknown == 1
    with ctx.read() as tx:
        assert strangers(tx, "shop", "delay", [one.prediction for one in stray]) == 1
        assert strangers(tx, "shop", "other", [one.prediction for one in stray]) == 2
    frame = window(ctx, "delay", START, START + 100)
    assert len(frame) == 22
    assert frame["label"].drop_nulls().to_list() == [1]
    row = frame.filter(frame["prediction_id"] == f"{identity}.1").to_dicts()[0]
    assert (row["origin"], row["load__count_3h"], row["load__delay_mean_3h"], row["answer"]) == ("LGA", 0, None, 200.0)
    sealed = seal(ctx, "delay", START, START + 100)
    assert sealed.rows == 22
    assert seal(ctx, "delay", START, START + 100).id == sealed.id
    with ctx.read() as tx:
        assert versions.get(tx, "shop", sealed.id).key == "data/predictions.delay"

    clock.advance(START + MINUTE)
    trace = invoke(ctx, "predictions.trace", operations.PredictionQuery(id=f"{identity}.0"))
    assert trace.prediction.label == 1
    assert trace.snapshot == shop.head
    assert {origin.role for origin in trace.origins} >= {"endpoint", "model:champion", "service", "view:load"}
    with pytest.raises(NotFound):
        invoke(ctx, "predictions.get", operations.PredictionQuery(id="nobody"))
    with pytest.raises(NotFound) as caught:  # a reply says the id of the request, rows have their own
        invoke(ctx, "predictions.get", operations.PredictionQuery(id=identity))
    assert f"{identity}.0" in caught.value.hint


def test_whole_numbers_among_the_keys_are_taken_as_such(shop):
    view = FeatureViewDef("seen", "clicks", ("user", "page"), (count(over="3h"),), event_time="at", key=("id",))
    version = Version("view", "seen", view.manifest())
    entry = Revision(
        "b3:1", 1, 100, "m", "f", [["x", "FP64"]], [["user", "BYTES"], ["page", "BYTES"], ["x", "FP64"]], {}
    )
    service = {"views": {"seen": version.id}, "order": ["seen"], "request": ["x"], "entities": ["user", "page"]}
    lookup = tables.Lookup("inputs", service, {version.id: view.manifest()}, "shop/production", ["user", "page"])
    entry = msgspec.structs.replace(entry, lookup=lookup)
    assert filling.with_key_types(shop.ctx, "production", entry) == entry  # nobody knows the data yet
    fields = {"schema_fields": [["user", "int64"], ["page", "large_string"], ["id", "int64"]]}
    held = Version("data", "clicks", fields)
    with shop.ctx.write() as tx:
        versions.put(tx, "shop", held, actor="ada", at=START)
        refs.move(tx, "shop", "head/production/clicks", old=None, new=held.id, actor="ada", at=START)
    typed = filling.with_key_types(shop.ctx, "production", entry)
    assert typed.caller == [["user", "INT64"], ["page", "BYTES"], ["x", "FP64"]]


def test_the_table_lists_who_may_ask_beyond_loopback(shop):
    ctx = shop.ctx
    wall = ctx.wall()

    def token(user, *, roles=("viewer",), life=MINUTE, **more):
        with ctx.write() as tx:
            access.create_user(tx, user, kind="service", roles=roles, actor="ada", at=wall)
            return access.issue_token(tx, user, kind="service", at=wall, expires=wall + life, **more)[1]

    good = token("good", project="shop", grants=())
    token("late", project="", grants=(), life=-1)
    token("nobody", roles=(), project="", grants=())
    token("narrow", project="", grants=(Grant.parse("label.write endpoint/*@*"),))
    shop.controller.reconcile([ctx])
    table = tables.load(shop.place.home / "serving" / "routes.json", shop.place.key.public)
    assert table.tokens == {hashlib.sha256(good.encode()).hexdigest(): ["shop"]}


def test_a_graph_is_served_from_reviewed_parts_and_one_of_them_is_upgraded_alone(shop):
    def longer(distance):
        return {"distance_km": distance * 1.609}

    graph = Sequence(
        Transform(transform_of(longer, {"distance": "float64"}, {"distance_km": "float64"})),
        Switch((col("distance_km") > 1000, Model("far", "far")), otherwise=Step("delay", retries=1)),
    )
    shop.endpoint = EndpointDef("delay", graph, rollout=AllAtOnce())
    far = model_version(shop.ctx, "far", serving_models.Values(9.0), [("distance_km", "double")])
    shop.release(serving_models.Values(1.0), far)
    gateway = shop.place.gateway()
    first = shop.reconcile_until(lambda s: s and s.phase == "live")
    asked = {"distance": [100.0, 900.0], "hour": [1, 2]}
    assert gateway.predict(asked).json()["predictions"] == [1.0, 9.0]
    pids = next(its["workers"] for its in first.revisions[0].observed.values())
    assert sorted(pids) == ["model champion", "model far", "transform longer"]
    newer = model_version(shop.ctx, "far", serving_models.Values(8.0), [("distance_km", "double")])
    shop.merge(newer)
    answers = lambda: gateway.predict(asked).json()["predictions"]  # noqa: E731 - asked again and again
    second = shop.reconcile_until(lambda s: s.target != first.target and answers() == [1.0, 8.0])
    target = next(revision for revision in second.revisions if revision.id == second.target)
    kept = next(its["workers"] for its in target.observed.values())
    same = {name for name in pids if pids[name]["pid"] == kept[name]["pid"]}
    assert same == {"model champion", "transform longer"}
    ingest(shop.ctx.catalog, shop.place.home)
    frame = window(shop.ctx, "delay", 0, 2**62)
    assert frame["answer"].to_list()[-2:] == [1.0, 8.0]
    assert {"distance", "hour"} <= set(frame.columns)
    assert "distance_km" not in frame.columns  # made on the way


def test_a_shadow_is_compared_on_real_questions_that_others_answer(shop):
    rollout = Shadow(hold=30, tolerance=0.5, then=AllAtOnce())
    shop.endpoint = EndpointDef("delay", "delay", rollout=rollout)
    shop.release(serving_models.Values(1.0))
    gateway = shop.place.gateway()
    first = shop.reconcile_until(lambda s: s and s.phase == "live")
    shop.release(serving_models.Values(1.25))
    shop.reconcile_until(lambda s: s.phase == "shadow")
    answers = []

    def ask():
        answers.extend(gateway.predict({"distance": [1.0, 2.0], "hour": [1, 2]}).json()["predictions"])

    shown = shop.reconcile_until(lambda s: s.phase == "live", each=ask)
    assert set(answers[:30]) == {1.0}  # nobody met the shadow
    ingest(shop.ctx.catalog, shop.place.home)
    compared = pairs(shop.ctx, "delay", shown.target)
    assert len(compared) >= 30
    assert set(compared["answer"]) == {1.0}
    assert set(compared["shadow"]) == {1.25}
    assert set(compared["revision"]) == {first.target}


def test_a_shadow_that_answers_otherwise_is_turned_back_with_its_evidence(shop):
    shop.endpoint = EndpointDef("delay", "delay", rollout=Shadow(hold=500, differ="5%", then=AllAtOnce()))
    shop.release(serving_models.Values(1.0))
    gateway = shop.place.gateway()
    first = shop.reconcile_until(lambda s: s and s.phase == "live")
    shop.release(serving_models.Values(9.0))

    def ask():
        for _ in range(5):
            assert gateway.predict({"distance": 1.0, "hour": 1}).json()["predictions"] == [1.0]

    shop.reconcile_until(lambda s: s.phase == "shadow")
    shown = shop.reconcile_until(lambda s: s.phase == "reverted", each=ask)
    assert shown.serving == first.target
    assert "differ from those that callers got" in shown.reason
    assert shown.evidence["differ"] == shown.evidence["requests"] >= 3
