"""Scan, decide, tag, declassify: by operations, on both databases."""

import polars as pl
import pytest

from everloop.catalog import refs, versions
from everloop.catalog.operation import invoke
from everloop.catalog.placements import put as place
from everloop.core.errors import InvalidInput, NotFound, PermissionDenied
from everloop.core.policy import genesis
from everloop.core.version import Version
from everloop.data import operations as data_ops
from everloop.data.codec import DataCodec
from everloop.data.definitions import Contract
from everloop.data.sensitive import operations as ops

PEOPLE = pl.DataFrame({"id": range(30), "contact": [f"a{i}@example.org" for i in range(30)], "religion": ["x"] * 30})


@pytest.fixture
def people(each_context):
    ctx = each_context
    made = DataCodec(Contract.of("id")).save(PEOPLE, "people", ctx.store, {})
    with ctx.write() as tx:
        place(tx, ctx.project, made.placements)
        return versions.put(tx, ctx.project, made.version, actor="ada", at=1).id


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
    with ctx.write() as tx:
        policy = Version("policy", "production", {**genesis("team").manifest(), "found": "tag"})
        identity = versions.put(tx, ctx.project, policy, actor="ada", at=1).id
        snapshot = Version("snapshot", "production", {"entries": {"policy/production": identity}, "parents": []})
        head = versions.put(tx, ctx.project, snapshot, actor="ada", at=1).id
        refs.move(tx, ctx.project, refs.env_ref("production"), old=None, new=head, actor="ada", at=1)
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
