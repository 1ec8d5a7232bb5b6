"""What an author says of rollouts beside their steps: guardrails on what was answered, and experiments. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from everloop.core.errors import DefinitionError
from everloop.serving.graph.nodes import duration, literal_of, named, node_of

Better = Literal["higher", "lower"]
LOSSES = ("accuracy", "brier", "absolute", "squared")
"""What a label and an answer give: whether it was right (answers from 0.5 on are 1), or how far off it was."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A new revision's answers may be distributed otherwise than the champion's, but not more than so.

    The distance is Kolmogorov and Smirnov's, from 0 to 1: of texts, the share that would have to change.
    """

    at_most: float = 0.25
    least: int = 200
    """Predictions of each revision before anything is concluded."""

    def __post_init__(self) -> None:
        """Check it."""
        if not 0 <= self.at_most < 1:
            raise DefinitionError(
                f"a distance of at most {self.at_most}", hint="a number from 0 to 1: Drift(at_most=0.25)"
            )
        _least(self.least)

    def manifest(self) -> dict[str, Any]:
        """Its bounds."""
        return {"guard": "drift", "at_most": repr(float(self.at_most)), "least": self.least}


@dataclass(frozen=True, slots=True)
class Business:
    """A metric of feedback by prediction id, or pushed: its mean may not be worse than the champion's."""

    metric: str
    worse: float = 0.0
    """By how much the mean may be worse, in the metric's own unit."""
    better: Better = "higher"
    least: int = 100
    """Values of each revision before anything is concluded."""
    watch: str = ""
    """How long a revision that is live is watched at least, because feedback comes late: "1d"."""

    def __post_init__(self) -> None:
        """Check it."""
        named(self.metric, "a metric")
        _bounds(self.worse, self.better, self.least)
        self.manifest()

    def manifest(self) -> dict[str, Any]:
        """Its bounds."""
        return {
            "guard": "business",
            "metric": self.metric,
            "worse": repr(float(self.worse)),
            "better": self.better,
            "least": self.least,
            "watch_micros": duration(self.watch, "watch") if self.watch else 0,
        }


@dataclass(frozen=True, slots=True)
class Quality:
    """What late labels say of answers: `accuracy`, or a loss: `brier`, `absolute`, `squared`."""

    metric: str = "accuracy"
    worse: float = 0.0
    least: int = 100
    watch: str = ""

    def __post_init__(self) -> None:
        """Check it."""
        if self.metric not in LOSSES:
            raise DefinitionError(f"labels give no {self.metric!r}", hint="one of " + ", ".join(LOSSES))
        _bounds(self.worse, self.better, self.least)
        self.manifest()

    @property
    def better(self) -> Better:
        """Accuracy is better when it is higher, a loss when it is lower."""
        return "higher" if self.metric == "accuracy" else "lower"

    def manifest(self) -> dict[str, Any]:
        """Its bounds."""
        return {
            "guard": "quality",
            "metric": self.metric,
            "worse": repr(float(self.worse)),
            "better": self.better,
            "least": self.least,
            "watch_micros": duration(self.watch, "watch") if self.watch else 0,
        }


Guard = Drift | Business | Quality


@dataclass(frozen=True, slots=True)
class Simpler:
    """A fallback: another graph of the project, kept warm, that answers the same question."""

    graph: Any
    """A node (see `graph.nodes`), or a model alone."""


@dataclass(frozen=True, slots=True)
class Cached:
    """A fallback: the last answer to the same question, if it is not too old."""

    ttl: str = "10m"
    most: int = 10_000
    """Rows that each gateway keeps; those that were asked for longest ago go first."""

    def __post_init__(self) -> None:
        """Check it."""
        if not 1 <= self.most <= 1_000_000 or duration(self.ttl, "ttl") <= 0:
            raise DefinitionError(f"a cache of {self.most} rows for {self.ttl}", hint='Cached("10m", most=10_000)')


