"""Which live feeds a workspace has, and where what they bring goes on to: feature views that serve online."""

import sys
from collections.abc import Callable
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.operating import feeds
from everloop.core.errors import EverloopError
from everloop.data.streams.inbox import inboxes
from everloop.features.operations import Push, push_rows, views_in
from everloop.workspace.opened import Workspace


def wanted_feeds(workspace: Workspace) -> list[tuple[str, str, str]]:
    """Project, environment and name of every feed to read: those that run, and those to which something was pushed."""
    with workspace.catalog.read() as tx:
        known = feeds.all_feeds(tx)
    running = {(feed.project, feed.environment, feed.name) for feed in known if feed.state == "running"}
    paused = {(feed.project, feed.environment, feed.name) for feed in known if feed.state != "running"}
    return sorted(running | (set(inboxes(workspace.home)) - paused))


def onward(ctx: Context, environment: str, name: str) -> Callable[[Any], None]:
    """What a feed's consumer calls with the rows of every commit: pushes them to the views over that feed.

    Pushing again changes nothing, so a view is never wrong. It may lack what was committed just before a process died
    until the next `features.materialize`; a view that refuses rows is told of in the log, and does not stop the feed.
    """

    def push(rows: Any) -> None:
        try:
            if any(view.source == name for _, view in views_in(ctx, environment).values()):
                push_rows(ctx, Push(environment=environment, dataset=name, rows=rows.to_pylist()))
        except EverloopError as error:
            sys.stderr.write(f"feed {name}@{environment}: features: {error.message}\n")
            sys.stderr.flush()

    return push
