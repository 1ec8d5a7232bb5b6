"""The operation that tells what a feature view could not do, counted by the gateways and by its feed."""

import re
from collections.abc import Mapping
from typing import Any

from everloop import data
from everloop.catalog import refs
from everloop.catalog.context import Context
from everloop.catalog.operating import feeds
from everloop.catalog.operation import Answer, operation
from everloop.core.clock import Micros, micros
from everloop.core.errors import NotFound
from everloop.data.streams.origins import DEAD
from everloop.serving.rollout.observe import gateways
from everloop.watch.views import asking
from everloop.watch.views.asking import OfView

_NEWEST = 5


class Letter(Answer):
    """A dead letter of the view's feed. What it says is in the dataset `dead`."""

    at: Micros
    """When it arrived."""
    reason: str


class FeedCounts(Answer):
    """What came over the feed that the view reads."""

    name: str
    state: str
    """running or paused."""
    error: str
    """Why it stands still, or goes on without a view; empty when all is well."""
    rows: int
    """Events that were taken."""
    dead: int
    """Events that were not."""
    by_view: int
    """Those of them that this view refused."""
    newest: list[Letter]
    dataset: str
    """Where dead letters are: time, place, reason and text."""


class ViewCounts(Answer):
    """Rows that the running gateways of the environment were asked for, each since it began, and how they fared."""

    gateways: int
    rows: int = 0
    unknown: int = 0
    """Of entities that the view holds no fact of."""
    stale: int = 0
    """While the view was too old or never filled."""
    unfed: int = 0
    """While the online store did not answer."""
    refused: int = 0
    """In look-ups that were refused."""
    feed: FeedCounts | None = None


@operation("features.counts", needs="read", on=asking.target, reads=True)
def counts(ctx: Context, cmd: OfView) -> ViewCounts:
    """Show how often a feature view had no good answer, and which events it refused."""
    with ctx.read() as tx:
        manifest = asking.held(tx, ctx.project, cmd)[1].manifest
    said = [one for one in gateways(ctx.home, ctx.wall()) if one["environment"] == cmd.environment]
    told: list[Mapping[str, int]] = [one.get("views", {}).get(f"{ctx.project}.{cmd.view}", {}) for one in said]
    summed = {name: sum(one.get(name, 0) for one in told) for name in ("rows", *_REASONS)}
    return ViewCounts(gateways=len(said), **summed, feed=_feed(ctx, cmd, str(manifest["source"])))


_REASONS = ("unknown", "stale", "unfed", "refused")


def _feed(ctx: Context, cmd: OfView, source: str) -> FeedCounts | None:
    with ctx.read() as tx:
        try:
            feed = feeds.get(tx, ctx.project, cmd.environment, source)
        except NotFound:
            return None
        letters = refs.get(tx, ctx.project, refs.head_ref(cmd.environment, source + DEAD))
    mine: list[dict[str, Any]] = []
    by_view = 0
    if letters is not None:
        pattern = f"^feature view {re.escape(cmd.view)}[:,]"  # as every error about a view begins
        frame = data.read(ctx, letters).select("at", "reason").collect()
        found = frame.filter(frame["reason"].str.contains(pattern))
        by_view, mine = found.height, found.tail(_NEWEST).to_dicts()
    return FeedCounts(
        name=source,
        state=feed.state,
        error=feed.error,
        rows=feed.rows,
        dead=feed.dead,
        by_view=by_view,
        newest=[Letter(at=micros(one["at"]), reason=one["reason"]) for one in reversed(mine)],
        dataset=source + DEAD if letters else "",
    )
