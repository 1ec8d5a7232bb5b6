"""Local files of objects and parts: where they lie, or a copy in the cache.

The cache holds objects of a store that is not local, and layered parts folded into whole Parquet files. Whatever lies
there can be made again; what nobody used for an hour may go when it grows beyond its limit.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from everloop.core.ports import Blobs
from everloop.data.content.layers import Layers, is_layered
from everloop.data.content.schema import plain
from everloop.store.trim import trim, used

CACHE_LIMIT = 8 * 2**30
"""Bytes that the cache may hold before its oldest files go."""


def local_object(blobs: Blobs, identity: str, cache: Path) -> Path:
    """A local file with the bytes of an object; those of a store that is not local are fetched into `cache`."""
    locate = getattr(blobs, "path", None)
    path = locate(identity) if locate is not None else None
    if path is not None:
        return Path(path)
    target = cache / f"{identity.removeprefix('b3:')}.object"
    if not used(target):
        _write(target, blobs.get(identity))
    return target


def local_part(blobs: Blobs, identity: str, cache: Path, manifest: Mapping[str, Any]) -> Path:
    """A local Parquet file with the rows of a part: its object, or what its layers fold into, in `cache`."""
    path = local_object(blobs, identity, cache)
    if not layered_file(path):
        return path
    target = cache / f"{identity.removeprefix('b3:')}.parquet"
    if not used(target):
        sink = pa.BufferOutputStream()
        pq.write_table(folded(blobs, path, cache, manifest), sink, compression="lz4", version="2.6")
        _write(target, sink.getvalue())
    return target


def layered_file(path: Path) -> bool:
    """Whether the object in a local file is a layered part."""
    with path.open("rb") as file:
        return is_layered(file)


def folded(blobs: Blobs, path: Path, cache: Path, manifest: Mapping[str, Any]) -> pa.Table:
    """The rows of the layered part in `path`; the manifest of a version that has it names its columns and key."""
    layers = Layers.decode(path.read_bytes())
    base = rows_of(local_object(blobs, layers.base, cache))
    return layers.fold(base, [name for name, _ in manifest["schema_fields"]], list(manifest["key"]))


def rows_of(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a Parquet file in plain layout, or some of its columns."""
    with pq.ParquetFile(path) as file:
        return plain(file.read(columns, use_threads=False))


def _write(target: Path, content: Any) -> None:
    """Put a file into the cache, whole or not at all; what is old makes way."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(content)
    Path(file.name).replace(target)
    trim(target.parent, CACHE_LIMIT)
