"""What an author says about an endpoint: the graph that answers, how a new revision rolls out, when to go back.

Pure values. A node names what it means (a feature service, a model); the ids are pinned later, when a
revision is built from a snapshot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Literal, get_args

from everloop.core.clock import Micros, parse_duration
from everloop.core.errors import DefinitionError, InvalidInput
from everloop.core.ids import checked_name

FullDisk = Literal["refuse", "unlogged"]
"""What an endpoint does when its prediction log cannot be written: answer 503, or serve without an id."""


Stale = Literal["fail", "default", "serve"]
"""What an endpoint does when features are too old: answer 503; answer with the values over no facts; answer with what
is there. The last two are flagged in the answer, its headers, the prediction log and the counters."""


def _named(thing: Any, what: str) -> str:
    """The name of a definition, or the text itself."""
    name = thing if isinstance(thing, str) else getattr(thing, "name", None)
    if not isinstance(name, str):
        raise DefinitionError(f"{thing!r} is not {what}", hint=f"pass {what} of this project, or its name")
    try:
        return checked_name(name)
    except InvalidInput as error:
        raise DefinitionError(error.message, hint=error.hint) from error


def _duration(text: str, what: str) -> Micros:
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
            _duration(self.fresh, "fresh")

    def manifest(self) -> dict[str, Any]:
        """The node with the name of its service; the bound (microseconds) and the policy where they are not plain."""
        node: dict[str, Any] = {"node": "lookup", "service": _named(self.service, "a feature service")}
        if self.fresh:
            node["fresh_micros"] = _duration(self.fresh, "fresh")
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
        return {"node": "model", "model": _named(self.model, "a model"), "role": checked_name(self.role)}


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
        return {"node": "sequence", "nodes": [_node(node) for node in self.nodes]}


def _node(node: Any) -> dict[str, Any]:
    if isinstance(node, Lookup | Model | Sequence):
        return node.manifest()
    return Model(node).manifest()


@dataclass(frozen=True, slots=True)
class Canary:
    """Traffic moves to a new revision in steps (percent, rising, the last is 100)."""

    steps: tuple[int, ...] | list[int] = (5, 25, 100)
    hold: str | int = "10m"
    """How long each step lasts: a duration by the workspace's clock, or a number of answered requests."""

    def __post_init__(self) -> None:
        """Check the steps and the hold."""
        steps = tuple(self.steps)
        object.__setattr__(self, "steps", steps)
        rising = all(a < b for a, b in pairwise(steps))
        if not steps or not rising or steps[0] <= 0 or steps[-1] != 100:
            raise DefinitionError(
                f"canary steps {list(steps)} do not lead to 100", hint="rising percents, for example [5, 25, 100]"
            )
        if isinstance(self.hold, str):
            _duration(self.hold, "hold")
        elif self.hold <= 0:
            raise DefinitionError("hold is not positive", hint='a duration such as "10m", or a number of requests')

    def manifest(self) -> dict[str, Any]:
        """Steps and hold."""
        hold = {"micros": _duration(self.hold, "hold")} if isinstance(self.hold, str) else {"requests": int(self.hold)}
        return {"rollout": "canary", "steps": list(self.steps), "hold": hold}


@dataclass(frozen=True, slots=True)
class AllAtOnce:
    """A new revision takes all traffic as soon as it is warm."""

    def manifest(self) -> dict[str, Any]:
        """The one step."""
        return {"rollout": "all_at_once", "steps": [100], "hold": {"micros": 0}}


@dataclass(frozen=True, slots=True)
class Guardrails:
    """When a rolling revision goes back by itself. Judged on what the gateways counted."""

    errors: str = "2%"
    """Highest share of requests that the new revision may fail (model errors, crashes, timeouts)."""
    p99: str = ""
    """Highest 99th percentile of the time to answer, for example "250ms"; empty means no bound."""

    def __post_init__(self) -> None:
        """Check both bounds."""
        self.manifest()

    def manifest(self) -> dict[str, Any]:
        """The share in parts per million, the latency in microseconds (0: no bound)."""
        return {"errors_ppm": _share(self.errors), "p99_micros": _duration(self.p99, "p99") if self.p99 else 0}


def _share(text: str) -> int:
    try:
        number = Decimal(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except (InvalidOperation, AttributeError, TypeError):
        raise DefinitionError(f"{text!r} is not a share", hint='write it like "2%" or "0.02"') from None
    if not 0 <= number <= 1:
        raise DefinitionError(f"{text!r} is not between 0% and 100%", hint='write it like "2%"')
    return int(number * 1_000_000)


@dataclass(frozen=True, slots=True)
class EndpointDef:
    """An endpoint: an address that answers predictions, whatever revision is live."""

    name: str
    graph: Any
    """`Sequence`, or a model alone."""
    rollout: Canary | AllAtOnce = field(default_factory=Canary)
    fallback: Literal["previous"] | None = "previous"
    """Who answers when the chosen revision fails: the previous revision, or nobody."""
    guardrails: Guardrails = field(default_factory=Guardrails)
    full_disk: FullDisk = "refuse"
    deadline: str = "10s"
    """How long a request may take before it is given up."""

    def __post_init__(self) -> None:
        """Refuse what cannot serve: no model, two models of one role, a look-up after the model."""
        _named(self.name, "a name")
        if self.fallback not in ("previous", None):
            raise DefinitionError(f"fallback {self.fallback!r} is unknown", hint='"previous" or None')
        if self.full_disk not in ("refuse", "unlogged"):
            raise DefinitionError(f"full_disk {self.full_disk!r} is unknown", hint='"refuse" or "unlogged"')
        _duration(self.deadline, "deadline")
        _check_line(self.name, nodes_of(_node(self.graph)))

    @property
    def key(self) -> str:
        """`endpoint/<name>`."""
        return f"endpoint/{self.name}"

    def manifest(self) -> dict[str, Any]:
        """What identifies the endpoint's definition; names, no ids."""
        return {
            "graph": _node(self.graph),
            "rollout": self.rollout.manifest(),
            "fallback": self.fallback,
            "guardrails": self.guardrails.manifest(),
            "full_disk": self.full_disk,
            "deadline_micros": _duration(self.deadline, "deadline"),
        }

    @property
    def upstream(self) -> tuple[str, ...]:
        """Keys of the definitions that the graph names, in order."""
        keys = {"lookup": "service", "model": "model"}
        return tuple(f"{keys[n['node']]}/{n[keys[n['node']]]}" for n in nodes_of(_node(self.graph)))


def nodes_of(graph: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The look-ups and models of a graph's manifest, in the order in which they run."""
    if graph["node"] != "sequence":
        return [graph]
    return [leaf for node in graph["nodes"] for leaf in nodes_of(node)]


def _check_line(name: str, line: list[Mapping[str, Any]]) -> None:
    kinds = [node["node"] for node in line]
    if kinds not in (["model"], ["lookup", "model"]):
        raise DefinitionError(
            f"endpoint {name}: the graph is {' then '.join(kinds)}",
            hint="this version serves one model, with at most one look-up before it",
        )
