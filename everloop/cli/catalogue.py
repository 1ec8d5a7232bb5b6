"""The catalogue: search, what is known of an asset, tags and what scans found, lineage to the column."""

from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session

tags = typer.Typer(help="Tags of columns: what is sensitive, and what scans found.", no_args_is_help=True)
Asset = Annotated[str, typer.Argument(help="kind/name, for example data/people or view/load.")]
Column = Annotated[str, typer.Argument(help="A column of it.")]
Tag = Annotated[str, typer.Argument(help="personal, pseudonymous, special, aggregated, or a word of your own.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(search)
    app.command()(annotate)
    app.add_typer(tags, name="tags")


def search(
    words: Annotated[list[str], typer.Argument(help="All of them must be there; beginnings of words will do.")],
    kind: Annotated[str, typer.Option(help="Only assets of this kind.")] = "",
    limit: Annotated[int, typer.Option(help="How many to show.")] = 20,
) -> None:
    """Search names, descriptions, columns, tags, labels and owners; the best first."""
    with session.client() as client:
        found = client.call("catalogue.search", query=" ".join(words), kind=kind, limit=limit)
    rows = [
        {
            "asset": hit.asset.key,
            "version": f"v{hit.asset.number}",
            "owner": hit.asset.owner,
            "found in": ", ".join(hit.fields),
            "description": hit.asset.description,
        }
        for hit in found.hits
    ]
    output.rows(rows, ["asset", "version", "owner", "found in", "description"], empty="nothing found")


def annotate(
    asset: Asset,
    column: Annotated[str, typer.Option(help="Describe this column of it.")] = "",
    owner: Annotated[str | None, typer.Option(help="Who answers for it; empty takes it back.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is; empty takes it back.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="May be given more than once; replaces those before.")] = None,
) -> None:
    """Say who owns an asset and what it means; no version changes by it."""
    with session.client() as client:
        output.show(
            client.call(
                "catalogue.annotate", asset=asset, column=column, owner=owner, description=description, labels=label
            )
        )


@tags.command("show")
def show(asset: Asset) -> None:
    """Tags in force, and what waits for a decision."""
    with session.client() as client:
        output.show(client.call("sensitive.tags", asset=asset))


@tags.command("scan")
def scan(
    version: Annotated[str, typer.Argument(help="An id, a dataset's name, name@7 or name@staging.")],
    environment: Annotated[str, typer.Option("--env", help="Whose head a bare name means.")] = "production",
    text: Annotated[bool, typer.Option(help="Also read free text, by presidio.")] = False,
) -> None:
    """Look for personal data in a sample of a version, column by column."""
    with session.client() as client, output.progress(f"scanning {version}"):
        found = client.call("sensitive.scan", version=version, environment=environment, text=text)
    rows = [one.model_dump(mode="json") for one in found.found]
    output.rows(rows, ["column", "kind", "tag", "by", "passed", "looked_at"], empty="nothing personal was found")


@tags.command("add")
def add(asset: Asset, column: Column, tag: Tag) -> None:
    """Tag a column, in all versions."""
    with session.client() as client:
        output.show(client.call("sensitive.tag", asset=asset, column=column, tag=tag))


@tags.command("remove")
def remove(asset: Asset, column: Column, tag: Tag) -> None:
    """Take back a tag that was given by hand."""
    with session.client() as client:
        output.show(client.call("sensitive.tag", asset=asset, column=column, tag=tag, remove=True))


@tags.command("confirm")
def confirm(asset: Asset, column: Column, tag: Tag) -> None:
    """What a scan found is so: the column is masked from now on."""
    with session.client() as client:
        output.show(client.call("sensitive.decide", asset=asset, column=column, tag=tag, decision="confirm"))


@tags.command("dismiss")
def dismiss(
    asset: Asset, column: Column, tag: Tag, reason: Annotated[str, typer.Option(help="Why it is not so.")] = ""
) -> None:
    """What a scan found is not so; it will not be found again."""
    with session.client() as client:
        output.show(
            client.call("sensitive.decide", asset=asset, column=column, tag=tag, decision="dismiss", reason=reason)
        )


@tags.command("declassify")
def declassify(
    asset: Asset,
    column: Column,
    least: Annotated[int, typer.Option(help="Rows behind every value, at least; 0 takes it back.")],
    reason: Annotated[str, typer.Option(help="How that is known.")],
) -> None:
    """Declare how many rows are behind every value: over 10 or more, a mean is aggregated, not personal."""
    with session.client() as client:
        output.show(client.call("sensitive.declassify", asset=asset, column=column, least=least, reason=reason))
