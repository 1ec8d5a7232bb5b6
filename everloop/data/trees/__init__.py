"""Folders of files as dataset versions: one row for each file, the bytes in packs.

A version of a folder is an ordinary table with the key `path`, so that differences, expectations, profiles, lineage and
time travel are those of tables. The bytes lie in packs beside it (`packing`), found by the digest of their content.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.data.trees.packing.compacting import compact
    from everloop.data.trees.previews import preview
    from everloop.data.trees.reading import Tree, is_tree, open_file, open_tree
    from everloop.data.trees.thumbnails import thumbnail

_HOMES = {
    "Tree": "reading",
    "compact": "packing.compacting",
    "is_tree": "reading",
    "open_file": "reading",
    "open_tree": "reading",
    "preview": "previews",
    "thumbnail": "thumbnails",
}

__all__ = ["Tree", "compact", "is_tree", "open_file", "open_tree", "preview", "thumbnail"]


def __getattr__(name: str) -> Any:
    """Load the module that offers `name`."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
