"""Bytes that versions hold: alone (they would go with the version) and shared with others.

Counted in stored objects, a layered part with its base; of folders in pieces of packs, for a pack is of many versions.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everloop.catalog import placements, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.erasing import files
from everloop.catalog.governance import redactions
from everloop.catalog.trees import packs
from everloop.data import erasure

Sizes = dict[str, int]


@dataclass(frozen=True, slots=True)
class Usage:
    """What one version holds, in bytes."""

    id: str
    label: str
    alone: int
    shared: int
    expired: bool
    """Whether a retention rule let its bytes go."""


def usage(ctx: Context, name: str = "") -> list[Usage]:
    """The figures of every version that holds bytes, or of one asset's: of tables, folders, and files of any kind."""
    with ctx.read() as tx:
        held = _objects(tx, ctx.project)
        gone = redactions.expired(tx, ctx.project)
        labels = versions.labels(tx, ctx.project, sorted(held))
        folders = bool(packs.of(tx, ctx.project))
    sizes: Sizes = {}
    if folders:
        for version, pieces in erasure.folders.pieces_of(ctx).items():
            if version not in gone:
                held[version] |= pieces.keys()
                sizes |= pieces
    holders = Counter(one for objects in held.values() for one in objects)
    sizes |= {i: int(ctx.store.size(i)) for i in holders if i not in sizes and ctx.store.has(i)}  # type: ignore[attr-defined]
    wanted = name if "/" in name or not name else f"data/{name}"
    found = []
    for version, objects in held.items():
        label = labels.get(version, version)
        if wanted and label.partition(" ")[0] != wanted:
            continue
        alone = sum(sizes.get(i, 0) for i in objects if holders[i] == 1)
        shared = sum(sizes.get(i, 0) for i in objects if holders[i] > 1)
        found.append(Usage(version, label, alone, shared, version in gone))
    return sorted(found, key=lambda one: (-one.alone, one.label))


def _objects(tx: Tx, project: str) -> dict[str, set[str]]:
    """{version: the objects that it names, or that hold its parts}."""
    tables: Mapping[str, Mapping[str, Any]] = redactions.tables(tx, project)
    placed, bases = placements.objects(tx, project), placements.rests_of(tx, project)
    gone = redactions.expired(tx, project)
    held: dict[str, set[str]] = {}
    for version, manifest in tables.items():
        mine = {} if version in gone else {part["logical"] for part in manifest["parts"]}
        objects = {placed[logical] for logical in mine if logical in placed}
        held[version] = objects | {bases[identity] for identity in objects if identity in bases}
    for file in files.of_versions(tx, project):
        held.setdefault(file.version, set()).add(file.object)
    return held
