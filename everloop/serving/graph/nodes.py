"""The nodes of an inference graph, as authors write them. Pure values; names are resolved when a revision is built.

    Sequence       one after the other; what a node makes is there for the next
    Switch         the first case whose condition holds answers, row by row
    Splitter       one of several, by shares of the traffic
    Ensemble       several at once, side by side or combined
    Lookup         reads a feature service
    Transform      a function of the project
    Model          asks a model
    CallEndpoint   asks another endpoint

`Step` puts a time limit, retries and a default around any of them, and says whether the answer needs it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_args

from everloop.core.clock import Micros, parse_duration
from everloop.core.coherence import below, walk
from everloop.core.errors import DefinitionError, InvalidInput
from everloop.core.ids import checked_name
from everloop.features.expressions.author import typed_node
from everloop.features.expressions.tree import known, read, written
from everloop.features.transforms.definitions import TYPES, TransformDef

Stale = Literal["fail", "default", "serve"]
"""What an endpoint does when features are too old: answer 503; answer with the values over no facts; answer with what
is there. The last two are flagged in the answer, its headers, the prediction log and the counters."""


def named(thing: Any, what: str) -> str:
    """The name of a definition, or the text itself; raises `DefinitionError`."""
    name = thing if isinstance(thing, str) else getattr(thing, "name", None)
    if not isinstance(name, str):
        raise DefinitionError(f"{thing!r} is not {what}", hint=f"pass {what} of this project, or its name")
    try:
        return checked_name(name)
    except InvalidInput as error:
        raise DefinitionError(error.message, hint=error.hint) from error


def duration(text: str, what: str) -> Micros:
    """Microseconds of a text such as "90s"; raises `DefinitionError`."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise DefinitionError(f"{what}: {error}", hint='write it like "90s", "10m" or "3h"') from error


@dataclass(frozen=True, slots=True)
class Lookup:
    """A node that reads a feature service online, by the entity keys of the request."""

    service: Any
    """A feature service definition, or its name."""
    fresh: str = ""
    """How far the facts of a view may lag behind the question, for example "2h"; empty means no bound."""
    stale: Stale = "fail"
    """What happens when a view lags more, was never filled, or its store does not answer."""

    def __post_init__(self) -> None:
        """Check the bound and the policy."""
        if self.stale not in get_args(Stale):
            raise DefinitionError(f"stale {self.stale!r} is unknown", hint="one of " + ", ".join(get_args(Stale)))
        if self.fresh:
            duration(self.fresh, "fresh")

    def manifest(self) -> dict[str, Any]:
        """The node with the name of its service; the bound (microseconds) and the policy where they are not plain."""
        node: dict[str, Any] = {"node": "lookup", "service": named(self.service, "a feature service")}
        if self.fresh:
            node["fresh_micros"] = duration(self.fresh, "fresh")
        if self.stale != "fail":
            node["stale"] = self.stale
        return node


@dataclass(frozen=True, slots=True)
class Model:
    """A node that asks a model. A bare trainer or name in a sequence means the same."""

    model: Any
    """The model's definition, or its name."""
    role: str = "champion"

    def manifest(self) -> dict[str, Any]:
        """The node with the name of its model and the role that it plays."""
        return {"node": "model", "model": named(self.model, "a model"), "role": checked_name(self.role)}


@dataclass(frozen=True, slots=True, init=False)
class Sequence:
    """Nodes one after the other; the columns that one yields are there for the next."""

    nodes: tuple[Any, ...]

    def __init__(self, *nodes: Any) -> None:
        """Take nodes in order; a bare model is a `Model` node."""
        if not nodes:
            raise DefinitionError("a sequence has no nodes", hint="for example Sequence(Lookup(inputs), model)")
        object.__setattr__(self, "nodes", nodes)

    def manifest(self) -> dict[str, Any]:
        """The nodes in order."""
        return {"node": "sequence", "nodes": [node_of(node) for node in self.nodes]}


Combine = Literal["all", "mean", "max", "min", "vote"]
"""What an ensemble answers: every member's outputs as `<member>.<output>`, or one number (or label) for all."""


@dataclass(frozen=True, slots=True, init=False)
class Switch:
    """The first case whose condition holds for a row answers for it; rows of one request may go different ways."""

    cases: tuple[tuple[Any, Any], ...]
    otherwise: Any

    def __init__(self, *cases: tuple[Any, Any], otherwise: Any = None) -> None:
        """Take (condition, node) pairs, such as `(el.col("distance") > 500, far)`, and who answers for the rest."""
        if not cases:
            raise DefinitionError(
                "a switch has no cases", hint='Switch((el.col("distance") > 500, far), otherwise=near)'
            )
        object.__setattr__(self, "cases", cases)
        object.__setattr__(self, "otherwise", otherwise)

    def manifest(self) -> dict[str, Any]:
        """Conditions as typed expressions, each with its node."""
        typed = [(typed_node(condition), node) for condition, node in self.cases]
        if any(known(condition) != "bool" for condition, _ in typed):
            raise DefinitionError("a condition of the switch is no comparison", hint='for example el.col("x") > 3')
        cases = [{"if": written(condition), "node": node_of(node)} for condition, node in typed]
        rest = None if self.otherwise is None else node_of(self.otherwise)
        return {"node": "switch", "cases": cases, "otherwise": rest}


