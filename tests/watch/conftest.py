import sys
from pathlib import Path

import pytest

from everloop.core.clock import DAY, ReplayClock

sys.path.insert(0, str(Path(__file__).parent))

from watch_world import BEGIN, World  # beside this file: the line above makes it importable


@pytest.fixture
def world(context_of, sqlite_catalog):
    """A trained model that serves from day 60 on, on the replay clock."""
    return World(context_of(sqlite_catalog, clock=ReplayClock(BEGIN + 60 * DAY)))
