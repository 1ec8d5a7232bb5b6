"""Which questions go the short way, and how their bodies are read.

The shortest is for endpoints where nothing is copied, kept or traced, and whose revisions answer by a model
alone or through a graph that comes to one worker (`straight`). Whatever is particular about a question sends it the
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
    b"everloop-time everloop-revision content-encoding origin expect upgrade transfer-encoding".split()
)
"""Headers that the ordinary way knows what to do with."""
OIP = "oip"
"""As the log calls the protocol."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One revision of a line."""

    live: Live
    crew: Any
    """Of the model."""
    row: "Row"
    straight: Straight | None
    """Of one where more than a model has its part."""

    @property
    def node(self) -> int:
        """The number of the model in the graph, as it is counted."""
        return len(self.live.nodes) - 1


@dataclass(frozen=True, slots=True)
class Line:
    """A path of an endpoint whose ordinary questions go the short way."""

    path: str
    address: str
    leaf: str
    route: LiveRoute
    predictions: Predictions
    lanes: Mapping[int, Lane]
    """By the identity of each `Live` that may be chosen; none where the protocol's module is asked."""
    seconds: float
    """How long an answer may take."""
    first: Lane | None
    """The only lane, or any of them: all read the same columns."""
    quick: bool
    """Whether a revision is chosen without a look at the question."""

    @property
    def limited(self) -> bool:
        """Whether callers have rates or quotas."""
        return bool(self.route.route.limits)

    def read(self, headers: Mapping[bytes, bytes], body: bytes) -> "Read | None":
        """What a model is asked with; None: not here, and no revision was chosen."""
        kind, first = headers.get(b"content-type", b""), self.first
        if first is None:
            return None
        try:
            if self.leaf == OIP:
                length = headers.get(b"inference-header-content-length")
                question = oip.parse(body, None if length is None else length.decode("latin-1"), first.live.caller)
                return None if question.parameters.get("explain") else self._packed(question, headers, question)
            if self.leaf == "invocations":
                question = scoring.parse_invocation(body, kind.decode("latin-1"), first.live.caller)
            elif b"arrow" in kind or body[:1] not in (b"{", b"["):
                return None
            else:
                request = parse_json(body)
                if self.quick and (packed := first.row.packed(request)) is not None:
                    lane, key = self._lane(None, headers)
                    if lane is not first:
                        packed = lane.row.packed(request)
                    return Read(lane, packed, 1, key)
                question = scoring.of_plain(request, first.live.caller)
            return self._packed(question, headers, None)
        except (EverloopError, KeyError):  # a key of the look-up that is not there, and all that is refused
            return None

    def _lane(self, question: Question | None, headers: Mapping[bytes, bytes]) -> tuple[Lane, bytes]:
        if len(self.lanes) == 1:
            return self.first, b""  # type: ignore[return-value]  # there is one
        live, key = self.predictions.dealt(self.route, question, headers.get(b"everloop-sticky", b""))
        return self.lanes[id(live)], key

    def _packed(self, question: Question, headers: Mapping[bytes, bytes], kept: Question | None) -> "Read":
        lane, key = self._lane(question, headers)
        try:
            if kept is not None:
                oip.chosen(kept, lane.crew.shown)
            if lane.straight is None:
                return Read(
                    lane, lane.crew.model_inputs.pack(question.columns, question.rows), question.rows, key, kept
                )
            way = lane.straight.way(question.columns, question.rows)
        except (EverloopError, KeyError):
            way = None
        return Read(lane, None if way is None else way.payload, question.rows, key, kept, way)


@dataclass(frozen=True, slots=True)
class Read:
    """A question that goes the short way, or one that is particular, whose revision was chosen already."""

    lane: Lane
    """Who is asked."""
    payload: bytes | None
    """What the model is asked with; None: the question is particular."""
    rows: int
    key: bytes
    """What the revision was chosen by; empty where there is one."""
    question: Question | None = None
    """Where the form of the answer depends on it."""
    way: Way | None = None
    """Through a graph."""

    @property
    def crew(self) -> Any:
        """Who answers in the end."""
        return self.lane.crew if self.way is None else self.way.leaf.crew


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
    lanes = _lanes(route, predictions)
    seconds = route.route.deadline_micros / 1e6 / (2 if route.ways else 1)  # others may answer in the rest
    quick = all(lane.straight is None for lane in lanes) and (route.route.split is None or not route.route.split.key)
    by_live, first = {id(lane.live): lane for lane in lanes}, lanes[0] if lanes else None
    return Line(path, address, leaf, route, predictions, by_live, seconds, first, quick)


def _lanes(route: LiveRoute, predictions: Predictions) -> list[Lane]:
    """A lane for each revision that callers may meet; none where one of them is particular."""
    met = route.met
    if not _plain(route, met):
        return []
    lanes = []
    for live in met:
        crew: Any = live.process
        alone = live.graph is None and live.revision.lookup is None and not live.revision.nullable
        lanes.append(Lane(live, crew, Row(crew.model_inputs), None if alone else Straight(live, predictions)))
    return lanes


def ordinary(headers: Mapping[bytes, bytes]) -> bool:
    """Whether nothing about these headers is particular."""
    accepted = headers.get(b"accept", b"")
    return _PARTICULAR.isdisjoint(headers) and b"arrow" not in accepted and b"event-stream" not in accepted


def _plain(route: LiveRoute, met: Sequence[Live]) -> bool:
    said = route.route
    apart = route.shadow is not None or route.cached is not None or said.traced_ppm
    return not apart and all(able(live) for live in met) and (len(met) == 1 or route.alike)
