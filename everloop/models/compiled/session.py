"""A compiled model as it answers: onnxruntime on one thread. Loading one runs no code of the model's."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from everloop.core.errors import InvalidInput
from everloop.models.predictor import Predictor, as_matrix
from everloop.models.signature import Columns, Field, conform, doubles, matrix_of

Array = np.ndarray[Any, Any]
_TYPES = {"tensor(double)": np.float64, "tensor(float)": np.float32, "tensor(int64)": np.int64}


def opened(content: bytes) -> onnxruntime.InferenceSession:
    """A session on the CPU with one thread; the worker, not the model, decides how many work."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class Compiled:
    """A compiled model with the face of a `Predictor`."""

    engine = "onnx"

    def __init__(self, content: bytes, card: Mapping[str, Any], native: Callable[[], Predictor] | None) -> None:
        """Answer with `content` as the card says; `native` loads the fitted model, for who needs that."""
        self._session = opened(content)
        self._inputs = [(one.name, _TYPES.get(one.type)) for one in self._session.get_inputs()]
        outputs = [one.name for one in self._session.get_outputs()]
        self.inputs = tuple(Field(field["name"], field["type"]) for field in card["inputs"])
        self.output: str = card["output"]
        self.classes: list[Any] | None = card.get("classes")
        said = card["compiled"]
        self._dtype = np.dtype(said["dtype"])
        self._refuses_missing = said["missing"] == "refused"
        self._frame = bool(card.get("frame"))
        self._doubles = None if self._frame else doubles(self.inputs)
        # a classifier gives its label first and then what it is made of
        self._wanted = outputs[:1] if self.output == "class" and len(outputs) > 1 else outputs[-1:]
        self.native = native

    def predict(self, columns: Columns) -> dict[str, Array]:
        """`{"prediction": array}`, as `Predictor.predict`."""
        return {"prediction": self.scores(columns)}

    def scores(self, columns: Columns) -> Array:
        """The prediction alone."""
        answer = self.answer(columns)
        return answer[:, 1] if self.output == "probability" else answer

    def answer(self, columns: Columns) -> Array:
        """What the estimator's method gives; raises `InvalidInput` as `conform` does, and for what it refused too."""
        matrix = matrix_of(self._doubles, columns)
        arrays = conform(self.inputs, columns) if matrix is None else {}
        if self._frame:
            typed = [(name, arrays[name] if kind is None else arrays[name].astype(kind)) for name, kind in self._inputs]
            asked = {name: array[:, None] for name, array in typed}
            numbers: Any = [array for array in arrays.values() if array.dtype.kind == "f"]
        else:
            matrix = as_matrix(arrays) if matrix is None else matrix
            ((name, kind),) = self._inputs
            asked, numbers = {name: matrix.astype(kind, copy=False)}, (matrix,)
        if self._refuses_missing and any(np.isnan(array).any() for array in numbers):
            raise InvalidInput("a value is missing, which this model does not take", hint="send a number")
        answer = np.asarray(self._session.run(self._wanted, asked)[0])
        return self._shaped(answer)

    def _shaped(self, answer: Array) -> Array:
        if answer.ndim == 2 and answer.shape[1] == 1:
            answer = answer[:, 0]
        if self.output == "class" and answer.dtype.kind == "f":  # no label of its own: the likeliest class
            place = answer.argmax(axis=1) if answer.ndim == 2 else (answer >= 0.5).astype(np.int64)
            answer = place if self.classes is None else np.asarray(self.classes)[place]
        elif self.output == "probability" and answer.ndim == 1:
            answer = np.column_stack([1 - answer, answer])
        # texts keep their own length: those of the rows that it was verified on may have been short ones
        return answer if self._dtype.kind in "OU" else answer.astype(self._dtype, copy=False)


def load(folder: Path, card: Mapping[str, Any], native: Callable[[Path], Predictor] | None) -> Compiled:
    """The compiled model of a folder."""
    return Compiled((folder / card["compiled"]["file"]).read_bytes(), card, partial(native, folder) if native else None)
