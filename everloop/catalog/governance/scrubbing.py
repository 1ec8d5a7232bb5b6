"""Making the database forget what was deleted from it: pages and logs that still hold it are written anew.

SQLite: `secure_delete`, VACUUM (the file is built anew), and a checkpoint that empties the write-ahead log. PostgreSQL:
the planner's samples of values are dropped, VACUUM FULL builds every table anew, and the samples are made of what is
left. Its own write-ahead log and its base backups hold old rows until they are recycled, which the database's operator
decides (`wal_keep_size`, archives).
"""

import sqlite3
from pathlib import Path

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from everloop.catalog.engine import BUSY_SECONDS, Catalog
from everloop.catalog.failures import translated


def scrub(catalog: Catalog) -> str:
    """Rewrite the database; returns in words what may still hold deleted rows, empty when nothing does.

    Raises `Unavailable` when other transactions do not let go of it.
    """
    if catalog.dialect != "sqlite":
        return _scrub_postgresql(catalog)
    try:
        connection = sqlite3.connect(Path(make_url(catalog.url).database or ""), timeout=BUSY_SECONDS)
        try:
            connection.isolation_level = None
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute("VACUUM")
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise translated(DBAPIError("VACUUM", None, error), catalog.shown) from error
    return "the write-ahead log, until the readers that hold it end" if busy else ""


_STATISTICS = "DELETE FROM pg_statistic WHERE starelid >= 16384"
"""The samples of every table that is not the system's own; ANALYZE alone leaves those of a table that is empty now."""


def _is_superuser(connection: Connection) -> bool:
    return bool(connection.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")).scalar())


def _scrub_postgresql(catalog: Catalog) -> str:
    engine = create_engine(catalog.url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            whole = _is_superuser(connection)
            connection.execute(text(_STATISTICS if whole else "ANALYZE"))
            connection.execute(text("VACUUM FULL"))
            connection.execute(text("ANALYZE"))
            connection.execute(text("CHECKPOINT"))
    except DBAPIError as error:
        raise translated(error, catalog.shown) from error
    finally:
        engine.dispose()
    horizon = "PostgreSQL's write-ahead log and archives, until their segments are recycled"
    return horizon if whole else f"{horizon}; the planner's samples of tables that are empty now"
