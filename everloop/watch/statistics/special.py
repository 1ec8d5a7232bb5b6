"""The few functions of probability that the monitors' tests need, over NumPy arrays.

Each is a closed form or a classic series with its source named, and each is held against SciPy by a test; SciPy itself
is 148 MB on disk and 1.7 s to import, too much for eight functions (docs/decisions/install-size.md).
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_NORMAL = NormalDist()
_ROUNDS = 3000
"""Steps of a continued fraction at most; it needs about the square root of its parameters."""
_erfc = np.frompyfunc(math.erfc, 1, 1)
_lgamma = np.frompyfunc(math.lgamma, 1, 1)
_quantile = np.frompyfunc(_NORMAL.inv_cdf, 1, 1)


def normal_below(x: ArrayLike) -> Floats:
    """Chance that a standard normal lies below `x`."""
    return _floats(_erfc(-np.asarray(x, dtype=np.float64) / math.sqrt(2))) / 2


def normal_quantile(share: float) -> float:
    """Where a standard normal has `share` (between 0 and 1) below it (Wichura 1988, AS 241)."""
    return _NORMAL.inv_cdf(share)


def chi_squared_above(freedom: ArrayLike, x: ArrayLike) -> Floats:
    """Chance that a chi-squared variable of whole degrees of freedom (at least 1) exceeds `x`.

    Q(1/2, y) = erfc √y and Q(1, y) = exp(-y), then Q(a + 1, y) = Q(a, y) + y^a exp(-y) / Γ(a + 1)
    (Abramowitz & Stegun 6.5.21): terms of one sign, so that nothing cancels.
    """
    n, y = np.broadcast_arrays(np.asarray(freedom), np.maximum(np.asarray(x, dtype=np.float64), 0) / 2)
    odd = n % 2 == 1
    a = np.where(odd, 0.5, 1.0)
    found = np.where(odd, _floats(_erfc(np.sqrt(y))), np.exp(-y))
    with np.errstate(divide="ignore"):
        log_y = np.log(y)
    for _ in range(int(np.max(n, initial=1) - 1) // 2):
        term = np.exp(a * log_y - y - _floats(_lgamma(a + 1)))
        found = np.where(2 * a < n, found + term, found)
        a = a + 1
    return np.minimum(found, 1.0)


def chi_squared_exceeded(share: ArrayLike) -> Floats:
    """What a chi-squared variable of one degree of freedom exceeds with chance `share` (above 0, at most 1)."""
    return _floats(_quantile(np.asarray(share, dtype=np.float64) / 2)) ** 2


def kolmogorov_above(x: ArrayLike) -> Floats:
    """Chance that Kolmogorov's limiting distribution exceeds `x`: his series, or Jacobi's where `x` is small."""
    at = np.asarray(x, dtype=np.float64)[..., None]
    k = np.arange(1, 12)
    large = 2 * ((-1.0) ** (k - 1) * np.exp(-2 * (k * np.maximum(at, 0.5)) ** 2)).sum(-1)
    low = np.clip(at, 1e-3, 2.0)
    small = 1 - math.sqrt(2 * math.pi) / low[..., 0] * np.exp(-(((2 * k - 1) * math.pi / low) ** 2) / 8).sum(-1)
    return _floats(np.clip(np.where(at[..., 0] > 1.0, large, small), 0.0, 1.0))


def binomial_above(k: ArrayLike, n: ArrayLike, p: ArrayLike) -> Floats:
    """Chance of more than `k` hits in `n` tries of chance `p`; 1 for a negative `k`."""
    hits, tries, chance = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (k, n, p)))
    inside = (hits >= 0) & (hits < tries)
    a, b = np.where(inside, hits + 1, 1.0), np.where(inside, tries - hits, 1.0)
    return np.where(inside, _beta(a, b, chance), np.where(hits < 0, 1.0, 0.0))


def binomial_up_to(k: ArrayLike, n: ArrayLike, p: ArrayLike) -> Floats:
    """Chance of at most `k` hits in `n` tries of chance `p`."""
    hits, tries, chance = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (k, n, p)))
    inside = (hits >= 0) & (hits < tries)
    a, b = np.where(inside, tries - hits, 1.0), np.where(inside, hits + 1, 1.0)
    return np.where(inside, _beta(a, b, 1 - chance), np.where(hits < 0, 0.0, 1.0))


def logistic(x: ArrayLike) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    at = np.asarray(x, dtype=np.float64)
    small = np.exp(-np.abs(at))
    return np.where(at >= 0, 1 / (1 + small), small / (1 + small))


def log_odds(p: ArrayLike) -> Floats:
    """The inverse of `logistic`."""
    share = np.asarray(p, dtype=np.float64)
    return np.asarray(np.log(share) - np.log1p(-share), dtype=np.float64)


def isotonic(values: ArrayLike, weights: ArrayLike) -> Floats:
    """The rising sequence nearest to `values` by weighted squares: falling neighbours are pooled (Ayer 1955)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(np.asarray(values, float).tolist(), np.asarray(weights, float).tolist(), strict=True):
        mean, mass, size = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            before, heavy, many = blocks.pop()
            mean, mass, size = (before * heavy + mean * mass) / (heavy + mass), heavy + mass, many + size
        blocks.append((mean, mass, size))
    return np.repeat([mean for mean, _, _ in blocks], [size for _, _, size in blocks])


def _beta(a: Floats, b: Floats, x: Floats) -> Floats:
    """The regularised incomplete beta function, by its continued fraction on the side where that converges fast."""
    x = np.clip(x, 0.0, 1.0)
    turned = x > (a + 1) / (a + b + 2)
    p, q, z = np.where(turned, b, a), np.where(turned, a, b), np.where(turned, 1 - x, x)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_front = p * np.log(z) + q * np.log1p(-z) - _floats(_lgamma(p) + _lgamma(q) - _lgamma(p + q))
        front = np.where(z > 0, np.exp(log_front), 0.0) / p
    found = front * _fraction(p, q, z)
    return np.clip(np.where(turned, 1 - found, found), 0.0, 1.0)


def _fraction(a: Floats, b: Floats, x: Floats) -> Floats:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    tiny = 1e-300
    c, d = np.ones_like(x), 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    found = d
    for m in range(1, _ROUNDS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / _away(1 + even * d, tiny), _away(1 + even / c, tiny)
        found = found * c * d
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / _away(1 + odd * d, tiny), _away(1 + odd / c, tiny)
        change = c * d
        found = found * change
        if np.all(np.abs(change - 1) < 1e-15):
            break
    return found


def _away(value: Floats, tiny: float) -> Floats:
    return np.where(np.abs(value) < tiny, tiny, value)


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)
