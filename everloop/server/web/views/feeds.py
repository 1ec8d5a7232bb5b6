"""Live feeds: rate, delay, what waits, dead letters."""

from starlette.responses import Response

from everloop.server.web.visit import Visit


def index(visit: Visit) -> Response:
    """All feeds of the project."""
    found = visit.ask("feeds.list").feeds
    return visit.page("feeds.html", title="Live feeds", here="/data", feeds=found)
