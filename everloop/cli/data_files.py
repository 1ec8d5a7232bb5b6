"""Folders of files: what a version holds, and checking it out."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.errors import InvalidInput
from everloop.data.trees.checkout import checkout as check_out

Version = Annotated[str, typer.Argument(help="A folder's name, name@7, name@staging, name@2026-01-31T12:00Z or an id.")]
Where = Annotated[str, typer.Option("--env", help="Whose head a bare name means.")]


def files(
    version: Version,
    prefix: Annotated[str, typer.Option(help="What the paths begin with.")] = "",
    limit: Annotated[int, typer.Option(help="How many are shown.")] = 100,
    environment: Where = "production",
) -> None:
    """The files of a version of a folder."""
    with session.client() as client:
        found = client.call("data.files", version=version, environment=environment, prefix=prefix, limit=limit)
    rows = [item.model_dump() for item in found.items]
    title = f"{found.name} v{found.number}: {found.files} files, {found.bytes} bytes"
    output.rows(rows, ["path", "size", "media_type", "digest"], empty="no such file", title=title)


def checkout(
    version: Version,
    folder: Annotated[Path, typer.Argument(help="Where the files go; only what differs is written.")],
    force: Annotated[bool, typer.Option("--force", help="Write over files that were changed there.")] = False,
    environment: Where = "production",
) -> None:
    """Put the files of a version into a folder."""
    if session.settings.server:
        raise InvalidInput(
            "a checkout reads the object store", hint="run it where the workspace's store is at hand (--home)"
        )
    with session.workspace() as workspace, output.progress(f"checking out {version}"):
        with session.client() as client:
            found = client.call("data.files", version=version, environment=environment, limit=0)
        done = check_out(session.context(workspace), found.id, folder, force=force)
    output.show(
        asdict(done),
        f"{done.name} v{done.number} in {folder}: {done.written} written ({done.bytes} bytes), {done.kept} kept, "
        f"{done.removed} removed",
    )
