"""The version before: what the parts of the next one may rest on."""

from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from everloop.core.errors import EverloopError
from everloop.core.ports import Blobs
from everloop.data.content.files import layered_file, local_object, rows_of
from everloop.data.content.keys import end_of, key_types
from everloop.data.content.layers import Layers, layered
from everloop.data.content.logical import digest

WORTH_BYTES = 0.7
"""A layered part may have this share of the bytes that the part would have, to go by its base."""
TRIES = 3
"""After so many parts in vain none is tried any more: the table differs everywhere."""

Span = tuple[tuple[str, ...], tuple[str, ...]]
"""The first and the last key of a part, as its manifest says them."""


class Predecessor:
    """Parts of an earlier version of a table, as bases of new ones."""

    def __init__(self, manifest: Mapping[str, Any], placed: Mapping[str, str], blobs: Blobs, cache: Path) -> None:
        """`placed` holds the objects of the manifest's parts, as far as they have a place."""
        self._blobs, self._cache, self._placed = blobs, cache, placed
        self._parts = list(manifest["parts"])
        self._key = list(manifest["key"])
        types = key_types(manifest)
        begins = [end_of(part, "key_min", types) for part in self._parts]
        self._begins = begins if types and not any(None in begin for begin in begins) else None
        self._types = types
        self._next = 0
        self._vain = 0

    def layers(self, table: pa.Table, logical: str, key: list[str], span: Span) -> tuple[str, bytes] | None:
        """The object id of a base, and a layered object that makes the part `table` of it.

        None when it is not worth it. `span` is the first and the last key of the part, as its manifest says them.
        """
        if key != self._key or self._vain >= TRIES or not table.num_rows:
            return None
        tried = [self._layers(table, logical, key, at) for at in self._near(span)]
        found = min((one for one in tried if one), key=lambda one: len(one[1]), default=None)
        self._vain = 0 if found else self._vain + 1
        return found

    def _near(self, span: Span) -> list[int]:
        """The parts that the first and the last key lie in; where nothing tells, the one after the last."""
        if self._begins is None:
            self._next += 1
            return [self._next - 1]
        ends = [end_of({"key_min": end}, "key_min", self._types) for end in span]
        return sorted({max(0, bisect_right(self._begins, end) - 1) for end in ends})

    def _layers(self, table: pa.Table, logical: str, key: list[str], at: int) -> tuple[str, bytes] | None:
        identity = self._placed.get(self._parts[at]["logical"]) if at < len(self._parts) else None
        if identity is None:
            return None
        try:
            path = local_object(self._blobs, identity, self._cache)
            if layered_file(path):
                identity = Layers.decode(path.read_bytes()).base
                path = local_object(self._blobs, identity, self._cache)
            base = rows_of(path)
        except EverloopError:  # erased or damaged: the new part is written whole, `everloop verify` tells of the old
            return None
        made = layered(table, base, key, identity)
        if made is None:
            return None
        content = made.encode()
        again = Layers.decode(content).fold(base, table.column_names, key)
        whole = path.stat().st_size * table.num_rows / max(base.num_rows, 1)
        worth = len(content) <= WORTH_BYTES * whole and digest(again).logical == logical
        return (identity, content) if worth else None
