import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from serving_house import Place  # beside this file: the line above makes it importable


@pytest.fixture
def place(tmp_path):
    """A workspace's serving folder; its gateways end with the test."""
    made = Place(tmp_path)
    yield made
    made.close()
