"""Runs: what was tried, how it went, and what it printed."""

import time
from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session

runs = typer.Typer(help="Tracking runs: what was tried, and what they printed.", no_args_is_help=True)
_POLL_SECONDS = 0.5


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(runs, name="runs")


@runs.command("list")
def list_runs(
    experiment: Annotated[str, typer.Argument(help="Its name or id; every one when left out.")] = "",
    filter_: Annotated[str, typer.Option("--filter", help="In MLflow's language: metrics.auc > 0.7")] = "",
    limit: Annotated[int, typer.Option(help="How many.")] = 20,
) -> None:
    """Runs, the newest first."""
    with session.client() as client:
        wanted = (experiment,) if experiment else ()
        found = client.call("runs.table", experiments=wanted, filter=filter_, limit=limit, count=False).rows
    columns = ["id", "experiment_name", "status", "seconds"]
    output.rows(found, columns, empty="no runs yet: everloop run")


@runs.command("show")
def show(run: Annotated[str, typer.Argument(help="Its id.")]) -> None:
    """One run with its parameters, newest metrics and files."""
    with session.client() as client:
        output.show(client.call("runs.show", run=run))


@runs.command("seal")
def seal(run: Annotated[str, typer.Argument(help="Its id.")]) -> None:
    """Keep what a run holds now as an immutable version that evidence and model versions can cite."""
    with session.client() as client:
        made = client.call("runs.seal", run=run)
    if output.as_json:
        output.show(made)
    else:
        output.out.print(f"seal {made.number} of run {run}: {made.id}", soft_wrap=True)


@runs.command("seals")
def seals(run: Annotated[str, typer.Argument(help="Its id.")]) -> None:
    """The seals of a run, newest first, and what of the run changed since each."""
    with session.client() as client:
        found = client.call("runs.seals", run=run).seals
    output.rows(found, ["number", "id", "status", "actor", "changed"], empty="no seals yet: everloop runs seal RUN")


@runs.command("logs")
def logs(
    run: Annotated[str, typer.Argument(help="A run's id, or the recipe of a step without a run.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    tail: Annotated[int, typer.Option(help="Begin with the last lines only.", min=1, max=10_000)] = 10_000,
) -> None:
    """What a run printed, both streams in order; under `--json` a list of lines with their times."""
    with session.client() as client:
        seen = client.call("runs.console", run=run, tail=True, limit=tail)
        if output.as_json and not follow:
            output.show(seen)
            return
        if tail == 10_000 and seen.total > len(seen.lines):
            output.err.print(f"[dim]lines before {seen.total - len(seen.lines)} are not shown[/]")
        while True:
            for line in seen.lines:
                print_line(line)
            if (seen.ended and seen.position >= seen.total) or not follow:
                return
            if not seen.lines:
                time.sleep(_POLL_SECONDS)
            seen = client.call("runs.console", run=run, after=seen.position)


def print_line(line: object) -> None:
    """Show a line on the stream that it came from; under `--json` as an object."""
    if output.as_json:
        output.show(line)
        return
    text = str(getattr(line, "text", ""))
    if getattr(line, "stream", "out") == "err":
        output.err.print(text, markup=False, soft_wrap=True)
    else:
        output.out.print(text, markup=False, soft_wrap=True)
