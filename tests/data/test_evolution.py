"""Columns change by rules: added and widened by themselves, dropped, renamed and retyped when told, else refused."""

import datetime as dt
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest

from everloop import data
from everloop.catalog.operation import invoke
from everloop.catalog.verify import verify
from everloop.core.errors import DataError, InvalidInput
from everloop.data.content.schema import logical_type, type_named
from everloop.data.definitions import Contract, Files, SourceDef
from everloop.data.editing import edit, evolve
from everloop.data.editing.operations import Append, Evolve
from everloop.data.evolution import Evolution
from everloop.data.evolution.rules import wider

HERE = "sandbox/ada/x"
TABLE = pl.DataFrame(
    {"id": pl.Series([1, 2, 3], dtype=pl.Int32), "n": pl.Series([7, 8, 9], dtype=pl.Int16), "s": ["a", "b", "c"]}
)


@pytest.fixture
def made(context):
    edit(context, "t", TABLE, "append", HERE, contract=Contract.of("id", tags={"s": "personal"}))
    return context


def rows(context):
    return data.read(context, f"t@{HERE}").collect()


@pytest.mark.parametrize(
    ("old", "new", "both"),
    [
        (pa.int8(), pa.int32(), pa.int32()),
        (pa.int64(), pa.int8(), pa.int64()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.uint64(), pa.int8(), None),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.float64(), pa.int64(), pa.float64()),
        (pa.int64(), pa.float64(), None),
        (pa.decimal128(6, 2), pa.decimal128(6, 4), pa.decimal128(8, 4)),
        (pa.decimal128(38, 2), pa.decimal128(20, 9), pa.decimal256(45, 9)),
        (pa.decimal256(76, 2), pa.decimal128(20, 9), None),
        (pa.null(), pa.large_string(), pa.large_string()),
        (pa.large_string(), pa.null(), pa.large_string()),
        (pa.large_string(), pa.int64(), None),
        (pa.date32(), pa.timestamp("us"), None),
        (pa.timestamp("ns", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
    ],
)
def test_numbers_are_widened_and_nothing_else(old, new, both):
    assert wider(old, new) == both


@pytest.mark.parametrize(
    "type_",
    [pa.int8(), pa.float16(), pa.decimal128(12, 2), pa.decimal256(50, 3), pa.timestamp("us", "UTC"), pa.time64("ns")],
)
def test_types_are_found_by_their_names(type_):
    assert type_named(logical_type(type_)) == type_


def test_an_edit_adds_columns_and_widens_numbers(made):
    come = pl.DataFrame({"id": [2**40], "n": pl.Series([70_000], dtype=pl.Int32), "extra": [Decimal("1.50")]})
    edit(made, "t", come, "append", HERE)
    found = rows(made)
    assert found.schema == {"id": pl.Int64, "n": pl.Int32, "s": pl.String, "extra": pl.Decimal(38, 2)}
    assert found.rows()[0] == (1, 7, "a", None)
    assert found.rows()[-1] == (2**40, 70_000, None, Decimal("1.50"))
    edit(made, "t", pl.DataFrame({"id": [4], "n": [1]}), "append", HERE)  # fits: nothing is widened, nothing narrowed
    assert rows(made).schema == found.schema
    assert verify(made.catalog, made.store) == []


@pytest.mark.parametrize("column", [{"n": [1.5]}, {"n": ["x"]}, {"n": [dt.date(2026, 1, 1)]}])
def test_an_edit_of_another_type_is_refused(made, column):
    with pytest.raises(DataError, match="column 'n' is of type int16") as caught:
        edit(made, "t", pl.DataFrame({"id": [9], **column}), "append", HERE)
    assert "retype" in caught.value.hint


def test_columns_are_dropped_renamed_and_retyped_when_told(made):
    evolve(made, "t", HERE, Evolution(drop=["n"], rename={"id": "key", "s": "name"}, retype={"key": "string"}))
    assert rows(made).rows() == [("1", "a"), ("2", "b"), ("3", "c")]
    found = data.read(made, f"t@{HERE}").collect_schema()
    assert found.names() == ["key", "name"]
    manifest = data.manifest_of(made, data.head(made, HERE, "t"))
    assert (list(manifest["key"]), dict(manifest["tags"])) == (["key"], {"name": "personal"})
    edit(made, "t", pl.DataFrame({"key": ["10"], "name": ["z"]}), "append", HERE)
    assert rows(made)["key"].to_list() == ["1", "10", "2", "3"]  # ordered by the key as it is now
    assert data.read(made, "t@1").collect().equals(TABLE)
    assert verify(made.catalog, made.store) == []


@pytest.mark.parametrize(
    ("evolution", "error", "message"),
    [
        (Evolution(drop=["id"]), InvalidInput, "is the dataset's key"),
        (Evolution(drop=["s"]), InvalidInput, "is the dataset's key, time or is tagged"),
        (Evolution(drop=["nobody"]), InvalidInput, "no column 'nobody'"),
        (Evolution(rename={"n": "s"}), DataError, "two columns would be called 's'"),
        (Evolution(retype={"n": "blob"}), InvalidInput, "is no type"),
        (Evolution(retype={"s": "int64"}), DataError, "column 's' cannot be converted"),
        (Evolution(), InvalidInput, "nothing is told"),
    ],
)
def test_what_cannot_be_told_is_refused_and_nothing_moves(made, evolution, error, message):
    with pytest.raises(error, match=message):
        evolve(made, "t", HERE, evolution)
    assert rows(made).equals(TABLE)


def test_one_thing_becomes_of_a_column():
    with pytest.raises(InvalidInput, match="what is to become"):
        Evolution(drop=["a"], rename={"a": "b"})


def test_operations_take_what_is_told(made):
    invoke(made, "data.append", Append(dataset="t", environment=HERE, rows=[{"id": 5, "m": 3}], rename={"n": "m"}))
    assert rows(made).columns == ["id", "m", "s"]
    invoke(made, "data.evolve", Evolve(dataset="t", environment=HERE, retype={"m": "float64"}))
    assert rows(made)["m"].to_list() == [7.0, 8.0, 9.0, 3.0]


@pytest.fixture(params=["parquet", "csv"])
def captured(context, tmp_path, request):
    folder = tmp_path / "in"
    folder.mkdir()

    def capture(table, key="id", **evolution):
        for file in folder.iterdir():
            file.unlink()
        getattr(table, f"write_{request.param}")(folder / f"t.{request.param}")
        told = Evolution(**evolution)
        source = SourceDef("u", Files(f"in/*.{request.param}"), key=key, evolution=told)
        return data.read(context, data.capture(context, source, root=tmp_path).id).collect()

    return capture


def wide(**columns):
    return pl.DataFrame({"id": [1, 2], "n": [7, 8], "x": [0.5, 1.5]}).with_columns(**columns)


def test_captures_follow_the_same_rules(captured):
    captured(wide())
    assert captured(wide(more=pl.lit("m"))).columns == ["id", "n", "x", "more"]
    assert captured(wide(more=pl.lit("m"), x=pl.lit(2)))["x"].to_list() == [2.0, 2.0]  # whole numbers fit into floats
    with pytest.raises(DataError, match="'n' is of type int64, the rows hold string"):
        captured(wide(more=pl.lit("m"), n=pl.lit("text")))
    with pytest.raises(DataError, match="column 'more' is missing") as caught:
        captured(wide())
    assert "drop" in caught.value.hint
    assert captured(wide(), drop=["more"]).columns == ["id", "n", "x"]
    renamed = captured(wide(), drop=["more"], rename={"n": "count"}, retype={"count": "string"})
    assert renamed["count"].to_list() == ["7", "8"]
    given = wide().rename({"n": "count"})  # the source has the new name by now
    assert captured(given, drop=["more"], rename={"n": "count"}, retype={"count": "string"}).equals(renamed)


def test_files_without_a_key_follow_them_too(captured):
    captured(wide(), key=())
    assert captured(wide(n=pl.lit(2, pl.Int64)), key=())["n"].dtype == pl.Int64
    with pytest.raises(DataError, match="is missing"):
        captured(wide().drop("n"), key=())
    assert captured(wide(), key=(), rename={"n": "m"}).columns == ["id", "m", "x"]
