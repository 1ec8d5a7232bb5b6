"""The served store against real Redis servers: gone, back, full, and shared by many writers."""

import subprocess
import sys
import threading
import time

import pytest
import redis
import redis_house

from everloop.core.errors import Conflict, InvalidInput, StorageFull, Unavailable
from everloop.features.stores.redis import RedisStore
from everloop.testing.online_store import check_online_store

SPACE = "flights/production/b3:view"


def test_it_is_an_online_store(redis_url):
    check_online_store(lambda: RedisStore(redis_url, prefix="conformance"), RedisStore.close)


def test_a_read_of_several_spaces_is_one_round_trip(redis_url):
    store = RedisStore(redis_url)
    store.write("p/a", [(b"k", b"1")])
    with redis.Redis.from_url(redis_url) as watcher:
        before = watcher.info("stats")["total_reads_processed"]
        found = store.read([("p/a", [b"k", b"w"]), ("p/b", [b"k", b"w"])])
        after = watcher.info("stats")["total_reads_processed"]
    assert found == [[b"1", None], [None, None]]
    assert after - before == 2  # ours, and the watcher's second question
    store.close()


def test_a_server_that_is_gone_is_said_and_one_that_is_back_is_used_again(tmp_path):
    with redis_house.serving(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        store = RedisStore(server.url, timeout=1.0)
        store.write(SPACE, [(b"a", b"1")])
        server.kill()
        with pytest.raises(Unavailable, match="does not answer") as told:
            store.read([(SPACE, [b"a"])])
        assert "is the server running" in told.value.hint
        with pytest.raises(Unavailable):
            store.atomically(lambda: store.write(SPACE, [(b"a", b"2")]))
        server.start()
        assert store.read([(SPACE, [b"a"])]) == [[b"1"]]
        server.kill()
        server.start()  # nothing was asked meanwhile: the kept connection is dead and nobody knows yet
        assert store.read([(SPACE, [b"a"])]) == [[b"1"]]
        store.close()


def test_a_server_that_hangs_is_asked_again_only_after_a_rest(tmp_path):
    with redis_house.serving(tmp_path) as server:
        store = RedisStore(server.url, timeout=0.5, rest=0.5)
        store.read([(SPACE, [b"a"])])
        server.hang()
        with pytest.raises(Unavailable, match="does not answer"):
            store.read([(SPACE, [b"a"])])
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(Unavailable):
                store.read([(SPACE, [b"a"])])
        assert time.monotonic() - began < 25  # if each had asked, they would have waited fifty seconds
        server.resume()
        time.sleep(0.5)
        assert store.read([(SPACE, [b"a"])]) == [[None]]
        store.close()


@pytest.mark.parametrize("values", [1, 3])
def test_a_full_server_refuses_and_keeps_what_it_had(tmp_path, values):
    with redis_house.serving(tmp_path) as server, redis.Redis.from_url(server.url) as admin:
        store = RedisStore(server.url)
        store.write(SPACE, [(b"a", b"old")])
        admin.config_set("maxmemory", 1000)

        def act():
            store.write(SPACE, [(b"a", b"new"), *((b"%d" % i, bytes(100)) for i in range(values * 8_000))])

        with pytest.raises(StorageFull, match="full"):
            store.atomically(act)
        assert store.read([(SPACE, [b"a", b"1"])]) == [[b"old", None]]
        store.close()


def test_an_evicted_space_is_gone_as_a_whole(tmp_path):
    with redis_house.serving(tmp_path, "--maxmemory", "8mb", "--maxmemory-policy", "allkeys-random") as server:
        store = RedisStore(server.url)
        for space in range(40):
            store.write(f"p/{space}", [(b"w", b"1"), *((b"s%d" % i, bytes(1000)) for i in range(500))])
        whole = [store.read([(f"p/{n}", [b"w", b"s0", b"s499"])])[0] for n in range(40)]
        assert [None, None, None] in whole
        assert all(values in ([None] * 3, [b"1", bytes(1000), bytes(1000)]) for values in whole)
        store.close()


WRITER = """
import sys
from everloop.features.stores.redis import RedisStore
store = RedisStore(sys.argv[1], prefix="writers")
keys = [b"%d" % n for n in range(3)]
def add():
    (counts,) = store.read([("p/v", keys)])
    store.write("p/v", [(key, b"%d" % (int(count or 0) + 1)) for key, count in zip(keys, counts)])
for _ in range(int(sys.argv[2])):
    store.atomically(add)
"""


def test_processes_that_write_the_same_keys_lose_nothing(redis_url):
    running = [subprocess.Popen([sys.executable, "-c", WRITER, redis_url, "200"]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    store = RedisStore(redis_url, prefix="writers")
    assert store.read([("p/v", [b"0", b"1", b"2"])]) == [[b"600"] * 3]
    store.close()


def test_an_act_that_never_meets_what_it_read_gives_up(redis_url, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    store, other = (RedisStore(redis_url, prefix="conflict") for _ in range(2))
    turns = iter(range(1000))

    def act():
        store.read([("p/v", [b"a"])])
        done = threading.Thread(target=other.write, args=("p/v", [(b"a", b"%d" % next(turns))]))
        done.start()
        done.join()
        store.write("p/v", [(b"a", b"mine")])

    with pytest.raises(Conflict, match="without end"):
        store.atomically(act)
    assert store.read([("p/v", [b"a"])]) != [[b"mine"]]
    store.close()
    other.close()


def test_an_act_of_more_than_one_call_happens_wholly_or_not_at_all(redis_url):
    store, other = (RedisStore(redis_url, prefix="many") for _ in range(2))
    keys = [b"%d" % number for number in range(45_000)]
    tries = []

    def act():
        (held,) = store.read([("p/v", keys)])
        if not tries:
            other.write("p/v", [(keys[-1], b"meanwhile")])
        tries.append(held[-1])
        store.write("p/v", [(key, (value or b"") + b"!") for key, value in zip(keys, held, strict=True)])

    store.atomically(act)
    assert tries == [None, b"meanwhile"]
    assert store.read([("p/v", [keys[0], keys[30_000], keys[-1]])]) == [[b"!", b"!", b"meanwhile!"]]
    with redis.Redis.from_url(redis_url) as admin:
        assert not admin.keys("many:refused:*")
    store.close()
    other.close()


def test_what_was_forgotten_is_not_in_the_servers_files(tmp_path):
    words = ("--appendonly", "yes", "--save", "3600 1")
    with redis_house.serving(tmp_path, *words) as server, redis.Redis.from_url(server.url) as admin:
        store = RedisStore(server.url)
        store.write(SPACE, [(b"s%06d-person" % n, b"1") for n in range(3000)])
        admin.save()
        assert store.forget([SPACE], lambda key: key == b"s000007-person") == 1
        for _ in range(200):
            told = admin.info("persistence")
            if not (told["aof_rewrite_in_progress"] or told["rdb_bgsave_in_progress"] or told["aof_rewrite_scheduled"]):
                break
            time.sleep(0.05)
        server.kill()
        content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert b"000008-person" in content
        assert b"000007-person" not in content
        store.close()


def test_wrong_addresses_are_explained(redis_url):
    with pytest.raises(InvalidInput, match="URL"):
        RedisStore("http://nowhere")
    with redis.Redis.from_url(redis_url) as admin:
        admin.set("taken:p/v", "a text")
    store = RedisStore(redis_url, prefix="taken")
    with pytest.raises(Unavailable, match="refuses"):
        store.read([("p/v", [b"a"])])
    store.close()
