"""The Open Inference Protocol v2 over REST, with the binary tensor extension.

Source: kserve/open-inference-protocol, `inference_rest.md`, and Triton's binary data extension.
Dispatch is on the header `Inference-Header-Content-Length`, never on `Content-Type`: real clients send
none, or the wrong one. A NaN or infinity in an answer is `null` in JSON and itself in binary.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from everloop.core.errors import InvalidInput
from everloop.serving.columns import NUMPY, Columns, Layout, Output, Outputs
from everloop.serving.protocol.question import Question, check_datatype, columns_of_matrix, counted, parse_json
from everloop.serving.protocol.vectors import described, spread

EXTENSIONS = ["binary_tensor_data", "model_repository"]
_LENGTH = struct.Struct("<I")
_JSON = orjson.OPT_SERIALIZE_NUMPY
Array = np.ndarray[Any, Any]


def error_body(message: str) -> bytes:
    """The one form of every error."""
    return orjson.dumps({"error": message})


def metadata(name: str, versions: Sequence[str], layout: Layout, outputs: Outputs) -> dict[str, Any]:
    """Model metadata: one input of shape [-1] a column."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": "everloop",
        "inputs": described(layout),
        "outputs": [{"name": o.name, "datatype": o.datatype, "shape": [-1, *o.tail]} for o in outputs],
    }


def parse(body: bytes, header_length: str | None, layout: Layout) -> Question:
    """Read an inference request; raises `InvalidInput`."""
    if header_length is None:
        return _parse(parse_json(body), memoryview(b""), layout)
    if not header_length.isascii() or not header_length.isdigit() or int(header_length) > len(body):
        raise InvalidInput("Inference-Header-Content-Length is not the length of the body's JSON part")
    length = int(header_length)
    if length == 0:
        return _raw(body, layout)
    return _parse(parse_json(body[:length]), memoryview(body)[length:], layout)


def _parse(request: Any, tail: memoryview, layout: Layout) -> Question:
    if not isinstance(request, dict):
        raise InvalidInput("the request is not a JSON object")
    parameters = request.get("parameters", {})
    inputs = request.get("inputs")
    identity = request.get("id", "")
    if not isinstance(inputs, list) or not inputs:
        raise InvalidInput("the request has no inputs", hint='{"inputs": [{"name", "shape", "datatype", "data"}]}')
    if not isinstance(parameters, dict) or not isinstance(identity, str):
        raise InvalidInput("parameters is not an object, or id is not a text")
    columns, rows = _columns(inputs, tail, layout)
    return Question(
        columns,
        rows,
        identity,
        _wanted(request.get("outputs"), parameters),
        parameters.get("binary_data_output") is True,
        parameters,
    )


def _columns(inputs: list[Any], tail: memoryview, layout: Layout) -> tuple[Columns, int]:
    columns: Columns = {}
    offset = 0
    for tensor in inputs:
        name, values, used = _tensor(tensor, tail[offset:])
        offset += used
        if name in columns:
            raise InvalidInput(f"input {name!r} is there twice")
        columns[name] = values
    if offset != len(tail):
        raise InvalidInput(f"{len(tail) - offset} bytes lie behind the last binary tensor")
    return of_tensors(columns, layout)


def of_tensors(columns: Columns, layout: Layout) -> tuple[Columns, int]:
    """One-dimensional columns of the tensors that a caller named, and their rows; raises `InvalidInput`."""
    columns = spread(columns, layout.names)
    only = next(iter(columns.values()))
    if len(columns) == 1 and only.ndim == 2 and (only.shape[1] != 1 or len(layout.names) != 1):
        whole, _ = columns_of_matrix(only, layout)
        return whole, counted(whole, layout)
    unknown = [name for name in columns if name not in layout.names]
    if unknown:
        raise InvalidInput(f"input {unknown[0][:80]!r} is unknown", hint="the inputs are " + ", ".join(layout.names))
    flat = {name: _one_dimensional(name, values) for name, values in columns.items()}
    return flat, counted(flat, layout)


def _one_dimensional(name: str, array: Array) -> Array:
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim != 1:
        raise InvalidInput(f"input {name!r} has shape {list(array.shape)}", hint="[rows] or [rows, 1]")
    return array


def _tensor(tensor: Any, tail: memoryview) -> tuple[str, Array, int]:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise InvalidInput("an input is not an object with a name")
    name = tensor["name"]
    datatype = check_datatype(name, tensor.get("datatype"))
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**31 for n in shape) or len(shape) > 8:
        raise InvalidInput(f"input {name!r}: shape is not a list of whole numbers")
    count = 1
    for extent in shape:
        count *= extent
    own = tensor.get("parameters", {})
    size = own.get("binary_data_size") if isinstance(own, dict) else None
    if size is None:
        values = _from_json(name, datatype, tensor.get("data"), count)
        return name, values.reshape(shape), 0
    if type(size) is not int or not 0 <= size <= len(tail):
        raise InvalidInput(f"input {name!r}: binary_data_size is not within the body")
    return name, from_binary(name, datatype, tail[:size], count).reshape(shape), size


