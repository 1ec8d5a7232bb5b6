"""Which parts of two versions may hold rows of one key: so that they can be compared apart from all others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from everloop.data.content.keys import Key, key_value
from everloop.data.content.schema import type_named

Parts = list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Parts of both versions, as manifests list them. No key in them is in a part of another cluster."""

    old: Parts = field(default_factory=list)
    new: Parts = field(default_factory=list)


def clusters(manifest: Mapping[str, Any], old: Sequence[Any], new: Sequence[Any]) -> list[Cluster]:
    """Parts of two versions with the key and types of `manifest`, grouped where their ranges of keys overlap.

    In order of the key; one cluster of all where manifests do not tell how keys are ordered. Parts without rows go.
    """
    parts = [(False, part) for part in old if part["rows"]] + [(True, part) for part in new if part["rows"]]
    types = dict(map(tuple, manifest["schema_fields"]))
    names = [types[column] for column in manifest["key"]]
    spans = [(_key(part, "key_min", names), _key(part, "key_max", names)) for _, part in parts]
    found: list[Cluster] = []
    if not names or any(None in (*first, *last) for first, last in spans):
        found.append(Cluster())
        for newer, part in parts:
            _add(found[-1], newer, part)
        return found
    end: Key = ()
    for index in sorted(range(len(parts)), key=lambda i: spans[i][0]):
        first, last = spans[index]
        if not found or first > end:
            found.append(Cluster())
        end = max(end, last)
        _add(found[-1], *parts[index])
    return found


def _add(cluster: Cluster, newer: bool, part: Mapping[str, Any]) -> None:
    (cluster.new if newer else cluster.old).append(part)


def _key(part: Mapping[str, Any], which: str, names: Sequence[str]) -> Key:
    texts = part.get(which, [None] * len(names))
    types = [type_named(name) for name in names]
    return tuple(
        None if text is None or type_ is None else key_value(text, type_)
        for text, type_ in zip(texts, types, strict=True)
    )
