"""Files of a folder as rows, their bytes kept in packs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from blake3 import blake3

from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.trees import packs as rows_of_packs
from everloop.core.errors import DataError, NotFound
from everloop.core.ids import PREFIX, manifest_id
from everloop.data.definitions import Folder
from everloop.data.trees import stamps
from everloop.data.trees.media import HEAD, media_type
from everloop.data.trees.packing.chunking import chunks
from everloop.data.trees.packing.packs import CHUNK, LIST, PackWriter, Shelf, digest_array
from everloop.data.trees.paths import split_pattern
from everloop.data.trees.scanning import Listing, scan, stamp_of

SCHEMA = pa.schema([("path", pa.string()), ("size", pa.int64()), ("media_type", pa.string()), ("digest", pa.string())])
"""The table of a folder: path within it (the key), bytes, media type, and the id of the content."""
BIG = 1 << 20
"""Bytes from which a file is cut into chunks."""
_TOGETHER = 16 << 20
_CHUNKS = 64
_BATCH = 65_536
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


def shelf_of(ctx: Context, dataset: str) -> Shelf:
    """All packs of the project, those of one dataset first."""
    with ctx.read() as tx:
        found = rows_of_packs.of(tx, ctx.project, dataset)
    return Shelf(ctx.store, [row.object for row in found], ctx.home / "cache" / "packs")


@dataclass(slots=True)
class FolderSource:
    """The files that a folder's definition means. It is a `core.ports.Source` that keeps bytes as it is read."""

    ctx: Context
    folder: Folder
    dataset: str
    root: Path
    writer: PackWriter = field(init=False)
    _listing: Listing | None = None
    _digests: list[bytes] = field(default_factory=list)
    _media: list[str] = field(default_factory=list)
    _leaned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Nothing is written yet."""
        self.writer = PackWriter(self.ctx.store)

    def state(self) -> Mapping[str, Any]:
        """One digest over paths, sizes, times and inodes: 20,000 files cost a tenth of a second."""
        listing = self.listing
        return {"root": str(listing.root), "tree": listing.digest, "files": len(listing.paths)}

    @property
    def listing(self) -> Listing:
        """The folder as it was first looked at; raises `NotFound` when no file matches."""
        if self._listing is None:
            begin, pattern = split_pattern(self.folder.pattern)
            taken = self.ctx.clock.wall() * 1000
            listing = scan((self.root / begin).absolute(), pattern, self.folder.exclude, taken=taken)
            if not listing.paths:
                raise NotFound(f"no file matches {self.folder.pattern!r}", hint=f"looked in {listing.root}")
            self._listing = listing
        return self._listing

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows, after every file that is new or changed was read and its bytes kept.

        Raises `DataError` naming the file: not readable, written to meanwhile, of another kind than promised.
        """
        listing, shelf = self.listing, shelf_of(self.ctx, self.dataset)
        self._reuse(listing, shelf)
        unread = [i for i, digest in enumerate(self._digests) if not digest]
        for group in _groups(unread, listing.stamps["size"]):
            self._keep(listing, shelf, group)
        self.writer.close()
        self._promised(listing)
        ids = [PREFIX + digest.hex() for digest in self._digests]
        table = pa.table([listing.paths, listing.stamps["size"], self._media, ids], schema=SCHEMA)
        yield from table.to_batches(max_chunksize=_BATCH)

    def record(self, tx: Tx) -> None:
        """Record the packs, in the transaction of the version; `Conflict` when one that it leans on was replaced."""
        rows_of_packs.hold(tx, self.ctx.project, self._leaned)
        new = [rows_of_packs.PackRow(w.object, self.dataset, w.pieces, w.bytes) for w in self.writer.written]
        rows_of_packs.put(tx, self.ctx.project, new, at=self.ctx.now())

    def remember(self) -> None:
        """Note what was read, so that the next capture reads only what changed."""
        kinds = sorted(set(self._media))
        number = {media: i for i, media in enumerate(kinds)}
        more = {"root": str(self.listing.root), "kinds": kinds, "media": [number[media] for media in self._media]}
        stamps.merged(self.listing, self._digests, more).save(self._memory)

    @property
    def _memory(self) -> Path:
        name = manifest_id({"tree": self.dataset, "origin": self.folder.manifest()}).removeprefix(PREFIX)
        return self.ctx.home / "trees" / self.ctx.project / f"{name}.stamps"

    def _reuse(self, listing: Listing, shelf: Shelf) -> None:
        """Take over what is known of files that did not change and whose bytes are here."""
        self._digests, self._media = [b""] * len(listing.paths), [""] * len(listing.paths)
        before = stamps.load(self._memory)
        if before is None or before.more.get("root") != str(listing.root):
            return
        rows = before.known(listing)
        same = np.flatnonzero(rows >= 0)
        here = self._here(shelf, before.digests[rows[same]])
        kinds, media, digests = before.more["kinds"], before.more["media"], before.digests.tobytes()
        for i, row in zip(same[here].tolist(), rows[same][here].tolist(), strict=True):
            self._digests[i], self._media[i] = digests[32 * row : 32 * row + 32], kinds[media[row]]

    def _here(self, shelf: Shelf, digests: Any) -> Any:
        """Which contents are kept already; the packs that hold them are noted."""
        places = shelf.find(digests)
        found = places.pack >= 0
        self._leaned.update(shelf.packs[number] for number in np.unique(places.pack[found]).tolist())
        self._lean_on_chunks(shelf, places)
        return found

    def _lean_on_chunks(self, shelf: Shelf, places: Any) -> None:
        for i in np.flatnonzero(places.kind == LIST).tolist():
            pieces = np.frombuffer(shelf.read(int(places.pack[i]), int(places.offset[i]), int(places.length[i])), CHUNK)
            lying = shelf.find(np.ascontiguousarray(pieces["digest"])).pack
            if (lying < 0).any():
                places.pack[i] = -1  # a chunk is gone: the file is kept anew
            self._leaned.update(shelf.packs[number] for number in np.unique(lying[lying >= 0]).tolist())

    def _keep(self, listing: Listing, shelf: Shelf, group: Sequence[int]) -> None:
        """Read some files, and keep those whose content is new."""
        if int(listing.stamps["size"][group[0]]) >= BIG:
            for i in group:
                self._keep_big(listing, shelf, i)
            return
        contents = []
        for i, stamp in zip(group, listing.stamps[group].tolist(), strict=True):
            path = listing.paths[i]
            content = _content(listing.file(path), stamp)
            self._digests[i], self._media[i] = blake3(content).digest(), media_type(path, content[:HEAD])
            contents.append(content)
        here = self._here(shelf, digest_array(self._digests[i] for i in group))
        for i, content, known in zip(group, contents, here.tolist(), strict=True):
            if not known:
                self.writer.add(self._digests[i], content)

    def _keep_big(self, listing: Listing, shelf: Shelf, i: int) -> None:
        """Cut a big file by content; only chunks that are new are kept, and the list of all."""
        path, hasher = listing.paths[i], blake3()
        listed: list[tuple[bytes, int]] = []
        with _Reading(listing.file(path), listing.stamps[i].tolist()) as reading:
            for some in _batched(chunks(reading.some)):
                if not listed:
                    self._media[i] = media_type(path, some[0][:HEAD])
                digests = [blake3(chunk).digest() for chunk in some]
                here = self._here(shelf, digest_array(digests)).tolist()
                for chunk, digest, known in zip(some, digests, here, strict=True):
                    hasher.update(chunk)
                    listed.append((digest, len(chunk)))
                    if not known:
                        self.writer.add(digest, chunk)
        self._digests[i] = hasher.digest()
        if not self._here(shelf, digest_array([self._digests[i]]))[0]:
            self.writer.add(self._digests[i], np.array(listed, CHUNK).tobytes(), LIST)

    def _promised(self, listing: Listing) -> None:
        """Raise `DataError` for a file of another kind than the definition promises."""
        kinds = self.folder.media
        for path, media in zip(listing.paths, self._media, strict=True):
            if kinds and not any(media == kind or media.startswith(f"{kind}/") for kind in kinds):
                raise DataError(
                    f"{listing.root}/{path} is {media}, not {' or '.join(kinds)}",
                    hint="let the pattern say which files are meant, or name it in exclude=",
                )


