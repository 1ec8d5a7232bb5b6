"""What an author says about an endpoint: the graph that answers, how a new revision rolls out, when to go back.

Pure values. A node names what it means (a feature service, a model); the ids are pinned later, when a
revision is built from a snapshot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Literal

from everloop.core.clock import DAY, HOUR, MINUTE, SECOND, Micros
from everloop.core.errors import DefinitionError
from everloop.core.ids import checked_name
from everloop.flows.control import bytes_of
from everloop.serving.graph.nodes import check, duration, is_line, named, node_of, nodes_of
from everloop.serving.rollout.declared import Experiment, Fallback, Guard, Simpler, fallbacks_of

FullDisk = Literal["refuse", "unlogged"]
"""What an endpoint does when its prediction log cannot be written: answer 503, or serve without an id."""


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
            duration(self.hold, "hold")
        elif self.hold <= 0:
            raise DefinitionError("hold is not positive", hint='a duration such as "10m", or a number of requests')

    def manifest(self) -> dict[str, Any]:
        """Steps and hold."""
        hold = {"micros": duration(self.hold, "hold")} if isinstance(self.hold, str) else {"requests": int(self.hold)}
        return {"rollout": "canary", "steps": list(self.steps), "hold": hold}


@dataclass(frozen=True, slots=True)
class AllAtOnce:
    """A new revision takes all traffic as soon as it is warm."""

    def manifest(self) -> dict[str, Any]:
        """The one step."""
        return {"rollout": "all_at_once", "steps": [100], "hold": {"micros": 0}}


@dataclass(frozen=True, slots=True)
class BlueGreen:
    """A new revision is started beside the old one, takes all traffic in one step, and is watched while it soaks.

    The old one stays warm, to take over again at once.
    """

    soak: str = "10m"
    """How long guardrails are judged before it counts as settled."""

    def __post_init__(self) -> None:
        """Check the time."""
        if duration(self.soak, "soak") <= 0:
            raise DefinitionError("a soak of no time", hint='BlueGreen(soak="10m"), or AllAtOnce()')

    def manifest(self) -> dict[str, Any]:
        """The one step, and how long it is watched."""
        return {"rollout": "blue_green", "steps": [100], "hold": {"micros": duration(self.soak, "soak")}}


@dataclass(frozen=True, slots=True)
class Shadow:
    """A new revision first answers copies of real questions, which no caller sees; then it rolls out as `then` says.

    Its answers are kept beside those that callers got, and compared.
    """

    hold: str | int = "1h"
    """How long, or how many copies must have been answered."""
    share: str = "100%"
    """Of the questions, how many are copied."""
    differ: str = "100%"
    """Highest share of rows whose answers may differ; 100%: they are only counted."""
    tolerance: float = 0.01
    """Numbers that are no further apart count as equal."""
    then: Canary | AllAtOnce | BlueGreen = field(default_factory=Canary)

    def __post_init__(self) -> None:
        """Check it."""
        if not isinstance(self.then, Canary | AllAtOnce | BlueGreen) or self.tolerance < 0:
            raise DefinitionError("a shadow is followed by a canary, or by all at once", hint="Shadow(then=Canary())")
        self.manifest()

    def manifest(self) -> dict[str, Any]:
        """What follows it, with the shadow in front."""
        said = {
            "hold": Canary((100,), self.hold).manifest()["hold"],
            "share_ppm": _share(self.share),
            "differ_ppm": _share(self.differ),
            "tolerance": repr(float(self.tolerance)),
        }
        return {**self.then.manifest(), "shadow": said}


Rollout = Canary | AllAtOnce | BlueGreen | Shadow
"""How a new revision takes over."""


@dataclass(frozen=True, slots=True)
class Guardrails:
    """When a rolling revision goes back by itself. Errors and latency are judged on what the gateways counted."""

    errors: str = "2%"
    """Highest share of requests that the new revision may fail (model errors, crashes, timeouts)."""
    p99: str = ""
    """Highest 99th percentile of the time to answer, for example "250ms"; empty means no bound."""
    also: tuple[Guard, ...] | list[Guard] = ()
    """On what was answered, against the champion: `Drift`, `Business`, `Quality`."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        object.__setattr__(self, "also", tuple(self.also))
        if any(not isinstance(guard, Guard) for guard in self.also):
            raise DefinitionError(f"{list(self.also)!r} are no guardrails", hint="Drift(), Business(...), Quality(...)")
        self.manifest()

    def manifest(self) -> dict[str, Any]:
        """The share in parts per million, the latency in microseconds (0: no bound)."""
        said = {"errors_ppm": _share(self.errors), "p99_micros": duration(self.p99, "p99") if self.p99 else 0}
        return {**said, **({"guards": [guard.manifest() for guard in self.also]} if self.also else {})}


