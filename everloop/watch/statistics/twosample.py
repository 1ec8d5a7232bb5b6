"""Two-sample tests on counts, vectorised over any leading axes, with the effect beside the p-value.

`reference` and `window` are counts in the same cells, shape (..., cells); they broadcast. Both are samples:
a reference is never taken as exact, which is what makes one-sample drift tests raise false alarms.
"""

from collections.abc import Sequence
from math import log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from everloop.watch.statistics.special import (
    binomial_above,
    binomial_up_to,
    chi_squared_above,
    kolmogorov_above,
    normal_below,
)

Floats = NDArray[np.float64]

_LEAST_EXPECTED = 5.0


def size(n: ArrayLike, m: ArrayLike) -> Floats:
    """Effective size of two samples, n m / (n + m)."""
    rows, others = np.asarray(n, dtype=np.float64), np.asarray(m, dtype=np.float64)
    return np.asarray(rows * others / np.maximum(1.0, rows + others))


def ks(reference: ArrayLike, window: ArrayLike, inflation: ArrayLike = 1.0) -> tuple[Floats, Floats]:
    """Kolmogorov-Smirnov distance between binned samples, and its p-value.

    Cells only hide differences, so the test is slightly conservative. The p-value is Kolmogorov's limit with
    Stephens' correction (1970), good from an effective size of 4. `inflation` divides the effective size: by how
    much more windows of the reference period differ from each other than independent rows would.
    """
    r, w = _counts(reference), _counts(window)
    m, n = r.sum(-1), w.sum(-1)
    distance = np.abs(_share(r).cumsum(-1) - _share(w).cumsum(-1)).max(-1)
    root = np.sqrt(np.maximum(size(n, m), 1e-9) / np.asarray(inflation, dtype=np.float64))
    p = np.where((n > 0) & (m > 0), kolmogorov_above((root + 0.12 + 0.11 / root) * distance), 1.0)
    return distance, p


def ks_exact(reference: ArrayLike, window: ArrayLike) -> tuple[float, float]:
    """Kolmogorov-Smirnov on raw values with the exact p-value; time and memory grow as n m, for n m below 1e7.

    Counts the lattice paths that stay closer than the observed distance to the diagonal (Hodges 1957).
    With ties the p-value is conservative.
    """
    x, y = np.sort(np.asarray(reference, dtype=np.float64)), np.sort(np.asarray(window, dtype=np.float64))
    m, n = x.size, y.size
    if not m or not n:
        return 0.0, 1.0
    both = np.concatenate([x, y])
    steps = np.abs(np.searchsorted(x, both, side="right") * n - np.searchsorted(y, both, side="right") * m)
    farthest = int(steps.max())
    # Probability of each lattice point on a uniformly random path that never reached the distance.
    row = np.zeros(n + 1)
    columns = np.arange(n + 1)
    for i in range(m + 1):
        near = np.abs(i * n - columns * m) < farthest
        previous = row.copy()
        row = np.zeros(n + 1)
        value = 0.0
        for j in np.flatnonzero(near):
            if i == 0 and j == 0:
                value = 1.0
            else:
                left = row[j - 1] * (n - j + 1) / (m + n - i - j + 1) if j else 0.0
                below = previous[j] * (m - i + 1) / (m + n - i - j + 1) if i else 0.0
                value = left + below
            row[j] = value
    return farthest / (m * n), float(min(1.0, max(0.0, 1.0 - row[n])))


def wasserstein(reference: ArrayLike, window: ArrayLike, edges: ArrayLike) -> Floats:
    """Wasserstein-1 distance between the outermost edges, in the column's unit.

    Beyond them (1 in 256 of the reference each side) one value can be as far away as it likes; a heavy tail
    would make the distance noise, so tails are left to the range rule.
    """
    bounds = np.asarray(edges, dtype=np.float64)
    r, w = _share(_counts(reference)), _share(_counts(window))
    gap = np.abs(r.cumsum(-1) - w.cumsum(-1))[..., : bounds.size]
    # Between two edges the difference runs on; the trapezoid of its ends is exact for straight pieces.
    return np.asarray((0.5 * (gap[..., 1:] + gap[..., :-1]) * np.diff(bounds)).sum(-1))


def chi2(reference: ArrayLike, window: ArrayLike, inflation: ArrayLike = 1.0) -> tuple[Floats, Floats]:
    """Two-sample contingency chi-squared over levels: (effect, p-value).

    Levels that expect fewer than 5 in either sample are pooled, and the pool joins the rarest level when it is
    still too small. The effect is Cramer's V of the table that two equally large samples would give, less its
    mean under no difference, so it depends neither on sizes nor on the number of levels.
    """
    r, w = _counts(reference), _counts(window)
    r, w = np.broadcast_arrays(r, w)
    m, n = r.sum(-1, keepdims=True), w.sum(-1, keepdims=True)
    total = np.maximum(1.0, m + n)
    expected = (r + w) * np.minimum(m, n) / total
    rare = expected < _LEAST_EXPECTED
    pool = (expected * rare).sum(-1)
    kept = np.where(rare, np.inf, expected)
    rarest = np.argmin(kept, axis=-1)
    joins = (pool < _LEAST_EXPECTED) & np.isfinite(kept.min(-1))
    r, w = _pooled(r, rare, rarest, joins), _pooled(w, rare, rarest, joins)
    both = r + w
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(both > 0, (r * n - w * m) ** 2 / (both * np.maximum(m * n, 1.0)), 0.0)
    statistic = terms.sum(-1) / np.asarray(inflation, dtype=np.float64)
    freedom = (both > 0).sum(-1) - 1
    testable = (freedom > 0) & (m[..., 0] > 0) & (n[..., 0] > 0)
    p = np.where(testable, chi_squared_above(np.maximum(freedom, 1), statistic), 1.0)
    room = size(n[..., 0], m[..., 0]) / np.asarray(inflation, dtype=np.float64)
    effect = np.sqrt(np.maximum(0.0, statistic - freedom) / np.maximum(room, 1e-9)) / 2
    return np.where(testable, effect, 0.0), p


