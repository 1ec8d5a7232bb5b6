"""Cutting big files by content, so that an edit in the middle of one makes few new bytes.

A cut follows a byte where the hash of the 48 bytes up to it is small: a polynomial over the ring of 32-bit integers,
sum of b[i-j] p^j (Karp and Rabin 1987; content-defined cuts: Muthitacharoen, Chen and Mazieres 2001). With q the
inverse of the odd base p, the sums of b[i] q^i from the front give all windows of a block by one subtraction and one
product: no loop in Python. Where bytes are inserted, cuts are the same again after at most a few chunks.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

WINDOW = 48
MINIMUM, MEAN, MAXIMUM = 32 * 1024, 128 * 1024, 512 * 1024
_BASE = 0x9E3779B1
_BLOCK = 1 << 16
_LIMIT = np.uint32(2**32 // (MEAN - MINIMUM))
_READ = 8 << 20


def chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Pieces of what `read` gives (bytes, at most so many; none at the end), cut by content.

    How they are cut does not depend on how much `read` gives at once.
    """
    held, more = b"", True
    while more:
        blocks, size = [held], len(held)
        while size < _READ and (block := read(_READ - size)):
            blocks.append(block)
            size += len(block)
        held, more = b"".join(blocks), size >= _READ
        start = 0
        for end in _cuts(held, final=not more):
            yield held[start:end]
            start = end
        held = held[start:]


def _cuts(data: bytes, *, final: bool) -> Iterator[int]:
    """Where `data`, which begins at a cut, is cut; without `final` only where no more bytes could change it."""
    places = candidates(data)
    start, size = 0, len(data)
    while size - start >= MAXIMUM or (final and start < size):
        at = int(np.searchsorted(places, start + MINIMUM))
        end = int(places[at]) if at < len(places) else size
        start = min(end, start + MAXIMUM, size)
        yield start


def candidates(data: bytes) -> "np.ndarray[Any, Any]":
    """Every place (count of bytes before it) after which the content says that one may cut, ascending."""
    powers, inverses = _powers()
    values = np.frombuffer(data, np.uint8)
    found = []
    for begin in range(0, len(values) - WINDOW + 1, _BLOCK):
        block = values[begin : begin + _BLOCK + WINDOW - 1]
        sums = np.zeros(len(block) + 1, np.uint32)
        np.cumsum(block * inverses[: len(block)], dtype=np.uint32, out=sums[1:])
        windows = (sums[WINDOW:] - sums[:-WINDOW]) * powers[WINDOW - 1 : len(block)]
        hits = np.flatnonzero((windows - np.uint32(1)) < _LIMIT)  # a run of zeros has hash 0, and is no place to cut
        found.append(hits + (begin + WINDOW))
    return np.concatenate(found) if found else np.empty(0, np.int64)


@cache
def _powers() -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    count = _BLOCK + WINDOW - 1
    both = []
    for factor in (_BASE, pow(_BASE, -1, 2**32)):
        steps = np.full(count, factor, np.uint32)
        steps[0] = 1
        both.append(np.cumprod(steps, dtype=np.uint32))
    return both[0], both[1]
