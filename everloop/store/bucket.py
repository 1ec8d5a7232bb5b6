"""A store in a bucket (S3, Google Cloud Storage, Azure), by way of a cache on the local disk. Needs the extra `s3`.

Objects lie under the names that they have in a folder. What is put goes into the cache first, so what is stored is what
was hashed; what is read comes from the cache, or is fetched into it and verified on the way. Credentials come from the
environment as each cloud's own tools read them (`AWS_*`, `GOOGLE_*`, `AZURE_*`), never from the URL. Requests that fail
for a while are repeated by the library, with growing pauses.
"""

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import obstore
from obstore import exceptions as failures
from obstore.store import AzureStore, GCSStore, S3Store

from everloop.core.errors import CorruptObject, EverloopError, InvalidInput, NotFound, Unavailable
from everloop.core.ids import PREFIX, checked_id, is_id
from everloop.store.directory import DirectoryStore
from everloop.store.layout import file_of
from everloop.store.sweep import Swept
from everloop.store.trim import trim, used

KINDS = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
CACHE_LIMIT = 16 * 2**30
"""Bytes of the local cache."""
_TRIM_EVERY = 2**28
RENEW_AFTER = 3600.0
"""Seconds after which an object that is put again is written again, so that no sweep takes it from under the caller."""
_RETRIES = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
_PIECE = 8 << 20


