"""What a model takes and gives: MLflow's column types, enforced before every prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from everloop.core.errors import InvalidInput

Columns = Mapping[str, Any]
"""Column name -> one-dimensional array or list, all of one length; None and NaN mean missing."""


class Matrix(dict[str, Any]):
    """Columns that are views of one row-major matrix, in its order; nobody changes them."""

    __slots__ = ("matrix",)

    def __init__(self, names: Sequence[str], matrix: np.ndarray[Any, Any]) -> None:
        """Name the matrix's columns."""
        super().__init__(zip(names, matrix.T, strict=True))
        self.matrix = matrix


_DTYPES: dict[str, np.dtype[Any]] = {
    "boolean": np.dtype("?"),
    "integer": np.dtype("i4"),
    "long": np.dtype("i8"),
    "float": np.dtype("f4"),
    "double": np.dtype("f8"),
    "string": np.dtype("O"),
}
"""MLflow's column types, and how we hold them."""


@dataclass(frozen=True, slots=True)
class Field:
    """One input column."""

    name: str
    type: str

    def manifest(self) -> dict[str, str]:
        """`{"name", "type"}`."""
        return {"name": self.name, "type": self.type}


def field_of(name: str, array: np.ndarray[Any, Any]) -> Field:
    """The field that an array of training values makes; raises `InvalidInput` for a type that models cannot take."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        return Field(name, "boolean")
    if kind in "iu":
        return Field(name, "integer" if size < 4 or (size == 4 and kind == "i") else "long")
    if kind == "f":
        return Field(name, "float" if size <= 4 else "double")
    if kind in "OUS" and all(item is None or isinstance(item, str) for item in array):
        return Field(name, "string")
    raise InvalidInput(
        f"column {name!r} holds {array.dtype}, which a model's signature cannot say",
        hint="turn it into numbers, booleans or text in a dataset or feature view",
    )


def doubles(fields: Sequence[Field]) -> tuple[str, ...] | None:
    """The names of the fields where all of them are doubles: what `matrix_of` asks for; None otherwise."""
    return tuple(field.name for field in fields) if all(field.type == "double" for field in fields) else None


def matrix_of(names: tuple[str, ...] | None, columns: Columns) -> np.ndarray[Any, Any] | None:
    """The matrix of columns that are all and only `names` as doubles, which then conform; None otherwise."""
    if type(columns) is Matrix and columns.matrix.dtype == np.float64 and tuple(columns) == names:
        return columns.matrix
    return None


def conform(fields: Sequence[Field], columns: Columns) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of the declared types, in the declared order; columns that the model does not know are dropped.

    Raises `InvalidInput` naming the column that is missing, has another length, or cannot become its type without
    losing something (text to number, fraction to integer); integers become floats.
    """
    missing = [field.name for field in fields if field.name not in columns]
    if missing:
        raise InvalidInput(
            f"the model needs column {missing[0]!r}" + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            hint="it takes " + ", ".join(field.name for field in fields),
            missing=missing,
        )
    arrays = {field.name: _typed(field, columns[field.name]) for field in fields}
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1:
        name = next(n for n, a in arrays.items() if len(a) != len(next(iter(arrays.values()))))
        raise InvalidInput(f"column {name!r} has another length than the first one", hint="send one value a row")
    return arrays


def whole(parts: list[Any]) -> Any:
    """The answer that parts make: texts one after the other; of anything else the last."""
    if all(isinstance(part, str) for part in parts):
        return "".join(parts)
    return parts[-1]


def _typed(field: Field, values: Any) -> np.ndarray[Any, Any]:
    wanted = _DTYPES[field.type]
    array = values if isinstance(values, np.ndarray) else _listed(field, values)
    if array.ndim != 1:
        raise InvalidInput(f"column {field.name!r} has {array.ndim} dimensions", hint="send one value a row")
    if array.dtype == wanted and wanted.kind != "O":
        return array
    if array.dtype.kind == "O" and wanted.kind == "f":
        array = _floats(field, array)
    if wanted.kind == "O":
        return _texts(field, array)
    if array.dtype.kind in "OUS" or not np.can_cast(array.dtype, wanted, _casting(array.dtype, wanted)):
        raise _mistyped(field, array)
    converted = array.astype(wanted)
    if array.dtype.kind in "iu" and wanted.kind in "iu" and not np.array_equal(converted, array):
        raise _mistyped(field, array)
    return converted


def _casting(given: np.dtype[Any], wanted: np.dtype[Any]) -> Any:
    """Integers and floats may take another width of their own kind; integers may become floats; nothing else."""
    return "same_kind" if given.kind in "iuf" and (given.kind != "u" or wanted.kind != "i") else "safe"


def _listed(field: Field, values: Any) -> np.ndarray[Any, Any]:
    listed = list(values)
    if any(value is None for value in listed) or field.type == "string":
        found = np.empty(len(listed), dtype=object)
        found[:] = listed
        return found
    try:
        return np.asarray(listed)
    except ValueError:
        raise InvalidInput(f"column {field.name!r} has values of several shapes", hint="one value a row") from None


def _floats(field: Field, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if not all(v is None or (isinstance(v, int | float | np.number) and not isinstance(v, bool)) for v in array):
        raise _mistyped(field, array)
    return np.array([np.nan if v is None else v for v in array], dtype=np.float64)


def _texts(field: Field, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind == "U" or all(v is None or isinstance(v, str) for v in array):
        return array.astype(object)
    raise _mistyped(field, array)


def _mistyped(field: Field, array: np.ndarray[Any, Any]) -> InvalidInput:
    return InvalidInput(
        f"column {field.name!r} is {array.dtype}, the model takes {field.type}",
        hint="missing values are only possible in float columns" if array.dtype.kind in "fO" else "convert the column",
    )
