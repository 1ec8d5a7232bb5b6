"""Is a transform row by row? Sample rows answered together must equal the same rows answered one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from everloop.core.errors import DataError
from everloop.features.transforms.applying import Columns, apply
from everloop.features.transforms.definitions import TransformDef, raw_inputs
from everloop.features.transforms.typed import Typed, differing, together, typed

SAMPLE_ROWS = 48
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that a transform answers in another way when it is asked alone."""

    transform: str
    column: str
    inputs: dict[str, Any]
    batch: Any
    alone: Any


def differences(transforms: Sequence[TransformDef], columns: Columns, rows: int) -> list[Difference]:
    """The rows and columns in which a batch differs from its rows one at a time, bit for bit.

    A transform is judged on what the ones before it made of the batch, so that only the guilty one is named. Raises
    what `apply` raises.
    """
    there = dict(columns)
    found = []
    for one in transforms:
        given = {name: there[name] for name in one.inputs}
        batch = apply([one], given, rows)
        alone = [apply([one], {n: c.take([row]) for n, c in given.items()}, 1) for row in range(rows)]
        for name, column in batch.items():
            single = together([answer[name] for answer in alone]) if alone else column
            for row in differing(column, single).tolist():
                inputs = {n: c.listed()[row] for n, c in given.items()}
                found.append(Difference(one.name, name, inputs, column.listed()[row], single.listed()[row]))
        there |= batch
    return found


def check(transforms: Sequence[TransformDef], columns: Columns, rows: int) -> None:
    """Raise `DataError` showing rows when a transform is not row by row on these rows or on made-up ones."""
    kinds = raw_inputs(transforms)
    sample = sampled({name: columns[name] for name in kinds}, rows)
    count = min(rows, SAMPLE_ROWS)
    for name, one in _with_nulls(sample, count).items():
        sample[name] = one
    _refuse(differences(transforms, sample, count * 2))


def sampled(columns: Columns, rows: int) -> dict[str, Typed]:
    """At most `SAMPLE_ROWS` rows, evenly spaced."""
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, SAMPLE_ROWS)).astype(np.int64)) if rows else np.empty(0, int)
    return {name: column.take(chosen) for name, column in columns.items()}


def _with_nulls(sample: Columns, count: int) -> dict[str, Typed]:
    """The sample twice: as it is, and with a null in a place that differs from column to column."""
    made = {}
    for number, (name, column) in enumerate(sample.items()):
        listed = column.listed()
        holes = [None if row % 3 == number % 3 else value for row, value in enumerate(listed[:count])]
        made[name] = together([column.take(slice(0, count)), typed(name, column.kind, holes)])
    return made


def _refuse(found: Sequence[Difference]) -> None:
    if not found:
        return
    first = found[0]
    rows = "; ".join(f"{d.inputs}: {d.column} is {d.batch!r} in a batch, {d.alone!r} alone" for d in found[:_SHOWN])
    raise DataError(
        f"transform {first.transform} is not row by row ({len(found)} of the sample's values differ): {rows}",
        hint="it may use neither other rows (mean, sort, rank, shift) nor time or chance; make these a feature view",
        rows=[{"inputs": d.inputs, "column": d.column, "batch": d.batch, "alone": d.alone} for d in found[:20]],
    )
