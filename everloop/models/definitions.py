"""Definitions of models: pure values, no heavy import."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from everloop.core.clock import parse_duration
from everloop.core.errors import DefinitionError
from everloop.core.ids import checked_name
from everloop.models.compiled.definitions import Onnx
from everloop.models.selection.definitions import Select


@dataclass(frozen=True, slots=True)
class TrainerDef:
    """A model function: it gets a training frame and returns a fitted estimator.

    Raises `DefinitionError` (starting with `place`) for a wrong name or holdout.
    """

    name: str
    function: Callable[..., Any]
    service: str
    """Name of the feature service that gives its inputs, in training and when serving."""
    spine: str
    """Name of the dataset whose rows are asked about."""
    label: str
    """The column of the spine to predict."""
    label_known: str = ""
    """The column with the time from which a row's label is known; empty: at once. Training never looks past it."""
    holdout: str = "14d"
    """The newest stretch of the frame, kept for evaluation and never shown to the function."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Tunable parameters of the function and their defaults."""
    compute: str = ""
    """The profile that it is trained on; empty: the project's default, or the smallest built-in one."""
    output: str = "probability"
    """What it answers: `probability` (of class 1), `probabilities` (of each class), `class`, or `value`."""
    search: Mapping[str, Any] | None = None
    """How its parameters are searched, and the folds that trials are judged by; None: they are as they are."""
    select: Select | None = None
    """Which of the service's columns the function gets; None: all."""
    compile: Onnx | None = None
    """Whether it is compiled when it is packaged; the compiled form serves where it was verified."""
    place: str = ""
    """`file:line` of the definition."""

    def __post_init__(self) -> None:
        """Check what can be checked without running anything."""
        at = f"{self.place}: " if self.place else ""
        checked_name(self.name)
        try:
            parse_duration(self.holdout)
        except ValueError as error:
            raise DefinitionError(
                f"{at}the holdout of model {self.name!r}: {error}", hint='for example "14d"'
            ) from None
        if self.output not in OUTPUTS:
            raise DefinitionError(
                f"{at}model {self.name!r} declares output={self.output!r}", hint="one of " + ", ".join(OUTPUTS)
            )

    def manifest(self) -> dict[str, Any]:
        """The definition's manifest; the function's code is not in it (a recipe pins that)."""
        said: dict[str, Any] = {
            "name": self.name,
            "function": f"{self.function.__module__}:{self.function.__qualname__}",
            "service": self.service,
            "spine": self.spine,
            "label": self.label,
            "label_known": self.label_known,
            "holdout": self.holdout,
            "params": {name: repr(value) for name, value in self.params.items()},
            "compute": self.compute or "default",
            "output": self.output,
        }
        if self.compile is not None:
            said["compile"] = self.compile.manifest()
        if self.search is not None:
            said["search"] = dict(self.search)
        return said if self.select is None else {**said, "select": self.select.manifest()}


OUTPUTS = ("probability", "probabilities", "class", "value")
"""What a model may answer."""