def _from_json(name: str, datatype: str, data: Any, count: int) -> Array:
    if datatype == "FP16":
        raise InvalidInput(f"input {name!r}: FP16 is sent in binary only")
    if not isinstance(data, list):
        raise InvalidInput(f"input {name!r} has no data")
    if datatype == "BYTES":
        flat = _flattened(name, data)
        if len(flat) != count or not all(v is None or isinstance(v, str) for v in flat):
            raise InvalidInput(f"input {name!r}: data is not {count} texts")
        return np.array(flat, object)
    try:
        array = np.array(data)
    except (ValueError, OverflowError):
        array = np.empty(0, object)
    if array.dtype.kind == "O" and datatype.startswith("FP"):
        flat = _flattened(name, data)
        if all(v is None or isinstance(v, int | float) for v in flat) and all(abs(v or 0) < 2**1000 for v in flat):
            array = np.array([np.nan if v is None else float(v) for v in flat])
    if array.dtype.kind not in "biuf" or array.size != count:
        raise InvalidInput(f"input {name!r}: data is not {count} values of {datatype}", hint="check shape and datatype")
    return exactly(name, array.reshape(-1), datatype)


def exactly(name: str, array: Array, datatype: str) -> Array:
    """The array as `datatype`; raises `InvalidInput` when a value does not fit."""
    dtype = NUMPY[datatype]
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(cast.astype(np.float64), array.astype(np.float64)):
        raise InvalidInput(f"input {name!r}: data does not fit {datatype}")
    return cast


def _flattened(name: str, data: list[Any]) -> list[Any]:
    """The leaves of nested lists; raises `InvalidInput` for ragged ones."""
    flat = data
    while flat and isinstance(flat[0], list):
        if not all(isinstance(value, list) and len(value) == len(flat[0]) for value in flat):
            raise InvalidInput(
                f"input {name!r}: its nested lists are not all of one length", hint="[rows] or [rows, 1]"
            )
        flat = [leaf for value in flat for leaf in value]
    return flat


def from_binary(name: str, datatype: str, raw: memoryview, count: int) -> Array:
    """The values of a binary tensor, flat; raises `InvalidInput`."""
    if datatype != "BYTES":
        dtype = NUMPY[datatype]
        if len(raw) != count * dtype.itemsize:
            raise InvalidInput(f"input {name!r}: {len(raw)} bytes are not {count} values of {datatype}")
        return np.frombuffer(raw, dtype)
    texts: list[str] = []
    offset = 0
    while offset < len(raw):
        end = offset + 4
        if end > len(raw):
            break
        end += _LENGTH.unpack_from(raw, offset)[0]
        try:
            texts.append(str(raw[offset + 4 : end], "utf-8"))
        except UnicodeDecodeError:
            raise InvalidInput(f"input {name!r} holds a text that is not UTF-8") from None
        offset = end
    if offset != len(raw) or len(texts) != count:
        raise InvalidInput(f"input {name!r}: the bytes are not {count} length-prefixed texts")
    return np.array(texts, object)


def _raw(body: bytes, layout: Layout) -> Question:
    """The whole body is the single input; all outputs come back in binary."""
    if len({c.datatype for c in layout.columns}) != 1 or layout.text:
        raise InvalidInput("a raw binary request needs an endpoint whose inputs are all of one numeric type")
    dtype = NUMPY[layout.columns[0].datatype]
    width = len(layout.names)
    if not body or len(body) % (dtype.itemsize * width):
        raise InvalidInput(f"{len(body)} bytes are not whole rows of {width} values")
    columns, _ = columns_of_matrix(np.frombuffer(body, dtype).reshape(-1, width), layout)
    return Question(columns, counted(columns, layout), raw_by_default=True)


def _wanted(outputs: Any, parameters: Mapping[str, Any]) -> tuple[tuple[str, bool], ...] | None:
    if outputs is None:
        return None
    default = parameters.get("binary_data_output") is True
    wanted = []
    for output in outputs if isinstance(outputs, list) else [None]:
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise InvalidInput("outputs is not a list of objects with a name")
        own = output.get("parameters")
        raw = own.get("binary_data", default) if isinstance(own, dict) else default
        wanted.append((output["name"], raw is True))
    return tuple(wanted) or None


def chosen(question: Question, outputs: Outputs) -> list[tuple[Output, bool]]:
    """The outputs to answer with, each with whether raw; raises `InvalidInput` for an unknown one."""
    if question.wanted is None:
        return [(output, question.raw_by_default) for output in outputs]
    known = {output.name: output for output in outputs}
    for name, _ in question.wanted:
        if name not in known:
            raise InvalidInput(f"output {name[:80]!r} is unknown", hint="the outputs are " + ", ".join(known))
    return [(known[name], raw) for name, raw in question.wanted]


def answer_body(
    question: Question,
    outputs: Outputs,
    answer: Mapping[str, Array],
    model: tuple[str, str],
    parameters: Mapping[str, Any],
) -> tuple[bytes, int | None]:
    """The response's body and, where binary tensors follow, the length of its JSON part."""
    listed: list[dict[str, Any]] = []
    tails: list[bytes] = []
    for output, raw in chosen(question, outputs):
        array = answer[output.name]
        entry: dict[str, Any] = {"name": output.name, "shape": list(array.shape), "datatype": output.datatype}
        if raw or output.datatype == "FP16":
            tail = to_binary(array, output.datatype)
            entry["parameters"] = {"binary_data_size": len(tail)}
            tails.append(tail)
        else:
            entry["data"] = array.reshape(-1).tolist()
        listed.append(entry)
    body: dict[str, Any] = {"model_name": model[0], "model_version": model[1], "parameters": parameters}
    if question.id:
        body["id"] = question.id
    body["outputs"] = listed
    encoded = orjson.dumps(body, option=_JSON)
    if not tails:
        return encoded, None
    return b"".join([encoded, *tails]), len(encoded)


def to_binary(array: Array, datatype: str) -> bytes:
    """The bytes of an array as a binary tensor."""
    if datatype != "BYTES":
        return array.astype(NUMPY[datatype], copy=False).tobytes()
    texts = [("" if v is None else str(v)).encode() for v in array.reshape(-1).tolist()]
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
