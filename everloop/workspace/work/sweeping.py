"""The daily sweep of the object store: what nothing names any more, and what writes that died left behind, goes."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from everloop.catalog import facts, placements, verify
from everloop.catalog.context import Context
from everloop.catalog.keeping import removal
from everloop.catalog.trees.packs import of as packs_of
from everloop.core.clock import DAY, SECOND, Micros
from everloop.core.errors import Conflict
from everloop.data import trees
from everloop.store import Swept

GRACE: Micros = 7 * DAY
"""How long an object that nothing names stays: far longer than any build stores objects before it records them."""


@runtime_checkable
class Sweepable(Protocol):
    """A store that can be swept."""

    def sweep(self, keep: Any, older_than_seconds: float, *, dry_run: bool = False) -> Swept:
        """See `store.DirectoryStore.sweep`."""


def sweep_store(ctx: Context, *, grace: Micros = GRACE, dry_run: bool = False) -> dict[str, Any]:
    """Remove objects that no project names and that nobody put within `grace`; records the fact `store.swept`.

    What was deleted longer than `grace` ago and is referred to by nothing (`keeping.removal`) names nothing any more.
    Packs of which too much is wanted by no version are written again first; the old ones go with a later sweep.

    The store belongs to the workspace, so every project's rows and manifests are asked. Returns the counts; a dry run
    changes nothing.
    """
    if not isinstance(ctx.store, Sweepable):
        return {"removed": 0, "bytes": 0, "kept": 0, "leftovers": 0, "packs": 0, "freed": 0}
    with ctx.read() as tx:
        every = verify.projects(tx)
    packs, freed = _compacted(ctx, every, dry_run=dry_run)
    kept = _wanted(ctx, every, ctx.now() - grace, dry_run=dry_run)
    swept = ctx.store.sweep(kept.__contains__, grace / SECOND, dry_run=dry_run)
    counts = {
        "removed": len(swept.removed),
        "bytes": swept.bytes,
        "kept": swept.kept,
        "leftovers": swept.leftovers,
        "packs": packs,
        "freed": freed,
    }
    if not dry_run:
        with ctx.write() as tx:
            facts.append(tx, ctx.project, ctx.fact("store.swept", "store", {**counts, "grace_days": grace / DAY}))
    return counts


def _compacted(ctx: Context, every: Sequence[str], *, dry_run: bool) -> tuple[int, int]:
    """Packs that are written again, and the bytes in them that nobody wants; where somebody captures, tomorrow does."""
    count = freed = 0
    for project in every:
        mine = replace(ctx, project=project, act=None)
        with mine.read() as tx:
            if not packs_of(tx, project):
                continue
        try:
            done = trees.compact(mine, dry_run=dry_run)
        except Conflict:
            continue
        count += done.rewritten + done.removed
        freed += done.freed
    return count, freed


def _wanted(ctx: Context, every: Sequence[str], before: Micros, *, dry_run: bool) -> set[str]:
    """The objects that are named once what was deleted before a time is free; a dry run takes that back."""
    freed: set[tuple[str, str]] = set()
    actor, at = ctx.actor.name, ctx.now()
    if dry_run:
        kept: set[str] = set()
        with suppress(_TakenBackError), ctx.catalog.write() as tx:
            for project in every:
                removal.expire(tx, project, before=before, actor=actor, at=at)
                gone = removal.release(tx, project, before=before, actor=actor, at=at)
                freed |= {(project, identity) for identity in gone}
            kept = placements.reachable(tx, freed=freed)
            raise _TakenBackError
        return kept
    for project in every:
        with ctx.write() as tx:
            removal.expire(tx, project, before=before, actor=actor, at=at)
            gone = removal.release(tx, project, before=before, actor=actor, at=at)
            freed |= {(project, identity) for identity in gone}
    with ctx.read() as tx:
        return placements.reachable(tx, freed=freed)


class _TakenBackError(Exception):
    """Ends a transaction that must change nothing."""
