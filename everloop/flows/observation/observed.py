"""One step, observed: joins its console and its sampler to where runs are recorded."""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from everloop.core.clock import Micros
from everloop.core.errors import EverloopError
from everloop.core.ports import Line, Observer, Outcome, Resources, RunSink, Sample, Use
from everloop.flows.observation.console import Console
from everloop.flows.observation.sampling import Sampler
from everloop.flows.observation.using import Meter

Said = Callable[[str, Line], None]
"""Shows a line to people, with the key of its step."""


class Observed:
    """A `core.ports.Observer` of one step.

    Lines go to the run, or under the recipe of a step without one; measures to the run. Without a sink nothing is
    kept, and lines are shown only.
    """

    def __init__(
        self,
        step: str,
        *,
        recipe: str,
        run: str,
        sink: RunSink | None,
        now: Callable[[], Micros],
        secrets: set[str],
        said: Said | None = None,
        resources: Resources | None = None,
        unseen: bool = False,
    ) -> None:
        """Observe `step`, which may use `resources`, on another machine when `unseen`; `said` shows its lines."""
        self.meter = Meter(resources or Resources(), unseen=unseen)
        owner = run or recipe
        self.shows = said is not None

        def keep(lines: Sequence[Line], first: bool, last: bool) -> None:
            assert sink is not None
            sink.write(owner, lines, first=first and not run, last=last)

        def take(samples: Sequence[Sample]) -> None:
            assert sink is not None
            sink.log(run, samples)

        def show(line: Line) -> None:
            assert said is not None
            _SHOWING.now = True
            try:
                said(step, line)
            finally:
                _SHOWING.now = False

        self._console = Console(now, secrets=secrets, keep=keep if sink else None, show=show if said else None)
        self._sampler = Sampler(take, now) if sink is not None and run else None

    def began(self, pid: int) -> None:
        """Measure this process from now on."""
        self.meter.start(pid)
        if self._sampler is not None:
            self._sampler.start(pid)

    def wrote(self, stream: str, text: str) -> None:
        """Take what it printed."""
        self._console.wrote(stream, text)

    def used(self, use: Use) -> None:
        """Take what it used in all."""
        self.meter.told = use

    def ended(self, outcome: Outcome | None = None) -> None:
        """Write what is left, before the run is closed."""
        self._console.close()
        if self._sampler is not None:
            measured = (outcome.seconds, outcome.cpu_seconds, outcome.peak_memory) if outcome else ()
            self._sampler.finish(*measured)

    def cover(self, error: EverloopError) -> None:
        """Mask secrets in what an error says and in the output that it carries."""
        error.message = self._console.masked(error.message)
        error.args = (error.message,)
        for name in ("output", "traceback"):
            if isinstance(error.details.get(name), str):
                error.details[name] = self._console.masked(error.details[name])


@contextmanager
def listening(observer: Observer | None) -> Iterator[None]:
    """Let the observer hear what this process prints through `sys.stdout` and `sys.stderr`.

    What code below Python writes to the descriptors themselves is not heard: they are the whole process's.
    """
    if observer is None:
        yield
        return
    out, err = sys.stdout, sys.stderr
    heard: Any = _Heard(out, "out", observer), _Heard(err, "err", observer)
    sys.stdout, sys.stderr = heard
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


class _Heard:
    """A stream that an observer hears; all but writing is the other stream's."""

    def __init__(self, other: TextIO, stream: str, observer: Observer) -> None:
        self._other, self._stream, self._observer = other, stream, observer

    def write(self, text: str) -> int:
        if getattr(_SHOWING, "now", False):  # what shows a line to people may write here itself
            return self._other.write(text)
        self._observer.wrote(self._stream, text)
        if not self._observer.shows:
            self._other.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._other, name)


_SHOWING = threading.local()
