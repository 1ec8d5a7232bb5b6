"""Is each feature still what it was? Names what changed: its unit, its nulls, its spread, its very presence.

The columns of two training frames are compared by quantiles, not by a test of equal distribution: data
drifts, and drift is no mistake. A *unit* change multiplies (or maps linearly) every quantile alike.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Diagnosis = Literal["unit", "sign", "null_spike", "constant", "missing", "type"]

_QUANTILES = np.array([0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98])
_MIN_ROWS = 50
"""Below this many values a column's quantiles say too little."""

# What people really mix up: (factor, words). A factor and its inverse are both looked for.
_FACTORS = (
    (60.0, "minutes and seconds (or hours and minutes)"),
    (3600.0, "hours and seconds"),
    (24.0, "days and hours"),
    (1440.0, "days and minutes"),
    (86400.0, "days and seconds"),
    (1000.0, "thousandths (milli, kilo)"),
    (100.0, "hundredths (cents, percent)"),
    (1e6, "millionths (micro, mega)"),
    (1e9, "billionths (nano, giga)"),
    (1.609344, "miles and kilometres"),
    (3.28084, "metres and feet"),
    (2.54, "inches and centimetres"),
    (2.20462, "kilograms and pounds"),
    (1.852, "nautical miles and kilometres"),
    (3.6, "metres per second and kilometres per hour"),
    (2.23694, "metres per second and miles per hour"),
    (33.8639, "inches of mercury and hectopascals"),
)
# A linear map with an offset: new = slope * old + offset.
_MAPS = (
    (1.8, 32.0, "degrees Celsius became Fahrenheit"),
    (1 / 1.8, -32.0 / 1.8, "degrees Fahrenheit became Celsius"),
    (1.0, 273.15, "degrees Celsius became kelvin"),
    (1.0, -273.15, "kelvin became degrees Celsius"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One column that is not what it was."""

    column: str
    diagnosis: Diagnosis
    text: str
    factor: float | None = None
    """For a unit: new value over old value."""


def find_changes(
    new: pl.DataFrame | pl.LazyFrame,
    old: pl.DataFrame | pl.LazyFrame,
    *,
    ignore: tuple[str, ...] = (),
    null_points: float = 0.10,
) -> list[Finding]:
    """Compare the columns of `old` with those of `new`, one finding a column at most, in the order of `old`.

    `null_points` is how much the share of nulls may rise before it is a spike (it must be significant too).
    Columns that only `new` has are no finding.
    """
    new_frame, old_frame = (f.collect() if isinstance(f, pl.LazyFrame) else f for f in (new, old))
    found: list[Finding] = []
    for name in old_frame.columns:
        if name not in ignore:
            found.extend(_column(name, new_frame, old_frame.get_column(name), null_points))
    return found


def _column(name: str, frame: pl.DataFrame, old: pl.Series, null_points: float) -> Iterator[Finding]:
    if name not in frame.columns:
        yield Finding(name, "missing", f"{name} is gone")
        return
    new = frame.get_column(name)
    if _family(new.dtype) != _family(old.dtype):
        yield Finding(name, "type", f"{name} was {old.dtype} and is {new.dtype}")
        return
    spike = _null_spike(name, new, old, null_points)
    if spike:
        yield spike
    elif new.n_unique() == 1 < old.n_unique() and len(new) >= _MIN_ROWS:
        yield Finding(name, "constant", f"{name} is constant at {new[0]!r}, it had {old.n_unique()} values")
    elif _family(new.dtype) == "number":
        changed = _unit(name, _values(new), _values(old))
        if changed:
            yield changed


def _family(dtype: pl.DataType) -> str:
    if dtype.is_numeric() or dtype == pl.Boolean:
        return "number"
    return "time" if dtype.is_temporal() else "text"


def _values(series: pl.Series) -> Floats:
    values = series.cast(pl.Float64).drop_nulls().to_numpy()
    return np.asarray(values[np.isfinite(values)], dtype=np.float64)


def _missing(series: pl.Series) -> int:
    nans = int(series.is_nan().sum() or 0) if series.dtype.is_float() else 0
    return series.null_count() + nans


def _null_spike(name: str, new: pl.Series, old: pl.Series, points: float) -> Finding | None:
    """Two-proportion z of the null shares, and a rise that matters."""
    if len(new) < _MIN_ROWS or len(old) < _MIN_ROWS:
        return None
    a, b = _missing(new) / len(new), _missing(old) / len(old)
    pooled = (_missing(new) + _missing(old)) / (len(new) + len(old))
    error = math.sqrt(pooled * (1 - pooled) * (1 / len(new) + 1 / len(old)))
    if a - b < points or (a - b) < 5 * error:
        return None
    return Finding(name, "null_spike", f"{name} is empty in {a:.1%} of rows, it was in {b:.1%}")


def _unit(name: str, new: Floats, old: Floats) -> Finding | None:
    if len(new) < _MIN_ROWS or len(old) < _MIN_ROWS:
        return None
    mapped = _known_map(new, old)
    if mapped:
        return Finding(name, "unit", f"{name}: {mapped}")
    flipped = _flipped(new, old)
    if flipped:
        return Finding(name, "sign", f"{name} changed its sign")
    return _scaled(name, new, old)


def _scaled(name: str, new: Floats, old: Floats) -> Finding | None:
    """A factor that all quantiles share. Zeros are left out: they keep no unit (half of all delays are 0)."""
    a, b = new[new != 0], old[old != 0]
    if min(len(a), len(b)) < _MIN_ROWS:
        return None
    upper, lower = np.quantile(np.abs(a), _QUANTILES), np.quantile(np.abs(b), _QUANTILES)
    logs = np.log(upper / lower)
    middle, spread = float(np.median(logs)), float(np.max(logs) - np.min(logs))
    if lower[-1] / lower[0] < 1.01 and upper[-1] / upper[0] < 1.01 and abs(middle) < math.log(5):
        return None  # a flag or a constant: there is only one quantile to compare
    factor = math.exp(middle)
    # a factor that people mix up, hit within 3 % by every quantile; or any factor of five and more that
    # dwarfs the difference of the two shapes
    tight = spread < 0.10
    large = abs(middle) > math.log(5) and spread < 0.35 * abs(middle)
    known = _nearest_factor(abs(middle), within=0.15 if large else 0.03)
    if not (large or (known and tight)):
        return None
    size = f"{factor:.4g} times" if factor >= 1 else f"1/{1 / factor:.4g} of"
    words = f", as between {known}" if known else ""
    return Finding(name, "unit", f"{name} is {size} what it was at every quantile{words}", factor)


def _nearest_factor(log_factor: float, within: float) -> str:
    """What people confuse that differs by such a factor; "" when nothing does."""
    distance, words = min((abs(log_factor - math.log(factor)), words) for factor, words in _FACTORS)
    return words if distance < within else ""


def _known_map(new: Floats, old: Floats) -> str:
    """Temperature scales: every quantile follows the map, and does not fit the old values as well."""
    a, b = np.quantile(new, _QUANTILES), np.quantile(old, _QUANTILES)
    width = float(b[-1] - b[0])
    if width <= 0:
        return ""
    stayed = float(np.max(np.abs(a - b)))
    for slope, offset, words in _MAPS:
        gone = float(np.max(np.abs(a - (slope * b + offset))))
        if gone < 0.15 * slope * width and gone < 0.25 * stayed and stayed > 0.25 * width:
            return words
    return ""


def _flipped(new: Floats, old: Floats) -> bool:
    """Every quantile is the mirrored one, and the old values were clearly on one side or lopsided."""
    a, b = np.quantile(new, _QUANTILES), np.quantile(old, _QUANTILES)
    width = float(b[-1] - b[0])
    if width <= 0:
        return False
    mirrored, stayed = float(np.max(np.abs(a + b[::-1]))), float(np.max(np.abs(a - b)))
    return mirrored < 0.05 * width and stayed > 0.5 * width


def as_details(findings: list[Finding]) -> list[Mapping[str, Any]]:
    """Findings as JSON for a verdict's details."""
    return [{"column": f.column, "diagnosis": f.diagnosis, "text": f.text} for f in findings]
