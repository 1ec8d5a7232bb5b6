"""Columns that a worker makes for the model at the request: how they, and the nulls of what they are made of, travel.

A whole number or boolean cannot say null on the wire, so a second column of booleans says it. What transforms made
comes back behind the answer, under names that callers never see, and is logged: it is what the model was asked with.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from everloop.serving.columns import Outputs

PREFIX = "derived."
NULL = "?null"


def shown(outputs: Outputs) -> Outputs:
    """The outputs that callers see."""
    return tuple(output for output in outputs if not output.name.startswith(PREFIX))


def nulls_apart(columns: Mapping[str, Any], nullable: Iterable[str], rows: int) -> dict[str, Any]:
    """The columns with a boolean column `<name>?null` beside each nullable one, and 0 in the place of a null."""
    made = dict(columns)
    for name in nullable:
        values = made.get(name)
        listed = values if isinstance(values, list) else None
        if listed is None or None not in listed:
            made[name + NULL] = [False] * rows
        else:
            made[name] = [0 if value is None else value for value in listed]
            made[name + NULL] = [value is None for value in listed]
    return made


def masked(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `nulls_apart`: masked arrays for nullable columns, the others as they are."""
    return {
        name: np.ma.MaskedArray(values, columns[name + NULL]) if name + NULL in columns else values
        for name, values in columns.items()
        if not name.endswith(NULL)
    }


def asked_and_answered(
    columns: Mapping[str, list[Any]], answers: Mapping[str, list[Any]]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Logged columns and answers as people read them: derived columns among the inputs, nulls in their places."""
    made = {name.removeprefix(PREFIX): values for name, values in answers.items() if name.startswith(PREFIX)}
    inputs = _filled({**columns, **made})
    return inputs, {name: values for name, values in answers.items() if not name.startswith(PREFIX)}


def _filled(columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    filled = {}
    for name, values in columns.items():
        if name.endswith(NULL):
            continue
        nulls = columns.get(name + NULL)
        filled[name] = values if nulls is None else [None if n else v for v, n in zip(values, nulls, strict=True)]
    return filled
