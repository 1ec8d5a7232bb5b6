"""Erasure: `everloop erase`, and what is asked and decided about it."""

from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (erase, erasures):
        app.command()(command)


def erase(
    subject: Annotated[str, typer.Option(help="The person's key, as the subject column has it.")] = "",
    column: Annotated[list[str] | None, typer.Option(help="A column that holds it, beside the tagged ones.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it stands in the receipt, so name nobody.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Finish an erasure that was cut off.")] = False,
) -> None:
    """Remove a person's rows from every version and store; the signed receipt names nobody."""
    with session.client() as client, output.progress("erasing"):
        if resume:
            output.show(client.call("data.erase_resume"))
        else:
            output.show(client.call("data.erase", subject=subject, columns=column or [], reason=reason))


def erasures() -> None:
    """Every erasure: its figures, its receipt, the models that wait for a decision."""
    with session.client() as client:
        output.show(client.call("data.erasures"))
