"""Batch: point-in-time training frames.

A frame answers each question (entity, time) with what was known then; it has as many rows as the spine.

DuckDB reads the facts of the entities that are asked for; `intervals` answers exactly in integers; `finalise` makes
the values. Order of rows, threads and splits of the sources cannot change a bit of the result.
"""

from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import polars as pl
import polars.selectors as cs

from everloop.core.errors import DataError
from everloop.features.batch.answers import Answer, Answers
from everloop.features.batch.intervals import Questions, by_entity_and_time
from everloop.features.batch.loading import Loaded, load
from everloop.features.batch.reading import KNOWN, Wanted, written
from everloop.features.batch.scan import Paths, Scan, engine, entity_kind, quoted
from everloop.features.definitions import FOREVER, Feature, FeatureServiceDef, FeatureViewDef, Output
from everloop.features.states.columns import Ints
from everloop.features.states.facts import atoms_of

DTYPES: dict[Output, pl.DataType] = {
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "text": pl.String(),
    "integers": pl.List(pl.Int64),
    "numbers": pl.List(pl.Float64),
    "texts": pl.List(pl.String),
}
"""What a feature's column in a frame is."""
_CODE = "everloop_entity_code"
FACTS_AT_ONCE = 5_500_000
"""Facts held in memory at a time (about 30 bytes each and 9 more for each column); more go entity by entity."""


def history(
    service: FeatureServiceDef,
    spine: pl.DataFrame,
    sources: Mapping[str, Paths],
    *,
    at: str,
    threads: int | None = None,
    memory: str = "1GB",
) -> pl.DataFrame:
    """The spine's rows in their order, with a column `<view>__<feature>` for every feature of the service.

    `at` names the spine's time column (UTC where it has no zone): the value of a feature is what was known strictly
    before it. `sources` gives the Parquet files of each dataset that the views, and those that they read, read.
    Windows without facts give 0 for count, 0.0 for sum, null for all others; so does a null entity. Raises
    `DataError` when a column is missing, a time is null, or types do not fit.
    """
    check(service, spine, sources, at)
    times = _times(spine, at)
    columns: list[pl.Series] = []
    with engine(threads, memory) as connection:
        for view in service.views:
            if not view.reads:
                columns += _view_columns(connection, view, spine, times, sources[view.source])
                continue
            with TemporaryDirectory(prefix="everloop-reads-") as folder:
                wanted = _wanted(view, spine, times)
                paths = rows_with_reads(connection, view, sources, wanted, Path(folder), threads=threads, memory=memory)
                columns += _view_columns(connection, view, spine, times, paths)
    return spine.with_columns(columns)


def rows_with_reads(
    connection: duckdb.DuckDBPyConnection,
    view: FeatureViewDef,
    sources: Mapping[str, Paths],
    wanted: Wanted,
    folder: Path,
    *,
    threads: int | None = None,
    memory: str = "1GB",
) -> list[Path]:
    """Files with the rows of a view that reads views; each with what `history` answers for it at its known time."""
    service = FeatureServiceDef(view.name, view.reads)

    def answer(rows: pl.DataFrame) -> pl.DataFrame:
        return history(service, rows, sources, at=KNOWN, threads=threads, memory=memory)

    return written(connection, view, sources[view.source], wanted, answer=answer, folder=folder)


def _wanted(view: FeatureViewDef, spine: pl.DataFrame, times: Ints) -> Wanted:
    """Rows that a question of the spine can see."""
    earliest, latest = (int(times.min()), int(times.max())) if len(times) else (0, 0)
    entities = spine.select(view.entity).with_columns(cs.by_dtype(pl.Categorical, pl.Enum).cast(pl.String))
    return Wanted(latest, latest, _since(view, earliest), entities=entities.drop_nulls().unique())


def check(service: FeatureServiceDef, spine: pl.DataFrame, sources: Mapping[str, Paths], at: str) -> None:
    """Refuse questions that cannot be answered (`DataError`): a column or source that is missing or there twice."""
    for name in (at, *service.entities):
        if name not in spine.columns:
            raise DataError(
                f"the spine has no column {name!r}",
                hint=f"service {service.name} is asked by "
                f"{', '.join((at, *service.entities))}; there are {', '.join(spine.columns) or 'none'}",
            )
    for view in service.views:
        for dataset in view.datasets:
            if dataset not in sources:
                raise DataError(f"no files for dataset {dataset!r}", hint=f"feature view {view.name} reads it")
        for name in view.outputs:
            if name in spine.columns:
                raise DataError(f"the spine already has a column {name!r}", hint="drop or rename it")


