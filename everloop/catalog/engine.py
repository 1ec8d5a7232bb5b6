"""The database: opening it, and the two kinds of transaction.

A *read* sees one state of the database from its first query to its end, and cannot write. A *write* on SQLite starts
with `BEGIN IMMEDIATE`, so that it never fails half way for another writer; on PostgreSQL it is READ COMMITTED, and
every rule that needs more (compare-and-swap, claiming, sealing) says so by a condition or a lock in its own statement.
Transactions are short: nothing is hashed, fetched or computed inside that could be done before.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Engine, Executable, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from everloop.catalog.failures import translated
from everloop.catalog.migrations.schema import ensure
from everloop.core.errors import InvalidInput, NotFound, Unavailable

Tx = Connection
"""A transaction: what every function of the catalog takes first."""

BUSY_SECONDS = 30
"""How long a writer waits for another one before it gives up with `Unavailable`."""

_OPTIONS = {"preserve_rowcount": True}  # an INSERT that met a conflict must say that it inserted nothing


class Catalog:
    """An open database. Threads may share it; a forked child makes connections of its own."""

    def __init__(self, url: URL) -> None:
        """Prepare the pools; `open` is what connects."""
        self.url = url.render_as_string(hide_password=False)
        self.shown = url.render_as_string(hide_password=True)
        self.dialect = url.get_backend_name()
        self._readers, self._writers = _sqlite_engines(url) if self.dialect == "sqlite" else _postgresql_engines(url)
        self._pid = os.getpid()

    @classmethod
    def open(cls, url: str | Path) -> "Catalog":
        """Connect, bring the schema up to date, and return the catalog.

        `url` is a SQLAlchemy URL of SQLite or PostgreSQL, or the path of a SQLite file. Raises `InvalidInput` for
        another kind of database, `Unavailable` when it cannot be reached, `Conflict` when a newer Everloop made it.
        """
        catalog = cls(_parsed(url))
        with ExitStack() as stack:
            stack.callback(catalog.close)
            stack.enter_context(catalog._guarded())
            if catalog.dialect == "sqlite":
                _make_wal(Path(make_url(catalog.url).database or ""))
            ensure(catalog._writers)
            stack.pop_all()  # it is open: stays so
        return catalog

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A transaction that sees one state and cannot write."""
        self._mind_forks()
        with self._guarded(), self._readers.connect() as tx, tx.begin():
            yield tx

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A transaction that commits when the block ends and rolls back when it raises.

        Raises `Unavailable` when the database does not answer or stays locked, `StorageFull` when the disk is full, and
        `Conflict` with `details["retry"]` when PostgreSQL broke a deadlock: nothing was written, run the block again.
        """
        self._mind_forks()
        with self._guarded(), self._writers.begin() as tx:
            yield tx

    def close(self) -> None:
        """Close every connection of this process."""
        for engine in {self._readers, self._writers}:
            engine.dispose()

    def _mind_forks(self) -> None:
        if self._pid != os.getpid():
            for engine in {self._readers, self._writers}:
                engine.dispose(close=False)  # the connections are the parent's
            self._pid = os.getpid()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise translated(error, self.shown) from error
        except sqlite3.Error as error:  # from starting a transaction
            raise translated(DBAPIError("BEGIN", None, error), self.shown) from error
        except OverflowError as error:  # SQLite's driver says it before the database could
            raise InvalidInput("a number does not fit into 64 bits", hint="give it as text") from error
        except PoolTimeout as error:
            raise Unavailable(
                f"no connection to {self.shown} came free within {BUSY_SECONDS} s",
                hint="a transaction is open for too long, or is nested in another of the same thread",
            ) from error


def insert_into(tx: Tx, table: Table) -> postgresql.Insert:
    """An INSERT that offers `on_conflict_do_nothing` and `on_conflict_do_update`, the same on both databases."""
    return insert_for(tx.dialect.name, table)


@lru_cache(maxsize=64)
def insert_new(dialect: str, table: Table) -> Executable:
    """An INSERT that lets the rows be that are there; built once, for building costs more than running it."""
    return insert_for(dialect, table).on_conflict_do_nothing()


def insert_for(dialect: str, table: Table) -> postgresql.Insert:
    """The same by the name of the database, for a statement that is built once."""
    return cast("postgresql.Insert", sqlite.insert(table)) if dialect == "sqlite" else postgresql.insert(table)


def _parsed(url: str | Path) -> URL:
    text = str(url)
    try:
        parsed = make_url(text) if "://" in text else URL.create("sqlite", database=text)
    except ArgumentError as error:
        raise InvalidInput(f"{text!r} is not a database URL", hint="sqlite:///catalog.db or postgresql://…") from error
    match parsed.get_backend_name():
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise InvalidInput("a catalog lives in a file, not in memory", hint="sqlite:///path/to/catalog.db")
            return parsed.set(drivername="sqlite+pysqlite")
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise InvalidInput(f"{other!r} is not a database Everloop knows", hint="sqlite or postgresql")


def _sqlite_engines(url: URL) -> tuple[Engine, Engine]:
    arguments = {"check_same_thread": False, "timeout": BUSY_SECONDS, "isolation_level": None}
    readers = create_engine(
        url, connect_args=arguments, pool_size=8, max_overflow=24, pool_timeout=BUSY_SECONDS, execution_options=_OPTIONS
    )
    # one writer at a time is all that SQLite allows: threads queue for its connection instead of polling a lock
    writers = create_engine(
        url, connect_args=arguments, pool_size=1, max_overflow=0, pool_timeout=BUSY_SECONDS, execution_options=_OPTIONS
    )
    for engine, start, query_only in ((readers, "BEGIN", 1), (writers, "BEGIN IMMEDIATE", 0)):
        _on_connect(engine, query_only)
        _on_begin(engine, start)
    return readers, writers


def _on_connect(engine: Engine, query_only: int) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA query_only={query_only}")


def _on_begin(engine: Engine, start: str) -> None:
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute(start)  # straight to the driver: this is on the path of every transaction


def _make_wal(file: Path) -> None:
    """Switch the file to write-ahead logging, which lasts; two processes that start at once both may try."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{file.parent}: {error.strerror}", hint="choose another home or database") from error
    try:
        connection = sqlite3.connect(file, timeout=BUSY_SECONDS)
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise translated(DBAPIError("PRAGMA journal_mode=WAL", None, error), f"sqlite:///{file}") from error
    if mode != "wal":
        raise Unavailable(f"{file} cannot use a write-ahead log", hint="put the catalog on a local disk")


