"""A query that is read from where the last capture stopped."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from everloop.core.errors import DataError
from everloop.data.sources.duck import DuckSource
from everloop.data.sources.sql import SqlSource


@dataclass(frozen=True, slots=True)
class CursorSource:
    """Rows from a value of the cursor on, that value's own rows too: others may have come to have it meanwhile."""

    inner: SqlSource | DuckSource
    start: Any = None
    """The last value that was seen; None reads everything."""
    seen: list[Any] = field(default_factory=list)
    """The greatest value so far, as far as it was read."""

    def state(self) -> Mapping[str, Any]:
        """That of the state query."""
        return self.inner.state()

    def since(self, reached: Mapping[str, str]) -> "CursorSource":
        """The same source from where another one `reached`."""
        value = _value(reached)
        return replace(self, start=value, seen=[value])

    def reached(self) -> dict[str, str]:
        """The greatest value of the cursor, as the catalog holds it; empty when there was none."""
        return _told(self.seen[-1]) if self.seen else {}

    def read(self) -> Generator[pa.RecordBatch]:
        """Record batches; raises `DataError` for a cursor that is no column, or has no order that can be kept."""
        name = self.inner.sql.cursor
        batches = self.inner.read() if self.start is None else self.inner.read_since(self._late())
        for batch in batches:
            if name not in batch.schema.names:
                raise DataError(f"the query answers no column {name!r}", hint="name the cursor among its columns")
            column = batch[name]
            if pa.types.is_floating(column.type) or pa.types.is_nested(column.type) or pa.types.is_boolean(column.type):
                raise DataError(
                    f"the cursor {name!r} is of type {column.type}", hint="a cursor is a time, an integer or text"
                )
            if column.null_count < len(column):
                # text has an order too, but no maximum in Arrow: the last when sorted
                top = column.take(pc.sort_indices(column, sort_keys=[("", "descending")])[:1])[0].as_py()
                self.seen[:] = [max([*self.seen, top])]
            yield batch

    def _late(self) -> Any:
        late = self.inner.sql.late
        if not late:
            return self.start
        if isinstance(self.start, datetime | date):
            return self.start - timedelta(seconds=late)
        if isinstance(self.start, int | Decimal):
            return self.start - late
        raise DataError("late= goes back from times and numbers", hint="this cursor is text: leave late= out")


def _told(value: Any) -> dict[str, str]:
    return {"type": type(value).__name__, "value": value.isoformat() if isinstance(value, date) else str(value)}


def _value(told: Mapping[str, str]) -> Any:
    kinds: Mapping[str, Any] = {
        "datetime": datetime.fromisoformat,
        "date": date.fromisoformat,
        "int": int,
        "Decimal": Decimal,
        "str": str,
    }
    return kinds[told["type"]](told["value"])
