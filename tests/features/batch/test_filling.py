import polars as pl
import pytest

from everloop.core.clock import HOUR, SECOND
from everloop.features import definitions as el
from everloop.features.batch.filling import materialize
from everloop.features.definitions import FeatureViewDef
from everloop.features.online import OnlineView, watermark
from everloop.features.states.keys import entity_key

START = 1_370_000_000 * SECOND
KEYS = [kind + entity_key([place]) for kind in (b"s", b"i") for place in "abcde"]


def view_of(identity):
    features = (el.count(over="7d"), el.mean("x", over="7d"), el.last("x"), el.top_k("kind", 2, over="7d"))
    definition = FeatureViewDef("v", "facts", "place", features, event_time="event", known_time="known", key="id")
    return OnlineView.of("p", identity, definition)


def parts(folder, count=3, rows=40):
    paths = []
    for part in range(count):
        ids = range(part * rows, (part + 1) * rows)
        event = [START + i * HOUR for i in ids]
        facts = {"id": list(ids), "place": ["abcde"[i % 5] for i in ids], "event": event, "known": event}
        facts |= {"x": [i / 4 for i in ids], "kind": ["uvw"[i % 3] for i in ids]}
        path = folder / f"part{part}.parquet"
        pl.DataFrame(facts).write_parquet(path)
        paths.append(path)
    return paths


class Breaking:
    """A store whose writes fail after a while, as when the process dies."""

    def __init__(self, store, writes):
        self._store, self._left = store, writes

    def __getattr__(self, name):
        return getattr(self._store, name)

    def write(self, space, items):
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        self._store.write(space, items)


@pytest.fixture
def whole(online, tmp_path):
    view = view_of("whole")
    online.drop(view.space)
    materialize(online, view, parts(tmp_path), 2**60)
    return online.read([(view.space, KEYS)])[0]


def test_a_backfill_that_died_goes_on_where_it_stopped(online, tmp_path, whole):
    view, paths = view_of("resumed"), parts(tmp_path)
    online.drop(view.space)
    with pytest.raises(KeyboardInterrupt):
        materialize(Breaking(online, 3), view, paths, 2**60)
    assert watermark(online, view) is None
    done = materialize(online, view, paths, 2**60)
    assert done.facts == 80  # the first part was done: its facts are not read again
    assert online.read([(view.space, KEYS)])[0] == whole
    assert watermark(online, view) == 2**60


def test_only_new_parts_and_what_became_known_are_read(online, tmp_path, whole):
    view, paths = view_of("grown"), parts(tmp_path)
    online.drop(view.space)
    assert materialize(online, view, paths[:2], START + 50 * HOUR).facts == 50
    assert materialize(online, view, paths[:2], START + 50 * HOUR).facts == 0
    assert materialize(online, view, paths, 2**60).facts == 70
    assert online.read([(view.space, KEYS)])[0] == whole
    assert materialize(online, view, paths, 2**60, again=True).new == 0


def test_a_file_that_changed_is_another_part(online, tmp_path, whole):
    view, paths = view_of("changed"), parts(tmp_path)
    online.drop(view.space)
    materialize(online, view, paths, 2**60)
    more = pl.concat([pl.read_parquet(paths[0]), pl.read_parquet(paths[1])])
    more.write_parquet(paths[0])
    assert materialize(online, view, paths, 2**60).facts == 80
    assert online.read([(view.space, KEYS)])[0] == whole


def test_parts_of_two_schemas_are_read_together(online, tmp_path):
    view, paths = view_of("schemas"), parts(tmp_path)
    online.drop(view.space)
    pl.read_parquet(paths[1]).drop("kind").write_parquet(paths[1])
    assert materialize(online, view, paths, 2**60).facts == 120
