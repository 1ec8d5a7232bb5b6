"""The straight way through a graph: features are looked up and switches decided here, and one worker answers.

It is for graphs of a look-up, switches and models (with the transforms that are fused with them) whose steps have no
policies, and for questions whose rows all go one way. What is particular goes the ordinary way (`graph.running`),
which comes to the same: nothing is refused, counted or logged here before a worker answered.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from everloop.core.clock import Micros
from everloop.core.coherence import below, walk
from everloop.core.errors import EverloopError
from everloop.serving import wire
from everloop.serving.columns import Layout, Outputs, pack_answer, unpack_answer
from everloop.serving.fusing.derived import PREFIX, nulls_apart
from everloop.serving.fusing.steps import TOOK
from everloop.serving.gateway.answer import Predictions
from everloop.serving.gateway.features import Looked
from everloop.serving.gateway.fleet import Live
from everloop.serving.gateway.workers import StepFailedBehind
from everloop.serving.graph.planning import key_of
from everloop.serving.graph.seen import array_of, keys_of, seen
from everloop.serving.table import Route

_KINDS = frozenset(("sequence", "switch", "model", "lookup"))
_POLICIES = frozenset(("timeout_micros", "retries", "default", "soft"))


@dataclass(frozen=True, slots=True)
class _Leaf:
    """Who answers in the end."""

    crew: Any
    number: int
    """Of the model."""
    before: tuple[int, ...]
    """The fused steps in front of it."""
    inputs: Layout
    nullable: Sequence[str]
    logged: bool
    """Whether what it is asked with is just what is logged."""


@dataclass(frozen=True, slots=True)
class Way:
    """A question on its way: where it goes, and what was found until then."""

    leaf: _Leaf
    columns: Mapping[str, Any]
    rows: int
    payload: bytes
    passed: Sequence[tuple[int, float]]
    """Nodes that are done when the answer is there, each with when it was entered."""
    lookup: tuple[int, int] | None
    """The number of the look-up, and its microseconds."""
    found: Looked | None
    """What it found."""
    at: Micros
    """Event time."""
    asked: float = field(default_factory=time.monotonic)


class Straight:
    """The straight ways of one revision."""

    def __init__(self, live: Live, predictions: Predictions) -> None:
        """Read `able` first."""
        self._live, self._predictions = live, predictions
        graph = live.graph
        if graph is None:
            crew: Any = live.process
            last = len(live.nodes) - 1
            self._lookup = 1 if live.revision.lookup is not None else -1
            self._leaves = {last: _Leaf(crew, last, (), crew.model_inputs, live.revision.nullable, logged=True)}
        else:
            self._lookup = next((node["number"] for node in walk(graph) if node["node"] == "lookup"), -1)
            self._leaves = {node["number"]: self._leaf(node) for node in walk(graph) if node["node"] == "model"}
        self._said: dict[int, tuple[Outputs, msgspec.Raw]] = {}

    def _leaf(self, node: Mapping[str, Any]) -> _Leaf:
        crew: Any = self._live.workers[key_of(node)]
        before = tuple(step["number"] for step in node.get("before", ()))
        inputs: Layout = crew.model_inputs
        same = inputs.columns == self._live.logged.columns and list(crew.part.nullable) == self._live.revision.nullable
        return _Leaf(crew, node["number"], before, inputs, crew.part.nullable, logged=same)

    def way(self, columns: Mapping[str, Any], rows: int) -> Way | None:
        """Where a question goes; None where its rows part, or something about it is particular."""
        live, lookup, found = self._live, None, None
        began, at = time.monotonic(), time.time_ns() // 1000
        there = dict(columns)
        if live.revision.lookup is not None:
            found = self._predictions.features.at_once(live.revision.lookup, columns, rows, at)
            if found is None or found.stale:
                return None
            lookup = self._lookup, int((time.monotonic() - began) * 1e6)
            looked = found.columns
            there |= looked if live.graph is None else {name: array_of(values) for name, values in looked.items()}
        passed: list[tuple[int, float]] = []
        number = len(live.nodes) - 1 if live.graph is None else self._walked(live.graph, there, began, passed)
        if number is None:
            return None
        leaf = self._leaves[number]
        given = nulls_apart(there, leaf.nullable, rows) if leaf.nullable else there
        return Way(leaf, columns, rows, leaf.inputs.pack(given, rows), passed, lookup, found, at)

    def _walked(
        self, node: Mapping[str, Any], there: Mapping[str, Any], began: float, passed: list[tuple[int, float]]
    ) -> int | None:
        """The number of the model that all rows come to; None where they do not come to one."""
        while node["node"] != "model":
            passed.append((node["number"], began))
            if node["node"] == "sequence":
                node = node["nodes"][-1]
            else:
                chosen = _branch(node, there)
                if chosen is None:
                    return None
                node = chosen
            began = time.monotonic()
        number: int = node["number"]
        return number

    def answered(
        self, way: Way, frame: wire.Frame, route: Route, *, took: int, protocol: str
    ) -> tuple[str, dict[str, Any]]:
        """Log and count what the worker answered; the prediction's id, or "" as `answer` has it, and the outputs.

        Raises `StorageFull` as logging does.
        """
        live, leaf, rows = self._live, way.leaf, way.rows
        answer = unpack_answer(leaf.crew.outputs, frame.payload, rows)
        inner = answer[TOOK][0].tolist()[:-1] if leaf.before else ()
        own = live.logged_raw, way.payload
        if live.graph is None:
            inputs, said = own, (leaf.crew.outputs_raw, frame.payload)
        else:
            outputs, raw = self._shown(leaf.crew)
            looked = {} if way.found is None else way.found.columns
            inputs = own if leaf.logged else seen({**looked, **way.columns}, live, rows)
            said = (raw, pack_answer(outputs, answer))
            answer = {name: values for name, values in answer.items() if not name.startswith(PREFIX)}
        more: Any = {"took": took, "protocol": protocol, "keys": keys_of(live, way.columns), "at": way.at}
        identity = self._predictions.log_line(route, live, (rows, inputs), said, **more)
        self._count(way, inner)
        return identity, answer

    def _count(self, way: Way, inner: Sequence[int]) -> None:
        nodes, rows, now = self._live.nodes, way.rows, time.monotonic()
        if way.found is not None and self._live.revision.lookup is not None:
            self._predictions.features.count(self._live.revision.lookup, rows, way.found)
        if way.lookup is not None and way.lookup[0] in nodes:
            nodes[way.lookup[0]].answered(rows, way.lookup[1])
        for number, micros in zip(way.leaf.before, inner, strict=True):
            nodes[number].answered(rows, micros)
        if way.leaf.number in nodes:
            nodes[way.leaf.number].answered(rows, max(int((now - way.asked) * 1e6) - sum(inner), 0))
        for number, entered in way.passed:
            nodes[number].answered(rows, int((now - entered) * 1e6))

    def failed(self, way: Way, error: Exception) -> None:
        """Count what did not answer: the step that failed, and all that it is in."""
        nodes, leaf = self._live.nodes, way.leaf
        if not isinstance(error, EverloopError) or self._live.graph is None:
            return
        took = error.took if isinstance(error, StepFailedBehind) else ()
        for number, micros in zip(leaf.before, took, strict=False):
            nodes[number].answered(way.rows, micros)
        if way.lookup is not None:
            nodes[way.lookup[0]].answered(way.rows, way.lookup[1])
        nodes[(*leaf.before, leaf.number)[len(took)] if isinstance(error, StepFailedBehind) else leaf.number].failed()
        for number, _ in way.passed:
            nodes[number].failed()

    def _shown(self, crew: Any) -> tuple[Outputs, msgspec.Raw]:
        """The outputs that are shown and logged, encoded once."""
        held = self._said.get(id(crew))
        if held is None or held[0] is not crew.shown:
            raw = msgspec.Raw(msgspec.msgpack.encode([output.listed() for output in crew.shown]))
            held = self._said[id(crew)] = crew.shown, raw
        return held


def able(live: Live) -> bool:
    """Whether a revision's questions may go straight."""
    graph = live.graph
    if graph is None:
        return True
    nodes = list(walk(graph))
    if any(node["node"] not in _KINDS or _POLICIES.intersection(node) for node in nodes):
        return False
    first = graph["nodes"][0] if graph["node"] == "sequence" else graph
    for node in nodes:
        if node["node"] == "lookup" and node is not first:
            return False
        inside = [inner for inner in below(node) if inner["node"] != "lookup"]
        if node["node"] == "sequence" and len(inside) != 1:
            return False
    return True


def _branch(node: Mapping[str, Any], there: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The branch of a switch that all rows take; None where they part or some take none."""
    for case in node["cases"]:
        held = case["condition"].decides(there)
        if held is None:
            return None
        if held:
            return case["node"]  # type: ignore[no-any-return]  # a part of a manifest
    return node["otherwise"]  # type: ignore[no-any-return]
