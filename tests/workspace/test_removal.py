"""Deleting frees bytes after a grace period, and only those that nothing else refers to; ids and history stay."""

import os
import time

import pytest

from everloop.catalog import chain, facts, refs, versions
from everloop.catalog.keeping import removal, seals
from everloop.catalog.tracking import artifacts, experiments, logged, registered, registry, runs
from everloop.catalog.verify import verify
from everloop.core.clock import DAY, SECOND
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.settings import Settings
from everloop.core.version import Version
from everloop.store.layout import file_of
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace
from everloop.workspace.work.sweeping import GRACE, sweep_store

LONG_AGO = GRACE + DAY


@pytest.fixture
def ctx(tmp_path, catalog_url):
    settings = Settings(home=tmp_path / "home", project="shop", database=catalog_url)
    initialise(settings, "ada", "team", tmp_path)
    with Workspace.open(settings) as opened:
        yield opened.system()


def stored(ctx, content):
    """Content that was put long before the grace period."""
    identity = ctx.store.put(content)
    past = time.time() - 2 * LONG_AGO / SECOND
    os.utime(file_of(ctx.home / "objects", identity), (past, past))
    return identity


def registered_version(ctx, tx, name, content, **fields):
    model = registered.find(tx, ctx.project, name) or registry.register(tx, ctx.project, name, actor="ada", at=1)
    return registry.create_version(
        tx, ctx.project, model, source="runs:/x", actor="ada", at=1, files={"weights": content}, **fields
    )


def held(ctx, *identities):
    return [ctx.store.has(identity) for identity in identities]


def test_a_deleted_version_frees_what_nothing_refers_to_when_its_grace_is_over(ctx):
    only, pinned, kept = (stored(ctx, name) for name in (b"only", b"pinned", b"kept"))
    with ctx.write() as tx:
        first, second, _ = (registered_version(ctx, tx, "delay", one) for one in (only, pinned, kept))
        judged = Version("evidence", "fits", {"subjects": {"delay": second.version}})
        versions.put(tx, ctx.project, judged, actor="ada", at=1)
        for one in (first, second):
            registry.delete_version(tx, ctx.project, "delay", one.number, actor="ada", at=ctx.now() - DAY)
    sweep_store(ctx)
    assert held(ctx, only, pinned, kept) == [True, True, True]  # within the grace
    sweep_store(ctx, grace=DAY // 2)
    assert held(ctx, only, pinned, kept) == [False, True, True]
    assert verify(ctx.catalog, ctx.store) == []
    with ctx.read() as tx:
        assert removal.is_freed(tx, ctx.project, first.version)
        assert removal.freed(tx, ctx.project) == {first.version}
        assert versions.get(tx, ctx.project, first.version).number == 1
    file_of(ctx.home / "objects", pinned).unlink()
    assert [found.subject for found in verify(ctx.catalog, ctx.store)] == [pinned]
    with ctx.write() as tx:
        assert registered_version(ctx, tx, "delay", kept).number == 4  # the number is not given again


def test_a_deleted_name_frees_its_versions_and_pointers_and_other_names_keep_theirs(ctx):
    gone, aliased, shared = (stored(ctx, name) for name in (b"gone", b"aliased", b"shared"))
    with ctx.write() as tx:
        registered_version(ctx, tx, "old", gone)
        two, three = registered_version(ctx, tx, "old", aliased), registered_version(ctx, tx, "old", shared)
        for version, name in ((two, "elsewhere"), (three, "other")):
            manifest = versions.get(tx, ctx.project, version.version).manifest
            versions.put(tx, ctx.project, Version("model", name, manifest), actor="ada", at=1)
        alias = refs.alias_ref("model", "elsewhere", "best")
        refs.move(tx, ctx.project, alias, old=None, new=two.version, actor="ada", at=1)
        versions.retire(tx, ctx.project, "model", "elsewhere")  # only the pointer holds it now
        registry.delete_registered(tx, ctx.project, "old", actor="ada", at=ctx.now() - LONG_AGO)
    sweep_store(ctx)
    assert held(ctx, gone, aliased, shared) == [False, True, True]
    assert verify(ctx.catalog, ctx.store) == []
    with ctx.write() as tx:  # the name is free, its numbers begin again, and what comes back is kept again
        again = registered_version(ctx, tx, "old", stored(ctx, b"gone"))
        assert again.number == 1
        assert removal.freed(tx, ctx.project) == frozenset()
    sweep_store(ctx)
    assert held(ctx, gone) == [True]


def test_a_deleted_run_is_restored_within_its_grace_and_its_files_go_after_it(ctx):
    mine, model, cited = (stored(ctx, name) for name in (b"mine", b"model", b"cited"))
    with ctx.write() as tx:
        home = experiments.create(tx, ctx.project, "tuning", at=1)
        run, other = (runs.create(tx, ctx.project, experiment=home, actor="ada", at=1) for _ in range(2))
        made = logged.create(tx, ctx.project, experiment=home, at=1, run=run.id)
        for owner, identity in ((run.id, mine), (made.id, model), (other.id, cited)):
            artifacts.put(tx, ctx.project, owner, "weights", identity=identity, size=4, at=1)
    sealed = [seals.seal(ctx.catalog, ctx.project, one.id, actor="ada", at=1).id for one in (run, other)]
    with ctx.write() as tx:
        judged = Version("evidence", "fits", {"subjects": {}}, (("run:delay", sealed[1]),))
        versions.put(tx, ctx.project, judged, actor="ada", at=1)
        runs.delete_run(tx, ctx.project, run.id, at=ctx.now() - DAY)
    sweep_store(ctx)
    with ctx.write() as tx:
        runs.restore(tx, ctx.project, run.id)
        assert artifacts.get(tx, ctx.project, run.id, "weights").object == mine
        for one in (run, other):
            runs.delete_run(tx, ctx.project, one.id, at=ctx.now() - LONG_AGO)
        logged.delete_model(tx, ctx.project, made.id, at=ctx.now() - LONG_AGO)
    sweep_store(ctx)
    assert held(ctx, mine, model, cited) == [False, False, True]
    chain.seal(ctx.catalog, ctx.clock)
    with ctx.write() as tx:
        with pytest.raises(InvalidInput, match="grace period"):
            runs.restore(tx, ctx.project, run.id)
        with pytest.raises(NotFound):
            artifacts.get(tx, ctx.project, run.id, "weights")
        assert runs.get(tx, ctx.project, run.id).stage == "deleted"
        told = facts.tail(tx, ctx.project, kinds=("run.freed",))
    assert {fact.subject for fact in told} == {f"run/{run.id}", f"run/{other.id}", f"logged/{made.id}"}
    assert verify(ctx.catalog, ctx.store) == []
