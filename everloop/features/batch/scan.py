"""Reading facts from Parquet by DuckDB: only the asked entities, only the columns and times that can matter."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from everloop.core.clock import Micros
from everloop.core.errors import DataError, DefinitionError
from everloop.features.batch.loading import Batch
from everloop.features.definitions import FeatureViewDef
from everloop.features.states.columns import Column, Ints
from everloop.features.states.facts import Facts, atoms_of, facts_of, key_words

Paths = str | Path | Sequence[str | Path]
ROWS_AT_ONCE = 250_000
_ZONED = ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS")
_TIMES = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", *_ZONED, "DATE")
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT")


@contextmanager
def engine(threads: int | None = None, memory: str = "1GB") -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB bounded in threads and memory; row order is free, for no result depends on it."""
    config: dict[str, Any] = {"memory_limit": memory, "preserve_insertion_order": "false"}
    if threads is not None:
        config["threads"] = threads
    connection = duckdb.connect(":memory:", config=config)
    try:
        yield connection
    finally:
        connection.close()


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def listed(paths: Paths) -> list[str]:
    """One path or several, as texts."""
    return [str(paths)] if isinstance(paths, str | Path) else [str(p) for p in paths]


def parquet(paths: Paths) -> str:
    """An SQL table expression over Parquet files."""
    files = ", ".join("'" + path.replace("'", "''") + "'" for path in listed(paths))
    return f"read_parquet([{files}], union_by_name = true)"


