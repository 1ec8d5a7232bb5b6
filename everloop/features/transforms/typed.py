"""Columns of four types with nulls beside them, so that a null never makes an integer a float.

Loads NumPy; Polars only for the callers that hand in or ask for its series.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from everloop.core.errors import DataError
from everloop.features.transforms.definitions import Type

if TYPE_CHECKING:
    import polars as pl

DTYPES: dict[str, np.dtype[Any]] = {
    "bool": np.dtype("?"),
    "int64": np.dtype("i8"),
    "float64": np.dtype("f8"),
    "text": np.dtype("O"),
}
_EMPTY: dict[str, Any] = {"bool": False, "int64": 0, "float64": np.nan, "text": ""}
_WHOLE = 2.0**63


@dataclass(frozen=True, slots=True)
class Typed:
    """One column: values of the type's dtype, and which are there; what is null holds False, 0, NaN or ''."""

    kind: Type
    values: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Any) -> "Typed":
        """The rows that a mask, a slice or an index array names."""
        return Typed(self.kind, self.values[rows], self.valid[rows])

    def listed(self) -> list[Any]:
        """Python values, None for null."""
        return [v if ok else None for v, ok in zip(self.values.tolist(), self.valid.tolist(), strict=True)]

    def array(self) -> npt.NDArray[Any]:
        """For NumPy: floats with NaN for null, every other type as a masked array (masked: null)."""
        if self.kind == "float64":
            return self.values
        masked: npt.NDArray[Any] = np.ma.MaskedArray(self.values, ~self.valid, fill_value=_EMPTY[self.kind])
        return masked

    def plain(self) -> Any:
        """For a model: floats with NaN, other types as they are while nothing is null, else a list with None."""
        return self.values if self.kind == "float64" or self.valid.all() else self.listed()

    def series(self, name: str) -> "pl.Series":
        """A Polars series of the type."""
        polars = import_module("polars")  # only authors who use it load it into a model worker

        kinds = {"bool": polars.Boolean, "int64": polars.Int64, "float64": polars.Float64, "text": polars.String}
        if self.valid.all() and self.kind != "text":
            made: pl.Series = polars.Series(name, self.values, kinds[self.kind])
        else:
            made = polars.Series(name, self.listed(), kinds[self.kind])
        return made


def differing(a: Typed, b: Typed) -> npt.NDArray[np.intp]:
    """The rows in which two columns of one type differ, bit for bit."""
    bits: Any = (a.values.view(np.int64), b.values.view(np.int64)) if a.kind == "float64" else (a.values, b.values)
    same = (a.valid == b.valid) & (~a.valid | (bits[0] == bits[1]))
    return np.flatnonzero(~same)


def together(columns: Sequence[Typed]) -> Typed:
    """Columns of one type, one after the other."""
    return Typed(
        columns[0].kind, np.concatenate([c.values for c in columns]), np.concatenate([c.valid for c in columns])
    )


def typed(name: str, kind: Type, values: Any) -> Typed:
    """A column from a list (None: null), a NumPy array (NaN, masked: null) or a Polars series.

    Whole numbers may come as floats, integers may become floats; raises `DataError` for all else that is not `kind`.
    """
    if hasattr(values, "to_arrow") and hasattr(values, "null_count"):
        return _of_series(name, kind, values)
    if isinstance(values, np.ma.MaskedArray):
        valid = ~np.ma.getmaskarray(values)
        return _of_array(name, kind, np.asarray(values.data), valid)
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        return _of_array(name, kind, values, np.ones(len(values), bool))
    return _of_list(name, kind, values.tolist() if isinstance(values, np.ndarray) else list(values))


def _of_list(name: str, kind: Type, values: list[Any]) -> Typed:
    valid = np.array([v is not None for v in values], bool)
    filled = [_EMPTY[kind] if v is None else v for v in values]
    if kind == "text":
        if not all(isinstance(v, str) for v in filled):
            raise _mistyped(name, kind, next(v for v in filled if not isinstance(v, str)))
        texts = np.empty(len(filled), object)
        texts[:] = filled
        return Typed(kind, texts, valid)
    try:
        array = np.array(filled) if filled else np.empty(0, DTYPES[kind])
    except (ValueError, OverflowError):
        raise DataError(f"column {name!r} holds values that are no {kind}", hint="one value a row") from None
    return _of_array(name, kind, array, valid)


def _of_array(name: str, kind: Type, array: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> Typed:
    if array.ndim != 1:
        raise DataError(f"column {name!r} has {array.ndim} dimensions", hint="one value a row")
    got = array.dtype.kind
    if kind == "text" and got in "UO":
        return _of_list(name, kind, [v if ok else None for v, ok in zip(array.tolist(), valid.tolist(), strict=True)])
    if kind == "float64" and got in "iuf":
        floats = np.where(valid, array.astype(np.float64), np.nan) + 0.0  # + 0.0: there is one zero
        return Typed(kind, floats, ~np.isnan(floats))
    if kind == "bool" and got == "b":
        return Typed(kind, np.where(valid, array, False), valid)
    if kind == "int64" and got in "iu":
        whole = np.where(valid, array, 0)
        if got == "u" and (whole > np.uint64(2**63 - 1)).any():
            raise _mistyped(name, kind, whole.max())
        return Typed(kind, whole.astype(np.int64), valid)
    if kind == "int64" and got == "f":
        valid = valid & ~np.isnan(array)
        whole = np.where(valid, array, 0.0)
        fits = (whole == np.floor(whole)) & (np.abs(whole) < _WHOLE)
        if fits.all():
            return Typed(kind, whole.astype(np.int64), valid)
        raise _mistyped(name, kind, whole[~fits][0])
    if not valid.any():
        return Typed(kind, np.full(len(array), _EMPTY[kind], DTYPES[kind]), valid)
    raise _mistyped(name, kind, array[valid][0])


def _of_series(name: str, kind: Type, series: "pl.Series") -> Typed:
    dtype = str(series.dtype)
    if dtype in ("String", "Categorical", "Null") or dtype.startswith(("Enum", "Categorical")):
        return _of_list(name, kind, series.to_list())
    valid = series.is_not_null().to_numpy()
    filled = series.fill_null(value=False) if dtype == "Boolean" else series
    if dtype != "Boolean" and series.null_count() and series.dtype.is_integer():
        filled = series.fill_null(0)
    return _of_array(name, kind, filled.to_numpy(), valid)


def _mistyped(name: str, kind: str, value: Any) -> DataError:
    return DataError(f"column {name!r} is declared {kind} and holds {str(value)[:60]!r}", hint="declare its real type")
