"""From integer states to values: the only place where a feature becomes a float.

Sums are held in two 64-bit lanes, `high * 2**32 + low`, so that they cannot overflow. A quotient is rounded
once, correctly: by one IEEE division where both sides are exact doubles, by Python's integer division (which is
correctly rounded too) elsewhere. The scalar and the array form therefore give the same bits.
"""

import numpy as np
import numpy.typing as npt

from everloop.features.states.facts import Ints, Mask

Floats = npt.NDArray[np.float64]
LANE = 32
LOW = 2**LANE - 1
_EXACT = 2**53


def ratio(high: int, low: int, divisor: int) -> float:
    """`(high * 2**32 + low) / divisor`, correctly rounded."""
    return ((high << LANE) + low) / divisor


def ratios(high: Ints, low: Ints, count: Ints, scale: int) -> Floats:
    """Element by element `(high * 2**32 + low) / (count * 10**scale)`; NaN where `count` is 0."""
    factor = 10**scale
    high, low = high + (low >> LANE), low & LOW
    fast = (high >= -(2**20)) & (high < 2**20) & (count <= _EXACT // factor)
    total = (np.where(fast, high, 0) << LANE) + np.where(fast, low, 0)
    divisor = np.where(fast, count, 1) * factor
    none = count == 0
    values: Floats = np.where(none, np.nan, total / np.where(none, 1, divisor))
    for row in np.flatnonzero(~fast & ~none):
        values[row] = ratio(int(high[row]), int(low[row]), int(count[row]) * factor)
    return values


def lanes(values: Ints) -> tuple[Ints, Ints]:
    """Split 64-bit integers into `high` (signed) and `low` (0 to 2**32 - 1)."""
    return values >> LANE, values & LOW


def decimals(values: Ints, present: Mask, scale: int) -> Floats:
    """Scaled integers as floats; NaN where not `present`."""
    high, low = lanes(values)
    return ratios(high, low, present.astype(np.int64), scale)
