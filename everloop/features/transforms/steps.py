"""Runners of the two places where a project's build runs transforms: a training frame, and packing for the model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import polars as pl

from everloop.features.transforms.applying import apply
from everloop.features.transforms.definitions import TransformDef, raw_inputs
from everloop.features.transforms.packing import pack
from everloop.features.transforms.parity import check
from everloop.features.transforms.typed import typed


class Described(Protocol):
    """What the runners need of an asset: its function is a partial that holds those of the transforms, by name."""

    @property
    def function(self) -> Callable[..., Any] | None:
        """`functools.partial(…, name=function)`."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """`transforms`: their manifests, in order."""
        ...


def transforms_of(asset: Described) -> list[TransformDef]:
    """The transforms of an asset, with their functions."""
    functions = getattr(asset.function, "keywords", {})
    return [TransformDef.from_manifest(m, functions[m["name"]]) for m in asset.facts.get("transforms", ())]


def transformed(transforms: Sequence[TransformDef], frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with the columns that the transforms make, after a check that they work row by row.

    Raises `DataError` for a column that is missing or of another type, and for a transform that is not row by row.
    """
    if not transforms:
        return frame
    needed = raw_inputs(transforms)
    columns = {name: typed(name, kind, frame[name]) for name, kind in needed.items() if name in frame.columns}
    made = apply(transforms, columns, frame.height)
    if frame.height:
        check(transforms, columns, frame.height)
    return frame.with_columns(column.series(name) for name, column in made.items())


def pack_transforms(
    asset: Described, _inputs: Mapping[str, Any], _params: Mapping[str, Any], _facts: Mapping[str, Any]
) -> dict[str, str]:
    """The files that a model carries its service's transforms in; see `packing.pack`."""
    return pack(transforms_of(asset))
