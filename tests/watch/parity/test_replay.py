"""Served features against batch: equal as they are, and an alarm with the rows when one bit is another."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from everloop.catalog import refs, versions
from everloop.catalog.operating import alarms
from everloop.catalog.operation import invoke
from everloop.core.clock import HOUR, MINUTE, SECOND, ReplayClock, micros
from everloop.core.errors import InvalidInput, NotFound, PermissionDenied
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version
from everloop.data.capturing import capture
from everloop.data.definitions import Files, SourceDef
from everloop.features import definitions as el
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef
from everloop.features.online import OnlineService, OnlineView, find, push, scope_of
from everloop.features.operations import online_store
from everloop.serving import columns as wire
from everloop.serving import ingest, log
from everloop.serving.columns import Layout
from everloop.watch.parity.operations import OfEndpoint, Parity

NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)
START = micros(NOON)
FLIGHTS = SourceDef("flights", Files("flights.parquet"), key="id", event_time="sched", known_time="left")
VIEW = FeatureViewDef(
    "load",
    "flights",
    ("gate", "origin"),
    [el.mean("delay", over="3h"), el.count(over="1h"), el.last("delay", ttl="2h")],
).validate(FLIGHTS)
LAYOUT = Layout.from_pairs(
    [["distance", "FP64"], ["load__delay_mean_3h", "FP64"], ["load__count_1h", "INT64"], ["load__delay_last", "FP64"]]
)
FACTS = pl.DataFrame(
    {
        "id": range(60),
        "origin": ["JFK", "EWR"] * 30,
        "gate": [n % 3 for n in range(60)],
        "sched": [NOON + timedelta(minutes=4 * i) for i in range(60)],
        "left": [NOON + timedelta(minutes=4 * i + 11) for i in range(60)],
        "delay": [None if n % 7 == 0 else n / 3 for n in range(60)],
    }
)


class House:
    """An endpoint's past: facts captured and pushed, questions answered from the online store and logged."""

    def __init__(self, ctx, folder):
        self.ctx, self.asked = ctx, 0
        FACTS.write_parquet(folder / "flights.parquet")
        view = Version("view", "load", VIEW.manifest())
        service = Version(
            "service", "inputs", FeatureServiceDef("inputs", [VIEW], ["distance"]).manifest({"load": view.id})
        )
        self.revision = Version("revision", "delay", {"service": service.id, "views": {"load": view.id}, "models": {}})
        snapshot = Snapshot({view.key: view.id, service.key: service.id}).version()
        with ctx.write() as tx:
            versions.put_many(tx, ctx.project, [view, service, self.revision, snapshot], actor="ada", at=START)
            refs.move(tx, ctx.project, "env/production", old=None, new=snapshot.id, actor="ada", at=START)
        self.store = online_store(ctx, "production")
        scope = scope_of(ctx.project, "production")
        self.service = OnlineService.of(scope, FeatureServiceDef("s", [VIEW]), {"load": view.id})
        push(self.store, OnlineView.of(scope, view.id, VIEW), FACTS.to_dict(as_series=False))
        self.capture(folder)

    def capture(self, folder):
        capture(self.ctx, FLIGHTS, "production", root=folder)

    def serve(self, at, spoil=None, stale=(), rows=2):
        """One request of two rows, answered as the gateway does."""
        keys = [{"origin": ("JFK", "EWR", "LGA")[n % 3], "gate": n % 3} for n in range(self.asked, self.asked + rows)]
        found = find(self.store, self.service, keys, at).values
        columns = {name: [row[name] for row in found] for name in found[0]}
        if spoil:
            columns[spoil][0] = (columns[spoil][0] or 0) + 1
        given = {"distance": [1.0] * rows, **columns}
        answer = {"prediction": np.zeros(rows)}
        outputs = wire.describe(answer)
        texts = {name: [str(key[name]) for key in keys] for name in ("origin", "gate")}
        self.asked += 1
        appender = log.Appender(self.ctx.home / "serving" / "log" / "g0")
        appender.append(
            log.Entry(
                f"p{self.asked}", at, at, self.ctx.project, "delay", self.revision.id, rows, LAYOUT.pairs(),
                LAYOUT.pack(given, rows), [o.listed() for o in outputs], wire.pack_answer(outputs, answer),
                texts, 900, "", "predict", dict(stale),
            )
        )  # fmt: skip
        appender.close()
        ingest.ingest(self.ctx.catalog, self.ctx.home)

    def compare(self, **more):
        window = {"start": START, "until": START + 9 * HOUR, **more}
        return invoke(self.ctx, "features.parity", Parity(endpoint="delay", **window))


