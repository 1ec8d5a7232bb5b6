"""What is in service: endpoints, predictions, alarms, what monitors see."""

from typing import Annotated

import typer

from everloop.cli import calling, rollouts
from everloop.cli.output import output
from everloop.cli.session import session

endpoints = typer.Typer(help="Endpoints as wanted and as observed.", no_args_is_help=True)
alarms = typer.Typer(help="Alarms of monitors.", no_args_is_help=True)
Real = Annotated[bool | None, typer.Option("--real/--false-alarm", help="Was it a real change?")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    calling.add_to(endpoints)
    rollouts.add_to(endpoints)
    app.add_typer(endpoints, name="endpoints")
    app.add_typer(alarms, name="alarms")
    app.command()(trace)
    app.command()(watch)


@endpoints.command("list")
def list_endpoints(environment: Annotated[str, typer.Option("--env")] = "production") -> None:
    """Endpoints of an environment."""
    with session.client() as client:
        found = client.call("endpoints.list", environment=environment).endpoints
    output.rows(found, ["name", "phase", "serving", "target", "reason", "address"], empty="no endpoints")


@endpoints.command("show")
def show_endpoint(name: str, environment: Annotated[str, typer.Option("--env")] = "production") -> None:
    """One endpoint: what is wanted, what serves, what the gateways counted."""
    with session.client() as client:
        output.show(client.call("endpoints.show", name=name, environment=environment))


@alarms.command("list")
def list_alarms(everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False) -> None:
    """Alarms, newest first."""
    with session.client() as client:
        found = client.call("alarms.list", all=everything).alarms
    output.rows(found, ["id", "endpoint", "state", "title", "opened"], empty="no alarms")


@alarms.command("acknowledge")
def acknowledge(alarm: str, real: Real = None, note: Annotated[str, typer.Option()] = "") -> None:
    """Say that somebody looks after an alarm."""
    with session.client() as client:
        output.show(client.call("alarms.acknowledge", id=alarm, real=real, note=note))


@alarms.command("resolve")
def resolve(alarm: str, real: Real = None, note: Annotated[str, typer.Option()] = "") -> None:
    """Say that an alarm is over."""
    with session.client() as client:
        output.show(client.call("alarms.resolve", id=alarm, real=real, note=note))


def trace(prediction: Annotated[str, typer.Argument(help="The id in the reply.")]) -> None:
    """From one answer back to its revision, model, rows, code, environment and approver."""
    with session.client() as client:
        output.show(client.call("predictions.trace", id=prediction))


def watch(environment: Annotated[str, typer.Option("--env")] = "production") -> None:
    """Look at every monitor's window that is due now, and let retrain rules fire."""
    with session.client() as client, output.progress("watching"):
        found = client.call("watch.tick", environment=environment)
    output.show(found)
