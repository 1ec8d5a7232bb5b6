"""Rows that break an expectation, as a file to take away: masked for whoever asks, and no more than fit."""

import base64
import io
from collections.abc import Collection
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from everloop.catalog.context import Context
from everloop.catalog.versions import VersionRow
from everloop.core.errors import InvalidInput
from everloop.data.contracts.judging import failing_rows
from everloop.data.expect import MASK, Expectation
from everloop.data.sensitive.masking import hidden_of

MOST = 20_000
"""Rows in a file."""


@dataclass(frozen=True, slots=True)
class Handed:
    """A file of failing rows."""

    rows: int
    cut: bool
    """Whether there are more than it holds."""
    masked: tuple[str, ...]
    content: str
    """Its bytes in base64."""


def handed(ctx: Context, row: VersionRow, expectation: Expectation, format_: str, environment: str) -> Handed:
    """The failing rows as `csv` or `parquet`; raises `InvalidInput` for an expectation that tells none."""
    if format_ not in ("csv", "parquet"):
        raise InvalidInput(f"{format_!r} is no format of rows", hint="csv or parquet")
    found = failing_rows(ctx, row.id, expectation, environment=environment, limit=MOST + 1)
    if found is None:
        raise InvalidInput(
            f"{expectation} tells no rows", hint="it is about the table, or its function answered without rows"
        )
    hidden, known = hidden_of(ctx, row, environment), {name for name, _ in row.manifest["schema_fields"]}
    # a column that a custom function made may be made of a hidden one
    masked = {name for name in found.column_names if name in hidden or (hidden and name not in known)}
    table = _masked(found.slice(0, MOST), masked)
    content = _csv(table) if format_ == "csv" else _parquet(table)
    told = (found.num_rows > MOST, tuple(sorted(masked)), base64.b64encode(content).decode())
    return Handed(table.height, *told)


def _masked(table: pa.Table, columns: Collection[str]) -> pl.DataFrame:
    """Hidden columns are texts: a mask, or null where there is no value."""
    frame = pl.DataFrame(table)
    return frame.with_columns(
        pl.when(pl.col(name).is_null()).then(None).otherwise(pl.lit(MASK)).alias(name) for name in columns
    )


def _csv(frame: pl.DataFrame) -> bytes:
    """Text as others write it; nested values as JSON."""
    nested = [name for name, type_ in frame.schema.items() if type_.is_nested() or type_ == pl.Binary]
    plain = frame.with_columns(
        pl.Series(name, [None if v is None else str(v) for v in frame[name].to_list()], pl.String) for name in nested
    )
    return plain.write_csv().encode()


def _parquet(frame: pl.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.write_parquet(sink)
    return sink.getvalue()
