"""A fitted model to ONNX, by the converter of its library. Needs the extra `onnx`."""

import io
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from everloop.core.errors import InvalidInput
from everloop.models.flavours import is_torch, library_of
from everloop.models.signature import Field

_MATRIX = "rows"
_HISTOGRAM = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")


def converted(estimator: Any, fields: Sequence[Field], frame: str, *, double: bool) -> bytes:
    """The ONNX bytes. Its inputs are one matrix `rows`, or where the model wants a DataFrame (`frame`) its columns.

    With `double` scikit-learn's models are converted in double precision, which some need and some refuse; other
    libraries have one form. Raises `InvalidInput` for a model that cannot be converted, whatever the converter says.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # converters warn of their own dependencies
            return _by_library(estimator, fields, frame, double=double)
    except InvalidInput:
        raise
    except Exception as error:
        said = str(error).strip().splitlines()
        raise InvalidInput(
            f"it cannot be converted: {type(error).__name__}: {said[0][:200] if said else ''}",
            hint="it is served as it was fitted",
        ) from error


def _by_library(estimator: Any, fields: Sequence[Field], frame: str, *, double: bool) -> bytes:
    library = library_of(estimator)
    if is_torch(estimator):
        return _torch(estimator, len(fields))
    if library in ("xgboost", "lightgbm"):
        types = import_module("onnxmltools.convert.common.data_types")
        convert = getattr(import_module("onnxmltools.convert"), f"convert_{library}")
        more = {"zipmap": False} if library == "lightgbm" else {}
        shape = [(_MATRIX, types.FloatTensorType([None, len(fields)]))]
        made = convert(estimator, initial_types=shape, **more)
        return bytes(made.SerializeToString(deterministic=True))
    if type(estimator).__name__ in _HISTOGRAM and not frame:
        return bytes(import_module("everloop.models.compiled.histogram").converted(estimator))
    return _sklearn(estimator, fields, frame, double=double)


def _sklearn(estimator: Any, fields: Sequence[Field], frame: str, *, double: bool) -> bytes:
    types = import_module("skl2onnx.common.data_types")
    number = types.DoubleTensorType if double else types.FloatTensorType
    if frame:
        columns = [(f.name, (types.StringTensorType if f.type == "string" else number)([None, 1])) for f in fields]
    else:
        columns = [(_MATRIX, number([None, len(fields)]))]
    options = {"zipmap": False} if hasattr(estimator, "classes_") else None
    made = import_module("skl2onnx").convert_sklearn(estimator, initial_types=columns, options=options)
    return bytes(made.SerializeToString(deterministic=True))


def _torch(module: Any, width: int) -> bytes:
    torch = import_module("torch")
    buffer = io.BytesIO()
    torch.onnx.export(
        module.eval(),
        (torch.zeros(2, width),),
        buffer,
        input_names=[_MATRIX],
        output_names=["answer"],
        dynamic_axes={_MATRIX: {0: "n"}, "answer": {0: "n"}},
        dynamo=False,  # the other exporter needs a package of its own
    )
    return buffer.getvalue()
