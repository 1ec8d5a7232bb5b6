"""Steps over lists: the items of a list value, each with an identity of its own, and the list of what came out."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from everloop.core.errors import InvalidInput
from everloop.core.ids import manifest_id
from everloop.core.ports import Blobs
from everloop.core.version import Version
from everloop.flows.value import EACH, codec, is_json, item_manifest

_INLINE = 64 * 1024
"""Bytes of JSON that an item may have to be handed over inside its job."""


def items_of(key: str, manifest: Mapping[str, Any], blobs: Blobs) -> list[tuple[str, Mapping[str, Any]]]:
    """The items of a list version as (id, manifest); equal items have one id. Raises `InvalidInput` for another value.

    What a step over a list gave is taken item by item, without being read; items that failed there are left out.
    """
    if manifest.get("format") == EACH:
        found = [one for one in (item_manifest(manifest, n) for n in range(int(manifest["count"]))) if one is not None]
        return [(manifest_id(one), one) for one in found]
    if manifest.get("kind") != "value":
        raise InvalidInput(f"{key} is no list of values", hint="a step over a list needs a value that is a list")
    value = codec.load(manifest, blobs, {})
    if not isinstance(value, list | tuple):
        raise InvalidInput(f"{key} gives a {type(value).__name__}, not a list", hint="return a list of items")
    return [_item(item, blobs) for item in value]


def _item(value: Any, blobs: Blobs) -> tuple[str, Mapping[str, Any]]:
    if is_json(value):
        content = msgspec.json.encode(value, order="deterministic")
        if len(content) <= _INLINE:
            made: dict[str, Any] = {"kind": "value", "format": "json", "inline": content.decode()}
            return manifest_id(made), made
    made = {"kind": "value", **codec.save(value, "item", blobs, {}).version.manifest}
    return manifest_id(made), made


def together(
    name: str, items: Sequence[tuple[str, Mapping[str, Any]] | None], lineage: Sequence[tuple[str, str]]
) -> Version:
    """The version of the list of what came out, in order; None stands for an item that failed."""
    files: dict[str, str] = {}
    described: list[list[Any]] = []
    failed: list[int] = []
    for number, item in enumerate(items):
        if item is None:
            failed.append(number)
            described.append([])
            continue
        manifest = item[1]
        if manifest.get("kind", "value") != "value" or "object" not in manifest:
            raise InvalidInput(f"value/{name}: a step over a list gives values", hint="return a plain value an item")
        files[f"{number:06d}"] = str(manifest["object"])
        described.append([manifest["format"], manifest["bytes"], manifest["type"]])
    made = {"format": EACH, "count": len(items), "files": files, "items": described, "failed": failed}
    sources = dict.fromkeys([*lineage, *(("item", item[0]) for item in items if item is not None)])
    return Version("value", name, made, tuple(sources))
