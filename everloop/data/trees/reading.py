"""Reading the files of a version: by path, or one after another. Every byte that is given was verified."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.core.errors import DataError, InvalidInput, NotFound
from everloop.core.ids import PREFIX, is_id
from everloop.core.ports import Blobs
from everloop.data.codec import DataCodec, manifest_of, paths_of, tables
from everloop.data.trees.packing.packs import CHUNK, LIST, Places, Shelf, digest_array, missing, verified
from everloop.data.trees.paths import checked_path
from everloop.data.trees.source import SCHEMA, shelf_of

SPAN = 8 << 20
"""Bytes that are read of a pack at once."""
_GAP = 64 << 10


@dataclass(frozen=True, slots=True)
class File:
    """One file of a version."""

    path: str
    size: int
    media_type: str
    digest: str


@dataclass(frozen=True, slots=True)
class Run:
    """Rows whose bytes lie near each other in a pack: one read gives all."""

    pack: int
    start: int
    length: int
    rows: Sequence[int]


class Tree:
    """The files of one version, in order of path."""

    def __init__(self, version: str, name: str, table: pa.Table, shelf: Shelf) -> None:
        """Hold the rows; raises `DataError` for paths that lead out or lie within each other."""
        self.version, self.name, self.shelf = version, name, shelf
        self.paths: list[str] = [checked_path(path) for path in table["path"].to_pylist()]
        self.sizes: list[int] = table["size"].to_pylist()
        self.media: list[str] = table["media_type"].to_pylist()
        self.digests = _digests(table["digest"].to_pylist(), self.paths)
        self._row = {path: row for row, path in enumerate(self.paths)}
        self._places: Places | None = None
        for path in self.paths:
            for i, char in enumerate(path):
                if char == "/" and path[:i] in self._row:
                    raise DataError(f"{path} lies in {path[:i]}, which is a file", hint="rename one of them")

    def __len__(self) -> int:
        """How many files."""
        return len(self.paths)

    def __contains__(self, path: object) -> bool:
        """Whether the version has the file."""
        return path in self._row

    def __iter__(self) -> Iterator[File]:
        """What is known of each file."""
        return (self._file(row) for row in range(len(self.paths)))

    def file(self, path: str) -> File:
        """What is known of a file; raises `NotFound`."""
        return self._file(self.row(path))

    def row(self, path: str) -> int:
        """Where a file stands; raises `NotFound`."""
        if path not in self._row:
            raise NotFound(f"{self.name} has no file {path!r}", hint="paths are relative, with '/' between names")
        return self._row[path]

    def open(self, path: str) -> BinaryIO:
        """A stream of a file's bytes that can seek; a chunk is fetched when it is needed. Raises `NotFound`."""
        row = self.row(path)
        if self.places.kind[row] == LIST:
            return io.BufferedReader(Chunked(self, row), 1 << 20)
        return io.BytesIO(self.read(path))

    def read(self, path: str) -> bytes:
        """The bytes of a file; raises `NotFound` or `CorruptObject`."""
        row = self.row(path)
        if self.places.kind[row] == LIST:
            return verified(b"".join(self.chunks(row)), self.digest(row), lambda: path)
        (_, content), *_ = self.run(self.runs([row])[0])
        return content

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Every file's path and bytes, in order of path; neighbours are read together."""
        ahead: dict[int, bytes] = {}
        small = [row for row in range(len(self)) if self.places.kind[row] != LIST]
        first = {run.rows[0]: run for run in self.runs(small)}
        for row, path in enumerate(self.paths):
            if row in first:
                ahead.update(self.run(first[row]))
            yield path, ahead.pop(row) if row in ahead else self.read(path)

    def digest(self, row: int) -> bytes:
        """The digest of a file's content."""
        return bytes(self.digests[row].tobytes())

    @property
    def places(self) -> Places:
        """Where the files' bytes lie."""
        if self._places is None:
            self._places = self.shelf.find(self.digests)
        return self._places

    def runs(self, rows: Sequence[int], span: int = SPAN) -> list[Run]:
        """Small files as reads of at most about `span` bytes, as they follow each other; `NotFound` for lost ones."""
        found: list[Run] = []
        places = self.places
        held: list[int] = []
        pack = start = end = -1
        for row in rows:
            at, offset, length = int(places.pack[row]), int(places.offset[row]), int(places.length[row])
            if at < 0:
                raise missing(self.paths[row])
            near = at == pack and end <= offset <= end + _GAP and offset + length - start <= span
            if not near:
                if held:
                    found.append(Run(pack, start, end - start, held))
                held, pack, start = [], at, offset
            held.append(row)
            end = offset + length
        return [*found, Run(pack, start, end - start, held)] if held else found

    def run(self, run: Run) -> Iterator[tuple[int, bytes]]:
        """The bytes of the files of a run, by row; raises `CorruptObject`."""
        content = memoryview(self.shelf.read(run.pack, run.start, run.length))
        for row in run.rows:
            begin = int(self.places.offset[row]) - run.start
            piece = bytes(content[begin : begin + int(self.places.length[row])])
            yield row, verified(piece, self.digest(row), lambda row=row: self.paths[row])  # type: ignore[misc]

    def listed(self, row: int) -> Any:
        """The digests and lengths of a big file's chunks."""
        if self.places.pack[row] < 0:
            raise missing(self.paths[row])
        place = (int(self.places.pack[row]), int(self.places.offset[row]), int(self.places.length[row]))
        return np.frombuffer(self.shelf.read(*place), CHUNK)

    def chunk(self, digest: bytes, path: str) -> bytes:
        """One chunk of a big file; raises `NotFound` or `CorruptObject`."""
        place = self.shelf.find(digest_array([digest]))
        if place.pack[0] < 0:
            raise missing(path)
        content = self.shelf.read(int(place.pack[0]), int(place.offset[0]), int(place.length[0]))
        return verified(content, digest, lambda: path)

    def chunks(self, row: int) -> Iterator[bytes]:
        """The chunks of a big file, each verified; that they make up the file is for the caller to check."""
        for entry in self.listed(row):
            yield self.chunk(entry["digest"].tobytes(), self.paths[row])

    def _file(self, row: int) -> File:
        return File(self.paths[row], self.sizes[row], self.media[row], PREFIX + self.digest(row).hex())


