import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from everloop.core.clock import DAY, HOUR, MINUTE, micros
from everloop.core.errors import CorruptObject, DataError, InvalidInput
from everloop.features import definitions as el
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef
from everloop.features.online import (
    OnlineService,
    OnlineView,
    advance,
    find_columns,
    lookup,
    push,
    watermarks,
)
from everloop.features.states.keys import entity_key
from everloop.features.stores.lmdb import LmdbStore

HERE = str(Path(__file__).parent)
NOON = micros(datetime(2013, 6, 1, 12, tzinfo=UTC))
FEATURES = (el.count(over="1h"), el.sum("x", over="1h"), el.max("x", over="14h"), el.last("x", ttl="2h"))


@pytest.fixture
def view(online):
    made = view_of()
    online.drop(made.space)
    return made


def view_of(*features, identity="1", **more):
    definition = FeatureViewDef(
        "v", "f", "place", features or FEATURES, event_time="event", known_time="known", key="id", **more
    )
    return OnlineView.of("p", identity, definition)


def ask(store, view, at, place="a"):
    service = OnlineService.of("p", FeatureServiceDef("s", [view.view]), {"v": view.space.partition("/")[2]})
    [found] = lookup(store, service, [{"place": place}], at)
    return tuple(found.values())


def fact(identity, event, known=None, x=1.0, place="a"):
    return {"id": identity, "event": event, "known": event if known is None else known, "x": x, "place": place}


def test_push_and_look_up(online, view):
    done = push(online, view, [fact(1, NOON, x=2.5), fact(2, NOON + MINUTE, x=-1.0), fact(3, NOON, place="b")])
    assert (done.facts, done.new, done.entities) == (3, 3, 2)
    assert ask(online, view, NOON + 2 * MINUTE) == (2, 1.5, 2.5, -1.0)
    assert ask(online, view, NOON + 2 * MINUTE, "b") == (1, 1.0, 1.0, 1.0)
    assert ask(online, view, NOON + 2 * MINUTE, "c") == (0, 0.0, None, None)
    assert ask(online, view, NOON + 2 * MINUTE, None) == (0, 0.0, None, None)


def test_what_is_not_known_yet_does_not_count(online, view):
    push(online, view, [fact(1, NOON, NOON + HOUR)])
    assert ask(online, view, NOON + HOUR) == (0, 0.0, None, None)
    assert ask(online, view, NOON + HOUR + 1)[0] == 1


def test_age_is_checked_on_read(online, view):
    push(online, view, [fact(1, NOON)])
    assert ask(online, view, NOON + 2 * HOUR)[3] == 1.0
    assert ask(online, view, NOON + 2 * HOUR + 1)[3] is None


def test_redelivery_changes_nothing_even_after_a_fold(online, view):
    first = [fact(i, NOON + i * MINUTE) for i in range(30)]
    push(online, view, first)
    push(online, view, [fact(99, NOON + 25 * HOUR)])
    keys = [kind + entity_key(["a"]) for kind in (b"s", b"i")]
    before = online.read([(view.space, keys)])[0]
    again = push(online, view, [*reversed(first), fact(99, NOON + 25 * HOUR)])
    assert online.read([(view.space, keys)])[0] == before
    assert again.facts == 31


def test_the_past_is_refused_rather_than_answered_wrongly(online, view):
    push(online, view, [fact(1, NOON), fact(2, NOON + 3 * DAY)])
    with pytest.raises(InvalidInput, match="only from 2013-06-03T12:00:00Z on"):
        ask(online, view, NOON + MINUTE)
    assert ask(online, view, NOON + 3 * DAY + 1) == (1, 1.0, 1.0, 1.0)


def test_columns_and_rows_and_forms_of_time_are_the_same(online):
    new_york = timezone(timedelta(hours=-4))
    rows = [fact(1, NOON, x=0.5), fact(2, NOON + MINUTE, x=2.0)]
    columns = {
        "id": np.array([1, 2], np.int32),
        "event": ["2013-06-01T08:00:00-04:00", "2013-06-01T12:01:00"],
        "known": [datetime(2013, 6, 1, 8, tzinfo=new_york), datetime(2013, 6, 1, 12, 1, tzinfo=UTC)],
        "x": [Decimal("0.5"), 2],
        "place": np.array(["a", "a"], object),
    }
    moments = {
        **columns,
        "event": np.array([NOON, NOON + MINUTE], "datetime64[us]"),
        "x": np.array([0.5, 2], np.float32),
    }
    states = []
    for number, given in enumerate([rows, columns, moments]):
        view = view_of(identity=f"form{number}")
        push(online, view, given)
        states.append(online.read([(view.space, [b"s" + entity_key(["a"])])])[0])
    assert states[0] == states[1] == states[2]


def test_facts_without_entity_or_time_are_passed_over(online, view):
    unknown = {**fact(2, NOON), "known": None}
    done = push(online, view, [fact(1, NOON, place=None), unknown])
    assert done.new == 0
    assert ask(online, view, NOON + 1) == (0, 0.0, None, None)
    assert push(online, view, []).facts == 0


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"id": 1}, "has no column"),
        (fact(1, NOON, x="ten"), "needs numbers"),
        (fact(1, "noon"), "not a time"),
        (fact(1, NOON, x=1e13), "does not fit 64 bits at scale 6"),
        (fact(1, NOON, place=1.5), "entity column"),
        (fact(2**70, NOON), "does not fit into 64 bits"),
        (fact([1], NOON), "it holds list"),
    ],
)
def test_a_wrong_fact_is_refused_and_nothing_of_its_push_is_kept(online, view, row, told):
    with pytest.raises(DataError, match=told):
        push(online, view, [row])
    with pytest.raises(DataError):
        push(online, view, [fact(7, NOON), row])
    assert ask(online, view, NOON + 1)[0] == 0


