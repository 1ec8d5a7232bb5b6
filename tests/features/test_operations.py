from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from everloop import features
from everloop.catalog import refs, versions
from everloop.catalog.operation import invoke
from everloop.core.clock import HOUR, ReplayClock, micros
from everloop.core.errors import DataError, InvalidInput, NotFound, PermissionDenied
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version
from everloop.data.capturing import capture
from everloop.data.definitions import Files, SourceDef
from everloop.features import definitions as el
from everloop.features import operations
from everloop.features.batch.answering import answered
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef
from everloop.features.operations import Get, ListViews, Materialize, Push
from everloop.features.showing import ShowView
from everloop.features.stores.lmdb import LmdbStore

NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)
START = micros(NOON)
FLIGHTS = SourceDef("flights", Files("flights.parquet"), key="id", event_time="sched", known_time="left")
ENVIRONMENT = "staging"


@pytest.fixture
def ctx(context_of, sqlite_catalog, tmp_path):
    """Staging with two views, one service, and six flights captured."""
    online = LmdbStore(tmp_path / "here")
    made = context_of(sqlite_catalog, clock=ReplayClock(START + 2 * HOUR), ports={"online": online})
    frame = pl.DataFrame(
        {
            "id": range(6),
            "origin": ["JFK", "EWR"] * 3,
            "sched": [NOON + timedelta(minutes=10 * i) for i in range(6)],
            "left": [NOON + timedelta(minutes=10 * i + 45) for i in range(6)],
            "delay": [45.0, None, 45.5, 0.0, -3.0, 7.0],
        }
    )
    frame.write_parquet(tmp_path / "flights.parquet")
    load = FeatureViewDef("load", "flights", "origin", [el.mean("delay", over="3h"), el.count(over="1h")]).validate(
        FLIGHTS
    )
    weather = FeatureViewDef("weather", "weather", "origin", [el.last("visibility")], event_time="at")
    views = [Version("view", v.name, v.manifest()) for v in (load, weather)]
    service = FeatureServiceDef("inputs", [load], request=["distance"])
    pinned = Version("service", "inputs", service.manifest({"load": views[0].id}))
    snapshot = Snapshot({v.key: v.id for v in [*views, pinned]})
    with made.write() as tx:
        versions.put_many(tx, made.project, [*views, pinned, snapshot.version()], actor="ada", at=START)
        refs.move(tx, made.project, refs.env_ref(ENVIRONMENT), old=None, new=snapshot.id, actor="ada", at=START)
    capture(made, FLIGHTS, ENVIRONMENT, root=tmp_path)
    yield made
    online.close()


def get(ctx, **more):
    return invoke(
        ctx, "features.get", Get(environment=ENVIRONMENT, service="inputs", entities=[{"origin": "JFK"}], **more)
    )


def test_materialize_and_get(ctx):
    done = invoke(ctx, "features.materialize", Materialize(environment=ENVIRONMENT, views=("load",)))
    assert [(v.view, v.facts, v.new) for v in done.views] == [("load", 6, 6)]
    found = get(ctx)
    assert found.values == [{"load__delay_mean_3h": (45.0 + 45.5 - 3.0) / 3, "load__count_1h": 0}]
    assert found.watermarks == {"load": START + 2 * HOUR}
    earlier = get(ctx, at=START + HOUR)
    assert earlier.values == [{"load__delay_mean_3h": 45.0, "load__count_1h": 1}]
    again = invoke(ctx, "features.materialize", Materialize(environment=ENVIRONMENT, views=("load",)))
    assert [v.new for v in again.views] == [0]


def test_push_reaches_the_views_over_the_dataset(ctx):
    row = {"id": 9, "origin": "JFK", "sched": "2013-06-01T13:30:00Z", "left": START + 2 * HOUR - 1, "delay": 1}
    done = invoke(ctx, "features.push", Push(environment=ENVIRONMENT, dataset="flights", rows=[row, row]))
    assert [(v.view, v.facts, v.new) for v in done.views] == [("load", 2, 1)]
    assert get(ctx).values == [{"load__delay_mean_3h": 1.0, "load__count_1h": 1}]


def test_a_push_under_an_entity_of_another_type_is_refused(ctx):
    row = {"id": 9, "origin": 7, "sched": START, "left": START, "delay": 1}
    with pytest.raises(InvalidInput, match="origin is text in flights, not the number 7"):
        invoke(ctx, "features.push", Push(environment=ENVIRONMENT, dataset="flights", rows=[row]))
    found = get(ctx)
    assert found.unknown == {"load": 1}
    invoke(ctx, "features.push", Push(environment=ENVIRONMENT, dataset="flights", rows=[{**row, "origin": "JFK"}]))
    assert get(ctx).unknown == {}


@pytest.mark.parametrize("at", [10**30, 2**63 - 1, -(2**63)])
def test_a_look_up_at_no_time_is_refused(ctx, at):
    with pytest.raises(InvalidInput, match="is no time of the years 1 to 9999"):
        get(ctx, at=at)


