"""What is logged of a question to a graph, and how features that were looked up go on as columns."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from everloop.serving.columns import Layout
from everloop.serving.fusing.derived import nulls_apart

if TYPE_CHECKING:
    from everloop.serving.gateway.fleet import Live


def array_of(values: Any) -> np.ndarray[Any, Any]:
    """A column of features: text as objects, a missing number as NaN."""
    if isinstance(values, np.ndarray):
        return values
    if any(isinstance(value, str) for value in values):
        return np.array(values, object)
    return np.array([np.nan if value is None else value for value in values])


def seen(columns: Mapping[str, Any], live: "Live", rows: int) -> tuple[msgspec.Raw, bytes]:
    """The layout and bytes of what models were asked with; a column that a step left out is left out."""
    given = nulls_apart(columns, [name for name in live.revision.nullable if name in columns], rows)
    if all(name in given for name in live.logged.names):
        return live.logged_raw, live.logged.pack(given, rows)
    layout = Layout(tuple(column for column in live.logged.columns if column.name in given))
    return msgspec.Raw(msgspec.msgpack.encode(layout.pairs())), layout.pack(given, rows)


def keys_of(live: "Live", columns: Mapping[str, Any]) -> dict[str, list[str]]:
    """The entity keys of a question, as text."""
    lookup = live.revision.lookup
    if lookup is None:
        return {}
    return {name: [str(value) for value in columns[name]] for name in lookup.keys if name in columns}