@dataclass(frozen=True, slots=True)
class Splitter:
    """One of several answers, by shares in percent. A key of stickiness (or entity) always meets the same one."""

    shares: Mapping[str, tuple[int, Any]]
    """Name -> (percent, node)."""

    def manifest(self) -> dict[str, Any]:
        """Shares in their order."""
        listed = list(self.shares.items()) if isinstance(self.shares, Mapping) else []
        if sum(percent for _, (percent, _) in listed) != 100 or any(percent < 0 for _, (percent, _) in listed):
            raise DefinitionError("the shares of a splitter do not make 100", hint='{"a": (90, one), "b": (10, other)}')
        return {
            "node": "splitter",
            "shares": [
                {"name": checked_name(name), "percent": percent, "node": node_of(node, name)}
                for name, (percent, node) in listed
            ],
        }


@dataclass(frozen=True, slots=True, init=False)
class Ensemble:
    """Several nodes at once, on the same columns."""

    members: Mapping[str, Any]
    combine: Combine

    def __init__(self, combine: Combine = "all", /, **members: Any) -> None:
        """Take members by name; `combine` is `all`, or `mean`, `max`, `min`, `vote` over outputs of one name."""
        if len(members) < 2 or combine not in get_args(Combine):
            raise DefinitionError(
                f"an ensemble of {len(members)} members, combined by {combine!r}",
                hint='for example Ensemble("mean", trees=one, linear=other); ' + ", ".join(get_args(Combine)),
            )
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "combine", combine)

    def manifest(self) -> dict[str, Any]:
        """Members in their order."""
        members = [{"name": checked_name(name), "node": node_of(node, name)} for name, node in self.members.items()]
        return {"node": "ensemble", "members": members, "combine": self.combine}


@dataclass(frozen=True, slots=True)
class Transform:
    """A function of the project over columns, in a worker of its own. Its code travels in the endpoint's definition."""

    transform: TransformDef

    def manifest(self) -> dict[str, Any]:
        """What it reads and makes, and its code."""
        if not isinstance(self.transform, TransformDef):
            raise DefinitionError(f"{self.transform!r} is no transform", hint="make it by @project.transform(...)")
        packing = import_module("everloop.features.transforms.packing")  # pickles code: only where a version is made
        plain = {name: value for name, value in self.transform.manifest().items() if name != "code"}
        return {"node": "transform", **plain, "packed": packing.pack([self.transform])}


@dataclass(frozen=True, slots=True)
class CallEndpoint:
    """Another endpoint of the project answers; it chooses its own revision and logs its own prediction."""

    endpoint: Any
    """Its definition, or its name."""
    columns: Mapping[str, str]
    """What it is sent: column -> type (float64, int64, text, bool)."""

    def manifest(self) -> dict[str, Any]:
        """The name of the endpoint and the columns."""
        wrong = [name for name, kind in self.columns.items() if kind not in TYPES]
        if wrong or not self.columns:
            raise DefinitionError(
                f"a call says no type of column {wrong[0] if wrong else ''!r}", hint='columns={"distance": "float64"}'
            )
        columns = [[name, kind] for name, kind in self.columns.items()]
        return {"node": "call", "endpoint": named(self.endpoint, "an endpoint"), "columns": columns}


@dataclass(frozen=True, slots=True)
class Step:
    """How a node is waited for, and what happens when it fails."""

    node: Any
    timeout: str = ""
    """How long one try may take, for example "50ms"; empty: until the endpoint's deadline."""
    retries: int = 0
    """Tries after the first. What is wrong with the question is not tried again."""
    soft: bool = False
    """A soft step that fails is left out, and the answer says so; a hard one fails the answer."""
    default: Mapping[str, Any] | None = None
    """Outputs that stand in for it when it fails, one value each; the answer says so."""

    def manifest(self, role: str = "champion") -> dict[str, Any]:
        """The node's, with what differs from plain; `role` is that of a bare model."""
        if not 0 <= self.retries <= 10:
            raise DefinitionError(f"{self.retries} retries", hint="0 to 10")
        plain: dict[str, Any] = {}
        if self.timeout:
            plain["timeout_micros"] = duration(self.timeout, "timeout")
        if self.retries:
            plain["retries"] = self.retries
        if self.soft:
            plain["soft"] = True
        if self.default is not None:
            plain["default"] = [[name, literal_of(value)] for name, value in self.default.items()]
        return {**node_of(self.node, role), **plain}