def _share(text: str) -> int:
    try:
        number = Decimal(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except (InvalidOperation, AttributeError, TypeError):
        raise DefinitionError(f"{text!r} is not a share", hint='write it like "2%" or "0.02"') from None
    if not 0 <= number <= 1:
        raise DefinitionError(f"{text!r} is not between 0% and 100%", hint='write it like "2%"')
    return int(number * 1_000_000)


@dataclass(frozen=True, slots=True)
class Workers:
    """How many processes each model and transform of an endpoint may have, and how long a queue."""

    least: int = 1
    """0: the last process ends when nobody asked for `idle`; the next question starts one and waits for it."""
    most: int = 1
    """More are started while requests pile up although all are at work."""
    idle: str = "15m"
    queue: int = 1024
    """Requests that may wait for a model; more are refused at once, with 429."""
    inline: bool = False
    """Whether models whose compiled form was verified (`compile=el.Onnx()`) answer inside the gateway: no hop, and no
    process of their own that may die alone."""
    cores: float = 1.0
    """Of each process of a model: the threads that its libraries may use here, what a replica reserves on a cluster."""
    memory: str | int | None = None
    """What a replica reserves on a cluster, for example "4GiB"; None: nothing is reserved."""
    gpus: float = 0.0
    """The same of GPUs; a part of one (0.5) shares it."""
    shared: str = ""
    """The name of a process that the models of the project's endpoints with this name share: for many small models."""
    environment: str = ""
    """The name of another Python environment for the models, where their packages differ from the gateway's; whoever
    runs a gateway says where it is (`EVERLOOP_SERVING_PYTHONS`)."""
    compute: str = ""
    """The compute profile of the project that each process of a model gets; `cores`, `memory`, `gpus` may take less."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        whole = self.gpus <= 1 or float(self.gpus).is_integer()  # Ray shares one GPU, and gives several whole
        if not 0 < self.cores <= 1024 or not 0 <= self.gpus <= 64 or not whole:
            raise DefinitionError(
                f"workers of {self.cores} cores and {self.gpus} GPUs", hint='Workers(cores=2, memory="4GiB", gpus=0.5)'
            )
        bytes_of(self.memory)
        if self.shared and (self.most > 1 or self.cores > 1 or self.compute):
            raise DefinitionError("a process that models share is one, of one core", hint='Workers(shared="small")')
        if self.environment and (self.shared or self.inline):
            raise DefinitionError(
                "models of another environment have processes of their own", hint="neither shared nor inline"
            )
        for name in filter(None, (self.shared, self.environment, self.compute)):
            checked_name(name)
        if not 0 <= self.least <= max(self.most, 1) <= 64 or not 1 <= self.queue <= 100_000:
            raise DefinitionError(
                f"workers from {self.least} to {self.most}, a queue of {self.queue}", hint="Workers(least=0, most=4)"
            )
        duration(self.idle, "idle")

    def manifest(self) -> dict[str, Any]:
        """The bounds."""
        idle = duration(self.idle, "idle")
        said: dict[str, Any] = {"least": self.least, "most": max(self.most, 1)}
        said |= {"idle_micros": idle, "queue": self.queue}
        if self.inline:
            said["inline"] = True
        if self.shared:
            said["shared"] = self.shared
        if self.environment:
            said["environment"] = self.environment
        if self.compute:
            said["compute"] = self.compute
        return said | ({"needs": needs} if (needs := self._needs()) else {})

    def _needs(self) -> dict[str, int]:
        """Thousandths of cores and GPUs, and bytes, where they are not the usual: identities hold no floats."""
        cores, gpus = round(self.cores * 1000), round(self.gpus * 1000)
        said = {"cores": cores, "memory": bytes_of(self.memory) or 0, "gpus": gpus}
        usual = {"cores": 1000, "memory": 0, "gpus": 0}
        return {name: amount for name, amount in said.items() if amount != usual[name]}


_PERIODS: dict[str, Micros] = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller may ask of an endpoint: a token is a caller; on loopback all without one are one together."""

    rate: str = ""
    """Requests in a period, spread over it, for example "50/s" or "600/m"; as many may come at once."""
    quota: str = ""
    """Requests in each whole period, for example "100000/d"."""

    def __post_init__(self) -> None:
        """Check both."""
        self.manifest()

    def manifest(self) -> dict[str, Any]:
        """[requests, microseconds] of each that is set."""
        said = {"rate": self.rate, "quota": self.quota}
        return {name: list(_per(text)) for name, text in said.items() if text}


def _per(text: str) -> tuple[int, Micros]:
    count, _, period = text.partition("/")
    if not count.isdigit() or int(count) < 1 or period not in _PERIODS:
        raise DefinitionError(
            f"{text!r} is no limit", hint='requests in a second, minute, hour or day: "50/s", "1000/d"'
        )
    return int(count), _PERIODS[period]


@dataclass(frozen=True, slots=True)
class Explain:
    """Answers may be asked for with their explanation (`?explain=true`)."""

    budget: str = "200ms"
    """How long an answer waits for its explanation; after that it comes without, and says so."""
    rows: int = 32
    """Rows of one request that are explained at most."""

    def __post_init__(self) -> None:
        """Check both."""
        duration(self.budget, "budget")
        if not 1 <= self.rows <= 10_000:
            raise DefinitionError(f"explanations of {self.rows} rows", hint="between 1 and 10,000 in one request")

    def manifest(self) -> dict[str, Any]:
        """Budget and rows."""
        return {"budget_micros": duration(self.budget, "budget"), "rows": self.rows}


@dataclass(frozen=True, slots=True)
class EndpointDef:
    """An endpoint: an address that answers predictions, whatever revision is live."""

    name: str
    graph: Any
    """A node (see `graph.nodes`), or a model alone."""
    rollout: Rollout = field(default_factory=Canary)
    fallback: Fallback | list[Fallback] | tuple[Fallback, ...] | None = "previous"
    """Who answers when the chosen revision fails: the previous revision, nobody, or several ways in their order."""
    guardrails: Guardrails = field(default_factory=Guardrails)
    full_disk: FullDisk = "refuse"
    deadline: str = "10s"
    """How long a request may take before it is given up."""
    workers: Workers = field(default_factory=Workers)
    limits: Limits = field(default_factory=Limits)
    explain: Explain | None = None
    """Whether answers may be explained; None: nobody may ask for that."""
    traced: str = "0%"
    """Of the questions without a `traceparent`, how many are traced; 0%: none at all."""
    challengers: Mapping[str, Any] = field(default_factory=dict)
    """Graphs that some callers meet instead, by name, while `experiment` compares them with the endpoint's own."""
    experiment: Experiment | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot serve."""
        named(self.name, "a name")
        fallbacks_of(self.fallback)
        if self.full_disk not in ("refuse", "unlogged"):
            raise DefinitionError(f"full_disk {self.full_disk!r} is unknown", hint='"refuse" or "unlogged"')
        duration(self.deadline, "deadline")
        check(self.name, node_of(self.graph))
        lines = all(is_line(node_of(graph)) for graph in (self.graph, *self.challengers.values()))
        if self.explain is not None and not lines:
            raise DefinitionError(
                f"endpoint {self.name} explains, and a graph of it is more than a look-up and a model",
                hint="give the model an endpoint of its own that explains",
            )
        self._check_compared()

    @property
    def key(self) -> str:
        """`endpoint/<name>`."""
        return f"endpoint/{self.name}"

    def manifest(self) -> dict[str, Any]:
        """What identifies the endpoint's definition; names, no ids."""
        return {
            "graph": node_of(self.graph),
            "rollout": self.rollout.manifest(),
            "fallback": fallbacks_of(self.fallback),
            "guardrails": self.guardrails.manifest(),
            "full_disk": self.full_disk,
            "deadline_micros": duration(self.deadline, "deadline"),
            **({"limits": self.limits.manifest()} if self.limits != Limits() else {}),
            **({"traced_ppm": _share(self.traced)} if _share(self.traced) else {}),
            **({} if self.explain is None else {"explain": self.explain.manifest()}),
            **({"workers": self.workers.manifest()} if self.workers != Workers() else {}),
            **self._compared(),
        }

    def _check_compared(self) -> None:
        if self._simpler is not None:
            check(f"{self.name}, its fallback", node_of(self._simpler))
        for name, graph in self.challengers.items():
            check(f"{self.name}, challenger {named(name, 'a challenger')}", node_of(graph))
        if self.challengers and self.experiment is None:
            raise DefinitionError(
                f"endpoint {self.name}: nothing says how its challengers are compared",
                hint='experiment=el.Experiment(el.Business("revenue"))',
            )
        self._compared()

    def _compared(self) -> dict[str, Any]:
        if self.experiment is None:
            return {}
        graphs = {name: node_of(graph) for name, graph in self.challengers.items()}
        return {"challengers": graphs, "experiment": self.experiment.manifest(tuple(graphs))}

    @property
    def _simpler(self) -> Any:
        steps = self.fallback if isinstance(self.fallback, list | tuple) else (self.fallback,)
        return next((step.graph for step in steps if isinstance(step, Simpler)), None)

    @property
    def upstream(self) -> tuple[str, ...]:
        """Keys of the definitions that the graph names, in order."""
        keys = {"lookup": "service", "model": "model", "call": "endpoint"}
        graphs = [self.graph, *self.challengers.values(), *([] if self._simpler is None else [self._simpler])]
        nodes = [node for graph in graphs for node in nodes_of(node_of(graph))]
        named_by = [(keys[n["node"]], n) for n in nodes if n["node"] in keys]
        return tuple(dict.fromkeys(f"{key}/{node[key]}" for key, node in named_by))
