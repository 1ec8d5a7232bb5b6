"""Which questions go the short way, and how their bodies are read.

The shortest is for endpoints where one revision answers all and nothing is copied, kept, traced or limited: by a model
alone, or through a graph that comes to one worker (`straight`). Whatever is particular about a question sends it the
ordinary way, which also says what is wrong with it: here nothing is refused.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from everloop.core.errors import EverloopError
from everloop.serving.columns import Layout, pack_text
from everloop.serving.gateway.answer import Predictions
from everloop.serving.gateway.express.straight import Straight, Way, able
from everloop.serving.gateway.fleet import Live, LiveRoute
from everloop.serving.gateway.speaking import scoring as speaking
from everloop.serving.protocol import oip, scoring
from everloop.serving.protocol.question import Question, parse_json

_PARTICULAR = frozenset(
    b"everloop-time everloop-revision traceparent content-encoding origin expect upgrade transfer-encoding".split()
)
"""Headers that the ordinary way knows what to do with."""
OIP = "oip"
"""As the log calls the protocol."""


@dataclass(frozen=True, slots=True)
class Line:
    """A path of an endpoint whose ordinary questions go the short way."""

    path: str
    address: str
    leaf: str
    route: LiveRoute
    live: Live
    crew: Any
    """Of the model; None where more than a model answers, and the protocol's module is asked."""
    node: int
    """The number of the model in the graph, as it is counted."""
    seconds: float
    """How long an answer may take."""
    row: "Row"
    straight: Straight | None = None
    """Of one where more than a model has its part."""

    def read(self, headers: Mapping[bytes, bytes], body: bytes) -> "Read | None":
        """What a model is asked with; None: not here."""
        kind = headers.get(b"content-type", b"")
        try:
            if self.leaf == OIP:
                length = headers.get(b"inference-header-content-length")
                question = oip.parse(body, None if length is None else length.decode("latin-1"), self.live.caller)
                if question.parameters.get("explain"):
                    return None
                read = self._packed(question, question)
                if read is not None:
                    oip.chosen(question, read.crew.shown)
                return read
            if self.leaf == "invocations":
                question = scoring.parse_invocation(body, kind.decode("latin-1"), self.live.caller)
            elif b"arrow" in kind or body[:1] not in (b"{", b"["):
                return None
            else:
                request = parse_json(body)
                if self.straight is None and (packed := self.row.packed(request)) is not None:
                    return Read(self.crew, packed, 1, None)
                question = scoring.of_plain(request, self.live.caller)
            return self._packed(question, None)
        except (EverloopError, KeyError):  # a key of the look-up that is not there, and all that is refused
            return None

    def _packed(self, question: Question, kept: Question | None) -> "Read | None":
        if self.straight is None:
            return Read(self.crew, self.crew.model_inputs.pack(question.columns, question.rows), question.rows, kept)
        way = self.straight.way(question.columns, question.rows)
        return None if way is None else Read(way.leaf.crew, way.payload, way.rows, kept, way)


@dataclass(frozen=True, slots=True)
class Read:
    """A question that goes the short way."""

    crew: Any
    """Who is asked."""
    payload: bytes
    rows: int
    question: Question | None
    """Where the form of the answer depends on it."""
    way: Way | None = None
    """Through a graph."""


class Row:
    """One row given as an object of values, straight into the bytes that a model is asked with."""

    def __init__(self, layout: Layout) -> None:
        """For a layout of numbers and text; of one with booleans nothing is packed."""
        groups = [(group.names, group.one_row) for group in layout.groups]
        self._able = bool(layout.names) and all(row is not None for _, row in groups)
        self._groups = [(row.pack, _getter(names)) for names, row in groups if row is not None]
        self._text = _getter(layout.text) if layout.text else None

    def packed(self, request: Any) -> bytes | None:
        """The bytes; None where the request is something else."""
        if not self._able:
            return None
        try:
            parts = [pack(*values(request)) for pack, values in self._groups]
            if self._text is not None:
                texts = self._text(request)
                if any(type(text) is not str for text in texts if text is not None):
                    return None
                parts.append(pack_text([[text] for text in texts]))
        except (KeyError, TypeError, IndexError, struct.error, OverflowError):
            return None
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _getter(names: Sequence[str]) -> Callable[[Any], Sequence[Any]]:
    if len(names) > 1:
        return itemgetter(*names)
    (name,) = names
    return lambda request: (request[name],)


def line_of(routes: Mapping[str, LiveRoute], url: bytes, predictions: Predictions) -> Line | None:
    """The line of an address; None where its questions go the ordinary way."""
    try:
        path = url.decode("ascii")
    except UnicodeDecodeError:
        return None
    if path.startswith("/v2/models/") and path.endswith("/infer") and path.count("/") == 4:
        address, leaf = path.split("/")[3], OIP
    elif (found := speaking.address_of(path)) is not None and found[1] in ("predict", "invocations"):
        address, leaf = found
    else:
        return None
    route = routes.get(address)
    if route is None or not route.live:
        return None
    live = route.sure
    if live is None or not _plain(route, live):
        return Line(path, address, leaf, route, route.champion, None, -1, 0.0, Row(Layout(())))
    crew: Any = live.process
    seconds = route.route.deadline_micros / 1e6 / (2 if route.ways else 1)  # others may answer in the rest
    alone = live.graph is None and live.revision.lookup is None and not live.revision.nullable
    straight = None if alone else Straight(live, predictions)
    return Line(path, address, leaf, route, live, crew, len(live.nodes) - 1, seconds, Row(crew.model_inputs), straight)


def ordinary(headers: Mapping[bytes, bytes]) -> bool:
    """Whether nothing about these headers is particular."""
    accepted = headers.get(b"accept", b"")
    return _PARTICULAR.isdisjoint(headers) and b"arrow" not in accepted and b"event-stream" not in accepted


def _plain(route: LiveRoute, live: Live) -> bool:
    said = route.route
    return able(live) and route.shadow is None and route.cached is None and not said.limits and not said.traced_ppm
