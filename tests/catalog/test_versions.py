"""Versions, numbers and lineage; one suite over both databases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.catalog import versions
from everloop.catalog.versions import Edge
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.version import Version

P = "flights"
BY = {"actor": "ada", "at": 5}


def model(n, name="delay", inputs=()):
    return Version("model", name, {"n": n}, inputs)


def test_numbers_count_up_and_the_same_content_keeps_its_number(catalog):
    with catalog.write() as tx:
        given = [versions.put(tx, P, model(n), **BY) for n in (1, 2, 1, 3)]
    assert [(g.number, g.new) for g in given] == [(1, True), (2, True), (1, False), (3, True)]
    with catalog.read() as tx:
        rows = versions.history(tx, P, "model", "delay")
        assert [row.number for row in rows] == [3, 2, 1]
        assert [row.number for row in versions.history(tx, P, "model", "delay", before=3, limit=1)] == [2]
        row = versions.get(tx, P, model(2).id)
    assert (row.key, row.number, row.at, row.actor) == ("model/delay", 2, 5, "ada")
    assert row.manifest == {"schema": 1, "kind": "model", "n": 2}


def test_one_content_under_two_names_is_one_version_with_two_numbers(catalog):
    with catalog.write() as tx:
        versions.put(tx, P, model(0, "other"), **BY)
        versions.put(tx, P, model(1), **BY)
        again = versions.put(tx, P, model(1, "other"), actor="bob", at=9)
        assert again.id == model(1).id
        assert versions.known_as(tx, P, again.id) == [("model/delay", 1), ("model/other", 2)]
        assert versions.labels(tx, P, [again.id, model(0).id]) == {
            again.id: "model/delay v1",
            model(0).id: "model/other v1",
        }


def test_a_name_that_comes_back_starts_at_one(catalog):
    with catalog.write() as tx:
        for n in (1, 2):
            versions.put(tx, P, model(n), **BY)
        versions.retire(tx, P, "model", "delay")
        assert versions.names(tx, P, "model") == []
        assert versions.newest(tx, P, "model") == []
        assert versions.find(tx, P, "model/delay").number == 2  # what it was last
        back = versions.put(tx, P, model(2), **BY)
        assert (back.number, back.incarnation, back.new) == (1, 2, True)
        assert versions.find(tx, P, "model/delay@1").id == model(2).id  # of the newest incarnation
        assert versions.find(tx, P, "model/delay@2").incarnation == 1
        assert [row.number for row in versions.history(tx, P, "model", "delay")] == [1]
        with pytest.raises(NotFound):
            versions.retire(tx, P, "model", "nobody")


def test_every_way_to_name_a_version_finds_it(catalog):
    with catalog.write() as tx:
        versions.put_many(tx, P, [model(1), model(2)], **BY)
    with catalog.read() as tx:
        identity = model(1).id
        for spec in (identity, identity[:12], identity[3:15], "model/delay@1", "model/delay@v1"):
            assert versions.find(tx, P, spec).id == identity
        assert versions.find(tx, P, "model/delay").id == model(2).id
        for spec in ("model/delay@9", "model/nobody", "b3:" + "0" * 64, "b3:000000000"):
            with pytest.raises(NotFound) as caught:
                versions.find(tx, P, spec)
            assert caught.value.hint
        for spec in ("delay", "", "b3:12", "animal/cat", "model/delay@x"):
            with pytest.raises(InvalidInput) as caught:
                versions.find(tx, P, spec)
            assert caught.value.hint


def test_projects_do_not_see_each_other(catalog):
    with catalog.write() as tx:
        versions.put(tx, P, model(1), **BY)
    with catalog.read() as tx:
        with pytest.raises(NotFound):
            versions.get(tx, "other", model(1).id)
        assert versions.manifests(tx, "other", [model(1).id]) == {}
        assert versions.names(tx, "other", "model") == []
    with pytest.raises(NotFound), catalog.write() as tx:
        versions.put(tx, "other", model(2, inputs=(("data", model(1).id),)), **BY)


def test_lineage_is_walked_both_ways_and_once(catalog):
    a = Version("data", "a", {})
    b1, b2 = (Version("frame", f"b{n}", {"n": n}, (("data", a.id),)) for n in (1, 2))
    c = Version("model", "c", {}, (("left", b1.id), ("right", b2.id)))
    with catalog.write() as tx:
        versions.put_many(tx, P, [c, b2, b1, a], **BY)  # in any order
    with catalog.read() as tx:
        up = versions.upstream(tx, P, c.id)
        assert set(up) == {
            Edge(b1.id, c.id, "left"), Edge(b2.id, c.id, "right"), Edge(a.id, b1.id, "data"), Edge(a.id, b2.id, "data"),
        }  # fmt: skip
        assert len(up) == 4
        assert set(versions.upstream(tx, P, c.id, depth=1)) == {e for e in up if e.to_id == c.id}
        assert set(versions.downstream(tx, P, a.id)) == set(up)
        assert versions.upstream(tx, P, a.id) == versions.downstream(tx, P, c.id) == []


def test_an_input_that_is_not_there_is_refused_and_nothing_stays(catalog):
    with pytest.raises(NotFound, match="input"), catalog.write() as tx:
        versions.put(tx, P, model(1, inputs=(("data", "b3:" + "1" * 64),)), **BY)
    with catalog.read() as tx, pytest.raises(NotFound):
        versions.get(tx, P, model(1).id)


def test_many_versions_at_once(catalog):
    many = [model(n) for n in range(1200)]
    with catalog.write() as tx:
        assert [g.number for g in versions.put_many(tx, P, many, **BY)] == list(range(1, 1201))
        assert versions.put_many(tx, P, [], **BY) == []
    with catalog.read() as tx:
        assert len(versions.manifests(tx, P, [m.id for m in many])) == 1200


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), max_size=12))
def test_numbers_are_dense_for_any_history(sqlite_catalog, history):
    project = f"p{next(_fresh)}"
    expected = {}
    with sqlite_catalog.write() as tx:
        for name, n in history:
            known = expected.setdefault(name, [])
            if n not in known:
                known.append(n)
            assert versions.put(tx, project, model(n, name), **BY).number == known.index(n) + 1
        for name, known in expected.items():
            assert [r.manifest["n"] for r in versions.history(tx, project, "model", name)] == known[::-1]


_fresh = iter(range(10**9))