class Chunked(io.RawIOBase):
    """A big file as a stream: its chunks are fetched as they are read."""

    def __init__(self, tree: Tree, row: int) -> None:
        """Read the list of chunks."""
        self._tree, self._path = tree, tree.paths[row]
        self._list = tree.listed(row)
        self._ends = np.cumsum(self._list["length"], dtype=np.int64)
        self._at = 0
        self._held: tuple[int, bytes] = (-1, b"")
        if int(self._ends[-1]) != tree.sizes[row]:
            raise DataError(f"{self._path} has another size than its bytes", hint="the table of the folder was edited")

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes before the next that is read."""
        return self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place; no chunk is fetched."""
        self._at = max(offset + (0, self._at, int(self._ends[-1]))[whence], 0)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer with what is left of the chunk at the place."""
        number = int(np.searchsorted(self._ends, self._at, side="right"))
        if number >= len(self._ends):
            return 0
        if self._held[0] != number:
            self._held = number, self._tree.chunk(self._list["digest"][number].tobytes(), self._path)
        begin = self._at - (int(self._ends[number]) - int(self._list["length"][number]))
        piece = self._held[1][begin : begin + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def open_tree(ctx: Context, version: str) -> Tree:
    """The files of a version of a folder, by its id. Raises `NotFound`, `InvalidInput` for another kind of table."""
    with ctx.read() as tx:
        name = versions.get(tx, ctx.project, version).name
    manifest = manifest_of(ctx, version)
    if not is_tree(manifest):
        raise InvalidInput(f"data/{name} is no folder of files", hint="it comes from a source el.Folder(...)")
    table = pa.concat_tables(tables(paths_of(ctx, manifest)))
    return Tree(version, name, table.select(SCHEMA.names), shelf_of(ctx, name))


def open_file(ctx: Context, version: str, path: str) -> BinaryIO:
    """A stream of one file of a version. Raises `NotFound`. For many files, take `open_tree` once."""
    return open_tree(ctx, version).open(path)


PACK = "pack:"
"""What the keys of packs begin with among the placements that a step gets."""


def tree_of(manifest: Mapping[str, Any], blobs: Blobs, placed: Mapping[str, str]) -> Tree:
    """The files of a version where a step runs: `placed` names its parts and, as `pack:…`, the project's packs.

    Raises `InvalidInput` for a version that is no folder.
    """
    if not is_tree(manifest):
        raise InvalidInput("this is a table, not a folder of files", hint="annotate the parameter as a pl.LazyFrame")
    table = DataCodec().load(manifest, blobs, placed).select(SCHEMA.names).collect().to_arrow().cast(SCHEMA)
    packs = [identity for key, identity in placed.items() if key.startswith(PACK)]
    return Tree("", "the folder", table, Shelf(blobs, packs, Path(_cache().name)))


@cache
def _cache() -> TemporaryDirectory[str]:
    """Where this process keeps indexes of packs; it goes with the process."""
    return TemporaryDirectory(prefix="everloop-packs-")


def is_tree(manifest: Any) -> bool:
    """Whether a version's table is that of a folder."""
    fields = dict(manifest.get("schema_fields", ()))
    wanted = {"path": "string", "size": "int64", "media_type": "string", "digest": "string"}
    return list(manifest.get("key", ())) == ["path"] and all(fields.get(n) == t for n, t in wanted.items())


def _digests(ids: Sequence[str], paths: Sequence[str]) -> Any:
    for identity, path in zip(ids, paths, strict=True):
        if not isinstance(identity, str) or not is_id(identity):
            raise DataError(f"{path} has no digest but {identity!r}", hint="the table of the folder was edited")
    return np.frombuffer(bytes.fromhex("".join(identity[len(PREFIX) :] for identity in ids)), "V32")
