"""Puts this folder on the path, for the oracle and the strategies, and opens one online store for a module."""

import sys
from pathlib import Path

import pytest

from everloop.features.stores.lmdb import LmdbStore

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def online(tmp_path_factory):
    opened = LmdbStore(tmp_path_factory.mktemp("online"))
    yield opened
    opened.close()
