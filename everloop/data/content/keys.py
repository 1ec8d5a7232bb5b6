"""Keys as manifests tell them: a part's first and last key as text, and back to values that can be ordered."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
from pyarrow import types

from everloop.core.clock import iso, micros, parse_time
from everloop.data.content.schema import is_bytes, is_text, type_named

Key = tuple[Any, ...]


def _moment(text: str) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=parse_time(text))


_PARSED: tuple[tuple[Callable[[pa.DataType], Any], Callable[[str], Any]], ...] = (
    (is_text, str),
    (types.is_integer, int),
    (types.is_boolean, lambda text: text == "True"),
    (is_bytes, bytes.fromhex),
    (types.is_fixed_size_binary, bytes.fromhex),
    (types.is_decimal, Decimal),
    (types.is_date, date.fromisoformat),
    (lambda type_: type_.equals(pa.timestamp("us", "UTC")), _moment),
)


def key_text(value: Any) -> str:
    """A value of a key as text, for people and manifests."""
    if isinstance(value, datetime):
        return iso(micros(value)) if value.tzinfo else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)


def key_value(text: str, type_: pa.DataType) -> Any:
    """A key's value from its text in the manifest; None where the text does not tell all of it."""
    parse = next((parse for fits, parse in _PARSED if fits(type_)), None)
    return None if parse is None else parse(text)


def key_types(manifest: Mapping[str, Any]) -> list[pa.DataType | None]:
    """The types of the key's columns, as a manifest names them."""
    types = dict(map(tuple, manifest["schema_fields"]))
    return [type_named(types[column]) for column in manifest["key"]]


def end_of(part: Mapping[str, Any], which: Literal["key_min", "key_max"], types: Sequence[pa.DataType | None]) -> Key:
    """The first or the last key of a part; None in the place of what its text does not tell."""
    texts = part.get(which, [None] * len(types))
    return tuple(
        None if text is None or type_ is None else key_value(text, type_)
        for text, type_ in zip(texts, types, strict=True)
    )
