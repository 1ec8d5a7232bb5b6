"""From a question to a logged answer: choose a revision, look features up, ask its worker, fall back, log."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from everloop.core.clock import Micros
from everloop.core.errors import EverloopError, InvalidInput, StepFailed, StorageFull, Unavailable
from everloop.serving import log
from everloop.serving.columns import Columns, Outputs, unpack_answer
from everloop.serving.fusing.derived import nulls_apart
from everloop.serving.gateway.features import FeaturesGone, Looked
from everloop.serving.gateway.fleet import Live, LiveRoute
from everloop.serving.protocol.question import Question
from everloop.serving.table import Lookup

FeatureReader = Callable[[Lookup, Columns, int, Micros], Looked]
"""(look-up, caller's columns, rows, event time) -> feature columns."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and its circumstances."""

    route: LiveRoute
    question: Question
    at: Micros
    """Event time."""
    sticky: bytes
    """Caller's key of stickiness; empty: by entity keys, or else by request."""
    pinned: str
    """Revision that the caller insists on, for tests; empty mostly."""
    protocol: str
    started: float
    """`time.monotonic()` at the request's arrival."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What to reply."""

    id: str
    """Prediction id; empty when the log is full and the endpoint serves unlogged."""
    live: Live
    rows: int
    outputs: Outputs
    answer: dict[str, np.ndarray[Any, Any]]
    fallback: bool
    stale: Mapping[str, str]
    """Feature views that were too old, and what stood for them."""

    def parameters(self) -> dict[str, Any]:
        """What every reply says about itself."""
        said: dict[str, Any] = {"revision": self.live.revision.id}
        if self.id:
            said["prediction_id"] = self.id
        if self.fallback:
            said["fallback"] = True
        if self.stale:
            said["stale"] = dict(self.stale)
        return said


class Predictions:
    """Answers questions; one a gateway."""

    def __init__(self, appender: log.Appender, nonce: int, reader: FeatureReader) -> None:
        """Log with `appender`; `nonce` (32 bit, random) keeps ids of different processes apart."""
        self._appender, self._reader = appender, reader
        self._nonce = f"{nonce & 0xFFFFFFFF:08x}"
        self._count = 0

    async def answer(self, asked: Asked) -> Answered:
        """Predict and log. Raises `InvalidInput`, `NotFound`, `StepFailed`, `Unavailable`, `StorageFull`."""
        first = self._choose(asked)
        try:
            return await self._by(asked, first, "")
        except InvalidInput:
            # a question that the champion takes and the canary does not is the canary's failure
            if asked.route.alike or first is asked.route.champion or asked.pinned:
                first.counters.refused += 1
                raise
            first.counters.failed()
            return await self._instead(asked, first, None)
        except (StepFailed, Unavailable) as error:
            if isinstance(error, StorageFull):  # not the revision's failure: nobody could log the answer
                raise Unavailable(error.message, hint=error.hint) from error
            if isinstance(error, FeaturesGone):
                first.counters.unfed += 1
                raise
            first.counters.failed()
            return await self._instead(asked, first, error)

    def _choose(self, asked: Asked) -> Live:
        if asked.pinned:
            return asked.route.pinned(asked.pinned)
        sticky = asked.sticky
        if not sticky and len(asked.route.live) > 1:
            sticky = _entity(asked) or self._fresh_id(0).encode()
        return asked.route.chosen(sticky)

    async def _instead(self, asked: Asked, failed: Live, error: EverloopError | None) -> Answered:
        other = None if asked.pinned else asked.route.instead(failed)
        if other is not None:
            answered = await self._by(asked, other, failed.revision.id)
            failed.counters.fallbacks += 1
            return answered
        if isinstance(error, Unavailable) and time.monotonic() < self._deadline(asked):
            return await self._by(asked, failed, failed.revision.id)  # its worker is being restarted: once more
        raise error or InvalidInput("the revision does not take these columns")

    @staticmethod
    def _deadline(asked: Asked) -> float:
        return asked.started + asked.route.route.deadline_micros / 1e6

    async def _by(self, asked: Asked, live: Live, fallback: str) -> Answered:
        process, question = live.process, asked.question
        if not process.ready.is_set():
            await self._wait(asked, live, last=bool(fallback))
        if process.waiting >= asked.route.route.max_queue:
            raise Unavailable("too many requests wait for this model", hint="try again in a second")
        columns: Mapping[str, Any] = question.columns
        stale: Mapping[str, str] = {}
        asked_at = asked.at or time.time_ns() // 1000
        lookup = live.revision.lookup
        if lookup is not None:
            found, stale = self._reader(lookup, question.columns, question.rows, asked_at)
            columns = {**columns, **found}
        if live.revision.nullable:
            columns = nulls_apart(columns, live.revision.nullable, question.rows)
        payload = process.model_inputs.pack(columns, question.rows)
        frame = await process.ask(payload, question.rows, self._deadline(asked))
        answer = unpack_answer(process.outputs, frame.payload, question.rows)
        took = int((time.monotonic() - asked.started) * 1e6)
        identity = self._log(asked, live, (payload, frame.payload), asked_at, took=took, fallback=fallback, stale=stale)
        live.counters.answered(question.rows, took)
        live.counters.stale += bool(stale)
        return Answered(identity, live, question.rows, process.shown, answer, bool(fallback), stale)

    async def _wait(self, asked: Asked, live: Live, *, last: bool) -> None:
        """Wait for a worker that starts; a fallback that is warm does not wait, unless this is the `last` try."""
        live.wake()
        if not last and not asked.pinned and asked.route.instead(live, warm=True) is not None:
            raise Unavailable(live.process.problem or "the model worker is starting")
        left = self._deadline(asked) - time.monotonic()
        try:
            await asyncio.wait_for(live.process.ready.wait(), max(left, 0.001))
        except TimeoutError:
            problem = live.process.problem or "the model worker did not start in time"
            raise Unavailable(problem, hint="the revision may be broken; look at the endpoint") from None

    def _fresh_id(self, wall: Micros) -> str:
        """Rising in time, unique across gateways: 56 bit of microseconds, 32 bit nonce, 40 bit counter."""
        self._count += 1
        return f"{wall:014x}{self._nonce}{self._count & 0xFFFFFFFFFF:010x}"

    def _log(
        self,
        asked: Asked,
        live: Live,
        said: tuple[bytes, bytes],
        at: Micros,
        *,
        took: int,
        fallback: str,
        stale: Mapping[str, str],
    ) -> str:
        """Append the frame and return the id; empty when the log is full and the endpoint serves unlogged."""
        inputs, answer = said
        route, process = asked.route.route, live.process
        wall = time.time_ns() // 1000
        identity = self._fresh_id(wall)
        entry = log.Entry(
            identity,
            at,
            wall,
            route.project,
            route.name,
            live.revision.id,
            asked.question.rows,
            process.inputs_raw,
            inputs,
            process.outputs_raw,
            answer,
            _keys(live, asked.question.columns),
            took,
            fallback,
            asked.protocol,
            dict(stale),
        )
        try:
            self._appender.append(entry)
        except StorageFull:
            live.counters.unlogged += 1
            if route.full_disk == "refuse":
                raise
            return ""
        return identity


def _keys(live: Live, columns: Columns) -> dict[str, list[str]]:
    lookup = live.revision.lookup
    if lookup is None:
        return {}
    return {name: [str(value) for value in columns[name]] for name in lookup.keys if name in columns}


def _entity(asked: Asked) -> bytes:
    """The entity keys of the first row: one entity keeps its revision."""
    lookup = asked.route.live[0].revision.lookup
    if lookup is None:
        return asked.question.id.encode()
    columns = asked.question.columns
    return "\0".join(str(columns[name][0]) for name in lookup.keys if name in columns).encode()
