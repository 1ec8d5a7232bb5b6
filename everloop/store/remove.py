"""Removing given objects at once, whether or not something names them: an erasure."""

from collections.abc import Iterable
from pathlib import Path

from everloop.store.layout import file_of, guarded
from everloop.store.sweep import exclusive


def remove(root: Path, identities: Iterable[str]) -> int:
    """Remove objects, without grace; returns how many were there. Raises `Unavailable`."""
    gone = 0
    with exclusive(root), guarded(root):
        for identity in identities:
            file = file_of(root, identity)
            if file.exists():
                file.unlink(missing_ok=True)
                gone += 1
    return gone
