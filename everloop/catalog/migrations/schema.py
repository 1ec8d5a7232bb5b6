"""Bringing the schema up to date when a catalog is opened.

The usual case, a current schema, costs one query. Only otherwise is Alembic loaded, and then one process migrates while
the others that started at the same moment wait and find the work done.
"""

from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from everloop.catalog import migrations
from everloop.catalog.tables import REVISION

_LOCK = 0x65766C70  # any number, always the same: the advisory lock of migrations on PostgreSQL


def ensure(engine: Engine) -> None:
    """Migrate to the newest revision if the database is behind; `Conflict` when it is ahead of this code."""
    if revision(engine) == REVISION:
        return
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        migrations.upgrade(connection)


def revision(engine: Engine) -> str | None:
    """The revision that the database is at; None before the first migration."""
    with engine.connect() as connection:
        try:
            found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        except (OperationalError, ProgrammingError) as error:
            if "alembic_version" in str(error.orig):  # no such table
                return None
            raise
        return found
