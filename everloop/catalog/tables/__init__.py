"""Every table of the catalog, on one `metadata`."""

from everloop.catalog.tables import access, alarms, changes, core, governance, operating, tracking
from everloop.catalog.tables.columns import metadata

REVISION = "0001"
"""The newest migration; opening a catalog compares with it and loads Alembic only when it differs."""

__all__ = ["REVISION", "access", "alarms", "changes", "core", "governance", "metadata", "operating", "tracking"]