def test_a_push_may_say_up_to_when_it_is_complete(ctx):
    rows = [{"id": 9, "origin": "JFK", "sched": START, "left": START + 5, "delay": 1}]
    told = Push(environment=ENVIRONMENT, dataset="flights", rows=rows, up_to=START + HOUR)
    invoke(ctx, "features.push", told)
    assert get(ctx).watermarks == {"load": None}  # nobody knows what was before
    invoke(ctx, "features.materialize", Materialize(environment=ENVIRONMENT, views=("load",), up_to=START + 9))
    invoke(ctx, "features.push", told)
    assert get(ctx).watermarks == {"load": START + HOUR}
    invoke(ctx, "features.push", told.model_copy(update={"up_to": START}))
    assert get(ctx).watermarks == {"load": START + HOUR}
    with pytest.raises(InvalidInput, match="future"):
        invoke(ctx, "features.push", told.model_copy(update={"up_to": START + 9 * HOUR}))


def test_a_view_over_views_is_filled_and_follows_pushes(ctx):
    load = operations.views_in(ctx, ENVIRONMENT)["load"][1]
    least = el.min("load__delay_mean_3h", over="11h", scale=2, name="least")
    trend = FeatureViewDef("trend", "flights", "origin", [least], reads=[load]).validate(FLIGHTS)
    with ctx.write() as tx:
        old = refs.get(tx, ctx.project, refs.env_ref(ENVIRONMENT))
        made = Version("view", "trend", trend.manifest())
        snapshot = Snapshot({**versions.get(tx, ctx.project, old).manifest["entries"], made.key: made.id})
        versions.put_many(tx, ctx.project, [made, snapshot.version()], actor="ada", at=START)
        refs.move(tx, ctx.project, refs.env_ref(ENVIRONMENT), old=old, new=snapshot.id, actor="ada", at=START)
    done = invoke(ctx, "features.materialize", Materialize(environment=ENVIRONMENT, views=("load", "trend")))
    assert [(v.view, v.facts, v.new) for v in done.views] == [("load", 6, 6), ("trend", 6, 6)]
    asked = Get(environment=ENVIRONMENT, view="trend", entities=[{"origin": "JFK"}])
    assert invoke(ctx, "features.get", asked).values == [{"trend__least": 45.0}]
    row = {"origin": "JFK", "sched": START + HOUR, "delay": 1}
    rows = [row | {"id": 9 + i, "left": START + 2 * HOUR - 9 + i} for i in range(4)]
    done = invoke(ctx, "features.push", Push(environment=ENVIRONMENT, dataset="flights", rows=rows))
    assert [(v.view, v.facts, v.new) for v in done.views] == [("load", 4, 4), ("trend", 4, 4)]
    assert invoke(ctx, "features.get", asked).values == [{"trend__least": 15.08}]


def test_one_view_can_be_asked_alone_and_shown(ctx):
    invoke(ctx, "features.materialize", Materialize(environment=ENVIRONMENT, views=("load",)))
    alone = Get(environment=ENVIRONMENT, view="load", entities=[{"origin": "JFK"}])
    assert invoke(ctx, "features.get", alone).values == get(ctx).values
    with pytest.raises(InvalidInput, match="a service or a view"):
        invoke(ctx, "features.get", Get(environment=ENVIRONMENT, entities=[]))
    with pytest.raises(NotFound, match="no feature view"):
        invoke(ctx, "features.get", Get(environment=ENVIRONMENT, view="nothing", entities=[]))
    shown = invoke(ctx, "features.show", ShowView(view="load", environment=ENVIRONMENT))
    assert (shown.source, shown.entity, shown.lag) == ("flights", ["origin"], 0)
    assert [(used.kind, used.name) for used in shown.used_by] == [("service", "inputs")]
    assert [f.output for f in shown.features] == ["load__delay_mean_3h", "load__count_1h"]
    assert shown.source_version
    never = invoke(ctx, "features.show", ShowView(view="weather", environment=ENVIRONMENT))
    assert (never.watermark, never.lag, never.source_version, never.used_by) == (None, None, "", [])
    with pytest.raises(NotFound) as told:
        invoke(ctx, "features.show", ShowView(view="nothing", environment=ENVIRONMENT))
    assert told.value.hint == "it has load, weather"


def test_questions_of_a_file_are_answered_in_batch(ctx, tmp_path):
    asked = pl.DataFrame(
        {"origin": ["JFK", "EWR", None], "when": [NOON + timedelta(hours=1)] * 3, "distance": [1, 2, 3]}
    )
    asked.write_parquet(tmp_path / "asked.parquet")
    asked.write_csv(tmp_path / "asked.csv")
    for name in ("asked.parquet", "asked.csv"):
        frame = answered(ctx, ENVIRONMENT, "inputs", tmp_path / name, "when")
        assert frame["load__count_1h"].to_list() == [1, 1, 0]
        assert frame["load__delay_mean_3h"].to_list() == [45.0, None, None]
    with pytest.raises(DataError, match="cannot be read"):
        answered(ctx, ENVIRONMENT, "inputs", tmp_path / "nothing.parquet", "when")


