"""The version before: what the parts of the next one may rest on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from everloop.core.errors import EverloopError
from everloop.core.ports import Blobs
from everloop.data.content.files import layered_file, local_object, rows_of
from everloop.data.content.layers import Layers, layered
from everloop.data.content.logical import digest

WORTH_BYTES = 0.5
"""A layered part may have this share of its base's bytes."""
TRIES = 3
"""After so many parts in vain none is tried any more: the table differs everywhere."""


class Predecessor:
    """Parts of an earlier version of a table, as bases of new ones."""

    def __init__(self, manifest: Mapping[str, Any], placed: Mapping[str, str], blobs: Blobs, cache: Path) -> None:
        """`placed` holds the objects of the manifest's parts, as far as they have a place."""
        self._blobs, self._cache, self._placed = blobs, cache, placed
        self._parts = list(manifest["parts"])
        self._key = list(manifest["key"])
        self._first = {tuple(part.get("key_min", ())): i for i, part in enumerate(self._parts)}
        self._last = {tuple(part.get("key_max", ())): i for i, part in enumerate(self._parts)}
        self._next = 0
        self._vain = 0

    def layers(
        self, table: pa.Table, logical: str, key: list[str], span: tuple[tuple[str, ...], tuple[str, ...]]
    ) -> tuple[str, bytes] | None:
        """The object id of a base, and a layered object that makes the part `table` of it.

        None when it is not worth it. `span` is the first and the last key of the part, as its manifest says them.
        """
        if key != self._key or self._vain >= TRIES or not table.num_rows:
            return None
        found = self._layers(table, logical, key, self._near(span))
        self._vain = 0 if found else self._vain + 1
        return found

    def _near(self, span: tuple[tuple[str, ...], tuple[str, ...]]) -> int:
        """The part that begins or ends where this one does, else the one after the last that was asked for."""
        first, last = span
        at = self._first.get(first) if first else None
        if at is None and last:
            at = self._last.get(last)
        at = self._next if at is None else at
        self._next = at + 1
        return at

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
        worth = len(content) <= WORTH_BYTES * path.stat().st_size and digest(again).logical == logical
        return (identity, content) if worth else None
