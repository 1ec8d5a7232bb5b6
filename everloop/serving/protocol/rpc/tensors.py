"""Between messages of the gRPC service and questions and answers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from everloop.core.errors import InvalidInput
from everloop.serving.columns import Columns, Layout, Outputs
from everloop.serving.protocol import oip
from everloop.serving.protocol.question import Question, check_datatype
from everloop.serving.protocol.rpc.messages import message

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
}
"""Which field holds the values of a datatype; FP16 has none, it travels raw only."""
Array = np.ndarray[Any, Any]


def question_of(request: Any, layout: Layout) -> Question:
    """What a `ModelInferRequest` asks; raises `InvalidInput`."""
    if not request.inputs:
        raise InvalidInput("the request has no inputs", hint="name, datatype, shape and contents of each")
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(f"{len(raw)} raw contents are not one for each of {len(request.inputs)} inputs")
    columns: Columns = {}
    for place, tensor in enumerate(request.inputs):
        if tensor.name in columns:
            raise InvalidInput(f"input {tensor.name[:80]!r} is there twice")
        columns[tensor.name] = _values(tensor, memoryview(raw[place]) if raw else None)
    flat, rows = oip.of_tensors(columns, layout)
    wanted = tuple((output.name, bool(raw)) for output in request.outputs) or None
    said = {name: _said(value) for name, value in request.parameters.items()}
    return Question(flat, rows, request.id, wanted, bool(raw), said)


def _said(parameter: Any) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, kind) if kind else None


def _values(tensor: Any, raw: memoryview | None) -> Array:
    name, shape = tensor.name, list(tensor.shape)
    datatype = check_datatype(name, tensor.datatype)
    count = 1
    for extent in shape:
        count *= extent
    if len(shape) > 8 or any(not 0 <= extent < 2**31 for extent in shape):
        raise InvalidInput(f"input {name[:80]!r}: shape {shape[:9]} is none")
    if raw is not None:
        return oip.from_binary(name, datatype, raw, count).reshape(shape)
    if datatype not in _CONTENTS:
        raise InvalidInput(f"input {name[:80]!r}: {datatype} is sent in raw contents only")
    values = getattr(tensor.contents, _CONTENTS[datatype])
    if len(values) != count:
        raise InvalidInput(f"input {name[:80]!r}: {len(values)} values do not have shape {shape}")
    if datatype == "BYTES":
        return np.array([_text(name, value) for value in values] or [], object).reshape(shape)
    return oip.exactly(name, np.array(values), datatype).reshape(shape)


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"input {name[:80]!r} holds a text that is not UTF-8") from None


def response_of(
    question: Question,
    outputs: Outputs,
    answer: Mapping[str, Array],
    model: tuple[str, str],
    parameters: Mapping[str, Any],
) -> Any:
    """A `ModelInferResponse`: raw contents for who asked with them, or where there is FP16; raises `InvalidInput`.

    A parameter that is no text and no flag (what happened in the graph, an explanation) is JSON.
    """
    response = message("ModelInferResponse")(model_name=model[0], model_version=model[1], id=question.id)
    for name, value in parameters.items():
        if isinstance(value, bool):
            response.parameters[name].bool_param = value
        else:
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            response.parameters[name].string_param = text
    chosen = [output for output, _ in oip.chosen(question, outputs)]
    raw = question.raw_by_default or any(output.datatype == "FP16" for output in chosen)
    for output in chosen:
        array = answer[output.name]
        tensor = response.outputs.add(name=output.name, datatype=output.datatype, shape=array.shape)
        if raw:
            response.raw_output_contents.append(oip.to_binary(array, output.datatype))
        else:
            getattr(tensor.contents, _CONTENTS[output.datatype]).extend(_plain(array, output.datatype))
    return response


def _plain(array: Array, datatype: str) -> list[Any]:
    values: list[Any] = array.reshape(-1).tolist()
    return [("" if value is None else str(value)).encode() for value in values] if datatype == "BYTES" else values
