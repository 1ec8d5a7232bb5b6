"""A version in the form a person works in."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, overload

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds

from everloop.catalog.context import Context
from everloop.core.errors import InvalidInput
from everloop.data.codec import manifest_of, paths_of, scan, scan_sql
from everloop.data.engine import connect
from everloop.data.heads import find_version
from everloop.data.reading.conditions import Condition, Where, arrow_of, checked, duckdb_of, polars_of, pruned
from everloop.data.reading.streaming import Stream

Form = Literal["polars", "arrow", "batches", "pandas", "duckdb", "torch", "datasets"]


@overload
def read(
    ctx: Context,
    version: str,
    as_: Literal["polars"] = "polars",
    *,
    environment: str = "",
    columns: Sequence[str] | None = None,
    where: Where = (),
) -> pl.LazyFrame: ...


@overload
def read(
    ctx: Context,
    version: str,
    as_: Form,
    *,
    environment: str = "",
    columns: Sequence[str] | None = None,
    where: Where = (),
    **options: Any,
) -> Any: ...


def read(
    ctx: Context,
    version: str,
    as_: Form = "polars",
    *,
    environment: str = "",
    columns: Sequence[str] | None = None,
    where: Where = (),
    **options: Any,
) -> Any:
    """The rows of a version that meet all conditions `where`, in their order, with `columns` (default: all).

    `version` is an id, a name (its head in `environment`, else the newest), `name@7`, `name@staging` or
    `name@2026-01-31T12:00Z`. `as_` is

    - `polars`: a lazy frame; `duckdb`: a relation; neither has read anything yet;
    - `arrow`: a table; `pandas`: a frame (needs the library);
    - `batches`: an iterator of Arrow tables of bounded size, by the options of `Stream`;
    - `torch`: an IterableDataset of PyTorch's, `datasets`: one of Hugging Face's; both shuffled by `seed` and
      `epoch`, sharded and resumable: see `reading.torched.Rows` and `reading.hugging.dataset` for their options.

    Raises `NotFound` (no such version, bytes that are not here), `InvalidInput` (another column, form, condition).
    """
    if as_ not in _FORMS:
        raise InvalidInput(f"{as_!r} is no form to read in", hint="one of " + ", ".join(_FORMS))
    manifest = manifest_of(ctx, find_version(ctx, version, environment).id)
    wanted, conditions = checked(manifest, columns, where)
    parts = pruned(manifest, conditions) or manifest["parts"][:1]
    kept = {**manifest, "parts": parts}
    return _FORMS[as_](paths_of(ctx, kept), kept, wanted, conditions, **options)


def _polars(files: list[Path], manifest: Mapping[str, Any], columns: list[str], where: list[Condition]) -> pl.LazyFrame:
    frame = scan(files, manifest)
    return (frame.filter(polars_of(where)) if where else frame).select(columns)


def _arrow(files: list[Path], _manifest: Mapping[str, Any], columns: list[str], where: list[Condition]) -> pa.Table:
    return ds.dataset([str(file) for file in files]).to_table(columns=columns, filter=arrow_of(where))


def _pandas(files: list[Path], manifest: Mapping[str, Any], columns: list[str], where: list[Condition]) -> Any:
    return _arrow(files, manifest, columns, where).to_pandas()


def _duckdb(
    files: list[Path], _manifest: Mapping[str, Any], columns: list[str], where: list[Condition]
) -> duckdb.DuckDBPyRelation:
    relation = connect().sql(f"from {scan_sql(files)}")
    return relation.filter(duckdb_of(where)).select(*map(duckdb.ColumnExpression, columns))


def _stream(
    files: list[Path], _manifest: Mapping[str, Any], columns: list[str], where: list[Condition], **options: Any
) -> Stream:
    return Stream(tuple(files), tuple(columns), tuple(where), **options)


def _batches(*what: Any, size: int = 65_536, **options: Any) -> Any:
    return (table for table, _ in _stream(*what, **options).batches(size))


def _torch(*what: Any, batch: int = 0, **options: Any) -> Any:
    return import_module("everloop.data.reading.torched").Rows(_stream(*what, **options), batch)


def _datasets(*what: Any, shards: int = 16, **options: Any) -> Any:
    return import_module("everloop.data.reading.hugging").dataset(_stream(*what, **options), shards)


_FORMS: Mapping[str, Callable[..., Any]] = {
    "polars": _polars,
    "arrow": _arrow,
    "batches": _batches,
    "pandas": _pandas,
    "duckdb": _duckdb,
    "torch": _torch,
    "datasets": _datasets,
}
