"""A graph as boxes and arrows, in the direction that a question goes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everloop.features.expressions.tree import read

QUESTION, ANSWER = "question", "answer"
_NAMES = {"model": "model", "lookup": "service", "call": "endpoint", "transform": "name"}


@dataclass(frozen=True, slots=True)
class Box:
    """One node: its number, what stands on it, and its kind."""

    number: int
    label: str
    kind: str
    name: str
    """Of a leaf: the model, service, endpoint or transform."""
    role: str = ""
    """Of a model: what it is in this graph."""


@dataclass
class Flow:
    """What is drawn. Boxes are keyed by their id: the node's number, and that number with `end` where ways join."""

    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: dict[tuple[str, str], str] = field(default_factory=dict)
    """(from, to) -> what is written on it."""


def flow_of(graph: Mapping[str, Any]) -> Flow:
    """The boxes and arrows of a numbered graph, from `question` to `answer`."""
    flow = Flow()
    for start, title in _draw(flow, graph, [(QUESTION, "")]):
        flow.arrows[start, ANSWER] = title
    return flow


def _draw(flow: Flow, node: Mapping[str, Any], into: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Draw a node that `into` lead to; returns what leads out of it."""
    kind = node["node"]
    if kind == "sequence":
        for inner in node["nodes"]:
            into = _draw(flow, inner, into)
        return into
    if kind == "ensemble":
        ends = [
            end for m in node["members"] for end in _draw(flow, m["node"], [(i, _both(t, m["name"])) for i, t in into])
        ]
        return _box(flow, node, f"{node['number']} end", "side by side" if node["combine"] == "all" else "", ends)
    own = _box(flow, node, str(node["number"]), "", into)
    start = own[0][0]
    if kind == "switch":
        ways = [(str(read(case["if"])), case["node"]) for case in node["cases"]]
        ways += [("otherwise", node["otherwise"])] if node["otherwise"] else []
    elif kind == "splitter":
        ways = [(f"{share['name']}: {share['percent']} %", share["node"]) for share in node["shares"]]
    else:
        return own
    return [end for title, inner in ways for end in _draw(flow, inner, [(start, title)])]


def _box(
    flow: Flow, node: Mapping[str, Any], identity: str, label: str, into: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    kind = node["node"]
    name = str(node[_NAMES[kind]]) if kind in _NAMES else ""
    said = label or (f"{node['combine']} of all" if kind == "ensemble" else name or kind)
    flow.boxes[identity] = Box(node["number"], said, kind, name, str(node.get("role", "")))
    for start, title in into:
        flow.arrows[start, identity] = title
    return [(identity, "")]


def _both(title: str, name: str) -> str:
    return f"{title}, {name}" if title else name
