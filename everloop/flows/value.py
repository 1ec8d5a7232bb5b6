"""The codec of `value` versions: whatever a step returns that is no table and no model.

JSON when the value is made of JSON's types, `.npy` for arrays, an Arrow file for tables; anything else is
pickled by cloudpickle, which the manifest says: such bytes need not repeat, and loading them runs code.
"""

import io
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import cloudpickle
import msgspec
import numpy as np

from everloop.core.errors import InvalidInput
from everloop.core.ports import Blobs, Saved
from everloop.core.version import Version

_JSON_TYPES = (bool, int, float, str, type(None))
EACH = "each"
"""The format of what a step over a list gave: a list of values, each in an object of its own."""


class ValueCodec:
    """Saves by the value's type; `facts["format"]` (json, npy, arrow, pickle) declares it instead."""

    def save(self, value: Any, name: str, blobs: Blobs, facts: Mapping[str, Any]) -> Saved:
        """Store the bytes; raises `InvalidInput` when the value does not fit the declared format."""
        chosen = str(facts.get("format") or _format_of(value))
        try:
            content = _WRITERS[chosen](value)
        except KeyError:
            raise InvalidInput(f"{chosen!r} is not a format of values", hint="one of " + ", ".join(_WRITERS)) from None
        except (TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
            raise InvalidInput(f"value {name!r} cannot be written as {chosen}: {error}") from error
        manifest = {
            "format": chosen,
            "object": blobs.put(content),
            "bytes": len(content),
            "type": f"{type(value).__module__}.{type(value).__qualname__}",
        }
        return Saved(Version("value", name, manifest))

    def load(self, manifest: Mapping[str, Any], blobs: Blobs, placements: Mapping[str, str]) -> Any:
        """Rebuild the value; of a list of values it is a list, with None for items that failed."""
        if manifest["format"] == EACH:
            items = (item_manifest(manifest, number) for number in range(int(manifest["count"])))
            return [None if item is None else self.load(item, blobs, placements) for item in items]
        if "inline" in manifest:
            return msgspec.json.decode(str(manifest["inline"]))
        read: Callable[[bytes], Any] = _READERS[manifest["format"]]
        return read(blobs.get(manifest["object"]))


codec = ValueCodec()
"""The one instance, which jobs name."""


def item_manifest(manifest: Mapping[str, Any], number: int) -> Mapping[str, Any] | None:
    """The manifest of one value of a list of values; None for an item that failed."""
    described = manifest["items"][number]
    if not described:
        return None
    chosen, size, kind = described
    return {
        "kind": "value",
        "format": chosen,
        "object": manifest["files"][f"{number:06d}"],
        "bytes": size,
        "type": kind,
    }


def _format_of(value: Any) -> str:
    if is_json(value):
        return "json"
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return "npy"
    return "arrow" if hasattr(value, "write_ipc") else "pickle"


def is_json(value: Any) -> bool:
    """Whether JSON gives the very same value back: no tuple, no key that is not text, no NaN."""
    if type(value) in _JSON_TYPES:
        return not isinstance(value, float) or bool(np.isfinite(value))
    if type(value) is list:
        return all(is_json(item) for item in value)
    return type(value) is dict and all(type(k) is str and is_json(v) for k, v in value.items())


def _npy(value: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(value), allow_pickle=False)
    return buffer.getvalue()


def _arrow(value: Any) -> bytes:
    buffer = io.BytesIO()
    value.write_ipc(buffer)
    return buffer.getvalue()


def _from_arrow(content: bytes) -> Any:
    return import_module("polars").read_ipc(content)  # loaded only for values that are tables


_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "json": lambda value: msgspec.json.encode(value, order="deterministic"),
    "npy": _npy,
    "arrow": _arrow,
    "pickle": lambda value: cloudpickle.dumps(value, protocol=5),
}
_READERS: dict[str, Callable[[bytes], Any]] = {
    "json": msgspec.json.decode,
    "npy": lambda content: np.load(io.BytesIO(content), allow_pickle=False),
    "arrow": _from_arrow,
    "pickle": cloudpickle.loads,
}
