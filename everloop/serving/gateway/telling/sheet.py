"""The file that a gateway tells its counters by, `home/serving/stats/<gateway>.json`.

What is said of an endpoint is kept as bytes until something about it changes: endpoints that nobody asks cost nothing.
While nothing at all changes, the file is only marked: its time of change says that the gateway lives.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from everloop.serving.gateway.fleet import Fleet
from everloop.serving.table import write_atomically


class Sheet:
    """The file of one gateway."""

    def __init__(self, path: Path, started: str) -> None:
        """Nothing is written yet; `started` tells this process from others of its name."""
        self._path = path
        self._who = {"gateway": path.stem, "pid": os.getpid(), "started": started}
        self._written = b""

    def write(self, fleet: Fleet, rest: Mapping[str, Any]) -> None:
        """Write what is so now; a full disk must not end the gateway."""
        changed, endpoints = fleet.told()
        head = orjson.dumps({**fleet.standing(), **rest})
        with contextlib.suppress(OSError):
            if changed or head != self._written:
                said = orjson.dumps({**self._who, "wall": time.time_ns() // 1000})
                content = b'%b,%b,"endpoints":{%b}}' % (said[:-1], head[1:-1], b",".join(endpoints))
                write_atomically(self._path, content, fsync=False)
                self._written = head
            else:
                os.utime(self._path)

    def remove(self) -> None:
        """The gateway ends."""
        self._path.unlink(missing_ok=True)