def _times(spine: pl.DataFrame, at: str) -> Ints:
    column = spine[at]
    if not (column.dtype.is_integer() or column.dtype in (pl.Date, pl.Datetime, pl.Null)):
        raise DataError(f"the spine's time column {at!r} is {column.dtype}", hint="a datetime, a date or microseconds")
    if column.null_count():
        raise DataError(f"{column.null_count()} questions have no time in {at!r}", hint="drop these rows first")
    if isinstance(column.dtype, pl.Datetime):
        column = column.dt.epoch("us")
    elif column.dtype == pl.Date:
        column = column.cast(pl.Datetime("us")).dt.epoch("us")
    return column.cast(pl.Int64).to_numpy()


def _view_columns(
    connection: duckdb.DuckDBPyConnection, view: FeatureViewDef, spine: pl.DataFrame, times: Ints, paths: Paths
) -> list[pl.Series]:
    whole = [_blank(f, len(times)) for f in view.features]
    if paths:
        _answer_into(whole, Scan(connection, view, paths), view, spine, times)
    return [
        pl.Series(name, values, nan_to_null=True)
        if values.dtype == np.float64
        else pl.Series(name, values if values.dtype == np.int64 else values.tolist(), DTYPES[f.output])
        for name, f, values in zip(view.outputs, view.features, whole, strict=True)
    ]


def _answer_into(whole: list[Answer], scan: Scan, view: FeatureViewDef, spine: pl.DataFrame, times: Ints) -> None:
    asked, codes = _entities(view, spine, scan)
    scan.connection.register("asked", asked.to_arrow())
    with_entity = np.flatnonzero(codes >= 0)
    order = with_entity[by_entity_and_time(codes[with_entity], times[with_entity])]
    code, at = codes[order], times[order]
    for low, high in _ranges(scan, _join(view), len(asked)):
        first, end = np.searchsorted(code, [low, high])
        part = Questions(code[first:end], at[first:end])
        answers = Answers(view, part, _load(scan, view, part, low, high))
        for values, feature in zip(whole, view.features, strict=True):
            values[order[first:end]] = answers.of(feature)
    scan.connection.unregister("asked")


def _blank(feature: Feature, rows: int) -> Answer:
    """The feature's values over nothing, in an array that its answers fit into."""
    if feature.output == "number":
        return np.full(rows, np.nan if feature.empty is None else feature.empty)
    if isinstance(feature.empty, int):
        return np.full(rows, feature.empty, np.int64)
    return np.fromiter(repeat(feature.empty, rows), object, rows)


def _entities(view: FeatureViewDef, spine: pl.DataFrame, scan: Scan) -> tuple[pl.DataFrame, Ints]:
    keys = spine.select(view.entity)
    for name in view.entity:
        kind = entity_kind(scan.types[name])
        dtype = keys[name].dtype
        if isinstance(dtype, pl.Categorical | pl.Enum):
            keys = keys.with_columns(pl.col(name).cast(pl.String))
        fits = dtype.is_integer() if kind == "whole" else dtype in (pl.String, pl.Categorical, pl.Enum)
        if not kind or not (fits or dtype == pl.Null):
            raise DataError(
                f"entity {name!r} is {dtype} in the spine and {scan.types[name]} in {view.source}",
                hint="an entity is text or an integer, the same on both sides",
            )
    asked = keys.drop_nulls().unique(maintain_order=True).with_row_index(_CODE)
    asked = asked.with_columns(pl.col(_CODE).cast(pl.Int64))
    coded = keys.join(asked, on=list(view.entity), how="left", maintain_order="left")
    return asked, coded[_CODE].fill_null(-1).to_numpy()


def _join(view: FeatureViewDef) -> str:
    return "JOIN asked ON " + " AND ".join(f"s.{quoted(n)} = asked.{quoted(n)}" for n in view.entity)


def _ranges(scan: Scan, join: str, entities: int) -> list[tuple[int, int]]:
    """Ranges of codes, each with about `FACTS_AT_ONCE` facts at most (one entity is never split)."""
    if scan.rows() <= FACTS_AT_ONCE:
        return [(0, entities)]
    counts = scan.counts(join, f"asked.{_CODE}")
    ranges, low, held = [], 0, 0
    for code in range(entities):
        held += counts.get(code, 0)
        if held > FACTS_AT_ONCE and code > low:
            ranges.append((low, code))
            low, held = code, counts.get(code, 0)
    return [*ranges, (low, entities)]


def _load(scan: Scan, view: FeatureViewDef, questions: Questions, low: int, high: int) -> Loaded:
    if not len(questions):
        return load(view, iter(()))
    earliest, latest = int(questions.at.min()), int(questions.at.max())
    join = _join(view) + f" AND asked.{_CODE} >= {low} AND asked.{_CODE} < {high}"
    return load(view, scan.asked(join, f"asked.{_CODE}", since=_since(view, earliest), before=latest))


def _since(view: FeatureViewDef, earliest: int) -> int | None:
    """The event time from which on a fact can still count at a time; None for any."""
    reach = max(FOREVER if f.window is None else f.window + f.hop for f in atoms_of(view))
    return None if reach >= FOREVER else earliest - reach
