"""What of a dataset is stored already: parts that need no writing, and the version before to rest on."""

from everloop.catalog import placements, versions
from everloop.catalog.context import Context
from everloop.data.content.parts import Known
from everloop.data.content.predecessor import Predecessor


def known_to(ctx: Context) -> Known:
    """Whether a part's bytes are stored already, by the catalog and the store."""

    def known(logical: str) -> bool:
        with ctx.read() as tx:
            placed = placements.resolve(tx, ctx.project, [logical])
        return logical in placed and ctx.store.has(placed[logical])

    return known


def before_of(ctx: Context, name: str) -> Predecessor | None:
    """The newest version of a dataset, for the next one to rest on."""
    with ctx.read() as tx:
        newest = versions.history(tx, ctx.project, "data", name, limit=1)
        if not newest or "parts" not in newest[0].manifest:
            return None
        manifest = newest[0].manifest
        placed = placements.resolve(tx, ctx.project, [part["logical"] for part in manifest["parts"]])
    return Predecessor(manifest, placed, ctx.store, ctx.home / "cache")
