"""Rows of a query, by SQLAlchemy, from the database that the environment's binding names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa
import sqlalchemy as sa

from everloop.core.errors import DataError, InvalidInput, Unavailable
from everloop.core.ids import object_id
from everloop.data.definitions import SQL

_ROWS = 20_000
_POSTGRESQL: Mapping[int, pa.DataType] = {
    16: pa.bool_(),
    17: pa.large_binary(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    25: pa.large_string(),
    114: pa.large_string(),
    700: pa.float32(),
    701: pa.float64(),
    1042: pa.large_string(),
    1043: pa.large_string(),
    1082: pa.date32(),
    1083: pa.time64("us"),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", "UTC"),
    1186: pa.duration("us"),
    2950: pa.large_string(),
    3802: pa.large_string(),
}
"""Arrow's type for PostgreSQL's type codes (catalogue pg_type); others are inferred from the values."""


@dataclass(frozen=True, slots=True)
class SqlSource:
    """A query and where to run it; the URL is a secret and never shows in an error."""

    sql: SQL
    bindings: Mapping[str, Any]

    def state(self) -> Mapping[str, Any]:
        """The digest of what the state query answers; empty (always read) without one."""
        if not self.sql.state:
            return {}
        with self._connect() as connection:
            rows = [tuple(row) for row in self._run(connection, sa.text(_escaped(self.sql.state)))]
        return {"rows": object_id(repr(rows).encode())}

    def read(self) -> Iterator[pa.RecordBatch]:
        """Record batches; PostgreSQL streams them, other databases' types are settled over the whole answer."""
        return self._answer(None)

    def read_since(self, value: Any) -> Iterator[pa.RecordBatch]:
        """Those of rows whose cursor is at `value`, after it, or null."""
        return self._answer(value)

    def _answer(self, since: Any) -> Iterator[pa.RecordBatch]:
        with self._connect() as connection:
            streamed = connection.execution_options(stream_results=True, yield_per=_ROWS)
            if since is None:
                result = self._run(streamed, sa.text(_escaped(self.sql.query)))
            else:
                column = connection.dialect.identifier_preparer.quote(self.sql.cursor)
                query = self.sql.since(column, "@everloop_since@")
                text = _escaped(query).replace("@everloop_since@", ":everloop_since")
                result = self._run(streamed, sa.text(text), {"everloop_since": since})
            yield from self._batches(connection, result)

    @classmethod
    def batches(cls, connection: sa.Connection, query: str) -> Iterator[pa.RecordBatch]:
        """Record batches of a query on a connection that is open."""
        streamed = connection.execution_options(stream_results=True, yield_per=_ROWS)
        yield from cls._batches(streamed, streamed.execute(sa.text(query)))

    @staticmethod
    def _batches(connection: sa.Connection, result: sa.CursorResult[Any]) -> Iterator[pa.RecordBatch]:
        names = list(result.keys())
        types = _declared(connection, result)
        batches = (_batch(names, rows, types) for rows in result.partitions(_ROWS))
        try:
            if all(type_ is not None for type_ in types):
                yield pa.RecordBatch.from_pylist([], schema=_schema(names, types))
                yield from batches
            else:
                yield from _settled(names, list(batches))
        except sa.exc.SQLAlchemyError as error:
            raise failed(error) from error

    def _connect(self) -> "Connected":
        return Connected(self.sql.binding, self.bindings.get(self.sql.binding))

    def _run(
        self, connection: sa.Connection, query: sa.TextClause, values: Mapping[str, Any] | None = None
    ) -> sa.CursorResult[Any]:
        try:
            return connection.execute(query, values)
        except sa.exc.SQLAlchemyError as error:
            raise failed(error) from error


def _escaped(query: str) -> str:
    """The author's query without SQLAlchemy's parameters in it."""
    return query.replace(":", r"\:")