class BucketStore:
    """Objects in a bucket. It implements `everloop.core.ports.Blobs`, and what `DirectoryStore` offers beside it."""

    def __init__(self, url: str, *, cache: Path | None = None) -> None:
        """Open `s3://bucket/prefix`, `gs://…` or `az://…`; nothing is asked of it yet. Raises `InvalidInput`."""
        kind = KINDS.get(url.partition("://")[0])
        if kind is None or "@" in url or "?" in url:
            raise InvalidInput(
                f"{url!r} is no bucket", hint="s3://bucket/prefix; credentials come from the environment"
            )
        self.url = url.rstrip("/")
        with self._failures():
            options = {"allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")}
            self._bucket = kind.from_url(self.url, client_options=options, retry_config=_RETRIES)  # type: ignore[attr-defined]
        self.cache = DirectoryStore(cache or _cache_of(self.url))
        self._written = 0

    def put(self, content: bytes) -> str:
        """Store bytes and return their id; raises `Unavailable`, `StorageFull` (of the cache)."""
        return self._uploaded(self.cache.put(content))

    def put_file(self, path: Path, *, move: bool = False, known: str = "") -> str:
        """Store a file's bytes and return their id; as a folder's store does it."""
        return self._uploaded(self.cache.put_file(path, move=move, known=known))

    def put_stream(self, stream: BinaryIO) -> str:
        """Store what is left in a stream and return its id."""
        return self._uploaded(self.cache.put_stream(stream))

    def get(self, identity: str) -> bytes:
        """The bytes; raises `NotFound`, `CorruptObject` or `Unavailable`."""
        return self._present(identity).read_bytes()

    def open(self, identity: str) -> BinaryIO:
        """A stream of the bytes, verified first; the caller closes it. Raises as `get`."""
        return self._present(identity).open("rb")

    def path(self, identity: str) -> Path | None:
        """A read-only local file with the bytes, verified now; None when the object is nowhere."""
        try:
            return self._present(identity)
        except NotFound:
            return None

    def place(self, identity: str) -> Path | None:
        """The same: what was fetched was verified."""
        return self.path(identity)

    def read_range(self, identity: str, start: int, length: int) -> bytes:
        """Bytes of a part of an object, not verified, out of the cache or fetched alone. Raises as `get`."""
        if used(file_of(self.cache.root, identity)):
            try:
                return self.cache.read_range(identity, start, length)
            except NotFound:
                pass  # trimmed just now
        with self._failures(identity):
            return bytes(obstore.get_range(self._bucket, _name(identity), start=start, length=length))

    def has(self, identity: str) -> bool:
        """Whether the bucket has the object (its bytes unread)."""
        return self._head(identity) is not None

    def size(self, identity: str) -> int:
        """Bytes that the object has; raises `NotFound`."""
        found = self._head(identity)
        if found is None:
            raise self._absent(identity)
        return int(found["size"])

    def ids(self) -> Iterator[str]:
        """The ids of all objects, in order."""
        yield from sorted(identity for identity, _, _ in self._listed())

    def verify(self, identity: str) -> bool:
        """Whether the bucket's bytes match the id: they are fetched, whatever the cache holds."""
        try:
            self._fetched(identity)
        except (NotFound, CorruptObject):
            return False
        return True

    def remove(self, identities: Iterable[str]) -> int:
        """Remove objects now, whatever names them (an erasure), here and in the bucket; returns how many were there.

        A bucket that keeps old versions of its objects keeps them until its own rules take them.
        """
        gone = 0
        for identity in identities:
            file_of(self.cache.root, identity).unlink(missing_ok=True)
            if self._head(identity) is not None:
                with self._failures():
                    obstore.delete(self._bucket, _name(identity))
                gone += 1
        return gone

    def sweep(self, keep: Callable[[str], bool], older_than_seconds: float, *, dry_run: bool = False) -> Swept:
        """Remove objects that `keep` does not want and nobody has put within `older_than_seconds`.

        A bucket has no locks: what is put again within the last moments of its grace may go, so let the grace be hours.
        """
        limit = time.time() - older_than_seconds
        removed: list[str] = []
        freed = kept = 0
        for identity, size, modified in list(self._listed()):
            if modified >= limit or keep(identity):
                kept += 1
                continue
            if not dry_run:
                now = self._head(identity)
                if now is None or now["last_modified"].timestamp() >= limit:
                    kept += now is not None
                    continue
                with self._failures():
                    obstore.delete(self._bucket, _name(identity))
                file_of(self.cache.root, identity).unlink(missing_ok=True)
            removed.append(identity)
            freed += size
        return Swept(tuple(removed), freed, kept, 0, dry_run)

    def _uploaded(self, identity: str) -> str:
        """Bring what the cache has into the bucket, unless it is there and young."""
        there = self._head(identity)
        file = file_of(self.cache.root, identity)
        size = file.stat().st_size
        if there is None or there["size"] != size or there["last_modified"].timestamp() < time.time() - RENEW_AFTER:
            with self._failures():
                obstore.put(self._bucket, _name(identity), file)
        self._count(size)
        return identity

    def _present(self, identity: str) -> Path:
        """The verified file in the cache, fetched where it is not there or damaged."""
        if used(file_of(self.cache.root, identity)):
            try:
                found = self.cache.path(identity)
            except CorruptObject:
                file_of(self.cache.root, identity).unlink(missing_ok=True)
                found = None
            if found is not None:
                return found
        self._fetched(identity)
        return file_of(self.cache.root, identity)

    def _fetched(self, identity: str) -> None:
        with self._failures(identity):
            answer = obstore.get(self._bucket, _name(identity))
            found = self.cache.put_stream(
                io.BufferedReader(_Pieces(iter(answer.stream(min_chunk_size=_PIECE))), _PIECE)
            )
        if found != identity:
            file_of(self.cache.root, found).unlink(missing_ok=True)
            raise CorruptObject(f"the bytes of object {identity} in {self.url} are of {found}", hint="restore a copy")
        self._count(self.cache.size(identity))

    def _count(self, size: int) -> None:
        self._written += size
        if self._written > _TRIM_EVERY:
            trim(self.cache.root, CACHE_LIMIT)
            self._written = 0

    def _head(self, identity: str) -> "obstore.ObjectMeta | None":
        name = _name(identity)
        with self._failures():
            try:
                return obstore.head(self._bucket, name)
            except FileNotFoundError:
                return None

    def _listed(self) -> Iterator[tuple[str, int, float]]:
        with self._failures():
            for page in obstore.list(self._bucket):
                for found in page:
                    identity = PREFIX + "".join(found["path"].split("/")[-2:])
                    if is_id(identity):
                        yield identity, found["size"], found["last_modified"].timestamp()

    def _absent(self, identity: str) -> NotFound:
        return NotFound(
            f"object {identity} is not in {self.url}", hint="it was erased or swept, or lies in another store"
        )

    @contextmanager
    def _failures(self, identity: str = "") -> Iterator[None]:
        """Turn the library's errors in the block into errors of the tree."""
        try:
            yield
        except EverloopError:
            raise
        except FileNotFoundError as error:
            raise self._absent(identity) if identity else self._unavailable(error) from error
        except (failures.PermissionDeniedError, failures.UnauthenticatedError, PermissionError) as error:
            raise Unavailable(
                f"{self.url} refuses us: {_first(error)}", hint="check the credentials in the environment"
            ) from error
        except (failures.BaseError, OSError, ValueError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: BaseException) -> Unavailable:
        return Unavailable(f"{self.url} fails: {_first(error)}", hint="check its name, the network and the credentials")


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a file to read."""

    def __init__(self, pieces: Iterator[Any]) -> None:
        self._pieces, self._left = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        room = memoryview(target)
        count = min(len(room), len(self._left))
        room[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _name(identity: str) -> str:
    digits = checked_id(identity).removeprefix(PREFIX)
    return f"{digits[:2]}/{digits[2:]}"


def _cache_of(url: str) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "everloop" / sha256(url.encode()).hexdigest()[:16]


def _first(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
