"""The entry point: global options, one error shape, exit codes."""

import os
import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from everloop import __version__
from everloop.cli import access, assets, changes, data, demo, environments, features, operate, system, tracking
from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.errors import EverloopError

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
for module in (demo, system, assets, changes, environments, data, features, operate, tracking, access):
    module.add_to(app)


@app.callback()
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
    given = {"home": home, "project": project, "server": server, "token": token, "module": module}
    session.flags.update({name: value for name, value in given.items() if value is not None})


@app.command()
def version() -> None:
    """Print the version."""
    output.show({"version": __version__}, f"everloop {__version__}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. Nobody sees a traceback unless EVERLOOP_DEBUG is set."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    output.as_json = "--json" in words
    words = ["version" if word == "--version" else word for word in words if word != "--json"]
    try:
        code = app(words, standalone_mode=False)
    except EverloopError as error:
        if os.environ.get("EVERLOOP_DEBUG"):
            raise
        return output.fail(error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        output.err.print("stopped")
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        if os.environ.get("EVERLOOP_DEBUG"):
            raise
        kind = type(error).__name__
        return output.fail(
            EverloopError(f"{kind}: {error}", hint="this is a fault of Everloop; EVERLOOP_DEBUG=1 shows where")
        )
    return code if isinstance(code, int) else 0
