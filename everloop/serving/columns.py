"""Typed columns: from what a caller sends to the bytes that a worker reads, and back.

Datatypes are those of the Open Inference Protocol. A `Layout` is the fixed agreement between gateway
and worker: columns of one numeric type lie together as one row-major little-endian matrix, so that a
batch is the concatenation of its requests' bytes; text travels as MessagePack.
"""

import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from everloop.core.errors import InvalidInput
from everloop.models.signature import Matrix

Columns = dict[str, Any]
"""Column name -> list of JSON values, or one-dimensional array; all of one length."""

NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Fixed-width datatypes and how their elements lie in memory; `BYTES` is text or binary of any length."""

DATATYPES: frozenset[str] = frozenset(NUMPY) | {"BYTES"}
_OF_NUMPY = {str(dtype): name for name, dtype in NUMPY.items()}
pack_text = msgspec.msgpack.Encoder().encode
"""The bytes of text columns: a list of lists, one a column."""
_unpack_text = msgspec.msgpack.Decoder(list[list[str | None]]).decode


def datatype_of(array: np.ndarray[Any, Any]) -> str:
    """The datatype of an array; raises `InvalidInput` for one that the protocol cannot carry."""
    if array.dtype.kind in "OUS":
        return "BYTES"
    name = _OF_NUMPY.get(str(array.dtype))
    if name is None:
        raise InvalidInput(f"arrays of {array.dtype} cannot be sent", hint="numbers, booleans or text")
    return name


@dataclass(frozen=True, slots=True)
class Column:
    """One named column and its datatype."""

    name: str
    datatype: str

    def __post_init__(self) -> None:
        """Check the datatype."""
        if self.datatype not in DATATYPES:
            raise InvalidInput(
                f"{self.name}: datatype {self.datatype!r} is unknown", hint="one of " + ", ".join(sorted(DATATYPES))
            )


@dataclass(frozen=True, slots=True)
class _Group:
    names: tuple[str, ...]
    datatype: str
    one_row: struct.Struct | None


_STRUCT = {"FP64": "d", "FP32": "f"} | dict(zip(("INT8", "INT16", "INT32", "INT64"), "bhiq", strict=True))
_STRUCT |= dict(zip(("UINT8", "UINT16", "UINT32", "UINT64"), "BHIQ", strict=True))


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns in order, and how they lie on the wire."""

    columns: tuple[Column, ...]
    names: tuple[str, ...] = field(init=False)
    groups: tuple[_Group, ...] = field(init=False)
    text: tuple[str, ...] = field(init=False)
    row_bytes: int = field(init=False)
    matrix: np.dtype[Any] | None = field(init=False)
    """The type of all columns, where they lie as one matrix and nothing else."""

    def __post_init__(self) -> None:
        """Group the columns by datatype, in the order of first use."""
        of: dict[str, list[str]] = {}
        for column in self.columns:
            of.setdefault(column.datatype, []).append(column.name)
        text = of.pop("BYTES", [])
        groups = [
            _Group(tuple(n), d, struct.Struct(f"<{len(n)}{_STRUCT[d]}") if d in _STRUCT else None)
            for d, n in of.items()
        ]
        object.__setattr__(self, "names", tuple(column.name for column in self.columns))
        object.__setattr__(self, "groups", tuple(groups))
        object.__setattr__(self, "text", tuple(text))
        object.__setattr__(self, "row_bytes", sum(NUMPY[g.datatype].itemsize * len(g.names) for g in groups))
        alone = NUMPY[groups[0].datatype] if len(groups) == 1 and not text else None
        object.__setattr__(self, "matrix", alone)
        if len(set(self.names)) != len(self.names):
            raise InvalidInput("two columns have one name")

    @classmethod
    def from_pairs(cls, pairs: Sequence[Sequence[str]]) -> "Layout":
        """From `[[name, datatype], ...]`, as tables and logs write it."""
        return cls(tuple(Column(str(name), str(datatype)) for name, datatype in pairs))

    def pairs(self) -> list[list[str]]:
        """What `from_pairs` reads."""
        return [[column.name, column.datatype] for column in self.columns]

    def pack(self, columns: Mapping[str, Any], rows: int) -> bytes:
        """The bytes of `rows` rows; raises `InvalidInput` naming a column that is missing or of a wrong type."""
        if type(columns) is Matrix and columns.matrix.dtype == self.matrix and tuple(columns) == self.names:
            return columns.matrix.tobytes()
        missing = [name for name in self.names if name not in columns]
        if missing:
            raise InvalidInput(
                f"column {missing[0]!r} is missing", hint="the columns are " + ", ".join(self.names), missing=missing
            )
        parts = [_pack_group(group, columns, rows) for group in self.groups]
        if self.text:
            parts.append(pack_text([text_column(name, columns[name]) for name in self.text]))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def unpack(self, payload: bytes | memoryview, rows: int) -> Columns:
        """Columns of a payload: strided views for numbers, lists for text. Inverse of `pack`."""
        return self.unpack_batch([(payload, rows)])

    def unpack_batch(self, payloads: Sequence[tuple[bytes | memoryview, int]]) -> Columns:
        """Columns of several payloads, one after the other."""
        if self.matrix is not None:
            joined = payloads[0][0] if len(payloads) == 1 else b"".join(payload for payload, _ in payloads)
            return Matrix(self.names, np.frombuffer(joined, self.matrix).reshape(-1, len(self.names)))
        columns: Columns = {}
        offsets = [0] * len(payloads)
        total = sum(rows for _, rows in payloads)
        for group in self.groups:
            dtype = NUMPY[group.datatype]
            size = dtype.itemsize * len(group.names)
            pieces = []
            for index, (payload, rows) in enumerate(payloads):
                pieces.append(payload[offsets[index] : offsets[index] + size * rows])
                offsets[index] += size * rows
            raw = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            matrix = np.frombuffer(raw, dtype).reshape(total, len(group.names))
            columns.update({name: matrix[:, j] for j, name in enumerate(group.names)})
        if self.text:
            texts: list[list[str | None]] = [[] for _ in self.text]
            for index, (payload, _) in enumerate(payloads):
                for column, values in zip(texts, _unpack_text(payload[offsets[index] :]), strict=True):
                    column.extend(values)
            columns.update(zip(self.text, texts, strict=True))
        return columns


