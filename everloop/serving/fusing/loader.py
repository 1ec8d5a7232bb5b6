"""The loader of a model whose feature service has transforms: they and the model answer in one hop, in its worker."""

from pathlib import Path
from typing import Any

import numpy as np

from everloop.core.errors import CorruptObject
from everloop.features.transforms.applying import apply
from everloop.features.transforms.packing import load as load_transforms
from everloop.features.transforms.typed import Typed
from everloop.models.compiled.loader import load as load_model
from everloop.serving.columns import Columns
from everloop.serving.fusing.derived import NULL, PREFIX, masked

LOADER = "everloop.serving.fusing.loader:load"


class Fused:
    """A model and the transforms in front of it."""

    def __init__(self, predictor: Any, transforms: list[Any]) -> None:
        """Answer with `predictor` for what `transforms` make of the columns."""
        self._predictor, self._transforms = predictor, transforms
        self.engine: str = predictor.engine

    def predict(self, columns: Columns) -> dict[str, Any]:
        """What the model answers, and beside it each column that was made, as `derived.<name>`."""
        rows = len(next(iter(columns.values())))
        given = masked(columns)
        made = apply(self._transforms, given, rows)
        asked = {**given, **{name: column.plain() for name, column in made.items()}}
        answer = dict(self._predictor.predict(asked))
        for name, column in made.items():
            answer |= _outputs(PREFIX + name, column)
        return answer


def load(folder: Path | str) -> Fused:
    """Load a model's folder with its transforms; raises `CorruptObject` when it holds none. Runs the author's code."""
    transforms = load_transforms(Path(folder))
    if not transforms:
        raise CorruptObject(f"{folder} holds no transforms", hint="build the model again")
    return Fused(load_model(folder), transforms)


def _outputs(name: str, column: Typed) -> dict[str, Any]:
    if column.kind == "text":
        texts = np.empty(len(column), object)
        texts[:] = column.listed()
        return {name: texts}
    return {name: column.values} if column.kind == "float64" else {name: column.values, name + NULL: ~column.valid}
