"""`everloop demo`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from everloop.demo.story import LAST, tell


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(demo)


def demo(
    folder: Annotated[Path | None, typer.Option(help="A new folder; by default a temporary one.")] = None,
    port: Annotated[int, typer.Option(help="Port of its server.")] = 5055,
    until: Annotated[int, typer.Option(min=5, max=12, help="The last month that is replayed.")] = LAST,
    stay: Annotated[bool, typer.Option(help="Keep the pages up at the end, until Ctrl-C.")] = False,
) -> None:
    """The whole loop on a real year of flights, in minutes."""
    place = folder or Path(tempfile.mkdtemp(prefix="everloop-demo-"))
    tell(place.resolve(), port, last=until, stay=stay)
