"""Packs: many files in one object, and finding them again by the digest of their content.

A pack is the bytes of its pieces one after another, then an index sorted by digest, then 16 bytes that say how long the
index is. A piece is a whole file, a chunk of a big file, or the list of a big file's chunks (their digests and
lengths) under the digest of the whole. Whatever is read is checked against its digest, so an index is trusted with
nothing but places.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from blake3 import blake3

from everloop.core.errors import CorruptObject, NotFound
from everloop.core.ids import PREFIX
from everloop.core.ports import Blobs
from everloop.store.trim import trim, used

FULL = 32 << 20
"""Bytes at which a pack is closed."""
WHOLE, LIST = 0, 1
"""Kinds of pieces: bytes as they are; the chunks of a file."""
_ENTRY = np.dtype([("digest", "V32"), ("offset", "<u4"), ("length", "<u4"), ("kind", "u1")])
CHUNK = np.dtype([("digest", "V32"), ("length", "<u4")])
"""What a list has for each chunk."""
_MAGIC = b"EVERPACK"
_TAIL = 16
_INDEX_CACHE = 1 << 30

Array = np.ndarray[Any, Any]


@runtime_checkable
class Ranged(Protocol):
    """A store that reads a part of an object without the rest."""

    def read_range(self, identity: str, start: int, length: int) -> bytes:
        """Bytes of an object, not verified: the caller does. Raises `NotFound`, `Unavailable`."""
        ...

    def size(self, identity: str) -> int:
        """Bytes that the object has; raises `NotFound`."""
        ...


def read_range(blobs: Blobs, identity: str, start: int, length: int) -> bytes:
    """A part of an object, not verified; of a store that cannot do it, out of the whole."""
    if isinstance(blobs, Ranged):
        return blobs.read_range(identity, start, length)
    return blobs.get(identity)[start : start + length]


@dataclass(frozen=True, slots=True)
class Written:
    """A pack that was stored."""

    object: str
    pieces: int
    bytes: int


@dataclass(slots=True)
class PackWriter:
    """Collects pieces into packs of `FULL` bytes; `close` writes the last one. A piece is taken once."""

    blobs: Blobs
    written: list[Written] = field(default_factory=list)
    taken: set[bytes] = field(default_factory=set)
    _held: list[bytes] = field(default_factory=list)
    _entries: list[tuple[bytes, int, int, int]] = field(default_factory=list)
    _size: int = 0

    def add(self, digest: bytes, content: bytes, kind: int = WHOLE) -> None:
        """Take a piece whose digest the caller has computed; raises `StorageFull` when a full pack cannot be kept."""
        if digest in self.taken:
            return
        self.taken.add(digest)
        self._entries.append((digest, self._size, len(content), kind))
        self._held.append(content)
        self._size += len(content)
        if self._size >= FULL:
            self.close()

    def close(self) -> None:
        """Store what was taken since the last pack."""
        if not self._entries:
            return
        index = np.array(sorted(self._entries), _ENTRY).tobytes()
        content = b"".join([*self._held, index, _MAGIC, len(index).to_bytes(8, "little")])
        self.written.append(Written(self.blobs.put(content), len(self._entries), len(content)))
        self._held, self._entries, self._size = [], [], 0


def read_index(blobs: Blobs, pack: str, cache: Path) -> Array:
    """The index of a pack, sorted by digest; what was read from a store is kept in `cache`."""
    file = cache / f"{pack.removeprefix(PREFIX)}.index"
    if used(file):
        return np.frombuffer(file.read_bytes(), _ENTRY)
    content = _index_bytes(blobs, pack)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{np.random.default_rng().integers(2**63):x}")
    temporary.write_bytes(content)
    temporary.replace(file)
    trim(cache, _INDEX_CACHE)
    return np.frombuffer(content, _ENTRY)


def _index_bytes(blobs: Blobs, pack: str) -> bytes:
    size = blobs.size(pack) if isinstance(blobs, Ranged) else len(blobs.get(pack))
    tail = read_range(blobs, pack, size - _TAIL, _TAIL) if size >= _TAIL else b""
    length = int.from_bytes(tail[8:], "little")
    if tail[:8] != _MAGIC or length % _ENTRY.itemsize or length > size - _TAIL:
        raise CorruptObject(f"object {pack} is no pack of files", hint="restore it from a copy; everloop verify")
    return read_range(blobs, pack, size - _TAIL - length, length)


@dataclass(frozen=True, slots=True)
class Places:
    """Where pieces lie, in the order in which they were asked for; `pack` is -1 for one that lies nowhere."""

    pack: Array
    offset: Array
    length: Array
    kind: Array


@dataclass(slots=True)
class Shelf:
    """All packs that may hold a file, in the order of looking; indexes load as they are needed."""

    blobs: Blobs
    packs: Sequence[str]
    cache: Path
    _indexes: dict[int, tuple[Array, Array]] = field(default_factory=dict)

    def find(self, digests: Array) -> Places:
        """Where the pieces with these digests (an array of 32-byte rows, `digest_array`) lie."""
        count = len(digests)
        found = Places(*(np.full(count, -1, np.int64) for _ in range(4)))
        left = np.arange(count)
        prefixes = _prefixes(digests)
        for number in range(len(self.packs)):
            if not len(left):
                break
            index, keys = self._index(number)
            at = _matches(index["digest"], keys, digests[left], prefixes[left])
            hit = at >= 0
            rows, entries = left[hit], index[at[hit]]
            found.pack[rows], found.offset[rows] = number, entries["offset"]
            found.length[rows], found.kind[rows] = entries["length"], entries["kind"]
            left = left[~hit]
        return found

    def read(self, pack: int, offset: int, length: int) -> bytes:
        """Bytes of a pack, not verified."""
        return read_range(self.blobs, self.packs[pack], offset, length)

    def _index(self, number: int) -> tuple[Array, Array]:
        if number not in self._indexes:
            index = read_index(self.blobs, self.packs[number], self.cache)
            self._indexes[number] = index, _prefixes(np.ascontiguousarray(index["digest"]))
        return self._indexes[number]


def digest_array(digests: Iterable[bytes]) -> Array:
    """Digests of 32 bytes as the array that `Shelf.find` takes."""
    return np.frombuffer(b"".join(digests), "V32")


def _prefixes(digests: Array) -> Array:
    """The first eight bytes of digests as numbers in the order of the digests."""
    return digests.view("u1").reshape(-1, 32)[:, :8].copy().view(">u8").ravel().astype(np.uint64)


def _matches(stored: Array, keys: Array, wanted: Array, prefixes: Array) -> Array:
    """The row of each wanted digest in an index, -1 where it has none."""
    at = np.searchsorted(keys, prefixes)
    found = np.full(len(wanted), -1, np.int64)
    left = np.arange(len(wanted))
    while len(left):  # one round, unless somebody made contents whose digests begin alike
        left = left[at[left] < len(keys)]
        left = left[keys[at[left]] == prefixes[left]]
        same = stored[at[left]] == wanted[left]
        found[left[same]] = at[left[same]]
        left = left[~same]
        at[left] += 1
    return found


def verified(content: bytes, digest: bytes, what: Callable[[], str]) -> bytes:
    """`content`, or `CorruptObject` when it does not have that digest."""
    if blake3(content).digest() != digest:
        raise CorruptObject(
            f"the stored bytes of {what()} do not match their digest", hint="restore a copy of the pack"
        )
    return content


def missing(path: str) -> NotFound:
    """The error for a file whose bytes lie in no pack."""
    return NotFound(f"the bytes of {path} are not here", hint="they were erased, or come from another workspace")
