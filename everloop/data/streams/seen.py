"""Which events a feed has had: hashes of the newest ones, read again from the head whenever a consumer starts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from everloop.data.content.ordering import key_hashes

_PIECES = 16


class Seen:
    """Hashes of 64 bits of the newest events, `size` of them at least.

    An event that was never there is taken for another with a chance of `size` in 1.8e19.
    """

    def __init__(self, columns: Sequence[str], size: int) -> None:
        """Begin with nothing. Without `columns` no two events are the same."""
        self._columns, self._size = list(columns), size
        self._pieces: list[np.ndarray[Any, Any]] = []

    def load(self, manifest: Mapping[str, Any], paths: Sequence[Path]) -> None:
        """Begin with what a version holds; its parts are in the order of arrival."""
        self._pieces = []
        wanted = self._size
        for part, path in zip(reversed(manifest["parts"]), reversed(paths), strict=True):
            if not self._columns or wanted <= 0:
                break
            if part["rows"]:
                self._pieces.insert(0, np.sort(self._hashes(pq.read_table(path, columns=self._columns))))
            wanted -= part["rows"]

    def fresh(self, rows: pa.Table) -> np.ndarray[Any, Any]:
        """Which rows are neither there nor repeat one above them."""
        if not self._columns or not rows.num_rows:
            return np.ones(rows.num_rows, bool)
        hashes = self._hashes(rows)
        first = np.zeros(len(hashes), bool)
        first[np.unique(hashes, return_index=True)[1]] = True
        for piece in self._pieces:
            at = np.minimum(np.searchsorted(piece, hashes), len(piece) - 1)
            first &= piece[at] != hashes
        return first

    def add(self, rows: pa.Table) -> None:
        """Remember rows that are committed now."""
        if not self._columns or not rows.num_rows:
            return
        self._pieces.append(np.sort(self._hashes(rows)))
        while len(self._pieces) > 1 and sum(map(len, self._pieces[1:])) >= self._size:
            del self._pieces[0]
        if len(self._pieces) > _PIECES:  # neighbours of like size become one, so that few are searched
            at = min(range(len(self._pieces) - 1), key=lambda i: len(self._pieces[i]) + len(self._pieces[i + 1]))
            self._pieces[at : at + 2] = [np.sort(np.concatenate(self._pieces[at : at + 2]))]

    def _hashes(self, rows: pa.Table) -> np.ndarray[Any, Any]:
        return key_hashes(rows, self._columns)
