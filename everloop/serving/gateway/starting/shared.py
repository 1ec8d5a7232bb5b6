"""A worker process that several models share: one connection each, handed over as a cluster's bridge gets its own.

For many small models of which few are asked at once: the libraries are in memory once. Each model answers in a thread,
so they share one core's worth of Python, and what ends the process ends all of them until it is started again.
"""

import socket
import subprocess
from dataclasses import dataclass, field

import psutil

from everloop.core.errors import Unavailable
from everloop.serving.gateway.starting import spare


@dataclass(slots=True)
class Shared:
    """One such process; it ends by itself when no model was in it for a while, and begins with the next."""

    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _control: socket.socket | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """Of the process; 0 while there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    @property
    def memory(self) -> int:
        """Bytes in memory."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss) if self.pid else 0
        except psutil.Error:
            return 0

    def take(self, theirs: socket.socket) -> None:
        """Hand one end of a model's connection to the process, which is started if it does not run.

        Raises `Unavailable` where one that was just started takes nothing either.
        """
        failed = ""
        for _ in range(2):
            if not self.pid or self._control is None:
                self._begin()
            try:
                assert self._control is not None
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            except OSError as error:  # it ends just now
                failed = str(error)
                self._begin()
            else:
                return
        raise Unavailable(f"the process that models share takes none: {failed}", hint="it is tried again")

    def _begin(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process, self._control = spare.started(many=True)

    def kill(self) -> None:
        """End it: what answers in it hangs. Its models are loaded again into the next."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Have it end with its last model."""
        if self._control is not None:
            self._control.close()
