"""Which live feeds a workspace has."""

from everloop.catalog.operating import feeds
from everloop.data.streams.inbox import inboxes
from everloop.workspace.opened import Workspace


def wanted_feeds(workspace: Workspace) -> list[tuple[str, str, str]]:
    """Project, environment and name of every feed to read: those that run, and those to which something was pushed."""
    with workspace.catalog.read() as tx:
        known = feeds.all_feeds(tx)
    running = {(feed.project, feed.environment, feed.name) for feed in known if feed.state == "running"}
    paused = {(feed.project, feed.environment, feed.name) for feed in known if feed.state != "running"}
    return sorted(running | (set(inboxes(workspace.home)) - paused))
