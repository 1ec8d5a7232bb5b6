"""Why two versions differ."""

from typing import Annotated

import typer
from rich.text import Text

from everloop.cli.output import output
from everloop.cli.session import session


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(why)


def why(
    old: Annotated[str, typer.Argument(help="model/delay@6, data/flights@2, production, an id, a prediction's id.")],
    new: Annotated[str, typer.Argument(help="The same of the other one.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown, with the hunks of code.")] = False,
) -> None:
    """Every difference between two versions of anything, walked through their lineage to its roots.

    Manifests are read, never rows. What both lineages share is not followed: nothing above it can matter.
    """
    with session.client() as client:
        found = client.call("lineage.why", old=old, new=new)
    output.show(found, _coloured(found.markdown if markdown else found.text))


def _coloured(text: str) -> Text:
    """Lines of a diff in the colours that people know."""
    whole = Text()
    for line in text.splitlines():
        bare = line.strip()
        style = {"+": "green", "-": "red", "@": "cyan"}.get(bare[:1], "") if line.startswith("      ") else ""
        whole.append(line + "\n", style)
    whole.rstrip()
    return whole