@dataclass(frozen=True, slots=True)
class Default:
    """A fallback: one declared value for each output."""

    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check it."""
        if not self.values:
            raise DefinitionError("a default without values", hint='Default({"prediction": 0.0})')
        self.manifest()

    def manifest(self) -> dict[str, Any]:
        """Name and value of each output."""
        return {"fallback": "default", "values": [[name, literal_of(value)] for name, value in self.values.items()]}


Fallback = Literal["previous"] | Simpler | Cached | Default


def fallbacks_of(said: Any) -> list[dict[str, Any]] | str | None:
    """How fallbacks are told in a manifest: in their order, or as `previous` and nothing ever were."""
    if said in (None, "previous") or (isinstance(said, list | tuple) and tuple(said) == ("previous",)):
        return "previous" if said else None
    steps = said if isinstance(said, list | tuple) else [said]
    told: list[dict[str, Any]] = []
    for step in steps:
        if step == "previous":
            told.append({"fallback": "previous"})
        elif isinstance(step, Simpler):
            told.append({"fallback": "simpler", "graph": node_of(step.graph)})
        elif isinstance(step, Cached):
            told.append({"fallback": "cached", "ttl_micros": duration(step.ttl, "ttl"), "most": step.most})
        elif isinstance(step, Default):
            told.append(step.manifest())
        else:
            raise DefinitionError(
                f"fallback {step!r} is unknown",
                hint='"previous", Simpler(graph), Cached(ttl), Default(values), or None',
            )
    kinds = [step["fallback"] for step in told]
    if not told or len(set(kinds)) < len(kinds):
        raise DefinitionError(f"fallbacks {kinds}", hint="each kind once, in the order in which they are tried")
    return told


@dataclass(frozen=True, slots=True)
class Experiment:
    """Champion and challengers side by side, each caller always with the same one, until the metric tells them apart.

    A sequential test looks all the time: whether a challenger is better, or worse, is wrong with a chance of `alpha`
    at most, for all challengers and looks together.
    """

    metric: Business | Quality
    """What is compared; its `worse` and `watch` say nothing here."""
    shares: Mapping[str, int] = field(default_factory=dict)
    """Percent of the keys for each challenger; the champion has the rest. Empty: all alike."""
    key: str = ""
    """The column of the request that stays with its revision; empty: `Everloop-Sticky`, or else the entity."""
    salt: str = ""
    """Another one deals keys anew. Empty: the endpoint's name."""
    alpha: float = 0.05
    most: str = "30d"
    """After so long it ends undecided."""
    won: Literal["promote", "go on"] = "promote"
    """What a challenger that is better leads to: a change that makes it the champion, or nothing."""
    lost: Literal["stop", "go on"] = "stop"
    """One that is worse: no more traffic for it, or nothing."""
    undecided: Literal["stop", "go on"] = "stop"
    """One that is neither in the end."""

    def __post_init__(self) -> None:
        """Check it."""
        if not isinstance(self.metric, Business | Quality):
            raise DefinitionError("an experiment compares no metric", hint='Experiment(el.Business("revenue"))')
        if not 0 < self.alpha < 0.5:
            raise DefinitionError(f"a chance of error of {self.alpha}", hint="Experiment(alpha=0.05)")
        if any(not isinstance(p, int) or not 0 < p < 100 for p in self.shares.values()) or self.total >= 100:
            raise DefinitionError(f"shares {dict(self.shares)}", hint="whole percents that leave some for the champion")
        words = {"won": ("promote", "go on"), "lost": ("stop", "go on"), "undecided": ("stop", "go on")}
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise DefinitionError(f"{name}={getattr(self, name)!r}", hint="one of " + ", ".join(known))
        duration(self.most, "most")

    @property
    def total(self) -> int:
        """Percent of all challengers that are named."""
        return sum(self.shares.values())

    def manifest(self, challengers: tuple[str, ...]) -> dict[str, Any]:
        """What identifies it; raises `DefinitionError` when it names others than the challengers."""
        if not challengers:
            raise DefinitionError("an experiment without challengers", hint="endpoint(challengers={'deep': model})")
        if self.shares and set(self.shares) != set(challengers):
            raise DefinitionError(f"shares of {sorted(self.shares)}", hint="one each of " + ", ".join(challengers))
        alike = 100 // (len(challengers) + 1)
        return {
            "metric": self.metric.manifest(),
            "shares": {name: self.shares.get(name, alike) for name in challengers},
            "key": self.key,
            "salt": self.salt,
            "alpha": repr(float(self.alpha)),
            "most_micros": duration(self.most, "most"),
            "won": self.won,
            "lost": self.lost,
            "undecided": self.undecided,
        }


def _least(least: int) -> None:
    if least < 2:
        raise DefinitionError(f"a conclusion from {least} rows", hint="least=100")


def _bounds(worse: float, better: str, least: int) -> None:
    if worse < 0 or better not in ("higher", "lower"):
        raise DefinitionError(f"worse by {worse}, better {better}", hint='worse=0.01, better="higher" or "lower"')
    _least(least)
