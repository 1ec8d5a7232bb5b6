"""Who sees values of tagged columns: rows, profiles, differences, drafts, features; carried along lineage."""

from functools import partial

import polars as pl
import pytest

from everloop.catalog import versions
from everloop.catalog.governance import annotations
from everloop.catalog.governance.annotations import Annotation
from everloop.catalog.operation import invoke
from everloop.catalog.placements import put as place
from everloop.core.errors import PermissionDenied
from everloop.core.version import Version
from everloop.data import expect
from everloop.data import operations as ops
from everloop.data.codec import DataCodec
from everloop.data.contracts.judging import check_version
from everloop.data.definitions import Contract
from everloop.data.sensitive.masking import need_file
from everloop.data.sensitive.tags import tags_in, tags_of
from everloop.features import definitions as el
from everloop.features.definitions import FeatureViewDef
from everloop.features.expressions import author

PEOPLE = pl.DataFrame({"id": [1, 2], "email": ["ada@example.org", "bob@example.org"], "age": [36, 41]})
PERSONAL = {"email": "personal", "age": "personal"}


def table(ctx, name, frame, *, inputs=None, **contract):
    made = DataCodec(Contract.of("id", **contract)).save(frame, name, ctx.store, {"inputs": inputs or {}})
    with ctx.write() as tx:
        numbered = versions.put(tx, ctx.project, made.version, actor="ada", at=1)
        place(tx, ctx.project, made.placements)
    return numbered.id


def record(ctx, kind, name, manifest, inputs=()):
    with ctx.write() as tx:
        return versions.put(tx, ctx.project, Version(kind, name, manifest, tuple(inputs)), actor="ada", at=1).id


def tags(ctx, identity):
    with ctx.read() as tx:
        found = tags_of(tx, ctx.project, versions.get(tx, ctx.project, identity))
    return {column: set(carried) for column, carried in found.items()}


def say(ctx, name, part, field, value, *, state="confirmed", kind="data"):
    with ctx.write() as tx:
        annotations.put(tx, ctx.project, Annotation(kind, name, part, field, value, state, "sam", 2))


@pytest.fixture
def people(context):
    return table(context, "people", PEOPLE, tags=PERSONAL)


@pytest.fixture
def viewer(context, context_of):
    return context_of(context.catalog, name="eve", roles=["viewer"])


@pytest.fixture
def steward(context, context_of):
    return context_of(context.catalog, name="sam", roles=["steward"])


def test_a_steward_sees_values_and_a_viewer_masks(people, viewer, steward):
    asked = ops.Sample(version=people)
    assert invoke(viewer, "data.sample", asked).rows == [["1", "•••", "•••"], ["2", "•••", "•••"]]
    assert invoke(steward, "data.sample", asked).rows[0] == ["1", "ada@example.org", "36"]
    assert invoke(steward, "data.sample", asked).masked == []
    shown = invoke(viewer, "data.show", ops.OfData(version=people))
    assert shown.masked == ["age", "email"]
    assert shown.tags == {"age": "personal", "email": "personal"}
    assert not any("example.org" in str(column) or "41" in str(column.values()) for column in shown.columns)


def test_what_was_tagged_later_is_masked_in_profiles_differences_and_drafts_too(context, viewer, steward):
    old = table(context, "people", PEOPLE)
    new = table(context, "people", PEOPLE.with_columns(age=pl.Series([36, 42])))
    before = invoke(viewer, "data.show", ops.OfData(version=new)).columns
    assert next(c for c in before if c["name"] == "age")["max"] == 42
    asked = ops.Compare(old=old, new=new)
    assert invoke(viewer, "data.compare", asked).examples == [{"id": "2", "age": "41 → 42"}]
    for column in ("email", "age"):
        say(context, "people", column, "tag", "personal")
    told = next(c for c in invoke(viewer, "data.show", ops.OfData(version=new)).columns if c["name"] == "age")
    assert set(told) & {"min", "max", "mean", "top", "quantiles"} == set()
    assert told["masked"] is True
    assert invoke(viewer, "data.compare", asked).examples == [{"id": "2", "age": "•••"}]
    assert invoke(steward, "data.compare", asked).examples == [{"id": "2", "age": "41 → 42"}]
    assert not any("42" in line for line in invoke(viewer, "data.expect", ops.OfData(version=new)).lines)
    assert any("42" in line for line in invoke(steward, "data.expect", ops.OfData(version=new)).lines)


