"""Scan, decide, tag, declassify: by operations, on both databases."""

import polars as pl
import pytest

from everloop import data
from everloop.catalog import refs, versions
from everloop.catalog.governance import redactions
from everloop.catalog.operation import invoke
from everloop.catalog.placements import put as place
from everloop.core.errors import InvalidInput, NotFound, PermissionDenied, Unavailable
from everloop.core.policy import genesis
from everloop.core.version import Version
from everloop.data import operations as data_ops
from everloop.data.codec import DataCodec
from everloop.data.definitions import Contract, Files, SourceDef
from everloop.data.editing import edit
from everloop.data.sensitive import operations as ops
from everloop.data.sensitive import scanning
from everloop.data.sensitive.detect import detect
from everloop.data.streams.consuming import Consumer
from everloop.data.streams.inbox import InboxWriter, inbox
from everloop.data.streams.origins import JSON_LINES, Push

PEOPLE = pl.DataFrame({"id": range(30), "contact": [f"a{i}@example.org" for i in range(30)], "religion": ["x"] * 30})


@pytest.fixture
def people(each_context):
    ctx = each_context
    made = DataCodec(Contract.of("id")).save(PEOPLE, "people", ctx.store, {})
    with ctx.write() as tx:
        place(tx, ctx.project, made.placements)
        return versions.put(tx, ctx.project, made.version, actor="ada", at=1).id


def govern(ctx, **more):
    with ctx.write() as tx:
        policy = Version("policy", "production", {**genesis("team").manifest(), **more})
        identity = versions.put(tx, ctx.project, policy, actor="ada", at=1).id
        snapshot = Version("snapshot", "production", {"entries": {"policy/production": identity}, "parents": []})
        head = versions.put(tx, ctx.project, snapshot, actor="ada", at=1).id
        old = refs.get(tx, ctx.project, refs.env_ref("production"))
        refs.move(tx, ctx.project, refs.env_ref("production"), old=old, new=head, actor="ada", at=1)


def said_of(ctx, asset):
    return {(t.column, t.tag): t.state for t in invoke(ctx, "sensitive.tags", ops.OfAsset(asset=asset)).said}


def masked(ctx, version):
    return invoke(ctx, "data.sample", data_ops.Sample(version=version)).masked


def test_what_a_scan_found_waits_for_a_steward(each_context, context_of, catalog, people):
    viewer = context_of(catalog, name="eve", roles=["viewer"])
    steward = context_of(catalog, name="sam", roles=["steward"])
    with pytest.raises(PermissionDenied):
        invoke(viewer, "sensitive.scan", ops.Scan(version=people))
    found = invoke(steward, "sensitive.scan", ops.Scan(version="people")).found
    assert [(f.column, f.kind, f.tag, f.by) for f in found] == [
        ("contact", "email", "personal", "values"),
        ("religion", "belief", "special", "name"),
    ]
    assert masked(viewer, people) == []
    assert {t.state for t in invoke(viewer, "sensitive.tags", ops.OfAsset(asset="data/people")).said} == {"found"}
    decision = {"asset": "data/people", "column": "contact", "tag": "personal", "decision": "confirm"}
    with pytest.raises(PermissionDenied):
        invoke(viewer, "sensitive.decide", ops.Decide(**decision))
    invoke(steward, "sensitive.decide", ops.Decide(**decision))
    religion = {"column": "religion", "tag": "special", "decision": "dismiss", "reason": "a kind of dance"}
    invoke(steward, "sensitive.decide", ops.Decide(asset="data/people", **religion))
    assert masked(viewer, people) == ["contact"]
    invoke(steward, "sensitive.scan", ops.Scan(version="people"))  # dismissed stays dismissed, confirmed confirmed
    said = invoke(viewer, "sensitive.tags", ops.OfAsset(asset="data/people"))
    assert {(t.column, t.state) for t in said.said} == {("contact", "confirmed"), ("religion", "dismissed")}
    assert said.in_force == {"contact": ["personal"]}
    with pytest.raises(NotFound):
        invoke(steward, "sensitive.decide", ops.Decide(**{**decision, "column": "id"}))


def test_a_policy_may_tag_what_is_found_at_once(each_context, context_of, catalog, people):
    ctx = each_context
    govern(ctx, found="tag")
    invoke(ctx, "sensitive.scan", ops.Scan(version=people))
    assert masked(context_of(catalog, name="eve", roles=["viewer"]), people) == ["contact", "religion"]


