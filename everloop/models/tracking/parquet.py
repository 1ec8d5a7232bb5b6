"""The head of a Parquet file, by PyArrow: the only reader of such bytes, in a process that can be spared."""

from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from everloop.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Head:
    """The first rows, and how many there are."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    total: int


def head(stream: BinaryIO, *, rows: int, columns: int) -> Head:
    """The first `rows` of the first `columns`; raises `DataError` for bytes that are no Parquet."""
    try:
        file = pq.ParquetFile(stream)
        fields = list(file.schema_arrow)[:columns]
        names = [field.name for field in fields]
        batch = next(file.iter_batches(batch_size=rows, columns=names), None)
        values = [[] for _ in names] if batch is None else [column.to_pylist() for column in batch.columns]
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"this is no Parquet file that can be read: {first}") from error
    return Head(
        tuple(names),
        tuple(str(field.type) for field in fields),
        tuple(zip(*values, strict=True)) if values else (),
        file.metadata.num_rows,
    )
