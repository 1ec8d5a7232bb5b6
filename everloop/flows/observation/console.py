"""From pieces of text to lines: put together, secrets masked, given on in batches."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from everloop.core.clock import Micros
from everloop.core.errors import EverloopError
from everloop.core.ports import Line

MASK = "***"
FLUSH_SECONDS = 0.5
_LONGEST = 8192
"""Characters of one line; a longer one goes on in the next."""
_WAITING = 20_000
"""Lines that wait while they cannot be kept; the oldest go first."""
_SHORTEST_SECRET = 5
"""A shorter one would mask parts of words, and protects nothing."""
_TELLING = ("TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "_KEY")

Keep = Callable[[Sequence[Line], bool, bool], None]
"""Stores a batch; the other arguments say that nothing came before it, and that nothing will follow."""


class Console:
    """Takes what a process prints, from any thread; gives lines to `show` at once and to `keep` twice a second.

    What cannot be kept now (the catalog is away) is tried again with the next batch, and never stops the step. The
    timer runs only while lines wait, so that a silent step costs nothing.
    """

    def __init__(
        self,
        now: Callable[[], Micros],
        *,
        secrets: Collection[str] = (),
        keep: Keep | None = None,
        show: Callable[[Line], None] | None = None,
    ) -> None:
        """Mask `secrets` in every line, also one that came in pieces."""
        self._now = now
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._longest_secret = max((len(secret) for secret in secrets), default=1)
        self._keep, self._show = keep, show
        self._begun = {"out": "", "err": ""}
        self._waiting: deque[Line] = deque(maxlen=_WAITING)
        self._lock, self._keeping = threading.Lock(), threading.Lock()
        self._timer: threading.Timer | None = None
        self._kept = False

    def wrote(self, stream: str, text: str) -> None:
        """Take a piece; lines that it ends are shown and wait to be kept."""
        with self._lock:
            *whole, begun = (self._begun[stream] + text).split("\n")
            at = self._now()
            for line in whole:
                self._add(at, stream, self.masked(line.removesuffix("\r").rpartition("\r")[2]))
            # a progress bar writes over itself: what stands on the line in the end is what counts
            begun = begun[begun.rfind("\r", 0, len(begun) - 1) + 1 :]
            if len(begun) > _LONGEST:
                begun = self.masked(begun)
                held = len(begun) - self._longest_secret + 1  # a secret may have begun at the end
                self._add(at, stream, begun[:held])
                begun = begun[held:]
            self._begun[stream] = begun
            if self._waiting and self._timer is None and self._keep is not None:
                self._timer = threading.Timer(FLUSH_SECONDS, self._flush)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Keep all that is left, lines without an end too."""
        with self._lock:
            for stream, begun in self._begun.items():
                if begun:
                    self._add(self._now(), stream, self.masked(begun.removesuffix("\r").rpartition("\r")[2]))
                    self._begun[stream] = ""
            if self._timer is not None:
                self._timer.cancel()
        if self._kept or self._waiting:
            self._flush(last=True)

    def masked(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def _add(self, at: Micros, stream: str, text: str) -> None:
        for start in range(0, max(1, len(text)), _LONGEST):
            line = Line(at, stream, text[start : start + _LONGEST])
            if self._keep is not None:
                self._waiting.append(line)
            if self._show is not None:
                self._show(line)

    def _flush(self, last: bool = False) -> None:
        with self._keeping:
            with self._lock:
                lines = list(self._waiting)
                self._waiting.clear()
                self._timer = None
            if self._keep is None:
                return
            try:
                self._keep(lines, not self._kept, last)
                self._kept = True
            except EverloopError:
                with self._lock:
                    self._waiting.extendleft(reversed(lines))


def secrets_of(bindings: Mapping[str, Any], environ: Mapping[str, str]) -> set[str]:
    """The texts that no line may show: values of bindings, passwords in them, variables whose names tell.

    Paths are not secret: a binding that starts with `/` or `.` or has no secret form of its own is left alone.
    """
    found = {value for name, value in environ.items() if any(word in name.upper() for word in _TELLING)}
    for value in map(str, bindings.values()):
        if value.startswith(("/", ".", "~")):
            continue
        found.add(value)
        with contextlib.suppress(ValueError):
            if password := urlsplit(value).password:
                found |= {password, unquote(password)}
    return {text for text in found if len(text) >= _SHORTEST_SECRET}
