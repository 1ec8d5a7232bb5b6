"""A light predictor: what serving processes and checks load a model with.

It needs numpy and what the model itself imports; neither mlflow nor polars, and pandas only for a model that selects
its columns by name.
"""

import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from inspect import isgeneratorfunction
from pathlib import Path, PurePosixPath
from typing import Any

import cloudpickle
import msgspec
import numpy as np

from everloop.core.errors import CorruptObject, InvalidInput, NotFound
from everloop.core.ports import Blobs
from everloop.models.flavours import asked, torch_module
from everloop.models.signature import Columns, Field, conform, doubles, matrix_of, whole

CARD = "everloop.json"
"""The file in a model's folder that says how to load and ask it."""

Array = np.ndarray[Any, Any]


class Predictor:
    """A loaded model. `predict` may be called from several threads when the model's own allows it."""

    def __init__(self, estimator: Any, card: Mapping[str, Any]) -> None:
        """Wrap a fitted estimator as its card says; raises `InvalidInput` when it cannot answer so."""
        self.estimator = estimator
        self.inputs = tuple(Field(field["name"], field["type"]) for field in card["inputs"])
        """The columns it takes, in order."""
        self._doubles = None if card.get("frame") else doubles(self.inputs)
        self.output: str = card["output"]
        """`probability`, `probabilities`, `class` or `value`."""
        self.classes: list[Any] | None = card.get("classes")
        """Labels of the columns of `probabilities`."""
        self.frame: str = card.get("frame", "")
        """The library whose DataFrame it wants; empty: a matrix will do."""
        method = "predict_proba" if self.output.startswith("probabilit") else "predict"
        ask: Callable[[Any], Any] | None = asked(estimator, self.output) or getattr(estimator, method, None)
        if ask is None:
            raise InvalidInput(
                f"a {type(estimator).__name__} has no {method}", hint='declare output="class" or output="value"'
            )
        self.streams = isgeneratorfunction(getattr(ask, "__wrapped__", ask))
        """Whether it yields its answer in parts, one row at a time; `parts` gives them."""
        self._ask = ask
        self.engine = "native"
        """By what it answers, and where that is not what was wished for, why."""
        if not self.frame:
            forget_names(estimator)

    def predict(self, columns: Columns) -> dict[str, Array]:
        """`{"prediction": array}` with one entry (for `probabilities`: one row) for each row of `columns`.

        Missing values are None or NaN in float columns. Raises `InvalidInput` naming a column that does not fit.
        """
        return {"prediction": self.scores(columns)}

    def scores(self, columns: Columns) -> Array:
        """The prediction alone; `columns` may be a Polars or pandas frame."""
        answer = self.answer(columns)
        return answer[:, 1] if self.output == "probability" else answer

    def answer(self, columns: Columns) -> Array:
        """What the estimator's method gives: of `predict_proba` every class."""
        arranged = self.arranged(columns)
        if not self.streams:
            return np.asarray(self._ask(arranged))
        answers = [whole(list(self._ask(arranged[row : row + 1]))) for row in range(len(arranged))]
        found = np.empty(len(answers), object)
        found[:] = answers
        return found if any(isinstance(one, str) for one in answers) else np.array(answers)

    def parts(self, columns: Columns) -> Iterator[Any]:
        """What a model that yields gives for one row, part by part; `answer` gives the `whole` of them."""
        yield from self._ask(self.arranged(columns))

    def arranged(self, columns: Columns) -> Any:
        """The matrix or frame that the estimator gets."""
        if (matrix := matrix_of(self._doubles, columns)) is not None:
            return matrix.copy()  # which the estimator may write to
        arrays = conform(self.inputs, columns if isinstance(columns, Mapping) else _columns_of(columns))
        return as_frame(arrays, self.frame) if self.frame else as_matrix(arrays)


def load(folder: Path | str) -> Predictor:
    """Load a model's folder; raises `NotFound` when there is none, `CorruptObject` when it does not load.

    Loading a pickle runs code: load folders that were made from verified objects.
    """
    folder = Path(folder)
    try:
        card = msgspec.json.decode((folder / CARD).read_bytes())
        content = (folder / card["file"]).read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"{folder} holds no model of ours", hint=f"{error.filename} is missing") from error
    code = folder / "code"
    return restore(content, card, code if code.is_dir() else None)


def restore(content: bytes, card: Mapping[str, Any], code: Path | None = None) -> Predictor:
    """A predictor from a pickle's bytes and its card; `code` is a folder with modules that the pickle names."""
    if code is not None and str(code) not in sys.path:
        sys.path.append(str(code))  # last: an installed or already imported module of that name wins
    loads = {"cloudpickle": cloudpickle.loads, "torch": torch_module}.get(card["format"], pickle.loads)
    try:
        estimator = loads(content)
    except Exception as error:
        raise CorruptObject(
            f"the model does not load: {type(error).__name__}: {error}",
            hint="it needs the packages in its requirements.txt",
        ) from error
    return Predictor(estimator, card)


def materialize(manifest: Mapping[str, Any], blobs: Blobs, folder: Path) -> Path:
    """Write a model's tree of files into `folder`, all or nothing; a folder that is there already is kept.

    Raises `NotFound` or `CorruptObject` from the store, `CorruptObject` for a path that leaves the folder.
    """
    if (folder / CARD).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, identity in manifest["files"].items():
            relative = PurePosixPath(name)
            if relative.is_absolute() or ".." in relative.parts:
                raise CorruptObject(f"the model's manifest names {name!r}, outside its folder")
            path = building / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blobs.get(identity))
        try:
            building.rename(folder)
        except OSError:
            if not (folder / CARD).exists():  # not somebody else who was faster
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def as_matrix(arrays: Mapping[str, Array]) -> Array:
    """Columns side by side, as float64 (or objects when there is text), row-major."""
    columns = list(arrays.values())
    kind = object if any(column.dtype.kind == "O" for column in columns) else np.float64
    matrix = np.empty((len(columns[0]) if columns else 0, len(columns)), dtype=kind)
    for position, column in enumerate(columns):
        matrix[:, position] = column
    return matrix


def as_frame(arrays: Mapping[str, Array], library: str) -> Any:
    """Columns as a DataFrame of `pandas` or `polars`, for models that select by name."""
    return import_module(library).DataFrame(dict(arrays))


def forget_names(estimator: Any) -> None:
    """Drop the column names that scikit-learn kept from fitting, everywhere inside, so that arrays need none.

    It uses them to compare, never to compute: the predictor has compared already.
    """
    forget(estimator, "feature_names_in_", lambda thing: hasattr(thing, "get_params"))


def forget(thing: Any, attribute: str, of: Callable[[Any], bool], seen: set[int] | None = None) -> None:
    """Drop an attribute from `thing` and from everything that it holds, of those objects that `of` accepts."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    state = getattr(thing, "__dict__", None)
    if isinstance(thing, list | tuple):
        inner: list[Any] = list(thing)
    elif isinstance(thing, dict):
        inner = list(thing.values())
    elif isinstance(state, dict) and of(thing):
        state.pop(attribute, None)
        inner = list(state.values())
    else:
        return
    for value in inner:
        forget(value, attribute, of, seen)


def _columns_of(frame: Any) -> dict[str, Array]:
    return {str(name): np.asarray(frame[name].to_numpy()) for name in frame.columns}
