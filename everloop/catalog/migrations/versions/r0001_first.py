"""The first schema: every table."""

from alembic import op

from everloop.catalog.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table that is declared."""
    metadata.create_all(op.get_bind())