class Connected:
    """A connection to the binding's database, read only where the database can."""

    def __init__(self, binding: str, url: Any, *, read_only: bool = True) -> None:
        """Remember where; raises `InvalidInput` where the environment says none."""
        if not isinstance(url, str) or not url:
            raise InvalidInput(
                f"this environment has no binding {binding!r}",
                hint="set it in the environment's bindings to the URL of a database",
            )
        self._binding = binding
        self._url = url
        self._read_only = read_only
        self._engine: sa.Engine | None = None
        self._connection: sa.Connection | None = None

    def __enter__(self) -> sa.Connection:
        """Connect; raises `InvalidInput` for a wrong URL, `Unavailable` when nobody answers."""
        try:
            url = sa.make_url(self._url)
            self._engine = sa.create_engine(url, poolclass=sa.NullPool)
            self._connection = self._engine.connect()
            if self._read_only and self._connection.dialect.name == "postgresql":
                self._connection = self._connection.execution_options(postgresql_readonly=True)
        except (sa.exc.ArgumentError, ImportError) as error:
            raise InvalidInput(
                f"the binding {self._binding!r} is no URL of a database that can be opened",
                hint="for example postgresql+psycopg://user@host/database, and its driver installed",
            ) from error
        except sa.exc.SQLAlchemyError as error:
            raise Unavailable(
                f"the database of the binding {self._binding!r} does not answer ({type(error).__name__})",
                hint="check that it runs, and the user and password of the binding",
            ) from None
        return self._connection

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.close()
        if self._engine is not None:
            self._engine.dispose()


def failed(error: sa.exc.SQLAlchemyError) -> DataError:
    """What the database said, as an error of ours."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split())
    return DataError(f"the query failed: {text}", hint="run the query in the database's own client to correct it")


def _declared(connection: sa.Connection, result: sa.CursorResult[Any]) -> list[pa.DataType | None]:
    """Types that the database declares for the answer's columns; None where it does not say."""
    description: Sequence[Any] = result.cursor.description if result.cursor is not None else ()
    if connection.dialect.name != "postgresql" or not description:
        return [None] * len(result.keys())
    return [_postgresql_type(column) for column in description]


def _postgresql_type(column: Any) -> pa.DataType | None:
    if column.type_code == 1700:  # numeric
        precision, scale = getattr(column, "precision", None), getattr(column, "scale", None)
        return pa.decimal128(precision, scale) if precision and precision <= 38 and scale is not None else None
    return _POSTGRESQL.get(column.type_code)


def declared_schema(connection: sa.Connection, query: str) -> pa.Schema:
    """The schema of a query's answer, where the database declares every type; raises `DataError`."""
    result = connection.execute(sa.text(query))
    names, types = list(result.keys()), _declared(connection, result)
    unknown = next((name for name, type_ in zip(names, types, strict=True) if type_ is None), None)
    if unknown is not None:
        raise DataError(
            f"column {unknown!r} is of a type that cannot be pinned", hint="cast it in the query, say to numeric(18, 4)"
        )
    return _schema(names, types)


def _schema(names: list[str], types: Sequence[pa.DataType | None]) -> pa.Schema:
    return pa.schema(list(zip(names, types, strict=True)))


def _batch(names: list[str], rows: Sequence[Any], types: Sequence[pa.DataType | None]) -> pa.RecordBatch:
    arrays = []
    for index, (name, type_) in enumerate(zip(names, types, strict=True)):
        values = [_plain_value(row[index]) for row in rows]
        try:
            arrays.append(pa.array(values, type=type_))
        except (pa.ArrowException, OverflowError) as error:
            raise _unsettled(name, error) from error
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _plain_value(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, dict | list):
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    if isinstance(value, Decimal) and not value.is_finite():
        raise DataError("the query answers a decimal that is no number", hint="cast the column in the query")
    return bytes(value) if isinstance(value, memoryview) else value


def _settled(names: list[str], batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    if not batches:
        yield pa.RecordBatch.from_pylist([], schema=_schema(names, [pa.null()] * len(names)))
        return
    try:
        schema = pa.unify_schemas([batch.schema for batch in batches], promote_options="permissive")
        yield from (batch.cast(schema) for batch in batches)
    except pa.ArrowException as error:
        raise _unsettled("", error) from error


def _unsettled(name: str, error: BaseException) -> DataError:
    which = f"column {name!r}" if name else "a column"
    return DataError(
        f"{which} of the query's answer has values of several types: {error}", hint="cast the column in the query"
    )
