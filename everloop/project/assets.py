"""What a model is made from, as assets: its frames, the packed transforms of its service, and itself."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from everloop.data.definitions import DatasetDef, SourceDef
from everloop.features.definitions import FeatureServiceDef, by_dataset
from everloop.features.transforms.definitions import TransformDef
from everloop.features.vectors.definitions import EncoderDef
from everloop.flows.assets import Asset, define
from everloop.flows.search.definitions import Search
from everloop.models.definitions import TrainerDef
from everloop.models.selection.definitions import Select
from everloop.models.validation.folds import Folds

if TYPE_CHECKING:
    import polars as pl

    from everloop.data.trees.reading import Tree

Table = SourceDef | DatasetDef
_FRAMES = "everloop.features.batch.frames"
_PACK = "everloop.features.transforms.steps:pack_transforms"
_ENCODE = "everloop.features.vectors.encoding:encode"
_SELECT = "everloop.models.selection.steps:choose"
_TRAIN = "everloop.models.training:train"
_VALIDATE = "everloop.models.validation.steps:cross_validated"


def frame_assets(trainer: TrainerDef, service: FeatureServiceDef, spine: Table) -> list[Asset]:
    """Rows, training part and holdout of a model's frame; `service` has its transforms pinned."""
    tables = dict.fromkeys([trainer.spine, *by_dataset(service.views)])
    facts = {
        "views": [[view.name, view.manifest()] for view in service.views],
        "service": service.name,
        "request": list(service.request),
        "spine": trainer.spine,
        "spine_key": list(spine.key),
        "time": spine.event_time,
        "label": trainer.label,
        "label_known": trainer.label_known,
        **_said(service.transforms),
    }
    split = {name: facts[name] for name in ("spine", "time", "label", "label_known")} | {"holdout": trainer.holdout}
    rows = f"frame/{trainer.name}_rows"
    upstream = {name: f"data/{name}" for name in tables}
    function = _holding(service.transforms)
    build = Asset(rows, function, upstream, facts=facts, runner=f"{_FRAMES}:build_rows", place=trainer.place)
    parts = (
        Asset(
            f"frame/{trainer.name}_{part}",
            _frame,
            {"rows": rows},
            facts=split,
            runner=f"{_FRAMES}:take_{part}",
            place=trainer.place,
        )
        for part in ("training", "holdout")
    )
    return [build, *parts]


def encoder_asset(encoder: EncoderDef, contract: Mapping[str, Any], place: str) -> Asset:
    """The dataset of vectors that an encoder makes."""
    reading = _of_rows if encoder.column else _of_files
    return Asset(
        f"data/{encoder.name}",
        functools.partial(reading, encode=encoder.function),
        {"rows": f"data/{encoder.source}"},
        facts={"contract": contract, "encoder": encoder.manifest()},
        runner=_ENCODE,
        place=place,
    )


def _of_rows(rows: "pl.LazyFrame", encode: Callable[..., Any]) -> None:
    """Stands for an encoder over a column of a table, which the runner calls."""


def _of_files(rows: "Tree", encode: Callable[..., Any]) -> None:
    """Stands for an encoder over the files of a folder."""


def transforms_asset(service: FeatureServiceDef, place: str) -> Asset:
    """The functions of a service's transforms, packed for the models that serve with them."""
    facts = {**_said(service.transforms), "format": "json"}
    return Asset(f"value/{_packed(service)}", _holding(service.transforms), facts=facts, runner=_PACK, place=place)


def model_asset(
    trainer: TrainerDef,
    frame: str,
    service: FeatureServiceDef,
    *,
    service_id: str,
    time: str | None,
    search: Search | None = None,
) -> Asset:
    """The model; `frame` is the parameter of its function that gets the training frame."""
    facts = {
        "service": service_id,
        "label": trainer.label,
        "time": time,
        "holdout": trainer.holdout,
        "columns": list(service.columns),
        "output": trainer.output,
        "trainer": trainer.name,
        **({} if trainer.compile is None else {"compile": trainer.compile.manifest()}),
    }
    made = define(
        trainer.function,
        kind="model",
        name=trainer.name,
        upstream={frame: f"frame/{trainer.name}_training"},
        facts=facts,
        runner=_TRAIN,
    )
    # both go to the codec, which measures the model and files the transforms beside it, never to the function
    beside = {"holdout": f"frame/{trainer.name}_holdout"}
    if trainer.select is not None:
        beside["selection"] = f"value/{trainer.name}_selection"
    if search is not None:
        beside["search"] = f"value/{trainer.name}_search"
    if service.transforms:
        beside["transforms"] = f"value/{_packed(service)}"
    searched = search.space if search is not None else {}
    params = {name: value for name, value in made.params.items() if name not in searched}
    return replace(made, upstream={**made.upstream, **beside}, params=params, compute=trainer.compute)


def search_asset(
    trainer: TrainerDef, frame: str, *, columns: tuple[str, ...], time: str | None, search: Search, folds: Folds
) -> Asset:
    """What finds a model's parameters: each trial is cross-validated on the training part of its frame."""
    facts = {
        "columns": list(columns),
        "label": trainer.label,
        "time": time,
        "known": trainer.label_known,
        "output": trainer.output,
        "folds": folds.manifest(),
        "metric": search.metrics[0][0],
    }
    made = define(
        trainer.function,
        name=f"{trainer.name}_search",
        upstream={frame: f"frame/{trainer.name}_training"},
        facts=facts,
        runner=_VALIDATE,
        search=search,
    )
    chosen = {} if trainer.select is None else {"selection": f"value/{trainer.name}_selection"}
    return replace(made, upstream={**made.upstream, **chosen}, compute=trainer.compute)


def selection_asset(trainer: TrainerDef, select: Select, service: FeatureServiceDef, time: str | None) -> Asset:
    """What chooses a model's inputs, on the training part of its frame."""
    facts = {
        "rule": select.manifest(),
        "columns": list(service.columns),
        "label": trainer.label,
        "time": time,
        "format": "json",
    }
    frame = {"frame": f"frame/{trainer.name}_training"}
    return Asset(f"value/{trainer.name}_selection", _frame, frame, facts=facts, runner=_SELECT, place=trainer.place)


def _packed(service: FeatureServiceDef) -> str:
    return f"{service.name}_transforms"


def _said(transforms: tuple[TransformDef, ...]) -> dict[str, Any]:
    return {"transforms": [one.manifest() for one in transforms]} if transforms else {}


def _holding(transforms: tuple[TransformDef, ...]) -> Callable[..., Any]:
    """A function that holds those of the transforms, so that an asset's code is theirs and its runner finds them."""
    functions = {one.name: one.function for one in transforms if one.function}
    return functools.partial(_frame, **functions) if functions else _frame


def _frame(**_transforms: Callable[..., Any]) -> None:
    """Stands for the frames in plans: their runners do the work, so their code is Everloop's release."""