def test_a_tag_by_hand_can_be_taken_back(each_context, context_of, catalog, people):
    viewer = context_of(catalog, name="eve", roles=["viewer"])
    tag = {"asset": "data/people", "column": "id", "tag": "personal"}
    invoke(each_context, "sensitive.tag", ops.TagColumn(**tag))
    assert masked(viewer, people) == ["id"]
    with pytest.raises(PermissionDenied):
        invoke(viewer, "sensitive.tag", ops.TagColumn(**tag, remove=True))
    invoke(each_context, "sensitive.tag", ops.TagColumn(**tag, remove=True))
    assert masked(viewer, people) == []
    with pytest.raises(NotFound):
        invoke(each_context, "sensitive.tag", ops.TagColumn(**tag, remove=True))
    with pytest.raises(InvalidInput, match="no columns"):
        invoke(each_context, "sensitive.tag", ops.TagColumn(**{**tag, "asset": "check/people"}))


def test_declassifying_needs_a_reason_and_replaces_what_was_declared(each_context, people):
    said = {"asset": "data/people", "column": "id"}
    invoke(each_context, "sensitive.declassify", ops.Declassify(**said, least=20, reason="groups of a school"))
    found = invoke(each_context, "sensitive.declassify", ops.Declassify(**said, least=30, reason="of a district"))
    assert [(t.tag, t.detail["reason"]) for t in found.said] == [("at least 30 rows", "of a district")]
    assert invoke(each_context, "sensitive.declassify", ops.Declassify(**said, least=0, reason="no")).said == []


FOUND = {("contact", "personal"): "found", ("religion", "special"): "found"}


def test_every_new_version_is_scanned_once_and_none_is_forgotten(each_context, tmp_path, monkeypatch):
    ctx = each_context
    source = SourceDef("clients", Files("people/*.csv"))
    (tmp_path / "people").mkdir()
    PEOPLE.write_csv(tmp_path / "people" / "1.csv")
    data.capture(ctx, source, root=tmp_path)
    assert said_of(ctx, "data/clients") == {}  # no policy says so
    govern(ctx, scan="asked")
    assert not data.capture(ctx, source, root=tmp_path).read
    assert said_of(ctx, "data/clients") == {}
    govern(ctx)
    assert not data.capture(ctx, source, root=tmp_path).read  # its scan was missed, and comes now
    assert said_of(ctx, "data/clients") == FOUND
    count = []
    monkeypatch.setattr(scanning, "detect", lambda *args, **more: count.append(1) or detect(*args, **more))
    data.capture(ctx, source, root=tmp_path)
    assert count == []
    PEOPLE.with_columns(born=pl.lit("1980-01-02")).write_csv(tmp_path / "people" / "1.csv")
    data.capture(ctx, source, root=tmp_path)
    assert (len(count), said_of(ctx, "data/clients")) == (1, {**FOUND, ("born", "personal"): "found"})
    edit(ctx, "members", PEOPLE.rename({"id": "user_id"}), "append", "sandbox/ada/x", contract=Contract.of("user_id"))
    assert said_of(ctx, "data/members") == {**FOUND, ("user_id", "pseudonymous"): "found"}


def test_a_scan_that_fails_stops_nothing_and_is_said(each_context, tmp_path, monkeypatch):
    ctx = each_context
    govern(ctx, found="tag", scan="text")
    PEOPLE.write_csv(tmp_path / "1.csv")
    data.capture(ctx, SourceDef("clients", Files("1.csv")), root=tmp_path)  # presidio may not be here: the rest counts
    assert set(said_of(ctx, "data/clients").values()) == {"confirmed"}

    def fail(*_args, **_more):
        raise Unavailable("the store does not answer")

    monkeypatch.setattr(scanning, "detect", fail)
    made = data.capture(ctx, SourceDef("others", Files("1.csv")), root=tmp_path)
    with ctx.read() as tx:
        _, told = redactions.latest(tx, ctx.project, ("tag.scanned",), f"data/others@{made.id}")
    assert told["error"] == "the store does not answer"


def test_a_feed_is_scanned_as_it_grows(each_context):
    ctx = each_context
    govern(ctx)
    columns = {"contact": "string"}
    source = SourceDef("signups", Push(columns=columns))
    with ctx.write() as tx:
        versions.put(tx, ctx.project, source.version(), actor="ada", at=1)
    writer = InboxWriter(inbox(ctx.home, ctx.project, "sandbox/ada/x", "signups"))
    consumer = Consumer(ctx, "sandbox/ada/x", "signups")
    for batch in range(4):
        lines = "\n".join(f'{{"contact": "a{batch}{i}@example.org"}}' for i in range(3))
        writer.append({"at": 1, "key": "", "media": JSON_LINES, "encoding": ""}, lines.encode())
        consumer.drain()
        scanned = batch in (0, 3)
        with ctx.read() as tx:
            row = versions.find(tx, ctx.project, "data/signups")
            assert (redactions.latest(tx, ctx.project, ("tag.scanned",), f"{row.key}@{row.id}") is not None) == scanned
    consumer.close()
    assert said_of(ctx, "data/signups") == {("contact", "personal"): "found"}
