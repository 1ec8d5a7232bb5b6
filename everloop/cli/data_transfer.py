"""Versions of data to and from other stores, and other columns for a dataset."""

from itertools import chain
from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session
from everloop.client import local
from everloop.data.transferring.bills import opened
from everloop.store.location import open_store
from everloop.store.transfer import transfer

Store = Annotated[str, typer.Argument(help="A folder, or s3://bucket/prefix.")]


def push(
    version: Annotated[str, typer.Argument(help="An id, a dataset's name, name@7 or name@staging.")],
    store: Store,
    environment: Annotated[str, typer.Option("--env", help="Whose head a bare name means.")] = "production",
) -> None:
    """Copy a version to a store: only what is missing there. Prints the bill by which it is pulled."""
    with session.workspace() as workspace, output.progress(f"pushing {version}"):
        found = local(session.context(workspace)).call("data.bill", version=version, environment=environment)
        sent = transfer(workspace.store, open_store(store), chain(found.objects, [found.bill]))
    shown = {"name": found.name, "number": found.number, "bill": found.bill}
    output.show({**shown, "sent": len(sent.copied), "sent_bytes": sent.bytes, "present": sent.present})


def pull(
    bill: Annotated[str, typer.Argument(help="What `everloop data push` printed.")],
    store: Store,
) -> None:
    """Take over a version from a store: only what is missing here is copied, and every part is verified."""
    source = open_store(store)
    with session.workspace() as workspace, output.progress(f"pulling {bill[:12]}"):
        listed = opened(source, bill)
        got = transfer(source, workspace.store, chain([bill], listed.objects))
        made = local(session.context(workspace)).call("data.receive", name=listed.name, bill=bill)
    shown = {"id": made.id, "name": made.name, "number": made.number, "new": made.new}
    output.show({**shown, "copied": len(got.copied), "copied_bytes": got.bytes, "present": got.present})


def evolve(
    dataset: Annotated[str, typer.Argument(help="A dataset that no function makes.")],
    drop: Annotated[list[str] | None, typer.Option(help="A column that goes; may be given twice.")] = None,
    rename: Annotated[list[str] | None, typer.Option(help="old=new; may be given twice.")] = None,
    retype: Annotated[list[str] | None, typer.Option(help="column=type, as `data show` names types.")] = None,
    environment: Annotated[str, typer.Option("--env", help="Whose head is edited, and moves.")] = "production",
) -> None:
    """Drop, rename or convert columns in the next version; rows and earlier versions stay."""
    names, types = (
        {text.partition("=")[0]: text.partition("=")[2] for text in given or []} for given in (rename, retype)
    )
    with session.client() as client:
        told = {"drop": drop or [], "rename": names, "retype": types}
        output.show(client.call("data.evolve", dataset=dataset, environment=environment, **told))