def test_only_a_grant_of_that_tag_shows_it(context, context_of, people):
    say(context, "people", "age", "tag", "special")
    reader = context_of(context.catalog, roles=[])
    grants = ["read */*@*", "read data/people@*#personal"]
    reader = reader.as_actor(type(reader.actor).of("rey", grants=grants))
    assert invoke(reader, "data.sample", ops.Sample(version=people)).rows[0] == ["1", "ada@example.org", "•••"]


def test_a_tag_that_was_only_found_masks_nothing_until_it_is_confirmed(context, viewer):
    plain = table(context, "people", PEOPLE)
    say(context, "people", "email", "tag", "personal", state="found")
    assert invoke(viewer, "data.sample", ops.Sample(version=plain)).masked == []
    say(context, "people", "email", "tag", "personal", state="confirmed")
    assert invoke(viewer, "data.sample", ops.Sample(version=plain)).masked == ["email"]


def test_without_a_word_of_its_columns_a_table_carries_all_tags_of_its_inputs(context, people, viewer):
    made = table(context, "adults", pl.DataFrame({"id": [1], "n": [7]}), inputs={"people": people})
    assert tags(context, made) == {"id": {"personal"}, "n": {"personal"}}
    assert invoke(viewer, "data.sample", ops.Sample(version=made)).rows == [["•••", "•••"]]


def test_declared_columns_carry_what_their_operators_say(context, people):
    columns = {
        "id": ["people.id"],
        "key": ["hash(people.email)"],
        "age": ["people.age"],
        "both": ["combine(people.id)", "hash(people.email)"],
        "mean_age": ["mean(people.age)"],
    }
    frame = pl.DataFrame({name: [1] for name in (*columns, "rest")})
    made = table(context, "ages", frame, inputs={"people": people}, columns=columns)
    assert tags(context, made) == {
        "key": {"pseudonymous"},
        "age": {"personal"},
        "both": {"pseudonymous"},
        "mean_age": {"personal"},
        "rest": {"personal"},
    }
    say(context, "ages", "mean_age", "least", "9")
    assert tags(context, made)["mean_age"] == {"personal"}
    say(context, "ages", "mean_age", "least", "10")
    assert tags(context, made)["mean_age"] == {"aggregated"}


def test_tags_reach_views_services_models_and_endpoints(context, people, viewer, steward):
    feature = {"name": "age_mean_7d", "function": "mean", "column": "age", "where": None}
    count = {"name": "count_7d", "function": "count", "column": "", "where": None}
    view = record(context, "view", "load", {"source": "people", "entity": ["id"], "features": [feature, count]})
    manifest = {"views": {"load": view}, "order": ["load"], "request": ["email"], "entities": ["id"]}
    service = record(context, "service", "inputs", manifest)
    record(context, "trainer", "delay", {"spine": "people", "service": "inputs"})
    files = {"input_example.json": "b3:" + "0" * 64}
    model = record(context, "model", "delay", {"service": service, "trainer": "delay", "files": files})
    sequence = {
        "node": "sequence",
        "nodes": [{"node": "lookup", "service": "inputs"}, {"node": "model", "model": "delay"}],
    }
    endpoint = record(context, "endpoint", "ask", {"graph": sequence})
    revision = record(context, "revision", "ask", {"service": service, "models": {"champion": model}})
    assert tags(context, view) == {"age_mean_7d": {"personal"}}
    assert tags(context, service) == {"load__age_mean_7d": {"personal"}}
    assert tags(context, model) == {name: {"personal"} for name in ("load__age_mean_7d", "email", "prediction")}
    for asker in (endpoint, revision):
        assert tags(context, asker)["email"] == {"personal"}
        assert "id" not in tags(context, asker)
    with pytest.raises(PermissionDenied, match="email"):
        need_file(viewer, model, "model/input_example.json")
    need_file(steward, model, "model/input_example.json")
    need_file(viewer, model, "model/MLmodel")
    with context.read() as tx:
        assert tags_in(tx, context.project, [model]) == {"personal"}
    say(context, "load", "age_mean_7d", "least", "50", kind="view")
    assert tags(context, service) == {"load__age_mean_7d": {"aggregated"}}


