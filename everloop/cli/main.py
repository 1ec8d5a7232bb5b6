"""The entry point: which commands there are, global options, one error shape, exit codes.

A line of the command line loads the modules of the commands that it names and no other: `everloop --help` and
`everloop version` answer in a fifth of a second, and only what works on a workspace loads the database's library.
"""

import itertools
import os
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from everloop import __version__
from everloop.cli.options import given
from everloop.cli.output import output
from everloop.core.errors import EverloopError, InvalidInput

COMMANDS: Mapping[str, Mapping[str, str]] = {
    "demo": {"demo": "The whole loop on a real year of flights, in minutes."},
    "system": {
        "init": "Make a workspace here: catalog, object store, signing key, environments with their first policy.",
        "up": "Start server, worker and gateway behind one address, until Ctrl-C.",
        "worker": "Do tasks (checks, retraining, refreshing) and the loop's duties, until Ctrl-C; `up` has some too.",
        "verify": "Walk objects, versions, lineage, pointers and the audit chain; exit code 1 names the first broken "
        "link.",
        "operations": "Everything that Everloop can be asked, with the permission that it needs.",
        "call": "Ask any operation by name.",
        "tasks": "What workers did and have to do, newest first.",
        "audit": "The log of facts, newest first: who did what to what, and every change of state.",
        "bind": "Set the value of a binding for an environment; sandboxes never see that of production.",
    },
    "assets": {
        "run": "Capture, build and train in a sandbox. What is unchanged is not run again.",
        "refresh": "Bring an environment's data up to date; heads move when the blocking expectations pass.",
        "reproduce": "Run the recorded recipe again in a clean process and compare what comes out, byte by byte.",
    },
    "ci": {
        "ci": "All of a project's checks for a CI: definitions, data contracts, tests, a build, the target's checks."
    },
    "changes": {
        "propose": "Open a change: what the source would make different in the target, with the checks that it needs.",
        "check": "Queue the checks that a change still needs; a worker runs them: only workers record evidence.",
        "approve": "Approve a change as it stands now; the approval dies when its content, policy or evidence changes.",
        "merge": "Merge a change whose checks passed and approvals hold.",
        "revert": "Open a change that takes back a merged one.",
        "diff": "What is different between two environments.",
        "changes": "Changes to protected environments.",
    },
    "environments": {
        "rollback": "Point an environment back to what it held before; one compare-and-swap.",
        "env": "Environments: named pointers to snapshots.",
    },
    "catalogue": {
        "search": "Search names, descriptions, columns, tags, labels and owners; the best first.",
        "annotate": "Say who owns an asset and what it means; no version changes by it.",
        "tags": "Tags of columns: what is sensitive, and what scans found.",
    },
    "data": {"data": "Datasets and their versions."},
    "data_erasure": {
        "erase": "Remove a person's rows from every version and store; the signed receipt names nobody.",
        "erasures": "Every erasure: its figures, its receipt, the models that wait for a decision.",
    },
    "feeds": {"feed": "Live feeds: events that arrive become versions of a dataset."},
    "features": {"features": "Feature views and services."},
    "operate": {
        "trace": "From one answer back to its revision, model, rows, code, environment and approver.",
        "watch": "Look at every monitor's window that is due now, and let retrain rules fire.",
        "endpoints": "Endpoints as wanted and as observed.",
        "alarms": "Alarms of monitors.",
    },
    "costs": {
        "cost": "What was used and paid, grouped; the dearest first.",
        "compute": "Compute profiles: what steps run on, and what that costs.",
        "budget": "Budgets of the project, people and runs.",
    },
    "searches": {
        "baseline": "A first model of a table, to be beaten: every algorithm cross-validated, the best kept, a report.",
        "searches": "Searches: the best of many trials of a step.",
    },
    "flows": {"flows": "Runs of flows: state, steps, cancel, approve, resume."},
    "bisect": {
        "bisect": "What a metric lost by: factors of two versions swapped, run again, their shares with intervals.",
    },
    "why": {
        "cache": "What is reused, and why something was not.",
        "why": "Every difference between two versions of anything, walked through their lineage to its roots.",
    },
    "tracking": {
        "lineage": "What led to a version, and what was made from it.",
        "models": "Trained models, numbered by name.",
    },
    "runs": {"runs": "Tracking runs: what was tried, and what they printed."},
    "track": {
        "track": "Run a program as a tracking run: its output and measures are kept; an mlflow client in it writes to "
        "that run."
    },
    "deploy": {"deploy": "Everloop on Kubernetes, steps on Ray."},
    "access": {"access": "Users, roles and tokens."},
    "importing": {
        "import": "Bring experiments, runs, files and models over from another tracker. Doing it again adds what is "
        "missing."
    },
}
"""Module of this package -> its commands, each with the first line of its help."""

