"""From a question to a logged answer: choose a revision, look features up, ask its worker, fall back, log."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from everloop.core.clock import Micros
from everloop.core.errors import EverloopError, InvalidInput, Overloaded, StepFailed, StorageFull, Unavailable
from everloop.serving import log
from everloop.serving.columns import Outputs, describe, pack_answer, unpack_answer
from everloop.serving.explaining.asking import Explanation, explained, need_explainer
from everloop.serving.fusing.derived import nulls_apart
from everloop.serving.gateway.features import Features, FeaturesGone, TooOld
from everloop.serving.gateway.fleet import Live, LiveRoute
from everloop.serving.gateway.instead.cache import Cache, Key, key_of
from everloop.serving.gateway.shadows import Shadows
from everloop.serving.gateway.shadows import Told as Copied
from everloop.serving.graph.nodes import literal
from everloop.serving.graph.running import Run, filled
from everloop.serving.graph.seen import array_of, keys_of, seen
from everloop.serving.protocol.question import Question
from everloop.serving.streaming.parts import Parts
from everloop.serving.table import Instead, Route
from everloop.serving.tracing.recording import Trace

_DEEPEST = 4
"""Endpoints that may call each other in one question."""
"""(look-up, caller's columns, rows, event time) -> feature columns."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What the first try of a question came to, which was made before it got here."""

    live: Live
    error: Exception
    started: float
    """`time.monotonic()` at the request's arrival."""


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
    explain: bool = False
    """Whether the explanation is asked for too."""
    parts: Parts | None = None
    """Who takes the parts of an answer that a model yields; None: nobody, it is wanted whole."""
    trace: Trace | None = None
    """Who notes what is done for it; None mostly."""
    depth: int = 0
    """How many endpoints called each other before."""
    patience: float = 0.0
    """`time.monotonic()` at which this try is given up, for another; 0: with the deadline."""
    failed: Failed | None = None
    """The first try, where it was made and did not succeed."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What a revision answered, and how it is logged."""

    inputs: tuple[msgspec.Raw, bytes]
    """Layout and bytes of what models were asked with."""
    said: tuple[msgspec.Raw, bytes]
    """Outputs and bytes of the answer."""
    outputs: Outputs
    answer: dict[str, np.ndarray[Any, Any]]
    stale: Mapping[str, str]
    path: Mapping[str, str] = field(default_factory=dict)
    explanation: Explanation | None = None


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
    path: Mapping[str, str] = field(default_factory=dict)
    """What happened in the graph: shares taken, defaults that stood in, steps that were left out."""
    explanation: Explanation | None = None
    instead: str = ""
    """Which fallback answered: previous, simpler, cached, default, or retried; empty mostly."""

    trace: bytes = b""
    """The `traceparent` of its trace, where it is traced."""

    def parameters(self) -> dict[str, Any]:
        """What every reply says about itself."""
        said: dict[str, Any] = {"revision": self.live.revision.id}
        if self.id:
            said["prediction_id"] = self.id
        if self.fallback:
            said["fallback"], said["fallback_kind"] = True, self.instead
        if self.stale:
            said["stale"] = dict(self.stale)
        if self.path:
            said["path"] = dict(self.path)
        if self.explanation:
            said["explanation"] = self.explanation.told()
        return said


_ALL = frozenset(("previous", "simpler", "cached", "default"))
_CHEAP = frozenset(("cached", "default"))
"""Fallbacks that ask no model: what is left when too much waits for models."""
_UNFED = frozenset(("simpler", "cached", "default"))
"""Those that may do without the online store."""


class Predictions:
    """Answers questions; one a gateway."""

    def __init__(
        self,
        appender: log.Appender,
        nonce: int,
        features: Features,
        route: Callable[[str], LiveRoute],
        shadows: Shadows,
        *,
        cache: Cache,
    ) -> None:
        """Log with `appender`; `nonce` (32 bit, random) keeps ids of different processes apart."""
        self.features = features
        self.cache = cache
        self._appender, self._route, self._shadows = appender, route, shadows
        self._nonce = f"{nonce & 0xFFFFFFFF:08x}"
        self._count = 0

    async def answer(self, asked: Asked) -> Answered:
        """Predict and log. Raises `InvalidInput`, `NotFound`, `StepFailed`, `Unavailable`, `StorageFull`."""
        try:
            answered = await self._answered(asked)
        finally:
            asked.route.said = None
        cached = asked.route.cached
        if cached is not None and not answered.fallback and not asked.pinned and asked.parts is None:
            self.cache.put(_question(asked), answered.outputs, answered.answer, answered.rows, cached.most)
        if asked.route.shadow is not None and not asked.pinned:
            shown = {output.name: answered.answer[output.name] for output in answered.outputs}
            self._shadows.copy(asked.route, (answered.id, answered.rows, shown), lambda live: self._copy(asked, live))
        return answered

    async def _copy(self, asked: Asked, live: Live) -> Copied:
        """What a shadow answers to the same question; nothing is logged as a prediction."""
        again = replace(asked, started=time.monotonic(), explain=False, parts=None, trace=None)
        at = asked.at or time.time_ns() // 1000
        told = await (self._line(again, live, at) if live.graph is None else self._graph(again, live, live.graph, at))
        return told.said, live.shown if live.graph is None else told.outputs, told.answer

    async def _answered(self, asked: Asked) -> Answered:
        first = asked.failed.live if asked.failed else self._choose(asked)
        try:
            if asked.failed is not None:
                raise asked.failed.error
            return await self._by(self._patient(asked, asked.route.ways), first, "")
        except InvalidInput:
            # a question that the champion takes and the canary does not is the canary's failure
            if asked.route.alike or first is asked.route.champion or asked.pinned:
                first.counters.refused += 1
                raise
            first.counters.failed()
            return await self._instead(asked, first, None)
        except Overloaded as error:  # no revision's failure, and another would only be overloaded next
            first.counters.overloaded += 1
            return await self._instead(asked, first, error, _CHEAP)
        except (StepFailed, Unavailable) as error:
            if isinstance(error, StorageFull):  # not the revision's failure: nobody could log the answer
                raise Unavailable(error.message, hint=error.hint) from error
            if isinstance(error, FeaturesGone):
                first.counters.unfed += 1
                return await self._instead(asked, first, error, _UNFED)
            first.counters.failed()
            return await self._instead(asked, first, error)

    def _choose(self, asked: Asked) -> Live:
        if asked.pinned:
            return asked.route.pinned(asked.pinned)
        return self.dealt(asked.route, asked.question, asked.sticky)[0]

    def dealt(self, route: LiveRoute, question: Question | None, sticky: bytes) -> tuple[Live, bytes]:
        """The revision for a question, and the key that it was chosen by; without a question, as for one of no id."""
        if len(route.live) == 1:
            return route.live[0], sticky
        if question is not None:
            sticky = _dealt_by(route, question) or sticky or _entity(route, question)
        sticky = sticky or self._fresh_id(0).encode()
        return route.chosen(sticky), sticky

    async def _instead(
        self, asked: Asked, failed: Live, error: EverloopError | None, kinds: frozenset[str] = _ALL
    ) -> Answered:
        """What the endpoint's fallbacks answer, in their order; only those of `kinds`. Raises the first error."""
        if asked.parts is not None and asked.parts.begun and error is not None:
            raise error  # its beginning was another's
        ways = [] if asked.pinned else [way for way in asked.route.ways if way.kind in kinds]
        for place, way in enumerate(ways):
            try:
                answered = await self._fall(self._patient(asked, ways[place + 1 :]), failed, way)
            except StorageFull as full:
                raise Unavailable(full.message, hint=full.hint) from full
            except (InvalidInput, StepFailed, Unavailable) as other:
                error = error or other
                continue
            if answered is not None:
                failed.counters.fell(way.kind)
                return answered
        again = isinstance(error, Unavailable) and not isinstance(error, TooOld)  # which would be as old
        if again and kinds is _ALL and time.monotonic() < self._deadline(asked):
            return await self._by(asked, failed, failed.revision.id, "retried")  # its worker is being restarted
        raise error or InvalidInput("the revision does not take these columns")

    async def _fall(self, asked: Asked, failed: Live, way: Instead) -> Answered | None:
        """What one fallback answers; None when it has nothing to say."""
        if way.kind in ("previous", "simpler"):
            other = asked.route.instead(failed) if way.kind == "previous" else asked.route.by_id(way.revision)
            return None if other is None else await self._by(asked, other, failed.revision.id, way.kind)
        rows = asked.question.rows
        if way.kind == "cached":
            kept = self.cache.get(_question(asked), way.ttl_micros / 1e6)
            return None if kept is None else self._stood_in(asked, failed, way.kind, kept.answer)
        answer = {name: filled(literal(value), rows) for name, value in way.values}
        return self._stood_in(asked, failed, way.kind, answer)

    def _stood_in(self, asked: Asked, failed: Live, kind: str, answer: Mapping[str, np.ndarray[Any, Any]]) -> Answered:
        """An answer that no model gave now, logged as that of the revision that failed."""
        rows, outputs = asked.question.rows, describe(answer)
        layout = failed.caller
        seen = (msgspec.Raw(msgspec.msgpack.encode(layout.pairs())), layout.pack(asked.question.columns, rows))
        said = (msgspec.Raw(msgspec.msgpack.encode([o.listed() for o in outputs])), pack_answer(outputs, answer))
        told = _Told(seen, said, outputs, dict(answer), {}, {"fallback": kind})
        took = int((time.monotonic() - asked.started) * 1e6)
        at = asked.at or time.time_ns() // 1000
        identity = self._log(asked, failed, told, at, took=took, fallback=failed.revision.id)
        return Answered(identity, failed, rows, outputs, told.answer, True, {}, told.path, instead=kind)

    def _patient(self, asked: Asked, ways: Sequence[Instead]) -> Asked:
        """The question with a limit for its next try: half of the time that is left, if others may answer after it."""
        if not ways or asked.pinned:
            return asked if not asked.patience else replace(asked, patience=0.0)
        now = time.monotonic()
        end = asked.started + asked.route.route.deadline_micros / 1e6
        return replace(asked, patience=now + max(end - now, 0.0) / 2)

    @staticmethod
    def _deadline(asked: Asked) -> float:
        return asked.patience or asked.started + asked.route.route.deadline_micros / 1e6

    async def _by(self, asked: Asked, live: Live, fallback: str, kind: str = "") -> Answered:
        if asked.explain:
            need_explainer(live)
        if live.waiting >= asked.route.route.max_queue:
            raise Overloaded("too many requests wait for this model", hint="try again in a second", seconds=1)
        if not live.ready:
            await self._wait(asked, live, last=bool(fallback))
        asked_at = asked.at or time.time_ns() // 1000
        if live.graph is None:
            told = await self._line(asked, live, asked_at)
        else:
            told = await self._graph(asked, live, live.graph, asked_at)
        took = int((time.monotonic() - asked.started) * 1e6)
        logged = replace(told, path={**told.path, "fallback": kind}) if kind else told
        identity = self._log(asked, live, logged, asked_at, took=took, fallback=fallback)
        live.counters.answered(asked.question.rows, took)
        live.counters.stale += bool(told.stale)
        shown = live.shown if live.graph is None else told.outputs
        said = (bool(fallback), told.stale, told.path, told.explanation)
        return Answered(identity, live, asked.question.rows, shown, told.answer, *said, instead=kind)

    async def _line(self, asked: Asked, live: Live, at: Micros) -> "_Told":
        """A look-up, where there is one, and the model."""
        process, rows = live.process, asked.question.rows
        columns: Mapping[str, Any] = asked.question.columns
        stale: Mapping[str, str] = {}
        lookup = live.revision.lookup
        started = time.monotonic()
        if lookup is not None:
            found, stale, *_ = await self.features.look(lookup, asked.question.columns, rows, at)
            columns = {**columns, **found}
            looked, started = started, time.monotonic()
            _count(live, 1, rows, started - looked)
            if asked.trace is not None:
                asked.trace.add(
                    f"service {lookup.service.get('name', '')}".strip(), looked, {"everloop.rows": rows}, ended=started
                )
        if live.revision.nullable:
            columns = nulls_apart(columns, live.revision.nullable, rows)
        payload = process.model_inputs.pack(columns, rows)
        asking, explanation = process.ask(payload, rows, self._deadline(asked), asked.parts), None
        if asked.explain:
            frame, explanation = await asyncio.gather(asking, explained(live, payload, rows))
        else:
            frame = await asking
        _count(live, len(live.nodes) - 1, rows, time.monotonic() - started)
        if asked.trace is not None:
            sizes = {"everloop.bytes_in": len(payload), "everloop.bytes_out": len(frame.payload)}
            said_of = {"everloop.revision": live.revision.id, "everloop.rows": rows, **sizes}
            asked.trace.add("model", started, said_of)
        answer = unpack_answer(process.outputs, frame.payload, rows)
        said = (process.outputs_raw, frame.payload)
        return _Told((live.logged_raw, payload), said, process.outputs, answer, stale, explanation=explanation)

    async def _graph(self, asked: Asked, live: Live, graph: Mapping[str, Any], at: Micros) -> "_Told":
        """A graph, whose nodes are all of this revision."""
        looked: dict[str, Any] = {}
        stale: dict[str, str] = {}

        async def look_up(columns: Mapping[str, Any], rows: int) -> Mapping[str, Any]:
            assert live.revision.lookup is not None
            found, old, *_ = await self.features.look(live.revision.lookup, dict(columns), rows, at)
            looked.update(found)
            stale.update(old)
            return {name: array_of(values) for name, values in found.items()}

        async def call(name: str, columns: Mapping[str, Any], rows: int, deadline: float) -> dict[str, Any]:
            return await self._called(asked, name, dict(columns), rows, deadline)

        question = asked.question
        sticky = asked.sticky or _entity(asked.route, asked.question) or self._fresh_id(0).encode()
        nullable = {name: crew.part.nullable for name, crew in live.workers.items()}
        run = Run(live.workers, live.nodes, nullable, self._deadline(asked), sticky, look_up, call)
        run.trace, run.revision = asked.trace, live.revision.id
        answer = await run.run(graph, question.columns, question.rows)
        if not answer:
            raise StepFailed("every step that could answer was left out")
        outputs = describe(answer)
        asked_with = seen({**looked, **question.columns}, live, question.rows)
        said = (msgspec.Raw(msgspec.msgpack.encode([o.listed() for o in outputs])), pack_answer(outputs, answer))
        return _Told(asked_with, said, outputs, answer, stale, run.path)

    async def _called(
        self, asked: Asked, name: str, columns: dict[str, Any], rows: int, deadline: float
    ) -> dict[str, Any]:
        """What another endpoint of the project answers."""
        if asked.depth >= _DEEPEST:
            raise StepFailed(
                "endpoints call each other without end", hint="look at the graphs of those that are called"
            )
        route = self._route(f"{asked.route.route.project}.{name}")
        now = time.monotonic()
        inner = Asked(
            route,
            Question(columns, rows),
            asked.at,
            asked.sticky,
            "",
            "call",
            now,
            trace=asked.trace,
            depth=asked.depth + 1,
        )
        try:
            answered = await asyncio.wait_for(self.answer(inner), max(deadline - now, 0.001))
        except TimeoutError:
            raise Unavailable(f"endpoint {name} did not answer in time") from None
        return {output.name: answered.answer[output.name] for output in answered.outputs}

    async def _wait(self, asked: Asked, live: Live, *, last: bool) -> None:
        """Wait for workers that start; a fallback that is warm does not wait, unless this is the `last` try."""
        live.wake()
        if live.lenient:
            return  # its steps wait, or do without
        if not last and not asked.pinned and asked.route.instead(live, warm=True) is not None:
            raise Unavailable(live.reason or "the model worker is starting")
        if not await live.become_ready(max(self._deadline(asked) - time.monotonic(), 0.001)):
            problem = live.reason or "the model worker did not start in time"
            raise Unavailable(problem, hint="the revision may be broken; look at the endpoint")

    def _fresh_id(self, wall: Micros) -> str:
        """Rising in time, unique across gateways: 56 bit of microseconds, 32 bit nonce, 40 bit counter."""
        self._count += 1
        return f"{wall:014x}{self._nonce}{self._count & 0xFFFFFFFFFF:010x}"

    def _log(self, asked: Asked, live: Live, told: "_Told", at: Micros, *, took: int, fallback: str) -> str:
        """Append the frame and return the id; empty when the log is full and the endpoint serves unlogged."""
        route = asked.route.route
        wall = time.time_ns() // 1000
        entry = log.Entry(
            self._fresh_id(wall),
            at,
            wall,
            route.project,
            route.name,
            live.revision.id,
            asked.question.rows,
            *told.inputs,
            *told.said,
            keys_of(live, asked.question.columns),
            took,
            fallback,
            asked.protocol,
            dict(told.stale),
            dict(told.path),
            told.explanation.logged if told.explanation else None,
        )
        return self._appended(route, live, entry)

    def log_line(
        self,
        route: Route,
        live: Live,
        asked: tuple[int, tuple[msgspec.Raw, bytes]],
        said: tuple[msgspec.Raw, bytes],
        *,
        took: int,
        protocol: str,
        keys: dict[str, list[str]] | None = None,
        at: Micros = 0,
    ) -> str:
        """Log what one worker answered to `asked`, rows with layout and bytes; the id, or "" as `answer` has it.

        `at` is the event time, where it was not just now.
        """
        wall = time.time_ns() // 1000
        names, (rows, inputs), by = (route.project, route.name), asked, live.revision.id
        kept, id_, at = keys or {}, self._fresh_id(wall), at or wall
        entry = log.Entry(id_, at, wall, *names, by, rows, *inputs, *said, kept, took, "", protocol)
        return self._appended(route, live, entry)

    def _appended(self, route: Route, live: Live, entry: log.Entry) -> str:
        try:
            self._appender.append(entry)
        except StorageFull:
            live.counters.unlogged += 1
            if route.full_disk == "refuse":
                raise
            return ""
        return entry.id


def _count(live: Live, number: int, rows: int, seconds: float) -> None:
    if number in live.nodes:
        live.nodes[number].answered(rows, int(seconds * 1e6))


def _question(asked: Asked) -> Key:
    """The question's name in the cache."""
    route = asked.route
    return key_of(route.route.address, asked.question.columns, route.champion.caller.names)


def _dealt_by(route: LiveRoute, question: Question) -> bytes:
    """The key of an experiment in the question's first row; empty where it has none, or there is no experiment."""
    split = route.route.split
    values = question.columns.get(split.key) if split is not None and split.key else None
    return b"" if values is None else str(values[0]).encode()


def _entity(route: LiveRoute, question: Question) -> bytes:
    """The entity keys of the first row: one entity keeps its revision."""
    lookup = route.live[0].revision.lookup
    if lookup is None:
        return question.id.encode()
    columns = question.columns
    return "\0".join(str(columns[name][0]) for name in lookup.keys if name in columns).encode()
