"""Which columns of a window differ from training: test, effect, rules and named faults, one verdict a column.

The statistic goes by a column's type (the table in `docs/` on monitoring): Kolmogorov-Smirnov with Wasserstein-1
in robust deviations for numbers, a two-sample chi-squared with pooling for levels, two proportions for nulls, a bound
by Good and Turing for values never seen. Significance (Holm over everything tested in the window) and a
minimum effect are both needed, always; a window too small to show a moderate shift says "cannot tell".
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from everloop.watch.diagnoses import Diagnosis, diagnose
from everloop.watch.reference import Column, Counts, Reference
from everloop.watch.statistics import twosample

State = Literal["ok", "drift", "fault", "cannot tell"]
What = Literal["distribution", "nulls", "unseen", "range"]

_BLIND = 0.5
"""A window that would miss a shift of half a deviation is too small to say "ok"."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts: significance over the whole window, and the smallest effects worth anybody's time."""

    alpha: float = 0.01
    """Chance that an unchanged window is flagged, over all columns together."""
    shift: float = 0.1
    """Wasserstein-1 in robust standard deviations (IQR / 1.349)."""
    association: float = 0.05
    """Cramer's V for equal sizes: 5 points for two even levels."""
    share: float = 0.01
    """Nulls, unseen values, values out of range: one point."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One test of one column: how surprising, how large."""

    column: str
    what: What
    p: float
    effect: float
    least: float
    """The minimum effect."""
    unit: str
    """What the effect is in: "sd", "V" or "share"."""
    text: str
    bare: str
    """The text without any value of the column, for whoever may not see them."""
    adjusted: float = 1.0
    """Holm's p-value over all tests of the window."""

    @property
    def size(self) -> float:
        """The effect as a multiple of the least that counts; comparable between columns."""
        return abs(self.effect) / self.least


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """The verdict on one column."""

    column: str
    state: State
    text: str
    bare: str
    """The text without any value of the column."""
    severity: float
    """The largest effect in multiples of the least one that counts; 0 when ok."""
    tests: tuple[Comparison, ...]
    diagnosis: Diagnosis | None = None

    def masked(self) -> "ColumnDrift":
        """The same verdict in words without values: of a column whose values somebody may not see."""
        fault = self.diagnosis and replace(self.diagnosis, text=self.diagnosis.bare)
        tests = tuple(replace(test, text=test.bare) for test in self.tests)
        return replace(self, text=self.bare, tests=tests, diagnosis=fault)

    def body(self) -> dict[str, Any]:
        """JSON-ready, for reports."""
        return {
            "column": self.column,
            "state": self.state,
            "text": self.text,
            "bare": self.bare,
            "severity": round(self.severity, 3),
            "fault": self.diagnosis.fault if self.diagnosis else None,
            "tests": [
                {
                    "what": t.what,
                    "p": float(f"{t.p:.3g}"),
                    "adjusted": float(f"{t.adjusted:.3g}"),
                    "effect": float(f"{t.effect:.4g}"),
                    "least": t.least,
                    "unit": t.unit,
                    "text": t.text,
                }
                for t in self.tests
            ],
        }


def compare(
    reference: Reference,
    window: Mapping[str, Counts],
    limits: Limits | None = None,
    inflation: Mapping[str, float] | None = None,
) -> tuple[ColumnDrift, ...]:
    """Compare a window with the reference, worst column first.

    `window` is what `reference.count` gave. `inflation` (from `budget.calibrate`) says by how much more than
    independent rows a column varies from day to day; its tests lose that much of their sample.
    """
    bounds, inflated = limits or Limits(), inflation or {}
    tests = [
        test
        for name, counts in window.items()
        for test in column_tests(reference.columns[name], counts, bounds, inflated.get(name, 1.0))
    ]
    adjusted = twosample.holm([t.p for t in tests]) if tests else np.empty(0)
    by_column: dict[str, list[Comparison]] = {name: [] for name in window}
    for test, p in zip(tests, adjusted, strict=True):
        by_column[test.column].append(_with(test, float(p)))
    verdicts = [
        _verdict(
            reference.columns[name],
            counts,
            tuple(by_column[name]),
            bounds,
            columns=len(window),
            inflation=inflated.get(name, 1.0),
        )
        for name, counts in window.items()
    ]
    return tuple(sorted(verdicts, key=lambda v: (-v.severity, v.column)))


def column_tests(column: Column, window: Counts, limits: Limits, inflation: float = 1.0) -> tuple[Comparison, ...]:
    """Every test that suits the column's type, not yet adjusted for how many there are."""
    found = [_nulls(column, window, limits, inflation)]
    if window.present:
        found.append(distribution(column, window, limits, inflation))
        if column.kind == "levels":
            found.append(_unseen(column, window, limits))
        else:
            found.append(_range(column, window, limits))
    return tuple(found)


