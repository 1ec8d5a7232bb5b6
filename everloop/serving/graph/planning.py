"""From a graph and the versions that it names to what its workers run and what a caller must send."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from everloop.core.coherence import below
from everloop.core.errors import InvalidInput
from everloop.core.ids import object_id
from everloop.features.definitions import FeatureServiceDef
from everloop.features.expressions.tree import read
from everloop.serving.fusing.derived import NULL, nulls_apart
from everloop.serving.sealing import files
from everloop.serving.table import Part

TYPES = {"bool": "BOOL", "int64": "INT64", "float64": "FP64", "text": "BYTES", "time": "INT64", "any": "BYTES"}
"""Types of transforms and expressions in the words of the open protocol."""
LOADER = "everloop.serving.graph.transforming:load"
PartOf = Callable[[str], Part]
"""Gives the part of a model by its role."""


@dataclass
class Plan:
    """What is known of a graph while it is walked."""

    part_of: PartOf
    folder: Path
    """Where folders of transforms are made."""
    service: FeatureServiceDef | None
    parts: dict[str, Part] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    """What the caller must send: column -> datatype."""
    seen: dict[str, str] = field(default_factory=dict)
    """What models are asked with, and callers or look-ups give: column -> datatype. This is logged."""

    def logged(self) -> tuple[list[list[str]], list[str]]:
        """`[name, datatype]` of what is logged, and which of it may be null though its datatype cannot say so."""
        may = {name for part in self.parts.values() for name in part.nullable}
        nullable = [name for name in self.seen if name in may]
        pairs = [[name, datatype] for name, datatype in self.seen.items()]
        return [*pairs, *([name + NULL, "BOOL"] for name in nullable)], nullable


def key_of(node: Mapping[str, Any]) -> str:
    """The name of a leaf's part."""
    if node["node"] != "model":
        return f"{node['node']} {node.get('name', '')}"
    before = "".join(f"{key_of(one)}, " for one in node.get("before", ()))
    return f"{before}model {node['role']}"


def visit(plan: Plan, node: Mapping[str, Any], there: set[str], made: set[str]) -> set[str]:
    """Note what a node needs; returns the columns that it makes. `made` are those of `there` that nodes made."""
    kind = node["node"]
    if kind == "sequence":
        here, own = set(there), set(made)
        for inner in node["nodes"]:
            new = visit(plan, inner, here, own)
            here |= new
            own |= new if inner["node"] != "lookup" else set()
        return here - there
    if kind == "switch":
        for case in node["cases"]:
            for column in _typed(case["if"]):
                _needs(plan, column, TYPES[column[1]], there, made)
    if kind in ("switch", "splitter"):
        branches = [visit(plan, inner, there, made) for inner in below(node)]
        return set.intersection(*branches)
    if kind == "ensemble":
        members = {m["name"]: visit(plan, m["node"], there, made) for m in node["members"]}
        if node["combine"] != "all":
            return set.intersection(*members.values())
        return {f"{name}.{column}" for name, columns in members.items() for column in columns}
    return _leaf(plan, node, there, made)


def _leaf(plan: Plan, node: Mapping[str, Any], there: set[str], made: set[str]) -> set[str]:
    kind = node["node"]
    if kind == "lookup":
        assert plan.service is not None
        for key in plan.service.entities:
            plan.asked.setdefault(key, "BYTES")
        request = {*plan.service.request, *plan.service.entities}
        return {column for column in plan.service.columns if column not in request}
    if kind == "call":
        for name, of in node["columns"]:
            _needs(plan, (name, of), TYPES[of], there, made)
        return {"prediction"}
    if kind == "transform":
        for name, of in node["inputs"]:
            _needs(plan, (name, of), TYPES[of], there, made)
        plan.parts[key_of(node)] = transform_part(node, plan.folder)
        return {name for name, _ in node["outputs"]}
    part = plan.part_of(node["role"])
    plan.parts[key_of(node)] = part
    for name, datatype in part.inputs:
        if not name.endswith(NULL):
            _needs(plan, (name, ""), datatype, there, made)
    return {"prediction", f"{node['role']}.prediction"}


def _needs(plan: Plan, column: tuple[str, str], datatype: str, there: set[str], made: set[str]) -> None:
    name = column[0]
    if name not in there and plan.asked.setdefault(name, datatype) != datatype:
        numbers = {plan.asked[name], datatype}
        if "BYTES" in numbers or "BOOL" in numbers:
            raise InvalidInput(f"column {name!r} is {' and '.join(sorted(numbers))} in one graph", hint="use one type")
        plan.asked[name] = "FP64"
    if name not in made:
        plan.seen.setdefault(name, plan.asked.get(name, datatype))


def columns_in(condition: Mapping[str, Any]) -> set[str]:
    """The columns that a condition reads."""
    return set(read(condition).columns)


def _typed(condition: Mapping[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    waiting = [read(condition)]
    while waiting:
        node = waiting.pop()
        if node.op == "column":
            found.append((str(node.value), node.type))
        waiting.extend(node.args)
    return sorted(set(found))


def transform_part(node: Mapping[str, Any], folder: Path) -> Part:
    """The part of a transform; its folder is made when it is not there."""
    content = {path: base64.b64decode(text) for path, text in sorted(node["packed"].items())}
    digest = blake2b(repr(sorted(content.items())).encode(), digest_size=16).hexdigest()
    own = folder / digest
    for path, data in content.items():
        target = own / path
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.new")
            temporary.write_bytes(data)
            temporary.replace(target)
    inputs = [[name, TYPES[kind]] for name, kind in node["inputs"]]
    nullable = [name for name, kind in node["inputs"] if kind in ("int64", "bool")]
    inputs += [[name + NULL, "BOOL"] for name in nullable]
    example: dict[str, list[Any]] = {
        name: [""] if kind == "text" else [False] if kind == "bool" else [0] for name, kind in node["inputs"]
    }
    sealed = files.digest({path: object_id(data) for path, data in content.items()})
    return Part(str(own), LOADER, inputs, nulls_apart(example, nullable, 1), nullable, sealed=sealed)


def without_code(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The graph without the code of its transforms: what gateways need, and people look at."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(inner) for name, inner in value.items() if name != "packed"}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    told: dict[str, Any] = plain(graph)
    return told
