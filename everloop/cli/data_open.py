"""Versions opened to other engines as Iceberg and Delta tables."""

from pathlib import Path
from typing import Annotated, Any

import typer

from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.errors import InvalidInput, NotFound
from everloop.data import opening

Version = Annotated[
    str, typer.Argument(help="A dataset's name, name@7, name@staging, name@2026-01-31T12:00Z or an id.")
]


def open_table(
    version: Version,
    format_: Annotated[str, typer.Option("--as", help="iceberg or delta.")],
    to: Annotated[str, typer.Option("--to", help="The table's folder, or s3://bucket/prefix.")],
    *,
    history: Annotated[int, typer.Option(help="How many versions before it are shown too, to travel to.")] = 0,
    without: Annotated[list[str] | None, typer.Option(help="A column to leave out; may be given twice.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Write parts that lack rows whole, for engines without delete vectors.")
    ] = False,
    store: Annotated[str, typer.Option("--store-at", help="Where engines find the object store, as a URL.")] = "",
    environment: Annotated[str, typer.Option("--env", help="Whose head a bare name means.")] = "production",
) -> None:
    """Open a version to Spark, Trino, DuckDB and others: a table over the files as they are, with metadata only.

    Open a later version into the same folder, and the table shows both. What it shows is kept until it is closed.
    """
    if session.settings.server:
        raise InvalidInput("a table leads to the object store", hint="run it where the store is at hand (--home)")
    asked: dict[str, Any] = {"format": format_, "location": _location(to), "history": history, "plain": plain}
    with session.workspace() as workspace, output.progress(f"opening {version}"):
        with session.client() as client:
            found = client.call(
                "data.open", version=version, environment=environment, without=without or [], store=store, **asked
            )
        contents = {name: workspace.store.get(identity) for name, identity in found.files.items()}
        opening.place(found.location, opening.Files(contents, found.links, found.times), found.table, workspace.store)
    told = found.model_dump(exclude={"files", "links", "times"}) | {
        "metadata_bytes": sum(len(content) for content in contents.values())
    }
    output.show(told, _said(told))


def opened() -> None:
    """The tables of other formats that stand open."""
    with session.client() as client:
        found = client.call("data.opened")
    rows = [{**one.model_dump(), "versions": ", ".join(map(str, one.versions))} for one in found.items]
    output.rows(rows, ["name", "format", "versions", "rows", "location", "table"], empty="no table stands open")


def close(
    table: Annotated[str, typer.Argument(help="Its folder, or its id as `everloop data opened` says it.")],
) -> None:
    """Remove an open table; its versions are kept for it no longer."""
    with session.client() as client:
        items = client.call("data.opened").items
        one = next(
            (item for item in items if table in (item.table, item.location) or _location(table) == item.location), None
        )
        if one is None:
            raise NotFound(f"no open table is {table}", hint="`everloop data opened` lists them")
        client.call("data.close", table=one.table)
    removed = opening.withdraw(one.location, one.table)
    output.show(one.model_dump(), f"{one.location}: {'removed' if removed else 'closed; its folder was gone'}")


def _location(to: str) -> str:
    return to.rstrip("/") if "://" in to else Path(to).absolute().as_uri()


def _said(told: dict[str, Any]) -> str:
    shown = ", ".join(f"v{number}" for number in told["versions"])
    lines = [f"{told['name']} ({shown}) as {told['format']} in {told['location']}, {told['metadata_bytes']} bytes"]
    if told["folded"]:
        lines.append(
            f"{told['folded']} parts were written whole ({told['written']} bytes), since columns of theirs lay apart"
        )
    if told["left_out"]:
        lines.append("not shown: " + ", ".join(f"v{number}" for number in told["left_out"]))
    return "\n".join(lines)
