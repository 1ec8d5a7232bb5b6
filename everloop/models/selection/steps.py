"""The runner of a selection: the training part of a model's frame in, the chosen columns and the reasons out."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import polars as pl

from everloop.models.selection.definitions import Select
from everloop.models.selection.ranking import ranked


class Described(Protocol):
    """What the runner needs of an asset."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """`rule` (a manifest of `Select`), `columns`, `label`, `time`."""
        ...


def choose(
    asset: Described, inputs: Mapping[str, Any], _params: Mapping[str, Any], _facts: Mapping[str, Any]
) -> dict[str, Any]:
    """`{chosen, ranking, rows, rule}`, JSON-ready; the ranking says of every column why. Raises `DataError`."""
    said, table = asset.facts, inputs["frame"]
    rule = Select(**{**said["rule"], "keep": tuple(said["rule"]["keep"])})
    frame: pl.DataFrame = table.collect() if isinstance(table, pl.LazyFrame) else table
    frame = frame.filter(pl.col(said["label"]).is_not_null()).sort(said["time"], maintain_order=True)
    rows = np.unique(np.linspace(0, max(frame.height - 1, 0), min(frame.height, rule.rows)).astype(np.int64))
    frame = frame[rows]
    columns = {name: frame[name].to_numpy() for name in said["columns"]}
    found = ranked(columns, frame[said["label"]].to_numpy(), rule)
    kept = {one.column for one in found if one.chosen}
    return {
        "chosen": [name for name in said["columns"] if name in kept],
        "ranking": [one.record() for one in found],
        "rows": frame.height,
        "rule": rule.manifest(),
    }
