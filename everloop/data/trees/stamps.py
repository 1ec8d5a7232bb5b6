"""What was known of files when they were last looked at: path, stamp, digest. It saves reading them again.

One small file, written whole by one rename: a line of JSON, then the stamps, the digests and the paths. Whatever is
wrong with it only costs that files are read again. It loads without Arrow: `everloop data status` needs nothing else.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from everloop.core.ids import fresh_id
from everloop.data.trees.scanning import STAMP, Listing, racy

_FORM = "everloop:stamps 1"
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Stamps:
    """Files in order of path, with the digests of their content (32 bytes each), and what else is to be remembered."""

    paths: Sequence[str]
    stamps: Array
    digests: Array
    taken: int
    more: dict[str, Any] = field(default_factory=dict)

    def known(self, listing: Listing) -> Array:
        """For each file of a listing, its row here; -1 for one that is new, changed, or changed too shortly before."""
        if list(listing.paths) == list(self.paths):
            rows = np.arange(len(self.paths))
        else:
            row_of = {path: row for row, path in enumerate(self.paths)}
            rows = np.fromiter((row_of.get(path, -1) for path in listing.paths), np.int64, len(listing.paths))
        if not len(self.paths):
            return rows
        same = (self.stamps[rows] == listing.stamps) & ~racy(self.stamps, self.taken)[rows]
        return np.where(same & (rows >= 0), rows, -1)

    def save(self, file: Path) -> None:
        """Write it, whole or not at all."""
        names = "\0".join(self.paths).encode()
        body = self.stamps.tobytes() + self.digests.tobytes() + names
        head = {
            "form": _FORM,
            "files": len(self.paths),
            "taken": self.taken,
            "sum": blake3(body).hexdigest(),
            "more": self.more,
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{fresh_id('stamps')}")
        try:
            temporary.write_bytes(json.dumps(head).encode() + b"\n" + body)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def empty(more: dict[str, Any] | None = None) -> Stamps:
    """Nothing is known."""
    return Stamps([], np.empty(0, STAMP), np.empty(0, "V32"), 0, more or {})


def load(file: Path) -> Stamps | None:
    """What `save` wrote; None when there is none, or it is damaged."""
    try:
        content = file.read_bytes()
        line, _, body = content.partition(b"\n")
        head = json.loads(line)
        count = head["files"]
        if head["form"] != _FORM or blake3(body).hexdigest() != head["sum"]:
            return None
        split = count * STAMP.itemsize
        names = body[split + 32 * count :].decode()
        stamps = np.frombuffer(body[:split], STAMP)
        digests = np.frombuffer(body[split : split + 32 * count], "V32")
        return Stamps(names.split("\0") if count else [], stamps, digests, head["taken"], head["more"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def merged(listing: Listing, digests: Sequence[bytes], more: dict[str, Any]) -> Stamps:
    """What to remember of a listing whose contents are known now."""
    return Stamps(listing.paths, listing.stamps, np.frombuffer(b"".join(digests), "V32"), listing.taken, more)
