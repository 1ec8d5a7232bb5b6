"""Puts this folder on the path, for the oracle and the strategies, and opens online stores for a module."""

import sys
from pathlib import Path

import pytest

from everloop.features.stores.lmdb import LmdbStore
from everloop.features.stores.redis import RedisStore

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def online(tmp_path_factory):
    opened = LmdbStore(tmp_path_factory.mktemp("online"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def stores(online, redis_url):
    """Both kinds: a folder, and a real server."""
    served = RedisStore(redis_url, prefix="both")
    yield online, served
    served.close()
