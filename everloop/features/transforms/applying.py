"""Running transforms over columns: the one code for a training frame and for a request."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from everloop.core.errors import DataError, EverloopError
from everloop.features.transforms.definitions import TransformDef
from everloop.features.transforms.typed import Typed, typed

Columns = Mapping[str, Typed]


def apply(transforms: Iterable[TransformDef], columns: Mapping[str, Any], rows: int) -> dict[str, Typed]:
    """What the transforms make, in order; later ones see what earlier ones made.

    `columns` holds the raw inputs: lists, arrays, series or `Typed`. Raises `DataError` naming the transform and the
    column, for inputs and for what the function returns; what the function itself raises is in it as the cause.
    """
    there: dict[str, Any] = dict(columns)
    made: dict[str, Typed] = {}
    for one in transforms:
        given = {name: _given(one, name, there) for name in one.inputs}
        found = _checked(one, _called(one, given), rows)
        there |= found
        made |= found
    return made


def _given(one: TransformDef, name: str, there: Mapping[str, Any]) -> Typed:
    if name not in there:
        raise DataError(f"transform {one.name} needs column {name!r}", hint="it reads " + ", ".join(one.inputs))
    values = there[name]
    if isinstance(values, Typed) and values.kind == one.inputs[name]:
        return values
    raw = values.array() if isinstance(values, Typed) else values
    try:
        return typed(name, one.inputs[name], raw)
    except DataError as error:
        raise DataError(f"transform {one.name}: {error.message}", hint=error.hint) from None


def _called(one: TransformDef, given: Mapping[str, Typed]) -> Any:
    if one.function is None:
        raise DataError(f"transform {one.name} has no code here", hint="load it with its model")
    try:
        if one.style == "arrays":
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # nulls are NaN: no news
                return one.function(**{name: column.array() for name, column in given.items()})
        polars = import_module("polars")  # only authors who use it load it into a model worker

        return one.function(polars.DataFrame([column.series(name) for name, column in given.items()]))
    except EverloopError:
        raise
    except Exception as error:
        raise DataError(
            f"transform {one.name} failed: {type(error).__name__}: {error}",
            hint="it must answer for every row, nulls included",
        ) from error


def _checked(one: TransformDef, answer: Any, rows: int) -> dict[str, Typed]:
    named = answer if isinstance(answer, Mapping) else _columns_of(one, answer)
    made = {}
    for name, kind in one.outputs.items():
        if name not in named:
            raise DataError(f"transform {one.name} gave no column {name!r}", hint="it gave " + ", ".join(named))
        try:
            made[name] = typed(name, kind, named[name])
        except TypeError:
            raise DataError(f"transform {one.name}: {name!r} is no column", hint="one value a row") from None
        except DataError as error:
            raise DataError(f"transform {one.name}: {error.message}", hint=error.hint) from None
        if len(made[name]) != rows:
            raise DataError(
                f"transform {one.name}: {name!r} has {len(made[name])} values for {rows} rows",
                hint="a transform answers row by row: it neither filters nor aggregates",
            )
    return made


def _columns_of(one: TransformDef, answer: Any) -> Mapping[str, Any]:
    columns = getattr(answer, "columns", None)
    if isinstance(columns, list) and hasattr(answer, "get_column"):
        return {name: answer.get_column(name) for name in columns}
    if len(one.outputs) == 1:
        return {next(iter(one.outputs)): answer}
    raise DataError(
        f"transform {one.name} returned a {type(answer).__name__}",
        hint="a DataFrame or a mapping of columns: it declares " + ", ".join(one.outputs),
    )
