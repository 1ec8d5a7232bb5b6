"""Features: views and services, look-ups online, materialising."""

from typing import Annotated, Any

import typer

from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.errors import InvalidInput

features = typer.Typer(help="Feature views and services.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(features, name="features")


@features.command("list")
def list_features(environment: Annotated[str, typer.Option("--env")] = "production") -> None:
    """Views and services of an environment, and how fresh they are online."""
    with session.client() as client:
        output.show(client.call("features.list", environment=environment))


@features.command("get")
def get(
    service: Annotated[str, typer.Argument(help="A feature service.")],
    entities: Annotated[list[str], typer.Argument(help="column=value for each entity column.")],
    environment: Annotated[str, typer.Option("--env")] = "production",
) -> None:
    """Look features up online, as the gateway does."""
    row: dict[str, Any] = {}
    for entity in entities:
        column, equals, value = entity.partition("=")
        if not equals:
            raise InvalidInput(f"{entity!r} is not of the form column=value")
        row[column] = int(value) if value.lstrip("-").isdigit() else value
    with session.client() as client:
        output.show(client.call("features.get", service=service, entities=[row], environment=environment))


@features.command("materialize")
def materialize(environment: Annotated[str, typer.Option("--env")] = "production") -> None:
    """Bring the online store up to the environment's data heads."""
    with session.client() as client, output.progress("materializing"):
        found = client.call("features.materialize", environment=environment)
    output.show(found)
