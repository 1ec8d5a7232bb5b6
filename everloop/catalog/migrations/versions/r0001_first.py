"""The first schema: every table, an area at a time."""

from everloop.catalog.migrations.r0001 import access, alarms, changes, core, operating, tracking

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table; areas come in the order in which they refer to each other."""
    for area in (core, tracking, access, changes, operating, alarms):
        area.create()
