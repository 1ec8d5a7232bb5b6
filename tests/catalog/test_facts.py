"""Facts; one suite over both databases."""

import pytest

from everloop.catalog import facts
from everloop.catalog.chain import seal
from everloop.catalog.facts import Fact
from everloop.core.clock import ReplayClock, SystemClock
from everloop.core.errors import InvalidInput
from everloop.core.ids import object_id

P = "flights"


def test_a_fact_is_followed_by_position_once_it_is_sealed(catalog):
    with catalog.write() as tx:
        facts.append(tx, P, Fact("change.merged", "production", "ada", 7, {"delta": 0.5, "é": [1, None]}, recorded=8))
        assert facts.unsealed(tx) == 1
        assert facts.since(tx, P, 0) == facts.tail(tx, P) == []
    assert seal(catalog, SystemClock()) == 1
    with catalog.read() as tx:
        (fact,) = facts.since(tx, P, 0)
        assert facts.since(tx, P, fact.position) == facts.since(tx, "other", 0) == []
        assert facts.heads(tx) == {P: 1}
        assert facts.unsealed(tx) == 0
    assert (fact.position, fact.kind, fact.subject, fact.actor, fact.at, fact.recorded) == (
        1, "change.merged", "production", "ada", 7, 8,
    )  # fmt: skip
    assert fact.payload == {"delta": 0.5, "é": [1, None]}
    assert fact.payload_digest == object_id('{"delta":0.5,"é":[1,null]}'.encode())


def test_the_sealer_gives_wall_time_where_the_writer_gave_none(catalog):
    before = SystemClock().wall()
    with catalog.write() as tx:
        facts.append(tx, P, Fact("a.b", "s", "ada", at=7))
    seal(catalog, ReplayClock(7))
    with catalog.read() as tx:
        (fact,) = facts.since(tx, P, 0)
    assert fact.at == 7
    assert before <= fact.recorded <= SystemClock().wall()


def test_the_tail_is_filtered_and_paged(catalog):
    kinds = ["change.merged", "change.opened", "changed", "alarm.opened", "change"]
    with catalog.write() as tx:
        facts.append_many(tx, P, [Fact(kind, f"s{n}", "ada", n) for n, kind in enumerate(kinds * 2)])
        facts.append_many(tx, P, [])
    seal(catalog, SystemClock())

    def shown(**how):
        with catalog.read() as tx:
            return [fact.position for fact in facts.tail(tx, P, **how)]

    assert shown() == list(range(10, 0, -1))
    assert shown(kinds=["change.*"]) == [7, 6, 2, 1]
    assert shown(kinds=["change.merged", "alarm.*"]) == [9, 6, 4, 1]
    assert shown(kinds=["change"]) == [10, 5]
    assert shown(subject="s3") == [4]
    assert shown(limit=2, before=6) == [5, 4]


@pytest.mark.parametrize("payload", [{"x": float("nan")}, {"x": float("inf")}, {"x": b"bytes"}, {"x": {1, 2}}])
def test_what_json_cannot_say_is_refused(sqlite_catalog, payload):
    with pytest.raises(InvalidInput) as caught, sqlite_catalog.write() as tx:
        facts.append(tx, P, Fact("a.b", "s", "ada", 1, payload))
    assert caught.value.hint
