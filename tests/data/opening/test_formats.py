"""Other engines read every version row for row as we do, over the files as they are stored."""

from datetime import date, timedelta
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from open_tables import HERE, delta_rows, four_versions, iceberg, opened, same

from everloop import data
from everloop.catalog import placements, refs
from everloop.core.errors import InvalidInput, NotFound
from everloop.data.definitions import Contract, Files, SourceDef
from everloop.data.editing import edit, evolve
from everloop.data.evolution import Evolution

pytestmark = pytest.mark.filterwarnings("ignore:Iceberg scan planning")  # Polars would rather plan by its own plugin
VERSIONS = (1, 2, 3, 4)


def ours(context, number, name="flights"):
    return data.read(context, f"{name}@{number}").collect()


def size(store):
    return sum(store.size(identity) for identity in store.ids())


def test_iceberg_shows_every_version_as_a_snapshot(context, tmp_path):
    four_versions(context)
    before = set(context.store.ids())
    found = opened(context, "iceberg", tmp_path / "t", history=9)
    assert (found.versions, found.rows, found.left_out, found.folded) == ([1, 2, 3, 4], 20_000 - 95 + 200, [], 0)
    assert set(context.store.ids()) - before == set(found.files.values())  # metadata, and no part
    assert sum(context.store.size(i) for i in found.files.values()) < 60_000  # four snapshots of a table of 0.8 MB
    table = iceberg(tmp_path / "t")
    for number in VERSIONS:
        same(pl.from_arrow(table.scan(snapshot_id=number).to_arrow()), ours(context, number))
        same(pl.scan_iceberg(table, snapshot_id=number).collect(), ours(context, number))
    assert table.current_snapshot().snapshot_id == 4
    assert [table.snapshot_by_name(f"v{number}").snapshot_id for number in VERSIONS] == list(VERSIONS)
    some = table.scan(row_filter="id >= 3000 and id < 3300", selected_fields=("id", "gate")).to_arrow()
    same(pl.from_arrow(some), ours(context, 4).filter(pl.col("id").is_between(3000, 3299)).select("id", "gate"))


def test_delta_shows_every_version_as_a_commit(context, tmp_path):
    four_versions(context)
    before = set(context.store.ids())
    found = opened(context, "delta", tmp_path / "t", history=9)
    assert (found.versions, found.left_out, found.folded) == ([1, 2, 3, 4], [], 0)
    assert set(context.store.ids()) - before == set(found.files.values())
    for commit, number in enumerate(VERSIONS):
        same(delta_rows(tmp_path / "t", commit), ours(context, number))
        same(pl.scan_delta(str(tmp_path / "t"), version=commit).collect(), ours(context, number))
    links = [path for path in (tmp_path / "t" / "parts").iterdir() if path.is_symlink()]
    assert {path.resolve() for path in links} <= {context.store.path(i) for i in context.store.ids()}


