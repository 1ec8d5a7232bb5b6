"""What is searched, as values: the space of parameters, what is better, how trials are chosen, and when it is enough.

Pure: nothing here runs or imports an engine.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from everloop.core.errors import DefinitionError
from everloop.flows.control import seconds_of

SAMPLERS = ("tpe", "random", "grid")
TRIALS = 50
"""The budget of a search that names none."""
_KINDS = ("choice", "ints", "floats")


@dataclass(frozen=True, slots=True)
class Dimension:
    """One parameter that is searched; made by `el.choice`, `el.ints` or `el.floats`."""

    kind: str
    options: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    conditions: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """Parameters that decide whether this one is there, with the values for which it is."""

    def when(self, **conditions: Any) -> "Dimension":
        """Only where others have a value: `el.ints(2, 9).when(algorithm="trees")`; a tuple or list means any of them.

        Where it is not, the step's own default stands.
        """
        said = {n: tuple(v) if isinstance(v, list | tuple) else (v,) for n, v in conditions.items()}
        return replace(self, conditions=tuple(sorted({**dict(self.conditions), **said}.items())))

    def active(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it is searched where the parameters before it have these values."""
        return all(name in chosen and chosen[name] in values for name, values in self.conditions)

    @property
    def values(self) -> tuple[Any, ...]:
        """Every value, of a dimension that has finitely many; raises `DefinitionError` for another one."""
        if self.kind == "choice":
            return self.options
        if self.step is None or self.log:
            raise DefinitionError(
                f"a grid needs the step of floats({self.low:g}, {self.high:g})",
                hint="floats(0, 1, step=0.25), or choice(…)",
            )
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        found = [self.low + number * self.step for number in range(count)]
        return tuple(int(v) for v in found) if self.kind == "ints" else tuple(round(v, 12) for v in found)

    def manifest(self) -> dict[str, Any]:
        """JSON-ready; floats are texts."""
        said: dict[str, Any] = {"kind": self.kind}
        if self.kind == "choice":
            said["options"] = [_text(one) for one in self.options]
        else:
            said |= {"low": _text(self.low), "high": _text(self.high), "log": self.log}
            said |= {} if self.step is None else {"step": _text(self.step)}
        if self.conditions:
            said["when"] = {name: [_text(one) for one in values] for name, values in self.conditions}
        return said


def choice(*options: Any) -> Dimension:
    """One of some values: texts, numbers, booleans or None. Raises `DefinitionError` for none, or one twice."""
    if not options or len({repr(one) for one in options}) < len(options):
        raise DefinitionError(f"nothing to choose among {options}", hint='el.choice("linear", "trees")')
    if not all(one is None or isinstance(one, str | bool | int | float) for one in options):
        raise DefinitionError("a choice is among texts, numbers, booleans and None", hint="name what is larger")
    return Dimension("choice", options)


def ints(low: int, high: int, *, step: int = 1, log: bool = False) -> Dimension:
    """A whole number from `low` to `high`, both included; `log` for one whose factors matter."""
    if (
        not (isinstance(low, int) and isinstance(high, int))
        or low > high
        or step < 1
        or (log and (low < 1 or step > 1))
    ):
        raise DefinitionError(f"no whole numbers from {low} to {high} by {step}", hint="el.ints(2, 10)")
    return Dimension("ints", low=low, high=high, step=step, log=log)


def floats(low: float, high: float, *, step: float | None = None, log: bool = False) -> Dimension:
    """A number from `low` to `high`; `log` for one whose factors matter (a learning rate)."""
    right = math.isfinite(low) and math.isfinite(high) and low <= high and (step is None or step > 0)
    if not right or (log and (low <= 0 or step is not None)):
        raise DefinitionError(f"no numbers from {low} to {high}", hint="el.floats(1e-3, 1, log=True)")
    return Dimension("floats", low=low, high=high, step=step, log=log)


@dataclass(frozen=True, slots=True)
class Median:
    """End a trial whose best report so far is worse than the median of the finished trials' at the same step.

    The median stopping rule of Golovin et al., Google Vizier (2017).
    """

    startup: int = 5
    """Trials that must have finished before."""
    warmup: int = 0
    """Steps in which no trial is ended."""


