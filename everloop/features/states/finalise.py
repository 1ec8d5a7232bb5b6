"""From integer states to values: the only place where a feature becomes a float.

Sums are held in 64-bit lanes of 32 bits each (`high * 2**32 + low`; four lanes for squares), so that they cannot
overflow before 2**31 facts. A quotient is rounded once, correctly: by one IEEE division where both sides are exact
doubles, by Python's integer division (which is correctly rounded too) elsewhere. The scalar and the array form
therefore give the same bits.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import isqrt, ldexp

import numpy as np
import numpy.typing as npt

from everloop.features.states.columns import Ints, Mask

Floats = npt.NDArray[np.float64]
LANE = 32
LOW = 2**LANE - 1
_EXACT = 2**53
_ROOT_BITS = 120


def ratio(high: int, low: int, divisor: int) -> float:
    """`(high * 2**32 + low) / divisor`, correctly rounded."""
    return ((high << LANE) + low) / divisor


def ratios(high: Ints, low: Ints, count: Ints, scale: int | Ints) -> Floats:
    """Element by element `(high * 2**32 + low) / (count * 10**scale)`; NaN where `count` is 0."""
    factor, none = 10**scale, count == 0
    most = _EXACT // int(np.max(factor))
    if (
        max(-high.min(initial=0), high.max(initial=0)) < 2**20
        and 0 <= low.min(initial=0) <= low.max(initial=0) < 2**52
        and count.max(initial=0) <= most
    ):  # both sides are exact doubles, whatever was carried into the high lane
        values: Floats = ((high << LANE) + low) / (np.maximum(count, 1) * factor)
        values[none] = np.nan
        return values
    high, low = high + (low >> LANE), low & LOW
    fast = (high >= -(2**20)) & (high < 2**20) & (count <= _EXACT // factor)
    total = (np.where(fast, high, 0) << LANE) + np.where(fast, low, 0)
    values = np.where(none, np.nan, total / (np.where(fast & ~none, count, 1) * factor))
    factors = np.broadcast_to(np.asarray(factor), values.shape)
    for at in zip(*np.nonzero(~fast & ~none), strict=True):
        values[at] = ratio(int(high[at]), int(low[at]), int(count[at]) * int(factors[at]))
    return values


def lanes(values: Ints) -> tuple[Ints, Ints]:
    """Split 64-bit integers into `high` (signed) and `low` (0 to 2**32 - 1)."""
    return values >> LANE, values & LOW


def squares(values: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Squares of 64-bit integers as four lanes, the lowest first: `sum(lane[i] * 2**(32 * i))`."""
    size = np.abs(values).view(np.uint64)
    thirty_two, low = np.uint64(LANE), np.uint64(LOW)
    a, b = size >> thirty_two, size & low
    bottom, middle, top = b * b, np.uint64(2) * a * b, a * a
    parts = (
        bottom & low,
        (bottom >> thirty_two) + (middle & low),
        (middle >> thirty_two) + (top & low),
        top >> thirty_two,
    )
    return tuple(p.view(np.int64) for p in parts)  # type: ignore[return-value]


def joined(parts: Iterable[int]) -> int:
    """The integer of lanes, the lowest first."""
    return sum(part << (LANE * i) for i, part in enumerate(parts))


def decimals(values: Ints, present: Mask, scale: int) -> Floats:
    """Scaled integers as floats; NaN where not `present`."""
    high, low = lanes(values)
    return ratios(high, low, present.astype(np.int64), scale)


def quotient(above: int, above_by: int, below: int, below_by: int) -> float | None:
    """`(above / above_by) / (below / below_by)`, correctly rounded; None when `below` is 0. There is one zero."""
    return None if below == 0 else above * below_by / (below * above_by) + 0.0


def variance(count: int, total: int, squared: int, divisor: int, less: int) -> float | None:
    """Variance of `count` integers over `divisor`, from their sum and sum of squares; `less` is 1 for a sample.

    Exact until one division, which is correctly rounded; None when `count` is not more than `less`.
    """
    if count <= less:
        return None
    return (count * squared - total * total) / (count * (count - less) * divisor * divisor)


def stddev(count: int, total: int, squared: int, divisor: int, less: int) -> float | None:
    """Square root of the exact variance, correctly rounded."""
    if count <= less:
        return None
    return root(count * squared - total * total, count * (count - less) * divisor * divisor)


def root(above: int, below: int) -> float:
    """The square root of `above / below` (not negative), correctly rounded.

    An integer root with more than 58 bits, its last one set when anything was cut off, is rounded by the conversion.
    """
    if above == 0:
        return 0.0
    shift = max(0, (_ROOT_BITS - above.bit_length() + below.bit_length() + 1) // 2)
    whole, rest = divmod(above << (2 * shift), below)
    found = isqrt(whole)
    exact = rest == 0 and found * found == whole
    return ldexp(float(2 * found + (not exact)), -shift - 1)


def buckets(values: Ints, bits: int) -> Ints:
    """The bucket of each integer: its `bits` + 1 leading bits, the others cleared; signs are kept."""
    size = np.abs(values)
    # Exponents from a double would be off near powers of two: compare with them instead.
    length = np.searchsorted(_POWERS, size, side="right")
    shift = np.maximum(length - (bits + 1), 0)
    cleared = (size >> shift) << shift
    return np.where(values < 0, -cleared, cleared)


def middle(bucket: int, bits: int, divisor: int) -> float:
    """The middle of a bucket over `divisor`, correctly rounded."""
    size = abs(bucket)
    width = 1 << max(0, size.bit_length() - (bits + 1))
    double = 2 * size + width - 1
    return (-double if bucket < 0 else double) / (2 * divisor)


def rank_of(share: str, count: int) -> int:
    """The rank, from 1, of a quantile (`19/20`) among `count` values."""
    asked = Fraction(share)
    return max(1, -(-asked.numerator * count // asked.denominator))


def quantile(counts: Sequence[tuple[int, int]], share: str, bits: int, divisor: int) -> float | None:
    """The quantile of (bucket, count) in ascending order; None of nothing."""
    if not counts:
        return None
    rank = rank_of(share, sum(n for _, n in counts))
    for bucket, n in counts:
        rank -= n
        if rank <= 0:
            return middle(bucket, bits, divisor)
    raise AssertionError("a rank beyond the count")


def estimate(hashes: Sequence[int], size: int) -> int:
    """How many different values there are: `hashes` of them, ascending, signed; exact while fewer than `size`.

    With the size-th smallest hash at the share u of all 64-bit numbers, (size - 1) / u is an unbiased estimate.
    """
    if not size or len(hashes) < size:
        return len(hashes)
    return ((size - 1) << 64) // (hashes[size - 1] + 2**63 + 1)


_POWERS = np.array([1 << n for n in range(63)], np.int64)
