"""Retention: old versions go by rule, never what is pointed to or held; what is left verifies; bytes add up."""

import polars as pl
import pytest

from everloop import data
from everloop.catalog import placements
from everloop.catalog.operation import invoke
from everloop.catalog.verify import verify
from everloop.core.errors import InvalidInput, NotFound
from everloop.data.content import ordering
from everloop.data.definitions import Contract
from everloop.data.editing import edit
from everloop.data.erasure import holds
from everloop.data.retention.rules import Retention
from everloop.data.retention.usage import usage
from everloop.workspace.work.retaining import AskExpire, AskUsage, Retain

HERE = "sandbox/ada/x"


@pytest.fixture
def context(each_context):
    """On each database in turn."""
    return each_context


@pytest.fixture
def four(context):
    contract = Contract.of("id", tags={"who": "personal"})
    made = []
    for n in range(4):
        rows = pl.DataFrame({"id": [n, 100 + n], "who": ["a", "b"]})
        made.append(edit(context, "events", rows, "append", HERE, contract=contract if not n else None).id)
    return made


def test_old_versions_go_and_say_so_and_the_rest_reads(context, four):
    assert invoke(context, "data.expire", AskExpire()).versions == []
    invoke(context, "data.retain", Retain(kind="data", name="ev*", tag="personal", versions=2))
    dry = invoke(context, "data.expire", AskExpire())
    assert [one["number"] for one in dry.versions] == [1, 2]
    assert data.read(context, four[0]).collect().height == 2
    done = invoke(context, "data.expire", AskExpire(dry_run=False))
    assert (done.versions, done.bytes) == (dry.versions, dry.bytes)
    assert done.bytes > 0
    for gone in four[:2]:
        with pytest.raises(NotFound, match="not here"):
            data.read(context, gone)
    assert data.read(context, four[2]).collect().height == 6
    assert verify(context.catalog, context.store) == []
    with context.read() as tx:
        kept = placements.reachable(tx)
    assert len(context.store.sweep(kept.__contains__, -10).removed) >= 1
    assert data.read(context, four[3]).collect().height == 8
    assert verify(context.catalog, context.store) == []
    assert invoke(context, "data.expire", AskExpire(dry_run=False)).versions == []


def test_holds_heads_and_younger_versions_stay(context, four):
    rule = Retain(kind="data", versions=1, days=1)
    invoke(context, "data.retain", rule)
    assert invoke(context, "data.expire", AskExpire()).versions == []
    invoke(context, "data.retain", Retain(kind="data", versions=1))
    assert len(invoke(context, "data.expire", AskExpire()).versions) == 3
    holds.hold(context, place="events", reason="case 7")
    assert invoke(context, "data.expire", AskExpire()).versions == []
    holds.release(context, place="events")
    assert len(invoke(context, "data.expire", AskExpire()).versions) == 3
    invoke(context, "data.retain", Retain(kind="data", off=True))
    assert invoke(context, "data.expire", AskExpire()).versions == []


def test_a_rule_keeps_something():
    with pytest.raises(InvalidInput):
        Retention("data", versions=0)
    with pytest.raises(InvalidInput):
        Retention("predictions")


def test_bytes_alone_and_shared_add_up_to_what_is_stored(context, monkeypatch):
    monkeypatch.setattr(ordering, "SMALLEST_CUT", 256)
    table = pl.DataFrame({"id": range(3000), "x": [n * 7 % 1000 for n in range(3000)]})
    first = edit(context, "events", table, "append", HERE, contract=Contract.of("id")).id
    second = edit(context, "events", table[1500:1502].with_columns(x=0), "upsert", HERE).id
    found = {one.id: one for one in usage(context)}
    with context.read() as tx:
        stored = set(placements.objects(tx, context.project).values())
    assert found[first].shared == found[second].shared > 0
    total = sum(context.store.size(i) for i in stored)
    assert found[first].alone + found[second].alone + found[first].shared == total
    assert found[second].alone < found[first].shared / 2
    listed = invoke(context, "data.usage", AskUsage(name="events")).versions
    assert {v["id"] for v in listed} == {first, second}
    assert invoke(context, "data.usage", AskUsage(name="other")).versions == []