def _postgresql_engines(url: URL) -> tuple[Engine, Engine]:
    arguments: dict[str, Any] = {"connect_timeout": 10, "application_name": "everloop"}
    if "options" not in url.query:
        arguments["options"] = f"-c lock_timeout={BUSY_SECONDS}s -c idle_in_transaction_session_timeout=120s"
    try:
        engine = create_engine(
            url,
            connect_args=arguments,
            isolation_level="READ COMMITTED",
            pool_size=8,
            max_overflow=24,
            pool_timeout=BUSY_SECONDS,
            pool_pre_ping=True,
            execution_options=_OPTIONS,
        )
    except ModuleNotFoundError as error:
        raise Unavailable("the PostgreSQL driver is not installed", hint='pip install "everloop[postgres]"') from error
    readers = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return readers, engine


def snapshot(database: Path, copy: Path, *, holding: str) -> None:
    """Copy another program's SQLite file as it stands now, without writing to it or waiting for its writers.

    Raises `NotFound` where there is none, `InvalidInput` where it is no database with the table `holding`.
    """
    if not database.is_file():
        raise NotFound(f"there is no database {database}", hint="sqlite:///relative/path or sqlite:////absolute/path")
    try:
        source = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
        try:
            asked = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
            if source.execute(asked, (holding,)).fetchone() is None:
                raise InvalidInput(f"{database} holds no table {holding}", hint="is it the database that you mean?")
            target = sqlite3.connect(copy)
            try:
                source.backup(target)
            finally:
                target.close()
        finally:
            source.close()
    except sqlite3.DatabaseError as error:
        raise InvalidInput(
            f"{database} cannot be read: {error}", hint="is it an SQLite database, and whole?"
        ) from error
