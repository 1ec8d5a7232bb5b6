"""Named reasons why a column moved that are faults of a sensor, not changes of the world.

A model retrained on a broken column learns the fault, so every diagnosis here blocks retraining. Each demands
strong evidence: a fault that is overlooked shows as drift all the same, a wrong name would hide real drift.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from everloop.watch.reference import SCORE, Column, Counts
from everloop.watch.statistics.twosample import Floats

Fault = Literal["null spike", "constant column", "unit change", "renamed level", "wrong type"]

_LEAST_ROWS = 50
_NULL_JUMP = 0.2
_IMPOSSIBLE = 1e-9
_UNITS: tuple[tuple[str, float, float], ...] = (
    ("x1000", 1000.0, 0.0),
    ("x0.001", 0.001, 0.0),
    ("x100", 100.0, 0.0),
    ("x0.01", 0.01, 0.0),
    ("x60 (minutes to seconds, or hours to minutes)", 60.0, 0.0),
    ("÷60 (seconds to minutes, or minutes to hours)", 1 / 60.0, 0.0),
    ("x3600 (hours to seconds)", 3600.0, 0.0),
    ("÷3600 (seconds to hours)", 1 / 3600.0, 0.0),
    ("°C to °F", 1.8, 32.0),
    ("°F to °C", 5 / 9, -160 / 9),
    ("°C to K", 1.0, 273.15),
    ("K to °C", 1.0, -273.15),
)
"""Conversions that no season makes. Factors such as 1.6 (miles to km) or 2.54 are not among them: delays and
demand shrink and grow by as much by themselves, and a false diagnosis keeps a model from being retrained."""
_FAR = 0.2
"""How far apart (Kolmogorov-Smirnov) the columns must be for a change of unit to be worth naming."""


_NEAR, _SLACK_NEAR, _SLACK_FAR = 10.0, 0.1, 0.4


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What went wrong with a column, in words that name the values."""

    fault: Fault
    text: str
    bare: str
    """The text without any value of the column, for whoever may not see them."""


def diagnose(column: Column, window: Counts, inflation: float = 1.0) -> Diagnosis | None:
    """The fault that explains this window of a column, or None; the most certain one first.

    `inflation` (see `budget.calibrate`) says how far rows of a window repeat each other: a dry week is no stuck sensor.
    """
    if window.rows < _LEAST_ROWS:
        return None
    return (
        _wrong_type(window)
        or _null_spike(column, window, inflation)
        or _constant(column, window, inflation)
        or (_renamed(column, window) if column.kind == "levels" else _rescaled(column, window))
    )


def _wrong_type(window: Counts) -> Diagnosis | None:
    if window.invalid == 0:
        return None
    text = f"{window.invalid:,} of {window.rows:,} values are no finite numbers, as they were in training"
    return Diagnosis("wrong type", text, text)


def _null_spike(column: Column, window: Counts, inflation: float) -> Diagnosis | None:
    share, usual = window.nulls / window.rows, column.null_share
    # A column that is often empty may well be emptier for a while: demand that the filled part lost a third as well.
    if share - usual < _NULL_JUMP or (1 - share) > (1 - usual) * 2 / 3:
        return None
    if share - usual < 4 * float(np.sqrt(0.25 * inflation / window.rows)):
        return None
    text = f"{share:.0%} of the values are missing; {usual:.1%} were in training"
    return Diagnosis("null spike", text, text)


def _constant(column: Column, window: Counts, inflation: float) -> Diagnosis | None:
    if window.present < _LEAST_ROWS:
        return None
    if column.kind == "levels":
        distinct = int(np.count_nonzero(window.cells[:-1])) + len(window.unseen)
        value = _only_level(column, window)
    else:
        distinct = 1 if window.low == window.high else 2
        value = f"{window.low:g}"
    if distinct != 1:
        return None
    usual = column.counts.cells.max() / max(1, column.counts.present)
    if column.kind != "levels" and column.counts.low == column.counts.high:
        return None
    # So many equal values in a row by chance: the share of the most frequent cell to the power of the rows.
    if usual ** (window.present / inflation) > _IMPOSSIBLE:
        return None
    text = f"every one of {window.present:,} values is"
    return Diagnosis("constant column", f"{text} {value}", f"{text} the same")


