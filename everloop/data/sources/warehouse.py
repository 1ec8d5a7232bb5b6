"""A query that runs inside the warehouse (PostgreSQL), whose result is captured, or stays there as a pinned version.

The result becomes a table of the schema `everloop`, under a name that holds its digest. The digest is the warehouse's
own: the number of rows, and the sums of both halves of each row's MD5 over its text under fixed settings, so the order
of rows does not matter. It tells a table that changed; it is no proof against somebody who forges rows on purpose.
"""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from everloop.core.errors import Conflict, DataError, InvalidInput, NotFound
from everloop.core.ids import manifest_id
from everloop.core.version import Version
from everloop.data.codec import check_contract
from everloop.data.content.logical import RULE
from everloop.data.content.ordering import check_key
from everloop.data.content.schema import plain, plain_schema, schema_fields
from everloop.data.definitions import SourceDef
from everloop.data.sources.origins import SQL, Query
from everloop.data.sources.sql import Connected, SqlSource, declared_schema, failed

SCHEMA = "everloop"
"""The schema that holds our tables; it is made when it is not there."""
_SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}
_NAME = 40


@dataclass(frozen=True, slots=True)
class External:
    """A table of ours in a warehouse, as it was when it was made."""

    binding: str
    table: str
    rows: int
    digest: str

    def manifest(self) -> dict[str, Any]:
        """The field `external` of a version's manifest."""
        return {"binding": self.binding, "schema": SCHEMA, "table": self.table, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class WarehouseSource:
    """A query to push down, for the source `source`."""

    source: SourceDef
    query: Query
    bindings: Mapping[str, Any]

    def state(self) -> Mapping[str, Any]:
        """That of the state query; empty (always run) without one."""
        return SqlSource(SQL(self.query.binding, self.query.sql, self.query.state), self.bindings).state()

    def read(self) -> Generator[pa.RecordBatch]:
        """Record batches of the result; its table goes when they were read."""
        external, _ = self._made()
        try:
            yield from SqlSource(SQL(self.query.binding, _all(external.table)), self.bindings).read()
        finally:
            with _session(self.query.binding, self.bindings) as connection:
                connection.execute(sa.text(f"drop table if exists {_named(external.table)}"))

    def pinned(self) -> Version:
        """The version of a result that stays in the warehouse."""
        external, schema = self._made()
        contract, definition = self.source.contract, self.source.version()
        manifest = {
            "rule": RULE,
            "schema_fields": schema_fields(schema),
            "key": list(contract.key),
            "event_time": contract.event_time,
            "known_time": contract.known_time,
            "tags": dict(contract.tags),
            "cut": 0,
            "rows": external.rows,
            "parts": [],
            "external": external.manifest(),
        }
        return Version("data", self.source.name, manifest, (("source", definition.id),))

    def _made(self) -> tuple[External, pa.Schema]:
        """Run the query in the warehouse: the table, or one of the same content that is there, in one transaction."""
        making = f"making_{token_hex(8)}"
        with _session(self.query.binding, self.bindings) as connection:
            connection.execute(sa.text(f"create schema if not exists {SCHEMA}"))
            inner = self.query.sql.strip().rstrip(";").replace(":", r"\:")
            connection.execute(sa.text(f"create table {_named(making)} as {inner}"))
            schema = _schema(connection, making)
            check_contract(schema, self.source.contract, self.source.name)
            _check_keys(connection, making, schema, self.source.contract.key)
            rows, digest = _digest(connection, making, schema)
            short = re.sub(r"\W", "_", self.source.name.lower())[:_NAME]
            external = External(self.query.binding, f"{short}_{digest.removeprefix('b3:')[:16]}", rows, digest)
            there = connection.scalar(sa.text("select to_regclass(:t) is not null"), {"t": _named(external.table)})
            if there and _digest(connection, external.table, _schema(connection, external.table)) == (rows, digest):
                connection.execute(sa.text(f"drop table {_named(making)}"))
            else:  # one that somebody changed makes room
                connection.execute(sa.text(f"drop table if exists {_named(external.table)}"))
                connection.execute(sa.text(f'alter table {_named(making)} rename to "{external.table}"'))
        return external, schema


def external_file(manifest: Mapping[str, Any], bindings: Mapping[str, Any], cache: Path) -> Path:
    """The rows of a pinned version as a local Parquet file, fetched where they are not here yet.

    The warehouse is asked each time whether its table still is what was pinned. Raises `Conflict` when it changed,
    `NotFound` when it is gone, `InvalidInput` where this environment has no such binding.
    """
    pin = manifest["external"]
    path = cache / "external" / f"{pin['table']}-{pin['digest'].removeprefix('b3:')[:32]}.parquet"
    with _session(pin["binding"], bindings) as connection:
        connection.execute(sa.text("set transaction isolation level repeatable read, read only"))
        if connection.scalar(sa.text("select to_regclass(:t)"), {"t": _named(pin["table"])}) is None:
            raise NotFound(
                f"the table {SCHEMA}.{pin['table']} is gone from the warehouse {pin['binding']!r}",
                hint="capture the source again",
            )
        schema = _schema(connection, pin["table"])
        rows, digest = _digest(connection, pin["table"], schema)
        if (rows, digest) != (manifest["rows"], pin["digest"]):
            raise Conflict(
                f"the table {SCHEMA}.{pin['table']} in the warehouse {pin['binding']!r} changed since it was pinned:"
                f" it had {manifest['rows']} rows, now {rows} of other content",
                hint="capture the source again, which makes the table anew",
            )
        if not path.is_file():
            _fetch(connection, pin["table"], schema, path)
    return path


def _fetch(connection: sa.Connection, table: str, schema: pa.Schema, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{token_hex(4)}")
    try:
        with pq.ParquetWriter(partial, plain_schema(schema)) as writer:
            for batch in SqlSource.batches(connection, _all(table)):
                writer.write_table(plain(pa.Table.from_batches([batch])))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _session(binding: str, bindings: Mapping[str, Any]) -> Iterator[sa.Connection]:
    """One transaction in the warehouse, under the settings that digests rest on."""
    with Connected(binding, bindings.get(binding), read_only=False) as connection:
        if connection.dialect.name != "postgresql":
            raise InvalidInput(
                f"the binding {binding!r} is no warehouse that queries are pushed down to",
                hint="PostgreSQL is; el.SQL reads rows of any database",
            )
        try:
            with connection.begin():
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise failed(error) from error


def _settle(connection: sa.Connection) -> None:
    for name, value in _SETTINGS.items():
        connection.execute(sa.text("select set_config(:n, :v, true)"), {"n": name, "v": value})


def _schema(connection: sa.Connection, table: str) -> pa.Schema:
    return declared_schema(connection, f"{_all(table)} limit 0")


def _check_keys(connection: sa.Connection, table: str, schema: pa.Schema, key: Sequence[str]) -> None:
    if not key:
        return
    check_key(schema, key)
    quote = connection.dialect.identifier_preparer.quote
    columns = ", ".join(quote(name) for name in key)
    nulls = " or ".join(f"{quote(name)} is null" for name in key)
    if connection.scalar(sa.text(f"select exists (select 1 from {_named(table)} where {nulls})")):  # noqa: S608 - quoted
        raise DataError("rows hold a null in the key", hint="filter them in the query, or declare another key")
    query = f"select {columns} from {_named(table)} group by {columns} having count(*) > 1 limit 1"  # noqa: S608 - quoted
    twice = connection.execute(sa.text(query)).first()
    if twice is not None:
        shown = ", ".join(f"{name}={value!r}" for name, value in zip(key, twice, strict=True))
        raise DataError(f"two rows have the key {shown}", hint="drop duplicates in the query, or declare another key")


def _digest(connection: sa.Connection, table: str, schema: pa.Schema) -> tuple[int, str]:
    """Rows of a table, and the digest of its columns and rows."""
    _settle(connection)
    halves = ", ".join(
        f"coalesce(sum(('x' || substr(h, {start}, 16))\\:\\:bit(64)\\:\\:bigint\\:\\:numeric), 0)" for start in (1, 17)
    )
    rows = f"select md5(t\\:\\:text) as h from {_named(table)} as t"  # noqa: S608 - our own name
    count, first, second = connection.execute(sa.text(f"select count(*), {halves} from ({rows}) as hashes")).one()  # noqa: S608
    told = {"columns": schema_fields(schema), "rows": int(count), "sums": [str(int(first)), str(int(second))]}
    return int(count), manifest_id(told)


def _named(table: str) -> str:
    return f'{SCHEMA}."{table}"'


def _all(table: str) -> str:
    return f"select * from {_named(table)}"  # noqa: S608 - our own name