def column_types(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Column names and DuckDB types of a table expression. Raises `DataError` when it cannot be read."""
    try:
        rows = connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()  # noqa: S608 - `parquet` quotes
    except duckdb.Error as error:
        raise DataError(f"a source cannot be read: {error}", hint="are these Parquet files of one schema?") from error
    return {row[0]: row[1] for row in rows}


def entity_kind(dtype: str) -> str:
    """`text` or `whole`: what an entity column may be; anything else gives an empty text."""
    if dtype == "VARCHAR" or (dtype.startswith("ENUM") and dtype.endswith(")")):
        return "text"
    return "whole" if dtype in _WHOLE else ""


def need(view: FeatureViewDef, names: Sequence[str], types: Mapping[str, str]) -> None:
    """Raise `DataError` where the view's source lacks one of these columns."""
    for name in names:
        if name not in types:
            raise DataError(
                f"feature view {view.name}: source {view.source} has no column {name!r}",
                hint="it has " + ", ".join(types),
            )


class Scan:
    """Facts of one view in one set of Parquet files."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, view: FeatureViewDef, paths: Paths) -> None:
        """Check that the view's columns are there and have a usable type; reads no rows."""
        if not view.event_time:
            raise DefinitionError(f"feature view {view.name} has no event time", hint="call validate(dataset) first")
        self.connection = connection
        self._view = view
        self._table = parquet(paths)
        self.types = column_types(connection, self._table)
        need(view, view.columns, self.types)
        self._fields = {name: self._field(name) for name in view.columns}
        self._event, self._known = self._time(view.event_time), self._time(view.known_time or view.event_time)

    def asked(self, join: str, code: str, *, since: Micros | None, before: Micros) -> Iterator[Batch]:
        """Batches of facts of event time >= `since`, event and known time < `before`; ids are not made.

        `join` and `code` are SQL: what to join `s` (the source) with, and the integer to give with each fact.
        """
        wanted = [f"{self._event} >= {since}"] if since is not None else []
        wanted += [f"{self._event} < {before}", f"{self._known} < {before}"]
        for codes, columns in self._columns(join, code, wanted):
            facts, _ = facts_of(self._view, columns, ids=False)
            known = columns[self._view.known_time or self._view.event_time].values
            yield Batch(codes, facts, known, key_words(self._view, columns))

    def known(self, before: Micros, *, since: Micros | None = None) -> Iterator[tuple[Facts, Mapping[str, Column]]]:
        """Batches of (facts, columns) of known time < `before`, not before `since`, those of an entity together."""
        wanted = [f"{self._known} < {before}"]
        wanted += [f"{self._known} >= {since}"] if since is not None else []
        order = "ORDER BY " + ", ".join(f"s.{quoted(name)}" for name in self._view.entity)
        for _, columns in self._columns("", "0::BIGINT", wanted, order):
            yield facts_of(self._view, columns)[0], columns

    def _columns(
        self, join: str, code: str, wanted: Sequence[str], order: str = ""
    ) -> Iterator[tuple[Ints, Mapping[str, Column]]]:
        there = [f"{self._event} IS NOT NULL", f"{self._known} IS NOT NULL"]
        fields = ", ".join(f"{sql} AS c{i}" for i, sql in enumerate(self._fields.values()))
        where = " AND ".join([*there, *wanted])
        sql = f"SELECT {code} AS code, {fields} FROM {self._table} s {join} WHERE {where} {order}"  # noqa: S608 - names are quoted
        try:
            reader: pa.RecordBatchReader = self.connection.sql(sql).to_arrow_reader(ROWS_AT_ONCE)
            for batch in reader:
                columns = {name: _column(batch.column(f"c{i}")) for i, name in enumerate(self._fields)}
                yield _column(batch.column("code")).values, columns
        except duckdb.Error as error:
            raise DataError(
                f"feature view {self._view.name}: source {self._view.source} cannot be read: {error}",
                hint="check the files and the types of " + ", ".join(self._view.columns),
            ) from error

    def rows(self) -> int:
        """Rows in the source, from Parquet metadata."""
        counted = self.connection.execute(f"SELECT count(*) FROM {self._table}").fetchall()  # noqa: S608 - quoted paths
        return int(counted[0][0])

    def counts(self, join: str, code: str) -> dict[int, int]:
        """Facts for each code."""
        sql = f"SELECT {code}, count(*) FROM {self._table} s {join} GROUP BY 1"  # noqa: S608 - names are quoted
        return dict(self.connection.execute(sql).fetchall())

    def _time(self, name: str) -> str:
        return time_sql(self._view, name, self.types[name])

    def _field(self, name: str) -> str:
        view, dtype = self._view, self.types[name]
        if entity_kind(dtype) == "text" and name not in (*view.entity, *_read_by_features(view)):
            return f"md5_number_lower(s.{quoted(name)})"  # it is part of the id alone
        return plain_sql(view, name, dtype)


def time_sql(view: FeatureViewDef, name: str, dtype: str) -> str:
    """A time column of the table `s` as microseconds since 1970 UTC; raises `DataError`."""
    column = f"s.{quoted(name)}"
    if dtype in _ZONED:
        return f"epoch_us({column}::TIMESTAMPTZ)"
    if dtype in _TIMES:
        return f"epoch_us({column}::TIMESTAMP)"
    if dtype in _WHOLE:
        return f"{column}::BIGINT"
    raise DataError(
        f"feature view {view.name}: time column {name!r} is {dtype}",
        hint="a timestamp, a date, or integer microseconds since 1970 UTC",
    )


def plain_sql(view: FeatureViewDef, name: str, dtype: str) -> str:
    """A column of the table `s` as text, BIGINT or DOUBLE; raises `DataError` for any other."""
    column = f"s.{quoted(name)}"
    if name in (view.event_time, view.known_time) or dtype in _TIMES:
        return time_sql(view, name, dtype)
    if entity_kind(dtype) == "text":
        return f"{column}::VARCHAR"
    if dtype in _WHOLE or dtype == "BOOLEAN":
        return f"{column}::BIGINT"
    if dtype in ("FLOAT", "DOUBLE") or (dtype.startswith("DECIMAL") and dtype.endswith(")")):
        return f"{column}::DOUBLE"
    raise DataError(
        f"feature view {view.name}: column {name!r} is {dtype}",
        hint="numbers, text, booleans and times can be used",
    )


def _read_by_features(view: FeatureViewDef) -> set[str]:
    """Columns of which the values matter, and not only whether they are the same."""
    only_told_apart = {f.column for f in atoms_of(view) if f.function == "distinct" and f.expression is None}
    filters = [f.where for f in atoms_of(view) if f.where is not None]
    kept = [f for f in atoms_of(view) if f.function != "distinct" or f.expression is not None]
    valued = {c for f in kept for c in f.reads} | {c for w in filters for c in w.reads}
    return valued | {c for f in view.features for c in f.reads if c not in only_told_apart}


def _column(array: pa.Array) -> Column:
    valid = np.ones(len(array), bool) if not array.null_count else ~array.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        coded = array.dictionary_encode()
        codes = coded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        return Column(codes, valid, tuple(coded.dictionary.to_pylist()) or ("",))
    values = array.fill_null(0).to_numpy(zero_copy_only=False) if array.null_count else array.to_numpy()
    if values.dtype.kind == "f":
        valid &= ~np.isnan(values)
    return Column(values.astype(np.int64, copy=False) if values.dtype.kind == "i" else values, valid)
