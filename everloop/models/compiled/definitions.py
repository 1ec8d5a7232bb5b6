"""What an author says about compiling a model: a pure value."""

import math
from dataclasses import dataclass

from everloop.core.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Onnx:
    """Compile the model to ONNX when it is packaged, and serve that where it answers as the fitted model does."""

    tolerance: float = 1e-5
    """How far a number may be off, absolutely below 1 and relatively above. Classes must be the same."""

    def __post_init__(self) -> None:
        """Check the tolerance."""
        if not (math.isfinite(self.tolerance) and 0 <= self.tolerance < 1):
            raise DefinitionError(f"a tolerance of {self.tolerance!r}", hint="a small number, for example 1e-5")

    def manifest(self) -> dict[str, str]:
        """Format and tolerance."""
        return {"format": "onnx", "tolerance": repr(float(self.tolerance))}
