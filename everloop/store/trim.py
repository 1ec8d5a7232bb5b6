"""Keeping a cache small: what was used longest ago goes."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

IN_USE = 3600.0
"""Seconds after its last use in which a file stays in any case: somebody may be about to open it."""


def trim(root: Path, limit: int, *, now: float | None = None) -> int:
    """Remove the files below `root` that were used longest ago until `limit` bytes are left; returns how many went.

    A file's time tells its last use. Only for what can be made or fetched again.
    """
    found = sorted(_files(root))
    excess, gone = sum(size for _, size, _ in found) - limit, 0
    for used, size, path in found:
        if gone >= excess or used > (time.time() if now is None else now) - IN_USE:
            break
        Path(path).unlink(missing_ok=True)
        gone += size
    return gone


def used(file: Path) -> bool:
    """Whether a file is there; it counts as used now."""
    try:
        os.utime(file)
    except FileNotFoundError:
        return False
    return True


def _files(root: Path) -> Iterator[tuple[float, int, str]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            try:
                status = path.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield status.st_mtime, status.st_size, str(path)