@pytest.mark.slow
def test_a_cluster_answers_the_questions_of_a_file(ctx, tmp_path):
    ray_nodes = pytest.importorskip("ray.cluster_utils")
    asked = pl.DataFrame({"origin": ["JFK", "EWR", None], "when": [NOON + timedelta(hours=1)] * 3})
    asked.write_parquet(tmp_path / "asked.parquet")
    nodes = ray_nodes.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster = features.cluster.Cluster(nodes.address)
        frame = answered(ctx, ENVIRONMENT, "inputs", tmp_path / "asked.parquet", "when", cluster=cluster)
    finally:
        nodes.shutdown()
    assert frame.equals(answered(ctx, ENVIRONMENT, "inputs", tmp_path / "asked.parquet", "when"))


def test_list_shows_features_and_watermarks(ctx):
    invoke(ctx, "features.materialize", Materialize(environment=ENVIRONMENT, views=("load",), up_to=START))
    listed = invoke(ctx, "features.list", ListViews(environment=ENVIRONMENT)).views
    assert [(v.name, v.source, v.watermark) for v in listed] == [
        ("load", "flights", START),
        ("weather", "weather", None),
    ]
    assert listed[0].features == ["load__delay_mean_3h", "load__count_1h"]


@pytest.mark.parametrize(
    ("operation", "command", "told"),
    [
        ("features.get", Get(environment="nowhere", service="inputs", entities=[]), "no environment"),
        ("features.get", Get(environment=ENVIRONMENT, service="nothing", entities=[]), "no feature service"),
        ("features.push", Push(environment=ENVIRONMENT, dataset="nothing", rows=[]), "no feature view"),
        ("features.materialize", Materialize(environment=ENVIRONMENT, views=("nothing",)), "no feature view"),
        ("features.materialize", Materialize(environment=ENVIRONMENT, views=("weather",)), "holds no data"),
    ],
)
def test_what_is_not_there_is_said(ctx, operation, command, told):
    with pytest.raises(NotFound, match=told):
        invoke(ctx, operation, command)


@pytest.mark.parametrize(
    ("entity", "told"),
    [
        ({"airport": "JFK"}, "has no entity 'airport'"),
        ({"origin": 5}, "origin is text in flights, not the number 5"),
        ({}, "needs the entity 'origin'"),
    ],
)
def test_an_entity_that_cannot_be_meant_is_refused(ctx, entity, told):
    with pytest.raises(InvalidInput, match=told):
        invoke(ctx, "features.get", Get(environment=ENVIRONMENT, service="inputs", entities=[entity]))


def test_a_whole_number_may_be_written_as_text(ctx):
    by_number = FeatureViewDef("flown", "flights", "id", [el.last("delay")]).validate(FLIGHTS)
    version = Version("view", "flown", by_number.manifest())
    with ctx.write() as tx:
        versions.put(tx, ctx.project, version, actor="ada", at=START)
        name = refs.env_ref(ENVIRONMENT)
        before = refs.get(tx, ctx.project, name)
        entries = versions.get(tx, ctx.project, before).manifest["entries"]
        after = Snapshot({**entries, version.key: version.id}).version()
        versions.put(tx, ctx.project, after, actor="ada", at=START)
        refs.move(tx, ctx.project, name, old=before, new=after.id, actor="ada", at=START)
    invoke(ctx, "features.materialize", Materialize(environment=ENVIRONMENT, views=("flown",)))

    def asked(value):
        command = Get(environment=ENVIRONMENT, view="flown", entities=[{"id": value}])
        return invoke(ctx, "features.get", command).values

    assert asked("2") == asked(2) == [{"flown__delay_last": 45.5}]
    with pytest.raises(InvalidInput, match="id is a whole number in flights, not 'two'"):
        asked("two")


def test_the_future_cannot_be_materialized(ctx):
    with pytest.raises(InvalidInput, match="in the future"):
        invoke(ctx, "features.materialize", Materialize(environment=ENVIRONMENT, up_to=START + 9 * HOUR))


def test_readers_may_look_up_but_not_push(ctx, context_of, sqlite_catalog):
    viewer = context_of(sqlite_catalog, roles=["viewer"], clock=ctx.clock, ports=ctx.ports)
    assert get(viewer).values[0]["load__count_1h"] == 0
    with pytest.raises(PermissionDenied):
        invoke(viewer, "features.push", Push(environment=ENVIRONMENT, dataset="flights", rows=[]))
    with pytest.raises(PermissionDenied):
        invoke(viewer, "features.materialize", Materialize(environment=ENVIRONMENT))


def test_the_embedded_store_is_opened_once_a_process(context_of, sqlite_catalog):
    ctx = context_of(sqlite_catalog)
    assert operations.online_store(ctx, ENVIRONMENT) is operations.online_store(ctx, ENVIRONMENT)
    operations.online_store(ctx, ENVIRONMENT).close()
