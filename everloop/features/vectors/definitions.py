"""What an encoder is: a function from a batch of files, texts or rows to vectors of one length."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from everloop.core.errors import DefinitionError
from everloop.core.ids import checked_name
from everloop.features.definitions.feature import Feature
from everloop.features.definitions.functions import last

MOST_DIMENSIONS = 999
"""A dimension is also a column, named by three digits."""


@dataclass(frozen=True, slots=True)
class EncoderDef:
    """A function `(list of bytes or texts) -> array of shape [len, dim]`. Made by `project.encoder`."""

    name: str
    function: Callable[..., Any]
    source: str
    """The dataset or folder that it reads."""
    dim: int
    column: str = ""
    """The column whose values it gets; empty: the bytes of the files of a folder."""
    vector: str = "embedding"
    """The column that it makes, and the stem of the columns of its dimensions."""
    batch: int = 256

    def __post_init__(self) -> None:
        """Check what can be checked without running it."""
        checked_name(self.name)
        checked_name(self.vector)
        if not 1 <= self.dim <= MOST_DIMENSIONS or self.batch < 1:
            raise DefinitionError(
                f"encoder {self.name}: dim={self.dim}, batch={self.batch}", hint=f"1 to {MOST_DIMENSIONS}, at least 1"
            )

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready; the code is pinned by the step."""
        return {
            "source": self.source,
            "dim": self.dim,
            "column": self.column,
            "vector": self.vector,
            "batch": self.batch,
        }


def dimensions(name: str, dim: int) -> tuple[str, ...]:
    """The columns of a vector's dimensions: `embedding_000`, `embedding_001` and so on."""
    return tuple(f"{name}_{place:03d}" for place in range(dim))


def vector(column: str, dim: int, *, ttl: str | None = None, where: Any = None) -> list[Feature]:
    """A vector as a point feature: the newest one, at most `ttl` old; a feature for each dimension, 32-bit values.

    Spread it into the features of a view: `features=[*el.vector("embedding", 64, ttl="30d")]`.
    """
    said: Any = dim
    if not isinstance(said, int) or not 1 <= dim <= MOST_DIMENSIONS:
        raise DefinitionError(f"a vector of {said!r} dimensions", hint=f"1 to {MOST_DIMENSIONS}")
    return [last(name, ttl=ttl, name=name, where=where) for name in dimensions(column, dim)]


def grouped(names: list[str]) -> Mapping[str, list[str]]:
    """Vectors among columns by stem: `x_000`, `x_001`, … in this order; all others are left out."""
    found: dict[str, list[str]] = {}
    for name in names:
        stem, _, place = name.rpartition("_")
        if len(place) == 3 and place.isascii() and place.isdigit() and int(place) == len(found.get(stem, ())):
            found.setdefault(stem, []).append(name)
    return {stem: columns for stem, columns in found.items() if len(columns) > 1}
