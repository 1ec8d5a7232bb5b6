"""Which keys the values of a column hold, whatever its type: items of lists and members of structs count as well."""

import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from everloop.catalog.erasing.mentions import Mentions

Rows = np.ndarray[Any, np.dtype[np.bool_]]
_UUID = 16


def rows(column: pa.ChunkedArray, key: str) -> Rows:
    """Which rows hold a key (given as text): a number as it is written, a UUID in its usual form or in hex."""
    return _joined([_rows(chunk, key) for chunk in column.chunks])


def speaking(column: pa.ChunkedArray, mentions: Mentions) -> Rows:
    """Which rows speak of a subject in their text."""
    if isinstance(column.type, pa.DictionaryType):
        column = column.cast(column.type.value_type)
    if pa.types.is_primitive(column.type):  # numbers and times: nobody is spoken of in them
        return np.zeros(len(column), bool)
    if not _is_text(column.type):
        return np.fromiter((mentions.in_text(str(v)) for v in column.to_pylist()), bool, len(column))
    found = np.zeros(len(column), bool)
    for form in mentions.forms:  # nearly all rows hold none of them, which Arrow tells in no time
        found |= pc.fill_null(pc.match_substring(column, form), False).to_numpy().astype(bool)
    for row in np.flatnonzero(found).tolist():
        found[row] = mentions.in_text(column[row].as_py())
    return found


def keys(column: pa.ChunkedArray) -> pa.Array:
    """Every key that a column holds, as text and once, in no order; nulls are none."""
    texts = [text for chunk in column.chunks for text in _texts(chunk)]
    return pc.drop_null(pc.unique(pa.chunked_array(texts, pa.large_string())))


def forms(key: str) -> tuple[str, ...]:
    """A key as columns may write it: as it is, and a UUID as `keys` writes it."""
    try:
        return tuple(dict.fromkeys((key, str(uuid.UUID(key)))))
    except ValueError:
        return (key,)


def _rows(array: pa.Array, key: str) -> Rows:
    array = _plain(array)
    if pa.types.is_struct(array.type):
        found = np.zeros(len(array), bool)
        for member in array.flatten():
            found |= _rows(member, key)
        return found
    if _is_list(array.type):
        found = np.zeros(len(array), bool)
        within = _rows(pc.list_flatten(array), key)
        found[pc.list_parent_indices(array).to_numpy()[within]] = True
        return found
    text = _as_text(array)
    if text is None:
        return np.zeros(len(array), bool)
    return np.asarray(pc.is_in(text, pa.array(forms(key), pa.large_string())).to_numpy(zero_copy_only=False), bool)


def _texts(array: pa.Array) -> Iterator[pa.Array]:
    array = _plain(array)
    if pa.types.is_struct(array.type):
        for member in array.flatten():
            yield from _texts(member)
    elif _is_list(array.type):
        yield from _texts(pc.list_flatten(array))
    elif (text := _as_text(array)) is not None:
        yield text


def _plain(array: pa.Array) -> pa.Array:
    """The array without dictionary, extension and map, which list functions do not take."""
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage)
    if isinstance(array.type, pa.DictionaryType):
        return array.cast(array.type.value_type)
    if isinstance(array.type, pa.MapType):
        pair = pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])
        return array.cast(pa.list_(pair))
    return array


def _as_text(array: pa.Array) -> pa.Array | None:
    """Values as text; None for truth values, which hold no key."""
    if _is_uuid(array.type):
        return pa.array([v and str(uuid.UUID(bytes=v)) for v in array.to_pylist()], pa.large_string())
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return pa.array([v and v.decode("utf-8", "replace") for v in array.to_pylist()], pa.large_string())
    if pa.types.is_fixed_size_binary(array.type):
        return pa.array([v and v.hex() for v in array.to_pylist()], pa.large_string())
    if pa.types.is_null(array.type) or pa.types.is_boolean(array.type):
        return None
    return array.cast(pa.string()).cast(pa.large_string())


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _is_uuid(type_: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(type_) and type_.byte_width == _UUID)


def _joined(found: list[Rows]) -> Rows:
    return np.concatenate(found) if found else np.zeros(0, bool)
