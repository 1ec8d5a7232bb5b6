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

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


@contextmanager
def alone(folder: Path, key: str) -> Iterator[bool]:
    """Hold the lock of `key` while the block runs; waits for another holder, thread or process.

    Gives whether it had to wait: then the work may be done.
    """
    path = f"{folder}/{_UNSAFE.sub('_', key)[:200]}"
    handle, waited = _locked(path, folder)
    try:
        yield waited
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - on the path of every step
        os.close(handle)


def _locked(path: str, folder: Path) -> tuple[int, bool]:
    """An open file that is locked and still is what `path` names: its last holder removed it, perhaps."""
    waited = False
    while True:
        with ExitStack() as undo:
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:
                folder.mkdir(parents=True, exist_ok=True)
                continue
            undo.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                fcntl.flock(handle, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.fstat(handle).st_ino == os.stat(path).st_ino:  # noqa: PTH116
                    undo.pop_all()
                    return handle, waited
            waited = True
