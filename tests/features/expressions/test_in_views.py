from datetime import datetime

import polars as pl
import pytest

import everloop as el
from everloop.core.errors import DataError, DefinitionError
from everloop.core.version import Version
from everloop.features.batch.history import history
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef
from everloop.features.online import OnlineService, OnlineView, lookup, push

DAY = "2026-01-05"
REVENUE = el.col("price") * el.col("n", "int64")
FEATURES = [
    el.sum(REVENUE, over="1d", name="revenue", scale=2),
    el.count(over="1d", where=(el.col("price") > 5) & (el.col("kind") == "a"), name="large"),
    el.max(el.col("done", "time") - el.col("at", "time"), over="1d", name="slowest", scale=0),
]
VIEW = FeatureViewDef("v", "orders", "shop", FEATURES, event_time="at", known_time="at", key=("id",))
ROWS = [
    {
        "id": 1,
        "shop": "x",
        "at": "2026-01-05T10:00:00",
        "done": "2026-01-05T10:00:07Z",
        "price": 2.5,
        "n": 3,
        "kind": "a",
    },
    {"id": 2, "shop": "x", "at": f"{DAY}T11:00:00", "done": None, "price": 10, "n": 2.0, "kind": "a"},
    {
        "id": 3,
        "shop": "x",
        "at": f"{DAY}T11:00:00",
        "done": "2026-01-05T11:00:01",
        "price": None,
        "n": 1,
        "kind": "b",
    },
]
ANSWER = {"v__revenue": 27.5, "v__large": 1, "v__slowest": 7_000_000.0}


def test_a_view_reads_the_columns_of_its_expressions_and_keeps_them_in_its_identity():
    assert VIEW.columns == ("shop", "at", "id", "price", "n", "kind", "done")
    assert FeatureViewDef.from_manifest("v", VIEW.manifest()) == VIEW
    other = FeatureViewDef(
        "v", "orders", "shop", [el.sum(el.col("price") + 1, over="1d", name="revenue", scale=2), *FEATURES[1:]],
        event_time="at", known_time="at", key=("id",),
    )  # fmt: skip
    assert Version("view", "v", other.manifest()).id != Version("view", "v", VIEW.manifest()).id
    same = el.sum(pl.col("price") * pl.col("n"), over="1d", name="revenue", scale=2)
    assert same.manifest()["expression"]["columns"] == ["price", "n"]


def test_pushed_as_json_and_read_from_a_file_the_values_are_the_same(online, tmp_path):
    view = OnlineView.of("p", "expressions", VIEW)
    online.drop(view.space)
    push(online, view, ROWS)
    service = FeatureServiceDef("s", [VIEW])
    at = int(datetime.fromisoformat("2026-01-05T12:00:00Z").timestamp() * 1e6)
    assert lookup(online, OnlineService.of("p", service, {"v": "expressions"}), [{"shop": "x"}], at) == [ANSWER]

    frame = pl.DataFrame([{**row, "n": int(row["n"])} for row in ROWS], infer_schema_length=None)
    times = [pl.col(name).str.replace("Z$", "").str.to_datetime(time_unit="us") for name in ("at", "done")]
    frame.with_columns(times).write_parquet(tmp_path / "orders.parquet")
    spine = pl.DataFrame({"shop": ["x"], "asked": [at]})
    found = history(service, spine, {"orders": tmp_path / "orders.parquet"}, at="asked")
    assert found.select(VIEW.outputs).row(0, named=True) == ANSWER


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: el.sum(REVENUE, over="1d"), "needs a name"),
        (lambda: el.count(over="1d", where=el.col("price") * 2), "no condition"),
        (lambda: el.sum(3, over="1d"), "no column"),
    ],
)
def test_wrong_definitions(wrong, said):
    with pytest.raises(DefinitionError, match=said):
        wrong()


def test_a_bare_column_is_the_column():
    assert el.sum(el.col("price"), over="1d") == el.sum("price", over="1d")


def test_a_pushed_row_that_does_not_fit_is_refused_whole(online):
    view = OnlineView.of("p", "refused", VIEW)
    online.drop(view.space)
    with pytest.raises(DataError, match=r"feature view v: .*'n' is read as int64 and holds fractions"):
        push(online, view, [ROWS[0], {**ROWS[1], "n": 1.5}])
    at = int(datetime.fromisoformat("2026-01-05T12:00:00Z").timestamp() * 1e6)
    service = OnlineService.of("p", FeatureServiceDef("s", [VIEW]), {"v": "refused"})
    assert lookup(online, service, [{"shop": "x"}], at)[0]["v__revenue"] == 0.0
