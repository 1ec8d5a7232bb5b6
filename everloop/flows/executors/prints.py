"""What a child process prints, read while it runs: both streams, in the order in which they are met.

The pipes hold what a child wrote before it was killed, so that nothing of it is lost. Lines of the two streams that
were written within the same moment may change places.
"""

import codecs
import os
import selectors
import threading
from collections import deque
from typing import IO

from everloop.core.ports import Observer

_TAIL = 64 * 1024
_PIECE = 64 * 1024


class Prints:
    """Reads the standard streams of a child in a thread, from its making until `finish`."""

    def __init__(self, out: IO[bytes] | None, err: IO[bytes] | None, observer: Observer | None) -> None:
        """Begin to read both streams; every piece goes to the observer as text."""
        assert out is not None
        assert err is not None
        self._observer = observer
        self._pieces: deque[str] = deque()
        self._held = 0
        self._stop, self._stopping = os.pipe()
        self._streams: dict[str, IO[bytes]] = {"out": out, "err": err}
        self._thread = threading.Thread(target=self._read, name="prints", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Read what the pipes still hold, and no more: a process that the child left behind may keep them open."""
        os.close(self._stopping)
        self._thread.join()
        os.close(self._stop)
        for stream in self._streams.values():
            stream.close()

    def tail(self) -> str:
        """The last 64 KiB of both streams."""
        return "".join(self._pieces)[-_TAIL:]

    def _read(self) -> None:
        decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in self._streams}
        with selectors.DefaultSelector() as ready:
            for name, stream in self._streams.items():
                os.set_blocking(stream.fileno(), False)
                ready.register(stream, selectors.EVENT_READ, name)
            ready.register(self._stop, selectors.EVENT_READ, "")
            while True:
                keys = [key for key, _ in ready.select()]
                read = 0
                for key in keys:
                    if not key.data:
                        continue
                    content = os.read(key.fd, _PIECE)
                    read += len(content)
                    self._say(key.data, decoders[key.data].decode(content, final=not content))
                    if not content:
                        ready.unregister(key.fileobj)
                if not read and any(not key.data for key in keys):
                    return

    def _say(self, stream: str, text: str) -> None:
        if not text:
            return
        self._pieces.append(text)
        self._held += len(text)
        while self._held - len(self._pieces[0]) > _TAIL:
            self._held -= len(self._pieces.popleft())
        if self._observer is not None:
            self._observer.wrote(stream, text)
