"""From "at most one false alarm a quarter" to a significance level, and the proof by replay.

An alarm needs two flagged windows of the last three, and ends after three quiet ones. Windows share one
reference, so their errors are correlated: the level is solved for with that correlation. Windows of real traffic
also differ by weekday and hour; `calibrate` replays the reference period to learn by how much, and states
the rate of false alarms that the monitor would then have had.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from everloop.core.clock import DAY, Micros
from everloop.watch.definitions import ENTER, OF
from everloop.watch.diagnoses import diagnose
from everloop.watch.drift import Limits, column_tests
from everloop.watch.reference import Column, Counts, Reference
from everloop.watch.statistics import twosample
from everloop.watch.statistics.special import chi_squared_exceeded, normal_below, normal_quantile

QUARTER: Micros = 91 * DAY

_POINTS, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
_STRICTEST, _LOOSEST = 1e-6, 0.01
_KOLMOGOROV = ((0.5, 0.8276), (0.9, 1.2238))
"""Median and 90 % point of Kolmogorov's distribution."""
_WIDER, _WIDENINGS = 1.6, 16


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
    c = normal_quantile(1 - p)
    within = normal_below(-(c - np.sqrt(correlation) * _POINTS) / np.sqrt(1 - correlation))
    return float((_WEIGHTS * within**2).sum() / np.sqrt(2 * np.pi))


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
    budget: float,
    per_quarter: int,
    rng: np.random.Generator,
    replays: int = 400,
    block: int = 7,
) -> Calibration:
    """Replay the windows of the reference period in their order, until they keep the budget.

    Each window is compared with the rest of the reference (itself taken out). How far windows differ from the rest,
    against what independent rows would do, gives each column's inflation, estimated on one half of the windows
    (alternating blocks) and tried on the other. Quarters of `per_quarter` windows are then put together from blocks of
    `block` consecutive windows (Kuensch 1989: a block keeps the order within a week), and the alarms that start in
    them are counted. While there are more than `budget`, the column to blame most is widened: rain comes in bursts
    that no factor of the middle foretells. What is left over is stated as it is.
    """
    if len(windows) < LEAST_WINDOWS:
        return Calibration(windows=len(windows))
    halves = (np.arange(len(windows)) // block) % 2
    fitted = [_inflations(reference, [w for w, h in zip(windows, halves, strict=True) if h == half]) for half in (0, 1)]
    others = [rest_of(reference, window) for window in windows]
    widened: dict[str, float] = {}

    def tried(i: int, name: str) -> list[tuple[float, bool]]:
        inflation = fitted[1 - halves[i]].get(name, 1.0) * widened.get(name, 1.0)
        return _tried(others[i][name], windows[i][name], limits, inflation)

    tests = [{name: tried(i, name) for name in window} for i, window in enumerate(windows)]
    starts = rng.integers(0, max(1, len(windows) - block + 1), size=(replays, -(-per_quarter // block)))
    order = (starts[..., None] + np.arange(block)).reshape(replays, -1)[:, :per_quarter] % len(windows)
    for _ in range(_WIDENINGS):
        blamed = [_blamed(found, limits) for found in tests]
        flags = np.array([bool(names) for names in blamed])
        achieved = float(alarms_started(flags[order]).mean())
        if achieved <= budget:
            break
        worst = Counter(name for names in blamed for name in names).most_common(1)[0][0]
        widened[worst] = widened.get(worst, 1.0) * _WIDER
        for i, found in enumerate(tests):
            if worst in found:
                found[worst] = tried(i, worst)
    whole = _inflations(reference, windows)
    inflation = {name: round(value * widened.get(name, 1.0), 3) for name, value in whole.items()}
    return Calibration(inflation, achieved, float(flags.mean()), len(windows))


def rest_of(reference: Reference, window: Mapping[str, Counts]) -> dict[str, Column]:
    """The columns of the reference without the rows of one of its own windows."""
    return {name: rest(reference.columns[name], counts) for name, counts in window.items()}


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


def _tried(column: Column, window: Counts, limits: Limits, inflation: float) -> list[tuple[float, bool]]:
    """(p-value, whether the effect counts) of every test; a fault that is named counts as certain."""
    found = [(t.p, t.size >= 1) for t in column_tests(column, window, limits, inflation)]
    return [*found, (0.0, True)] if diagnose(column, window, inflation) else found


def _blamed(tests: Mapping[str, list[tuple[float, bool]]], limits: Limits) -> list[str]:
    """The columns that flag a window."""
    listed = [(name, p, counts) for name, found in tests.items() for p, counts in found]
    adjusted = twosample.holm([p for _, p, _ in listed]) if listed else np.empty(0)
    flagged = {name for (name, _, counts), p in zip(listed, adjusted, strict=True) if counts and p <= limits.alpha}
    return sorted(flagged)


def _inflations(reference: Reference, windows: Sequence[Mapping[str, Counts]]) -> dict[str, float]:
    found = {}
    for name, column in reference.columns.items():
        seen = [w[name] for w in windows if name in w and w[name].present]
        if len(seen) >= LEAST_WINDOWS // 2:
            found[name] = round(max(1.0, _inflation(column, seen)), 3)
    return found


def _inflation(column: Column, windows: Sequence[Counts]) -> float:
    """How much larger the squared distances are than independent rows give, at their median and 90 % point.

    Of values and of nulls: a weather station that is silent is silent for hours.
    """
    cells = np.stack([w.cells for w in windows])
    others = np.maximum(column.counts.cells - cells, 0)
    nulls, sizes = np.array([w.nulls for w in windows]), np.array([w.rows for w in windows])
    left = np.maximum(column.counts.nulls - nulls, 0), np.maximum(column.counts.rows - sizes, 1)
    silent = _overdispersion(twosample.proportions(*left, nulls, sizes)[1])
    if column.kind == "numeric":
        distance, _ = twosample.ks(others, cells)
        scaled = np.sqrt(twosample.size(cells.sum(-1), others.sum(-1))) * distance
        return max(silent, *(float(np.quantile(scaled, q) / k) ** 2 for q, k in _KOLMOGOROV))
    return max(silent, _overdispersion(twosample.chi2(others, cells)[1]))


def _overdispersion(p: NDArray[np.float64]) -> float:
    """p-values turned back into chi-squared of one degree (comparable whatever was pooled), over what is usual."""
    scores = chi_squared_exceeded(np.clip(p, 1e-300, 1.0))
    return max(float(np.quantile(scores, q) / chi_squared_exceeded(1 - q)) for q in (0.5, 0.9))
