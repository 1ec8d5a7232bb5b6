"""Several models in one worker process, each with a thread and a connection of its own.

    python -m everloop.serving.modelworker --fd 5 --many

The gateway hands connections over on the one that it was started with. A model goes when its gateway hangs up.
"""

import ctypes
import gc
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

_ALONE_SECONDS = 60.0
"""How long the process stays without a model."""
_loading = threading.Lock()
Made = TypeVar("Made")


def loaded_alone(load: Callable[[], Made]) -> tuple[Made, int]:
    """What `load` gives, and by how many bytes the process grew: models are loaded one at a time."""
    with _loading:
        before = _resident()
        made = load()
        return made, max(_resident() - before, 0)


def serve_many(control: socket.socket, serve: Callable[[socket.socket], int]) -> int:
    """Take connections and serve each in a thread until the gateway hangs up, or none is left for a while."""
    running: set[threading.Thread] = set()
    control.settimeout(_ALONE_SECONDS)

    def one(connection: socket.socket) -> None:
        with connection, suppress(BrokenPipeError, ConnectionResetError):
            serve(connection)
        running.discard(threading.current_thread())
        _given_back()

    while True:
        try:
            content, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        except TimeoutError:
            if not running:
                return 0
            continue
        if not content:
            return 0  # threads of models that are left end with the process
        for descriptor in descriptors:
            thread = threading.Thread(target=one, args=(socket.socket(fileno=descriptor),), daemon=True)
            running.add(thread)
            thread.start()


def _given_back() -> None:
    """Give the memory of a model that went back to the system, where its allocator can."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
