from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from everloop.core.clock import micros
from everloop.core.errors import DataError
from everloop.features import definitions as el
from everloop.features.batch import history as module
from everloop.features.batch.history import history
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef

NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)


def service(*features, entity="origin", **more):
    view = FeatureViewDef("v", "flights", entity, features, event_time="event", known_time="known", key="id", **more)
    return FeatureServiceDef("s", [view])


def flights(path, rows, **types):
    frame = pl.DataFrame(rows, infer_schema_length=None).with_row_index("id")
    frame.with_columns(pl.col(n).cast(t) for n, t in types.items()).write_parquet(path)
    return {"flights": path}


def asked(*times, origin="JFK"):
    return pl.DataFrame({"origin": [origin] * len(times), "at": list(times)})


def test_a_fact_counts_from_the_moment_it_is_known(tmp_path):
    known = NOON + timedelta(hours=2)
    sources = flights(tmp_path / "f", [{"origin": "JFK", "event": NOON, "known": known, "delay": 7.5}])
    spine = asked(NOON, known, known + timedelta(microseconds=1), NOON + timedelta(hours=4))
    frame = history(service(el.mean("delay", over="3h"), el.last("delay")), spine, sources, at="at")
    assert frame["v__delay_mean_3h"].to_list() == [None, None, 7.5, None]
    assert frame["v__delay_last"].to_list() == [None, None, 7.5, 7.5]


def test_zones_dates_and_units_are_the_same_moment(tmp_path):
    rows = [{"origin": "JFK", "event": NOON, "known": NOON}]
    at = [NOON + timedelta(minutes=1)]
    spines = [
        asked(*at),
        asked(*at).with_columns(pl.col("at").dt.convert_time_zone("America/New_York")),
        asked(*at).with_columns(pl.col("at").dt.replace_time_zone(None).cast(pl.Datetime("ms"))),
        asked(*at).with_columns(pl.col("at").cast(pl.Datetime("ns", "UTC"))),
        asked(micros(at[0])),
    ]
    for event_type in (pl.Datetime("us", "America/New_York"), pl.Datetime("ns"), pl.Datetime("ms"), pl.Int64):
        sources = flights(tmp_path / "f", rows, event=event_type, known=event_type)
        for spine in spines:
            frame = history(service(el.count(over="1h")), spine, sources, at="at")
            assert frame["v__count_1h"].to_list() == [1]
    sources = flights(tmp_path / "f", rows, event=pl.Date, known=pl.Date)
    frame = history(service(el.count(over="1h")), asked(date(2013, 6, 1)), sources, at="at")
    assert frame["v__count_1h"].to_list() == [0]
    assert frame["at"].dtype == pl.Date


def test_as_many_rows_out_as_in_and_in_order(tmp_path):
    rng = np.random.default_rng(5)
    rows = [{"origin": o, "event": NOON, "known": NOON, "x": i} for i, o in enumerate(["JFK", "EWR", "JFK"])]
    sources = flights(tmp_path / "f", rows)
    spine = pl.DataFrame(
        {
            "row": range(500),
            "origin": rng.choice(["JFK", "EWR", "nowhere", None], 500).tolist(),
            "at": [NOON + timedelta(hours=int(h)) for h in rng.integers(-3, 9, 500)],
        }
    )
    frame = history(service(el.sum("x", over="2h"), el.last("x", ttl="1h")), spine, sources, at="at")
    assert frame.select(spine.columns).equals(spine)
    known_places = frame.filter(pl.col("origin").is_null() | (pl.col("origin") == "nowhere"))
    assert known_places["v__x_sum_2h"].unique().to_list() == [0.0]
    assert known_places["v__x_last"].null_count() == len(known_places)


def test_composite_and_integer_entities(tmp_path):
    rows = [
        {"origin": "JFK", "number": 7, "event": NOON, "known": NOON},
        {"origin": "JFK", "number": 8, "event": NOON, "known": NOON},
        {"origin": None, "number": 8, "event": NOON, "known": NOON},
    ]
    sources = flights(tmp_path / "f", rows)
    later = NOON + timedelta(minutes=1)
    spine = pl.DataFrame({"number": [8, 9, None], "origin": ["JFK"] * 3, "at": [later] * 3})
    frame = history(service(el.count(over="1h"), entity=("origin", "number")), spine, sources, at="at")
    assert frame["v__count_1h"].to_list() == [1, 0, 0]
    spine = spine.with_columns(pl.col("origin").cast(pl.Categorical))
    assert history(service(el.count(over="1h")), spine, sources, at="at")["v__count_1h"].to_list() == [2, 2, 2]


def test_many_files_views_and_a_dataset_without_files(tmp_path):
    rows = [{"origin": "JFK", "event": NOON, "known": NOON, "x": float(i)} for i in range(4)]
    frame = pl.DataFrame(rows).with_row_index("id")
    files = [tmp_path / f"{i}.parquet" for i in range(4)]
    for i, file in enumerate(files):
        frame.slice(i, 1).write_parquet(file)
    one = service(el.max("x", over="1h")).views[0]
    other = FeatureViewDef("w", "nothing", "origin", [el.count(over="1h"), el.min("x", over="1h")], event_time="event")
    found = history(
        FeatureServiceDef("s", [one, other]),
        asked(NOON + timedelta(minutes=1)),
        {"flights": files, "nothing": []},
        at="at",
    )
    assert found.row(0)[2:] == (3.0, 0, None)


