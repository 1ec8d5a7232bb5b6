"""Tables opened to other engines, and the engines that read them: PyIceberg, delta-rs, Polars."""

import numpy as np
import polars as pl
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from pyiceberg.table import StaticTable

from everloop.catalog.operation import invoke
from everloop.data.definitions import Contract
from everloop.data.editing import edit
from everloop.data.opening.operations import Open
from everloop.data.opening.placing import place
from everloop.data.opening.shown import Files

HERE = "sandbox/ada/x"


def flights(count=20_000, seed=0):
    chance = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "id": np.arange(count) * 3,
            "tail": [f"N{i:05d}" for i in chance.integers(0, 4000, count)],
            "delay": chance.normal(10, 30, count),
            "at": pl.Series(np.arange(count) * 1_000_000).cast(pl.Datetime("us", "UTC")),
            "note": [None if i % 3 else f"note {i}" for i in range(count)],
        }
    )


def four_versions(context):
    """Four versions: all rows, some changed at random places, some deleted, a column more."""
    table = flights()
    edit(context, "flights", table, "append", HERE, contract=Contract.of("id"))
    changed = table.gather_every(97).with_columns(delay=pl.lit(0.5))
    edit(context, "flights", changed, "upsert", HERE)
    edit(context, "flights", table.gather_every(211).select("id"), "delete", HERE)
    more = flights(200, 3).with_columns(id=pl.col("id") + 1_000_000, gate=pl.lit(7))
    edit(context, "flights", more, "append", HERE)


def opened(context, format_, folder, version="flights", location="", **more):
    """Open a version and put it in place, as the command line does."""
    found = invoke(
        context,
        "data.open",
        Open(version=version, environment=HERE, format=format_, location=location or folder.as_uri(), **more),
    )
    files = Files({n: context.store.get(i) for n, i in found.files.items()}, found.links, found.times)
    place(found.location, files, found.table, context.store)
    return found


def iceberg(folder, generation=1, properties=None):
    """The table as PyIceberg reads it."""
    return StaticTable.from_metadata(f"{folder}/metadata/v{generation}.metadata.json", properties or {})


def delta_rows(folder, version=None):
    """Rows of a Delta table as delta-rs reads them."""
    table = DeltaTable(str(folder), version=version)
    return pl.from_arrow(pa.table(QueryBuilder().register("t", table).execute("select * from t").read_all()))


def same(theirs, ours, by="id"):
    """Row for row, whatever the order."""
    assert theirs.columns == ours.columns
    assert theirs.sort(by).equals(ours.sort(by))
