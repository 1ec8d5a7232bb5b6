"""Which parts of two versions may hold rows of one key: so that they can be compared apart from all others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from everloop.data.content.keys import Key, end_of, key_types

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
    types = key_types(manifest)
    spans = [(end_of(part, "key_min", types), end_of(part, "key_max", types)) for _, part in parts]
    found: list[Cluster] = []
    if not types or any(None in (*first, *last) for first, last in spans):
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
