"""Any program as a tracking run."""

import os
import subprocess
from typing import Annotated

import typer

from everloop.cli.assets import opened
from everloop.cli.output import output
from everloop.cli.runs import print_line
from everloop.cli.session import session
from everloop.core.errors import InvalidInput
from everloop.core.ports import Line
from everloop.flows.executors.prints import Prints
from everloop.flows.observation.console import secrets_of
from everloop.flows.observation.observed import Observed
from everloop.workspace.runs import TrackedRuns


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(track)


def track(
    command: Annotated[list[str], typer.Argument(help="A program and its arguments: python train.py --depth 3")],
    experiment: Annotated[str, typer.Option(help="The experiment of its run.")] = "scripts",
) -> None:
    """Run a program as a tracking run: its output and measures are kept; mlflow clients in it write to the run."""
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
    prints = Prints(child.stdout, child.stderr, observed)
    try:
        code = child.wait()
    except KeyboardInterrupt:  # the terminal has told the child too
        child.wait()
        raise
    finally:
        prints.finish()
    return code if code >= 0 else 128 - code


def _echo(_step: str, line: Line) -> None:
    print_line(line)
