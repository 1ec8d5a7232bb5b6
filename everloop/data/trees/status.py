"""What differs in a checked-out folder from the version that it came from. Needs no workspace, no catalog, no Arrow."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3

from everloop.core.errors import InvalidInput
from everloop.data.trees import stamps
from everloop.data.trees.scanning import Listing, look, racy
from everloop.data.trees.stamps import Stamps

NOTE = ".everloop-tree"
"""The file in a checked-out folder that says which version it holds, and how its files looked."""
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Status:
    """A checked-out folder beside its version."""

    name: str
    number: int
    version: str
    added: Sequence[str]
    """Files that the version does not have; hidden ones are not told."""
    modified: Sequence[str]
    removed: Sequence[str]
    unchanged: int
    unfinished: bool
    """Whether a checkout was stopped before its end; doing it again completes it."""

    @property
    def clean(self) -> bool:
        """Whether the folder holds exactly its version."""
        return not (self.added or self.modified or self.removed or self.unfinished)


def status(folder: Path, *, now: int) -> Status:
    """Compare a folder with its version, reading only files whose stamp changed. `now` is in nanoseconds.

    Raises `InvalidInput` for a folder that no checkout made.
    """
    note = stamps.load(folder / NOTE)
    if note is None:
        raise InvalidInput(f"{folder} was not checked out", hint="everloop data checkout NAME@VERSION FOLDER")
    listing = look(folder, taken=now).without(NOTE)
    rows = note.known(listing)
    if len(rows) == len(note.paths) and not (rows < 0).any():  # nearly always
        return _status(note)
    at = {path: row for row, path in enumerate(note.paths)}
    modified, added, healed = [], [], []
    for i in np.flatnonzero(rows < 0).tolist():
        path = listing.paths[i]
        row = at.get(path, -1)
        if row < 0:
            added += [] if hidden(path) else [path]
        elif _same(listing, i, note, row):
            healed.append((i, row))
        else:
            modified.append(path)
    here = set(listing.paths)
    removed = [path for path in note.paths if path not in here]
    if healed:
        _refresh(folder, note, listing, healed)
    return _status(note, added, modified, removed)


def _status(
    note: Stamps, added: Sequence[str] = (), modified: Sequence[str] = (), removed: Sequence[str] = ()
) -> Status:
    return Status(
        name=note.more["name"],
        number=note.more["number"],
        version=note.more["version"],
        added=added,
        modified=modified,
        removed=removed,
        unchanged=len(note.paths) - len(modified) - len(removed),
        unfinished=bool(note.more.get("unfinished")),
    )


def hidden(path: str) -> bool:
    """Whether a name in the path begins with a dot."""
    return path.startswith(".") or "/." in path


def digest_file(file: str) -> bytes | None:
    """The digest of a regular file's content; None when it cannot be read. A pipe is not waited for."""
    hasher = blake3()
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        while piece := os.read(descriptor, _PIECE):
            hasher.update(piece)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return hasher.digest()


def _same(listing: Listing, i: int, note: Stamps, row: int) -> bool:
    if listing.stamps["size"][i] != note.stamps["size"][row]:
        return False
    return bool(digest_file(listing.file(listing.paths[i])) == note.digests[row].tobytes())


def _refresh(folder: Path, note: Stamps, listing: Listing, healed: Sequence[tuple[int, int]]) -> None:
    """Note the new stamps of files that turned out unchanged, so that they are not read the next time.

    Rows whose stamp is not the newest keep counting as unknown: the note's time may only move for all of them.
    """
    found = note.stamps.copy()
    for i, row in healed:
        found[row] = listing.stamps[i]
    if racy(found, listing.taken).any():
        return
    Stamps(note.paths, found, note.digests, listing.taken, dict(note.more)).save(folder / NOTE)
