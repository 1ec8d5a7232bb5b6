"""Log segments that are older than a rule keeps: they go whole, and who asks for what lay in them is told so."""

from everloop.catalog.context import Context
from everloop.catalog.governance import holds
from everloop.catalog.operating import predictions
from everloop.core.clock import SECOND, Micros
from everloop.serving import log


def expire_segments(ctx: Context, before: Micros, *, dry_run: bool = False) -> int:
    """Remove segments whose last frame was written before a wall time and that are ingested whole; returns how many.

    A gateway's log is of every project that it serves, so the rule of one takes the segments of all, and a legal hold
    of one keeps them.
    """
    with ctx.read() as tx:
        if holds.PREDICTIONS in holds.standing(tx):
            return 0
    root, count = ctx.home / "serving" / "log", 0
    for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []:
        with ctx.read() as tx:
            known = predictions.segments(tx, folder.name)
        for path in log.segments(folder)[:-1]:  # the newest may be open
            ingested = known.get(int(path.stem))
            if ingested is None or not ingested.closed or path.stat().st_mtime * SECOND >= before:
                continue
            count += 1
            if not dry_run:
                path.unlink(missing_ok=True)
    return count + _expire_shadows(ctx, before, dry_run=dry_run)


def _expire_shadows(ctx: Context, before: Micros, *, dry_run: bool) -> int:
    """What shadows answered goes with the questions; nothing is ingested of it."""
    count = 0
    for folder in sorted((ctx.home / "serving" / "shadow").glob("*")):
        for path in log.segments(folder)[:-1]:
            if path.stat().st_mtime * SECOND < before:
                count += 1
                if not dry_run:
                    path.unlink(missing_ok=True)
    return count
