"""Whether a revision's answers, feedback and labels break a guardrail, against those of the champion. Pure.

Each guardrail is looked at again and again, so its bounds hold at every moment at once (`rollout.sequential`): a
revision that is as good as the champion is turned back with a chance of 1 % at most, by all its guardrails together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from everloop.core.clock import Micros, iso
from everloop.serving.rollout.sequential import Interval, Sums, apart, interval, radius

ALPHA = 0.01
MOST_IDS = 100
"""Predictions that evidence names; how many there were is told beside."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What is known of one revision's predictions for one guardrail."""

    ids: tuple[str, ...] = ()
    """Of its predictions, the newest last."""
    values: tuple[float | str, ...] = ()
    """One for each prediction: all numbers, or all texts; none where only their sums are known."""
    counted: Sums = field(default_factory=Sums)
    """What is known as sums, beside."""

    @property
    def rows(self) -> int:
        """How many values."""
        return len(self.values) + self.counted.count

    @property
    def sums(self) -> Sums:
        """Of its numbers; texts are left out."""
        return Sums.of(v for v in self.values if isinstance(v, int | float)).plus(self.counted)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one guardrail looks like now."""

    guard: str
    """`drift`, `business <metric>`, `quality <metric>`."""
    value: float
    """How far from the champion, in the direction of harm."""
    sure: float
    """At least how far, surely."""
    limit: float
    rows: int
    champion_rows: int
    least: int
    start: Micros
    until: Micros
    ids: tuple[str, ...] = ()
    """The newest predictions among its rows."""

    @property
    def enough(self) -> bool:
        """Whether there are rows enough to conclude anything."""
        return min(self.rows, self.champion_rows) >= self.least

    @property
    def breached(self) -> bool:
        """Whether it is surely beyond its limit."""
        return self.enough and self.sure > self.limit

    @property
    def reason(self) -> str:
        """For people."""
        return (
            f"{self.guard}: {self.value:.4g} from the champion, at least {self.sure:.4g} surely, "
            f"{self.limit:.4g} may be ({self.rows:,} and {self.champion_rows:,} values)"
        )

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "guard": self.guard,
            "value": self.value + 0.0,  # never -0
            "sure": self.sure if self.enough else None,
            "limit": self.limit,
            "rows": self.rows,
            "champion_rows": self.champion_rows,
            "least": self.least,
            "window": [iso(self.start), iso(self.until)],
            "breached": self.breached,
            "predictions": list(self.ids),
        }


def name_of(guard: Mapping[str, Any]) -> str:
    """What people call a guardrail."""
    return f"{guard['guard']} {guard['metric']}" if "metric" in guard else str(guard["guard"])


def judge(
    guard: Mapping[str, Any], its: Sample, champion: Sample, window: tuple[Micros, Micros], alpha: float = ALPHA
) -> Finding:
    """One guardrail (its manifest) of a revision against the champion."""
    if guard["guard"] == "drift":
        value = apart(its.values, champion.values)
        sure = max(value - radius(len(its.values), alpha / 2) - radius(len(champion.values), alpha / 2), 0.0)
        limit = float(guard["at_most"])
    else:
        found = harm(guard["better"], champion.sums, its.sums, alpha)
        value, sure, limit = found.difference, found.low, float(guard["worse"])
    start, until = window
    return Finding(
        name_of(guard),
        value,
        max(sure, -1e300),
        limit,
        its.rows,
        champion.rows,
        guard["least"],
        start,
        until,
        its.ids[-MOST_IDS:],
    )


def harm(better: str, champion: Sums, its: Sums, alpha: float) -> Interval:
    """By how much the mean is worse than the champion's."""
    found = interval(champion, its, alpha)
    return found if better == "lower" else Interval(-found.high, -found.difference, -found.low)


def loss(metric: str, answer: float | str, label: Any) -> float | None:
    """What a label says of an answer; None when the two do not compare."""
    if isinstance(label, bool):
        label = float(label)
    if metric == "accuracy":
        if isinstance(answer, str) or isinstance(label, str):
            return float(str(answer) == str(label))
        if not isinstance(label, int | float):
            return None
        chance = 0 <= answer <= 1 and label in (0, 1)
        return float((answer >= 0.5) == (label >= 0.5) if chance else answer == label)
    if isinstance(answer, str) or not isinstance(label, int | float):
        return None
    return abs(answer - label) if metric == "absolute" else float((answer - label) ** 2)


def answer_of(values: Sequence[Any]) -> float | str | None:
    """One value for a row's outputs: the first number (of two class probabilities the last), or else the first text."""
    text: str | None = None
    for value in values:
        one = value[-1] if isinstance(value, list) and 1 <= len(value) <= 2 else value
        if isinstance(one, bool | int | float):
            return float(one) if one == one else None  # noqa: PLR0124 - NaN
        if isinstance(one, str) and text is None:
            text = one
    return text