def test_a_fact_from_the_future_would_close_the_past_so_it_is_refused(online, view):
    with pytest.raises(DataError, match="after the time of the push"):
        push(online, view, [fact(1, NOON, NOON + 3 * DAY)], now=NOON)
    push(online, view, [fact(1, NOON + 3 * DAY, NOON)], now=NOON)
    assert ask(online, view, NOON + 3 * DAY + 1)[0] == 1


def test_composite_and_long_entities_have_their_own_keys():
    keys = [entity_key(v) for v in (["a", "b"], ["ab"], ["a", "b", ""], ["", "ab"], [1, 2], ["1", "2"], [12], ["12"])]
    assert len(set(keys)) == len(keys)
    assert entity_key([None, "a"]) is None
    assert len(entity_key(["x" * 1000])) <= 400
    with pytest.raises(InvalidInput):
        entity_key([1.5])


def test_a_request_without_its_entity_is_refused(online, view):
    service = OnlineService.of("p", FeatureServiceDef("s", [view.view]), {"v": "1"})
    with pytest.raises(InvalidInput, match="needs the entity 'place'"):
        lookup(online, service, [{"elsewhere": "a"}], NOON)


def test_garbage_in_the_store_is_not_an_answer(view):
    for packed in (b"", bytes(8), bytes(80), bytes(1000)):
        with pytest.raises(CorruptObject):
            view.decode(packed, NOON)


def test_watermarks_only_rise(online, view):
    service = OnlineService.of("p", FeatureServiceDef("s", [view.view]), {"v": "1"})
    assert watermarks(online, service.views) == [None]
    advance(online, view, NOON)
    advance(online, view, NOON - 1)
    assert watermarks(online, service.views) == [NOON]


def test_a_service_is_prepared_from_manifests_alone(online, view):
    push(online, view, [fact(1, NOON)])
    definition = FeatureServiceDef("s", [view.view], request=["distance"])
    manifest = definition.manifest({"v": "1"})
    service = OnlineService.from_manifest("p", "s", manifest, {"1": view.view.manifest()})
    assert lookup(online, service, [{"place": "a"}], NOON + 1)[0]["v__count_1h"] == 1
    assert service.service.columns[0] == "distance"


PUSHER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_online as t
from everloop.features.stores.lmdb import LmdbStore
from everloop.features.online import push
store, part = LmdbStore(Path(sys.argv[1])), int(sys.argv[3])
for i in range(part, 400, 2):
    push(store, t.view_of(), [t.fact(i, t.NOON + i * 1000)])
"""


def test_two_processes_push_into_one_space_and_lose_nothing(tmp_path):
    args = [sys.executable, "-c", PUSHER, str(tmp_path), HERE]
    both = [subprocess.Popen([*args, str(part)]) for part in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    store = LmdbStore(tmp_path)
    assert ask(store, view_of(), NOON + MINUTE)[0] == 400
    store.close()


def test_a_killed_pusher_leaves_whole_batches(tmp_path):
    program = PUSHER.replace("range(part, 400, 2)", "range(part, 10**9, 2)") + "    print(i, flush=True)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), HERE, "0"], stdout=subprocess.PIPE, text=True
    )
    with process:
        told = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        told += [int(line) for line in process.stdout.read().splitlines()]
    again = LmdbStore(tmp_path)
    reached = ask(again, view_of(), NOON + HOUR - 1)[0]
    assert reached >= len(told)
    push(again, view_of(), [fact(i, NOON + i * 1000) for i in range(0, 2 * reached, 2)])
    assert ask(again, view_of(), NOON + HOUR - 1)[0] == reached
    again.close()


@pytest.mark.parametrize("places", [[], ["a"], ["a", None, "c"], ["a", "b"] * 30])
def test_a_look_up_by_column_is_one_by_row(online, view, places):
    push(online, view, [fact(1, NOON, x=2.5), fact(2, NOON + MINUTE, x=-1.0), fact(3, NOON, place="b")])
    advance(online, view, NOON + HOUR)
    service = OnlineService.of("p", FeatureServiceDef("s", [view.view]), {"v": view.space.partition("/")[2]})
    found = find_columns(online, service, {"place": places, "more": places}, NOON + 2 * MINUTE)
    rows = lookup(online, service, [{"place": place} for place in places], NOON + 2 * MINUTE)
    assert found.columns == {name: [row[name] for row in rows] for name in view.outputs}
    assert found.reached == (NOON + HOUR,)


@pytest.mark.parametrize(
    ("entities", "says"),
    [
        ({"other": ["a", "b"]}, "needs the entity 'place'"),
        ({"place": ["a", "b"], "other": ["a"]}, "different lengths"),
        ({"place": ["a", 1.5]}, "cannot be an entity"),
    ],
)
def test_a_look_up_by_column_says_what_is_wrong(online, view, entities, says):
    service = OnlineService.of("p", FeatureServiceDef("s", [view.view]), {"v": view.space.partition("/")[2]})
    with pytest.raises(InvalidInput, match=says):
        find_columns(online, service, entities, NOON)


def test_many_states_of_which_one_is_garbage_are_no_answer(view):
    for garbage in (b"\0" * 8, b"\0" * 9, b"\0" * 800):
        with pytest.raises(CorruptObject):
            view.several([None] * 50 + [garbage], NOON)
