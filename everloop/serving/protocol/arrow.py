"""Tables of requests and answers: Arrow IPC (stream or file), and Parquet as MLflow's scoring protocol takes it.

Bodies come from outside: they are validated in full before a value is read.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from everloop.core.errors import InvalidInput
from everloop.serving.columns import Columns, Layout, Outputs
from everloop.serving.protocol.question import MAX_BODY, MAX_ROWS, counted
from everloop.serving.protocol.vectors import spread

_FILE = b"ARROW1"


def read(body: bytes, layout: Layout) -> tuple[Columns, int]:
    """Columns and row count of an Arrow stream or file; raises `InvalidInput`."""
    try:
        source = pa.BufferReader(body)
        reader = ipc.open_file(source) if body.startswith(_FILE) else ipc.open_stream(source)
        table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidInput(f"the body is no Arrow table: {str(error)[:200]}", hint="an IPC stream or file") from None
    return _columns(table, layout)


def read_parquet(body: bytes, layout: Layout) -> tuple[Columns, int]:
    """Columns and row count of a Parquet file; raises `InvalidInput`."""
    try:
        file = pq.ParquetFile(pa.BufferReader(body))
        groups = [file.metadata.row_group(place) for place in range(file.metadata.num_row_groups)]
        if file.metadata.num_rows > MAX_ROWS or sum(group.total_byte_size for group in groups) > MAX_BODY:
            raise InvalidInput(f"the table is larger than {MAX_ROWS} rows or {MAX_BODY} bytes", hint="ask in several")
        table = file.read()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidInput(f"the body is no Parquet file: {str(error)[:200]}") from None
    return _columns(table, layout)


def write(outputs: Outputs, answer: Mapping[str, np.ndarray[Any, Any]], parameters: Mapping[str, Any]) -> bytes:
    """The answer as an Arrow stream; what it says about itself is in the schema's metadata, as JSON."""
    columns = {output.name: _column(answer[output.name]) for output in outputs}
    table = pa.table(columns).replace_schema_metadata({"everloop": orjson.dumps(dict(parameters))})
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _columns(table: pa.Table, layout: Layout) -> tuple[Columns, int]:
    if len(set(table.column_names)) != len(table.column_names):
        raise InvalidInput("two columns of the table have one name")
    columns = spread({name: _values(table.column(name)) for name in table.column_names}, layout.names)
    return columns, counted(columns, layout)


def _values(column: pa.ChunkedArray) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    plain = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if plain and column.null_count == 0:
        return column.to_numpy()
    return column.to_pylist()


def _column(array: np.ndarray[Any, Any]) -> pa.Array:
    if array.dtype.kind == "O":
        return pa.array([None if value is None else str(value) for value in array.reshape(-1).tolist()], pa.string())
    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), int(np.prod(array.shape[1:])))
