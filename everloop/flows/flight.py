"""Single flight: the same work is done once, by whoever comes first; the others wait and reuse it.

One file of the workspace, of which each key locks one byte: the kernel lets it go when its holder dies, and no file is
made for a key. Such locks are a process's, so threads exclude each other by a set of their own. On machines that do not
share the folder the same recipe may run twice; both then record the same key, and nothing is lost but the time.
"""

import fcntl
import os
import threading
import time
from pathlib import Path

from blake3 import blake3

_NAME = "flights.lock"
_AGAIN = 0.02
"""Seconds between two looks at a lock that another process holds: waiting in the kernel would see deadlocks between
threads of two processes where there are none."""

_files: dict[tuple[int, str], int] = {}
_held: set[tuple[int, int]] = set()
_free = threading.Condition()


class Flight:
    """The lock of a key, held from its making until `release`; making it waits for another holder.

    The holder may be another thread or process. `waited` says that there was one: then the work may be done.
    """

    def __init__(self, folder: Path, key: str) -> None:
        """Take the lock in `folder`."""
        self._place = int.from_bytes(blake3(key.encode()).digest(7))
        self.waited = False
        with _free:
            self._file = _opened(str(folder))
            while (self._file, self._place) in _held:
                self.waited = True
                _free.wait()
            _held.add((self._file, self._place))
        while not self._taken():
            self.waited = True
            time.sleep(_AGAIN)

    def release(self) -> None:
        """Let the next one in."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._place)
        with _free:
            _held.discard((self._file, self._place))
            _free.notify_all()

    def _taken(self) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._place)
        except (BlockingIOError, PermissionError):
            return False
        return True


def _opened(folder: str) -> int:
    """The lock file of a folder: open once a process and never closed, for closing it would free every lock."""
    key = (os.getpid(), folder)
    if key not in _files:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _files[key] = os.open(f"{folder}/{_NAME}", os.O_RDWR | os.O_CREAT, 0o600)
    return _files[key]
