"""Where the bytes of parts are; one suite over both databases."""

import pytest

from everloop.catalog import placements, versions
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.ids import object_id
from everloop.core.version import Version

P = "flights"
L1, L2, O1, O2, O3 = (object_id(text) for text in (b"l1", b"l2", b"o1", b"o2", b"o3"))


def test_a_part_keeps_its_place_until_it_is_replaced(catalog):
    with catalog.write() as tx:
        placements.put(tx, P, {L1: O1, L2: O2})
        placements.put(tx, P, {L1: O3})
        placements.put(tx, P, {})
        assert placements.resolve(tx, P, [L1, L2, O1]) == {L1: O1, L2: O2}
        assert placements.resolve(tx, "other", [L1]) == {}
        placements.replace(tx, P, L1, old=O1, new=O3)
        assert placements.objects(tx, P) == {L1: O3, L2: O2}
    with pytest.raises(Conflict), catalog.write() as tx:
        placements.replace(tx, P, L1, old=O1, new=O2)
    with pytest.raises(InvalidInput), catalog.write() as tx:
        placements.put(tx, P, {"part": O1})
    with catalog.write() as tx:
        placements.forget(tx, P, [L1])
        assert placements.objects(tx, P) == {L2: O2}


def test_many_parts_are_resolved(catalog):
    placed = {object_id(b"l%d" % n): object_id(b"o%d" % n) for n in range(1200)}
    with catalog.write() as tx:
        placements.put(tx, P, placed)
        assert placements.resolve(tx, P, list(placed)) == placed


def test_the_objects_of_a_manifest_and_what_a_sweep_must_keep(sqlite_catalog):
    manifest = {"files": {"a/b": O1}, "object": O2, "deep": [{"profile": O3, "object": ""}], "delta": L1, "n": 3}
    assert set(placements.objects_of(manifest)) == {O1, O2, O3}
    with sqlite_catalog.write() as tx:
        versions.put(tx, P, Version("value", "v", manifest), actor="ada", at=1)
        placements.put(tx, P, {L2: object_id(b"o4")})
        assert placements.reachable(tx, P) == {O1, O2, O3, L1, object_id(b"o4")}
        assert placements.reachable(tx, "other") == set()