def test_a_feature_of_a_feature_carries_its_tags(context, people):
    age = {"name": "age_last", "function": "last", "column": "age", "where": None}
    below = {"source": "people", "entity": ["id"], "features": [age]}
    record(context, "view", "load", below)
    read = [
        {"name": "most", "function": "max", "column": "load__age_last", "where": None},
        {
            "name": "old",
            "function": "count",
            "column": "",
            "where": {"column": "load__age_last"},
        },
        {"name": "count", "function": "count", "column": "", "where": None},
    ]
    reads = [{"name": "load", **below}]
    view = record(context, "view", "trend", {"source": "people", "entity": ["id"], "features": read, "reads": reads})
    assert tags(context, view) == {"most": {"personal"}, "old": {"personal"}}


def test_whatever_a_feature_reads_gives_it_its_tags(context, people):
    """Of every function, of joined filters, of expressions, of both parts of a ratio."""
    young, known = ("age", "<", 18), ("email", "!=", "")
    count, said = el.count(over="1h"), {"over": "1h", "where": [young, el.any_of(known, ("id", ">", 3))]}
    features = {
        "joined": el.count(**said, name="joined"),
        "nested": el.sum(
            "id", over="1h", where=el.any_of(("id", ">", 1), el.all_of(("id", "<", 9), known)), name="nested"
        ),
        "computed": el.sum(author.col("id") + author.col("age"), over="1h", name="computed"),
        "condition": el.count(over="1h", where=author.col("age") > 18, name="condition"),
        "above": el.ratio(el.sum("age", over="1h"), count, name="above"),
        "below": el.ratio(count, el.count(**said, name="part"), name="below"),
        **{name: function("age", name=name) for name, function in READING.items()},
    }
    view = FeatureViewDef("load", "people", "id", [*features.values(), count], event_time="at")
    made = record(context, "view", "load", view.manifest())
    assert tags(context, made) == {name: {"personal"} for name in features}


READING = {
    "sum": partial(el.sum, over="1h"),
    "mean": partial(el.mean, over="1h"),
    "variance": partial(el.variance, over="1h"),
    "stddev": partial(el.stddev, over="1h"),
    "min": partial(el.min, over="1h"),
    "max": partial(el.max, over="1h"),
    "first": el.first,
    "last": el.last,
    "last_k": partial(el.last_k, k=2),
    "top_k": partial(el.top_k, k=2, over="1h"),
    "distinct": partial(el.distinct, over="1h"),
    "histogram": partial(el.histogram, edges=[1], over="1h"),
    "quantile": partial(el.quantile, q=0.5, over="1h"),
}
"""Every function of one column."""


def test_failing_rows_are_written_down_masked_by_tags_that_came_later_too(context):
    plain = table(context, "people", PEOPLE)
    say(context, "people", "email", "tag", "personal")
    (found,) = check_version(context, plain, [expect.between("age", 0, 40)])
    assert found.examples == ({"id": "2", "age": "41"},)
    (found,) = check_version(context, plain, [expect.matches("email", "nothing")])
    assert {row["email"] for row in found.examples} == {"•••"}
