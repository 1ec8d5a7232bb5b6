"""Several steps of a graph in one worker, one after the other: transforms, and the model that reads what they make.

Each step is asked with the same columns, cast in the same way, as if it ran in a worker of its own. How long each took
comes back behind the answer, as a column that callers never see.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from everloop.models.signature import Matrix
from everloop.serving.columns import Columns, Layout, Output, Outputs, fixed_column, text_column
from everloop.serving.fusing.derived import NULL, PREFIX
from everloop.serving.modelworker import Predictor, Setup, named
from everloop.serving.modelworker import loaded as loaded_alone

TOOK = PREFIX + "?micros"
"""The output with the microseconds of each step, the same for all rows of a batch."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step, loaded."""

    predictor: Predictor
    layout: Layout
    outputs: Outputs


class Steps:
    """Answers with the last step what the steps before it made possible."""

    def __init__(self, steps: Sequence[Step]) -> None:
        """Ask these in order."""
        self._steps = steps
        self.engine: str = getattr(steps[-1].predictor, "engine", "")
        self.took: list[int] = []
        """Microseconds of each step of the last question, as far as they came to an answer."""

    def predict(self, columns: Columns) -> dict[str, Any]:
        """The last step's answer and `TOOK`; raises what a step raises."""
        rows = len(next(iter(columns.values())))
        there: dict[str, Any] = dict(columns)
        made: set[str] = set()
        self.took = took = []
        answer: Mapping[str, Any] = {}
        for step in self._steps:
            began = time.perf_counter()
            answer = named(step.predictor.predict(_asked(step.layout, there, made, rows)), rows)
            took.append(int((time.perf_counter() - began) * 1e6))
            there |= answer
            made |= answer.keys()
            for name in answer:
                there.pop(name + NULL, None)  # what a step makes has no nulls
        return {**answer, TOOK: np.broadcast_to(np.array(took, np.int32), (rows, len(took)))}


def _asked(layout: Layout, there: Mapping[str, Any], made: set[str], rows: int) -> Columns:
    """What a step is asked with; raises `InvalidInput` for what was made and does not fit it."""
    if layout.matrix is not None:
        matrix = np.empty((rows, len(layout.names)), layout.matrix)
        for place, column in enumerate(layout.columns):
            values = _nulls(there, column.name, rows)
            if column.name in made:
                values = fixed_column(column.name, values, column.datatype)
            matrix[:, place] = values
        return Matrix(layout.names, matrix)
    asked: Columns = {}
    for column in layout.columns:
        name = column.name
        if name not in made:
            asked[name] = _nulls(there, name, rows)
        elif column.datatype == "BYTES":
            asked[name] = text_column(name, there[name])
        else:
            asked[name] = fixed_column(name, there[name], column.datatype)
    return asked


def _nulls(there: Mapping[str, Any], name: str, rows: int) -> Any:
    """A column, or that nothing is null in what it would tell of."""
    return there[name] if name in there or not name.endswith(NULL) else np.zeros(rows, bool)


def loaded(setup: Setup) -> tuple[Steps, Layout, Outputs]:
    """Load and warm each step as if it were alone. Raises whatever a step raises."""
    steps = [Step(*loaded_alone(one)) for one in setup.steps]
    outputs = (*steps[-1].outputs, Output(TOOK, "INT32", (len(steps),)))
    return Steps(steps), Layout.from_pairs(setup.inputs), outputs
