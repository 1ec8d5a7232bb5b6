"""A first draft of expectations from what a version looks like: for a person to read, correct and paste."""

from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from everloop.data.profiles import Column, Profile

_FEW = 20
_DIGITS = 2
"""Significant digits to which bounds are widened."""


def draft_expectations(manifest: Mapping[str, Any], profile: Profile) -> list[str]:
    """Lines of Python: the key is unique, columns without nulls stay so, numbers and categories stay as seen.

    Bounds are widened to two significant digits, and only warn: what was seen once is no contract yet.
    """
    lines = []
    key = [repr(name) for name in manifest["key"]]
    if key:
        lines += [f"expect.unique({', '.join(key)})", f"expect.not_null({', '.join(key)})"]
    for name, type_ in manifest["schema_fields"]:
        column = profile.columns[name]
        lines.append(f"expect.dtype({name!r}, {type_!r})")
        if name not in manifest["key"]:
            lines += _nulls(name, column)
        lines += _values(name, column)
    return lines


def _nulls(name: str, column: Column) -> list[str]:
    if not column.rows:
        return []
    if column.nulls == 0:
        return [f"expect.not_null({name!r})"]
    share = min(1.0, round(2 * column.nulls / column.rows + 0.005, 2))
    return [f"expect.null_share({name!r}, at_most={share}, severity='warn')"] if share < 1 else []


def _values(name: str, column: Column) -> list[str]:
    if column.masked or column.low is None:
        return []
    if column.kll is not None and isinstance(column.low, float) and isinstance(column.high, float):
        low, high = _outwards(column.low, up=False), _outwards(column.high, up=True)
        return [f"expect.between({name!r}, {low}, {high}, severity='warn')"]
    if column.type == "string" and column.top is not None and column.top_exact and len(column.top) <= _FEW:
        return [f"expect.one_of({name!r}, {sorted(column.top)!r}, severity='warn')"]
    return []


def _outwards(value: float, *, up: bool) -> str:
    """`value` with two significant digits, rounded away from the data; exact, as decimals are."""
    exact = Decimal(repr(value))
    if not exact:
        return "0"
    step = Decimal(1).scaleb(exact.adjusted() - _DIGITS + 1)
    return f"{exact.quantize(step, ROUND_CEILING if up else ROUND_FLOOR):f}"
