"""Modules of projects are compiled from their source each time, so that what runs is what the closure was taken of.

Python keeps the bytecode of a module and takes it for fresh while time (in whole seconds) and size of the source are
the same. An edit within a second that leaves the length as it was would run the old code under the new code's identity,
and its output would be kept as the new code's. Closures are read from the source; so is what runs.
"""

import importlib
import os
import sys
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path
from typing import Any

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_roots: set[str] = set()


class FromSource(SourceFileLoader):
    """Neither reads nor writes bytecode."""

    def path_stats(self, path: Any) -> Any:
        """Say that nothing is known of the file's time, which is what bytecode is compared by."""
        raise OSError(f"{path}: compiled anew")


def import_from_source(root: Path) -> None:
    """From now on modules below `root` come from their source, installed packages below it apart."""
    place = str(root.resolve())
    if place in _roots:
        return
    if not _roots:
        sys.path_hooks.insert(0, _finder)
    _roots.add(place)
    for path in [path for path in sys.path_importer_cache if of_project(path)]:
        del sys.path_importer_cache[path]
    importlib.invalidate_caches()


def _finder(path: str) -> FileFinder:
    if not of_project(path) or not Path(path).is_dir():
        raise ImportError(f"{path} is not of a project")
    return FileFinder(path, (ExtensionFileLoader, EXTENSION_SUFFIXES), (FromSource, SOURCE_SUFFIXES))


def of_project(path: str) -> bool:
    """Whether a file or folder lies below a project that was imported here, installed packages apart."""
    for root in _roots:
        if path == root or path.startswith(root + os.sep):
            return not _INSTALLED & set(Path(path).relative_to(root).parts)
    return False
