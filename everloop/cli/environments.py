"""Environments: what they hold, how they moved, going back."""

from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session

environments = typer.Typer(help="Environments: named pointers to snapshots.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(environments, name="env")
    app.command()(rollback)


@environments.command("list")
def list_environments() -> None:
    """All environments of the project."""
    with session.client() as client:
        found = client.call("environments.list").environments
    output.rows(
        found, ["name", "number", "message", "mode", "moved_by", "moved_at"], empty="no environments: everloop init"
    )


@environments.command("show")
def show(environment: Annotated[str, typer.Argument()] = "production") -> None:
    """What an environment holds."""
    with session.client() as client:
        found = client.call("environments.show", environment=environment)
    if output.as_json:
        output.show(found)
        return
    output.say(f"[bold]{found.name}[/] snapshot {found.number}: {found.message}")
    rows = [
        {"key": key, "version": found.labels.get(identity, identity), "id": identity}
        for key, identity in found.entries.items()
    ]
    output.rows(rows, ["key", "version", "id"], empty="nothing")


@environments.command("log")
def log(environment: Annotated[str, typer.Argument()] = "production") -> None:
    """How an environment moved: by whom, when, through which change."""
    with session.client() as client:
        found = client.call("environments.log", environment=environment).moves
    output.rows(found, ["id", "at", "actor", "reason", "change", "new"], empty="it never moved")


@environments.command("live-at")
def live_at(
    time: Annotated[str, typer.Argument(help="ISO 8601; without a zone it means UTC.")],
    environment: Annotated[str, typer.Option()] = "production",
) -> None:
    """What was live at a time."""
    with session.client() as client:
        output.show(client.call("environments.live_at", environment=environment, time=time))


def rollback(
    environment: Annotated[str, typer.Argument()] = "production",
    to: Annotated[str, typer.Option(help="previous, a snapshot's id, or a time.")] = "previous",
    reason: Annotated[str, typer.Option()] = "",
) -> None:
    """Point an environment back to what it held before; one compare-and-swap."""
    with session.client() as client:
        found = client.call("environments.rollback", environment=environment, to=to, reason=reason)
    output.show(found, f"[bold]{found.name}[/] holds snapshot {found.number} again: {found.message}")
