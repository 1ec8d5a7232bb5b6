"""A store in a bucket, against a real S3 server over HTTP (moto's) that fails one call in ten."""

import time

import pytest
import s3_server

from everloop.core.errors import CorruptObject, InvalidInput, NotFound, Unavailable
from everloop.core.ids import object_id
from everloop.core.ports import Blobs
from everloop.store import DirectoryStore, open_store, transfer
from everloop.store.bucket import BucketStore
from everloop.store.trim import IN_USE, trim

ABSENT = "b3:" + "0" * 64


@pytest.fixture(scope="module")
def faults():
    """A server with one bucket; gives its faults to switch."""
    with s3_server.serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environ.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def bucket(faults, tmp_path, request):
    return BucketStore(f"s3://loop/{request.node.name.replace('[', '-').strip(']')}", cache=tmp_path / "cache")


def elsewhere(store, tmp_path):
    """The same bucket from a machine whose cache is empty."""
    return BucketStore(store.url, cache=tmp_path / "other-cache")


def test_what_is_put_is_got_from_anywhere(bucket, tmp_path):
    blobs: Blobs = bucket
    file = tmp_path / "file"
    file.write_bytes(b"x" * (20 << 20))
    with file.open("rb") as stream:
        ids = {blobs.put(b"one"), bucket.put_stream(stream), bucket.put_file(file), bucket.put_file(file, move=True)}
    assert len(ids) == 2
    assert not file.exists()
    other = elsewhere(bucket, tmp_path)
    assert set(other.ids()) == ids
    assert other.get(object_id(b"one")) == b"one"
    for identity in ids:
        assert other.has(identity)
        assert other.verify(identity)
        assert other.size(identity) == other.path(identity).stat().st_size
    with other.open(object_id(b"x" * (20 << 20))) as stream:
        assert len(stream.read()) == 20 << 20


def test_one_call_in_ten_fails_and_nothing_is_lost(faults, bucket, tmp_path):
    faults.on = True
    try:
        ids = [bucket.put(f"object {number}".encode()) for number in range(30)]
        other = elsewhere(bucket, tmp_path)
        assert [other.get(identity) for identity in ids] == [f"object {n}".encode() for n in range(30)]
        assert sorted(other.ids()) == sorted(ids)
    finally:
        faults.on = False
    assert faults.failed >= 6


def test_what_is_absent_or_damaged_is_never_given(faults, bucket, tmp_path):
    for call in (bucket.get, bucket.open, bucket.size):
        with pytest.raises(NotFound):
            call(ABSENT)
    assert bucket.path(ABSENT) is None
    assert not bucket.has(ABSENT)
    identity = bucket.put(b"good")
    name = identity.removeprefix("b3:")
    key = f"{bucket.url.removeprefix('s3://loop/')}/{name[:2]}/{name[2:]}"
    faults.client.put_object(Bucket="loop", Key=key, Body=b"evil")
    assert bucket.get(identity) == b"good"  # ours is whole
    other = elsewhere(bucket, tmp_path)
    with pytest.raises(CorruptObject):
        other.get(identity)
    assert not bucket.verify(identity)
    assert bucket.put(b"good") == identity
    assert bucket.verify(identity) is False  # of the same size and young: only its digest tells
    with pytest.raises(InvalidInput):
        bucket.get("b3:..")


def test_a_damaged_cache_is_fetched_again(bucket):
    identity = bucket.put(b"good")
    file = bucket.path(identity)
    file.chmod(0o644)
    file.write_bytes(b"evil")
    assert bucket.get(identity) == b"good"


def test_a_sweep_takes_what_nobody_wants_after_its_grace(bucket):
    kept, gone = bucket.put(b"kept"), bucket.put(b"gone")
    assert bucket.sweep(lambda i: i == kept, 3600).removed == ()
    time.sleep(1.1)  # the server's times are whole seconds
    assert bucket.sweep(lambda i: i == kept, 0, dry_run=True).removed == (gone,)
    assert bucket.has(gone)
    swept = bucket.sweep(lambda i: i == kept, 0)
    assert (swept.removed, swept.bytes, swept.kept) == ((gone,), 4, 1)
    assert list(bucket.ids()) == [kept]
    assert bucket.path(gone) is None


def test_only_what_is_missing_is_sent(bucket, tmp_path):
    here = DirectoryStore(tmp_path / "here")
    ids = [here.put(f"{n}".encode()) for n in range(8)]
    bucket.put(b"3")
    sent = transfer(here, bucket, ids)
    assert (len(sent.copied), sent.present) == (7, 1)
    assert transfer(here, bucket, ids).copied == ()


def test_what_cannot_be_reached_is_said_with_a_hint(faults, monkeypatch, tmp_path):
    with pytest.raises(Unavailable) as caught:
        BucketStore("s3://nobody-made-this", cache=tmp_path / "c").put(b"x")
    assert caught.value.hint
    for wrong in ("ftp://host/x", "s3://user:secret@bucket"):
        with pytest.raises(InvalidInput):
            open_store(wrong)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert isinstance(open_store("s3://loop/x"), BucketStore)


def test_the_cache_gives_back_what_nobody_used_for_long(tmp_path):
    store = DirectoryStore(tmp_path / "cache")
    ids = [store.put(bytes([n]) * 100) for n in range(4)]
    assert trim(store.root, 250) == 0  # in use
    later = store.path(ids[3]).stat().st_mtime + IN_USE + 1
    assert trim(store.root, 250, now=later) == 200
    assert sum(store.has(identity) for identity in ids) == 2
