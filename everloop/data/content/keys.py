"""Keys as manifests tell them: from the text of a part's first and last key back to values that can be ordered."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyarrow import types

from everloop.core.clock import parse_time
from everloop.data.content.schema import is_bytes, is_text

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


def key_value(text: str, type_: pa.DataType) -> Any:
    """A key's value from its text in the manifest; None where the text does not tell all of it."""
    parse = next((parse for fits, parse in _PARSED if fits(type_)), None)
    return None if parse is None else parse(text)
