"""Traces, assessments, evaluation datasets, scorers and webhooks."""

from everloop.catalog.migrations.r0002 import genai, webhooks

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create their tables; nothing that is there changes."""
    for area in (genai, webhooks):
        area.create()
