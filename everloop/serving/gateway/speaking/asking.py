"""From the headers of a request to who answers it, whichever protocol carried it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs

from everloop.core.clock import Micros, parse_time
from everloop.core.errors import EverloopError, InvalidInput
from everloop.serving.gateway.access import Door
from everloop.serving.gateway.answer import Answered, Asked, Failed, Predictions
from everloop.serving.gateway.fleet import Fleet, Live, LiveRoute
from everloop.serving.gateway.passing.relay import Scope
from everloop.serving.gateway.speaking.limits import Limits, wall
from everloop.serving.gateway.speaking.replies import Header
from everloop.serving.protocol.question import Question
from everloop.serving.streaming.parts import Parts
from everloop.serving.tracing.recording import HEADER, Trace, Tracer

FAILED = "everloop.failed"
"""Where a scope has the `Failed` of a question that was tried before."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What every protocol needs to answer."""

    fleet: Fleet
    predictions: Predictions
    door: Door
    limits: Limits = field(default_factory=Limits)
    tracer: Tracer = field(default_factory=Tracer)

    async def answer(
        self,
        route: LiveRoute,
        question: Question,
        headers: Mapping[bytes, bytes],
        *,
        protocol: str,
        started: float,
        pinned: str,
        explain: bool = False,
        parts: Parts | None = None,
        failed: Failed | None = None,
    ) -> Answered:
        """Predict and log; raises what `Predictions.answer` raises."""
        at: Micros = 0
        route.said = None
        stamp = headers.get(b"everloop-time")
        if stamp is not None:
            at = self._event_time(stamp.decode("latin-1"))
        if explain:
            self.door.check_explaining(headers, self.fleet.table)
        if route.route.limits and failed is None:  # the first try was counted
            self.limits.take(route, self.door.caller(headers, self.fleet.table), wall())
        sticky = headers.get(b"everloop-sticky", b"")
        trace = self.tracer.begun(headers, route.route.project, route.route.traced_ppm)
        asked = Asked(route, question, at, sticky, pinned, protocol, started, explain, parts, trace, failed=failed)
        if trace is None:
            return await self.predictions.answer(asked)
        return await self._traced(asked, trace)

    async def _traced(self, asked: Asked, trace: Trace) -> Answered:
        name = f"endpoint {asked.route.route.name}"
        told: dict[str, Any] = {"everloop.rows": asked.question.rows, "everloop.protocol": asked.protocol}
        error = ""
        try:
            answered = await self.predictions.answer(asked)
            told |= {"everloop.revision": answered.live.revision.id, "everloop.prediction": answered.id}
            told |= {"everloop.fallback": answered.fallback, "everloop.revision_number": answered.live.revision.number}
            return replace(answered, trace=trace.header())
        except EverloopError as problem:
            error = problem.message
            raise
        finally:
            trace.end(name, asked.started, told, error)
            self.tracer.ended(trace)

    def _event_time(self, text: str) -> Micros:
        table = self.fleet.table
        if table is None or not table.replay:
            raise InvalidInput("Everloop-Time is refused here", hint="only a replay workspace takes its time from it")
        try:
            return int(text) if text.isascii() and text.isdigit() else parse_time(text)
        except ValueError:
            raise InvalidInput(f"Everloop-Time {text[:60]!r} is no time", hint="ISO 8601, or microseconds") from None


def taking(route: LiveRoute, pinned: str) -> Live:
    """The revision whose columns a question is read by."""
    return route.pinned(pinned) if pinned else route.champion


def explains(scope: Scope) -> bool:
    """Whether the address asks for the explanation too (`?explain=true`); raises `InvalidInput`."""
    said = _parameter(scope, b"explain")
    if said not in (b"", b"true", b"1", b"false", b"0"):
        raise InvalidInput(f"explain={said.decode('latin-1')[:40]} is neither true nor false", hint="?explain=true")
    return said in (b"true", b"1")


def flag(scope: Scope, name: bytes) -> bool:
    """Whether the address says `<name>=true`."""
    return _parameter(scope, name) in (b"true", b"1")


def _parameter(scope: Scope, name: bytes) -> bytes:
    asked = scope["query_string"]
    return parse_qs(asked).get(name, [b""])[-1].lower() if asked else b""


def pinned_by(headers: Mapping[bytes, bytes]) -> str:
    """The revision that the caller insists on; empty mostly."""
    return headers.get(b"everloop-revision", b"").decode("latin-1")


def marks(answered: Answered) -> tuple[Header, ...]:
    """What an answer says of itself in its headers."""
    told: list[Any] = [(b"everloop-revision", answered.live.revision.id.encode())]
    if answered.id:
        told.append((b"everloop-prediction-id", answered.id.encode()))
    if answered.fallback:
        told.append((b"everloop-fallback", b"true"))
        told.append((b"everloop-fallback-kind", answered.instead.encode()))
    if answered.trace:
        told.append((HEADER, answered.trace))
    if answered.stale:
        told.append((b"everloop-stale", ", ".join(answered.stale).encode()))
    return tuple(told)
