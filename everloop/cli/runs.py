"""Runs: what was tried, how it went, and what it printed."""

import os
import subprocess
import time
from typing import Annotated

import typer

from everloop.cli.assets import opened
from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.errors import InvalidInput
from everloop.core.ports import Line
from everloop.flows.executors.prints import Prints
from everloop.flows.observation.console import secrets_of
from everloop.flows.observation.observed import Observed
from everloop.workspace.runs import TrackedRuns

runs = typer.Typer(help="Tracking runs: what was tried, and what they printed.", no_args_is_help=True)
_POLL_SECONDS = 0.5


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(runs, name="runs")
    app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(track)


@runs.command("list")
def list_runs(
    experiment: Annotated[str, typer.Argument(help="Its name or id; every one when left out.")] = "",
    filter_: Annotated[str, typer.Option("--filter", help="In MLflow's language: metrics.auc > 0.7")] = "",
    limit: Annotated[int, typer.Option(help="How many.")] = 20,
) -> None:
    """Runs, the newest first."""
    with session.client() as client:
        found = client.call("runs.list", experiment=experiment, filter=filter_, limit=limit).runs
    columns = ["id", "experiment_name", "status", "seconds"]
    output.rows(found, columns, empty="no runs yet: everloop run")


@runs.command("show")
def show(run: Annotated[str, typer.Argument(help="Its id.")]) -> None:
    """One run with its parameters, newest metrics and files."""
    with session.client() as client:
        output.show(client.call("runs.show", run=run))


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
                _print(line)
            if (seen.ended and seen.position >= seen.total) or not follow:
                return
            if not seen.lines:
                time.sleep(_POLL_SECONDS)
            seen = client.call("runs.console", run=run, after=seen.position)


def track(
    command: Annotated[list[str], typer.Argument(help="A program and its arguments: python train.py --depth 3")],
    experiment: Annotated[str, typer.Option(help="The experiment of its run.")] = "scripts",
) -> None:
    """Run a program as a tracking run: its output and measures are kept; an mlflow client in it writes to that run."""
    with opened() as (workspace, uri):
        ctx = session.context(workspace)
        sink = TrackedRuns(ctx, uri)
        run = sink.start(f"script/{experiment}", {}, {"mlflow.source.name": " ".join(command)})
        environ = sink.environ("", run)
        secrets = secrets_of(ctx.bindings, environ)
        observed = Observed(experiment, recipe="", run=run, sink=sink, now=ctx.now, secrets=secrets, said=_echo)
        status = "FAILED"
        try:
            code = _ran(command, {**os.environ, "PYTHONUNBUFFERED": "1", **environ}, observed)
            status = "FINISHED" if code == 0 else "FAILED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            observed.ended()
            sink.finish(run, status=status, metrics={})
    output.err.print(f"[dim]run {run} {status.lower()}: everloop runs show {run}[/]", soft_wrap=True)
    raise typer.Exit(code)


def _ran(command: list[str], environ: dict[str, str], observed: Observed) -> int:
    """Run a program to its end, heard and measured; its exit code, as a shell gives it."""
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ)  # noqa: S603 - the user's own command line
    except OSError as error:
        raise InvalidInput(f"{command[0]} does not start: {error.strerror}", hint="is it on the PATH?") from error
    observed.began(child.pid)
    prints = Prints(child, observed)
    try:
        code = child.wait()
    except KeyboardInterrupt:  # the terminal has told the child too
        child.wait()
        raise
    finally:
        prints.finish()
    return code if code >= 0 else 128 - code


def _echo(_step: str, line: Line) -> None:
    _print(line)


def _print(line: object) -> None:
    if output.as_json:
        output.show(line)
        return
    text = str(getattr(line, "text", ""))
    if getattr(line, "stream", "out") == "err":
        output.err.print(text, markup=False, soft_wrap=True)
    else:
        output.out.print(text, markup=False, soft_wrap=True)