def _batched(pieces: Iterator[bytes]) -> Iterator[list[bytes]]:
    while some := list(islice(pieces, _CHUNKS)):
        yield some


def _groups(unread: Sequence[int], sizes: Any) -> Iterator[list[int]]:
    """Files to read together: small ones up to `_TOGETHER` bytes, each big one alone."""
    group: list[int] = []
    size = 0
    for i in unread:
        own = int(sizes[i])
        if group and (own >= BIG or size + own > _TOGETHER):
            yield group
            group, size = [], 0
        if own >= BIG:
            yield [i]
            continue
        group.append(i)
        size += own
    if group:
        yield group


class _Reading:
    """One file that was listed: what is read is what was listed, or `DataError`."""

    def __init__(self, file: str, stamp: Sequence[int]) -> None:
        self.file, self.stamp, self.left = file, tuple(stamp), int(stamp[0])
        try:
            self.descriptor = os.open(file, _OPEN)
        except FileNotFoundError:
            raise self._changed() from None
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}", hint="check its permissions") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and (self.left or stamp_of(os.fstat(self.descriptor)) != self.stamp):
                raise self._changed()
        finally:
            os.close(self.descriptor)

    def some(self, count: int) -> bytes:
        """The next bytes, at most so many."""
        try:
            found = os.read(self.descriptor, count)
        except OSError as error:
            raise DataError(f"{self.file} cannot be read: {error.strerror}", hint="check the disk") from error
        self.left -= len(found)
        return found

    def _changed(self) -> DataError:
        return _changed(self.file)


def _content(file: str, stamp: tuple[int, ...]) -> bytes:
    """All bytes of a small file that was listed, or `DataError`: what `_Reading` does, in four calls of the system."""
    try:
        descriptor = os.open(file, _OPEN)
        try:
            content = os.read(descriptor, stamp[0] + 1)
            now = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise _changed(file) from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}", hint="check its permissions") from error
    if len(content) != stamp[0] or stamp_of(now) != stamp:
        raise _changed(file)
    return content


def _changed(file: str) -> DataError:
    return DataError(f"{file} was written to while it was read", hint="capture it when its writer is done")
