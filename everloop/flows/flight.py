"""Single flight: the same work is done once, by whoever comes first; the others wait and reuse it.

A lock on a file of the workspace: the kernel lets it go when its holder dies. On machines that do not share the
folder the same recipe may run twice; both then record the same key, and nothing is lost but the time.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def alone(folder: Path, key: str) -> Iterator[None]:
    """Hold the lock of `key` while the block runs; waits for another holder, thread or process."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / re.sub(r"[^A-Za-z0-9_.-]", "_", key)[:200]
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.fstat(handle).st_ino == path.stat().st_ino:
                    break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the holder before us removed the file: take the new one
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
