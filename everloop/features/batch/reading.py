"""Rows of a view that reads views: each with the features that it reads, as known when the row became known.

They are written to files, a part at a time, and from there on are rows like any others: so a view over views is
computed by the code that computes every other view.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from everloop.core.clock import Micros
from everloop.core.errors import DataError
from everloop.features.batch.scan import Paths, column_types, listed, need, parquet, plain_sql, quoted, time_sql
from everloop.features.definitions import FeatureViewDef

KNOWN = "everloop_known"
ROWS_AT_ONCE = 1_000_000
"""Rows whose features are looked up together: in order of their known times, so that each part needs a part of time."""
AnswerAt = Callable[[pl.DataFrame], pl.DataFrame]
"""Rows -> the same rows with the features of the views that are read, as of the column `KNOWN`."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows of the source are needed."""

    known_before: Micros
    event_before: Micros | None = None
    event_since: Micros | None = None
    known_since: Micros | None = None
    entities: pl.DataFrame | None = None
    """Columns: the view's entity; None for all."""


def written(
    connection: duckdb.DuckDBPyConnection,
    view: FeatureViewDef,
    source: Paths,
    wanted: Wanted,
    *,
    answer: AnswerAt,
    folder: Path,
) -> list[Path]:
    """Files in `folder` with the columns that the view reads, of the rows that are wanted and can ever count."""
    made = []
    if listed(source):
        for number, rows in enumerate(_rows(connection, view, source, wanted)):
            path = folder / f"{view.name}-{number}.parquet"
            answer(rows).drop(KNOWN).write_parquet(path, compression="uncompressed")
            made.append(path)
    return made


def _rows(
    connection: duckdb.DuckDBPyConnection, view: FeatureViewDef, source: Paths, wanted: Wanted
) -> Iterator[pl.DataFrame]:
    table = parquet(source)
    types = column_types(connection, table)
    need(view, view.stored, types)
    event, known = (time_sql(view, name, types[name]) for name in (view.event_time, view.known_time or view.event_time))
    where = [f"{event} IS NOT NULL", f"{known} < {wanted.known_before}"]
    where += [f"{event} < {wanted.event_before}"] if wanted.event_before is not None else []
    where += [f"{event} >= {wanted.event_since}"] if wanted.event_since is not None else []
    where += [f"{known} >= {wanted.known_since}"] if wanted.known_since is not None else []
    join = ""
    if wanted.entities is not None:
        connection.register("asked", wanted.entities.to_arrow())
        join = "SEMI JOIN asked ON " + " AND ".join(f"s.{quoted(n)} = asked.{quoted(n)}" for n in view.entity)
    fields = ", ".join(f"{plain_sql(view, name, types[name])} AS {quoted(name)}" for name in view.stored)
    sql = f"SELECT {fields}, {known} AS {KNOWN} FROM {table} s {join} WHERE {' AND '.join(where)} ORDER BY {KNOWN}"  # noqa: S608 - names are quoted
    try:
        for batch in connection.sql(sql).to_arrow_reader(ROWS_AT_ONCE):
            if batch.num_rows:
                yield pl.DataFrame(pl.from_arrow(batch))
    except duckdb.Error as error:
        raise DataError(
            f"feature view {view.name}: source {view.source} cannot be read: {error}",
            hint="check the files and the types of " + ", ".join(view.stored),
        ) from error


def known_early(
    connection: duckdb.DuckDBPyConnection, view: FeatureViewDef, dataset: str, files: Sequence[str], before: Micros
) -> bool:
    """Whether a row of some files of a dataset, which the view or one that it reads uses, was known before a time."""
    mine = [v for v in every(view) if v.source == dataset]
    types = column_types(connection, parquet(files))
    for v in mine:
        name = v.known_time or v.event_time
        need(v, (name,), types)
        sql = f"SELECT 1 FROM {parquet(files)} s WHERE {time_sql(v, name, types[name])} < {before} LIMIT 1"  # noqa: S608 - quoted
        if connection.execute(sql).fetchone():
            return True
    return False


def every(view: FeatureViewDef) -> list[FeatureViewDef]:
    """The view and all that it reads."""
    return [view, *(one for read in view.reads for one in every(read))]
