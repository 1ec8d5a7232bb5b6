"""Which steps of a graph are answered in one hop: transforms and the model behind them, in the model's worker.

Planned once, when a revision is loaded. A switch behind transforms is decided first where its conditions do not read
what they make; each of its branches then has the transforms in its own worker. Steps with a policy of their own, and
models that the gateway answers by itself, stay apart: limits, retries and defaults are kept from outside.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from everloop.core.coherence import walk
from everloop.serving.fusing.derived import NULL
from everloop.serving.graph.planning import columns_in, key_of
from everloop.serving.table import INLINE, Part, Revision

Parts = Mapping[str, Part]
_POLICIES = frozenset(("timeout_micros", "retries", "default", "soft"))


def fused(graph: dict[str, Any], parts: Parts) -> tuple[dict[str, Any], dict[str, Part]]:
    """The numbered graph with fused steps, and what its workers run.

    A fused model node holds the transforms in front of it as `before`; `counts` names, at the node behind which they
    are all done, the numbers of those that workers report.
    """
    plan = _Plan(parts)
    made = plan.visited(graph)
    return made, {key: plan.parts[key] for key in map(key_of, walk(made)) if key in plan.parts}


def running(revision: Revision) -> dict[str, Part]:
    """What must run for a revision, by the name of the part."""
    return fused(dict(revision.graph or {}), revision.parts)[1] if revision.parts else revision.workers


class _Plan:
    """One graph on its way."""

    def __init__(self, parts: Parts) -> None:
        self.parts = dict(parts)

    def visited(self, node: Mapping[str, Any]) -> dict[str, Any]:
        kind = node["node"]
        if kind == "sequence":
            return {**node, "nodes": self._listed(node["nodes"])}
        if kind == "switch":
            cases = [{**case, "node": self.visited(case["node"])} for case in node["cases"]]
            return {**node, "cases": cases, "otherwise": self.visited(node["otherwise"]) if node["otherwise"] else None}
        if kind in ("splitter", "ensemble"):
            inside = "shares" if kind == "splitter" else "members"
            return {**node, inside: [{**inner, "node": self.visited(inner["node"])} for inner in node[inside]]}
        return dict(node)

    def _listed(self, nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        place = 0
        while place < len(nodes):
            end = place
            while end < len(nodes) and _plain(nodes[end], "transform"):
                end += 1
            joined = self._joined(nodes[place:end], nodes[end:]) if end > place else None
            if joined is None:
                end = max(end, place + 1)
                made += [self.visited(node) for node in nodes[place:end]]
            else:
                end += 1
                made.append(joined)
            place = end
        return made

    def _joined(
        self, run: Sequence[Mapping[str, Any]], rest: Sequence[Mapping[str, Any]], *, top: bool = True
    ) -> dict[str, Any] | None:
        """The first of `rest` with the transforms of `run` in it; None where they must stay apart."""
        if not rest or any(self._reads(later, self._outputs(run)) for later in rest[1:]):
            return None
        node = rest[0]
        joined = self._behind(run, node) if not _POLICIES.intersection(node) else None
        if joined is not None and top:
            joined["counts"] = [one["number"] for one in _before(joined)] if "number" in node else []
        return joined

    def _behind(self, run: Sequence[Mapping[str, Any]], node: Mapping[str, Any]) -> dict[str, Any] | None:
        kind = node["node"]
        if kind == "model":
            return self._with_model(run, node)
        if kind == "sequence":
            inner = list(node["nodes"])
            own = 0
            while own < len(inner) and _plain(inner[own], "transform"):
                own += 1
            first = self._joined([*run, *inner[:own]], inner[own:], top=False)
            return None if first is None else {**node, "nodes": [first, *self._listed(inner[own + 1 :])]}
        if kind != "switch" or any(columns_in(case["if"]) & self._outputs(run) for case in node["cases"]):
            return None
        cases = [{**case, "node": self._joined(run, [case["node"]], top=False)} for case in node["cases"]]
        rest = node["otherwise"] and self._joined(run, [node["otherwise"]], top=False)
        apart = any(case["node"] is None for case in cases) or (node["otherwise"] and rest is None)
        return None if apart else {**node, "cases": cases, "otherwise": rest}

    def _with_model(self, run: Sequence[Mapping[str, Any]], node: Mapping[str, Any]) -> dict[str, Any] | None:
        joined = {**node, "before": list(run)}
        steps = [self.parts[key_of(one)] for one in (*run, node)]
        part = _together(steps, [self._outputs([one]) for one in run])
        if part is not None:
            self.parts[key_of(joined)] = part
        return None if part is None else joined

    @staticmethod
    def _outputs(run: Iterable[Mapping[str, Any]]) -> set[str]:
        return {name for one in run for name, _ in one["outputs"]}

    def _reads(self, whole: Mapping[str, Any], columns: set[str]) -> bool:
        for node in walk(whole):
            kind = node["node"]
            if kind == "lookup":
                return True  # its keys may be any column
            if kind == "switch" and any(columns_in(case["if"]) & columns for case in node["cases"]):
                return True
            if kind == "call" and any(name in columns for name, _ in node["columns"]):
                return True
            key = key_of(node) if kind in ("model", "transform") else ""
            if key and any(name in columns for name, _ in self.parts[key].inputs):
                return True
        return False


def _plain(node: Mapping[str, Any], kind: str) -> bool:
    return node["node"] == kind and not _POLICIES.intersection(node)


def _before(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = {one["number"]: one for inner in walk(node) for one in inner.get("before", ()) if "number" in one}
    return list(found.values())


def _together(steps: Sequence[Part], outputs: Sequence[set[str]]) -> Part | None:
    """One part that runs all of them; None where two of them would be asked with one column in two ways."""
    last = steps[-1]
    if last.loader == INLINE or last.environment:  # where transforms are not at home
        return None
    made: set[str] = set()
    asked: dict[str, tuple[str, bool]] = {}
    example: dict[str, list[Any]] = {}
    for part, own in zip(steps, (*outputs, set[str]()), strict=True):
        for name, datatype in part.inputs:
            how = datatype, name in part.nullable
            if name not in made and not name.endswith(NULL) and asked.setdefault(name, how) != how:
                return None
        example |= {name: values[:1] for name, values in part.example.items()}
        made |= own
    nullable = [name for name, (_, may) in asked.items() if may]
    inputs = [[name, datatype] for name, (datatype, _) in asked.items()] + [[name + NULL, "BOOL"] for name in nullable]
    shown = {name: example[name] for name, _ in inputs if name in example}
    return msgspec.structs.replace(
        last, inputs=inputs, nullable=nullable, example=shown if len(shown) == len(inputs) else {}, steps=list(steps)
    )
