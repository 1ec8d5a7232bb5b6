"""Scales: where a value lies along an axis, from 0 to 1, and the marks of that axis."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from everloop.server.web.charts.ticks import (
    Tick,
    duration_ticks,
    linear_ticks,
    log_ticks,
    nice_step,
    stepped_ticks,
    time_ticks,
)

Kind = Literal["linear", "whole", "log", "time", "duration", "band"]
"""`whole`: numbers of steps or versions; `time`: microseconds UTC; `duration`: seconds; `band`: one place a text."""
Span = tuple[float, float]
LARGEST = 1e290
"""Values beyond it are shown as gaps: the arithmetic of an axis would overflow."""
_LATEST = 253_370_764_800_000_000
"""The year 9999 begins: later times, and those before 1970, have no place."""
_MARKS: dict[str, Callable[[float, float, int], tuple[Tick, ...]]] = {
    "linear": linear_ticks,
    "whole": lambda low, high, wanted: linear_ticks(low, high, wanted, whole=True),
    "log": log_ticks,
    "time": time_ticks,
    "duration": duration_ticks,
}


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`, marked at `ticks`; of kind `band`, `labels` names the places 0, 1, 2 and so on."""

    kind: Kind
    low: float
    high: float
    ticks: tuple[Tick, ...]
    labels: tuple[str, ...] = field(default=())

    def at(self, value: float) -> float:
        """The share of the axis at which `value` lies; outside of 0 to 1 where it is off the axis."""
        if self.kind == "log":
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(value) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)

    def holds(self, value: object) -> bool:
        """Whether `value` has a place on this kind of axis."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        least, most = {"log": (1 / LARGEST, LARGEST), "time": (0.0, _LATEST)}.get(self.kind, (-LARGEST, LARGEST))
        return math.isfinite(value) and least <= value <= most


def position_scale(values: Iterable[float], kind: Kind = "linear", span: Span | None = None, wanted: int = 6) -> Scale:
    """An axis of positions: exactly as long as the values reach, or as `span` says."""
    low, high = span or _reach(values, kind)
    low, high = _apart(low, high, kind)
    return Scale(kind, low, high, _marks(kind, low, high, wanted))


def value_scale(values: Iterable[float], kind: Kind = "linear", *, zero: bool = False, wanted: int = 5) -> Scale:
    """An axis of values: reaches round marks beyond the least and the greatest; from zero on where asked."""
    low, high = _reach(values, kind)
    if zero and kind != "log":
        low, high = min(low, 0.0), max(high, 0.0)
    low, high = _apart(low, high, kind)
    if kind == "log":
        room = (math.log(high) - math.log(low)) * 0.03
        low, high = math.exp(math.log(low) - room), math.exp(math.log(high) + room)
    elif kind in ("linear", "whole"):
        step = nice_step(high - low, wanted, whole=kind == "whole")
        slack = 0.0 if zero else step * 0.12  # a curve must not lie on the edge
        begin = math.floor((low - slack) / step) * step
        end = math.ceil((high + slack) / step) * step
        low = max(begin, 0.0) if low >= 0 else begin  # nothing is below zero that never was
        high = min(end, 0.0) if high <= 0 else end
        return Scale(kind, low, high, stepped_ticks(low, high, step))
    return Scale(kind, low, high, _marks(kind, low, high, wanted))


def band_scale(labels: Sequence[str]) -> Scale:
    """One place for each text, in the order given."""
    ticks = tuple(Tick(index, label) for index, label in enumerate(labels))
    return Scale("band", -0.5, max(len(labels), 1) - 0.5, ticks, tuple(labels))


def _marks(kind: Kind, low: float, high: float, wanted: int) -> tuple[Tick, ...]:
    return _MARKS[kind](low, high, wanted)


def _reach(values: Iterable[float], kind: Kind) -> Span:
    probe = Scale(kind, 0.0, 1.0, ())
    held = [float(value) for value in values if probe.holds(value)]
    if not held:
        return (1.0, 10.0) if kind == "log" else (0.0, 1.0)
    return min(held), max(held)


def _apart(low: float, high: float, kind: Kind) -> Span:
    """Bounds that differ enough to divide by, and that the kind of axis can say."""
    if kind == "log":
        return (low, high) if high - low > low * 1e-4 else (low / 2, high * 2)
    if kind == "time":
        low, high = max(low, 0.0), min(max(high, 0.0), float(_LATEST))
        return (low, high) if high - low >= 1000 else (max(low - 500_000, 0.0), min(low + 500_000, float(_LATEST)))
    size = max(abs(low), abs(high))
    if high - low > size * 1e-9 and high - low > 1e-290:
        return low, high
    wide = max(1.0, size * 1e-6) if kind == "whole" else size * 0.05
    wide = wide or 0.5
    return low - wide, high + wide
