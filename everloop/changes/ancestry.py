"""How two snapshots relate: their best common ancestor, and what one has that the other has not.

Snapshots are numbered when they are first put, and parents are put before children, so numbers rise along
every line. Walking the highest number first meets each snapshot after all of its descendants, which makes the
first common one a best one, and lets the walk end where the two have no more to tell apart.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from everloop.catalog import versions
from everloop.catalog.engine import Tx
from everloop.catalog.versions import VersionRow
from everloop.core.snapshot import Snapshot

_OURS, _THEIRS, _BOTH = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Relation:
    """Where `source` stands to `target`."""

    base: str | None
    """The best common ancestor; of several the newest; None when they share no history."""
    ahead: tuple[VersionRow, ...]
    """Snapshots that led to `source` and not to `target`, newest first."""


def snapshot_of(tx: Tx, project: str, identity: str) -> Snapshot:
    """The snapshot with this id; raises `NotFound`."""
    return Snapshot.from_manifest(versions.get(tx, project, identity).manifest)


def relate(tx: Tx, project: str, source: str, target: str) -> Relation:
    """Compare the histories of two snapshots; costs a look-up for each snapshot since they parted."""
    return relation(lambda identity: versions.get(tx, project, identity), source, target)


def relation(row_of: Callable[[str], VersionRow], source: str, target: str) -> Relation:
    """`relate` over any look-up of snapshots."""
    rows: dict[str, VersionRow] = {}
    sides: dict[str, int] = {}
    queue: list[tuple[int, int, str]] = []

    def reach(identity: str, side: int) -> None:
        if identity not in rows:
            rows[identity] = row = row_of(identity)
            heapq.heappush(queue, (-row.incarnation, -row.number, identity))
        sides[identity] = sides.get(identity, 0) | side

    reach(source, _OURS)
    reach(target, _THEIRS)
    base: str | None = None
    ahead: list[VersionRow] = []
    while queue and (base is None or any(sides[entry[2]] == _OURS for entry in queue)):
        identity = heapq.heappop(queue)[2]
        side = sides[identity]
        if side == _BOTH and base is None:
            base = identity
        if side == _OURS:
            ahead.append(rows[identity])
        for parent in parents_of(rows[identity].manifest):
            reach(parent, side)
    return Relation(base, tuple(ahead))


def parents_of(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The parents that a snapshot's manifest names."""
    return tuple(manifest["parents"])