def distribution(column: Column, window: Counts, limits: Limits, inflation: float = 1.0) -> Comparison:
    """The test of the values' distribution."""
    if column.kind == "numeric":
        _, p = twosample.ks(column.counts.cells, window.cells, inflation)
        effect = float(shift(column, window.cells))
        before, now = column.quantile(0.5)[0], float(np.median(window.quantiles))
        bare = f"moved by {effect:.2f} sd"
        text = f"{bare}; median {before:.4g} → {now:.4g}"
        return Comparison(column.name, "distribution", float(p), effect, limits.shift, "sd", text, bare)
    strength, p = twosample.chi2(column.counts.cells, window.cells, inflation)
    bare = f"V = {float(strength):.2f}"
    text = f"{bare}; {_most_moved(column, window)}"
    return Comparison(column.name, "distribution", float(p), float(strength), limits.association, "V", text, bare)


def shift(column: Column, cells: Any) -> Any:
    """Wasserstein-1 between reference and `cells` (..., cells), in the reference's robust deviations."""
    return twosample.wasserstein(column.counts.cells, cells, column.edges) / robust_deviation(column)


def robust_deviation(column: Column) -> float:
    """IQR / 1.349, a standard deviation where the column is normal; wider quantiles where half of it is one value."""
    for low, high, width in ((0.25, 0.75, 1.349), (0.1, 0.9, 2.563), (0.02, 0.98, 4.107)):
        a, b = column.quantile(low, high)
        if b > a:
            return float(b - a) / width
    return max(float(column.counts.high - column.counts.low), 1e-12)


def _nulls(column: Column, window: Counts, limits: Limits, inflation: float) -> Comparison:
    counts = column.counts
    difference, p = twosample.proportions(
        round(counts.nulls / inflation),
        round(counts.rows / inflation),
        round(window.nulls / inflation),
        round(window.rows / inflation),
    )
    text = f"nulls {column.null_share:.1%} → {window.nulls / max(1, window.rows):.1%}"
    return Comparison(column.name, "nulls", float(p), float(difference), limits.share, "share", text, text)


def _unseen(column: Column, window: Counts, limits: Limits) -> Comparison:
    singles = int((column.counts.cells[:-1] == 1).sum())
    # Levels beyond the most frequent ones share the last cell with unseen ones; then nothing is known to be new.
    hits = 0 if column.counts.cells[-1] else int(window.cells[-1])
    share, p = twosample.unseen(singles, column.counts.present, hits, window.present)
    names = ", ".join(repr(n) for n, _ in sorted(window.unseen.items(), key=lambda item: -item[1])[:3])
    bare = f"{share:.1%} of the values were never seen in training" if hits else "no new values"
    return Comparison(
        column.name, "unseen", p, share, limits.share, "share", f"{bare} ({names})" if hits else bare, bare
    )


def _range(column: Column, window: Counts, limits: Limits) -> Comparison:
    # The next value is beyond the smallest and largest of m with probability 2 / (m + 1).
    share, p = twosample.unseen(2, column.counts.present, window.outside, window.present)
    low, high = column.counts.low, column.counts.high
    if not window.outside:
        return Comparison(column.name, "range", p, share, limits.share, "share", "within range", "within range")
    bare = f"{share:.1%} well outside"
    text = f"{bare} {low:g}..{high:g}: {window.low:g}..{window.high:g}"
    return Comparison(column.name, "range", p, share, limits.share, "share", text, f"{bare} the range of training")


def _most_moved(column: Column, window: Counts) -> str:
    before = column.counts.cells / max(1, column.counts.present)
    now = window.cells / max(1, window.present)
    place = int(np.argmax(np.abs(now - before)))
    if column.kind == "levels":
        name = column.levels[place] if place < len(column.levels) else "other values"
    else:
        name = f"{column.edges[place]:g}" if place < column.edges.size else f"{column.counts.high:g}"
    return f"{name} {before[place]:.1%} → {now[place]:.1%}"


def _with(test: Comparison, adjusted: float) -> Comparison:
    return replace(test, adjusted=adjusted)


def _verdict(
    column: Column,
    window: Counts,
    tests: tuple[Comparison, ...],
    limits: Limits,
    *,
    columns: int,
    inflation: float,
) -> ColumnDrift:
    fired = sorted((t for t in tests if t.adjusted <= limits.alpha and t.size >= 1), key=lambda t: -t.size)
    fault = diagnose(column, window, inflation)
    if fault is not None:
        severity = max([10.0, *(t.size for t in fired)])
        text, bare = f"{fault.fault}: {fault.text}", f"{fault.fault}: {fault.bare}"
        return ColumnDrift(column.name, "fault", text, bare, severity, tests, fault)
    if fired:
        text, bare = "; ".join(t.text for t in fired), "; ".join(t.bare for t in fired)
        return ColumnDrift(column.name, "drift", text, bare, fired[0].size, tests)
    visible = twosample.smallest_visible_shift(window.rows, column.counts.rows, columns, limits.alpha, inflation)
    if visible > _BLIND:
        text = f"cannot tell (n={window.rows:,}, smallest visible shift={visible:.2f} sd)"
        return ColumnDrift(column.name, "cannot tell", text, text, 0.0, tests)
    return ColumnDrift(column.name, "ok", "as in training", "as in training", 0.0, tests)