def _pack_group(group: _Group, columns: Mapping[str, Any], rows: int) -> bytes:
    if rows == 1 and group.one_row is not None:
        values = [columns[name][0] for name in group.names]
        try:
            return group.one_row.pack(*values)
        except (struct.error, OverflowError):
            pass  # a missing value, or a wrong one: the general way handles or names it
    if group.datatype == "FP64" and (packed := _pack_lists(group.names, columns, rows)) is not None:
        return packed
    dtype = NUMPY[group.datatype]
    matrix = np.empty((rows, len(group.names)), dtype)
    for index, name in enumerate(group.names):
        matrix[:, index] = fixed_column(name, columns[name], group.datatype)
    return matrix.tobytes()


def _pack_lists(names: Sequence[str], columns: Mapping[str, Any], rows: int) -> bytes | None:
    """The bytes of columns that are lists of numbers, none missing, as doubles; None where some are not."""
    listed = [columns[name] for name in names]
    try:
        flat = b"".join([array("d", values) for values in listed if type(values) is list and len(values) == rows])
    except (TypeError, OverflowError):
        return None  # a missing value, or a wrong one
    if len(flat) != 8 * rows * len(names):
        return None
    return np.frombuffer(flat, np.float64).reshape(len(names), rows).T.tobytes()


def fixed_column(name: str, values: Any, datatype: str) -> np.ndarray[Any, Any]:
    """A numeric column as an array of `datatype`; a missing float is NaN. Raises `InvalidInput`."""
    dtype = NUMPY[datatype]
    if isinstance(values, np.ndarray):
        array = values
    else:
        try:
            array = np.asarray(values)
        except (ValueError, OverflowError):
            raise InvalidInput(f"column {name!r} is not a list of {datatype} values") from None
        if array.dtype.kind == "O" and dtype.kind == "f":
            array = _with_missing(name, values, datatype)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise InvalidInput(
            f"column {name!r} is not a list of {datatype} values",
            hint="one number a row" + ("; null for a missing one" if dtype.kind == "f" else ", none missing"),
        )
    return _cast(name, array, dtype, datatype)


