"""From "at most one false alarm a quarter" to a significance level, and the proof by replay.

An alarm needs two flagged windows of the last three, and ends after three quiet ones. Windows share one
reference, so their errors are correlated: the level is solved for with that correlation. Windows of real traffic
also differ by weekday and hour; `calibrate` replays the reference period to learn by how much, and states
the rate of false alarms that the monitor would then have had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, ndtr, ndtri

from everloop.core.clock import DAY, Micros
from everloop.watch.drift import Limits, column_tests
from everloop.watch.reference import Column, Counts, Reference
from everloop.watch.statistics import twosample

QUARTER: Micros = 91 * DAY
ENTER, OF, LEAVE = 2, 3, 3
"""Enter on 2 flagged windows of 3, leave after 3 quiet ones."""

_POINTS, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
_STRICTEST, _LOOSEST = 1e-6, 0.01
_KOLMOGOROV = ((0.5, 0.8276), (0.9, 1.2238))
"""Median and 90 % point of Kolmogorov's distribution."""

Step = Literal["ok", "suspect", "alarm", "quiet"]


def alpha(alarms_per_quarter: float, window: Micros, n: int, m: int) -> float:
    """The chance a window may have of being flagged falsely, over all its columns, to keep the budget.

    `n` and `m` are rows of window and reference. Two windows that are compared with the same reference are
    correlated by n / (n + m); the chance that both are flagged is that of a bivariate normal, and an alarm starts at
    about twice that chance a window. Never above 1 %: "suspect" should mean something too.
    """
    windows = QUARTER / window
    allowed = alarms_per_quarter / windows
    correlation = n / max(1, n + m)
    low, high = np.log(_STRICTEST), np.log(_LOOSEST)
    if (ENTER * both_flagged(_LOOSEST, correlation)) <= allowed:
        return _LOOSEST
    for _ in range(50):
        middle = (low + high) / 2
        if ENTER * both_flagged(float(np.exp(middle)), correlation) <= allowed:
            low = middle
        else:
            high = middle
    return float(np.exp(low))


def both_flagged(p: float, correlation: float) -> float:
    """Chance that two windows of this correlation both exceed their level `p` (Gauss-Hermite, 80 points)."""
    c = float(ndtri(1 - p))
    within = ndtr(-(c - np.sqrt(correlation) * _POINTS) / np.sqrt(1 - correlation))
    return float((_WEIGHTS * within**2).sum() / np.sqrt(2 * np.pi))


def advance(history: str) -> Step:
    """Where a cause stands after `history` (newest last; `1` flagged, `0` not), as far as windows decide it.

    `alarm`: 2 of the last 3 are flagged. `quiet`: the last 3 are not. `suspect`: something is flagged, not
    enough. `ok`: nothing flagged, fewer than three windows seen.
    """
    recent = history[-OF:]
    if recent.count("1") >= ENTER:
        return "alarm"
    if "1" in recent:
        return "suspect"
    return "quiet" if len(recent) >= LEAVE else "ok"


