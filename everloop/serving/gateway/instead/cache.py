"""Answers that were given, to be given again when nobody can answer: bounded, not for long, and gone with an erasure.

The key is the question in one form: its columns by name. An erasure anywhere in the workspace empties the cache of
every gateway: it counts up a file, which gateways look at five times a second, and waits until each of them says so.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from everloop.serving.columns import Columns, Outputs

EPOCH = "forget.epoch"
"""In the folder of serving: how often caches were to be emptied."""
Key = tuple[str, bytes]


class Kept(NamedTuple):
    """An answer."""

    at: float
    """`time.monotonic()` when it was given."""
    rows: int
    outputs: Outputs
    answer: Mapping[str, np.ndarray[Any, Any]]


class Cache:
    """The answers that one gateway keeps, by endpoint and question."""

    def __init__(self, folder: Path) -> None:
        """Keep nothing yet; `folder` is that of serving."""
        self._path = folder / EPOCH
        self._kept: dict[str, OrderedDict[bytes, Kept]] = {}
        self._rows: dict[str, int] = {}
        self.epoch = read_epoch(self._path)
        """The newest emptying that was followed."""

    def put(self, key: Key, outputs: Outputs, answer: Mapping[str, np.ndarray[Any, Any]], rows: int, most: int) -> None:
        """Keep an answer of some rows; those of longest ago go until `most` rows of the endpoint stay."""
        address, question = key
        if rows > most:
            return
        kept = self._kept.setdefault(address, OrderedDict())
        before = kept.pop(question, None)
        kept[question] = Kept(time.monotonic(), rows, outputs, answer)
        total = self._rows.get(address, 0) + rows - (before.rows if before else 0)
        while total > most:
            total -= kept.popitem(last=False)[1].rows
        self._rows[address] = total

    def get(self, key: Key, seconds: float) -> Kept | None:
        """An answer that is not older than `seconds`; None when there is none."""
        answers = self._kept.get(key[0])
        kept = answers.get(key[1]) if answers else None
        return kept if kept is not None and time.monotonic() - kept.at <= seconds else None

    def follow(self) -> None:
        """Forget everything if somebody was erased since."""
        epoch = read_epoch(self._path)
        if epoch != self.epoch:
            self._kept.clear()
            self._rows.clear()
            self.epoch = epoch

    @property
    def rows(self) -> int:
        """How many are kept."""
        return sum(self._rows.values())


def key_of(address: str, columns: Columns, names: Sequence[str]) -> Key:
    """The key of a question to an endpoint that takes the columns `names`."""
    listed = [(name, _listed(columns[name])) for name in sorted(names) if name in columns]
    return address, blake2b(msgspec.msgpack.encode(listed), digest_size=16).digest()


def _listed(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def read_epoch(path: Path) -> int:
    """How often caches were to be emptied."""
    try:
        return int(path.read_bytes() or b"0")
    except (OSError, ValueError):
        return 0
