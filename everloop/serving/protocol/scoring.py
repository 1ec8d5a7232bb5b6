"""MLflow's scoring protocol (`/invocations`) and plain JSON by column names (`/predict`).

Source: mlflow 3, `mlflow/pyfunc/scoring_server`. Exactly one of `dataframe_split`, `dataframe_records`,
`instances`, `inputs`; CSV; Parquet. Columns that the endpoint does not know are dropped, and so are `params`, for no
model here declares any: as MLflow does.
"""

import csv
import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from everloop.core.errors import InvalidInput
from everloop.serving import protocol
from everloop.serving.columns import Columns, Layout, Outputs
from everloop.serving.protocol.question import Question, columns_of_matrix, columns_of_rows, counted, parse_json
from everloop.serving.protocol.vectors import spread, vectors_of

PARQUET = "application/vnd.apache.parquet"
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class UnknownMediaType(InvalidInput):
    """The body is of a content type that is not read here."""

    status = 415


_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}
"""MLflow's words for a status."""


def error_body(message: str, status: int) -> bytes:
    """The one form of every error."""
    code = _CODES.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
    return orjson.dumps({"error_code": code, "message": message})


def parse_invocation(body: bytes, content_type: str, layout: Layout) -> Question:
    """Read an invocation; raises `InvalidInput`, `UnknownMediaType`."""
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    for parameter in filter(None, (p.strip().lower() for p in parameters.split(";"))):
        if parameter.replace(" ", "").replace('"', "") not in ("charset=utf-8", "charset=utf8"):
            raise UnknownMediaType(f"content type parameter {parameter[:40]!r} is unknown", hint="charset=utf-8")
    if kind == PARQUET:
        return Question(*protocol.arrow.read_parquet(body, layout))
    if kind == "text/csv":
        columns = _from_csv(body, layout)
    elif kind == "application/json":
        columns = _from_forms(parse_json(body), layout)
    else:
        raise UnknownMediaType(
            f"content type {kind[:80]!r} is not read here", hint=f"send application/json, text/csv or {PARQUET}"
        )
    return Question(columns, counted(columns, layout))


def _from_forms(request: Any, layout: Layout) -> Columns:
    given = [form for form in FORMS if isinstance(request, dict) and form in request]
    if len(given) != 1:
        raise InvalidInput(
            f"the body has {len(given)} of the forms of input", hint="exactly one of " + ", ".join(FORMS)
        )
    value = request[given[0]]
    if given[0] == "dataframe_split":
        return _from_split(value, layout)
    if given[0] == "dataframe_records" and not isinstance(value, list):
        raise InvalidInput("dataframe_records is not a list of objects")
    return _from_any(value, layout)


def _from_split(value: Any, layout: Layout) -> Columns:
    names = value.get("columns") if isinstance(value, dict) else None
    data = value.get("data") if isinstance(value, dict) else None
    if names is None and isinstance(data, list):
        names = list(layout.names)
    if not isinstance(names, list) or not isinstance(data, list) or not all(isinstance(n, str) for n in names):
        raise InvalidInput('dataframe_split is not {"columns": [...], "data": [[...], ...]}')
    if not all(isinstance(row, list) and len(row) == len(names) for row in data):
        raise InvalidInput(f"dataframe_split: not every row has {len(names)} values")
    if len(set(names)) != len(names):
        raise InvalidInput("dataframe_split: two columns have one name")
    if not data:
        raise InvalidInput("there are no rows to predict for")
    return dict(zip(names, (list(column) for column in zip(*data, strict=True)), strict=True))


def _from_any(value: Any, layout: Layout) -> Columns:
    """Columns of `inputs` or `instances`: an object of columns, objects as rows, or a matrix."""
    if isinstance(value, dict):
        return spread(value, layout.names)
    if not isinstance(value, list) or not value:
        raise InvalidInput("the input is not a list of rows or an object of columns")
    if isinstance(value[0], dict):
        return columns_of_rows(value, layout.names)
    if isinstance(value[0], list):
        return columns_of_matrix(value, layout)[0]
    if len(layout.names) == 1:
        return {layout.names[0]: value}
    raise InvalidInput("a row is neither an object nor a list", hint="the columns are " + ", ".join(layout.names))


def _from_csv(body: bytes, layout: Layout) -> Columns:
    try:
        rows = list(csv.reader(io.StringIO(body.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"the body is not CSV: {error}") from None
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise InvalidInput("the CSV body has no rows", hint="a line of column names, then one line a row")
    names, data = rows[0], rows[1:]
    if any(len(row) != len(names) for row in data):
        raise InvalidInput(f"CSV: not every line has {len(names)} values")
    at = {name: index for index, name in enumerate(names)}
    return {
        column.name: [_csv_value(row[at[column.name]], column.name, column.datatype) for row in data]
        for column in layout.columns
        if column.name in at
    }


def _csv_value(text: str, name: str, datatype: str) -> Any:
    if text == "":
        return None
    if datatype == "BYTES":
        return text
    if datatype == "BOOL" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text) if datatype.startswith("FP") else int(text)
    except ValueError:
        raise InvalidInput(f"column {name!r}: {text[:40]!r} is not a {datatype} value") from None


def parse_plain(body: bytes, layout: Layout) -> Question:
    """Read `{column: value}`, `{column: [values]}` or a list of objects; raises `InvalidInput`."""
    return of_plain(parse_json(body), layout)


def of_plain(request: Any, layout: Layout) -> Question:
    """The same of parsed JSON."""
    if isinstance(request, list):
        columns = columns_of_rows(request, layout.names)
    elif isinstance(request, dict):
        known = _known(layout.names)
        listed = {n: v if isinstance(v, list) else [v] for n, v in request.items() if n in known}
        columns = spread({n: [v] if n not in layout.names and _flat(v) else v for n, v in listed.items()}, layout.names)
    else:
        raise InvalidInput("the body is not an object of columns", hint="the columns are " + ", ".join(layout.names))
    return Question(columns, counted(columns, layout))


@lru_cache(maxsize=64)
def _known(names: tuple[str, ...]) -> frozenset[str]:
    """What a caller may name: columns, and vectors among them."""
    return frozenset((*names, *vectors_of(names)))


def _flat(values: list[Any]) -> bool:
    """Whether it is one vector rather than a list of them."""
    return bool(values) and not isinstance(values[0], list)


def predictions(outputs: Outputs, answer: Mapping[str, np.ndarray[Any, Any]]) -> list[Any]:
    """One entry a row: the value of a single output, or an object of outputs."""
    if len(outputs) == 1:
        return answer[outputs[0].name].tolist()  # type: ignore[no-any-return]  # an array of rows gives a list
    columns = [answer[output.name].tolist() for output in outputs]
    names = [output.name for output in outputs]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def answer_body(outputs: Outputs, answer: Mapping[str, np.ndarray[Any, Any]], parameters: Mapping[str, Any]) -> bytes:
    """`{"predictions": [...]}` with prediction id and revision beside it."""
    return orjson.dumps({"predictions": predictions(outputs, answer), **parameters})
