"""Single flight: the same work is done once, by whoever comes first; the others wait and reuse it.

A lock on a file of the workspace: the kernel lets it go when its holder dies. On machines that do not share the
folder the same recipe may run twice; both then record the same key, and nothing is lost but the time.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def alone(folder: Path, key: str) -> Iterator[None]:
    """Hold the lock of `key` while the block runs; waits for another holder, thread or process."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / re.sub(r"[^A-Za-z0-9_.-]", "_", key)[:200]
    handle = _locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _locked(path: Path) -> int:
    """An open file that is locked and still is what `path` names: its last holder removed it, perhaps."""
    while True:
        with ExitStack() as undo:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            undo.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.fstat(handle).st_ino == path.stat().st_ino:
                    undo.pop_all()
                    return handle
