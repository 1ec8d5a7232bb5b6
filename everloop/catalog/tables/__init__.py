"""Every table of the catalog, on one `metadata`."""

from everloop.catalog.tables import (
    access,
    alarms,
    browsing,
    changes,
    core,
    genai,
    governance,
    operating,
    spending,
    tracking,
    trees,
)
from everloop.catalog.tables.columns import metadata

REVISION = "0012"
"""The newest migration; opening a catalog compares with it and loads Alembic only when it differs."""

__all__ = [
    "REVISION",
    "access",
    "alarms",
    "browsing",
    "changes",
    "core",
    "genai",
    "governance",
    "metadata",
    "operating",
    "spending",
    "tracking",
    "trees",
]
