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

COMMANDS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Start": {
        "demo": ("demo", "The whole loop on a real year of flights, in minutes."),
        "init": (
            "system",
            "Make a workspace here: catalog, object store, signing key, environments with their first policy.",
        ),
        "up": ("system", "Start server, worker and gateway behind one address, until Ctrl-C."),
        "worker": (
            "system",
            "Do tasks (checks, retraining, refreshing) and the loop's duties, until Ctrl-C; `up` has some too.",
        ),
    },
    "The loop": {
        "run": ("assets", "Capture, build and train in a sandbox. What is unchanged is not run again."),
        "propose": (
            "changes",
            "Open a change: what the source would make different in the target, with the checks that it needs.",
        ),
        "check": (
            "changes",
            "Queue the checks that a change still needs; a worker runs them: only workers record evidence.",
        ),
        "approve": (
            "changes",
            "Approve a change as it stands now; the approval dies when its content, policy or evidence changes.",
        ),
        "merge": ("changes", "Merge a change whose checks passed and approvals hold."),
        "revert": ("changes", "Open a change that takes back a merged one."),
        "rollback": ("environments", "Point an environment back to what it held before; one compare-and-swap."),
        "changes": ("changes", "Changes to protected environments."),
        "diff": ("changes", "What is different between two environments."),
        "env": ("environments", "Environments: named pointers to snapshots."),
        "bind": ("system", "Set the value of a binding for an environment; sandboxes never see that of production."),
        "ci": (
            "ci",
            "All of a project's checks for a CI: definitions, data contracts, tests, a build, the target's checks.",
        ),
    },
    "Data and features": {
        "data": ("data", "Datasets and their versions."),
        "feed": ("feeds", "Live feeds: events that arrive become versions of a dataset."),
        "refresh": (
            "assets",
            "Bring an environment's data up to date; heads move when the blocking expectations pass.",
        ),
        "features": ("features", "Feature views and services."),
        "tags": ("catalogue", "Tags of columns: what is sensitive, and what scans found."),
        "search": ("catalogue", "Search names, descriptions, columns, tags, labels and owners; the best first."),
        "annotate": ("catalogue", "Say who owns an asset and what it means; no version changes by it."),
    },
    "Experiments and models": {
        "track": (
            "track",
            "Run a program as a tracking run: its output and measures are kept; mlflow clients in it write to the run.",
        ),
        "runs": ("runs", "Tracking runs: what was tried, and what they printed."),
        "baseline": (
            "searches",
            "A first model of a table, to be beaten: every algorithm cross-validated, the best kept, a report.",
        ),
        "searches": ("searches", "Searches: the best of many trials of a step."),
        "flows": ("flows", "Runs of flows: state, steps, cancel, approve, resume."),
        "cache": ("why", "What is reused, and why something was not."),
        "models": ("tracking", "Trained models, numbered by name."),
        "import": (
            "importing",
            "Bring experiments, runs, files and models over from another tracker. Doing it again adds what is missing.",
        ),
    },
    "Serving and monitoring": {
        "endpoints": ("operate", "Endpoints as wanted and as observed."),
        "watch": ("operate", "Look at every monitor's window that is due now, and let retrain rules fire."),
        "alarms": ("operate", "Alarms of monitors."),
    },
    "Where it came from": {
        "trace": ("operate", "From one answer back to its revision, model, rows, code, environment and approver."),
        "lineage": ("tracking", "What led to a version, and what was made from it."),
        "why": ("why", "Every difference between two versions of anything, walked through their lineage to its roots."),
        "bisect": (
            "bisect",
            "What a metric lost by: factors of two versions swapped, run again, their shares with intervals.",
        ),
        "reproduce": (
            "assets",
            "Run the recorded recipe again in a clean process and compare what comes out, byte by byte.",
        ),
    },
    "Governance": {
        "access": ("access", "Users, roles and tokens."),
        "audit": ("system", "The log of facts, newest first: who did what to what, and every change of state."),
        "verify": (
            "system",
            "Walk objects, versions, lineage, pointers and the audit chain; exit code 1 names the first broken link.",
        ),
        "erase": (
            "data_erasure",
            "Remove a person's rows from every version and store; the signed receipt names nobody.",
        ),
        "erasures": ("data_erasure", "Every erasure: its figures, its receipt, the models that wait for a decision."),
    },
    "Costs and operation": {
        "cost": ("costs", "What was used and paid, grouped; the dearest first."),
        "compute": ("costs", "Compute profiles: what steps run on, and what that costs."),
        "budget": ("costs", "Budgets of the project, people and runs."),
        "tasks": ("system", "What workers did and have to do, newest first."),
        "operations": ("system", "Everything that Everloop can be asked, with the permission that it needs."),
        "call": ("system", "Ask any operation by name."),
        "deploy": ("deploy", "Everloop on Kubernetes, steps on Ray."),
    },
}
"""Heading of the help -> its commands, each with the module of this package that has it and its help's first line."""

ALONE: Mapping[tuple[str, str], str] = {
    ("data", "status"): "data_status",
    **{("flows", word): "flows_asked" for word in ("list", "show", "cancel", "approve", "refuse")},
}
"""Lines that need less than what the module of their first command loads -> the module that has them alone."""


def assemble(words: Iterable[str]) -> typer.Typer:
    """The application for a line: commands that it may mean are loaded, of the others name and first line are known."""
    app = typer.Typer(
        name="everloop",
        help="The machine-learning lifecycle as one versioned, audited loop.",
        epilog="Every command takes --json. Exit codes: 0 done, 1 fault, 2 wrong input, 3 not allowed, 4 not found, "
        "5 refused, 6 unavailable.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(options)
    app.command(rich_help_panel=next(iter(COMMANDS)))(version)
    spoken = list(words)
    said = set(spoken)
    alone = {pair[0]: ALONE[pair] for pair in itertools.pairwise(spoken) if pair in ALONE}
    meant = {module for commands in COMMANDS.values() for name, (module, _) in commands.items() if name in said}
    for heading, commands in COMMANDS.items():
        for name, (module, line) in commands.items():
            if module not in meant:
                app.command(name, help=line, rich_help_panel=heading)(_elsewhere)
    for module in sorted(meant):
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
        code = assemble([*words, *_completed()])(words, prog_name="everloop", standalone_mode=False)
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


def _completed() -> list[str]:
    """The words of a line that a shell asks to complete; bash and the others say them in variables of their own."""
    return f"{os.environ.get('COMP_WORDS', '')} {os.environ.get('_TYPER_COMPLETE_ARGS', '')}".split()


def is_usage(error: Exception) -> bool:
    """Whether the line was wrong, says the parser. Typer brings a click of its own or uses the installed one."""
    return any(cls.__name__ == "ClickException" for cls in type(error).__mro__)


def _explain(error: Any) -> int:
    """Show usage and what is wrong with the line, as the parser does; one JSON object under `--json`."""
    if output.as_json:
        return output.fail(InvalidInput(error.format_message(), hint="everloop --help"))
    error.show()
    return int(error.exit_code)
