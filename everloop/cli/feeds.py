"""Live feeds: how they stand, start, pause, and a consumer in the foreground."""

import os
import sys
from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.settings import to_environment

feed = typer.Typer(help="Live feeds: events that arrive become versions of a dataset.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The source's name.")]
Where = Annotated[str, typer.Option("--env", help="The environment that is fed.")]
_COLUMNS = ["name", "environment", "kind", "state", "rows", "dead", "duplicates", "rate", "delay", "waiting", "error"]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(feed, name="feed")


@feed.command("list")
def list_feeds() -> None:
    """Feeds with their rate, delay, what waits, and dead letters."""
    with session.client() as client:
        found = client.call("feeds.list").feeds
    output.rows([one.model_dump(mode="json") for one in found], _COLUMNS, empty="nothing was fed yet")


@feed.command("show")
def show(name: Name, environment: Where = "production") -> None:
    """How one feed stands."""
    with session.client() as client:
        output.show(client.call("feeds.show", name=name, environment=environment))


@feed.command("start")
def start(name: Name, environment: Where = "production") -> None:
    """Have a worker read a feed, from where it was left. A pushed feed starts with its first batch."""
    with session.client() as client:
        output.show(client.call("feeds.start", name=name, environment=environment))


@feed.command("pause")
def pause(name: Name, environment: Where = "production") -> None:
    """Stop reading a feed; what arrives waits."""
    with session.client() as client:
        output.show(client.call("feeds.pause", name=name, environment=environment))


@feed.command("replay")
def replay(
    name: Name,
    environment: Where = "production",
    reason: Annotated[str, typer.Option(help="Only letters whose reason has this in it.")] = "",
) -> None:
    """Send the dead letters of a pushed feed again, after what refused them was mended. The same ones count once."""
    with session.client() as client:
        output.show(client.call("feeds.replay", name=name, environment=environment, reason=reason))


@feed.command("run")
def run(name: Name, environment: Where = "production") -> None:
    """Read one feed in the foreground, until Ctrl-C; at most one consumer reads a feed at a time."""
    settings = session.settings
    which = f"{settings.project}/{name}@{environment}"
    environ = {**os.environ, **to_environment(settings)}
    words = [sys.executable, "-P", "-m", "everloop.server.feeds.reader", which]
    os.execve(sys.executable, words, environ)  # noqa: S606 - our own interpreter and module; signals reach it directly