ALONE: Mapping[tuple[str, str], str] = {("data", "status"): "data_status"}
"""Lines that need less than what the module of their first command loads -> the module that has them alone."""


def assemble(words: Iterable[str]) -> typer.Typer:
    """The application for a line: commands that it may mean are loaded, of the others name and first line are known."""
    app = typer.Typer(
        name="everloop",
        help="The machine-learning lifecycle as one versioned, audited loop.",
        epilog="Every command takes --json. Exit codes: 0 done, 1 fault, 2 wrong input, 3 not allowed, 4 not found, "
        "5 refused, 6 unavailable.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(options)
    app.command()(version)
    spoken = list(words)
    said = set(spoken)
    alone = {pair[0]: ALONE[pair] for pair in itertools.pairwise(spoken) if pair in ALONE}
    for module, commands in COMMANDS.items():
        if said.isdisjoint(commands):
            for name, line in commands.items():
                app.command(name, help=line)(_elsewhere)
        else:
            import_module(f"everloop.cli.{alone.get(module, module)}").add_to(app)
    return app


def options(
    home: Annotated[Path | None, typer.Option(help="The workspace's folder.", envvar="EVERLOOP_HOME")] = None,
    project: Annotated[str | None, typer.Option(help="The project that is meant.", envvar="EVERLOOP_PROJECT")] = None,
    server: Annotated[
        str | None, typer.Option(help="Work on this server instead of local files.", envvar="EVERLOOP_SERVER")
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Token to act by.", envvar="EVERLOOP_TOKEN", show_envvar=True)
    ] = None,
    module: Annotated[
        str | None, typer.Option(help="Python module that defines the project.", envvar="EVERLOOP_MODULE")
    ] = None,
) -> None:
    """Options that come before the command."""
    values = {"home": home, "project": project, "server": server, "token": token, "module": module}
    given.update({name: value for name, value in values.items() if value is not None})


def version() -> None:
    """Print the version."""
    output.show({"version": __version__}, f"everloop {__version__}")


def _elsewhere() -> None:
    """Stands for a command of a module that the line does not name; it is listed, never run."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. Nobody sees a traceback unless EVERLOOP_DEBUG is set."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    output.as_json = "--json" in words
    words = ["version" if word == "--version" else word for word in words if word != "--json"]
    try:
        code = assemble(words)(words, prog_name="everloop", standalone_mode=False)
    except EverloopError as error:
        if os.environ.get("EVERLOOP_DEBUG"):
            raise
        return output.fail(error)
    except (KeyboardInterrupt, typer.Abort):
        output.err.print("stopped")
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        if is_usage(error):
            return _explain(error)
        if os.environ.get("EVERLOOP_DEBUG"):
            raise
        kind = type(error).__name__
        return output.fail(
            EverloopError(f"{kind}: {error}", hint="this is a fault of Everloop; EVERLOOP_DEBUG=1 shows where")
        )
    return code if isinstance(code, int) else 0


def is_usage(error: Exception) -> bool:
    """Whether the line was wrong, says the parser. Typer brings a click of its own or uses the installed one."""
    return any(cls.__name__ == "ClickException" for cls in type(error).__mro__)


def _explain(error: Any) -> int:
    """Show usage and what is wrong with the line, as the parser does; one JSON object under `--json`."""
    if output.as_json:
        return output.fail(InvalidInput(error.format_message(), hint="everloop --help"))
    error.show()
    return int(error.exit_code)
