"""The places beside the tables: the online store forgets an entity of this project alone; old log segments expire."""

import os

import pytest

from everloop.catalog import refs
from everloop.catalog.operating import predictions
from everloop.catalog.operating.predictions import Segment
from everloop.catalog.versions import put
from everloop.core.clock import DAY, SECOND
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version
from everloop.features.operations import online_store
from everloop.features.states.keys import entity_key
from everloop.serving.erasure.expiring import expire_segments
from everloop.workspace.work.places import OnlineFeatures


@pytest.mark.parametrize("served", [False, True])
def test_the_online_store_forgets_an_entity_of_this_project_only(context, tmp_path, redis_url, served):
    if served:
        (tmp_path / "bindings.toml").write_text(f'[production]\nonline_store = "{redis_url}#erasing"\n')
    view = Version("view", "spend", {"entity": ["customer"]}, ())
    with context.write() as tx:
        put(tx, context.project, view, actor="ada", at=1)
        snapshot = Snapshot({}).version()
        put(tx, context.project, snapshot, actor="ada", at=1)
        refs.move(tx, context.project, refs.env_ref("production"), old=None, new=snapshot.id, actor="ada", at=1)
    store = online_store(context, "production")
    pair = b"\x04\x00\x00\x00sk-1" + b"\x03\x00\x00\x00i12"
    long = entity_key(["k" * 500])
    mine, other = f"{context.project}/production/{view.id}", f"elsewhere/production/{view.id}"
    for space in (mine, other):
        store.write(
            space,
            [
                (b"ssk-1", b"state"),
                (b"isk-1", b"ids"),
                (b"ssk-12", b"another"),
                (b"s" + pair, b"both"),
                (b"s" + long, b"hashed"),
            ],
        )
    assert OnlineFeatures(context).erase("k-1") == 3
    assert OnlineFeatures(context).erase("k" * 500) == 1
    assert store.read([(mine, [b"ssk-1", b"s" + pair, b"ssk-12"])]) == [[None, None, b"another"]]
    assert store.read([(other, [b"ssk-1"])]) == [[b"state"]]
    assert OnlineFeatures(context).erase("k-1") == 0


def test_old_segments_that_are_ingested_go_and_the_newest_stays(context, tmp_path):
    folder = tmp_path / "serving" / "log" / "g1"
    folder.mkdir(parents=True)
    for number in (1, 2, 3, 4):
        path = folder / f"{number:012d}.seg"
        path.write_bytes(b"")
        if number != 2:
            os.utime(path, (1, 1))
    with context.write() as tx:
        for number in (1, 2, 4):
            predictions.record_progress(tx, Segment("g1", number, 0, closed=True))
    before = context.wall() - DAY
    assert before > SECOND
    assert expire_segments(context, before, dry_run=True) == 1
    assert len(list(folder.iterdir())) == 4
    assert expire_segments(context, before) == 1
    assert sorted(int(p.stem) for p in folder.iterdir()) == [2, 3, 4]
