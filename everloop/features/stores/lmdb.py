"""The embedded online store: one LMDB environment, many readers in many processes, one writer at a time."""

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lmdb
from blake3 import blake3

from everloop.core.errors import InvalidInput, StorageFull, Unavailable

Result = TypeVar("Result")
LONGEST_KEY = 511 - 17  # LMDB's limit, less kind and space
_VALUE, _SPACE = b"v", 16
_SURE_SECONDS = 0.02
"""How long readers trust that the file is still the one; asking costs as much as reading two values."""


class LmdbStore:
    """`core.ports.OnlineStore` over LMDB; safe for threads, and for other processes beside it.

    Keys are `v` + 16 bytes that stand for the space + the key. An empty value removes its key. The map grows by
    itself, here and in processes that only read.
    """

    def __init__(self, path: Path, *, size: int = 1 << 30, readonly: bool = False, durable: bool = False) -> None:
        """Open or create the environment in the folder `path`.

        `size` is the first map size in bytes (address space, not disk). `durable` also syncs the meta page:
        without it the last batches may be lost when the machine (not the process) dies, never the store.
        Raises `Unavailable` when the folder cannot be opened.
        """
        self._lock = threading.RLock()
        self._joined: Any = None
        self._sure_until = 0.0
        self._prefixes: dict[str, bytes] = {}
        self._path, self._size, self._readonly, self._durable = path, size, readonly, durable
        self._open()

    def _open(self) -> None:
        path, size = self._path, self._size
        try:
            path.mkdir(parents=True, exist_ok=True)
            with self._swapping(fcntl.LOCK_SH):
                if self._readonly and not (path / "data.mdb").exists():
                    lmdb.open(str(path), map_size=size).close()
                self._env = lmdb.open(
                    str(path),
                    map_size=size,
                    readonly=self._readonly,
                    metasync=self._durable,
                    max_readers=512,
                    readahead=False,
                )
                self._file = self._file_now()
        except (lmdb.Error, OSError) as error:
            raise Unavailable(
                f"the online store {path} cannot be opened: {error}",
                hint="one process opens it once; check the folder's rights",
            ) from error

    def close(self) -> None:
        """Release the environment."""
        with self._lock:
            self._env.close()

    def read(self, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes | None]]:
        """The values of some keys of each space, of one moment; None where there is none."""
        with self._lock:
            if self._joined is None and time.monotonic() < self._sure_until:
                try:
                    with self._env.begin() as txn:
                        return self._got(txn.get, wanted)
                except lmdb.Error:
                    self._sure_until = 0.0  # the map has grown elsewhere: the careful way settles it
            return self._transact(lambda txn: self._got(txn.get, wanted), write=False)

    def _got(
        self, get: Callable[[bytes], bytes | None], wanted: Sequence[tuple[str, Sequence[bytes]]]
    ) -> list[list[bytes | None]]:
        found = []
        for space, keys in wanted:
            prefix = self._prefixes.get(space) or self._prefix(space)
            found.append([get(prefix + key) for key in keys])
        return found

    def write(self, space: str, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Replace values, all or none; an empty value removes its key. Raises `StorageFull`."""
        prefix = self._prefix(space)
        pairs = [(prefix + key, value) for key, value in items]
        for key, _ in pairs:
            if len(key) > LONGEST_KEY + 17:
                raise InvalidInput("an online key is too long", hint=f"{LONGEST_KEY} bytes at most; hash it first")

        def put(txn: Any) -> None:
            for key, value in pairs:
                if value:
                    txn.put(key, value)
                else:
                    txn.delete(key)

        self._transact(put, write=True)

    def drop(self, space: str) -> None:
        """Forget a space."""
        prefix = self._prefix(space)

        def forget(txn: Any) -> None:
            with txn.cursor() as cursor:
                there = cursor.set_range(prefix)
                while there and cursor.key().startswith(prefix):
                    there = cursor.delete()

        self._transact(forget, write=True)

    def forget(self, spaces: Collection[str], wanted: Callable[[bytes], bool]) -> int:
        """Remove the keys of some spaces that are `wanted`, and write the file anew; returns how many."""
        prefixes = [self._prefix(space) for space in spaces]

        def act(txn: Any) -> int:
            count = 0
            for prefix in prefixes:
                with txn.cursor() as cursor:
                    there = cursor.set_range(prefix)
                    while there and cursor.key().startswith(prefix):
                        gone = wanted(cursor.key()[len(prefix) :])
                        count += gone
                        there = cursor.delete() if gone else cursor.next()
            return count

        gone = self._transact(act, write=True)
        self.compact()
        return gone

    def compact(self) -> None:
        """Write the store anew without its free pages, in which deleted values lie until they are used again.

        The new file takes the old one's place; every process that has the old one open changes over with its next
        write, and within 20 ms to read. The last one gives the old pages back to the disk.
        """
        copy = self._path / "compacting"
        with self._lock, self._swapping(fcntl.LOCK_EX):
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir()
            self._follow(locked=True)
            with self._env.begin(write=True):  # nobody writes to the old file between the copy and the swap
                self._env.copy(str(copy), compact=True)
                (copy / "data.mdb").replace(self._path / "data.mdb")
                (self._path / "lock.mdb").unlink(missing_ok=True)
            shutil.rmtree(copy)
        with self._lock:
            self._follow()

    def _follow(self, *, locked: bool = False) -> bool:
        """Open the file that took the place of ours, if one did."""
        if self._file == self._file_now():
            self._sure_until = time.monotonic() + _SURE_SECONDS
            return False
        if locked:
            raise Unavailable("the online store was just compacted", hint="do it again")
        self._sure_until = 0.0
        self._env.close()
        self._open()
        return True

    def _file_now(self) -> int:
        return (self._path / "data.mdb").stat().st_ino

    @contextmanager
    def _swapping(self, mode: int) -> Iterator[None]:
        """Opening and the change of files keep out of each other's way."""
        descriptor = os.open(self._path / "swap.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, mode)
            yield
        finally:
            os.close(descriptor)

    def atomically(self, act: Callable[[], Result]) -> Result:
        """Run `act` so that its reads and writes of this store are one transaction, also against other processes.

        `act` may run again (the map was too small), so it must do nothing else that cannot be repeated. Other
        threads of this process wait; other processes read what was there before.
        """

        def joined(txn: Any) -> Result:
            self._joined = txn
            try:
                return act()
            finally:
                self._joined = None

        return self._transact(joined, write=True)

    def _prefix(self, space: str) -> bytes:
        prefix = self._prefixes.get(space)
        if prefix is None:
            prefix = _VALUE + blake3(space.encode()).digest(_SPACE)
            self._prefixes[space] = prefix
        return prefix

    def _transact(self, act: Callable[[Any], Result], *, write: bool) -> Result:
        """Run `act` in a transaction; grow or re-read the map and try again when it is too small.

        The lock keeps the map from growing under another thread's transaction.
        """
        with self._lock:
            if self._joined is not None:  # the lock is ours, so this is the thread inside `atomically`
                return act(self._joined)
            while True:
                try:
                    self._follow()
                    with self._env.begin(write=write) as txn:
                        if write and self._file != self._file_now():
                            continue  # it was compacted while we waited for the writers before us
                        return act(txn)
                except lmdb.MapFullError:
                    self._env.set_mapsize(self._env.info()["map_size"] * 2)
                except lmdb.MapResizedError:
                    self._env.set_mapsize(0)
                except (lmdb.DiskError, OSError) as error:
                    raise StorageFull(
                        f"the online store cannot write: {error}", hint="free space on its disk"
                    ) from error
                except lmdb.Error as error:
                    raise Unavailable(f"the online store does not answer: {error}", hint="try again") from error