@pytest.mark.parametrize("format_", ["iceberg", "delta"])
def test_a_later_version_joins_the_table_and_nothing_is_written_twice(context, tmp_path, format_):
    four_versions(context)
    folder = tmp_path / "t"
    opened(context, format_, folder, "flights@2")
    times = {path: path.lstat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    found = opened(context, format_, folder, "flights@4")
    assert found.versions == [2, 4]
    kept = {p for p in times if p.exists() and p.lstat().st_mtime_ns == times[p] and p.name != "everloop.json"}
    assert len(kept) >= len(times) - 3  # all but the inventory, Iceberg's metadata and its hint
    again = opened(context, format_, folder, "flights@4")
    assert again.files == found.files
    assert opened(context, format_, folder, "flights@3").versions == [2, 3]  # to an earlier one: the later one goes
    rows = delta_rows(folder) if format_ == "delta" else pl.from_arrow(iceberg(folder, 3).scan().to_arrow())
    same(rows, ours(context, 3))


def test_columns_in_files_of_their_own_are_written_once_and_counted(context, tmp_path):
    four_versions(context)
    wider = ours(context, 4).with_columns(pl.col("delay") * 2)
    edit(context, "flights", wider, "upsert", HERE)
    with context.read() as tx:
        resting = placements.rests_of(tx, context.project)
    found = opened(context, "iceberg", tmp_path / "t")
    assert found.folded > 0
    assert 0 < found.written < 2 * size(context.store) / 3
    same(pl.from_arrow(iceberg(tmp_path / "t").scan().to_arrow()), wider)
    same(ours(context, 5), wider)  # which reads the whole parts from now on
    with context.read() as tx:
        assert len(placements.rests_of(tx, context.project)) < len(resting)
    assert opened(context, "delta", tmp_path / "d").folded == 0
    same(delta_rows(tmp_path / "d"), wider)


def test_engines_without_delete_vectors_get_whole_parts(context, tmp_path):
    four_versions(context)
    found = opened(context, "delta", tmp_path / "t", "flights@3", plain=True)
    assert found.folded > 0
    same(pl.from_arrow(DeltaTable(str(tmp_path / "t")).to_pyarrow_table()), ours(context, 3))


def test_columns_may_come_go_and_change_their_names(context, tmp_path):
    four_versions(context)
    evolve(context, "flights", HERE, Evolution(drop=["note"], rename={"tail": "aircraft"}))
    evolve(context, "flights", HERE, Evolution(retype={"gate": "string"}))
    for format_ in ("iceberg", "delta"):  # files with columns that the version has dropped
        opened(context, format_, tmp_path / f"{format_}5", "flights@5")
    same(pl.from_arrow(iceberg(tmp_path / "iceberg5").scan().to_arrow()), ours(context, 5))
    same(delta_rows(tmp_path / "delta5"), ours(context, 5))
    found = opened(context, "iceberg", tmp_path / "i", history=9)
    assert (found.versions, found.left_out) == ([6], [1, 2, 3, 4, 5])  # `gate` is another column from there on
    same(pl.from_arrow(iceberg(tmp_path / "i").scan().to_arrow()), ours(context, 6))
    found = opened(context, "iceberg", tmp_path / "i5", "flights@5", history=9)
    assert found.versions == [1, 2, 3, 4, 5]
    for number in found.versions:
        same(pl.from_arrow(iceberg(tmp_path / "i5").scan(snapshot_id=number).to_arrow()), ours(context, number))
    found = opened(context, "delta", tmp_path / "d", history=9)
    assert found.versions == [1, 2, 3, 4, 5, 6]  # each commit has columns of its own
    for commit, number in enumerate(found.versions):
        same(delta_rows(tmp_path / "d", commit), ours(context, number))


def every_type():
    columns = {
        "id": pa.array([1, 2, 3], pa.int32()),
        "small": pa.array([1, None, -3], pa.int8()),
        "yes": pa.array([True, None, False]),
        "single": pa.array([1.5, None, 2.5], pa.float32()),
        "day": pa.array([date(2026, 1, 1), None, date(1969, 1, 1)]),
        "money": pa.array([Decimal("1.50"), None, Decimal("-2.25")], pa.decimal128(12, 2)),
        "blob": pa.array([b"a", None, b""], pa.binary()),
        "local": pa.array([0, None, 10**15], pa.timestamp("us")),
        "utc": pa.array([0, None, 10**15], pa.timestamp("us", "UTC")),
        "several": pa.array([[1, 2], None, []], pa.list_(pa.int64())),
        "place": pa.array([{"x": 1.0, "name": "a"}, None, {"x": None, "name": None}]),
        "counts": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    }
    return pa.table(columns)


@pytest.mark.parametrize("format_", ["iceberg", "delta"])
def test_types(context, tmp_path, format_):
    edit(context, "types", every_type(), "append", HERE, contract=Contract.of("id"))
    opened(context, format_, tmp_path / "t", "types")
    rows = delta_rows(tmp_path / "t") if format_ == "delta" else iceberg(tmp_path / "t").scan().to_arrow()
    rows = pl.from_arrow(rows) if isinstance(rows, pa.Table) else rows
    mine = ours(context, 1, "types")
    assert rows.sort("id").to_dicts() == mine.sort("id").to_dicts()


@pytest.mark.parametrize(
    ("format_", "name", "column"),
    [
        ("iceberg", "uint64", pa.array([1], pa.uint64())),
        ("iceberg", "timestamp[ns]", pa.array([1], pa.timestamp("ns"))),
        ("delta", "time[us]", pa.array([1], pa.time64("us"))),
        ("delta", "duration[us]", pa.array([timedelta(1)], pa.duration("us"))),
    ],
)
def test_a_column_without_a_type_there_is_refused_or_left_out(context, tmp_path, format_, name, column):
    edit(context, "odd", pa.table({"id": [1], "odd": column}), "append", HERE, contract=Contract.of("id"))
    with pytest.raises(InvalidInput, match=r"'odd'") as error:
        opened(context, format_, tmp_path / "t", "odd")
    assert name in error.value.message
    assert "--without odd" in error.value.hint
    assert not (tmp_path / "t").exists()
    with context.read() as tx:
        assert refs.all(tx, context.project, "opened/") == {}
    opened(context, format_, tmp_path / "t", "odd", without=["odd"])
    rows = delta_rows(tmp_path / "t") if format_ == "delta" else pl.scan_iceberg(iceberg(tmp_path / "t")).collect()
    assert rows.to_dicts() == [{"id": 1}]


@pytest.mark.parametrize("format_", ["iceberg", "delta"])
def test_the_same_file_twice_is_read_twice(context, tmp_path, format_):
    """Parts of a table without a key may hold the same rows: one object, two names."""
    for name in ("a", "b"):
        pl.DataFrame({"x": [1, 2]}).write_parquet(tmp_path / f"in-{name}.parquet")
    data.capture(context, SourceDef("twice", Files("in-*.parquet")), root=tmp_path)
    opened(context, format_, tmp_path / "t", "twice@1")
    rows = (
        delta_rows(tmp_path / "t") if format_ == "delta" else pl.from_arrow(iceberg(tmp_path / "t").scan().to_arrow())
    )
    assert sorted(rows["x"].to_list()) == [1, 1, 2, 2]


def test_a_version_whose_rows_are_elsewhere_or_gone_cannot_be_opened(context, tmp_path):
    four_versions(context)
    manifest = data.manifest_of(context, data.heads.find_version(context, "flights@1").id)
    with context.write() as tx:
        placements.forget(tx, context.project, [part["logical"] for part in manifest["parts"]])
    with pytest.raises(NotFound, match="are not here"):
        opened(context, "iceberg", tmp_path / "t", "flights@1")
    assert opened(context, "iceberg", tmp_path / "t", "flights@2", history=1).left_out == [1]


def test_commits_say_when_their_version_was_made(context, tmp_path):
    four_versions(context)
    found = opened(context, "delta", tmp_path / "t", history=9)
    with context.read() as tx:
        made = [row.at for row in data.heads.versions.history(tx, context.project, "data", "flights", limit=9)][::-1]
    logs = sorted((tmp_path / "t" / "_delta_log").iterdir())
    assert len(logs) == len(found.versions)
    assert [path.stat().st_mtime_ns // 10**6 for path in logs] == [at // 1000 for at in made]
