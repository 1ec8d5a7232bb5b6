"""The conditions of switches, read once: which rows of a question they hold for."""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from everloop.core.errors import DataError, InvalidInput, StepFailed
from everloop.features.expressions.evaluate import Cells, evaluate
from everloop.features.expressions.tree import Node, read

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


class Condition:
    """One condition."""

    __slots__ = ("_lone", "_names", "_tree")

    def __init__(self, written: Mapping[str, Any]) -> None:
        """Read it as a manifest holds it."""
        self._tree = read(written)
        self._names = self._tree.columns
        self._lone = _lone(self._tree)

    def holds(self, columns: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """For which rows it holds; raises `StepFailed` for a column that is missing, `InvalidInput` for a wrong one."""
        try:
            found = evaluate(self._tree, {name: _cells(there(columns, name)) for name in self._names})
        except DataError as error:
            raise InvalidInput(error.message) from error
        return np.asarray(found.valid & found.values.astype(bool))

    def decides(self, columns: Mapping[str, Any]) -> bool | None:
        """Whether it holds for all rows or for none; None where they part. Raises what `holds` raises.

        A number of one row is compared by itself, for the eighth of the time.
        """
        if self._lone is not None:
            name, compare, bound = self._lone
            values = columns.get(name)
            if values is not None and len(values) == 1 and type(value := values[0]) is float:
                return compare(value, bound) and not math.isnan(value)  # a NaN is null, and null holds nowhere
        held = self.holds(columns)
        return True if held.all() else None if held.any() else False


def _lone(tree: Node) -> tuple[str, Callable[[Any, Any], bool], float] | None:
    """The column, the comparison and the bound of a condition that only compares a float with a constant."""
    if tree.op not in _COMPARE:
        return None
    column, bound = tree.args
    if column.op != "column" or bound.op != "literal" or {column.type, bound.type} != {"float64"}:
        return None
    return (str(column.value), _COMPARE[tree.op], bound.value) if isinstance(bound.value, float) else None


def there(columns: Mapping[str, Any], name: str) -> Any:
    """A column; raises `StepFailed` where the step that makes it was left out."""
    if name not in columns:
        raise StepFailed(f"column {name!r} is not there: a step before was left out")
    return columns[name]


def _cells(values: Any) -> Cells:
    array = values if isinstance(values, np.ndarray) else np.array(values)
    if array.dtype.kind in "OUS":
        array = np.array(array, object)
        valid = np.array([value is not None for value in array], bool)
        if all(isinstance(value, int | float) for value in array[valid]):
            array = np.array([value if ok else 0 for value, ok in zip(array, valid, strict=True)], float)
        return Cells(array, valid)
    return Cells(array, ~np.isnan(array) if array.dtype.kind == "f" else np.ones(len(array), bool))