def alarms_started(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many alarms start in each row of `flags` (..., windows): entered by 2 of 3, left after 3 quiet ones."""
    padded = np.concatenate([np.zeros((*flags.shape[:-1], OF - 1), dtype=bool), flags], axis=-1)
    in_three = np.stack([padded[..., i : i + flags.shape[-1]] for i in range(OF)]).sum(0)
    on = np.zeros(flags.shape[:-1], dtype=bool)
    started = np.zeros(flags.shape[:-1], dtype=np.int64)
    for t in range(flags.shape[-1]):
        enters = ~on & (in_three[..., t] >= ENTER)
        started += enters
        on = (on | enters) & (in_three[..., t] > 0)
    return started


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the replay of the reference period found."""

    inflation: Mapping[str, float] = field(default_factory=dict)
    """By how much more than independent rows each column varies between windows (1: not at all)."""
    achieved: float | None = None
    """False alarms a quarter in the replay; None when the reference period is too short to tell."""
    flagged: float | None = None
    """Share of the replayed windows that were flagged."""
    windows: int = 0
    """Windows that were replayed."""

    def text(self, budget: float) -> str:
        """One line for the monitor's page."""
        if self.achieved is None:
            return f"budget {budget:g} a quarter; not calibrated ({self.windows} windows of the reference are too few)"
        return (
            f"budget {budget:g} a quarter; {self.achieved:.2f} achieved on the reference replayed "
            f"({self.windows} windows, {self.flagged:.1%} flagged)"
        )


LEAST_WINDOWS = 14
"""Fewer windows than two weeks of days say nothing about how windows differ."""


def calibrate(
    reference: Reference,
    windows: Sequence[Mapping[str, Counts]],
    limits: Limits,
    *,
    per_quarter: int,
    rng: np.random.Generator,
    replays: int = 400,
    block: int = 7,
) -> Calibration:
    """Replay the windows of the reference period in their order.

    Each window is compared with the rest of the reference (itself taken out). How far windows differ from the rest,
    against what independent rows would do, gives each column's inflation, estimated on one half of the
    windows (alternating blocks) and tried on the other, so the rate that is stated was not fitted. Quarters of
    `per_quarter` windows are then put together from blocks of `block` consecutive windows (Kuensch 1989: a block
    keeps the order within a week), and the alarms that start in them are counted.
    """
    if len(windows) < LEAST_WINDOWS:
        return Calibration(windows=len(windows))
    halves = (np.arange(len(windows)) // block) % 2
    flags = np.zeros(len(windows), dtype=bool)
    fitted = [_inflations(reference, [w for w, h in zip(windows, halves, strict=True) if h == half]) for half in (0, 1)]
    for i, window in enumerate(windows):
        flags[i] = _flagged(reference, window, limits, fitted[1 - halves[i]])
    starts = rng.integers(0, max(1, len(windows) - block + 1), size=(replays, -(-per_quarter // block)))
    order = (starts[..., None] + np.arange(block)).reshape(replays, -1)[:, :per_quarter] % len(windows)
    achieved = float(alarms_started(flags[order]).mean())
    both = _inflations(reference, windows)
    return Calibration(both, achieved, float(flags.mean()), len(windows))


def rest(column: Column, window: Counts) -> Column:
    """The column's reference without the rows of one of its own windows."""
    counts = column.counts
    cells = np.maximum(counts.cells - window.cells, 0)
    left = Counts(
        cells,
        max(0, counts.nulls - window.nulls),
        counts.invalid,
        counts.low,
        counts.high,
        0,
        counts.quantiles,
    )
    return Column(column.name, column.kind, left, column.edges, column.levels)


def _flagged(
    reference: Reference, window: Mapping[str, Counts], limits: Limits, inflation: Mapping[str, float]
) -> bool:
    tests = [
        test
        for name, counts in window.items()
        for test in column_tests(rest(reference.columns[name], counts), counts, limits, inflation.get(name, 1.0))
    ]
    adjusted = twosample.holm([t.p for t in tests]) if tests else np.empty(0)
    return any(p <= limits.alpha and t.size >= 1 for t, p in zip(tests, adjusted, strict=True))


def _inflations(reference: Reference, windows: Sequence[Mapping[str, Counts]]) -> dict[str, float]:
    found = {}
    for name, column in reference.columns.items():
        seen = [w[name] for w in windows if name in w and w[name].present]
        if len(seen) >= LEAST_WINDOWS // 2:
            found[name] = round(max(1.0, _inflation(column, seen)), 3)
    return found


def _inflation(column: Column, windows: Sequence[Counts]) -> float:
    """How much larger the squared distances are than independent rows give, at their median and 90 % point."""
    cells = np.stack([w.cells for w in windows])
    others = np.maximum(column.counts.cells - cells, 0)
    if column.kind == "numeric":
        distance, _ = twosample.ks(others, cells)
        scaled = np.sqrt(twosample.size(cells.sum(-1), others.sum(-1))) * distance
        return max(float(np.quantile(scaled, q) / k) ** 2 for q, k in _KOLMOGOROV)
    # p-values turned back into chi-squared of one degree are comparable whatever was pooled.
    _, p = twosample.chi2(others, cells)
    scores = chdtri(1, np.clip(p, 1e-300, 1.0))
    return max(float(np.quantile(scores, q) / chdtri(1, 1 - q)) for q in (0.5, 0.9))
