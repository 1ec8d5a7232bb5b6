"""Vectors in requests: a tensor `[rows, n]` named `x` stands for the columns `x_000`, `x_001` and so on."""

from functools import lru_cache
from typing import Any

import numpy as np

from everloop.core.errors import InvalidInput
from everloop.features.vectors.definitions import grouped
from everloop.serving.columns import Layout


@lru_cache(maxsize=64)
def vectors_of(names: tuple[str, ...]) -> dict[str, list[str]]:
    """The vectors among an endpoint's columns: stem -> its columns in order."""
    return dict(grouped(list(names)))


def spread(columns: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The columns with each vector in the place of its dimensions; raises `InvalidInput` for another length."""
    if not vectors_of(names):
        return columns
    made: dict[str, Any] = {}
    for name, values in columns.items():
        wanted = None if name in names else vectors_of(names).get(name)
        if wanted is None:
            made[name] = values
            continue
        try:
            matrix = np.asarray(values)
        except ValueError:
            matrix = np.empty(0)
        if matrix.ndim != 2 or matrix.shape[1] != len(wanted) or matrix.dtype.kind not in "biuf":
            raise InvalidInput(f"input {name!r} is no list of vectors of {len(wanted)} numbers", hint="[rows, n]")
        made |= {column: matrix[:, place] for place, column in enumerate(wanted)}
    return made


def described(layout: Layout) -> list[dict[str, Any]]:
    """The inputs as metadata tells them: a vector of one type as one input of shape [-1, n]."""
    types = {column.name: column.datatype for column in layout.columns}
    whole = {s: c for s, c in vectors_of(layout.names).items() if len({types[n] for n in c}) == 1 and s not in types}
    first = {columns[0]: stem for stem, columns in whole.items()}
    inside = {name for columns in whole.values() for name in columns}
    listed = []
    for name, datatype in types.items():
        if name in first:
            shape = [-1, len(whole[first[name]])]
            listed.append({"name": first[name], "datatype": datatype, "shape": shape})
        elif name not in inside:
            listed.append({"name": name, "datatype": datatype, "shape": [-1]})
    return listed
