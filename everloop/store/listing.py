"""Listing what a store holds."""

from collections.abc import Iterator
from pathlib import Path

from everloop.store.layout import guarded, identity_of


def files(root: Path) -> Iterator[Path]:
    """The file of every object, in the order of ids."""
    with guarded(root):
        shelves = sorted(shelf for shelf in root.iterdir() if len(shelf.name) == 2 and shelf.is_dir())
        for shelf in shelves:
            yield from (file for file in sorted(shelf.iterdir()) if identity_of(file) is not None)


def ids(root: Path) -> Iterator[str]:
    """The ids of all objects, in order."""
    for file in files(root):
        identity = identity_of(file)
        if identity is not None:
            yield identity
