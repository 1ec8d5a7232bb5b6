"""Cutting by content, packs and their indexes."""

import io

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import CorruptObject
from everloop.data.trees.packing import packs
from everloop.data.trees.packing.chunking import MAXIMUM, MEAN, MINIMUM, WINDOW, candidates, chunks
from everloop.data.trees.packing.packs import PackWriter, Shelf, digest_array
from everloop.store import open_store


def noise(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


def cut(content, at_once=1 << 30):
    stream = io.BytesIO(content)
    return list(chunks(lambda count: stream.read(min(count, at_once))))


def test_chunks_make_up_the_file_and_have_bounded_sizes():
    content = noise(12 << 20)
    found = cut(content)
    assert b"".join(found) == content
    sizes = [len(chunk) for chunk in found]
    assert max(sizes) <= MAXIMUM
    assert min(sizes[:-1]) >= MINIMUM
    assert 0.6 * MEAN < np.mean(sizes) < 1.5 * MEAN


def test_a_cut_depends_on_the_window_before_it_and_on_nothing_else():
    content = noise(1 << 20, 1)
    places = candidates(content)
    assert len(places)
    for place in places[:5].tolist():
        alone = candidates(content[place - WINDOW : place])
        assert alone.tolist() == [WINDOW]
    power, total = 1, 0
    first = int(places[0])
    for byte in reversed(content[first - WINDOW : first]):  # the definition, term by term
        total, power = (total + byte * power) % 2**32, power * 0x9E3779B1 % 2**32
    assert 0 < total <= 2**32 // (MEAN - MINIMUM)


@pytest.mark.parametrize("at_once", [1, 1000, 65_537, 3 << 20])
def test_cuts_do_not_depend_on_how_much_is_read_at_once(at_once):
    content = noise(200_000 if at_once == 1 else 11 << 20, 2)
    assert cut(content, at_once) == cut(content)


@pytest.mark.parametrize("edit", ["insert", "delete", "overwrite", "append", "prepend"])
def test_an_edit_makes_few_new_chunks(edit):
    content = noise(16 << 20, 3)
    middle = len(content) // 2
    changed = {
        "insert": content[:middle] + b"inserted" + content[middle:],
        "delete": content[:middle] + content[middle + 1000 :],
        "overwrite": content[:middle] + b"x" * 5000 + content[middle + 5000 :],
        "append": content + b"more",
        "prepend": b"!" + content,
    }[edit]
    before = set(cut(content))
    new = sum(len(chunk) for chunk in cut(changed) if chunk not in before)
    assert new <= 3 * MAXIMUM
    assert new < 0.1 * len(content)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\0" * (3 << 20), b"ab" * (1 << 20)], ids=["none", "one", "zeros", "ab"]
)
def test_dull_files_are_cut_too(content):
    found = cut(content)
    assert b"".join(found) == content
    assert all(len(chunk) <= MAXIMUM for chunk in found)


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "objects"))


def packed(store, contents):
    writer = PackWriter(store)
    for content in contents:
        writer.add(blake3(content).digest(), content)
    writer.close()
    return writer


def test_pieces_are_found_by_digest_over_all_packs(store, tmp_path):
    first = packed(store, [b"one", b"two", b"two", b""]).written
    second = packed(store, [b"three", noise(100)]).written
    assert [w.pieces for w in first + second] == [3, 2]
    shelf = Shelf(store, [w.object for w in first + second], tmp_path / "cache")
    wanted = [b"three", b"absent", b"", b"two"]
    places = shelf.find(digest_array(blake3(c).digest() for c in wanted))
    assert places.pack.tolist() == [1, -1, 0, 0]
    for i in (0, 2, 3):
        place = (int(x[i]) for x in (places.pack, places.offset, places.length))
        assert shelf.read(*place) == wanted[i]
    assert shelf.find(digest_array([])).pack.tolist() == []
    again = Shelf(store, shelf.packs, tmp_path / "cache")  # its indexes come from the cache now
    assert again.find(digest_array([blake3(b"two").digest()])).pack.tolist() == [0]


@given(st.lists(st.binary(min_size=8, max_size=8), max_size=20), st.integers(0, 255))
def test_digests_that_begin_alike_are_told_apart(ends, byte):
    stored = sorted({bytes([byte]) * 8 + end + bytes(16) for end in ends})
    wanted = [bytes([byte]) * 8 + end + bytes(16) for end in ends] + [bytes([byte]) * 8 + b"\xff" * 24, bytes(32)]
    array, asked = digest_array(stored), digest_array(wanted)
    found = packs._matches(array, packs._prefixes(array), asked, packs._prefixes(asked))
    for digest, row in zip(wanted, found.tolist(), strict=True):
        assert (stored[row] == digest) if row >= 0 else digest not in stored


def test_a_pack_is_closed_when_it_is_full(store):
    writer = packed(store, [noise(packs.FULL // 2, i) for i in range(5)])
    assert len(writer.written) == 3


def test_an_object_that_is_no_pack_is_said_to_be_none(store, tmp_path):
    for content in (b"", b"short", b"x" * 100, b"x" * 50 + b"EVERPACK" + (41).to_bytes(8, "little")):
        identity = store.put(content)
        if content.endswith((41).to_bytes(8, "little")):
            packs.read_index(store, identity, tmp_path / "cache")  # well-formed; whatever it names is verified
            continue
        with pytest.raises(CorruptObject, match="no pack"):
            packs.read_index(store, identity, tmp_path / "cache")
