"""Removing what nobody refers to any more."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from everloop.store.layout import LOCK, TEMPORARY, guarded, identity_of
from everloop.store.listing import files


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed, or would have removed."""

    removed: tuple[str, ...]
    bytes: int
    kept: int
    leftovers: int
    """Half-written files of processes that died."""
    dry_run: bool


def sweep(root: Path, keep: Callable[[str], bool], older_than_seconds: float, *, dry_run: bool) -> Swept:
    """Remove every object that `keep` does not want and that nobody put within `older_than_seconds`.

    The grace period covers the time between storing an object and recording the version that names it. Putting an
    object again renews it; who does so while the sweep looks at it wins.
    """
    limit = time.time() - older_than_seconds
    removed: list[str] = []
    freed = kept = 0
    for file in files(root):
        identity = identity_of(file)
        assert identity is not None
        size = _expired(file, limit)
        if size is None or keep(identity):
            kept += 1
            continue
        if not dry_run:
            with exclusive(root):
                size = _expired(file, limit)  # `keep` took its time: somebody may have put it again
                if size is None:
                    kept += 1
                    continue
                with guarded(root):
                    file.unlink(missing_ok=True)
        removed.append(identity)
        freed += size
    return Swept(tuple(removed), freed, kept, _leftovers(root, limit, dry_run=dry_run), dry_run)


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """No `put` renews an object meanwhile."""
    with _locked(root, fcntl.LOCK_EX):
        yield


@contextmanager
def shared(root: Path) -> Iterator[None]:
    """No sweep removes an object meanwhile."""
    with _locked(root, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(root: Path, mode: int) -> Iterator[None]:
    with guarded(root):
        descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, mode)
            yield
        finally:
            os.close(descriptor)  # which unlocks


def _expired(file: Path, limit: float) -> int | None:
    """The size of a file that is older than the limit; None when it is newer, or gone."""
    with suppress(FileNotFoundError):
        state = file.stat()
        if state.st_mtime < limit:
            return state.st_size
    return None


def _leftovers(root: Path, limit: float, *, dry_run: bool) -> int:
    with guarded(root):
        old = [file for file in (root / TEMPORARY).iterdir() if _expired(file, limit) is not None]
        if not dry_run:
            for file in old:
                file.unlink(missing_ok=True)
        return len(old)
