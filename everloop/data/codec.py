"""Tables in and out: the codec of dataset versions, and reading them by id."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from everloop.catalog import placements, versions
from everloop.catalog.context import Context
from everloop.core.errors import DataError, InvalidInput, NotFound
from everloop.core.ports import Blobs, Saved
from everloop.data.content.files import local_part
from everloop.data.content.parts import Known, data_version, nothing_known, store_table
from everloop.data.content.predecessor import Predecessor
from everloop.data.definitions import NO_CONTRACT, Contract


@dataclass(frozen=True, slots=True)
class DataCodec:
    """Codec of `data` versions (`core.ports.Codec`): takes polars, Arrow and pandas tables, gives a `pl.LazyFrame`."""

    contract: Contract = NO_CONTRACT
    scratch: Path = Path(tempfile.gettempdir())
    """Where big tables are sorted."""
    known: Known = nothing_known

    def save(self, value: Any, name: str, blobs: Blobs, facts: Mapping[str, Any]) -> Saved:
        """Store a table and describe it.

        `facts` may hold `contract` (its manifest, in the place of this codec's), `inputs` ({role: version id}) and
        `before` (`manifest` and `placements` of the version before, whose parts are shared and rested on).
        Raises `DataError` for what is no table, breaks the contract's columns or cannot be stored; `StorageFull`.
        """
        given = facts.get("contract")
        contract = self.contract if given is None else Contract.from_manifest(given)
        schema, batches = table_batches(value, name)
        check_contract(schema, contract, name)
        before = facts.get("before") or {"manifest": {"parts": [], "key": []}, "placements": {}}
        placed = before["placements"]

        def known(logical: str) -> bool:
            return self.known(logical) or (logical in placed and blobs.has(placed[logical]))

        shelf = Predecessor(before["manifest"], placed, blobs, Path(_own_folder().name)) if placed else None
        stored = store_table(batches, schema, contract.key, blobs, scratch=self.scratch, known=known, before=shelf)
        version = data_version(name, stored, contract, tuple(facts.get("inputs", {}).items()))
        return Saved(version, {"rows": float(stored.rows)}, stored.placements, stored.rests)

    def load(self, manifest: Mapping[str, Any], blobs: Blobs, placements: Mapping[str, str]) -> pl.LazyFrame:
        """The table, not read yet. Raises `NotFound` for parts whose bytes are not here."""
        return scan(part_paths(manifest, blobs, placements, Path(_own_folder().name)), manifest)


@cache
def _own_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder of this process for files that it makes to read them; it goes with the process."""
    return tempfile.TemporaryDirectory(prefix="everloop-parts-")


def table_batches(value: Any, name: str) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    """Schema and record batches of a table of any of the kinds that we take; raises `DataError` for another thing."""
    try:
        if isinstance(value, pl.LazyFrame):
            value = value.collect()
        if isinstance(value, pl.DataFrame):
            value = value.to_arrow()
        elif type(value).__module__.partition(".")[0] == "pandas":
            value = pa.Table.from_pandas(value, preserve_index=False)
        elif isinstance(value, Iterator):
            return _peeked(value, name)
        if isinstance(value, pa.RecordBatch):
            return value.schema, [value]
        if isinstance(value, pa.Table):
            return value.schema, value.to_batches()
        if hasattr(value, "__arrow_c_stream__"):
            reader = pa.RecordBatchReader.from_stream(value)
            return reader.schema, reader
    except (pa.ArrowException, pl.exceptions.PolarsError, TypeError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)  # polars appends its whole plan
        hint = "a lazy frame is computed here: see what the function makes of the columns that it gets"
        raise DataError(f"{name}: the table cannot be computed: {first}", hint=hint) from error
    raise DataError(
        f"{name}: {type(value).__module__}.{type(value).__qualname__} is not a table",
        hint="return a polars, pandas or Arrow table",
    )


def _peeked(batches: Iterator[Any], name: str) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    first = next(batches, None)
    if not isinstance(first, pa.RecordBatch):
        raise DataError(f"{name}: the iterator gives no Arrow record batch", hint="yield at least one, of any length")

    def again() -> Iterator[pa.RecordBatch]:
        yield first
        yield from batches

    return first.schema, again()


def check_contract(schema: pa.Schema, contract: Contract, name: str) -> None:
    """Raise `DataError` unless every column that the contract names is there, and its times are times."""
    named = [*contract.key, *contract.tags, contract.event_time, contract.known_time]
    missing = [column for column in dict.fromkeys(named) if column is not None and column not in schema.names]
    if missing:
        raise DataError(
            f"{name}: there is no column {missing[0]!r}, which its definition names",
            hint="columns: " + ", ".join(schema.names),
        )
    for column in (contract.event_time, contract.known_time):
        if column is not None:
            type_ = schema.field(column).type
            if not (pa.types.is_timestamp(type_) or pa.types.is_date(type_)):
                raise DataError(
                    f"{name}: the time column {column!r} is of type {type_}", hint="make it a timestamp or a date"
                )


def manifest_of(ctx: Context, identity: str) -> Mapping[str, Any]:
    """The manifest of a data version; raises `NotFound`, or `InvalidInput` for a version of another kind."""
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, identity)
    if row.kind not in ("data", "frame") or "parts" not in row.manifest:
        raise InvalidInput(f"{row.kind}/{row.name} is no table", hint="name a version of kind data")
    return row.manifest


def paths(ctx: Context, identity: str) -> list[Path]:
    """Local Parquet files that hold the rows of a version, in order. Raises `NotFound`."""
    return paths_of(ctx, manifest_of(ctx, identity))


def paths_of(ctx: Context, manifest: Mapping[str, Any]) -> list[Path]:
    """The same for a manifest that is at hand; a version that is pinned in a warehouse is fetched."""
    if "external" in manifest:
        warehouse = import_module("everloop.data.sources.warehouse")  # SQLAlchemy's drivers: only for who needs them
        return [warehouse.external_file(manifest, ctx.bindings, ctx.home / "cache")]
    logicals = [part["logical"] for part in manifest["parts"]]
    with ctx.read() as tx:
        placed = placements.resolve(tx, ctx.project, logicals)
    return part_paths(manifest, ctx.store, placed, ctx.home / "cache")


def part_paths(manifest: Mapping[str, Any], blobs: Blobs, placed: Mapping[str, str], folder: Path) -> list[Path]:
    """Local Parquet files of the parts of a manifest; what is not local, or stored as layers, is made in `folder`."""
    found = []
    for part in manifest["parts"]:
        identity = placed.get(part["logical"])
        if identity is None:
            raise NotFound(
                f"the bytes of part {part['logical']} are not here",
                hint="they were erased, or come from another workspace; `everloop verify` tells",
            )
        found.append(local_part(blobs, identity, folder, manifest))
    return found


def scan(files: list[Path], manifest: Mapping[str, Any]) -> pl.LazyFrame:
    """A lazy frame over the parts of a manifest."""
    columns = [name for name, _ in manifest["schema_fields"]]
    return pl.scan_parquet(files, glob=False, hive_partitioning=False).select(columns)


def scan_sql(files: list[Path]) -> str:
    """A table expression for DuckDB over local Parquet files."""
    listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    return f"read_parquet([{listed}], hive_partitioning = false)"


def tables(files: list[Path]) -> Iterator[pa.Table]:
    """The parts one after the other, in memory one at a time."""
    for file in files:
        yield pq.ParquetFile(file).read()