@dataclass(frozen=True, slots=True)
class Hyperband:
    """Successive halving at several rates: at each rung only the best of those that came so far go on.

    Li et al., Hyperband (2018), in the asynchronous form of Li et al., A System for Massively Parallel Hyperparameter
    Tuning (2020). `least` and `most` are steps of `el.report`.
    """

    most: int
    """The step that a trial ends with when nothing ends it before."""
    least: int = 1
    """No trial is ended before this step."""
    factor: int = 3
    """One of so many goes on."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.least < 1 or self.most < self.least or self.factor < 2:
            raise DefinitionError(f"no rungs for {self}", hint="el.Hyperband(27): 1 <= least <= most, factor from 2")


@dataclass(frozen=True, slots=True)
class Search:
    """The best of many trials of a step; made by `el.search`."""

    space: Mapping[str, Dimension]
    metrics: tuple[tuple[str, str], ...]
    """What is measured and which way is better: (name, `max` or `min`), the most important first."""
    trials: int | None = None
    seconds: float | None = None
    money: float | None = None
    """In the unit in which the price of the step's compute is known."""
    sampler: str = "tpe"
    seed: int = 0
    at_once: int = 4
    """Trials of one wave: they run beside each other and are chosen without knowing of each other."""
    prune: Median | Hyperband | None = None
    tolerate: float = 0.5

    def manifest(self) -> dict[str, Any]:
        """JSON-ready: what makes two searches the same."""
        return {
            "space": {name: one.manifest() for name, one in self.space.items()},
            "metrics": [list(one) for one in self.metrics],
            "trials": self.trials,
            "seconds": None if self.seconds is None else _text(self.seconds),
            "money": None if self.money is None else _text(self.money),
            "sampler": self.sampler,
            "seed": self.seed,
            "at_once": self.at_once,
            "prune": None if self.prune is None else repr(self.prune),
            "tolerate": _text(self.tolerate),
        }

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every point of the space, in order; raises `DefinitionError` for a space without steps."""

        def below(left: list[str], chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
            if not left:
                yield dict(chosen)
                return
            name, rest = left[0], left[1:]
            if not self.space[name].active(chosen):
                yield from below(rest, chosen)
                return
            for value in self.space[name].values:
                yield from below(rest, {**chosen, name: value})

        yield from below(list(self.space), {})


def search(
    space: Mapping[str, Dimension],
    *,
    maximize: str | Sequence[str] = (),
    minimize: str | Sequence[str] = (),
    trials: int | None = None,
    within: str | float | None = None,
    money: float | None = None,
    sampler: str = "tpe",
    seed: int = 0,
    at_once: int = 4,
    prune: Median | Hyperband | None = None,
    tolerate: float = 0.5,
) -> Search:
    """Search the parameters of a step: `@project.step(search=el.search({"depth": el.ints(2, 9)}, maximize="auc"))`.

    The step gives a number, or a map that holds the metrics; its value becomes the best trial: `{"params": …,
    "values": …, "result": …, "trial": …, "front": […]}`. Several metrics give a Pareto front. The budget is `trials`,
    the time `within` ("2h") or `money`, whichever ends first; a grid ends by itself. The same search gives the same
    trials: `at_once` of them are chosen together, so it is a part of what is searched, not only of how. It fails when
    more than the share `tolerate` of its trials did.
    """
    up, down = ([one] if isinstance(one, str) else list(one) for one in (maximize, minimize))
    metrics = (*((name, "max") for name in up), *((name, "min") for name in down))
    seconds = seconds_of(within)
    if trials is None and seconds is None and money is None and sampler != "grid":
        trials = TRIALS
    made = Search(dict(space), metrics, trials, seconds, money, sampler, seed, at_once, prune, tolerate)
    _checked(made)
    return made


def _checked(made: Search) -> None:
    names = [name for name, _ in made.metrics]
    if not names or len(set(names)) < len(names):
        raise DefinitionError(f"a search needs to know what is better, not {names}", hint='maximize="roc_auc"')
    if made.sampler not in SAMPLERS:
        raise DefinitionError(f"{made.sampler!r} chooses no trials", hint="one of " + ", ".join(SAMPLERS))
    if made.prune is not None and len(names) > 1:
        raise DefinitionError("trials with several metrics are not ended early", hint="leave out prune=, or metrics")
    limits = (made.trials, made.money)
    if any(one is not None and one <= 0 for one in limits) or made.at_once < 1 or not 0 <= made.tolerate <= 1:
        raise DefinitionError(
            f"a search cannot be limited like this: trials={made.trials}, money={made.money}, at_once={made.at_once}, "
            f"tolerate={made.tolerate}",
            hint="trials, money and at_once above 0, tolerate from 0 to 1",
        )
    _checked_space(made.space)
    if made.sampler == "grid":
        next(made.grid())


def _checked_space(space: Mapping[str, Dimension]) -> None:
    if not space:
        raise DefinitionError("the space of the search is empty", hint='{"depth": el.ints(2, 9)}')
    before: set[str] = set()
    for name, one in space.items():
        if not isinstance(one, Dimension) or one.kind not in _KINDS:
            raise DefinitionError(f"{name} is searched in {one!r}", hint="el.choice(…), el.ints(…) or el.floats(…)")
        unknown = next((other for other, _ in one.conditions if other not in before), None)
        if unknown is not None:
            raise DefinitionError(
                f"{name} depends on {unknown!r}, which does not stand before it in the space",
                hint="name what decides first",
            )
        for other, values in one.conditions:
            options = space[other].options
            if space[other].kind == "choice" and (strange := [v for v in values if v not in options]):
                raise DefinitionError(f"{name} waits for {other}={strange[0]!r}, which it never has")
        before.add(name)


def _text(value: Any) -> Any:
    """Floats as exact text: identity holds none."""
    return repr(value) if isinstance(value, float) else value
