from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from everloop.core.errors import InvalidInput
from everloop.features.stores.lmdb import LmdbStore
from everloop.features.stores.places import open_place, place_of, store_of
from everloop.features.stores.redis import RedisStore


def test_the_binding_of_the_environment_says_where(tmp_path, redis_url):
    assert place_of(tmp_path, "production") == str(tmp_path / "online")
    (tmp_path / "bindings.toml").write_text(
        f'[production]\nonline_store = "{redis_url}/1#team"\n[sandbox]\nonline_store = "{tmp_path}/own"\n'
    )
    served, own = store_of(tmp_path, "production"), store_of(tmp_path, "sandbox/ada/x")
    assert isinstance(served, RedisStore)
    assert isinstance(own, LmdbStore)
    assert store_of(tmp_path, "production") is served
    served.write("p/v", [(b"k", b"1")])
    other = open_place(f"{redis_url}/1#others")
    assert served.read([("p/v", [b"k"])]) == [[b"1"]]
    assert own.read([("p/v", [b"k"])]) == other.read([("p/v", [b"k"])]) == [[None]]
    for store in (served, own, other):
        store.close()


def test_an_unknown_store_is_refused(tmp_path):
    (tmp_path / "bindings.toml").write_text('["*"]\nonline_store = "cassandra://somewhere"\n')
    with pytest.raises(InvalidInput, match="cassandra:// is not known"):
        store_of(tmp_path, "production")


def test_threads_that_come_at_once_share_one(tmp_path):
    for number in range(20):
        home = tmp_path / str(number)
        home.mkdir()
        together = Barrier(8)

        def opened(_, home=home, together=together):
            together.wait(10)
            return store_of(home, "production")

        with ThreadPoolExecutor(8) as threads:
            stores = set(map(id, threads.map(opened, range(8))))
        assert len(stores) == 1
        store_of(home, "production").close()
