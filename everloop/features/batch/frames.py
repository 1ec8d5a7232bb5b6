"""Runners of a model's frames: the point-in-time rows, and their split into training and holdout by time."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import polars as pl

from everloop.core.clock import parse_duration
from everloop.core.errors import DataError
from everloop.features.batch.history import history
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef, by_dataset
from everloop.features.transforms.steps import transformed, transforms_of


class Described(Protocol):
    """What a runner needs of an asset."""

    @property
    def function(self) -> Callable[..., Any] | None:
        """Holds the functions of the service's transforms; see `transforms.steps`."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the definition said; see `Project.assets`."""
        ...


def build_rows(
    asset: Described, inputs: Mapping[str, Any], _params: Mapping[str, Any], _facts: Mapping[str, Any]
) -> pl.DataFrame:
    """All labelled questions of the spine with what was known when each was asked.

    Columns: the spine's key and time, entities, request columns, features (lists `spread`), the label, and the time
    from which the label is known where the model names one. Rows in the order of time and key. Raises `DataError`.
    """
    said = asset.facts
    views = tuple(FeatureViewDef.from_manifest(name, manifest) for name, manifest in said["views"])
    service = FeatureServiceDef(said["service"], views, tuple(said["request"]))
    spine = _spine(said, service, inputs[said["spine"]].lazy())
    with TemporaryDirectory(prefix="everloop-frame-") as folder:
        sources = {
            name: _spill(inputs[name].lazy(), columns, Path(folder) / f"{name}.parquet")
            for name, columns in by_dataset(views).items()
        }
        frame = spread(views, history(service, spine, sources, at=said["time"]))
    return transformed(transforms_of(asset), frame)


def spread(views: Sequence[FeatureViewDef], frame: pl.DataFrame) -> pl.DataFrame:
    """A frame as a model reads it: in the place of a list a column for each of its places, null where it is shorter.

    Whole numbers that may be missing become floats, whatever this frame holds: a request may be the first to lack one.
    """
    features = {name: f for view in views for name, f in zip(view.outputs, view.features, strict=True)}
    lists = {name: columns for view in views for name, columns in view.lists.items()}

    def place(name: str, number: int, column: str) -> pl.Expr:
        value = pl.col(name).list.get(number, null_on_oob=True).alias(column)
        feature = features[name]
        return value.cast(pl.Float64) if feature.output == "integers" and feature.function != "histogram" else value

    return frame.select(
        expression
        for name in frame.columns
        for expression in (
            [place(name, number, column) for number, column in enumerate(lists[name])]
            if name in lists
            else [pl.col(name)]
        )
    )


def take_training(
    asset: Described, inputs: Mapping[str, Any], _params: Mapping[str, Any], _facts: Mapping[str, Any]
) -> pl.DataFrame:
    """The rows before the holdout whose label was known before the holdout began; raises `DataError` for none."""
    said, rows = asset.facts, _eager(inputs["rows"])
    cut = _cut(rows, said)
    known = pl.col(said["label_known"]) < cut if said["label_known"] else pl.lit(value=True)
    return _some(rows.filter((pl.col(said["time"]) < cut) & known), said, "training")


def take_holdout(
    asset: Described, inputs: Mapping[str, Any], _params: Mapping[str, Any], _facts: Mapping[str, Any]
) -> pl.DataFrame:
    """The newest stretch of rows, which training never sees; raises `DataError` for none."""
    said, rows = asset.facts, _eager(inputs["rows"])
    return _some(rows.filter(pl.col(said["time"]) >= _cut(rows, said)), said, "holdout")


def _spine(said: Mapping[str, Any], service: FeatureServiceDef, table: pl.LazyFrame) -> pl.DataFrame:
    order = list(dict.fromkeys([said["time"], *said["spine_key"]]))
    extra = [said["label_known"]] if said["label_known"] else []
    columns = list(dict.fromkeys([*order, *service.entities, *service.request, *extra, said["label"]]))
    present = table.collect_schema().names()
    missing = [name for name in columns if name not in present]
    if missing:
        raise DataError(f"the spine {said['spine']} has no column {missing[0]!r}", hint="it has " + ", ".join(present))
    return table.select(columns).filter(pl.col(said["label"]).is_not_null()).sort(order).collect()


def _spill(table: pl.LazyFrame, columns: Sequence[str], path: Path) -> Path:
    table.select(columns).sink_parquet(path, compression="uncompressed")
    return path


def _eager(table: Any) -> pl.DataFrame:
    found: pl.DataFrame = table.collect() if isinstance(table, pl.LazyFrame) else table
    return found


def _cut(rows: pl.DataFrame, said: Mapping[str, Any]) -> Any:
    if rows.is_empty():
        raise DataError(
            f"no row of the spine {said['spine']} has a label", hint=f"is {said['label']!r} the right column?"
        )
    newest = rows[said["time"]].max()
    return pl.lit(newest) - pl.duration(microseconds=parse_duration(said["holdout"]))


def _some(rows: pl.DataFrame, said: Mapping[str, Any], what: str) -> pl.DataFrame:
    if rows.is_empty():
        raise DataError(
            f"the {what} part of the frame is empty", hint=f"is holdout={said['holdout']!r} longer than the data?"
        )
    return rows
