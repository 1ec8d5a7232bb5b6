"""What an explaining worker loads: the model as it was fitted, and how it is explained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from everloop.core.errors import InvalidInput
from everloop.features.transforms.applying import apply
from everloop.features.transforms.packing import CARD as PACKED
from everloop.features.transforms.packing import load as load_transforms
from everloop.models.explaining.shapley import method_of
from everloop.models.predictor import load as load_model
from everloop.models.signature import conform
from everloop.serving.fusing.derived import masked

LOADER = "everloop.serving.explaining.loader:load"
_SHARE = 0.6
"""Of the budget, what sampling may take; the rest is for the way and for who waits before."""


class Explaining:
    """Answers with explanations: `base` (n,), `output` (n,), `values` (n, k), k inputs in the order of the model's."""

    def __init__(self, folder: Path) -> None:
        """Load the model and its background rows; raises `InvalidInput` when there are none, or no method."""
        self._model = load_model(folder)
        recorded = next((folder / name for name in ("probe.json", "example.json") if (folder / name).is_file()), None)
        if recorded is None:
            raise InvalidInput("the model keeps no rows to compare with", hint="build it again")
        rows = {n: [np.nan if v is None else v for v in values] for n, values in _read(recorded).items()}
        self._method = method_of(self._model, conform(self._model.inputs, rows))
        self._transforms: list[Any] = load_transforms(folder) if (folder / PACKED).is_file() else []
        self.engine = self._method.name
        self.budget = 0.1
        """Seconds that one request may take; the worker sets it."""

    def predict(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The explanation of each row."""
        if self._transforms:
            columns = self._made(masked(columns))
        explained = self._method.explain(conform(self._model.inputs, columns), self.budget * _SHARE)
        return {"base": explained.base, "output": explained.output, "values": explained.values}

    def _made(self, columns: dict[str, Any]) -> dict[str, Any]:
        rows = len(next(iter(columns.values())))
        made = apply(self._transforms, columns, rows)
        return {**columns, **{name: column.plain() for name, column in made.items()}}


def _read(path: Path) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = msgspec.json.decode(path.read_bytes())
    return rows


def load(folder: Path | str) -> Explaining:
    """Load a model's folder to be explained. Runs the author's code."""
    return Explaining(Path(folder))
