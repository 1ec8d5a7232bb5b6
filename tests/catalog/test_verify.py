"""The walk over everything: what is whole passes, and each kind of damage is named."""

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import delete, text, update

from everloop.catalog import chain, facts, placements, refs, versions
from everloop.catalog.tables.core import edges, names, numbers, ref_log
from everloop.catalog.tables.core import facts as fact_rows
from everloop.catalog.tables.core import refs as ref_rows
from everloop.catalog.tables.core import versions as version_rows
from everloop.catalog.tables.tracking import artifacts
from everloop.catalog.verify import verify
from everloop.core.ids import object_id
from everloop.core.version import Version

P = "flights"
PART = object_id(b"the part's content")


@pytest.fixture
def whole(each_context):
    ctx = each_context
    report, part, file = (ctx.store.put(content) for content in (b"report", b"part", b"file"))
    data = Version("data", "flights", {"parts": [{"logical": PART, "rows": 3}], "profile": report})
    model = Version("model", "delay", {"files": {"model.pkl": file}}, (("data", data.id),))
    with ctx.write() as tx:
        versions.put_many(tx, P, [data, model], actor="ada", at=1)
        placements.put(tx, P, {PART: part})
        refs.move(tx, P, "env/x", old=None, new=data.id, actor="ada", at=1)
        refs.move(tx, P, "env/x", old=data.id, new=model.id, actor="ada", at=2)
        for n in range(3):
            facts.append(tx, P, ctx.fact("a.b", f"s{n}"))
    chain.seal(ctx.catalog, ctx.clock)
    return ctx, {"data": data.id, "model": model.id, "report": report, "part": part, "file": file}


def found(ctx, **how):
    return [(f.area, f.subject, f.reason) for f in verify(ctx.catalog, ctx.store, **how)]


def damage(ctx, *statements):
    with ctx.catalog.write() as tx:
        for statement in statements:
            tx.execute(statement)


def delete_version(ctx, identity):
    """Against the foreign keys, as somebody at the file could."""
    if ctx.catalog.dialect == "sqlite":
        with closing(sqlite3.connect(ctx.catalog.url.partition("///")[2])) as connection:
            connection.execute("DELETE FROM versions WHERE id = ?", (identity,))
            connection.commit()
        return
    with ctx.catalog.write() as tx:
        for table in (numbers, edges, ref_rows):
            for constraint in table.foreign_key_constraints:
                tx.execute(text(f"ALTER TABLE {table.name} DROP CONSTRAINT {constraint.name}"))
        tx.execute(delete(version_rows).where(version_rows.c.id == identity))


def test_what_is_whole_passes_and_progress_is_told(whole):
    ctx, _ = whole
    heard = []
    told = verify(ctx.catalog, ctx.store, key=ctx.key.public, progress=lambda *what: heard.append(what))
    assert told == []
    assert {(P, "version", 2), (P, "object", 2), (P, "placement", 1), (P, "edge", 1), (P, "fact", 3)} <= set(heard)
    assert verify(ctx.catalog, ctx.store, project="absent") == []


def test_missing_and_damaged_objects_are_named_first(whole):
    ctx, ids = whole
    ctx.store.path(ids["report"]).unlink()
    file = ctx.store.path(ids["file"])
    file.chmod(0o644)
    file.write_bytes(b"liar")
    ctx.store.path(ids["part"]).unlink()
    told = found(ctx)
    assert [area for area, _, _ in told] == ["object", "object", "placement"]
    reasons = {subject: reason for _, subject, reason in told}
    assert "is missing" in reasons[ids["report"]]
    assert "is damaged" in reasons[ids["file"]]
    assert ids["part"] in reasons[PART]


def test_an_artifact_whose_object_is_gone_is_named(whole):
    ctx, _ = whole
    gone = object_id(b"never stored")
    row = {"project": P, "owner": "run", "path": "plot.png", "object": gone, "size": 3, "at": 1}
    with ctx.catalog.write() as tx:
        tx.execute(artifacts.insert(), row)
        assert gone in placements.reachable(tx, P)
    assert found(ctx) == [("object", gone, "is missing; a row of artifacts names it")]


def test_a_part_without_a_place_is_named(whole):
    ctx, _ = whole
    with ctx.catalog.write() as tx:
        placements.forget(tx, P, [PART])
    ((area, subject, reason),) = found(ctx)
    assert (area, subject, "no object" in reason) == ("placement", PART, True)


def test_an_edited_manifest_is_named(whole):
    ctx, ids = whole
    damage(
        ctx,
        update(version_rows).where(version_rows.c.id == ids["model"]).values(manifest='{"kind":"model","schema":1}'),
    )
    assert found(ctx) == [("version", ids["model"], "its manifest does not hash to its id")]
    damage(ctx, update(version_rows).where(version_rows.c.id == ids["model"]).values(manifest="{"))
    assert found(ctx) == [("version", ids["model"], "its manifest is not JSON")]


def test_edges_numbers_and_refs_to_nothing_are_named(whole):
    ctx, ids = whole
    delete_version(ctx, ids["model"])
    told = found(ctx)
    assert [area for area, _, _ in told] == ["edge", "number", "ref"]
    assert all(ids["model"] in reason for _, _, reason in told)


def test_a_number_that_was_taken_out_is_named(whole):
    ctx, _ = whole
    with ctx.catalog.write() as tx:
        versions.put_many(tx, P, [Version("value", "v", {"n": n}) for n in range(3)], actor="ada", at=1)
        tx.execute(delete(numbers).where(numbers.c.kind == "value", numbers.c.number == 2))
        assert tx.execute(names.select().where(names.c.kind == "value")).one().last == 3
    assert found(ctx) == [("number", "value/v@3", "number 2 of incarnation 1 is missing")]


def test_a_ref_moved_behind_its_log_is_named(whole):
    ctx, ids = whole
    damage(ctx, update(ref_rows).values(target=ids["data"]))
    ((area, subject, reason),) = found(ctx)
    assert (area, subject) == ("ref", "env/x")
    assert "its log says" in reason
    damage(ctx, update(ref_rows).values(target=ids["model"]), delete(ref_log).where(ref_log.c.old.is_(None)))
    ((area, subject, reason),) = found(ctx)
    assert "does not follow" in reason


def test_an_edited_fact_is_named(whole):
    ctx, _ = whole
    damage(ctx, update(fact_rows).where(fact_rows.c.position == 2).values(actor="eve"))
    assert found(ctx) == [("fact", "at position 2", "the record was changed or moved")]
    assert str(verify(ctx.catalog, ctx.store)[0]) == "fact at position 2 (flights): the record was changed or moved"