@pytest.fixture
def house(context_of, sqlite_catalog, tmp_path):
    return House(context_of(sqlite_catalog, clock=ReplayClock(START + 6 * HOUR)), tmp_path)


def test_what_was_served_is_what_batch_computes(house):
    for n in range(30):
        house.serve(START + n * 9 * MINUTE + n * 13 * SECOND)
    found = house.compare()
    assert (found.state, found.rows) == ("equal", ())
    assert found.figures == {"sampled": 60, "judged": 60, "values": 180, "later": 0, "different": 0}
    assert found.summary == "180 of 180 values of 60 predictions are equal"
    assert house.compare(sample=7).figures["judged"] == 7
    with house.ctx.read() as tx:
        assert alarms.find(tx, house.ctx.project) == []
        evidence = versions.get(tx, house.ctx.project, found.evidence)
    assert json.loads(house.ctx.store.get(evidence.manifest["object"]))["state"] == "equal"


def test_one_other_value_is_an_alarm_with_the_row_and_ends_when_all_is_equal_again(house):
    at = START + HOUR
    for n in range(5):
        house.serve(at + n * MINUTE, spoil="load__count_1h" if n == 3 else None)
    found = house.compare(until=at + HOUR)
    assert found.state == "different"
    (row,) = found.rows
    assert (row.prediction, row.column, row.served - row.batch) == ("p4.0", "load__count_1h", 1)
    assert row.entity == {"origin": "JFK", "gate": "0"}
    with house.ctx.read() as tx:
        (alarm,) = alarms.find(tx, house.ctx.project)
    assert (alarm.monitor, alarm.kind, alarm.state, alarm.columns) == (
        "parity.delay", "fault", "alarm", ("load__count_1h",)
    )  # fmt: skip
    assert alarm.blocks_retraining
    assert alarm.evidence == found.evidence
    for hour in range(2, 5):
        house.serve(START + hour * HOUR)
        house.compare(start=START + hour * HOUR, until=START + (hour + 1) * HOUR)
    with house.ctx.read() as tx:
        assert alarms.get(tx, house.ctx.project, alarm.id).state == "resolved"
    past = invoke(house.ctx, "features.parities", OfEndpoint(endpoint="delay")).parities
    assert [p.state for p in past] == ["equal", "equal", "equal", "different"]


def test_what_cannot_be_judged_is_counted_and_raises_nothing(house):
    house.serve(START + 7 * HOUR)  # the data was captured an hour before
    house.serve(START + HOUR, spoil="load__count_1h", stale={"load": "default"})
    found = house.compare()
    assert found.state == "cannot tell"
    assert (found.figures["later"], found.figures["values"]) == (2, 0)
    with house.ctx.read() as tx:
        assert alarms.find(tx, house.ctx.project) == []


def test_the_next_comparison_begins_where_the_last_one_could_tell(house):
    house.serve(START + HOUR)
    house.compare(until=START + 2 * HOUR)
    assert invoke(house.ctx, "features.parity", Parity(endpoint="delay")).start == START + 2 * HOUR


def test_bad_wishes_and_strangers_are_refused(house, context_of, sqlite_catalog):
    with pytest.raises(InvalidInput, match="sample of 0"):
        house.compare(sample=0)
    with pytest.raises(InvalidInput, match="window is empty"):
        house.compare(until=START)
    with pytest.raises(NotFound, match="production has no endpoint 'nothing'"):
        invoke(house.ctx, "features.parity", Parity(endpoint="nothing"))
    viewer = context_of(sqlite_catalog, roles=["viewer"], clock=house.ctx.clock)
    with pytest.raises(PermissionDenied):
        invoke(viewer, "features.parity", Parity(endpoint="delay"))
    assert invoke(viewer, "features.parities", OfEndpoint(endpoint="delay")).parities == []
