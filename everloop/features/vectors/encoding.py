"""The runner of an encoder: batches in, vectors of one length and type out, beside the keys and times of the rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from everloop.core.errors import DataError
from everloop.features.vectors.definitions import dimensions

Matrix = npt.NDArray[np.float32]


class Described(Protocol):
    """What the runner needs of an asset."""

    @property
    def function(self) -> Callable[..., Any] | None:
        """`functools.partial(…, encode=function)`."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """`encoder`, its manifest, and `contract`, that of the dataset which it makes."""
        ...


def encode(
    asset: Described, inputs: Mapping[str, Any], _params: Mapping[str, Any], _facts: Mapping[str, Any]
) -> pl.DataFrame:
    """The rows' keys and times, a column of vectors (float32, fixed length), and a column for each dimension.

    Raises `DataError` for vectors of another shape, another number of them, or values that are not finite.
    """
    said, contract, rows = asset.facts["encoder"], asset.facts["contract"], inputs["rows"]
    function = getattr(asset.function, "keywords", {})["encode"]
    if said["column"]:
        kept = list(dict.fromkeys([*contract["key"], contract["event_time"], contract["known_time"]]))
        table = rows.select([*(name for name in kept if name), said["column"]]).collect()
        values: Iterator[Any] = iter(table[said["column"]].to_list())
        table = table.select([name for name in kept if name])
    else:
        table = pl.DataFrame({"path": list(rows.paths)}, schema={"path": pl.String})
        values = (content for _, content in rows.items())
    name, dim = said["vector"], said["dim"]
    matrix = _encoded(function, values, dim, said["batch"], count=table.height)
    vectors = pl.Series(name, matrix, dtype=pl.Array(pl.Float32, dim))
    columns = [pl.Series(column, matrix[:, place]) for place, column in enumerate(dimensions(name, dim))]
    made: pl.DataFrame = table.with_columns(vectors, *columns)
    return made


def _encoded(function: Callable[..., Any], values: Iterator[Any], dim: int, batch: int, *, count: int) -> Matrix:
    matrix = np.empty((count, dim), np.float32)
    start = 0
    while part := list(islice(values, batch)):
        matrix[start : start + len(part)] = checked(function(part), part, dim)
        start += len(part)
    return matrix


def checked(answer: Any, part: Sequence[Any], dim: int) -> Matrix:
    """What an encoder gave for some values, as float32; raises `DataError`."""
    found = np.asarray(answer)
    if found.shape != (len(part), dim):
        raise DataError(
            f"the encoder gave an array of shape {list(found.shape)} for {len(part)} values",
            hint=f"[{len(part)}, {dim}]: one vector of {dim} numbers each",
        )
    if found.dtype.kind not in "fiu":
        raise DataError(f"the encoder gave {found.dtype}", hint="numbers; they are kept as float32")
    vectors = found.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise DataError("the encoder gave values that are not finite", hint="NaN or infinity cannot be compared")
    return vectors + np.float32(0.0)  # there is one zero
