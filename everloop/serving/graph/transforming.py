"""The loader of a graph's transform: a function of the project in a worker of its own."""

from pathlib import Path
from typing import Any

from everloop.core.errors import CorruptObject
from everloop.features.transforms.applying import apply
from everloop.features.transforms.packing import load as load_transforms
from everloop.serving.columns import Columns
from everloop.serving.fusing.derived import masked


class Transforming:
    """Asks transforms for what they make. A null is what the column holds there: NaN, 0, False or an empty text."""

    def __init__(self, transforms: list[Any]) -> None:
        """Answer with what these make."""
        self._transforms = transforms

    def predict(self, columns: Columns) -> dict[str, Any]:
        """One output a column that is made."""
        rows = len(next(iter(columns.values())))
        made = apply(self._transforms, masked(columns), rows)
        return {name: column.values for name, column in made.items()}


def load(folder: Path | str) -> Transforming:
    """Load the folder of a transform; raises `CorruptObject` when it holds none. Runs the author's code."""
    transforms = load_transforms(Path(folder))
    if not transforms:
        raise CorruptObject(f"{folder} holds no transform", hint="build the endpoint again")
    return Transforming(transforms)
