"""The codec of `value` versions: whatever a step returns that is no table and no model.

JSON when the value is made of JSON's types, `.npy` for arrays, an Arrow file for tables; anything else is
pickled by cloudpickle, which the manifest says: such bytes need not repeat, and loading them runs code.
"""

import io
import os
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec
import numpy as np
from blake3 import blake3

from everloop.core.errors import InvalidInput
from everloop.core.ids import PREFIX
from everloop.core.ports import Blobs, Saved
from everloop.core.version import Version

_JSON_TYPES = (bool, int, float, str, type(None))
_PIECE = 8 << 20
_LARGE = 1 << 20
"""Bytes from which an array or a table is written straight to a file, and mapped into memory by its readers."""
EACH = "each"
"""The format of what a step over a list gave: a list of values, each in an object of its own."""


class ValueCodec:
    """Saves by the value's type; `facts["format"]` (json, npy, arrow, pickle) declares it instead."""

    def save(self, value: Any, name: str, blobs: Blobs, facts: Mapping[str, Any]) -> Saved:
        """Store the bytes; raises `InvalidInput` when the value does not fit the declared format."""
        chosen = str(facts.get("format") or _format_of(value))
        try:
            if chosen in _STREAMS and _size_of(value) >= _LARGE:
                identity, size = streamed(lambda file: _STREAMS[chosen](value, file), blobs)
            else:
                content = _WRITERS[chosen](value)
                identity, size = blobs.put(content), len(content)
        except KeyError:
            raise InvalidInput(f"{chosen!r} is not a format of values", hint="one of " + ", ".join(_WRITERS)) from None
        except (TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
            raise InvalidInput(f"value {name!r} cannot be written as {chosen}: {error}") from error
        manifest = {
            "format": chosen,
            "object": identity,
            "bytes": size,
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
        chosen = str(manifest["format"])
        if chosen in _MAPPED and int(manifest["bytes"]) >= _LARGE:
            file = getattr(blobs, "path", lambda _identity: None)(manifest["object"])
            if file is not None:
                return _MAPPED[chosen](file)
        read: Callable[[bytes], Any] = _READERS[chosen]
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


def streamed(write: Callable[[Any], None], blobs: Blobs) -> tuple[str, int]:
    """Store what `write` writes into a file: once, hashed while it is written. Returns its id and size."""
    root = getattr(blobs, "root", None)
    folder = root / "tmp" if root is not None else None  # on the store's disk it is renamed, not copied
    handle, name = tempfile.mkstemp(dir=folder, prefix="value-")
    path = Path(name)
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            hashed = _Hashed(file)
            write(hashed)
        identity = f"{PREFIX}{hashed.hasher.hexdigest()}"
        return blobs.put_file(path, move=True, known=identity), hashed.size
    finally:
        path.unlink(missing_ok=True)


class _Hashed:
    """A file for writers that tell everything they write, in order."""

    def __init__(self, file: Any) -> None:
        self._file, self.hasher, self.size = file, blake3(), 0

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        self.hasher.update(view)
        self.size += len(view)
        while view:
            view = view[self._file.write(view) :]
        return len(memoryview(content).cast("B"))

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Whoever made the file closes it."""


def _size_of(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    size = getattr(value, "estimated_size", None)
    return int(size()) if callable(size) else 0


def _stream_npy(value: Any, file: Any) -> None:
    """The same bytes as `np.save`, whose pieces are those of the array itself: nothing is copied."""
    value = np.asarray(value)
    if not value.flags.c_contiguous:
        np.save(file, value, allow_pickle=False)
        return
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(value))
    flat = value.reshape(-1).view(np.uint8)
    for start in range(0, flat.nbytes, _PIECE):
        file.write(flat[start : start + _PIECE])


def _stream_arrow(value: Any, file: Any) -> None:
    value.write_ipc(file, compression="uncompressed")


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
_STREAMS: dict[str, Callable[[Any, Any], None]] = {"npy": _stream_npy, "arrow": _stream_arrow}
_MAPPED: dict[str, Callable[[Path], Any]] = {
    # a reader may write into its own copy of a page; the file stays as it is
    "npy": lambda path: np.load(path, mmap_mode="c", allow_pickle=False),
    "arrow": lambda path: import_module("polars").read_ipc(path),
}
_READERS: dict[str, Callable[[bytes], Any]] = {
    "json": msgspec.json.decode,
    "npy": lambda content: np.load(io.BytesIO(content), allow_pickle=False),
    "arrow": _from_arrow,
    "pickle": cloudpickle.loads,
}