def literal_of(value: Any) -> dict[str, Any] | str | bool | int:
    """A value in an identity: floats as text, for identity holds none."""
    if isinstance(value, float):
        return {"float": repr(value)}
    if isinstance(value, str | bool | int):
        return value
    raise DefinitionError(f"a default is {value!r}", hint="a number, text, or true or false")


def literal(said: Any) -> Any:
    """Inverse of what a manifest says of a default's value."""
    return float(said["float"]) if isinstance(said, dict) else said


def node_of(node: Any, role: str = "champion") -> dict[str, Any]:
    """The manifest of a node; a bare trainer or name is a model, in the role of the branch that it stands in."""
    if isinstance(node, Step):
        return node.manifest(role)
    if isinstance(node, Lookup | Model | Sequence | Switch | Splitter | Ensemble | Transform | CallEndpoint):
        return node.manifest()
    if isinstance(node, TransformDef):
        return Transform(node).manifest()
    return Model(node, role).manifest()


def numbered(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The graph with the `number` of each node: its place in the order of `walk`."""
    count = 0

    def visit(node: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal count
        made = {**node, "number": count}
        count += 1
        kind = node["node"]
        if kind == "sequence":
            made["nodes"] = [visit(inner) for inner in node["nodes"]]
        elif kind == "switch":
            made["cases"] = [{**case, "node": visit(case["node"])} for case in node["cases"]]
            made["otherwise"] = visit(node["otherwise"]) if node["otherwise"] else None
        elif kind in ("splitter", "ensemble"):
            part = "shares" if kind == "splitter" else "members"
            made[part] = [{**inner, "node": visit(inner["node"])} for inner in node[part]]
        return made

    return visit(graph)


def asked_of_caller(graph: Mapping[str, Any], service: Mapping[str, Any]) -> list[str]:
    """The columns that callers send, as far as a graph and the manifest of its feature service tell.

    What only models' signatures tell (of models without a service) is not among them.
    """
    asked = dict.fromkeys(service.get("entities", []))
    looked = tuple(f"{view}__" for view in service.get("views", {}))
    made: set[str] = set()
    for node in walk(graph):
        wanted: list[str] = []
        if node["node"] == "switch":
            wanted = [name for case in node["cases"] for name in read(case["if"]).columns]
        elif node["node"] in ("transform", "call"):
            wanted = [name for name, _ in node.get("inputs", node.get("columns", []))]
        elif node["node"] == "model":
            wanted = list(service.get("request", []))
        asked |= dict.fromkeys(name for name in wanted if name not in made and not name.startswith(looked or ("\0",)))
        made |= {name for name, _ in node.get("outputs", [])} | ({"prediction"} if node["node"] == "call" else set())
    return list(asked)


def nodes_of(graph: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The leaves of a graph's manifest, in the order in which they are written."""
    return [node for node in walk(graph) if not below(node)]


def is_line(graph: Mapping[str, Any]) -> bool:
    """Whether it is a model with at most one look-up before it, and no step's policy: what needs no plan."""
    leaves = nodes_of(graph)
    plain = all(node["node"] == "sequence" or not below(node) for node in walk(graph))
    bare = not any(key in node for node in walk(graph) for key in ("timeout_micros", "retries", "soft", "default"))
    return plain and bare and [node["node"] for node in leaves] in (["model"], ["lookup", "model"])


def check(name: str, graph: Mapping[str, Any]) -> None:
    """Refuse a graph that cannot answer; raises `DefinitionError`."""
    leaves = nodes_of(graph)
    kinds = [node["node"] for node in leaves]
    if "model" not in kinds or kinds[-1] == "lookup":
        raise DefinitionError(
            f"endpoint {name}: the graph is {' then '.join(kinds)}", hint="its last node answers: a model, for example"
        )
    top = graph["nodes"] if graph["node"] == "sequence" else [graph]
    if kinds.count("lookup") > 1 or any(n["node"] == "lookup" and n not in top for n in leaves):
        raise DefinitionError(
            f"endpoint {name}: look-ups stand once, in the outermost sequence", hint="one service may join many views"
        )
    roles: dict[str, str] = {}
    for node in leaves:
        if node["node"] == "model" and roles.setdefault(node["role"], node["model"]) != node["model"]:
            raise DefinitionError(
                f"endpoint {name}: models {roles[node['role']]} and {node['model']} both play {node['role']}",
                hint="Model(other, role=...)",
            )
        if node["node"] == "call" and node["endpoint"] == name:
            raise DefinitionError(f"endpoint {name} calls itself")
