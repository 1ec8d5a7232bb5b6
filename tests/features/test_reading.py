"""Views over views: the oracle, batch, rows pushed as they become known, rows filled; equal to the last bit."""

import polars as pl
import pytest
from feature_cases import SCHEMA, START, chains
from feature_oracle import answer
from hypothesis import given, settings
from test_parity import bits

from everloop.core.clock import DAY, HOUR
from everloop.core.errors import DataError, DefinitionError, InvalidInput
from everloop.core.version import Version
from everloop.features import definitions as el
from everloop.features.batch.filling import materialize
from everloop.features.batch.history import history
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef, by_dataset
from everloop.features.online import OnlineService, OnlineView, advance, lookup, watermark
from everloop.features.reading import LATE_READS, push_all
from everloop.features.states.keys import entity_key

CASES, MANY = 20, 2_000


def read(view, rows):
    """The rows of a view over views, each with what the oracle says of the views that it reads."""
    whole = []
    for row in rows:
        if row["event"] is None or row["known"] is None:
            continue
        more = {}
        for one in view.reads:
            entity = tuple(row[name] for name in one.entity)
            found = dict(zip(one.outputs, (f.empty for f in one.features), strict=True))
            if None not in entity:
                told = answer(one, read(one, rows) if one.reads else rows, entity, row["known"])
                found = dict(zip(one.outputs, told.values(), strict=True))
            more |= found
        whole.append(row | more)
    return whole


def expected(view, rows, questions):
    whole = read(view, rows)
    return [
        bits([f.empty for f in view.features] if entity is None else answer(view, whole, (entity,), at).values())
        for entity, at in questions
    ]


def written(rows, path):
    frame = pl.DataFrame(rows, schema=SCHEMA)
    frame.with_columns(pl.col("event", "known").cast(pl.Datetime("us"))).write_parquet(path)
    return path


def batch(view, questions, path):
    column = SCHEMA[view.entity[0]]
    entities, times = zip(*questions, strict=True)
    spine = pl.DataFrame({view.entity[0]: entities, "asked": times}, schema={view.entity[0]: column, "asked": pl.Int64})
    frame = history(FeatureServiceDef("s", [view]), spine, {"facts": path}, at="asked", threads=1)
    return [bits(row) for row in frame.select(view.outputs).iter_rows()]


def chain_of(view, scope="chain"):
    """The view and all that it reads, ready to push to, the view itself last."""
    top = OnlineView.of(scope, Version("view", view.name, view.manifest()).id, view)

    def below(one):
        return [*(v for read in one.reads for v in below(read)), one]

    return list({v.space: v for v in below(top)}.values())


def states(store, view, rows):
    names = {entity_key([row[view.view.entity[0]]]) for row in rows} - {None}
    keys = [kind + name for kind in (b"s", b"i") for name in sorted(names)]
    return store.read([(view.space, keys)])[0]


def filled(store, views, path, up_to=2**60):
    for view in views:
        materialize(store, view, path, up_to, others={"facts": path}, threads=1)


def check(case, store, folder):
    view, rows, questions = case.view, case.rows, case.questions
    right = expected(view, rows, questions)
    path = written(rows, folder / "chained.parquet")
    assert batch(view, questions, path) == right

    made, pushed, late = (chain_of(view, scope) for scope in ("filled", "pushed", "late"))
    for one in (*made, *pushed, *late):
        store.drop(one.space)
    filled(store, made[-1:], path)
    right_bytes = states(store, made[-1], rows)
    nothing = written([], folder / "nothing.parquet")
    for view_below in (v for v in (*pushed, *late) if not v.view.reads):
        advance(store, view_below, -(2**60))
    in_time = [r for r in rows if r["event"] is not None and r["known"] is not None]
    filled(store, [v for v in pushed if v.view.reads], nothing, -(2**60))
    for known in sorted({r["known"] for r in in_time}):
        push_all(store, pushed, [r for r in in_time if r["known"] == known])
    assert states(store, pushed[-1], rows) == right_bytes
    assert store.read([(pushed[-1].space, [LATE_READS])]) == [[None]]
    # in any order: a filling adds what came too late, and makes anew what was looked up too early
    filled(store, [v for v in late if v.view.reads], nothing, -(2**60))
    for delivered in case.batches:
        push_all(store, late, delivered)
    filled(store, late[-1:], path)
    assert states(store, late[-1], rows) == right_bytes

    service = OnlineService.of("filled", FeatureServiceDef("s", [view]), {view.name: made[-1].space.split("/")[-1]})
    for (entity, at), answered in zip(questions, right, strict=True):
        try:
            [found] = lookup(store, service, [{view.entity[0]: entity}], at)
        except InvalidInput:
            continue  # before the horizon
        assert bits(found.values()) == answered


@pytest.mark.timeout(1200)
@settings(max_examples=CASES)
@given(case=chains())
def test_oracle_batch_and_online_are_equal(case, stores, tmp_path_factory):
    for store in stores:
        check(case, store, tmp_path_factory.getbasetemp())


def test_a_fact_that_is_new_only_in_the_middle_of_a_chain_makes_the_top_late(stores):
    """Below it is a known one: there rows 0 and 3 are the same fact, which came in time."""
    below = FeatureViewDef("v", "facts", "place", [el.count(over="1m")], "event", "known")
    middle = FeatureViewDef(
        "w", "facts", "id", [el.count(over="1m"), el.mean("v__count_1m", over="1m")], "event", "known", reads=[below]
    )
    top = FeatureViewDef("u", "facts", "kind", [el.mean("w__count_1m", over="1m")], "event", "known", reads=[middle])
    row = {"place": "a", "event": START, "x": None, "y": None, "kind": "a"}
    first, late = {**row, "id": 0, "known": START}, {**row, "id": 3, "known": START}
    for store in stores:
        views = chain_of(top, "middle")
        for view in views:
            store.drop(view.space)
            advance(store, view, -(2**60))
        push_all(store, views, [first, {**late, "known": START + 1}])
        assert store.read([(views[-1].space, [LATE_READS])]) == [[None]]
        push_all(store, views, [late])
        assert store.read([(view.space, [LATE_READS]) for view in views]) == [[None], [None], [b"1"]]


