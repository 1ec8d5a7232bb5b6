"""Ending a step that runs in this process: an exception is raised in its thread, and nowhere but in the step.

Whatever the driver itself does in that thread (a transaction, say) must come to its end.
"""

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from everloop.flows.running.settings import Ended


class Interrupts:
    """Who runs a step of one run in this process now, and whether all of them are to end."""

    def __init__(self) -> None:
        """Nobody yet."""
        self._lock = threading.Lock()
        self._inside: set[int] = set()
        self.stopping = threading.Event()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The block is a step's: `stop` ends it with `Ended`, which never comes later than the block's end."""
        me = threading.get_ident()
        with self._lock:
            if self.stopping.is_set():
                raise Ended
            self._inside.add(me)
        try:
            yield
        finally:
            with self._lock:
                raised = me not in self._inside
                self._inside.discard(me)
            if raised:
                _await()

    def stop(self) -> None:
        """End every step that runs in this process, from any thread; compiled code is waited for."""
        self.stopping.set()
        with self._lock:
            for thread in self._inside:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Ended))
            self._inside.clear()


def _await() -> None:
    """The exception may be on its way still: it comes here, before anything else goes on."""
    until = time.monotonic() + 1.0
    try:
        while time.monotonic() < until:
            time.sleep(0.001)
    except Ended:
        pass
    raise Ended
