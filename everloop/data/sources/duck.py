"""Rows of a query against a DuckDB file, which is only read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from everloop.core.errors import DataError, Unavailable
from everloop.core.ids import object_id
from everloop.data.engine import quoted
from everloop.data.sources.origins import SQL

_SCHEME = "duckdb:///"
_ROWS = 65_536


def is_duckdb(sql: SQL, bindings: Mapping[str, Any]) -> bool:
    """Whether the binding of a query names a DuckDB file."""
    return str(bindings.get(sql.binding, "")).startswith(_SCHEME)


@dataclass(frozen=True, slots=True)
class DuckSource:
    """A query and the file to run it in."""

    sql: SQL
    bindings: Mapping[str, Any]

    def state(self) -> Mapping[str, Any]:
        """The digest of what the state query answers; without one, of the file's size and time of change."""
        if self.sql.state:
            with self._connected() as engine:
                return {"rows": object_id(repr(engine.execute(self.sql.state).fetchall()).encode())}
        if self.sql.cursor or not self._path().is_file():
            return {}
        s = self._path().stat()
        return {"file": [str(s.st_size), str(s.st_mtime_ns), str(s.st_ino)]}

    def read(self) -> Iterator[pa.RecordBatch]:
        """Record batches of the answer, streamed."""
        return self._answer(self.sql.query, [])

    def read_since(self, value: Any) -> Iterator[pa.RecordBatch]:
        """Those of rows whose cursor is at `value`, after it, or null."""
        return self._answer(self.sql.since(quoted(self.sql.cursor), "?"), [value])

    def _answer(self, query: str, values: list[Any]) -> Iterator[pa.RecordBatch]:
        with self._connected() as engine:
            answer = engine.sql(query, params=values)
            if answer is None:
                raise DataError("the query answers no rows", hint="write a select")
            reader = answer.to_arrow_reader(_ROWS)
            yield pa.RecordBatch.from_pylist([], schema=reader.schema)
            yield from reader

    def _path(self) -> Path:
        return Path(str(self.bindings[self.sql.binding]).removeprefix(_SCHEME.removesuffix("/")))

    @contextmanager
    def _connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            engine = duckdb.connect(str(self._path()), read_only=True)
        except duckdb.Error as error:
            raise Unavailable(
                f"the DuckDB file of the binding {self.sql.binding!r} cannot be opened ({type(error).__name__})",
                hint="check that it is there, and that no other process writes it",
            ) from None
        try:
            engine.execute("set TimeZone = 'UTC'")
            yield engine
        except duckdb.Error as error:
            text = " ".join(str(error).split())
            hint = "run the query in the database's own client to correct it"
            raise DataError(f"the query failed: {text}", hint=hint) from error
        finally:
            engine.close()