@pytest.mark.slow
@pytest.mark.timeout(3 * 60 * 60)
@settings(max_examples=MANY)
@given(case=chains())
def test_oracle_batch_and_online_are_equal_many_times(case, stores, tmp_path_factory):
    for store in stores:
        check(case, store, tmp_path_factory.getbasetemp())


ROWS = [
    {
        "id": i,
        "place": "ab"[i % 2],
        "event": START + i * HOUR,
        "known": START + i * HOUR + 1,
        "x": float(i),
        "y": i,
        "kind": "k",
    }
    for i in range(8)
]
LOAD = FeatureViewDef(
    "load", "facts", "place", [el.count(over="1d"), el.last("x"), el.last_k("x", 2)], "event", "known", "id"
)
TREND = FeatureViewDef(
    "trend", "facts", "kind", [el.max("load__count_1d", over="20d", scale=0), el.count(over="1d")],
    "event", "known", "id", reads=[LOAD],
)  # fmt: skip


def test_a_row_has_the_features_that_were_known_when_it_became_known(tmp_path):
    path = written(ROWS, tmp_path / "rows.parquet")
    spine = pl.DataFrame({"kind": ["k", "k"], "asked": [START + 3 * HOUR + 2, START + DAY]})
    frame = history(FeatureServiceDef("s", [TREND]), spine, {"facts": path}, at="asked")
    # the fourth row became known when its place had one earlier row; the last ones when it had three
    assert frame["trend__load__count_1d_max_20d"].to_list() == [1.0, 3.0]
    assert frame["trend__count_1d"].to_list() == [4, 8]


def test_late_facts_are_noted_and_the_next_filling_makes_the_view_anew(online, tmp_path):
    views = chain_of(TREND, "noted")
    path = written(ROWS, tmp_path / "rows.parquet")
    filled(online, views, written([], tmp_path / "none.parquet"), START)
    push_all(online, views, [r for r in ROWS if r["id"] != 1])
    assert online.read([(views[-1].space, [LATE_READS])]) == [[None]]
    push_all(online, views, ROWS)
    assert online.read([(views[-1].space, [LATE_READS])]) != [[None]]
    before = states(online, views[-1], ROWS)
    filled(online, views, path)
    right = chain_of(TREND, "right")
    filled(online, right, path)
    assert before != states(online, right[-1], ROWS) == states(online, views[-1], ROWS)
    assert online.read([(views[-1].space, [LATE_READS])]) == [[None]]


def test_a_filling_goes_on_where_the_last_one_stopped_and_begins_again_for_rows_of_the_past(online, tmp_path):
    (*_, view) = views = chain_of(TREND, "goes on")
    old, new, late = (
        written(part, tmp_path / f"{i}.parquet") for i, part in enumerate((ROWS[:4], ROWS[5:], ROWS[4:5]))
    )
    up_to = START + 4 * HOUR
    filled(online, views, old, up_to)
    done = materialize(online, view, [old, new], 2**60)
    assert (done.facts, done.new, watermark(online, view)) == (3, 3, 2**60)
    done = materialize(online, view, [old, new, late], 2**60)
    assert (done.facts, done.new) == (8, 8)


def test_rows_are_left_to_a_filling_where_what_they_read_is_not_there(online):
    elsewhere = FeatureViewDef("far", "weather", "place", [el.last("x")], "event", "known")
    other = FeatureViewDef(
        "near", "facts", "kind", [el.max("far__x_last", over="1d")], "event", "known", reads=[elsewhere]
    )
    assert by_dataset([other]) == {
        "facts": ("kind", "event", "known", "place"), "weather": ("place", "event", "known", "x")
    }  # fmt: skip
    for view in (TREND, other):
        views = chain_of(view, "left")
        push_all(online, [v for v in views if v.view.source == "facts"], ROWS)
        assert states(online, views[-1], ROWS) == [None, None]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"features": [el.max("load__nothing", over="1h")]}, "which load does not have"),
        ({"features": [el.last("load__x_last_2")]}, "which is a list"),
        ({"entity": "load__count_1d"}, "is a feature"),
        ({"reads": [LOAD, LOAD]}, "twice, or itself"),
        ({"name": "load"}, "twice, or itself"),
        ({"reads": [FeatureViewDef("early", "facts", "place", [el.count(over="1h")])]}, "no event time"),
    ],
)
def test_what_cannot_be_read_is_refused(more, error):
    said = {"name": "v", "source": "facts", "entity": "kind", "features": [el.count(over="1h")], "reads": [LOAD]}
    with pytest.raises(DefinitionError, match=error):
        FeatureViewDef(**(said | more))


def test_a_manifest_holds_what_a_view_reads():
    assert FeatureViewDef.from_manifest("trend", TREND.manifest()) == TREND
    assert chain_of(TREND)[0].space.endswith(Version("view", "load", LOAD.manifest()).id)


def test_a_row_without_the_entity_of_what_it_reads_is_refused(online, tmp_path):
    path = tmp_path / "rows.parquet"
    pl.DataFrame(ROWS).drop("place").write_parquet(path)
    with pytest.raises(DataError, match="place"):
        materialize(online, chain_of(TREND, "wrong")[-1], path, 2**60, others={"facts": path})
