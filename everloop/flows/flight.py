"""Single flight: the same work is done once, by whoever comes first; the others wait and reuse it.

A lock on a file of the workspace: the kernel lets it go when its holder dies. On machines that do not share the
folder the same recipe may run twice; both then record the same key, and nothing is lost but the time.
"""

import fcntl
import os
import re
from contextlib import ExitStack, suppress
from pathlib import Path

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


class Flight:
    """The lock of a key, held from its making until `release`; making it waits for another holder.

    The holder may be another thread or process. `waited` says that there was one: then the work may be done.
    """

    def __init__(self, folder: Path, key: str) -> None:
        """Take the lock, as a file of `folder`."""
        self._path = f"{folder}/{_UNSAFE.sub('_', key)[:200]}"
        self._handle, self.waited = _locked(self._path, folder)

    def release(self) -> None:
        """Let the next one in."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108 - on the path of every step
        os.close(self._handle)


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