def _only_level(column: Column, window: Counts) -> str:
    if window.unseen:
        return repr(next(iter(window.unseen)))
    return repr(column.levels[int(np.argmax(window.cells[:-1]))])


def _rescaled(column: Column, window: Counts) -> Diagnosis | None:
    """A score has no unit that somebody could have mistaken: when it moves, the model's inputs did."""
    return None if column.name == SCORE else _unit_change(column, window)


def _unit_change(column: Column, window: Counts) -> Diagnosis | None:
    if window.present < _LEAST_ROWS or column.counts.low == column.counts.high:
        return None
    before, now = column.counts.quantiles, window.quantiles
    apart = _distance(before, now)
    if apart < _FAR:
        return None
    rest, name, scale = min((_distance(before * scale + shift, now), name, scale) for name, scale, shift in _UNITS)
    # What remains must be noise: the critical distance at 1e-3 of the window's size, and the grid's own.
    noise = 1.95 / np.sqrt(min(window.present, column.counts.present)) + 1 / before.size
    # A scale near 1 comes with an offset here, which leaves little room; a factor of 1,000 leaves more.
    slack = _SLACK_NEAR if 1 / _NEAR < abs(scale) < _NEAR else _SLACK_FAR
    wider = _spread(now) / max(_spread(before), 1e-300)
    if rest > noise or rest > apart / 3 or not 1 - slack < wider / abs(scale) < 1 + slack:
        return None
    old, new = np.quantile(before, (0.25, 0.75)), np.quantile(now, (0.25, 0.75))
    text = f"looks like {name}: the middle half was {old[0]:.4g}..{old[1]:.4g} and is {new[0]:.4g}..{new[1]:.4g}"
    return Diagnosis("unit change", text, f"looks like {name}")


def _spread(quantiles: Floats) -> float:
    """Distance of the 10 % and 90 % points: its noise is a few per cent with some hundred rows."""
    low, high = np.quantile(quantiles, (0.1, 0.9))
    return float(high - low)


def _distance(a: Floats, b: Floats) -> float:
    """Kolmogorov-Smirnov distance of two sets of equally spaced quantiles."""
    x, y = np.sort(a), np.sort(b)
    both = np.concatenate([x, y])
    # Equal to nine digits counts as equal: scaling moves the last bits.
    slack = 1e-9 * np.maximum(1e-300, np.abs(both))
    right = (
        np.searchsorted(x, both + slack, side="right") / x.size
        - np.searchsorted(y, both + slack, side="right") / y.size
    )
    return float(np.abs(right).max())


def _renamed(column: Column, window: Counts) -> Diagnosis | None:
    if window.present < _LEAST_ROWS or not window.unseen:
        return None
    usual = column.counts.cells[:-1] / max(1, column.counts.present)
    now = window.cells[:-1] / window.present
    pairs: list[str] = []
    candidates = dict(window.unseen)
    for place in np.flatnonzero((usual >= 0.03) & (now < usual / 10)):
        share = float(usual[place])
        # A third more or less, or what the window's size lets it vary.
        room = max(share / 3, 3 * float(np.sqrt(share * (1 - share) / window.present)))
        near = {level: abs(count / window.present - share) for level, count in candidates.items()}
        best = min(near, key=lambda level: near[level], default=None)
        if best is not None and near[best] <= room:
            pairs.append(f"{column.levels[place]!r} is now {best!r}")
            candidates.pop(best)
    if not pairs:
        return None
    bare = f"{len(pairs)} of the values (same share under a new name)"
    return Diagnosis("renamed level", "; ".join(pairs) + " (same share under a new name)", bare)
