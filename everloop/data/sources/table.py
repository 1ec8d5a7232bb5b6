"""Rows that the program has in memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from everloop.core.errors import InvalidInput
from everloop.data.codec import table_batches
from everloop.data.sources.origins import Table

_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class TableSource:
    """The table that an author handed to `el.Table`."""

    table: Table
    name: str

    def state(self) -> Mapping[str, Any]:
        """Empty: only its rows tell whether it changed."""
        return {}

    def read(self) -> Iterator[pa.RecordBatch]:
        """Record batches of the table; raises `InvalidInput` where the program that has it is another one."""
        rows = self.table.rows
        if rows is None:
            raise InvalidInput(
                f"the rows of {self.name} are given in the project's code", hint="capture it there: everloop run"
            )
        if type(rows).__module__.partition(".")[0] == "datasets":
            rows = _hugging_face(rows)
        schema, batches = table_batches(rows, self.name)
        yield pa.RecordBatch.from_pylist([], schema=schema)
        yield from batches


def _hugging_face(dataset: Any) -> Iterator[pa.RecordBatch]:
    """A `datasets` object by its own order (after `select`, `shuffle`), a batch at a time."""
    for table in dataset.with_format("arrow").iter(batch_size=_ROWS):
        yield from pa.table(table).to_batches()
