"""Why two versions differ."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from everloop.cli.output import output
from everloop.cli.session import session

cache = typer.Typer(help="What is reused, and why something was not.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(why)
    app.add_typer(cache, name="cache")


@cache.command("explain")
def explain(step: Annotated[str, typer.Argument(help="model/delay, or a name that only one kind has.")]) -> None:
    """Which part of a step's recipe changed, so that it ran again; and what it read that nobody declared."""
    with session.client() as client:
        found = client.call("cache.explain", step=step)
    lines = [f"{change.part}: {change.text}" for change in found.changes]
    if not lines:
        lines = ["it ran once" if not found.old else "nothing that is recorded differs"]
    lines += [f"reads undeclared: {name}" for name in found.leaks]
    lines += [f"pinned by how it is made: {name}" for name in found.opaque]
    output.show(found, escape("\n".join(lines)))


def why(
    old: Annotated[str, typer.Argument(help="model/delay@6, data/flights@2, production, an id, a prediction's id.")],
    new: Annotated[str, typer.Argument(help="The same of the other one.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown, with the hunks of code.")] = False,
) -> None:
    """Every difference between two versions of anything, walked through their lineage to its roots."""
    # manifests are read, never rows; what both lineages share is not followed: nothing above it can matter
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