def test_entity_by_entity_gives_the_same(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    rows = [
        {
            "origin": o,
            "event": NOON + timedelta(minutes=int(m)),
            "known": NOON + timedelta(minutes=int(m)),
            "x": float(m),
        }
        for o, m in zip(rng.choice(list("abcdef"), 300), rng.integers(0, 600, 300), strict=True)
    ]
    sources = flights(tmp_path / "f", rows)
    at = [NOON + timedelta(minutes=int(m)) for m in rng.integers(0, 700, 200)]
    spine = pl.DataFrame({"origin": rng.choice(list("abcdefg"), 200).tolist(), "at": at})
    which = service(el.mean("x", over="1h"), el.min("x", over="2h"), el.last("x"), el.count(over="1d"))
    whole = history(which, spine, sources, at="at")
    for limit in (1, 70, 170):
        monkeypatch.setattr(module, "FACTS_AT_ONCE", limit)
        assert history(which, spine, sources, at="at").equals(whole)


def test_sums_do_not_overflow(tmp_path):
    rows = [{"origin": "JFK", "event": NOON, "known": NOON, "x": 2**62} for _ in range(9)]
    frame = history(
        service(el.sum("x", over="1h", scale=0), el.mean("x", over="1h", scale=0)),
        asked(NOON + timedelta(minutes=1)),
        flights(tmp_path / "f", rows),
        at="at",
    )
    assert frame.row(0)[2:] == (float(9 * 2**62), float(2**62))


def test_booleans_decimals_and_small_integers_can_be_used(tmp_path):
    rows = [{"origin": "JFK", "event": NOON, "known": NOON, "late": i > 0, "d": i, "n": i} for i in range(3)]
    sources = flights(tmp_path / "f", rows, d=pl.Decimal(10, 2), n=pl.UInt8)
    which = service(el.mean("late", over="1h"), el.sum("d", over="1h"), el.max("n", over="1h"))
    assert history(which, asked(NOON + timedelta(minutes=1)), sources, at="at").row(0)[2:] == (2 / 3, 3.0, 2.0)


def wrong_spine(**columns):
    return pl.DataFrame({"origin": ["JFK"], "at": [NOON + timedelta(hours=1)]} | columns)


@pytest.mark.parametrize(
    ("which", "spine", "told"),
    [
        (service(el.count(over="1h")), wrong_spine(at=[None]), "have no time"),
        (service(el.count(over="1h")), wrong_spine(at=["noon"]), "time column 'at' is String"),
        (service(el.count(over="1h")), wrong_spine(v__count_1h=[1]), "already has a column"),
        (service(el.count(over="1h")), wrong_spine(origin=[1]), "'origin' is Int64 in the spine and VARCHAR"),
        (service(el.count(over="1h")), wrong_spine().drop("origin"), "no column 'origin'"),
        (service(el.sum("nothing", over="1h")), wrong_spine(), "no column 'nothing'"),
        (service(el.sum("text", over="1h")), wrong_spine(), "needs numbers"),
        (service(el.sum("x", over="1h")), wrong_spine(), "does not fit 64 bits at scale 6"),
        (service(el.sum("several", over="1h")), wrong_spine(), r"'several' is DOUBLE\[\]"),
        (service(el.count(over="1h", where=("text", "==", 1))), wrong_spine(), "compares text with a number"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(which, spine, told, tmp_path):
    row = {"origin": "JFK", "event": NOON, "known": NOON, "text": "t", "x": float("inf"), "several": [1.0]}
    sources = flights(tmp_path / "f", [row])
    with pytest.raises(DataError, match=told):
        history(which, spine, sources, at="at")


def test_broken_and_missing_files_are_data_errors(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    for path in (tmp_path / "broken.parquet", tmp_path / "missing.parquet"):
        with pytest.raises(DataError, match="cannot be read"):
            history(service(el.count(over="1h")), wrong_spine(), {"flights": path}, at="at")
    with pytest.raises(DataError, match="no files for dataset"):
        history(service(el.count(over="1h")), wrong_spine(), {}, at="at")


def test_empty_spines_and_empty_sources(tmp_path):
    sources = flights(tmp_path / "f", [{"origin": "JFK", "event": NOON, "known": NOON, "x": 1.0}])
    which = service(el.count(over="1h"), el.last("x"))
    nothing = history(which, wrong_spine().clear(), sources, at="at")
    assert nothing.schema["v__count_1h"] == pl.Int64
    assert nothing.schema["v__x_last"] == pl.Float64
    assert len(nothing) == 0
    pl.read_parquet(tmp_path / "f").clear().write_parquet(tmp_path / "f")
    assert history(which, wrong_spine(), sources, at="at").row(0)[2:] == (0, None)
