"""Runs Alembic in a transaction that somebody else owns. Loaded only when a migration is needed."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from everloop.catalog.tables import REVISION
from everloop.core.errors import Conflict


def config_of(connection: Connection) -> Config:
    """Alembic's configuration for this folder and `connection`; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Bring the schema to `REVISION`; raises `Conflict` when the database knows a revision that we do not."""
    try:
        command.upgrade(config_of(connection), REVISION)
    except CommandError as error:
        raise Conflict(
            f"the catalog's schema is one that this Everloop does not know (it knows up to {REVISION}): {error}",
            hint="upgrade Everloop, or restore the catalog from before",
        ) from error


def head(connection: Connection) -> str | None:
    """The newest revision among the scripts."""
    return ScriptDirectory.from_config(config_of(connection)).get_current_head()
