"""What holds of every operation's command."""

import pytest

from everloop.catalog.operation import operations
from everloop.workspace.operations import load_operations

load_operations()
CHECKED_INSIDE = {"predictions.newest", "data.files"}
"""These refuse or cap it themselves, with words of their own."""
LIMITED = [op for op in operations().values() if "limit" in op.command.model_fields and op.name not in CHECKED_INSIDE]


def test_there_are_some():
    assert len(LIMITED) > 5


@pytest.mark.parametrize("op", LIMITED, ids=lambda op: op.name)
def test_a_limit_below_one_is_refused(op):
    """SQLite reads a negative limit as none, and PostgreSQL fails: it never gets there."""
    bounds = [getattr(rule, "ge", getattr(rule, "gt", None)) for rule in op.command.model_fields["limit"].metadata]
    assert any(bound is not None and bound >= 0 for bound in bounds), op.name
