"""What an open table shows is kept until it is closed; an erasure writes it anew; nobody opens what he may not see."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import s3_server
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from open_tables import HERE, delta_rows, four_versions, iceberg, opened, same
from s3_server import BUCKET, serving

from everloop import data
from everloop.catalog import placements, refs
from everloop.catalog.keeping import removal
from everloop.catalog.operation import invoke
from everloop.catalog.verify import verify
from everloop.core.errors import Conflict, InvalidInput, NotFound, PermissionDenied, Unavailable
from everloop.data import opening
from everloop.data.definitions import Contract
from everloop.data.editing import edit
from everloop.data.erasure import erasing
from everloop.data.opening.operations import Close, Nothing
from everloop.data.opening.placing import withdraw
from everloop.store import open_store
from everloop.workspace.work import places
from everloop.workspace.work.retaining import AskExpire, Retain

KEY = "customer-0000042-x"


def orders(context, count=20_000):
    table = pl.DataFrame({"n": range(count), "customer": [f"customer-{i % 997:07d}-x" for i in range(count)]})
    contract = Contract.of(("customer", "n"), tags={"customer": "subject"})
    edit(context, "orders", table, "append", HERE, contract=contract)
    some = table.gather_every(89).with_columns(customer=pl.lit(KEY), n=pl.col("n") + count)
    edit(context, "orders", some, "append", HERE)
    edit(context, "orders", table.gather_every(97), "delete", HERE)


def test_what_is_shown_stays_until_the_table_is_closed(context, tmp_path):
    four_versions(context)
    found = opened(context, "delta", tmp_path / "t", "flights@1")
    (listed,) = invoke(context, "data.opened", Nothing()).items
    assert (listed.table, listed.versions, listed.location) == (found.table, [1], (tmp_path / "t").as_uri())
    invoke(context, "data.retain", Retain(kind="data", versions=1))
    assert [one["number"] for one in invoke(context, "data.expire", AskExpire(dry_run=False)).versions] == [2, 3]
    first = data.heads.find_version(context, "flights@1").id
    with context.read() as tx:
        assert removal.unreferred(tx, context.project, {first}) == set()
        kept = placements.reachable(tx)
    context.store.sweep(kept.__contains__, -10)
    same(delta_rows(tmp_path / "t"), data.read(context, first).collect())
    assert verify(context.catalog, context.store) == []
    invoke(context, "data.close", Close(table=found.table))
    assert withdraw(found.location, found.table)
    assert not withdraw(found.location, found.table)
    assert list((tmp_path / "t").iterdir()) == []
    assert invoke(context, "data.opened", Nothing()).items == []
    with pytest.raises(NotFound):
        invoke(context, "data.close", Close(table=found.table))
    assert [one["number"] for one in invoke(context, "data.expire", AskExpire(dry_run=False)).versions] == [1]


def test_an_erasure_writes_open_tables_anew(context, tmp_path):
    orders(context)
    folders = {name: tmp_path / name for name in ("iceberg", "delta")}
    for name, folder in folders.items():
        opened(context, name, folder, "orders", history=9)
    opened(context, "delta", tmp_path / "moved", "orders")
    (tmp_path / "moved").rename(tmp_path / "elsewhere")
    before = delta_rows(folders["delta"])
    assert before.filter(pl.col("customer") == KEY).height > 200
    done = erasing.erase(context, KEY, lambda ctx, *_: erasing.Places(after=[places.OpenTables(ctx)]))
    assert done.figures["elsewhere"]["tables opened to other engines"] == 2
    kept = before.filter(pl.col("customer") != KEY)
    same(delta_rows(folders["delta"]), kept, "n")
    same(pl.from_arrow(iceberg(folders["iceberg"], 2).scan().to_arrow()), kept, "n")
    for number in (1, 2, 3):  # earlier versions are still there to travel to
        rows = pl.from_arrow(iceberg(folders["iceberg"], 2).scan(snapshot_id=number).to_arrow())
        same(rows, data.read(context, f"orders@{number}").collect(), "n")
    told = [path for folder in folders.values() for path in folder.rglob("*") if path.is_file()]
    assert [path for path in told if KEY.encode() in path.read_bytes()] == []
    assert len(invoke(context, "data.opened", Nothing()).items) == 2  # the one whose folder is gone is closed
    with pytest.raises(FileNotFoundError):
        pl.scan_delta(str(tmp_path / "elsewhere")).collect()  # a copy leads to files that are gone


def test_ends_of_parts_are_told_of_open_columns_only(context, tmp_path):
    four_versions(context)
    orders(context, 2000)
    for name in ("flights@1", "orders@1"):
        opened(context, "iceberg", tmp_path / name, name)
    bounds = {}
    for name in ("flights@1", "orders@1"):
        table = iceberg(tmp_path / name)
        files = table.inspect.files().to_pydict()
        bounds[name] = [bool(low) for low in files["lower_bounds"]]
    assert all(bounds["flights@1"])
    assert not any(bounds["orders@1"])


def test_who_may_not_see_a_column_cannot_open_the_table(context, context_of, sqlite_catalog, tmp_path):
    orders(context, 100)
    other = context_of(sqlite_catalog, name="bo", roles=["contributor"])
    with pytest.raises(PermissionDenied, match="customer"):
        opened(other, "iceberg", tmp_path / "t", "orders@1")
    viewer = context_of(sqlite_catalog, name="cy", roles=["viewer"])
    four_versions(context)
    with pytest.raises(PermissionDenied):
        opened(viewer, "iceberg", tmp_path / "t", "flights@1")
    assert not (tmp_path / "t").exists()


def test_tables_of_others_are_left_alone(context, tmp_path):
    four_versions(context)
    write_deltalake(tmp_path / "theirs", pl.DataFrame({"a": [1]}).to_arrow())
    with pytest.raises(Conflict, match="somebody else"):
        opened(context, "delta", tmp_path / "theirs")
    ours = opened(context, "delta", tmp_path / "ours", "flights@1")
    assert ours.versions == [1]
    with pytest.raises(Conflict, match="another table"):
        opened(context, "iceberg", tmp_path / "ours")
    with pytest.raises(DeltaError, match="InCommitTimestamp"):  # delta-rs itself will not write to it
        write_deltalake(tmp_path / "ours", DeltaTable(tmp_path / "ours").to_pyarrow_table(), mode="append")
    (tmp_path / "ours" / "_delta_log" / f"{1:020d}.json").write_text("{}")
    with pytest.raises(Conflict, match="written to by somebody else"):
        opened(context, "delta", tmp_path / "ours", "flights@2")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "everloop.json").write_text("[]")
    with pytest.raises(Conflict, match="not one that we wrote"):
        opened(context, "delta", tmp_path / "t")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"format_": "hudi"}, "no format"),
        ({"without": ["nothing"]}, "has no column"),
        ({"without": ["id", "tail", "delay", "at", "note", "gate"]}, "no column would be left"),
        ({"location": "ftp://x/y"}, "no place for a table"),
    ],
)
def test_wrong_wishes(context, tmp_path, more, words):
    four_versions(context)
    with pytest.raises(InvalidInput, match=words):
        opened(context, more.pop("format_", "iceberg"), tmp_path / "t", **more)


def test_a_writer_that_died_leaves_the_table_of_before_and_is_gone_over(context, tmp_path, monkeypatch):
    four_versions(context)
    folder = tmp_path / "t"
    opened(context, "iceberg", folder, "flights@2")
    write = opening.placing.Folder.write

    def dying(self, name, content, at=0):
        if name.endswith("metadata.json"):
            raise KeyboardInterrupt
        write(self, name, content, at)

    monkeypatch.setattr(opening.placing.Folder, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        opened(context, "iceberg", folder, "flights@4")
    monkeypatch.undo()
    hint = (folder / "metadata" / "version-hint.text").read_text()
    same(pl.from_arrow(iceberg(folder, hint).scan().to_arrow()), data.read(context, "flights@2").collect())
    opened(context, "iceberg", folder, "flights@4")
    hint = (folder / "metadata" / "version-hint.text").read_text()
    same(pl.from_arrow(iceberg(folder, hint).scan().to_arrow()), data.read(context, "flights@4").collect())
    listed = json.loads((folder / "everloop.json").read_text())["files"]
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {*listed, "everloop.json"}


def test_tables_in_a_bucket(context_of, sqlite_catalog, tmp_path, monkeypatch):
    with serving() as server:
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        context = context_of(sqlite_catalog)
        object.__setattr__(context, "store", open_store(f"s3://{BUCKET}/objects"))
        four_versions(context)
        ours = data.read(context, "flights@4").collect()
        server.on = True  # one call in ten fails from here on
        iced, delta = f"s3://{BUCKET}/ice", f"s3://{BUCKET}/delta"
        opened(context, "iceberg", None, location=iced)
        opened(context, "delta", None, location=delta)
        opened(context, "delta", None, location=delta)
        server.on = False
        access = {
            "s3.endpoint": server.url,
            "s3.access-key-id": "key",
            "s3.secret-access-key": "secret",
            "s3.region": "us-east-1",
        }
        table = iceberg(iced, properties=access)
        same(pl.from_arrow(table.scan().to_arrow()), ours)
        same(_in_a_process(delta, tmp_path / "rows.parquet"), ours)
        assert server.failed > 0
        server.expired = True
        with pytest.raises(Unavailable, match=r"refuses us|fails"):
            opening.place(iced, opening.Files({"x": b""}), "t", context.store)
        server.expired = False
        (one, other) = invoke(context, "data.opened", Nothing()).items
        assert {withdraw(one.location, one.table), withdraw(other.location, other.table)} == {True}
        assert {key.split("/")[0] for key in _keys(server)} == {"objects"}


def _in_a_process(location, target):
    """Rows of a Delta table; delta-rs holds the interpreter's lock while it asks, and the server here needs it."""
    code = f"from open_tables import delta_rows; delta_rows({location!r}).write_parquet({str(target)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=Path(s3_server.__file__).parent, check=True, timeout=120)
    return pl.read_parquet(target)


def _keys(server):
    pages = server.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return [found["Key"] for page in pages for found in page.get("Contents", ())]


def test_pointers_of_open_tables_are_no_heads(context, tmp_path):
    four_versions(context)
    opened(context, "iceberg", tmp_path / "t")
    with context.read() as tx:
        assert [name.split("/")[-1] for name in refs.all(tx, context.project, "opened/")] == ["4"]
    assert verify(context.catalog, context.store) == []
