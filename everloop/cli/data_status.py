"""`everloop data status`: a module of its own, for it needs no workspace and answers at once."""

import time
from pathlib import Path
from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.data.trees.status import status as status_of


def add_to(app: typer.Typer) -> None:
    """Register `data status` alone, for a line that names it."""
    group = typer.Typer(no_args_is_help=True)
    group.callback()(_group)
    group.command("status")(status)
    app.add_typer(group, name="data")


def _group() -> None:
    """Datasets and their versions."""


def status(folder: Annotated[Path, typer.Argument(help="A folder that `everloop data checkout` made.")]) -> None:
    """What differs in a checked-out folder from its version; exit code 1 when anything does."""
    found = status_of(folder, now=time.time_ns())
    value = {name: getattr(found, name) for name in ("name", "number", "version", "added", "modified", "removed")}
    lines = [f"{word} {path}" for word in ("added", "modified", "removed") for path in value[word]]
    lines += ["a checkout was stopped here; do it again"] if found.unfinished else []
    output.show(
        {**value, "unchanged": found.unchanged, "unfinished": found.unfinished, "clean": found.clean},
        "\n".join([f"{found.name} v{found.number}: " + ("clean" if found.clean else f"{len(lines)} differ"), *lines]),
    )
    if not found.clean:
        raise typer.Exit(1)
