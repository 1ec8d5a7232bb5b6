import subprocess
import sys
import threading

import pytest

from everloop.core.errors import InvalidInput, Unavailable
from everloop.features.stores.lmdb import LONGEST_KEY, LmdbStore
from everloop.testing.online_store import check_online_store


def test_it_is_an_online_store(tmp_path):
    check_online_store(lambda: LmdbStore(tmp_path), LmdbStore.close)


def test_the_map_grows_under_writes_and_under_readers_of_other_processes(tmp_path):
    store = LmdbStore(tmp_path, size=1 << 20)
    store.write("p/v", [(b"a", b"1")])
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with reader:
        assert reader.stdout.readline() == "1\n"
        store.write("p/v", [(b"%d" % i, bytes(100_000)) for i in range(50)])
        store.write("p/v", [(b"a", b"2")])
        reader.stdin.write("again\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "2\n"
    store.close()


READER = """
import sys
from pathlib import Path
from everloop.features.stores.lmdb import LmdbStore
store = LmdbStore(Path(sys.argv[1]), size=1 << 20, readonly=True)
print(store.read([("p/v", [b"a"])])[0][0].decode(), flush=True)
sys.stdin.readline()
print(store.read([("p/v", [b"a"])])[0][0].decode(), flush=True)
"""


def test_threads_read_and_write_while_the_map_grows(tmp_path):
    store = LmdbStore(tmp_path, size=1 << 18)
    errors = []

    def work(number):
        try:
            for i in range(50):
                store.write("p/v", [(b"%d-%d" % (number, i), bytes(5_000))])
                assert store.read([("p/v", [b"%d-%d" % (number, i)])])[0][0] == bytes(5_000)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert not errors


def test_what_happens_atomically_happens_wholly_or_not_at_all(tmp_path):
    store = LmdbStore(tmp_path)
    store.write("p/v", [(b"a", b"old")])

    def breaks_off():
        store.write("p/v", [(b"a", b"new")])
        assert store.read([("p/v", [b"a"])])[0] == [b"new"]
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError):
        store.atomically(breaks_off)
    assert store.read([("p/v", [b"a"])])[0] == [b"old"]
    store.close()


def test_a_reader_of_a_store_that_is_not_there_yet_finds_it_empty(tmp_path):
    store = LmdbStore(tmp_path / "new", readonly=True)
    assert store.read([("p/v", [b"a"])])[0] == [None]
    store.close()


def test_wrong_use_is_explained(tmp_path):
    store = LmdbStore(tmp_path)
    with pytest.raises(InvalidInput, match="too long"):
        store.write("p/v", [(b"k" * (LONGEST_KEY + 1), b"v")])
    with pytest.raises(Unavailable) as refused:
        LmdbStore(tmp_path)
    assert "one process opens it once" in refused.value.hint
    store.close()


def test_what_was_forgotten_is_nowhere_in_the_file_and_other_openers_change_over(tmp_path):
    here, beside = LmdbStore(tmp_path / "s"), LmdbStore(tmp_path / "other")
    beside.close()
    many = [(b"s%06d-person" % n, b"value-of-%06d" % n * 9) for n in range(3000)]
    here.write("p/v", many)
    program = (
        "import sys; from pathlib import Path; from everloop.features.stores.lmdb import LmdbStore\n"
        "store = LmdbStore(Path(sys.argv[1])); print(len(store.read([('p/v', [b's000007-person'])])[0]), flush=True)\n"
        "sys.stdin.readline(); store.write('p/v', [(b'late', b'1')])\n"
        "print(store.read([('p/v', [b's000007-person', b's000008-person', b'late'])])[0], flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "s")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "1\n"
        assert here.forget(["p/v"], lambda key: key == b"s000007-person") == 1
        said, _ = child.communicate("\n")
    assert said.strip() == str([None, dict(many)[b"s000008-person"], b"1"])
    assert here.read([("p/v", [b"late", b"s000007-person"])])[0] == [b"1", None]
    content = (tmp_path / "s" / "data.mdb").read_bytes()
    assert b"000007-person" not in content
    assert b"000008-person" in content
    here.close()
