"""The store in a folder: what is put is got, verified, swept with care; a full disk leaves nothing."""

import os
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import CorruptObject, DataError, InvalidInput, NotFound, Unavailable
from everloop.core.ids import object_id
from everloop.core.ports import Blobs
from everloop.store import DirectoryStore, open_store, transfer

ABSENT = "b3:" + "0" * 64


def everything(store):
    return sorted(path for path in store.root.rglob("*") if path.is_file() and path.name != "lock")


def test_the_store_is_what_the_port_asks_for(store):
    blobs: Blobs = store
    assert blobs.get(blobs.put(b"x")) == b"x"


@given(content=st.binary(max_size=3000))
def test_what_is_put_is_got(store, content):
    identity = store.put(content)
    assert identity == object_id(content)
    assert store.get(identity) == content
    with store.open(identity) as stream:
        assert stream.read() == content
    assert store.path(identity).read_bytes() == content
    assert store.has(identity)
    assert store.size(identity) == len(content)
    assert store.verify(identity)


def test_every_way_to_put_gives_the_same_object(store, tmp_path):
    content = os.urandom(3 << 20)
    file = tmp_path / "file"
    file.write_bytes(content)
    identities = {store.put(content), store.put_file(file)}
    with file.open("rb") as stream:
        identities.add(store.put_stream(stream))
    other = DirectoryStore(tmp_path / "other", fsync=True)
    identities.add(other.put_file(file, move=True))
    assert identities == {object_id(content)}
    assert not file.exists()
    assert other.get(object_id(content)) == content
    assert len(everything(store)) == len(everything(other)) == 1


def test_a_moved_file_is_out_of_its_writers_reach_and_a_copied_one_is_not_linked(store, tmp_path):
    file, linked = tmp_path / "file", tmp_path / "linked"
    file.write_bytes(b"one")
    identity = store.put_file(file)
    file.write_bytes(b"two")
    assert store.get(identity) == b"one"
    os.utime(file, (1, 1))
    moved = store.put_file(file, move=True)
    assert store.path(moved).stat().st_mtime > 1000  # not the old time: a sweep would take it
    file.write_bytes(b"three")
    linked.hardlink_to(file)
    identity = store.put_file(file, move=True)
    linked.write_bytes(b"four")  # a second name of a file that was given away
    assert store.get(identity) == b"three"


def test_objects_are_read_only(store):
    assert store.path(store.put(b"x")).stat().st_mode & 0o777 == 0o444


def test_what_is_absent_is_not_found(store, tmp_path):
    for call in (store.get, store.open, store.size):
        with pytest.raises(NotFound) as caught:
            call(ABSENT)
        assert caught.value.hint
    assert store.path(ABSENT) is None
    assert not store.has(ABSENT)
    assert not store.verify(ABSENT)
    with pytest.raises(NotFound):
        store.put_file(tmp_path / "absent")
    with pytest.raises(DataError):
        store.put_file(tmp_path)


@pytest.mark.parametrize("identity", ["../../etc/passwd", "b3:..", "", "b3:" + "G" * 64])
def test_what_is_no_id_reaches_no_file(store, identity):
    for call in (store.get, store.open, store.has, store.path, store.verify, store.size):
        with pytest.raises(InvalidInput):
            call(identity)


def test_damaged_bytes_are_never_given(store):
    identity = store.put(b"good")
    file = store.path(identity)
    file.chmod(0o644)
    file.write_bytes(b"evil")
    for call in (store.get, store.open, store.path):
        with pytest.raises(CorruptObject) as caught:
            call(identity)
        assert caught.value.hint
    assert not store.verify(identity)


def test_an_object_cut_short_is_written_again(store):
    identity = store.put(b"whole")
    file = store.path(identity)
    file.chmod(0o644)
    file.write_bytes(b"")  # what a fall of the machine leaves
    assert store.put(b"whole") == identity
    assert store.get(identity) == b"whole"


def test_a_full_disk_leaves_nothing(store, tmp_path):
    # a limit of the process stands for the end of the disk: the write comes back with an error half way
    program = """
import resource, signal, sys
from pathlib import Path
from everloop.core.errors import StorageFull
from everloop.store import DirectoryStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = DirectoryStore(Path(sys.argv[1]))
small = store.put(b"small")
Path(sys.argv[2]).write_bytes(b"y" * 200_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for put in (lambda: store.put(b"x" * 200_000), lambda: store.put_file(Path(sys.argv[2]))):
    try:
        put()
    except StorageFull as error:
        assert error.hint
    else:
        raise SystemExit("it did not notice")
assert store.get(small) == b"small"
assert store.get(store.put(b"also small")) == b"also small"
"""
    command = [sys.executable, "-c", program, str(store.root), str(tmp_path / "big")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(everything(store)) == 2


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(Unavailable) as caught:
        DirectoryStore(tmp_path / "file" / "objects")
    assert caught.value.hint


def test_many_threads_may_put_the_same_object(store):
    contents = [os.urandom(50_000) for _ in range(5)]

    def work():
        for content in contents:
            assert store.get(store.put(content)) == content

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(everything(store)) == 5
    assert list(store.ids()) == sorted(map(object_id, contents))


def test_a_writer_that_dies_leaves_no_object(store):
    program = """
import os, sys
from pathlib import Path
from everloop.store import DirectoryStore
class Stream:
    def read(self, size):
        self.count = getattr(self, "count", 0) + 1
        if self.count > 3:
            os._exit(9)
        return b"x" * size
DirectoryStore(Path(sys.argv[1])).put_stream(Stream())
"""
    assert subprocess.run([sys.executable, "-c", program, str(store.root)], check=False).returncode == 9
    assert list(store.ids()) == []
    assert store.sweep(lambda _: False, older_than_seconds=60).leftovers == 0
    time.sleep(0.01)
    assert store.sweep(lambda _: False, older_than_seconds=0).leftovers == 1
    assert everything(store) == []


def test_a_store_opens_again_by_path_and_url(store):
    identity = store.put(b"x")
    for location in (store.root, str(store.root), store.url):
        assert open_store(location).get(identity) == b"x"
    for location in ("ftp://bucket/x", "file://elsewhere/x"):
        with pytest.raises(InvalidInput) as caught:
            open_store(location)
        assert caught.value.hint


def test_a_transfer_copies_what_is_missing_and_verifies(store, tmp_path):
    target = DirectoryStore(tmp_path / "target")
    ids = [store.put(content) for content in (b"a", b"b", b"c")]
    target.put(b"b")
    done = transfer(store, target, [*ids, ids[0]])
    assert (set(done.copied), done.present) == ({ids[0], ids[2]}, 1)
    assert transfer(store, target, ids).copied == ()
    file = store.path(ids[0])
    file.chmod(0o644)
    file.write_bytes(b"liar")
    with pytest.raises(CorruptObject):
        transfer(store, DirectoryStore(tmp_path / "third"), ids)
