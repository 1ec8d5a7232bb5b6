"""The daily sweep of the object store: what nothing names any more, and what writes that died left behind, goes."""

from typing import Any, Protocol, runtime_checkable

from everloop.catalog import facts, placements, verify
from everloop.catalog.context import Context
from everloop.catalog.keeping import removal
from everloop.core.clock import DAY, SECOND, Micros
from everloop.store import Swept

GRACE: Micros = 7 * DAY
"""How long an object that nothing names stays: far longer than any build stores objects before it records them."""


@runtime_checkable
class Sweepable(Protocol):
    """A store that can be swept."""

    def sweep(self, keep: Any, older_than_seconds: float, *, dry_run: bool = False) -> Swept:
        """See `store.DirectoryStore.sweep`."""


def sweep_store(ctx: Context, *, grace: Micros = GRACE) -> dict[str, Any]:
    """Remove objects that no project names and that nobody put within `grace`; records the fact `store.swept`.

    What was deleted longer than `grace` ago and is referred to by nothing (`keeping.removal`) names nothing any more.

    The store belongs to the workspace, so every project's rows and manifests are asked. Returns the counts.
    """
    if not isinstance(ctx.store, Sweepable):
        return {"removed": 0, "bytes": 0, "kept": 0, "leftovers": 0}
    freed = set()
    before = ctx.now() - grace
    with ctx.read() as tx:
        every = verify.projects(tx)
    for project in every:
        with ctx.write() as tx:
            removal.expire(tx, project, before=before, actor=ctx.actor.name, at=ctx.now())
            gone = removal.release(tx, project, before=before, actor=ctx.actor.name, at=ctx.now())
            freed |= {(project, identity) for identity in gone}
    with ctx.read() as tx:
        kept = placements.reachable(tx, freed=freed)
    swept = ctx.store.sweep(kept.__contains__, grace / SECOND)
    counts = {
        "removed": len(swept.removed),
        "bytes": swept.bytes,
        "kept": swept.kept,
        "leftovers": swept.leftovers,
    }
    with ctx.write() as tx:
        facts.append(tx, ctx.project, ctx.fact("store.swept", "store", {**counts, "grace_days": grace / DAY}))
    return counts
