"""Features: views and services, look-ups online, materialising."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from everloop import features as views
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
    row = {}
    for entity in entities:
        column, equals, value = entity.partition("=")
        if not equals:
            raise InvalidInput(f"{entity!r} is not of the form column=value", hint="for example origin=JFK")
        row[column] = value
    with session.client() as client:
        output.show(client.call("features.get", service=service, entities=[row], environment=environment))


@features.command("show")
def show(
    view: Annotated[str, typer.Argument(help="A feature view.")],
    environment: Annotated[str, typer.Option("--env")] = "production",
) -> None:
    """A view: its features, how far it is filled, where its facts come from, who uses it."""
    with session.client() as client:
        output.show(client.call("features.show", view=view, environment=environment))


@features.command("history")
def history(  # noqa: PLR0917 - typer's way: one parameter an option
    service: Annotated[str, typer.Argument(help="A feature service.")],
    questions: Annotated[Path, typer.Argument(help="Parquet or CSV: entity columns and a time.")],
    at: Annotated[str, typer.Option(help="The column with the time of each question.")],
    out: Annotated[Path, typer.Option(help="Where the frame goes, as Parquet.")],
    environment: Annotated[str, typer.Option("--env")] = "production",
    ray: Annotated[str, typer.Option(help="host:port of a Ray cluster's head that computes it.")] = "",
    parts: Annotated[int, typer.Option(min=0, help="Tasks for each view on the cluster; 0: one a CPU.")] = 0,
) -> None:
    """Answer questions point in time, in batch: each row with what was known strictly before its time.

    A cluster that asks for a token gets it from RAY_AUTH_TOKEN.
    """
    if not out.parent.is_dir():
        raise InvalidInput(f"there is no folder {out.parent}", hint="make it, or choose another --out")
    cluster = _cluster(ray, parts) if ray else None
    with session.workspace() as workspace, output.progress("asking"):
        ctx = session.context(workspace, environment)
        frame = views.answering.answered(ctx, environment, service, questions, at, cluster=cluster)
        frame.write_parquet(out)
    output.show({"rows": frame.height, "columns": frame.columns, "file": str(out)})


def _cluster(address: str, parts: int) -> Any:
    if find_spec("ray") is None:
        raise InvalidInput("Ray is not installed", hint="pip install everloop[ray]")
    return views.cluster.Cluster(address, os.environ.get("RAY_AUTH_TOKEN", ""), parts)


@features.command("materialize")
def materialize(
    views: Annotated[list[str] | None, typer.Argument(help="These views only; all without.")] = None,
    environment: Annotated[str, typer.Option("--env")] = "production",
) -> None:
    """Bring the online store up to the environment's data heads."""
    with session.client() as client, output.progress("materializing"):
        found = client.call("features.materialize", environment=environment, views=views or [])
    output.show(found)


@features.command("parity")
def parity(
    endpoint: Annotated[str, typer.Argument(help="An endpoint that looks features up.")],
    environment: Annotated[str, typer.Option("--env")] = "production",
    sample: Annotated[int, typer.Option(min=1, help="How many predictions to compute again.")] = 1000,
    past: Annotated[bool, typer.Option("--past", help="Only what was found before.")] = False,
) -> None:
    """Compute served features again in batch, as of their time: they must be equal. Status 1 when they are not."""
    with session.client() as client:
        if past:
            listed = client.call("features.parities", endpoint=endpoint, environment=environment).parities
            output.rows(listed, ["until", "state", "summary", "evidence"], empty="nothing was compared yet")
            return
        with output.progress("computing again"):
            found = client.call("features.parity", endpoint=endpoint, environment=environment, sample=sample)
    output.show(found, found.summary)
    if found.rows:
        output.rows(found.rows, ["prediction", "column", "served", "batch"], empty="")
        raise typer.Exit(1)