def proportions(
    hits: ArrayLike, rows: ArrayLike, window_hits: ArrayLike, window_rows: ArrayLike
) -> tuple[Floats, Floats]:
    """Two shares: (window's minus reference's, two-sided p-value).

    The z-test with pooled variance; where fewer than 5 hits or misses are expected, the hits of the window are
    binomial given all hits (exact for rare events, conservative otherwise).
    """
    a, m = np.asarray(hits, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    b, n = np.asarray(window_hits, dtype=np.float64), np.asarray(window_rows, dtype=np.float64)
    difference = b / np.maximum(n, 1) - a / np.maximum(m, 1)
    pooled = (a + b) / np.maximum(n + m, 1)
    spread = np.sqrt(pooled * (1 - pooled) / np.maximum(size(n, m), 1e-9))
    z = np.abs(difference) / np.maximum(spread, 1e-12)
    smallest = np.minimum(n, m) * np.minimum(pooled, 1 - pooled)
    # Rare hits, or rare misses: count whichever is rare.
    flip = pooled > 0.5
    k = np.where(flip, n - b, b).astype(np.int64)
    total = np.where(flip, n + m - a - b, a + b).astype(np.int64)
    share = n / np.maximum(n + m, 1)
    rare = np.broadcast_to((smallest < _LEAST_EXPECTED) & (total > 0), z.shape)
    p = np.array(np.where(smallest < _LEAST_EXPECTED, 1.0, 2 * normal_below(-z)))
    if rare.any():
        few, tries, chance = (np.broadcast_to(value, z.shape)[rare] for value in (k, total, share))
        tail = np.minimum(binomial_above(few - 1, tries, chance), binomial_up_to(few, tries, chance))
        p[rare] = np.minimum(1.0, 2 * tail)
    return difference, np.where((n > 0) & (m > 0), p, 1.0)


def unseen(singles: int, reference_rows: int, window_hits: int, window_rows: int) -> tuple[float, float]:
    """Share of values that the reference never had, and the p-value that so many come by chance.

    By Good and Turing the chance of a new level is about (levels seen once) / rows; an upper bound of it is taken
    (two standard deviations), because it is estimated from the same reference.
    """
    if not window_rows or not window_hits:
        return 0.0, 1.0
    rate = min(1.0, (singles + 1 + 2 * sqrt(singles + 1)) / max(1, reference_rows))
    return window_hits / window_rows, float(binomial_above(window_hits - 1, window_rows, rate))


def holm(p: ArrayLike) -> Floats:
    """Holm's step-down adjusted p-values along the last axis; needs no independence (Holm 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, axis=-1)
    many = values.shape[-1]
    steps = np.take_along_axis(values, order, -1) * (many - np.arange(many))
    adjusted = np.empty_like(values)
    np.put_along_axis(adjusted, order, np.minimum(1.0, np.maximum.accumulate(steps, axis=-1)), -1)
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> Floats:
    """Benjamini and Hochberg's adjusted p-values: for lists in a report, never for a page."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values)[::-1]
    steps = values[order] * values.size / (values.size - np.arange(values.size))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(steps))
    return adjusted


def smallest_visible_shift(n: int, m: int, columns: int, alpha: float, inflation: float = 1.0) -> float:
    """The shift of a normal column, in standard deviations, that a Kolmogorov-Smirnov test with Holm just sees.

    Critical distance sqrt(-ln(alpha / 2c) / 2N); a shift of one deviation moves the distribution by 1/sqrt(2 pi).
    """
    effective = float(size(n, m)) / inflation
    if effective <= 0:
        return float("inf")
    return sqrt(-log(alpha / (2 * max(1, columns))) / (2 * effective)) * sqrt(2 * pi)


def _counts(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _share(counts: Floats) -> Floats:
    return np.asarray(counts / np.maximum(1.0, counts.sum(-1, keepdims=True)))


def _pooled(counts: Floats, rare: NDArray[np.bool_], rarest: NDArray[np.intp], joins: NDArray[Any]) -> Floats:
    """Cells with the rare ones emptied into one more cell, or into the rarest kept one where `joins`."""
    pool = (counts * rare).sum(-1)
    kept = np.where(rare, 0.0, counts)
    extra = np.zeros_like(kept)
    np.put_along_axis(extra, rarest[..., None], np.where(joins, pool, 0.0)[..., None], -1)
    return np.concatenate([kept + extra, np.where(joins, 0.0, pool)[..., None]], axis=-1)