def _with_missing(name: str, values: Sequence[Any], datatype: str) -> np.ndarray[Any, Any]:
    for value in values:
        if value is not None and not isinstance(value, int | float):
            raise InvalidInput(f"column {name!r}: {str(value)[:40]!r} is not a {datatype} value")
    try:
        return np.array([np.nan if value is None else float(value) for value in values], np.float64)
    except OverflowError:
        raise InvalidInput(f"column {name!r} holds a number beyond {datatype}") from None


def _cast(name: str, array: np.ndarray[Any, Any], dtype: np.dtype[Any], datatype: str) -> np.ndarray[Any, Any]:
    if array.dtype == dtype:
        return array
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    # JSON has one kind of number: 3.0 may stand for an integer, 3.5 never does
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
        exact = bool(np.array_equal(cast.astype(np.float64), array.astype(np.float64)))
    if not exact:
        raise InvalidInput(f"column {name!r} holds values that are not {datatype}", hint="whole numbers in range")
    return cast


def text_column(name: str, values: Any) -> list[str | None]:
    """A text column as a list; None is a missing value. Raises `InvalidInput`."""
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(listed, list):
        raise InvalidInput(f"column {name!r} is not a list of texts")
    for value in listed:
        if value is not None and not isinstance(value, str):
            raise InvalidInput(f"column {name!r}: {str(value)[:40]!r} is not a text", hint="put it in quotes")
    return listed


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a model: its name, datatype, and the shape of one row."""

    name: str
    datatype: str
    tail: tuple[int, ...] = ()

    def listed(self) -> list[Any]:
        """`[name, datatype, [tail]]`, as hellos and logs write it."""
        return [self.name, self.datatype, list(self.tail)]


Outputs = tuple[Output, ...]


def outputs_from(listed: Sequence[Sequence[Any]]) -> Outputs:
    """What `listed` wrote."""
    return tuple(Output(str(name), str(datatype), tuple(tail)) for name, datatype, tail in listed)


def describe(answer: Mapping[str, np.ndarray[Any, Any]]) -> Outputs:
    """The outputs that an answer has."""
    return tuple(Output(name, datatype_of(array), array.shape[1:]) for name, array in answer.items())


def pack_answer(outputs: Outputs, answer: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """An answer's bytes: fixed outputs raw and row-major in order, then text as MessagePack."""
    parts = []
    texts = []
    for output in outputs:
        array = answer[output.name]
        if output.datatype == "BYTES":
            texts.append([None if v is None else str(v) for v in array.reshape(-1).tolist()])
        else:
            parts.append(array.astype(NUMPY[output.datatype], copy=False).tobytes())
    if texts:
        parts.append(pack_text(texts))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def width_of(output: Output) -> int:
    """Bytes of one row of an output; 0 for text."""
    fixed = NUMPY.get(output.datatype)
    return 0 if fixed is None else fixed.itemsize * math.prod(output.tail)


def unpack_answer(outputs: Outputs, payload: bytes | memoryview, rows: int) -> dict[str, np.ndarray[Any, Any]]:
    """Inverse of `pack_answer`."""
    answer: dict[str, np.ndarray[Any, Any]] = {}
    offset = 0
    texts: list[Output] = []
    for output in outputs:
        if output.datatype == "BYTES":
            texts.append(output)
            answer[output.name] = _NOTHING  # keeps the order
            continue
        dtype = NUMPY[output.datatype]
        count = rows
        for extent in output.tail:
            count *= extent
        flat = np.frombuffer(payload, dtype, count, offset)
        answer[output.name] = flat.reshape(rows, *output.tail) if output.tail else flat
        offset += count * dtype.itemsize
    if texts:
        for output, values in zip(texts, _unpack_text(payload[offset:]), strict=True):
            answer[output.name] = np.array(values, object).reshape(rows, *output.tail)
    return answer


_NOTHING = np.empty(0)
