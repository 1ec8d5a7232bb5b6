"""The OpenAPI description of one endpoint, from the columns that it takes and the outputs that it gives."""

from collections.abc import Mapping, Sequence
from typing import Any

from everloop import __version__
from everloop.serving.columns import Layout, Output, Outputs

_NUMBERS = {"BOOL": {"type": "boolean"}, "BYTES": {"type": "string"}}
_MADE_UP = {"BOOL": False, "BYTES": "text"}
_OTHERS = {"400": "The question is wrong", "404": "There is no such endpoint or revision"} | {
    "429": "Too much waits already; `Retry-After` says when to come again",
    "503": "It cannot answer now; `Retry-After` says when to come again",
}


def describe(
    address: str, number: int, caller: Layout, outputs: Outputs, example: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """OpenAPI 3.1 of the paths below `/endpoints` for one endpoint, with an example of each."""
    row = {c.name: _example(c.name, c.datatype, example) for c in caller.columns}
    fields = {c.name: _schema(c.datatype) for c in caller.columns}
    one = {"type": "object", "properties": fields, "required": list(caller.names)}
    many = {name: {"type": "array", "items": schema} for name, schema in fields.items()}
    several = {"type": "object", "properties": many, "required": list(caller.names)}
    plain = {"oneOf": [one, several, {"type": "array", "items": one}]}
    forms = {
        "dataframe_split": {"columns": list(row), "data": [list(row.values())]},
        "dataframe_records": [row],
        "inputs": {name: [value] for name, value in row.items()},
        "instances": [row],
    }
    invoked = {"oneOf": [{"type": "object", "required": [form], "properties": {form: {}}} for form in forms]}
    examples = {form: {"value": {form: value}} for form, value in forms.items()}
    base = f"/endpoints/{address.replace('.', '/', 1)}"
    return {
        "openapi": "3.1.0",
        "info": {"title": address, "version": str(number), "description": f"Served by Everloop {__version__}."},
        "paths": {
            f"{base}/predict": {"post": _operation("Predict by column names", plain, {"row": {"value": row}}, outputs)},
            f"{base}/invocations": {"post": _operation("MLflow's scoring protocol", invoked, examples, outputs)},
            f"{base}/ping": {"get": {"summary": "Whether it answers", "responses": {"200": {"description": "Yes"}}}},
        },
    }


def _operation(summary: str, schema: Any, examples: Any, outputs: Outputs) -> dict[str, Any]:
    single = _shape(outputs[0]) if len(outputs) == 1 else {"type": "object", "properties": _named(outputs)}
    answer = {
        "type": "object",
        "required": ["predictions"],
        "properties": {
            "predictions": {"type": "array", "items": single},
            "prediction_id": {"type": "string"},
            "revision": {"type": "string"},
            "fallback": {"type": "boolean"},
            "fallback_kind": {"enum": ["previous", "simpler", "cached", "default", "retried"]},
        },
    }
    good = {"description": "One prediction a row", "content": {"application/json": {"schema": answer}}}
    others = {status: {"description": text} for status, text in _OTHERS.items()}
    body = {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}
    return {"summary": summary, "requestBody": body, "responses": {"200": good, **others}}


def _named(outputs: Outputs) -> dict[str, Any]:
    return {output.name: _shape(output) for output in outputs}


def _shape(output: Output) -> dict[str, Any]:
    schema: dict[str, Any] = _schema(output.datatype)
    for extent in reversed(output.tail):
        schema = {"type": "array", "items": schema, "minItems": extent, "maxItems": extent}
    return schema


def _schema(datatype: str) -> dict[str, Any]:
    if datatype in _NUMBERS:
        return dict(_NUMBERS[datatype])
    return {"type": ["number", "null"]} if datatype.startswith("FP") else {"type": "integer"}


def _example(name: str, datatype: str, example: Mapping[str, Sequence[Any]]) -> Any:
    if example.get(name):
        return example[name][0]
    return _MADE_UP.get(datatype, 0.0 if datatype.startswith("FP") else 0)
