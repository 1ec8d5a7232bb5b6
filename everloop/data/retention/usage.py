"""Bytes that versions hold: alone (they would go with the version) and shared with others."""

from collections import Counter
from dataclasses import dataclass

from everloop.catalog import placements, versions
from everloop.catalog.context import Context
from everloop.catalog.governance import redactions


@dataclass(frozen=True, slots=True)
class Usage:
    """What one version holds, in bytes of stored objects; a layered part counts its base."""

    id: str
    label: str
    alone: int
    shared: int
    expired: bool
    """Whether a retention rule let its bytes go."""


def usage(ctx: Context, name: str = "") -> list[Usage]:
    """The figures of every table of the project, or of one dataset's versions; nothing is read but sizes."""
    with ctx.read() as tx:
        tables, placed = redactions.tables(tx, ctx.project), placements.objects(tx, ctx.project)
        bases, gone = placements.rests_of(tx, ctx.project), redactions.expired(tx, ctx.project)
        labels = versions.labels(tx, ctx.project, sorted(tables))
    held = {}
    for version, manifest in tables.items():
        mine = {} if version in gone else {part["logical"] for part in manifest["parts"]}
        objects = {placed[logical] for logical in mine if logical in placed}
        held[version] = objects | {bases[identity] for identity in objects if identity in bases}
    holders = Counter(identity for objects in held.values() for identity in objects)
    sizes = {i: int(ctx.store.size(i)) for i in holders if ctx.store.has(i)}  # type: ignore[attr-defined]
    found = []
    for version, objects in held.items():
        label = labels.get(version, version)
        if name and label.partition(" ")[0] != f"data/{name}":
            continue
        alone = sum(sizes.get(i, 0) for i in objects if holders[i] == 1)
        shared = sum(sizes.get(i, 0) for i in objects if holders[i] > 1)
        found.append(Usage(version, label, alone, shared, version in gone))
    return sorted(found, key=lambda one: (-one.alone, one.label))
