"""Rows that break an expectation, as a file."""

import base64
from pathlib import Path
from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.errors import InvalidInput

FORMATS = {".csv": "csv", ".parquet": "parquet"}


def failing(
    dataset: Annotated[str, typer.Argument()],
    expectation: Annotated[str, typer.Argument(help="As `everloop data contract` says it.")],
    to: Annotated[Path, typer.Option("--to", help="A file: .csv or .parquet.")],
    version: Annotated[str, typer.Option(help="A version; by default the one that was checked last.")] = "",
    environment: Annotated[str, typer.Option("--env", help="Whose contract is meant.")] = "production",
) -> None:
    """Save the rows that break an expectation; columns that you may not see are masked."""
    format_ = FORMATS.get(to.suffix.lower())
    if format_ is None:
        raise InvalidInput(f"{to} is no file of rows", hint="a name that ends in .csv or .parquet")
    with session.client() as client, output.progress(f"reading {dataset}"):
        found = client.call(
            "data.failing",
            name=dataset,
            expectation=expectation,
            version=version,
            format=format_,
            environment=environment,
        )
    to.write_bytes(base64.b64decode(found.content))
    told = found.model_dump(exclude={"content"}) | {"file": str(to)}
    more = ", and there are more" if found.cut else ""
    output.show(told, f"{found.rows} rows of {found.name} v{found.number} in {to}{more}")
