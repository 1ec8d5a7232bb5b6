"""A store in a folder: the state, and the verbs by name."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from everloop.store import get, layout, listing, put, remove, sweep, verify


class DirectoryStore:
    """Objects in a folder of a local or shared disk. It implements `everloop.core.ports.Blobs`.

    Threads and processes may share the folder: an object appears by one atomic rename, under the name of its content,
    or not at all.
    """

    def __init__(self, root: Path, *, fsync: bool = False) -> None:
        """Make the folder where it is new; raises `Unavailable`."""
        self.root = Path(root).absolute()
        self.fsync = fsync
        with layout.guarded(self.root):
            (self.root / layout.TEMPORARY).mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """What `open_store` takes to open it again, in another process too."""
        return self.root.as_uri()

    def put(self, content: bytes) -> str:
        """Store bytes and return their id; raises `StorageFull`, leaving nothing behind."""
        return put.put_bytes(self.root, content, fsync=self.fsync)

    def put_file(self, path: Path, *, move: bool = False, known: str = "") -> str:
        """Store a file's bytes and return their id. With `move` the file is the store's from now on, and gone.

        Whoever hashed the bytes of a file that moves while writing them gives that id, and they are not read again.
        """
        return put.put_file(self.root, Path(path), move=move, fsync=self.fsync, known=known)

    def put_stream(self, stream: BinaryIO) -> str:
        """Store what is left in a stream and return its id."""
        return put.put_stream(self.root, stream, fsync=self.fsync)

    def get(self, identity: str) -> bytes:
        """The bytes; raises `NotFound` or `CorruptObject`."""
        return get.read(self.root, identity)

    def open(self, identity: str) -> BinaryIO:
        """A stream of the bytes, verified first; the caller closes it. Raises `NotFound` or `CorruptObject`."""
        return get.stream(self.root, identity)

    def path(self, identity: str) -> Path | None:
        """A read-only file with the bytes, verified now, for mapping into memory; None when it is not here."""
        return get.path(self.root, identity)

    def place(self, identity: str) -> Path | None:
        """The file with the bytes, not verified: for a reader who verifies while reading; None when it is not here."""
        file = layout.file_of(self.root, identity)
        return file if file.is_file() else None

    def read_range(self, identity: str, start: int, length: int) -> bytes:
        """Bytes of a part of an object, not verified: for callers who know its digest. Raises `NotFound`."""
        return get.read_range(self.root, identity, start, length)

    def has(self, identity: str) -> bool:
        """Whether the object is here (its bytes unread)."""
        return os.path.isfile(layout.place_of(self.root, identity))  # noqa: PTH113 - asked of every step

    def size(self, identity: str) -> int:
        """Bytes that the object has; raises `NotFound`."""
        return get.size(self.root, identity)

    def ids(self) -> Iterator[str]:
        """The ids of all objects, in order."""
        return listing.ids(self.root)

    def verify(self, identity: str) -> bool:
        """Whether the object is here and its bytes match its id."""
        return verify.verify(self.root, identity)

    def remove(self, identities: Iterable[str]) -> int:
        """Remove objects now, whatever names them (an erasure); returns how many were here."""
        return remove.remove(self.root, identities)

    def sweep(self, keep: Callable[[str], bool], older_than_seconds: float, *, dry_run: bool = False) -> sweep.Swept:
        """Remove objects that `keep` does not want and nobody has put within `older_than_seconds`."""
        return sweep.sweep(self.root, keep, older_than_seconds, dry_run=dry_run)
